"""The directories a changeset writes into: found once, held open, given back with their times.

A directory stays open while entries go into it, so that a path is resolved once for all of its files. When it is let
go it gets the time it should have: its own entry's, or the one it had before. `Written` remembers what this layer put
where, in eight bytes an entry, because whiteouts hide lower layers only.
"""

from __future__ import annotations

import bisect
import errno
import os
import stat
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from argosy.layer.options import Options
from argosy.layer.overlay import is_node, make_opaque
from argosy.layer.removal import Identity, identity, remove
from argosy.layer.resolve import DIRECTORY, Resolver

__all__ = ["Folder", "Places", "Written"]

_OPEN: Final = 100
_RECENT: Final = 1 << 16
_ACL: Final = "system.posix_acl_default"
_IMPLICIT_MODE: Final = 0o755


class Written:
    """A set of what one layer has written, small enough for millions: recent ones as they are, others as hashes."""

    __slots__ = ("_old", "_recent")

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._old: list[array[int]] = []

    def add(self, key: tuple[object, ...]) -> None:
        """Remember this."""
        self._recent.add(hash(key))
        if len(self._recent) >= _RECENT:
            merged = array("q", self._recent)
            self._recent.clear()
            # Runs double in size, so that there are few to look through.
            while self._old and len(self._old[-1]) <= len(merged):
                merged.extend(self._old.pop())
            self._old.append(array("q", sorted(merged)))

    def __contains__(self, key: tuple[object, ...]) -> bool:
        number = hash(key)
        if number in self._recent:
            return True
        for run in self._old:
            at = bisect.bisect_left(run, number)
            if at < len(run) and run[at] == number:
                return True
        return False


class Folder:
    """A directory held open."""

    __slots__ = ("acl", "atime", "changed", "fd", "gives", "marked", "mode", "mtime", "which")

    def __init__(self, fd: int, status: os.stat_result, *, acl: bool) -> None:
        self.fd = fd
        self.which: Identity = (status.st_dev, status.st_ino)
        self.atime = status.st_atime_ns
        self.mtime = status.st_mtime_ns
        self.changed = False
        self.marked = False
        self.mode: int | None = None
        self.gives: tuple[int, int] | None = None
        self.acl = acl

    def owner(self, fd: int) -> tuple[int, int]:
        """The owner and group of a file just made here: those of the first one that was asked about.

        The kernel takes the owner from the process, and the group from it or from the directory (set-group-id,
        `grpid` mounts): whoever changes the directory's own forgets what it gives.
        """
        if self.gives is None:
            status = os.fstat(fd)
            self.gives = status.st_uid, status.st_gid
        return self.gives

    def close(self) -> None:
        """Give it its mode and times, and let it go."""
        try:
            if self.mode is not None:
                os.fchmod(self.fd, self.mode)
            if self.changed:
                os.utime(self.fd, ns=(self.atime, self.mtime))
        finally:
            os.close(self.fd)


def _has_default_acl(fd: int) -> bool:
    try:
        return bool(os.getxattr(fd, _ACL))
    except OSError:
        return False


def _is_hidden(parent: int, name: bytes) -> bool:
    try:
        return is_node(os.lstat(name, dir_fd=parent))
    except FileNotFoundError:
        return False


