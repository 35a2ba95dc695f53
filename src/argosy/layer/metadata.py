"""Owners, modes, attributes and times put onto files, in the order that keeps all of them.

chown clears set-id bits and file capabilities, so it comes first; then the mode, then attributes, and times last
because everything else changes them. Each is done through a descriptor of exactly the file meant: a name could lead
elsewhere by the time it is used (CVE-2021-32760).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final

from argosy.errors import InvalidLayerError
from argosy.layer.entry import Entry, shown
from argosy.layer.options import Options
from argosy.layer.resolve import HANDLE, handle_path
from argosy.layer.rootless import (
    CAPABILITY,
    OWNER,
    REFUSED,
    capability_to_disk,
    capability_to_layer,
    decode_owner,
    encode_owner,
)

__all__ = ["FOREIGN", "Metadata"]

FOREIGN: Final = frozenset((b"security.selinux", b"system.nfs4_acl"))
"""Attributes that belong to the host: neither set, nor removed, nor written to a layer."""

_REFUSALS: Final = (errno.EPERM, errno.EACCES)
_UNSUPPORTED: Final = (errno.ENOTSUP, errno.EOPNOTSUPP)


class Metadata:
    """What a tree's options mean for the metadata of one file.

    Args:
        options: How the tree is treated.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._rootless = options.rootless
        self._root = options.uids.to_host(0) if options.uids.ranges else 0
        self._owners: dict[tuple[int, int], tuple[int, int]] = {}
        self._warned: set[str] = set()
        self._prefix = options.overlay.value if options.overlay else None

    def warn(self, topic: str, message: str) -> None:
        """Tell of something harmless, once for each topic."""
        if topic not in self._warned:
            self._warned.add(topic)
            self._options.warn(message)

    def owner(self, entry: Entry) -> tuple[int, int]:
        """The host's owner and group for an entry.

        Raises:
            InvalidLayerError: The id map does not hold it.
        """
        key = (0, 0) if self._rootless else (entry.uid, entry.gid)
        found = self._owners.get(key)
        if found is None:
            found = (
                self._options.uids.to_host(key[0], "uid"),
                self._options.gids.to_host(key[1], "gid"),
            )
            if len(self._owners) < 4096:
                self._owners[key] = found
        return found

    def put(
        self,
        fd: int,
        entry: Entry,
        mode: int,
        *,
        fresh: bool,
        made: tuple[int, int] | None = None,
    ) -> None:
        """Owner, mode and attributes onto an open file or directory; times are the caller's.

        Args:
            fd: Open for reading or writing.
            entry: Whose metadata.
            mode: Permission bits to set.
            fresh: It was just made, and has no attributes of an earlier file.
            made: The owner and group it was just made with, where they are known: they are not set again.
        """
        owner = self.owner(entry)
        if owner != made:
            try:
                os.fchown(fd, *owner)
            except PermissionError:
                if not self._rootless:
                    raise
        if fresh and not entry.xattrs and not self._rootless:
            os.fchmod(fd, mode)
            return
        # The kernel wants write permission of who sets `user.` attributes, also through a descriptor.
        usable = mode | stat.S_IRUSR | stat.S_IWUSR
        os.fchmod(fd, usable)
        if not fresh:
            self._clear(fd)
        self._set_all(fd, entry)
        if usable != mode:
            os.fchmod(fd, mode)

    def put_special(self, parent: int, name: bytes, entry: Entry, *, link: bool) -> None:
        """Owner, mode (not of symbolic links), attributes and times onto what cannot be opened."""
        uid, gid = self.owner(entry)
        try:
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
        except PermissionError:
            if not self._rootless:
                raise
        if entry.xattrs or not link:
            handle = os.open(name, HANDLE, dir_fd=parent)
            try:
                if not link:
                    os.chmod(handle_path(handle), entry.mode)
                if entry.xattrs:
                    self._set_special(handle, entry)
            finally:
                os.close(handle)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def on_disk(self, entry: Entry) -> dict[bytes, bytes]:
        """An entry's attributes as they are stored in this tree."""
        found: dict[bytes, bytes] = {}
        for name, value in entry.xattrs.items():
            if name in FOREIGN or name == OWNER or name.startswith(REFUSED):
                if name not in FOREIGN:
                    self.warn(
                        "own",
                        f"entry {shown(entry.name)}: attribute {shown(name)} is ignored in a layer",
                    )
            elif name == CAPABILITY:
                found[name] = capability_to_disk(value, self._root)
            elif self._prefix and name.startswith(self._prefix):
                found[self._prefix + b"overlay." + name[len(self._prefix) :]] = value
            else:
                found[name] = value
        if self._rootless and (owner := encode_owner(entry.uid, entry.gid)):
            found[OWNER] = owner
        return found

    def in_layer(self, found: Mapping[bytes, bytes], path: bytes) -> dict[bytes, bytes]:
        """Attributes stored in this tree, at this path, as a layer carries them."""
        out = self._named_in_layer(found)
        # A record of PAX ends its key at the first "=".
        for name in [name for name in out if b"=" in name]:
            del out[name]
            self._options.warn(
                f"{shown(path)}: an attribute {shown(name)} cannot be in a layer, left out"
            )
        return out

    def _named_in_layer(self, found: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        out: dict[bytes, bytes] = {}
        for name, value in found.items():
            if name in FOREIGN or name == OWNER:
                continue
            if name.startswith(REFUSED):
                out.setdefault(name[len(REFUSED) :], value)
            elif name == CAPABILITY:
                out[name] = capability_to_layer(value, self._root)
            elif self._prefix and name.startswith(self._prefix):
                rest = name[len(self._prefix) :]
                if rest.startswith(b"overlay."):
                    out[self._prefix + rest.removeprefix(b"overlay.")] = value
            else:
                out[name] = value
        return out

    def owner_in_layer(
        self, uid: int, gid: int, found: Mapping[bytes, bytes], path: bytes
    ) -> tuple[int, int]:
        """A stored file's owner as a layer carries it.

        Raises:
            InvalidLayerError: The id map does not hold it.
        """
        if self._rootless:
            return decode_owner(found[OWNER]) if OWNER in found else (0, 0)
        try:
            return self._options.uids.to_container(uid, "uid"), self._options.gids.to_container(
                gid, "gid"
            )
        except InvalidLayerError as error:
            raise InvalidLayerError(f"{shown(path)}: {error}") from None

    def _clear(self, fd: int) -> None:
        try:
            names = os.listxattr(fd)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            return
        for name in map(os.fsencode, names):
            if name in FOREIGN or (self._prefix and name.startswith(self._prefix)):
                continue
            try:
                os.removexattr(fd, name)
            except OSError as error:
                if error.errno not in (
                    errno.ENODATA,
                    *_UNSUPPORTED,
                    *(_REFUSALS if self._rootless else ()),
                ):
                    raise

    def _set_all(self, fd: int, entry: Entry) -> None:
        for name, value in self.on_disk(entry).items():
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                self._refused(fd, entry, name, value, error)

    def _refused(self, fd: int, entry: Entry, name: bytes, value: bytes, error: OSError) -> None:
        if error.errno in _UNSUPPORTED:
            self.warn(
                "xattr",
                f"entry {shown(entry.name)}: this file system has no attributes like {shown(name)}",
            )
            return
        if not (self._rootless and error.errno in _REFUSALS):
            raise error
        self.warn(
            "kept",
            f"entry {shown(entry.name)}: attribute {shown(name)} needs root; it is kept aside",
        )
        try:
            os.setxattr(fd, REFUSED + name, value)
        except OSError:
            self.warn(
                "lost", f"entry {shown(entry.name)}: attribute {shown(name)} needs root and is lost"
            )

    def _set_special(self, handle: int, entry: Entry) -> None:
        for name, value in self.on_disk(entry).items():
            try:
                os.setxattr(handle_path(handle), name, value)
            except OSError as error:
                # The kernel has `user.` attributes for files and directories only.
                if error.errno not in (*_UNSUPPORTED, *_REFUSALS):
                    raise
                self.warn(
                    "special",
                    f"entry {shown(entry.name)}: attribute {shown(name)} cannot be on such a file",
                )
