"""What the registry stands on goes and comes back in the middle of pushes."""

from __future__ import annotations

import contextlib
import http.client
import itertools
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
from tests.server.process import children
from tests.server.replicas import Answer, Running, ask, running, shared
from tests.server.services import PostgresqlCluster, S3Server, postgresql_cluster, s3_server

MANIFEST = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}
PAUSE = threading.Event()


class Ground(NamedTuple):
    """A registry of two workers, and what it stands on."""

    server: Running
    database: PostgresqlCluster
    store: S3Server

    def workers(self) -> list[int]:
        return children(self.server.process.pid)


@pytest.fixture
def ground(tmp_path: pathlib.Path) -> Iterator[Ground]:
    with postgresql_cluster() as database, s3_server() as store:
        document = shared(database, store, log={"access": False})
        document["listen"] = {"port": 0, "workers": 2}
        with running(tmp_path / "registry", document) as server:
            yield Ground(server, database, store)


UNAVAILABLE = {503}
"""What the registry stands on is away."""
FORGOTTEN = UNAVAILABLE | {404, 429}
"""Or it was, and PostgreSQL has forgotten what was not on its disk yet: sessions are written without waiting for that.
The session of this body is unknown then, or its lease."""
HALF_FORGOTTEN = FORGOTTEN | {400}
"""Or the half that came before: the rest alone has another digest."""


class Pusher:
    """Pushes images, one after the other, and notes what was answered with 201.

    `failure` is why it has stopped before it was asked to.
    """

    def __init__(self, address: str, name: str) -> None:
        self._address, self._name = address, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.acknowledged: list[tuple[str, Digest]] = []
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Fail if it does."""
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            for number in itertools.takewhile(lambda _: not self._over.is_set(), itertools.count()):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if not self._push(number):
                        self._over.wait(0.05)
        except BaseException as exc:  # told where the test waits
            self.failure = exc

    def _push(self, number: int) -> bool:
        layer = os.urandom(200_000 if number % 5 else 6_000_000)
        if not (self._blob(layer) and self._blob(b"{}")):
            return False
        raw = image(Digest.of(layer))
        path = f"/v2/{self._name}/manifests/t{number}"
        return self._note(path, raw, self._ask("PUT", path, raw, 201, UNAVAILABLE))

    def _blob(self, data: bytes) -> bool:
        begun = self._ask("POST", f"/v2/{self._name}/blobs/uploads/", b"", 202, UNAVAILABLE)
        if begun is None:
            return False
        location, digest = begun.headers["location"], Digest.of(data)
        half, else_one_of = 0, FORGOTTEN
        if len(data) % 3:
            half, else_one_of = len(data) // 2, HALF_FORGOTTEN
            sent = self._ask("PATCH", location, data[:half], 202, FORGOTTEN)
            if sent is None:
                return False
            location = sent.headers["location"]
        done = self._ask("PUT", f"{location}?digest={digest}", data[half:], 201, else_one_of)
        return self._note(f"/v2/{self._name}/blobs/{digest}", data, done)

    def _ask(
        self, method: str, path: str, body: bytes, wanted: int, else_one_of: set[int]
    ) -> Answer | None:
        """The answer that is wanted, or None where it is one of those that may come in its place."""
        answer = ask(self._address, method, path, body, MANIFEST)
        if answer.status == wanted:
            return answer
        assert answer.status in else_one_of, (method, path, answer)
        return None

    def _note(self, path: str, data: bytes, answer: Answer | None) -> bool:
        if answer is not None:
            self.acknowledged.append((path, Digest.of(data)))
        return answer is not None


def until_more(pushers: list[Pusher], ground: Ground) -> None:
    """Wait until each has pushed more: the registry has come back by itself."""
    wanted = [len(pusher.acknowledged) + 6 for pusher in pushers]
    deadline = time.monotonic() + 60
    while any(len(p.acknowledged) < most for p, most in zip(pushers, wanted, strict=True)):
        for pusher in pushers:
            pusher.check()
        assert ground.server.process.poll() is None, ground.server.log()
        assert time.monotonic() < deadline, ground.server.log()[-4000:]
        PAUSE.wait(0.05)


def test_no_acknowledged_push_is_lost_whatever_goes_away_for_a_while(ground: Ground) -> None:
    def restart(service: PostgresqlCluster | S3Server, how: int) -> None:
        service.stop(how)
        PAUSE.wait(0.5)
        service.start()

    def freeze(*pids: int) -> None:
        for number, seconds in ((signal.SIGSTOP, 0.5), (signal.SIGCONT, 0.0)):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            PAUSE.wait(seconds)

    def freeze_database() -> None:
        pid = ground.database.process.pid
        freeze(pid, *children(pid))

    def reload() -> None:
        ground.server.process.send_signal(signal.SIGHUP)

    def kill() -> None:
        os.kill(ground.workers()[0], signal.SIGKILL)

    with contextlib.ExitStack() as stack:
        address = ground.server.address
        pushers = [stack.enter_context(Pusher(address, f"team/app{n}")) for n in range(3)]
        for shake in (
            reload,
            freeze_database,
            lambda: restart(ground.database, signal.SIGINT),
            kill,
            lambda: freeze(ground.store.process.pid),
            lambda: restart(ground.store, signal.SIGKILL),
            reload,
            lambda: restart(ground.database, signal.SIGQUIT),
            lambda: freeze(ground.workers()[0]),
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
