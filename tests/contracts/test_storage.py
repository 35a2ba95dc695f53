"""What every `Storage` promises, asked of each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.errors import BlobUnknownError, StorageError
from argosy.server import marker
from argosy.server.metadata import Transaction, blobs, repositories
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.storage import PIECE, ShortObjectError, Storage
from argosy.server.storage.filesystem import FileSystem
from argosy.server.storage.objects import Objects


def objects(request: pytest.FixtureRequest, memory_bytes: int = 64 * 1024 * 1024) -> Storage:
    server = request.getfixturevalue("objects")
    return Objects(server.store(server.bucket()), memory_bytes=memory_bytes)


STORAGES: dict[str, Callable[[Path, pytest.FixtureRequest], Storage]] = {
    "filesystem": lambda root, _: FileSystem(str(root / "blobs"), reserve=0),
    "objects": lambda _, request: objects(request),
    "objects-through-a-file": lambda _, request: objects(request, memory_bytes=0),
}


@pytest.fixture(params=sorted(STORAGES))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return STORAGES[request.param](tmp_path, request)


def put(storage: Storage, key: str, *pieces: bytes | bytearray | memoryview) -> None:
    writer = storage.create(key, size=sum(map(len, pieces)))
    for piece in pieces:
        writer.write(piece)
    writer.commit()


def test_what_was_committed_is_read_back(storage: Storage) -> None:
    put(storage, "b/20260101/x-1", b"hel", bytearray(b"lo "), memoryview(b"world"))
    assert b"".join(storage.read("b/20260101/x-1")) == b"hello world"


def test_any_number_of_parts_is_written_at_once_in_their_order(storage: Storage) -> None:
    parts = [b"%d," % number for number in range(3000)]
    writer = storage.create("b/20260101/x-1")
    writer.write(b"", *parts[:2000], memoryview(parts[2000]), b"")
    writer.write(*parts[2001:])
    writer.write()
    writer.commit()
    assert b"".join(storage.read("b/20260101/x-1")) == b"".join(parts)


def test_a_buffer_may_be_changed_after_write(storage: Storage) -> None:
    writer = storage.create("b/20260101/x-1")
    buffer = bytearray(b"abc")
    writer.write(buffer)
    buffer[:] = b"xyz"
    writer.commit()
    assert b"".join(storage.read("b/20260101/x-1")) == b"abc"


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 3, b"012"), (3, None, b"3456789"), (9, 10, b"9"), (4, 4, b"")],
)
def test_a_range_is_read(storage: Storage, start: int, stop: int | None, expected: bytes) -> None:
    put(storage, "b/20260101/x-1", b"0123456789")
    assert b"".join(storage.read("b/20260101/x-1", start, stop)) == expected


def test_pieces_are_bounded(storage: Storage) -> None:
    put(storage, "b/20260101/x-1", b"x" * 3_000_000)
    sizes = [len(piece) for piece in storage.read("b/20260101/x-1")]
    assert sum(sizes) == 3_000_000
    assert max(sizes) <= PIECE


def test_reading_past_the_end_is_an_error(storage: Storage) -> None:
    put(storage, "b/20260101/x-1", b"abc")
    with pytest.raises(StorageError):
        list(storage.read("b/20260101/x-1", 0, 10))


def test_an_object_that_is_not_there_is_unknown(storage: Storage) -> None:
    with pytest.raises(BlobUnknownError):
        list(storage.read("b/20260101/none-1"))


def test_an_object_that_ends_too_soon_is_told_from_one_that_cannot_be_read(
    storage: Storage,
) -> None:
    put(storage, "b/20260101/x-1", b"abc")
    with pytest.raises(ShortObjectError):
        list(storage.read("b/20260101/x-1", 0, 10))


def test_a_storage_is_marked_where_it_is_the_databases(storage: Storage, tmp_path: Path) -> None:
    metadata = Sqlite(str(tmp_path / "registry.db"))
    change = Change(0.0)
    assert not marker.is_marked(storage)
    with asyncio.Runner() as runner:

        def push(key: str, digest: str) -> None:
            def work(tx: Transaction) -> None:
                repo = (repositories.ensure(tx, "r", change), "r")
                blobs.commit(tx, change, repo, digest, 1, [blobs.Segment(key, 1)])

            runner.run(metadata.write(work))

        push("b/20260101/gone-1", "sha256:1")
        for _ in range(2):
            with pytest.raises(marker.StorageAwayError, match="mounted"):
                runner.run(marker.check(metadata, storage))
        assert not marker.is_marked(storage)
        put(storage, "b/20260101/x-1", b"x")
        push("b/20260101/x-1", "sha256:2")
        runner.run(marker.check(metadata, storage))
        assert marker.is_marked(storage)
        storage.delete(["b/20260101/x-1"])
        runner.run(marker.check(metadata, storage))
        storage.delete([marker.KEY])
        runner.run(metadata.write(lambda tx: tx.rows("DELETE FROM blob_segment")))
        runner.run(marker.check(metadata, storage))
        assert marker.is_marked(storage)
        metadata.close()


def test_an_aborted_object_leaves_nothing(storage: Storage) -> None:
    writer = storage.create("b/20260101/x-1")
    writer.write(b"abc")
    writer.abort()
    writer.abort()
    assert list(storage.keys("b/")) == []


def test_abort_after_commit_is_harmless(storage: Storage) -> None:
    writer = storage.create("b/20260101/x-1")
    writer.write(b"abc")
    writer.commit()
    writer.abort()
    assert b"".join(storage.read("b/20260101/x-1")) == b"abc"


def test_an_empty_object_can_be_kept(storage: Storage) -> None:
    put(storage, "b/20260101/x-1")
    assert b"".join(storage.read("b/20260101/x-1")) == b""


def test_deleting_is_idempotent(storage: Storage) -> None:
    put(storage, "b/20260101/x-1", b"a")
    put(storage, "b/20260101/y-1", b"b")
    storage.delete(["b/20260101/x-1", "b/20260101/none-1"])
    storage.delete(["b/20260101/x-1"])
    assert list(storage.keys("b/")) == ["b/20260101/y-1"]


def test_keys_are_found_by_any_prefix(storage: Storage) -> None:
    for key in (
        "b/20260101/aa-1",
        "b/20260101/aa-2",
        "b/20260101/ab-1",
        "b/20260102/aa-1",
        "j/g/1",
    ):
        put(storage, key, b"x")
    assert sorted(storage.keys("b/20260101/aa-")) == ["b/20260101/aa-1", "b/20260101/aa-2"]
    assert sorted(storage.keys("b/20260101/a")) == [
        "b/20260101/aa-1",
        "b/20260101/aa-2",
        "b/20260101/ab-1",
    ]
    assert len(list(storage.keys("b/"))) == 4
    assert list(storage.keys("none/")) == []


@pytest.mark.parametrize(
    "key",
    ["../x", "b/../../x", "/etc/passwd", "b//x", "b/x\0y", "plain", "", "b/.hidden", "b/x/.."],
)
def test_a_key_that_leads_elsewhere_is_refused(storage: Storage, key: str) -> None:
    with pytest.raises((StorageError, ValueError)):
        put(storage, key, b"x")


def test_two_writers_do_not_meet(storage: Storage) -> None:
    first, second = storage.create("b/20260101/x-1"), storage.create("b/20260101/x-2")
    first.write(b"1")
    second.write(b"2")
    second.commit()
    first.abort()
    assert list(storage.keys("b/")) == ["b/20260101/x-2"]
