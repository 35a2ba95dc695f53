"""Two registries over one PostgreSQL and one object store, behind a front that sends each request to the next one."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import pathlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import yaml

from tests.server.services import PostgresqlCluster, S3Server, stop

_RUN = """
import sys
from argosy.server import config
from argosy.server.serve import serve
serve(config.load(sys.argv[1]), lambda url: print(url, flush=True))
"""


class Running:
    """A registry in a process of its own; `url` is where it listens, once it is ready."""

    def __init__(self, directory: pathlib.Path, document: dict[str, object]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "registry.yaml"
        path.write_text(yaml.safe_dump({"data": str(directory / "data"), **document}))
        self.directory = directory
        self._log = open(directory / "log", "ab")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN, str(path)],
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url, self.log()
        self.address = self.url.rpartition("//")[2]

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self) -> int:
        code = stop(self.process)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()
        return code


@contextlib.contextmanager
def running(directory: pathlib.Path, document: dict[str, object]) -> Iterator[Running]:
    """A registry for the length of the block."""
    server = Running(directory, document)
    try:
        yield server
    finally:
        server.stop()


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


def ask(
    address: str,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    host, _, port = address.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(
            response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        )


def shared(postgresql: PostgresqlCluster, objects: S3Server, **more: object) -> dict[str, object]:
    """The configuration of replicas over a new database and a new bucket."""
    return {
        "listen": {"port": 0},
        "metadata": {"type": "postgresql", "postgresql": {"dsn": postgresql.database()}},
        "storage": {
            "type": "s3",
            "s3": {
                "bucket": objects.bucket(),
                "endpoint": objects.endpoint,
                "access_key": objects.access_key,
                "secret_key": objects.secret_key,
            },
        },
        **more,
    }


class RoundRobin:
    """A front that hands every request to the next server, by making each the last of its connection."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._next = itertools.cycle(addresses)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.served: dict[str, int] = dict.fromkeys(addresses, 0)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                more = client.recv(65536)
                if not more:
                    return
                head += more
            address = next(self._next)
            self.served[address] += 1
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                line, _, rest = head.partition(b"\r\n")
                server.sendall(line + b"\r\nConnection: close\r\n" + rest)
                upwards = threading.Thread(target=_pump, args=(client, server), daemon=True)
                upwards.start()
                _pump(server, client)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                upwards.join()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def two_replicas(
    directory: pathlib.Path, postgresql: PostgresqlCluster, objects: S3Server, **more: object
) -> Iterator[tuple[Running, Running]]:
    """Two registries over one new database and one new bucket."""
    document = shared(postgresql, objects, **more)
    with (
        running(directory / "one", document) as one,
        running(directory / "two", document) as two,
    ):
        yield one, two


@contextlib.contextmanager
def round_robin(addresses: Sequence[str]) -> Iterator[RoundRobin]:
    """A front for the length of the block."""
    front = RoundRobin(addresses)
    try:
        yield front
    finally:
        front.stop()
