"""Compiled seccomp filters kept on disk, named by the hash of all they were made from.

What is in the cache decides what a container may do, so a directory is used only when the caller owns it and nobody
else may enter. Every file ends with the hash of its content: a torn or damaged one is as good as none. The cache is a
help, not a need: where it cannot be used, filters are compiled each time.
"""

from __future__ import annotations

import posix
from _blake2 import blake2b

SUFFIX = 32
MOST = 64
"""How many filters are kept; the oldest go first."""
LARGEST = 65535 * 8 + SUFFIX


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=SUFFIX).digest()


def open_directory(path: str, *, make: bool) -> int | None:
    """Return a descriptor of the cache directory, or None when it is not there, or not ours alone."""
    try:
        if make:
            _make(path)
        fd = posix.open(
            path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
        )
    except OSError:
        return None
    status = posix.fstat(fd)
    if status.st_uid == posix.geteuid() and not status.st_mode & 0o077:
        return fd
    posix.close(fd)
    return None


def _make(path: str) -> None:
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        return


def get(path: str | None, key: bytes) -> bytes | None:
    """Return the filter kept for `key`, or None."""
    directory = open_directory(path, make=False) if path else None
    if directory is None:
        return None
    try:
        fd = posix.open(
            _hash(key).hex(), posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=directory
        )
    except OSError:
        return None
    finally:
        posix.close(directory)
    try:
        data = posix.read(fd, LARGEST + 1)
    except OSError:
        return None
    finally:
        posix.close(fd)
    program = data[:-SUFFIX]
    if not program or len(program) % 8 or data[-SUFFIX:] != _hash(key + program):
        return None
    return program


def put(path: str | None, key: bytes, program: bytes) -> None:
    """Keep a filter; when that fails, nothing is kept and nothing is wrong."""
    directory = open_directory(path, make=True) if path else None
    if directory is None:
        return
    name = _hash(key).hex()
    temporary = f".{name}.{posix.getpid()}"
    try:
        _write(directory, temporary, program + _hash(key + program))
        posix.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        _prune(directory)
    except OSError:
        _unlink(directory, temporary)
    finally:
        posix.close(directory)


def _write(directory: int, name: str, data: bytes) -> None:
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(name, flags, 0o600, dir_fd=directory)
    try:
        while data:
            data = data[posix.write(fd, data) :]
    finally:
        posix.close(fd)


def _prune(directory: int) -> None:
    names = posix.listdir(directory)
    if len(names) <= MOST:
        return
    ages = sorted((posix.stat(name, dir_fd=directory).st_mtime_ns, name) for name in names)
    for _, name in ages[: len(names) - MOST]:
        _unlink(directory, name)


def _unlink(directory: int, name: str) -> None:
    try:
        posix.unlink(name, dir_fd=directory)
    except OSError:
        return
