"""Writing to a disk: what is begun early, what is done before what, and locks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import os
import pathlib
import struct
import threading
import zlib

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import ConflictError
from argosy.layout.durable import WriteBack, claimed, held, locked, replacing
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.testing import random
from tests.layout.places import TAG, writing

CACHESTAT = 451
"""The number of the system call, the same on every machine (Linux 6.5)."""
STEP = WriteBack.STEP


def dirty(fd: int, offset: int, length: int) -> int:
    """The pages of a part of a file that nobody has begun to write to its disk."""
    span, found = (ctypes.c_uint64 * 2)(offset, length), (ctypes.c_uint64 * 5)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(CACHESTAT, fd, span, found, 0):
        pytest.skip(f"cachestat: {os.strerror(ctypes.get_errno())}")
    return found[1]


def test_a_file_that_grows_is_written_to_its_disk_meanwhile(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "file", "wb", buffering=0) as file:
        fd, piece = file.fileno(), os.urandom(1024 * 1024)
        file.write(piece)
        if not dirty(fd, 0, len(piece)):
            pytest.skip(f"{tmp_path}: its file system has no dirty pages, as in memory")
        written = WriteBack(fd, len(piece))
        for _ in range(12):
            file.write(piece)
            written.grown(len(piece))
        assert dirty(fd, len(piece), STEP) == 0
    assert (tmp_path / "file").read_bytes() == 13 * piece


def test_what_is_no_file_is_written_without() -> None:
    read, write = os.pipe()
    try:
        WriteBack(write).grown(2 * STEP)
    finally:
        os.close(read)
        os.close(write)


class TestOrder:
    """A power loss may undo what was not synced: a name comes after its content, and is there before it is told."""

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []
        fsync, rename, replace = os.fsync, os.rename, os.replace

        def synced(fd: int) -> None:
            calls.append(f"sync {os.path.basename(os.readlink(f'/proc/self/fd/{fd}'))}")
            fsync(fd)

        def renamed(old: str, new: str) -> None:
            calls.append(f"name {os.path.basename(new)}")
            rename(old, new)

        def replaced(old: str, new: str) -> None:
            calls.append(f"name {os.path.basename(new)}")
            replace(old, new)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(os, "rename", renamed)
        monkeypatch.setattr(os, "replace", replaced)
        return calls

    def test_content_is_synced_before_it_is_named_and_its_name_after(
        self, tmp_path: pathlib.Path, calls: list[str]
    ) -> None:
        store = LayoutStore.create(tmp_path / "layout")
        assert f"sync {tmp_path.name}" in calls
        raw = b'{"schemaVersion":2,"manifests":[]}'
        for algorithm in ("sha256", "sha512"):  # each has a folder of its own
            calls.clear()
            desc = Descriptor.of(mediatypes.OCI_INDEX, raw, algorithm=algorithm)
            store.push(desc, io.BytesIO(raw), tags=["v1"])
            name = desc.digest.encoded
            assert calls == [
                "sync blobs",
                f"sync .{name}.partial",
                f"name {name}",
                f"sync {algorithm}",
                "sync .index.json.tmp",
                "name index.json",
                "sync layout",
            ]

    @pytest.mark.parametrize("transport", ["oci-archive", "docker-archive"])
    def test_an_archive_is_synced_before_it_is_named_and_its_name_after(
        self, tmp_path: pathlib.Path, calls: list[str], transport: str
    ) -> None:
        source = MemoryStore()
        random.image(source, 1, "v1", layers=1)
        with writing(transport, tmp_path / "a.tar") as archive:
            copy(source, "v1", archive, TAG, jobs=1)
            calls.clear()
        first, *rest = calls
        assert first.startswith("sync ")
        assert rest == ["name a.tar", f"sync {tmp_path.name}"]

    def test_a_file_that_need_not_last_waits_for_no_disk(
        self, tmp_path: pathlib.Path, calls: list[str]
    ) -> None:
        with replacing(str(tmp_path / "file")) as file:
            file.write(b"1")
        assert calls == ["name file"]


def test_readers_of_a_layout_are_not_kept_out(tmp_path: pathlib.Path) -> None:
    store = LayoutStore.create(tmp_path)
    desc = random.image(store, 1, "v1")
    with locked(str(tmp_path)):
        assert LayoutStore.open(tmp_path).resolve("v1") == desc


class TestLockless:
    """A file system (NFS) that locks nothing which is open only to be read."""

    @pytest.fixture(autouse=True)
    def _nfs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        flock = fcntl.flock

        def on_nfs(fd: int, how: int) -> None:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            flock(fd, how)

        monkeypatch.setattr(fcntl, "flock", on_nfs)

    def test_a_directory_is_locked_by_a_file_in_it(self, tmp_path: pathlib.Path) -> None:
        lock = tmp_path / ".lock"
        with locked(str(tmp_path)), open(lock, "rb+") as file, pytest.raises(ConflictError):
            held(file.fileno(), "it")
        with open(lock, "rb+") as file:
            held(file.fileno(), "it")

    def test_a_directory_that_takes_no_file_says_so(self, tmp_path: pathlib.Path) -> None:
        (tmp_path / ".lock").mkdir()
        with pytest.raises(IsADirectoryError), locked(str(tmp_path)):
            pass

    def test_what_is_wrong_otherwise_is_told(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_fd: int, _how: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(fcntl, "flock", full)
        with pytest.raises(OSError, match="No locks"), locked(str(tmp_path)):
            pass
        with open(tmp_path / "file", "wb") as file, pytest.raises(OSError, match="No locks"):
            held(file.fileno(), "it")


def free(path: pathlib.Path, start: int) -> bool:
    """Whether nobody holds a byte of a file."""
    with open(path, "rb+") as file:
        asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked)
    return bool(struct.unpack_from("h", found)[0] == fcntl.F_UNLCK)


def test_a_name_is_held_alone_and_let_go(tmp_path: pathlib.Path) -> None:
    (path := tmp_path / "file").touch()
    one, two = (zlib.crc32(name) for name in (b"one", b"two"))
    with claimed(str(path), "one"):
        assert (free(path, one), free(path, two)) == (False, True)
        with claimed(str(path), "two"):
            assert not free(path, two)
    assert free(path, one)


def test_who_has_to_wait_for_a_name_is_told_before(tmp_path: pathlib.Path) -> None:
    (path := tmp_path / "file").touch()
    waiting, got = threading.Event(), []

    def second() -> None:
        with claimed(str(path), "one", waiting.set):
            got.append(1)

    thread = threading.Thread(target=second)
    with claimed(str(path), "one", lambda: pytest.fail("nobody has it")):
        thread.start()
        assert waiting.wait(60)
        assert not got
    thread.join()
    assert got


def test_where_there_is_no_file_nothing_is_held(tmp_path: pathlib.Path) -> None:
    with claimed(str(tmp_path / "none"), "one"), claimed(str(tmp_path / "none"), "one"):
        assert not any(tmp_path.iterdir())
