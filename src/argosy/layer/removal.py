"""Removing what is below a directory, at any depth, without ever going through a symbolic link.

Three descriptors are enough for a tree of any depth: going up again is `..`, checked to be the directory that was left,
so that a directory moved away meanwhile ends the removal instead of leading it elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import NamedTuple, Protocol

from argosy.layer.resolve import DIRECTORY, open_directory

__all__ = ["Identity", "Spare", "discard", "identity", "purge", "remove"]

Identity = tuple[int, int]
"""Device and inode."""


class Spare(Protocol):
    """Who decides what stays."""

    def directory(self, which: Identity, /) -> bool:
        """Whether this directory stays (what is in it is asked about in turn)."""

    def other(self, fd: int, parent: Identity, name: bytes, /) -> bool:
        """Whether this file of the directory `fd`, which is `parent`, stays."""

    def again(self, which: Identity, /) -> bool:
        """Whether this was asked of the directory before: then nothing at or below it is to be removed any more."""


class _Nothing:
    def directory(self, _which: Identity, /) -> bool:
        return False

    def other(self, _fd: int, _parent: Identity, _name: bytes, /) -> bool:
        return False

    def again(self, _which: Identity, /) -> bool:
        return False


class _Level(NamedTuple):
    which: Identity
    folders: list[bytes]
    name: bytes
    stays: bool
    mode: int
    times: tuple[int, int]


def identity(fd: int) -> Identity:
    """What a descriptor stands for."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def remove(parent: int, name: bytes, *, unlock: bool = False) -> None:
    """Remove a name from a directory, and all that is below it; nothing there is fine.

    Raises:
        OSError: The system refuses.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.EISDIR, errno.EPERM):
            raise
    try:
        fd = open_directory(parent, name, unlock=unlock)
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)
        return
    try:
        purge(fd, unlock=unlock)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def discard(path: str) -> None:
    """Remove a path and all that is below it, as far as the system lets; nothing there is fine."""
    place, name = os.path.split(path)
    with contextlib.suppress(OSError):
        parent = os.open(place, DIRECTORY)
        try:
            remove(parent, os.fsencode(name), unlock=True)
        finally:
            os.close(parent)


def purge(top: int, spare: Spare | None = None, *, unlock: bool = False) -> None:
    """Remove what a directory holds, but for what is spared; the directory stays.

    Raises:
        OSError: The system refuses, or the tree was moved meanwhile (ESTALE).
    """
    spare = spare or _Nothing()
    if spare.again(identity(top)):
        return
    here = os.open(b".", DIRECTORY, dir_fd=top)
    try:
        levels = [_enter(here, b"", None, spare, unlock=unlock)]
        while True:
            level = levels[-1]
            if level.folders:
                name = level.folders.pop()
                status = os.lstat(name, dir_fd=here)
                which = status.st_dev, status.st_ino
                if spare.directory(which) and spare.again(which):
                    continue
                below = open_directory(here, name, unlock=unlock)
                os.close(here)
                here = below
                levels.append(_enter(here, name, status.st_mode, spare, unlock=unlock))
            elif len(levels) == 1:
                return
            else:
                levels.pop()
                up = _leave(here, level, levels[-1].which)
                os.close(here)
                here = up
    finally:
        os.close(here)


def _enter(fd: int, name: bytes, mode: int | None, spare: Spare, *, unlock: bool) -> _Level:
    status = os.fstat(fd)
    which, times = (status.st_dev, status.st_ino), (status.st_atime_ns, status.st_mtime_ns)
    if unlock and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
    stays = mode is None or spare.directory(which)
    return _Level(which, _sweep(fd, which, spare), name, stays, mode or status.st_mode, times)


def _leave(here: int, level: _Level, above: Identity) -> int:
    """The directory above a finished one, which is removed unless it stays."""
    if level.stays:
        if os.fstat(here).st_mode != level.mode:
            os.fchmod(here, stat.S_IMODE(level.mode))
        os.utime(here, ns=level.times)
    up = os.open(b"..", DIRECTORY, dir_fd=here)
    try:
        if identity(up) != above:
            raise OSError(errno.ESTALE, "the directory was moved while it was removed", level.name)
        if not level.stays:
            os.rmdir(level.name, dir_fd=up)
    except OSError:
        os.close(up)
        raise
    return up


def _sweep(fd: int, which: Identity, spare: Spare) -> list[bytes]:
    """Remove the files of a directory; its directories' names."""
    folders: list[bytes] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                folders.append(name)
            elif not spare.other(fd, which, name):
                os.unlink(name, dir_fd=fd)
    return folders
