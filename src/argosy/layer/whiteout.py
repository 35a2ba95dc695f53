"""Whiteouts, carried out on a root or marked in the upper directory of an overlay.

Either way they hide lower layers only: what the same layer has written stays, in whatever order the archive says it
(image-spec, layer.md, "Whiteouts").
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from argosy.layer.options import Overlay
from argosy.layer.overlay import is_node, make_node, make_opaque
from argosy.layer.place import Folder, Places, Written
from argosy.layer.removal import Identity, identity, purge, remove
from argosy.layer.resolve import handle_path, open_directory

__all__ = ["Carried", "Marked"]

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)


class _Whiteouts:
    """What a directory has of lower layers goes once: a layer of many whiteouts of it costs no more than one."""

    def __init__(self) -> None:
        self._purged: set[Identity] = set()

    def again(self, which: Identity, /) -> bool:
        """Whether this was asked of the directory before."""
        if which in self._purged:
            return True
        self._purged.add(which)
        return False


class Carried(_Whiteouts):
    """Whiteouts remove what they name."""

    def __init__(self, places: Places, written: Written, *, unlock: bool) -> None:
        super().__init__()
        self._places = places
        self._written = written
        self._unlock = unlock

    def plain(self, folder_path: bytes, name: bytes, _mtime: int) -> None:
        """Remove one name from a directory; nothing there is fine."""
        folder = self._existing(folder_path)
        if folder is None:
            return
        try:
            mode = os.lstat(name, dir_fd=folder.fd).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            self._directory(folder, name, mode)
        elif (folder.which, name) not in self._written:
            if stat.S_ISLNK(mode):
                self._places.forget()
            folder.changed = True
            remove(folder.fd, name, unlock=self._unlock)

    def opaque(self, folder_path: bytes, _mtime: int) -> None:
        """Remove all that is in a directory."""
        folder = self._existing(folder_path)
        if folder is not None:
            folder.changed = True
            self._places.forget()
            purge(folder.fd, self, unlock=self._unlock)

    def directory(self, which: Identity, /) -> bool:
        """Whether this layer wrote the directory, or into it."""
        return (which,) in self._written

    def other(self, _fd: int, parent: Identity, name: bytes, /) -> bool:
        """Whether this layer wrote the file."""
        return (parent, name) in self._written

    def _directory(self, folder: Folder, name: bytes, mode: int) -> None:
        self._places.forget()
        folder.changed = True
        fd = open_directory(folder.fd, name, unlock=self._unlock)
        try:
            if self.directory(identity(fd)):
                status = os.fstat(fd)
                purge(fd, self, unlock=self._unlock)
                if self._unlock:
                    os.fchmod(fd, stat.S_IMODE(mode))
                os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
                return
        finally:
            os.close(fd)
        remove(folder.fd, name, unlock=self._unlock)

    def _existing(self, path: bytes) -> Folder | None:
        try:
            return self._places.existing(path)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise


class Marked(_Whiteouts):
    """Whiteouts become the marks of overlayfs: the tree holds this layer alone, its lower ones are elsewhere."""

    def __init__(self, places: Places, overlay: Overlay, *, unlock: bool) -> None:
        super().__init__()
        self._places = places
        self._overlay = overlay
        self._unlock = unlock

    def plain(self, folder_path: bytes, name: bytes, mtime: int) -> None:
        """Hide one name of the lower layers; a directory of this layer hides them by being opaque."""
        folder = self._places.made(folder_path, mtime)
        try:
            status = os.lstat(name, dir_fd=folder.fd)
        except FileNotFoundError:
            # Inside an opaque directory a mark would show up in listings, and nowhere else.
            if not self._hidden(folder):
                make_node(folder.fd, name)
            return
        if stat.S_ISDIR(status.st_mode):
            fd = open_directory(folder.fd, name, unlock=self._unlock)
            try:
                self._close_off(fd)
                if self._unlock:
                    os.fchmod(fd, stat.S_IMODE(status.st_mode))
            finally:
                os.close(fd)

    def opaque(self, folder_path: bytes, mtime: int) -> None:
        """Hide all of a directory's lower layers."""
        self._close_off(self._places.made(folder_path, mtime).fd)

    def directory(self, _which: Identity, /) -> bool:
        """Directories stay."""
        return True

    def other(self, fd: int, _parent: Identity, name: bytes, /) -> bool:
        """All but marks stay."""
        return not is_node(os.lstat(name, dir_fd=fd))

    def _close_off(self, fd: int) -> None:
        status = os.fstat(fd)
        make_opaque(fd, self._overlay)
        purge(fd, self, unlock=self._unlock)
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _hidden(self, folder: Folder) -> bool:
        for _, fd in self._places.above(folder):
            try:
                if os.getxattr(handle_path(fd), self._overlay.value + b"opaque") == b"y":
                    return True
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                    raise
        return False
