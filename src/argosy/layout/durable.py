"""Writing to a disk so that it survives: a file, then its directory, then the answer; and locks between processes.

Errors of the operating system leave this room as `DeniedError` or `StorageError`, with the file in the message.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

from argosy.errors import ArgosyError, DeniedError, StorageError

LOCK_FILE = ".lock"
TEMPORARY = ".tmp"
"""The end of the names of files that are being written."""

_DENIED = frozenset({errno.EACCES, errno.EPERM})


def storage_error(exc: OSError, where: str) -> ArgosyError:
    """The error of argosy's tree that stands for one of the operating system's.

    >>> storage_error(PermissionError(13, "Permission denied"), "a/b")
    DeniedError('a/b: permission denied')
    """
    reason = (exc.strerror or type(exc).__name__).lower()
    return (DeniedError if exc.errno in _DENIED else StorageError)(f"{where}: {reason}")


@contextlib.contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Let what the operating system raises inside leave as `DeniedError` or `StorageError`.

    Raises:
        DeniedError: permission denied.
        StorageError: anything else: full, read-only, gone.
        BrokenPipeError: nobody reads the pipe that is written to.
    """
    try:
        yield
    except OSError as exc:
        if isinstance(exc, (ArgosyError, BrokenPipeError)):
            raise
        raise storage_error(exc, where) from exc


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: str, data: bytes) -> None:
    """Write a small file as a whole: who reads it sees the old content or the new one, also after a power loss.

    The caller holds the directory's lock. What a killed writer leaves under the temporary name, the next one replaces.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}{TEMPORARY}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(temporary, flags, 0o666)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(folder or ".")


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Hold the one write lock of a directory, between threads and processes; readers are not kept out.

    The lock is on the directory itself, so nothing is left behind. Where a file system cannot do that (NFS), it is on a
    file `.lock` in it.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
        except OSError as exc:
            if exc.errno not in (errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            os.close(fd)
            name = os.path.join(folder, LOCK_FILE)
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
