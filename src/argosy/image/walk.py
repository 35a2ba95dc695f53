"""Files of this machine as entries of a changeset: what `insert`, artifacts and source images put into tars.

The tree is walked by directory descriptors and no link is followed, so that a tree that changes under us cannot make
us read elsewhere; going up again is `..`, checked to be the directory that was left, so that any depth can be walked.
Names are in byte order; the first name of a file with several is the file, the others are links, if links are wanted.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from argosy.errors import InvalidLayerError, unread
from argosy.layer.entry import WHITEOUT_PREFIX, Entry, EntryType, shown
from argosy.layer.removal import Identity, identity
from argosy.layer.resolve import DIRECTORY
from argosy.layer.tarwriter import TarWriter

__all__ = ["TreeOptions", "write_tree"]

_CHUNK = 1 << 20
_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFIFO: EntryType.FIFO,
    stat.S_IFCHR: EntryType.CHARACTER,
    stat.S_IFBLK: EntryType.BLOCK,
}
_SKIPPED_XATTRS = ("security.selinux", "security.ima", "security.evm", "system.nfs4_acl")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TreeOptions:
    """How files are told of in a changeset.

    Args:
        owner: (uid, gid) of every entry; None keeps each file's own.
        epoch: SOURCE_DATE_EPOCH in seconds: no time is later.
        fixed_time: Seconds since 1970 that every entry has; None keeps each file's own.
        xattrs: Whether extended attributes are kept.
        hardlinks: Whether further names of a file are links to the first; else each is a file of its own.
        warn: Told, in one line, of what cannot be in a changeset and was left out.
    """

    owner: tuple[int, int] | None = None
    epoch: int | None = None
    fixed_time: int | None = None
    xattrs: bool = True
    hardlinks: bool = True
    warn: Callable[[str], object] = lambda _line: None


def write_tree(
    tar: TarWriter,
    path: str,
    name: bytes,
    options: TreeOptions | None = None,
    *,
    changeset: bool = False,
) -> None:
    """Write a file, or a directory with all in it, into a tar archive.

    Args:
        tar: The archive.
        path: What to write; a symbolic link at its very end is written as one.
        name: What it is called in the archive, without slashes around; empty for the root.
        options: How.
        changeset: The archive is a layer, in which a name that begins with `.wh.` would remove something.

    Raises:
        NotFoundError, DeniedError, StorageError: something is not there, may not or cannot be read.
        InvalidLayerError: a file changed its size while it was read, or has a name no changeset can have.
    """
    parent, _, base = os.path.abspath(path).rpartition("/")
    try:
        folder = os.open(parent or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            walker = _Walker(tar, options or TreeOptions(), changeset=changeset)
            walker.visit(folder, os.fsencode(base or "."), name)
        finally:
            os.close(folder)
    except OSError as exc:
        raise unread(path, exc) from exc


class _Level(NamedTuple):
    """A directory the walk is in, and those of its names that are still to be visited, the first one last."""

    which: Identity
    name: bytes
    left: list[bytes]


def _names(fd: int) -> list[bytes]:
    return sorted(map(os.fsencode, os.listdir(fd)), reverse=True)


def _down(here: int, base: bytes, name: bytes, levels: list[_Level]) -> int:
    """The directory below, in place of this one; this one, where that one is empty."""
    below = os.open(base, DIRECTORY, dir_fd=here)
    try:
        names = _names(below)
        if names:  # of one that may be read but not entered there would be no way back
            levels.append(_Level(identity(below), name, names))
            here, below = below, here
    finally:
        os.close(below)
    return here


def _up(here: int, level: _Level) -> int:
    """The directory above, in place of this one."""
    above = os.open(b"..", DIRECTORY, dir_fd=here)
    if identity(above) != level.which:
        os.close(above)
        raise OSError(errno.ESTALE, "the directory was moved while it was read")
    os.close(here)
    return above


class _Walker:
    def __init__(self, tar: TarWriter, options: TreeOptions, *, changeset: bool) -> None:
        self._tar, self._options, self._changeset = tar, options, changeset
        self._links: dict[tuple[int, int], bytes] = {}

    def visit(self, parent: int, base: bytes, name: bytes) -> None:
        """Write what has a name in a directory, and all that is below it. One directory is open at a time."""
        if not self._add(parent, base, name):
            return
        here = os.open(base, DIRECTORY, dir_fd=parent)
        try:
            levels = [_Level(identity(here), name, _names(here))]
            while levels:
                level = levels[-1]
                if level.left:
                    child = level.left.pop()
                    below = level.name + b"/" + child if level.name else child
                    if self._add(here, child, below):
                        here = _down(here, child, below, levels)
                elif levels.pop() and levels:
                    here = _up(here, levels[-1])
        finally:
            os.close(here)

    def _add(self, folder: int, base: bytes, name: bytes) -> bool:
        """Write one entry; whether it is a directory."""
        if self._changeset and name.rpartition(b"/")[2].startswith(WHITEOUT_PREFIX):
            raise InvalidLayerError(
                f"{shown(name)}: a name that begins with .wh. cannot be in a layer"
            )
        status = os.stat(base, dir_fd=folder, follow_symlinks=False)
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            self._options.warn(f"{shown(name)}: sockets cannot be in a layer, left out")
            return False
        entry = self._entry(folder, base, name, status, kind)
        if entry.type is EntryType.FILE:
            self._file(folder, base, entry)
        elif name or kind is not EntryType.DIRECTORY:
            self._tar.add(entry)
        return kind is EntryType.DIRECTORY

    def _entry(
        self, folder: int, base: bytes, name: bytes, status: os.stat_result, kind: EntryType
    ) -> Entry:
        options = self._options
        uid, gid = options.owner or (status.st_uid, status.st_gid)
        linkname = b""
        if kind is EntryType.SYMLINK:
            linkname = os.readlink(base, dir_fd=folder)
        elif options.hardlinks and kind is not EntryType.DIRECTORY and status.st_nlink > 1:
            linkname = self._links.setdefault((status.st_dev, status.st_ino), name)
            kind = kind if linkname == name else EntryType.HARDLINK
            linkname = b"" if linkname == name else linkname
        device = (0, 0)
        if kind in (EntryType.CHARACTER, EntryType.BLOCK):
            device = (os.major(status.st_rdev), os.minor(status.st_rdev))
        return Entry(
            name=name + b"/" if kind is EntryType.DIRECTORY else name,
            type=kind,
            mode=0o777 if kind is EntryType.SYMLINK else stat.S_IMODE(status.st_mode),
            uid=uid,
            gid=gid,
            size=status.st_size if kind is EntryType.FILE else 0,
            mtime=self._time(status.st_mtime_ns),
            linkname=linkname,
            device=device,
            xattrs=self._xattrs(folder, base, name) if options.xattrs else {},
        )

    def _xattrs(self, folder: int, base: bytes, name: bytes) -> dict[bytes, bytes]:
        found = dict(_xattrs(folder, base))
        for bad in [key for key in found if b"=" in key]:
            # A record of PAX ends its key at the first "=".
            del found[bad]
            self._options.warn(
                f"{shown(name)}: an attribute {shown(bad)} cannot be in a layer, left out"
            )
        return found

    def _time(self, mtime: int) -> int:
        options = self._options
        if options.fixed_time is not None:
            return options.fixed_time * 10**9
        return mtime if options.epoch is None else min(mtime, options.epoch * 10**9)

    def _file(self, folder: int, base: bytes, entry: Entry) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(base, flags, dir_fd=folder)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
                raise InvalidLayerError(f"{shown(entry.name)}: changed while it was read")
            self._tar.add(entry, _content(file, entry.size))
        finally:
            os.close(file)


def _content(file: int, size: int) -> Iterator[bytes]:
    while size and (data := os.read(file, min(size, _CHUNK))):
        size -= len(data)
        yield data


def _xattrs(folder: int, base: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = b"/proc/self/fd/%d/%s" % (folder, base)
    try:
        names = sorted(os.listxattr(place, follow_symlinks=False))
        for name in names:
            if name not in _SKIPPED_XATTRS:
                yield os.fsencode(name), os.getxattr(place, name, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in (errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES):
            raise
