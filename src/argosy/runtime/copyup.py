"""Copy a directory's contents into another one, by descriptors: what ``tmpcopyup`` puts into its tmpfs."""

from __future__ import annotations

import posix
from errno import ENOTSUP, EPERM

from argosy.runtime.inroot import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG

_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW
_LIST = _READ | posix.O_DIRECTORY


def copy_directory(source: int, target: int) -> None:
    """Copy everything below ``source`` to ``target``; owner, mode and times with it, extended attributes where held.

    Args:
        source: directory, O_PATH will do.
        target: an empty directory.
    """
    listed = posix.open(".", _LIST, dir_fd=source)
    try:
        for name in posix.listdir(listed):
            _copy(name, listed, target)
    finally:
        posix.close(listed)


def _copy(name: str, source: int, target: int) -> None:
    status = posix.stat(name, dir_fd=source, follow_symlinks=False)
    kind = status.st_mode & S_IFMT
    if kind == S_IFDIR:
        _copy_tree(name, source, target)
    elif kind == S_IFREG:
        _copy_file(name, source, target)
    elif kind == S_IFLNK:
        posix.symlink(posix.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        posix.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    posix.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if kind != S_IFLNK:
        posix.chmod(name, status.st_mode & 0o7777, dir_fd=target)
    posix.utime(
        name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False
    )


def _copy_tree(name: str, source: int, target: int) -> None:
    posix.mkdir(name, 0o700, dir_fd=target)
    inner_source = posix.open(name, _LIST, dir_fd=source)
    try:
        inner_target = posix.open(name, _LIST, dir_fd=target)
        try:
            copy_directory(inner_source, inner_target)
            _copy_attributes(inner_source, inner_target)
        finally:
            posix.close(inner_target)
    finally:
        posix.close(inner_source)


def _copy_file(name: str, source: int, target: int) -> None:
    reader = posix.open(name, _READ, dir_fd=source)
    try:
        writer = posix.open(
            name,
            posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC,
            0o600,
            dir_fd=target,
        )
        try:
            while part := posix.read(reader, 1 << 18):
                view = memoryview(part)
                while view:
                    view = view[posix.write(writer, view) :]
            _copy_attributes(reader, writer)
        finally:
            posix.close(writer)
    finally:
        posix.close(reader)


def _copy_attributes(source: int, target: int) -> None:
    try:
        names = posix.listxattr(source)
    except OSError:
        return
    for name in names:
        try:
            posix.setxattr(target, name, posix.getxattr(source, name))
        except OSError as error:
            if error.errno not in (ENOTSUP, EPERM):
                raise
