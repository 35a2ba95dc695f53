"""A storage that has fallen silent is not waited for by everybody, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from argosy.errors import BlobUnknownError
from argosy.server import probe
from argosy.server.storage import SegmentWriter, UnavailableError
from argosy.server.storage.breaker import Breaker
from argosy.server.storage.filesystem import FileSystem
from argosy.spec.digest import Digest
from tests.server.client import Server

KEY = "b/20260101/x-1"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Silent(FileSystem):
    """A storage that may say nothing for `wait` seconds; 0 is a refusal."""

    def __init__(self, root: Path, clock: Clock) -> None:
        super().__init__(str(root), reserve=0)
        self.clock, self.wait, self.asked = clock, -1.0, 0

    def ask(self) -> None:
        self.asked += 1
        if self.wait >= 0:
            self.clock.now += self.wait
            raise UnavailableError("object store: timed out")

    def create(self, key: str, *, size: int | None = None) -> SegmentWriter:  # type: ignore[override]
        return Writer(self, super().create(key, size=size))

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self.ask()
        yield from super().read(key, start, stop)

    def delete(self, keys: Sequence[str]) -> None:
        self.ask()
        super().delete(keys)

    def keys(self, prefix: str) -> Iterator[str]:
        self.ask()
        yield from super().keys(prefix)


class Writer:
    def __init__(self, storage: Silent, writer: SegmentWriter) -> None:
        self._storage, self._writer = storage, writer
        self.write, self.abort = writer.write, writer.abort

    def commit(self) -> None:
        self._storage.ask()
        self._writer.commit()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def silent(tmp_path: Path, clock: Clock) -> Silent:
    return Silent(tmp_path / "blobs", clock)


@pytest.fixture
def storage(silent: Silent, clock: Clock) -> Breaker:
    made = Breaker(silent, timeout_seconds=60.0, clock=clock)
    put(made)
    return made


def put(storage: Breaker, key: str = KEY) -> None:
    writer = storage.create(key)
    writer.write(b"hello")
    try:
        writer.commit()
    except UnavailableError:
        writer.abort()
        raise


CALLS: dict[str, Callable[[Breaker], object]] = {
    "write": lambda storage: put(storage, "b/20260101/x-2"),
    "read": lambda storage: list(storage.read(KEY)),
    "delete": lambda storage: storage.delete(["b/20260101/none-1"]),
    "keys": lambda storage: list(storage.keys("b/")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_one_waits_in_vain_and_the_others_are_told_at_once(
    storage: Breaker, silent: Silent, clock: Clock, call: Callable[[Breaker], object]
) -> None:
    silent.wait, silent.asked = 60.0, 0
    with pytest.raises(UnavailableError, match="timed out"):
        call(storage)
    before = clock.now
    for other in CALLS.values():
        with pytest.raises(UnavailableError, match="not asked again yet: object store: timed out"):
            other(storage)
    assert (silent.asked, clock.now) == (1, before)
    clock.now += 7.5
    with pytest.raises(UnavailableError, match="object store"):
        call(storage)
    assert silent.asked == 2, "nobody looks whether it is back"
    silent.wait = -1.0
    clock.now += 7.5
    for other in CALLS.values():
        other(storage)


def test_a_storage_that_refuses_at_once_is_asked_by_everybody(
    storage: Breaker, silent: Silent
) -> None:
    silent.wait = 1.0
    with pytest.raises(UnavailableError):
        put(storage, "b/20260101/x-2")
    silent.wait = -1.0
    assert list(storage.read(KEY)) == [b"hello"]


def test_one_that_waits_in_vain_while_others_are_answered_shuts_nothing(
    storage: Breaker, silent: Silent, clock: Clock
) -> None:
    def answered_to_others() -> None:
        del silent.ask
        clock.now += 60.0
        with pytest.raises(BlobUnknownError):
            list(storage.read("b/20260101/none-1"))
        raise UnavailableError("one node of many")

    writer = storage.create("b/20260101/x-2")
    silent.ask = answered_to_others  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        writer.commit()
    assert list(storage.read(KEY)) == [b"hello"]
    writer.abort()


def test_what_was_begun_before_may_be_ended(storage: Breaker, silent: Silent, clock: Clock) -> None:
    begun, pieces = storage.create("b/20260101/x-2"), storage.read(KEY)
    assert next(pieces) == b"hello"
    silent.wait = 60.0
    with pytest.raises(UnavailableError):
        list(storage.keys("b/"))
    silent.wait = -1.0
    assert list(pieces) == []
    begun.commit()
    assert list(storage.read(KEY)) == [b"hello"]


def test_clients_are_told_at_once_and_readiness_tells_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_FRESH_SECONDS", 0.0)
    silent = Silent(tmp_path / "blobs", clock)
    with Server(
        str(tmp_path), storage=Breaker(silent, timeout_seconds=60.0, clock=clock)
    ) as server:
        digest = server.push_blob("a", b"hello")
        silent.wait = 60.0
        for _ in range(3):
            answer = server.ask("GET", f"/v2/a/blobs/{digest}", headers={"range": "bytes=0-1"})
            assert (answer.status, answer.header("retry-after")) == (503, "5")
            pushed = server.ask("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(b'x')}", b"x")
            assert pushed.status == 503
        assert server.ask("GET", "/readyz").status == 503
        assert clock.now == 60.0
