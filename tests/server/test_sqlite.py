"""SQLite while another process writes: a write waits for its turn, and not for ever."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from argosy.errors import StorageError
from argosy.server.metadata import Transaction, repositories, sqlite
from argosy.spec.digest import Digest
from tests.server.client import Server


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[sqlite.Sqlite]:
    opened = sqlite.Sqlite(str(tmp_path / "registry.db"))
    yield opened
    opened.close()


@pytest.fixture
def other(metadata: sqlite.Sqlite, tmp_path: Path) -> Iterator[apsw.Connection]:
    """Another process' connection, in the middle of a write."""
    connection = apsw.Connection(str(tmp_path / "registry.db"))
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_disk_that_can_only_be_read_any_more_is_away_for_those_who_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The kernel makes it so where a file system is damaged."""
    with Server(str(tmp_path)) as server:
        digest = server.push_blob("a", b"first")

        def refuse(fd: int, views: object) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as failing:
            failing.setattr(os, "writev", refuse)
            answer = server.ask("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(b'x')}", b"x")
            assert (answer.status, answer.header("retry-after")) == (503, "5")
        server.registry.metadata._writer.pragma("query_only", "ON")  # type: ignore[attr-defined]
        answer = server.ask("POST", "/v2/a/blobs/uploads/", b"")
        assert (answer.status, answer.header("retry-after")) == (503, "5")
        assert server.ask("GET", f"/v2/a/blobs/{digest}").body == b"first"
        assert server.ask("GET", "/readyz").status == 200
        server.registry.metadata._writer.pragma("query_only", "OFF")  # type: ignore[attr-defined]
        assert server.push_blob("a", b"x")


def named(tx: Transaction) -> str | None:
    return repositories.setting(tx, "name", "value")


def test_a_write_waits_for_the_one_before(
    metadata: sqlite.Sqlite, other: apsw.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def sleep(seconds: float) -> None:
        assert 0 < seconds <= 0.01
        asked.append(len(asked))
        if len(asked) == 20:
            other.execute("COMMIT")

    monkeypatch.setattr(time, "sleep", sleep)
    assert asyncio.run(metadata.write(named)) == "value"
    assert len(asked) == 20


@pytest.mark.usefixtures("other")
def test_a_write_that_never_gets_its_turn_fails(
    metadata: sqlite.Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(StorageError, match="locked"):
        asyncio.run(metadata.write(named))
    assert 25 < sum(slept) < 35


def test_a_new_database_takes_its_place_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with pytest.raises(ZeroDivisionError), sqlite.anew(str(path)):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with sqlite.anew(str(path)):
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    with contextlib.closing(sqlite.Sqlite(str(path))), pytest.raises(StorageError, match="in use"):
        sqlite.anew(str(path)).__enter__()
    with sqlite.anew(str(path)):  # it is empty
        pass
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "registry.db-wal").write_bytes(b"")
    with pytest.raises(StorageError, match="left of another"):
        sqlite.anew(str(path)).__enter__()


def test_what_a_killed_rebuild_left_goes_with_the_next_one_and_nothing_else(tmp_path: Path) -> None:
    path, backup = tmp_path / "registry.db", tmp_path / "registry.db.20260101"
    code = (
        "import os, signal, sys; from argosy.server.metadata import sqlite\n"
        "with sqlite.anew(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("registry.db.rebuild-*"))) == 3
    sqlite.Sqlite(str(backup)).close()
    with sqlite.anew(str(path)):  # another one is under way
        with pytest.raises(ZeroDivisionError), sqlite.anew(str(path)):
            raise ZeroDivisionError
        assert len(list(tmp_path.glob("registry.db.rebuild-????????"))) == 1
    assert sorted(tmp_path.iterdir()) == [path, backup]


def test_what_a_killed_process_left_beside_the_file_is_folded_into_it(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    write = (
        "import os, sys, asyncio; from argosy.server.metadata import repositories, sqlite;"
        "opened = sqlite.Sqlite(sys.argv[1]);"
        "asyncio.run(opened.write(lambda tx: repositories.setting(tx, 'name', 'value')));"
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", write, str(path)], check=True)
    assert (tmp_path / "registry.db-wal").exists()
    sqlite.fold(str(path))
    sqlite.fold(str(tmp_path / "none"))
    assert [file.name for file in tmp_path.iterdir()] == ["registry.db"]
    with contextlib.closing(sqlite.Sqlite(str(path))) as again:
        assert asyncio.run(again.read(lambda tx: repositories.setting(tx, "name"))) == "value"
        sqlite.fold(str(path))
        assert (tmp_path / "registry.db-wal").exists()


class _FullFile(apsw.VFSFile):
    """A file that grows no more once its disk is full."""

    def __init__(self, disk: FullDisk, name: Any, flags: Any) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk

    def xWrite(self, data: Any, offset: int) -> None:
        if self._disk.is_full and offset + len(data) > self.xFileSize():
            raise apsw.FullError
        super().xWrite(data, offset)


class FullDisk(apsw.VFS):
    """Where all databases of this process lie until `unregister`."""

    def __init__(self) -> None:
        super().__init__("full", "unix", makedefault=True)
        self.is_full = False

    def xOpen(self, name: Any, flags: Any) -> _FullFile:
        return _FullFile(self, name, flags)


def test_who_makes_room_on_a_full_disk_can_delete(tmp_path: Path) -> None:
    disk = FullDisk()
    try:
        with Server(str(tmp_path)) as server:
            digests = [server.push_image("a", f"t{n}", b"%d" % n) for n in range(20)]
            disk.is_full = True
            for digest in digests:
                assert server.ask("DELETE", f"/v2/a/manifests/{digest}").status == 202
            assert server.rows("SELECT count(*) FROM manifest") == [(0,)]
            disk.is_full = False
            server.push_image("a", "t")
    finally:
        disk.unregister()


def test_opening_a_database_again_writes_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.db")
    with contextlib.closing(sqlite.Sqlite(path)):
        pass
    with contextlib.closing(sqlite.Sqlite(path)), open(f"{path}-wal", "rb") as log:
        assert log.read() == b""