class Places:
    """The directories of one changeset, by path and by identity.

    Args:
        resolver: Opens directories below the root.
        written: Where directories this layer makes are remembered.
        owner: Of directories that are made because something needs them.
        options: How the tree is treated.
        unlock: The process has no power over permissions: give itself the owner's, and take them back.
    """

    def __init__(
        self,
        resolver: Resolver,
        written: Written,
        owner: tuple[int, int],
        options: Options,
        *,
        unlock: bool,
    ) -> None:
        self._resolver = resolver
        self._written = written
        self._owner = owner
        self._overlay = options.overlay
        self._additive = options.additive
        self._implicit_mode = _IMPLICIT_MODE & ~options.umask
        self._unlock = unlock
        self._paths: dict[bytes, Folder] = {}
        self._open: OrderedDict[Identity, Folder] = OrderedDict()
        self._root = identity(resolver.root)

    def close(self) -> None:
        """Let go of every directory, the last first."""
        self._paths.clear()
        failure: OSError | None = None
        while self._open:
            try:
                self._open.popitem()[1].close()
            except OSError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def forget(self) -> None:
        """A directory or symbolic link was removed: paths may lead elsewhere now."""
        self._paths.clear()

    def existing(self, path: bytes) -> Folder:
        """The directory at this path.

        Raises:
            OSError: It is not there, or is none.
        """
        folder = self._paths.get(path)
        if folder is None:
            folder = self._hold(path, self._resolver.open(path))
        else:
            self._open.move_to_end(folder.which)
        return folder

    def made(self, path: bytes, mtime: int) -> Folder:
        """The directory at this path, made where it is missing, with this time; see `replace`.

        Raises:
            OSError: It cannot be made.
        """
        folder = self._paths.get(path)
        if folder is None:
            try:
                fd = self._resolver.open(path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    raise
                fd = self._make_path(path, mtime)
            folder = self._hold(path, fd)
        else:
            self._open.move_to_end(folder.which)
        if not folder.marked:
            self._mark(folder)
        folder.changed = True
        return folder

    def adopt(self, path: bytes, fd: int) -> Folder:
        """Hold a directory that this layer has an entry for, and that was just opened at this path.

        The entry says what becomes of its mode, times and attributes: a default ACL is not looked for.
        """
        folder = self._hold(path, fd, described=True)
        folder.changed = folder.marked = True
        self._written.add((folder.which,))
        return folder

    def trim(self) -> None:
        """Let go of what was not used lately. Only between entries: no `Folder` may be in use."""
        if len(self._open) <= _OPEN:
            return
        while len(self._open) > _OPEN - _OPEN // 4:
            self._open.popitem(last=False)[1].close()
        held = set(self._open.values())
        self._paths = {path: folder for path, folder in self._paths.items() if folder in held}

    def above(self, folder: Folder) -> Iterator[tuple[Identity, int]]:
        """The directories that lead to this one, itself first, the root last, each with a handle."""
        which, here = folder.which, os.dup(folder.fd)
        try:
            while True:
                yield which, here
                if which == self._root:
                    return
                up = os.open(b"..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = up
                if identity(here) == which:
                    return
                which = identity(here)
        finally:
            os.close(here)

    def _mark(self, folder: Folder) -> None:
        """This layer writes into it: no whiteout of the same layer removes it or what leads to it."""
        folder.marked = True
        for which, _ in self.above(folder):
            if (which,) in self._written:
                return
            self._written.add((which,))

    def _make_path(self, path: bytes, mtime: int) -> int:
        """Make what is missing of a path, and open it."""
        above, _, base = path.rpartition(b"/")
        folder = self._paths.get(above)
        if folder is not None:
            folder.changed = True
            try:
                os.mkdir(base, 0o700, dir_fd=folder.fd)
            except FileExistsError:
                pass
            else:
                return self._dress(os.open(base, DIRECTORY, dir_fd=folder.fd), mtime)
        return self._resolver.walk(path, lambda parent, name: self._make(parent, name, mtime))

    def _make(self, parent: int, name: bytes, mtime: int) -> None:
        status = os.fstat(parent)
        self.forget()
        os.close(self._dress(self.replace(parent, name), mtime))
        held = self._open.get((status.st_dev, status.st_ino))
        if held is not None:
            held.changed = True
        else:
            os.utime(parent, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _dress(self, fd: int, mtime: int) -> int:
        """Metadata for a directory that no entry describes; its descriptor again."""
        try:
            self._give(fd)
            os.fchmod(fd, self._implicit_mode)
            os.utime(fd, ns=(mtime, mtime))
        except OSError:
            os.close(fd)
            raise
        return fd

    def _open_up(self, folder: Folder) -> None:
        """Let the owner do everything in it, until it is let go."""
        mode = stat.S_IMODE(os.fstat(folder.fd).st_mode)
        folder.mode = self._resolver.original_mode(folder.which)
        if mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.mode = mode
            os.fchmod(folder.fd, mode | stat.S_IRWXU)

    def replace(self, parent: int, name: bytes) -> int:
        """A new directory at this name in place of whatever is there, open.

        Raises:
            OSError: It cannot be made; or something is there, and what is additive removes nothing.
        """
        # A directory in the place of a whiteout is opaque.
        hidden = self._overlay is not None and _is_hidden(parent, name)
        if not self._additive:
            remove(parent, name, unlock=self._unlock)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            raise NotADirectoryError(
                errno.ENOTDIR, "something that is no directory is in the way", name
            ) from None
        fd = os.open(name, DIRECTORY, dir_fd=parent)
        if hidden and self._overlay is not None:
            make_opaque(fd, self._overlay)
        return fd

    def _give(self, fd: int) -> None:
        try:
            os.fchown(fd, *self._owner)
        except PermissionError:
            if not self._unlock:
                raise

    def _hold(self, path: bytes, fd: int, *, described: bool = False) -> Folder:
        status = os.fstat(fd)
        which = status.st_dev, status.st_ino
        folder = self._open.get(which)
        if folder is not None:
            os.close(fd)
            self._open.move_to_end(which)
        else:
            folder = Folder(fd, status, acl=not described and _has_default_acl(fd))
            if self._unlock:
                self._open_up(folder)
            self._open[which] = folder
        self._paths[path] = folder
        return folder
