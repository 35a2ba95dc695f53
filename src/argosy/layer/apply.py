"""A changeset carried out on a root, entry by entry (image-spec, layer.md, "Applying Changesets").

Every entry is placed by the descriptor of its directory and one last component, which is never followed. What exists
gives way, but for a directory under a directory entry; with `Options.additive` only a file does, to a file. The first
error ends the work: the caller is told, and the root holds part of the layer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final

from argosy.errors import ArgosyError, InvalidLayerError, StorageError, UnsupportedError
from argosy.layer.entry import (
    AUFS_LINKS,
    AUFS_PREFIX,
    WHITEOUT_PREFIX,
    Entry,
    EntryType,
    Whiteout,
    clean_name,
    shown,
)
from argosy.layer.metadata import Metadata
from argosy.layer.options import WITHOUT_ROOT, Options
from argosy.layer.place import Folder, Places, Written
from argosy.layer.removal import remove
from argosy.layer.resolve import DIRECTORY, Resolver, open_directory
from argosy.layer.tarstream import TarReader
from argosy.layer.whiteout import Carried, Marked

__all__ = ["Application"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS: Final = 64
_ODD: Final = frozenset((b"", b"."))  # how names begin that may be no names, or whiteouts
_INVALID: Final = (errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_DEFAULT_ACL: Final = b"system.posix_acl_default"
_DEVICES: Final = {EntryType.CHARACTER: stat.S_IFCHR, EntryType.BLOCK: stat.S_IFBLK}


class Application:
    """One layer going onto a root.

    Args:
        resolver: Opens directories below the root.
        reader: The layer.
        options: How the tree is treated.
    """

    def __init__(self, resolver: Resolver, reader: TarReader, options: Options) -> None:
        self._reader = reader
        self._options = options
        self._metadata = Metadata(options)
        self._written = Written()
        self._unlock = os.geteuid() != 0
        owner = self._metadata.owner(Entry(name=b""))
        self._places = Places(resolver, self._written, owner, options, unlock=self._unlock)
        self._whiteouts: Carried | Marked
        if options.overlay is None:
            self._whiteouts = Carried(self._places, self._written, unlock=self._unlock)
        else:
            self._whiteouts = Marked(self._places, options.overlay, unlock=self._unlock)
        self._resolver = resolver
        self._aufs = False
        self._around = self._clean = b""
        self._place: dict[EntryType, Callable[[Entry, Folder, bytes], None]] = {
            EntryType.FILE: self._file,
            EntryType.DIRECTORY: self._directory,
            EntryType.SYMLINK: self._symlink,
            EntryType.HARDLINK: self._hardlink,
            EntryType.CHARACTER: self._device,
            EntryType.BLOCK: self._device,
            EntryType.FIFO: self._fifo,
        }

    def run(self) -> None:
        """Place every entry, then give directories their times.

        Raises:
            InvalidLayerError: An entry breaks a rule.
            StorageError: The system refuses.
            UnsupportedError: An overlay cannot hold an entry.
        """
        name: bytes | None = None
        try:
            try:
                for entry in self._reader:
                    name = entry.name
                    self._entry(entry)
                    name = None
            finally:
                if self._aufs:
                    remove(self._resolver.root, AUFS_LINKS, unlock=self._unlock)
                self._places.close()
                self._resolver.relock()
        except InvalidLayerError as error:
            place = self._reader.place(name)
            raise (
                error
                if name is None or str(error).startswith(place)
                else self._reader.error(str(error), name, hint=error.hint)
            ) from None
        except OSError as error:
            raise self._translated(error, name) from error

    def _translated(self, error: OSError, name: bytes | None) -> ArgosyError:
        reason = (error.strerror or str(error)).lower()
        if error.errno in _INVALID:
            return self._reader.error(reason, name)
        hint = WITHOUT_ROOT if isinstance(error, PermissionError) else None
        return StorageError(f"{self._reader.place(name)}: {reason}", hint=hint)

    def _entry(self, entry: Entry) -> None:
        self._places.trim()
        if self._options.umask:
            entry = entry._replace(mode=entry.mode & ~self._options.umask)
        around, _, base = entry.name.rpartition(b"/")
        if around == self._around and base[:1] not in _ODD:
            # As most entries, an ordinary name in the directory of the entry before it: that was looked at then.
            self._member(entry, self._clean, base)
            return
        path = clean_name(entry.name)
        folder_path, _, last = path.rpartition(b"/")
        odd = WHITEOUT_PREFIX in path and not self._options.additive
        if odd and self._whiteout(entry, folder_path, last):
            return
        if not path:
            self._root(entry)
            return
        if path.count(b"/") >= self._options.limits.depth:
            raise InvalidLayerError(f"a path of more than {self._options.limits.depth} components")
        if base == last:
            self._around, self._clean = around, folder_path
        self._member(entry, folder_path, last)

    def _member(self, entry: Entry, folder_path: bytes, base: bytes) -> None:
        folder = self._places.made(folder_path, entry.mtime)
        self._place[entry.type](entry, folder, base)
        if entry.type is not EntryType.DIRECTORY:
            self._written.add((folder.which, base))

    def _whiteout(self, entry: Entry, folder_path: bytes, base: bytes) -> bool:
        """Deal with the names that are not for the file system; False for the others."""
        if folder_path == AUFS_LINKS or (not folder_path and base == AUFS_LINKS):
            # AUFS kept the files behind hard links here; they are needed until the layer is done.
            self._aufs = True
            return False
        if folder_path.startswith(AUFS_PREFIX):
            return True
        kind = Whiteout.of(base)
        if kind is Whiteout.OPAQUE:
            self._whiteouts.opaque(folder_path, entry.mtime)
        elif kind is Whiteout.PLAIN:
            self._whiteouts.plain(folder_path, base[len(WHITEOUT_PREFIX) :], entry.mtime)
        return kind is not None

    def _root(self, entry: Entry) -> None:
        if entry.type is not EntryType.DIRECTORY:
            raise InvalidLayerError("the root must stay a directory")
        fd = self._resolver.open(b"")
        self._finish_directory(entry, self._places.adopt(b"", fd), fresh=False)

    def _clear(self, folder: Folder, base: bytes) -> None:
        """Remove what is in the way of an entry; a directory only where a layer says so."""
        try:
            mode = os.lstat(base, dir_fd=folder.fd).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode) and self._options.additive:
            raise IsADirectoryError(errno.EISDIR, "a directory is in the way", base)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._places.forget()
        remove(folder.fd, base, unlock=self._unlock)

    def _fresh(self, folder: Folder, base: bytes, make: Callable[[], int | None]) -> int | None:
        """Make something where nothing may be; what is there gives way."""
        for _ in range(_ATTEMPTS):
            try:
                return make()
            except FileExistsError:
                self._clear(folder, base)
        raise OSError(errno.EEXIST, "something puts it back whenever it is removed", base)

    def _file(self, entry: Entry, folder: Folder, base: bytes) -> None:
        try:
            fd = os.open(base, _CREATE, 0o600, dir_fd=folder.fd)
        except FileExistsError:
            found = self._fresh(
                folder, base, lambda: os.open(base, _CREATE, 0o600, dir_fd=folder.fd)
            )
            assert found is not None
            fd = found
        try:
            if entry.sparse is not None:
                self._sparse(fd, entry)
            elif entry.size:
                self._content(fd)
            self._metadata.put(fd, entry, entry.mode, fresh=not folder.acl, made=folder.owner(fd))
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _content(self, fd: int) -> None:
        while part := self._reader.part():
            done = os.write(fd, part)
            while done < len(part):
                done += os.write(fd, part[done:])

    def _sparse(self, fd: int, entry: Entry) -> None:
        for offset, part in self._reader.regions():
            done = 0
            while done < len(part):
                done += os.pwrite(fd, part[done:], offset + done)
        os.ftruncate(fd, entry.size)

    def _directory(self, entry: Entry, folder: Folder, base: bytes) -> None:
        path = clean_name(entry.name)
        fd, fresh = self._entered(path, folder, base)
        self._finish_directory(entry, self._places.adopt(path, fd), fresh=fresh and not folder.acl)

    def _entered(self, path: bytes, folder: Folder, base: bytes) -> tuple[int, bool]:
        """The directory of an entry, open, and whether it is new."""
        try:
            os.mkdir(base, 0o700, dir_fd=folder.fd)
            return os.open(base, DIRECTORY, dir_fd=folder.fd), True
        except FileExistsError:
            pass
        try:
            return open_directory(folder.fd, base, unlock=self._unlock), False
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
        behind = self._behind_link(path) if self._options.keep_dirlinks else None
        if behind is not None:
            return behind, False
        self._places.forget()
        return self._places.replace(folder.fd, base), True

    def _behind_link(self, path: bytes) -> int | None:
        """The directory a symbolic link leads to inside the root, if it does."""
        try:
            return self._resolver.open(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def _finish_directory(self, entry: Entry, folder: Folder, *, fresh: bool) -> None:
        mode = entry.mode
        folder.mode = None
        if self._unlock and mode & stat.S_IRWXU != stat.S_IRWXU:
            folder.mode = mode
            mode |= stat.S_IRWXU
        self._metadata.put(folder.fd, entry, mode, fresh=fresh)
        folder.acl = _DEFAULT_ACL in entry.xattrs
        folder.gives = None
        folder.mtime = folder.atime = entry.mtime

    def _symlink(self, entry: Entry, folder: Folder, base: bytes) -> None:
        if not entry.linkname:
            raise InvalidLayerError("a symbolic link must lead somewhere")
        self._fresh(folder, base, lambda: os.symlink(entry.linkname, base, dir_fd=folder.fd))
        self._metadata.put_special(folder.fd, base, entry, link=True)

    def _hardlink(self, entry: Entry, folder: Folder, base: bytes) -> None:
        target = clean_name(entry.linkname)
        source_path, _, source_base = target.rpartition(b"/")
        try:
            source = self._places.existing(source_path)
            status = os.lstat(source_base or b".", dir_fd=source.fd)
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidLayerError(
                f"a hard link to {shown(entry.linkname)}, which is not there"
            ) from None
        if stat.S_ISDIR(status.st_mode):
            raise InvalidLayerError(f"a hard link to {shown(entry.linkname)}, which is a directory")
        if self._is_same(folder, base, status):
            return
        try:
            self._fresh(
                folder,
                base,
                lambda: os.link(
                    source_base,
                    base,
                    src_dir_fd=source.fd,
                    dst_dir_fd=folder.fd,
                    follow_symlinks=False,
                ),
            )
        except FileNotFoundError:
            raise InvalidLayerError(
                f"a hard link takes the place of its target {shown(entry.linkname)}"
            ) from None

    def _is_same(self, folder: Folder, base: bytes, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(os.lstat(base, dir_fd=folder.fd), status)
        except FileNotFoundError:
            return False

    def _device(self, entry: Entry, folder: Folder, base: bytes) -> None:
        major, minor = entry.device
        if major >= 1 << 12 or minor >= 1 << 20:
            raise InvalidLayerError(f"device {major}:{minor} is outside what Linux has")
        if self._options.rootless:
            self._metadata.warn(
                "device", f"entry {shown(entry.name)}: an empty file stands for a device"
            )
            self._file(entry._replace(type=EntryType.FILE, mode=0, size=0), folder, base)
            return
        kind, device = _DEVICES[entry.type], os.makedev(major, minor)
        mark = entry.type is EntryType.CHARACTER and not device
        if mark and self._options.overlay is not None:
            raise self._taken_for_whiteout(entry)
        try:
            self._fresh(
                folder, base, lambda: os.mknod(base, kind | 0o600, device, dir_fd=folder.fd)
            )
        except PermissionError:
            if mark:  # a mounted overlay makes none, for nobody
                raise self._taken_for_whiteout(entry) from None
            raise
        self._metadata.put_special(folder.fd, base, entry, link=False)

    def _taken_for_whiteout(self, entry: Entry) -> UnsupportedError:
        """The image-spec's whiteouts are names, so this is a mere device; overlayfs would hide a lower file by it."""
        return UnsupportedError(
            f"{self._reader.place(entry.name)}: an overlay holds no character device 0:0",
            hint="it is overlayfs' own mark for what is gone; in a layer a whiteout is a file named .wh.",
        )

    def _fifo(self, entry: Entry, folder: Folder, base: bytes) -> None:
        self._fresh(folder, base, lambda: os.mknod(base, stat.S_IFIFO | 0o600, dir_fd=folder.fd))
        self._metadata.put_special(folder.fd, base, entry, link=False)
