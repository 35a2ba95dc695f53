"""A real registry in a process of its own, on a free port, stopped by its own process id."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

_PROGRAM = """
import json, sys
from argosy.server.serve import serve
from argosy.server.settings import Collection, Content, Limits, Listen, Log, Settings, Storage, Tls
data, workers, sparse, grace, cert, key, limits = sys.argv[1:]
settings = Settings(
    data=data,
    listen=Listen(port=0, workers=int(workers), tls=Tls(certificate=cert, key=key) if cert else None),
    storage=Storage(reserve_bytes=0),
    content=Content(sparse=sparse == "1"),
    gc=Collection(interval_seconds=0.2, grace_seconds=float(grace), trash_seconds=float(grace)),
    log=Log(access=False),
    limits=Limits(**json.loads(limits)),
)
serve(settings, lambda url: print(url, flush=True))
"""


class Process:
    """`argosy serve`, started and ready."""

    def __init__(
        self,
        data: str,
        *,
        workers: int = 1,
        sparse: bool = False,
        grace: float = 86400.0,
        certificate: tuple[str, str] = ("", ""),
        limits: Mapping[str, float] | None = None,
    ) -> None:
        arguments = [data, str(workers), "1" if sparse else "0", str(grace), *certificate]
        arguments.append(json.dumps(limits or {}))
        began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.url = self._first_line()
        self.seconds_to_ready = time.monotonic() - began
        self.port = urlsplit(self.url).port or 0

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 30)
        line = self._process.stdout.readline().decode().strip() if ready else ""
        if not line:
            self.kill()
            raise AssertionError("the registry did not start")
        return line

    @property
    def pid(self) -> int:
        return self._process.pid

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def ask(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = self.connect()
        try:
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, target, body, fields)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(30)
        self._close()
        return status

    def kill(self) -> None:
        """`kill -9` of the whole group: nobody gets to say goodbye."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._close()

    def _close(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process.poll() is None:
            self.kill()


def children(pid: int) -> list[int]:
    """The process ids of what a process has begun, such as the workers of a registry."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]
