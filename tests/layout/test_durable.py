"""Writing to a disk: what is begun early."""

from __future__ import annotations

import ctypes
import os
import pathlib

import pytest

from argosy.layout.durable import WriteBack

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
