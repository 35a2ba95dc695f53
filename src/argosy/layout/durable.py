"""Writing to a disk so that it survives: a file, then its directory, then the answer; and locks between processes.

Errors of the operating system leave this room as `DeniedError` or `StorageError`, with the file in the message.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from argosy.errors import ArgosyError, ConflictError, DeniedError, StorageError

LOCK_FILE = ".lock"
TEMPORARY = ".tmp"
"""The end of the names of files that are being written."""

_DENIED = frozenset({errno.EACCES, errno.EPERM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LOCKLESS = frozenset({errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP})
"""A file system that cannot lock what is open only to be read (NFS)."""


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


class WriteBack:
    """Has a file that grows written to its disk meanwhile, so that the `fsync` at its end finds little left to do.

    Else the kernel begins after half a minute, or when a tenth of the memory waits to be written: what comes slowly
    would be written at the end, while nothing comes. The content stays in memory for who reads it next.

    Args:
        fd: The file, written to from `offset` on.
        offset: In bytes.
    """

    STEP = 8 * 1024 * 1024

    def __init__(self, fd: int, offset: int = 0) -> None:
        self._fd, self._begun, self._end = fd, offset, offset

    def grown(self, count: int) -> None:
        """So many bytes were added."""
        self._end += count
        if self._end - self._begun >= self.STEP:
            # Of pages that are dirty this begins to write them (`sync_file_range`, which Python has not).
            with contextlib.suppress(OSError):
                os.posix_fadvise(
                    self._fd, self._begun, self._end - self._begun, os.POSIX_FADV_DONTNEED
                )
            self._begun = self._end


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: str, data: bytes) -> int:
    """Write a small file as a whole: who reads it sees the old content or the new one, also after a power loss.

    The caller holds the directory's lock. What a killed writer leaves under the temporary name, the next one replaces.

    Returns:
        The inode it has.
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
            inode = os.fstat(fd).st_ino
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(folder or ".")
    return inode


@contextlib.contextmanager
def replacing(
    path: str, *, temporary: str | None = None, durable: bool = False, changed: bool = False
) -> Iterator[BinaryIO]:
    """Write a file of any size that somebody named: it is there whole, or as it was before.

    Of a symbolic link, what it leads to is written, and the link stays. A device or a FIFO is not replaced but written
    to, as a shell would do it.

    Args:
        path: The file.
        temporary: Where it is written first, on the same file system; beside the file if None. Nothing may be there.
        durable: Let it also survive a power loss.
        changed: It is the old file in another state: its mode stays, and its owner and group where we may give them.

    Raises:
        DeniedError: permission denied.
        StorageError: it cannot be opened for another reason, or the disk is full.
    """
    with _room(path), _replaced(path, temporary, durable=durable, changed=changed) as file:
        yield file


@contextlib.contextmanager
def _room(path: str) -> Iterator[None]:
    """Say what was written when there was no room for it: the write to what is open does not."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _FULL or exc.filename is not None:
            raise
        raise storage_error(exc, path) from exc


@contextlib.contextmanager
def _replaced(
    path: str, temporary: str | None, *, durable: bool, changed: bool
) -> Iterator[BinaryIO]:
    if is_stream(path):
        with storage_errors(path):
            stream = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        with open(stream, "wb") as file:
            yield file
        return
    target = os.path.realpath(path)
    temporary = temporary or f"{target}.{os.getpid()}{TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with storage_errors(path):
        fd = os.open(temporary, flags, 0o600 if changed else 0o666)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            if changed:
                _become(fd, os.stat(target))
            if durable:
                os.fsync(fd)
        with storage_errors(path):
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if durable:
        sync_directory(os.path.dirname(target))


def _become(fd: int, old: os.stat_result) -> None:
    """Give a file the mode of another, and as much of its owner and group as we may."""
    for owner in (old.st_uid, -1):
        with contextlib.suppress(PermissionError):
            os.fchown(fd, owner, old.st_gid)
            break
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def is_stream(path: str) -> bool:
    """Whether a path leads to something that cannot be replaced by a file: a device, a FIFO, a file without a name.

    A directory is none, and neither is what is not there.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    # /dev/stdout may lead to a file that was removed.
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or not os.path.exists(
        os.path.realpath(path)
    )


def held(fd: int, name: str) -> None:
    """Have what is open here to this process alone, until it is closed; where a file system has no locks, hope for it.

    Args:
        fd: A file or a directory.
        name: What it belongs to, for the message.

    Raises:
        ConflictError: another process has it.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"{name}: another process writes it now",
            hint="an oci: directory takes several writers at a time",
        ) from None
    except OSError as exc:
        if exc.errno not in _LOCKLESS:
            raise


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
            if exc.errno not in _LOCKLESS:
                raise
            name = os.path.join(folder, LOCK_FILE)
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.close(fd)
            fd = file
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def claimed(path: str, name: str, on_wait: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold a name to oneself, between threads and processes, waiting for who has it.

    The lock is a byte of a file that is there, so nothing is left behind. Where there is none, where it may not be
    written, or the file system has no locks, nothing is held.

    Args:
        path: The file.
        name: Any text; now and then two share a byte, and wait for each other without need.
        on_wait: Called before waiting, which may take as long as somebody's editor is open.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        wanted = struct.pack(
            "hhqqi", fcntl.F_WRLCK, os.SEEK_SET, zlib.crc32(os.fsencode(name)), 1, 0
        )
        with contextlib.suppress(OSError):
            try:
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, wanted)
            except (BlockingIOError, PermissionError):
                on_wait()
                fcntl.fcntl(fd, fcntl.F_OFD_SETLKW, wanted)
        yield
    finally:
        os.close(fd)
