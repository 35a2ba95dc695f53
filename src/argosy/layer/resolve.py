"""Paths that cannot leave a root: `openat2(RESOLVE_IN_ROOT)`, or a walk of one component after the other.

Both start at a directory that is held open, follow symbolic links as a process inside a chroot would (absolute ones
from the root, `..` never above it), and never ask the kernel to follow anything by itself. A tree that changes
meanwhile can make them fail or end elsewhere below the root, not outside (CVE-2025-47290).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = [
    "DIRECTORY",
    "HANDLE",
    "Resolver",
    "handle_path",
    "open_directory",
    "open_root",
    "openat2_works",
]

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_OPENAT2: Final = 437
_RESOLVE: Final = 0x10 | 0x02  # IN_ROOT, NO_MAGICLINKS
_LINKS: Final = 40
_ATTEMPTS: Final = 64

Maker = Callable[[int, bytes], None]
"""Puts a directory at this name in this directory, whatever was there."""


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)
_HOW: Final = _How(os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _RESOLVE)
_HOW_POINTER: Final = ctypes.byref(_HOW)
_HOW_SIZE: Final = ctypes.c_size_t(ctypes.sizeof(_How))
_NUMBER: Final = ctypes.c_long(_OPENAT2)


def _openat2(root: int, path: bytes) -> int:
    for _ in range(_ATTEMPTS):
        fd: int = _libc.syscall(
            _NUMBER, ctypes.c_int(root), ctypes.c_char_p(path), _HOW_POINTER, _HOW_SIZE
        )
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # The kernel gives up when the tree changes under `..`: it was safe, and wants to be asked again.
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


@functools.cache
def openat2_works() -> bool:
    """Whether this kernel has `openat2` and nothing (an old seccomp profile) forbids it."""
    try:
        os.close(_openat2(-100, b"."))
    except OSError:
        return False
    return True


def handle_path(fd: int) -> str:
    """A name for exactly what a descriptor stands for, also one opened with `O_PATH`; no symbolic link is followed."""
    return f"/proc/self/fd/{fd}"


def open_directory(parent: int, name: bytes, *, unlock: bool = False) -> int:
    """Open a directory in a directory, for reading; never through a symbolic link.

    Args:
        parent: The directory's descriptor.
        name: One component.
        unlock: Where the owner may not read it, give the owner all permissions first; giving them back is the caller's.
    """
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except PermissionError:
        if not unlock:
            raise
    handle = os.open(name, HANDLE | os.O_DIRECTORY, dir_fd=parent)
    try:
        os.chmod(handle_path(handle), stat.S_IMODE(os.fstat(handle).st_mode) | stat.S_IRWXU)
    finally:
        os.close(handle)
    return os.open(name, DIRECTORY, dir_fd=parent)


def open_root(path: str, *, unlock: bool = False) -> int:
    """Open a root directory for reading.

    Args:
        path: Where it is; a symbolic link to it may be.
        unlock: Where the owner may not read it, its mode is another for that moment.
    """
    try:
        return os.open(path, DIRECTORY & ~os.O_NOFOLLOW)
    except PermissionError:
        if not unlock:
            raise
    mode = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, mode | stat.S_IRWXU)
    try:
        return os.open(path, DIRECTORY & ~os.O_NOFOLLOW)
    finally:
        os.chmod(path, mode)


class _Trail:
    """The way from the root to where a walk has come."""

    def __init__(self, root: int) -> None:
        self.fds = [os.open(b".", DIRECTORY, dir_fd=root)]
        self.names: list[bytes] = []

    def enter(self, fd: int, name: bytes) -> None:
        self.fds.append(fd)
        self.names.append(name)

    def up(self, count: int = 1) -> None:
        """Towards the root, and no further."""
        for _ in range(min(count, len(self.names))):
            os.close(self.fds.pop())
            self.names.pop()

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)


class Resolver:
    """Directories below a root, by path.

    Args:
        root: Descriptor of the root directory; stays the caller's.
        openat2: Use the system call; None finds out whether it works.
        unlock: Where the owner may not read a directory, let the owner; `relock` gives the modes back.
    """

    def __init__(self, root: int, *, openat2: bool | None = None, unlock: bool = False) -> None:
        self.root = root
        self._openat2 = openat2_works() if openat2 is None else openat2
        self._unlock = unlock
        self._locked: dict[bytes, tuple[tuple[int, int], int]] = {}

    def open(self, path: bytes) -> int:
        """A descriptor of the directory at this path.

        Raises:
            OSError: It is not there, is no directory, or lies behind too many links.
        """
        if not self._openat2:
            return self.walk(path)
        try:
            return _openat2(self.root, path or b".")
        except PermissionError:
            if not self._unlock:
                raise
        return self.walk(path)

    def walk(self, path: bytes, make: Maker | None = None) -> int:
        """As `open`, in steps that are made where they are missing.

        Args:
            path: Below the root.
            make: Called for a component that is missing or no directory; None lets these fail.
        """
        trail = self._start()
        try:
            parts, links = deque(path.split(b"/")), 0
            while parts:
                part = parts.popleft()
                if part == b"..":
                    trail.up()
                elif part not in (b"", b"."):
                    target = self._step(trail, part, make)
                    if target is not None:
                        links += 1
                        _follow(trail, parts, target, links)
            return trail.fds.pop()
        finally:
            trail.close()

    def original_mode(self, which: tuple[int, int]) -> int | None:
        """The mode a directory (device, inode) had before it was unlocked; giving it back is now the caller's."""
        for path, (locked, mode) in self._locked.items():
            if locked == which:
                del self._locked[path]
                return mode
        return None

    def relock(self) -> None:
        """Give back their modes to directories that were opened to their owner on the way, the deepest first."""
        for path in sorted(self._locked, reverse=True):
            which, mode = self._locked[path]
            try:
                fd = self.open(path)
            except FileNotFoundError:
                continue
            try:
                status = os.fstat(fd)
                if (status.st_dev, status.st_ino) == which:
                    os.fchmod(fd, mode)
            finally:
                os.close(fd)
        self._locked.clear()

    def _start(self) -> _Trail:
        try:
            return _Trail(self.root)
        except PermissionError:
            if not self._unlock:
                raise
        status = os.fstat(self.root)
        mode = stat.S_IMODE(status.st_mode)
        os.fchmod(self.root, mode | stat.S_IRWXU)
        self._locked.setdefault(b"", ((status.st_dev, status.st_ino), mode))
        return _Trail(self.root)

    def _enter(self, trail: _Trail, part: bytes) -> None:
        try:
            fd = open_directory(trail.fds[-1], part)
        except PermissionError:
            if not self._unlock:
                raise
            status = os.lstat(part, dir_fd=trail.fds[-1])
            fd = open_directory(trail.fds[-1], part, unlock=True)
            path = b"/".join((*trail.names, part))
            self._locked.setdefault(
                path, ((status.st_dev, status.st_ino), stat.S_IMODE(status.st_mode))
            )
        trail.enter(fd, part)

    def _step(self, trail: _Trail, part: bytes, make: Maker | None) -> bytes | None:
        """Go into a directory; for a symbolic link, its target instead."""
        for _ in range(_ATTEMPTS):
            try:
                self._enter(trail, part)
                return None
            except OSError as error:
                # O_DIRECTORY | O_NOFOLLOW says ENOTDIR to a symbolic link, too.
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                target = _link_target(trail.fds[-1], part)
                if target is not None:
                    return target
                if make is None:
                    raise
                make(trail.fds[-1], part)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), part)


def _link_target(parent: int, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return None
        raise


def _follow(trail: _Trail, parts: deque[bytes], target: bytes, links: int) -> None:
    if links > _LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), target)
    if target.startswith(b"/"):
        trail.up(len(trail.names))
    parts.extendleft(reversed(target.split(b"/")))
