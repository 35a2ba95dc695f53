"""Being ready: the database and its storage answer, and soon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.errors import StorageError
from argosy.server import probe
from argosy.server.storage.filesystem import FileSystem
from tests.server.client import Server


@pytest.fixture(autouse=True)
def _always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_FRESH_SECONDS", 0.0)


@pytest.mark.parametrize("pushed", [True, False])
def test_a_registry_whose_storage_is_away_is_not_ready(
    server: Server, tmp_path: Path, pushed: bool
) -> None:
    if pushed:
        server.push_image("a", "t")
    assert server.ask("GET", "/readyz").status == 200
    (tmp_path / "blobs").rename(tmp_path / "elsewhere")
    answer = server.ask("GET", "/readyz")
    assert (answer.status, answer.json()) == (503, {"status": "the storage does not answer"})
    assert answer.header("retry-after") == "1"
    assert server.ask("GET", "/livez").status == 200
    (tmp_path / "elsewhere").rename(tmp_path / "blobs")
    assert server.ask("GET", "/readyz").status == 200


def test_a_database_that_fails_is_told_and_its_words_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise StorageError("host db.internal is away")

    monkeypatch.setattr(server.registry.metadata, "read", fail)
    answer = server.ask("GET", "/readyz")
    assert (answer.status, answer.json()) == (503, {"status": "the database does not answer"})
    assert "db.internal" in caplog.text


class Stuck(FileSystem):
    """A storage that answers when the test lets it."""

    def __init__(self, root: str) -> None:
        super().__init__(root, reserve=0)
        self.let, self.calls = threading.Event(), 0

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self.calls += 1
        self.let.wait(30)
        return super().read(key, start, stop)


def test_a_storage_that_hangs_is_asked_once_and_nobody_waits_for_it_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_PATIENCE", 0.05)
    storage = Stuck(str(tmp_path / "blobs"))
    with Server(str(tmp_path), storage=storage) as server:
        try:
            assert [server.ask("GET", "/readyz").status for _ in range(3)] == [503] * 3
            assert storage.calls == 1
        finally:
            storage.let.set()
        server.run(asyncio.wait_for(_until_ready(server), 30))


async def _until_ready(server: Server) -> None:
    while (await server.asking("GET", "/readyz")).status != 200:
        await asyncio.sleep(0)


def test_the_answer_of_a_moment_ago_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "_FRESH_SECONDS", 60.0)
    storage = Stuck(str(tmp_path / "blobs"))
    storage.let.set()
    with Server(str(tmp_path), storage=storage) as server:
        assert server.ask("GET", "/readyz").status == 200
        before = storage.calls
        assert [server.ask("GET", "/readyz").status for _ in range(3)] == [200] * 3
        assert storage.calls == before
