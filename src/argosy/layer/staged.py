"""A tree that is made beside a root and goes into it as a whole, or not at all.

It is written in a hidden directory of the root, so on the same file system, and then renamed into place piece by piece:
directories are joined, a file takes the place of a file, and whatever else is in the way is told before anything moves.
What gave way is kept until all is in place, and put back where that fails.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from argosy.errors import StorageError
from argosy.layer.removal import purge, remove
from argosy.layer.resolve import DIRECTORY, Resolver

__all__ = ["staged"]

_Spot = tuple[Resolver, bytes, bytes]
"""A name in a directory of a tree."""


@contextmanager
def staged(root: Resolver, path: str, *, unlock: bool) -> Iterator[str]:
    """The path of a new directory; what is in it when the block ends without an error goes below the root.

    Args:
        root: Opens directories below the root.
        path: The root's.
        unlock: The process has no power over permissions.

    Raises:
        StorageError: The file system refuses, or something is in the way; the root is as it was.
    """
    with _told(path):
        folder = tempfile.mkdtemp(prefix=".argosy-", dir=path)
        new, old = (os.path.join(folder, name) for name in ("new", "old"))
        os.mkdir(new, 0o700)
        os.mkdir(old, 0o700)
    try:
        yield new
        with _told(path), _opened(new) as source, _opened(old) as spare:
            _join(Resolver(source, unlock=unlock), Resolver(spare), root, path)
            purge(spare, unlock=unlock)
    finally:
        root.relock()
        name = os.fsencode(os.path.basename(folder))
        with suppress(OSError):
            remove(root.root, name + b"/new", unlock=unlock)
            os.rmdir(old)  # it is empty, but for what could not be put back: that stays
            os.rmdir(folder)


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "another file system is mounted below it" if error.errno == errno.EXDEV else None
        raise StorageError(
            f"{path}: {(error.strerror or str(error)).lower()}", hint=hint
        ) from error


@contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def _join(new: Resolver, old: Resolver, root: Resolver, path: str) -> None:
    done: list[tuple[_Spot, _Spot]] = []

    def rename(before: _Spot, after: _Spot) -> None:
        _rename(before, after)
        done.append((before, after))

    try:
        for around, base, taken in list(_meetings(new, root, path)):
            if taken:
                rename((root, around, base), (old, b"", b"%d" % len(done)))
            rename((new, around, base), (root, around, base))
    except BaseException:
        for before, after in reversed(done):
            with suppress(OSError):
                _rename(after, before)
        raise


def _rename(before: _Spot, after: _Spot) -> None:
    source, target = before[0].open(before[1]), -1
    try:
        target = after[0].open(after[1])
        os.rename(before[2], after[2], src_dir_fd=source, dst_dir_fd=target)
    finally:
        os.close(source)
        if target >= 0:
            os.close(target)


def _meetings(new: Resolver, root: Resolver, path: str) -> Iterator[tuple[bytes, bytes, bool]]:
    """What is to be moved: its directory, its name, and whether a file there gives way to it.

    Raises:
        StorageError: something is in the way.
    """
    todo = [b""]
    while todo:
        around = todo.pop()
        here, there = new.open(around), -1
        try:
            there = root.open(around)
            for base in map(os.fsencode, os.listdir(here)):
                below = around + b"/" + base if around else base
                folder = stat.S_ISDIR(os.lstat(base, dir_fd=here).st_mode)
                taken = _mode(there, base)
                if folder and taken and _is_directory(root, below):
                    todo.append(below)
                elif taken and (folder or stat.S_ISDIR(taken)):
                    what = "file" if folder else "directory"
                    where = os.path.join(path, os.fsdecode(below))
                    raise StorageError(f"{where}: a {what} is in the way")
                else:
                    yield around, base, bool(taken)
        finally:
            os.close(here)
            if there >= 0:
                os.close(there)


def _mode(folder: int, name: bytes) -> int:
    try:
        return os.lstat(name, dir_fd=folder).st_mode
    except FileNotFoundError:
        return 0


def _is_directory(root: Resolver, path: bytes) -> bool:
    """Whether a path leads to a directory, through a link perhaps that is there already."""
    try:
        os.close(root.open(path))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return True
