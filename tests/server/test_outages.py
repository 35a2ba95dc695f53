"""What the registry stands on goes and comes back in the middle of pushes."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

import pytest

from argosy.spec.digest import Digest
from tests.server.client import image
from tests.server.replicas import Running, ask, running, shared
from tests.server.services import PostgresqlCluster, S3Server, postgresql_cluster, s3_server

MANIFEST = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
PAUSE = threading.Event()


class Ground(NamedTuple):
    """A registry of two workers, and what it stands on."""

    server: Running
    database: PostgresqlCluster
    store: S3Server

    def workers(self) -> list[int]:
        pid = self.server.process.pid
        return [
            int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]


@pytest.fixture
def ground(tmp_path: pathlib.Path) -> Iterator[Ground]:
    with postgresql_cluster() as database, s3_server() as store:
        document = shared(database, store, log={"access": False})
        document["listen"] = {"port": 0, "workers": 2}
        with running(tmp_path / "registry", document) as server:
            yield Ground(server, database, store)


class Pusher:
    """Pushes images, one after the other, and notes what was answered with 201."""

    def __init__(self, address: str, name: str) -> None:
        self._address, self._name = address, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[tuple[str, Digest]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            with contextlib.suppress(OSError, http.client.HTTPException):
                if not self._push(number):
                    self._over.wait(0.05)

    def _push(self, number: int) -> bool:
        layer = os.urandom(200_000 if number % 5 else 6_000_000)
        if not (self._blob(layer) and self._blob(b"{}")):
            return False
        raw = image(Digest.of(layer))
        path = f"/v2/{self._name}/manifests/t{number}"
        return self._note(path, raw, ask(self._address, "PUT", path, raw, MANIFEST).status)

    def _blob(self, data: bytes) -> bool:
        begun = ask(self._address, "POST", f"/v2/{self._name}/blobs/uploads/")
        if begun.status != 202:
            return False
        location, digest = begun.headers["location"], Digest.of(data)
        if len(data) % 3:
            half = len(data) // 2
            sent = ask(self._address, "PATCH", location, data[:half])
            if sent.status != 202:
                return False
            location = sent.headers["location"]
        else:
            half = 0
        done = ask(self._address, "PUT", f"{location}?digest={digest}", data[half:])
        return self._note(f"/v2/{self._name}/blobs/{digest}", data, done.status)

    def _note(self, path: str, data: bytes, status: int) -> bool:
        assert status in {201, 503}, (path, status)
        if status == 201:
            self.acknowledged.append((path, Digest.of(data)))
        return status == 201


def until_more(pushers: list[Pusher], ground: Ground) -> None:
    """Wait until each has pushed more: the registry has come back by itself."""
    wanted = [len(pusher.acknowledged) + 6 for pusher in pushers]
    deadline = time.monotonic() + 60
    while any(len(p.acknowledged) < most for p, most in zip(pushers, wanted, strict=True)):
        assert ground.server.process.poll() is None, ground.server.log()
        assert time.monotonic() < deadline, ground.server.log()[-4000:]
        PAUSE.wait(0.05)


def test_no_acknowledged_push_is_lost_whatever_goes_away_for_a_while(ground: Ground) -> None:
    def restart(service: PostgresqlCluster | S3Server, how: int) -> None:
        service.stop(how)
        PAUSE.wait(0.5)
        service.start()

    def reload() -> None:
        ground.server.process.send_signal(signal.SIGHUP)

    def kill() -> None:
        os.kill(ground.workers()[0], signal.SIGKILL)

    with contextlib.ExitStack() as stack:
        address = ground.server.address
        pushers = [stack.enter_context(Pusher(address, f"team/app{n}")) for n in range(3)]
        for shake in (
            reload,
            lambda: restart(ground.database, signal.SIGINT),
            kill,
            lambda: restart(ground.store, signal.SIGKILL),
            reload,
            lambda: restart(ground.database, signal.SIGQUIT),
            kill,
        ):
            until_more(pushers, ground)
            shake()
        until_more(pushers, ground)
    for path, digest in [note for pusher in pushers for note in pusher.acknowledged]:
        found = ask(address, "GET", path)
        assert (found.status, Digest.of(found.body)) == (200, digest), (
            path, found.body[:300], ground.server.log()[-8000:],
        )  # fmt: skip


@pytest.mark.parametrize("silent", ["database", "storage"])
def test_a_registry_is_not_ready_while_what_it_stands_on_is_away(
    ground: Ground, silent: str
) -> None:
    def until(status: int) -> None:
        deadline = time.monotonic() + 60
        while ask(ground.server.address, "GET", "/readyz").status != status:
            assert time.monotonic() < deadline, ground.server.log()[-4000:]
            PAUSE.wait(0.05)

    service = ground.database if silent == "database" else ground.store
    until(200)
    service.stop(signal.SIGQUIT)
    until(503)
    assert ask(ground.server.address, "GET", "/livez").status == 200
    service.start()
    until(200)
