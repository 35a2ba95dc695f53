"""Writing to a disk: what is begun early."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pathlib
import struct
import threading
import zlib

import pytest

from argosy.layout.durable import WriteBack, claimed

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
