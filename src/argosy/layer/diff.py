"""What has changed on a root, and the layer that says so (image-spec, layer.md, "Creating").

Names are the same when type, mode, owner, time (in whole seconds, as layers have it), attributes, target and content
are. Hard links are kept together: where one name of a file is written, all of them are, the first as the file. Parent
directories come along, so that a layer means the same over any lower one. Whiteouts stand before their siblings.
"""

from __future__ import annotations

import enum
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from argosy.errors import InvalidLayerError, StorageError
from argosy.layer.entry import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Entry, EntryType, clean_name, shown
from argosy.layer.metadata import FOREIGN, Metadata
from argosy.layer.options import Options, Overlay
from argosy.layer.overlay import hides, is_opaque, may_hold_empty_whiteouts
from argosy.layer.resolve import Resolver
from argosy.layer.snapshot import Inode, Snapshot, content_digest, open_file, told

__all__ = ["Change", "ChangeKind", "changes_between", "layer_entries"]

_CHUNK: Final = 1 << 18
_TYPES: Final = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFCHR: EntryType.CHARACTER,
    stat.S_IFBLK: EntryType.BLOCK,
    stat.S_IFIFO: EntryType.FIFO,
}


class ChangeKind(enum.Enum):
    """What happened to a name; INCLUDED: nothing, but the layer needs it (a parent, another hard link)."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"
    INCLUDED = "included"


@dataclass(frozen=True, slots=True)
class Change:
    """One name in a layer.

    Args:
        path: Below the root; the root itself is `b""`.
        kind: What happened.
        inode: What stands there now; None where it is gone.
        opaque: A directory that hides all of its lower ones.
    """

    path: bytes
    kind: ChangeKind
    inode: Inode | None = None
    opaque: bool = False


def changes_between(
    old: Snapshot, new: Snapshot, resolver: Resolver, options: Options, masks: Sequence[bytes] = ()
) -> list[Change]:
    """The changes from one snapshot to a later one of the root behind the resolver, in a layer's order.

    Raises:
        StorageError: A file cannot be read, where its content must be compared.
    """
    hidden = _hidden(new, options.overlay) if options.overlay else set()
    masked = _Masks(masks)
    before = {path: inode for path, inode in old.inodes.items() if not masked.covers(path)}
    after = {
        path: inode
        for path, inode in new.inodes.items()
        if path not in hidden and not masked.covers(path)
    }
    kinds: dict[bytes, ChangeKind] = {}
    for path, inode in after.items():
        earlier = before.get(path)
        if earlier is None:
            kinds[path] = ChangeKind.ADDED
        elif _differs(path, earlier, inode, resolver):
            kinds[path] = ChangeKind.MODIFIED
    _keep_links(before, after, kinds)
    _keep_parents(kinds)
    kinds.update((path, ChangeKind.DELETED) for path in _gone(before, after) if path not in hidden)
    kinds.update((path, ChangeKind.DELETED) for path in hidden if not masked.covers(path))
    return [
        _change(path, kinds[path], after.get(path), options.overlay)
        for path in sorted(kinds, key=lambda path: _order(path, kinds[path]))
    ]


def _change(path: bytes, kind: ChangeKind, inode: Inode | None, overlay: Overlay | None) -> Change:
    opaque = inode is not None and overlay is not None and is_opaque(inode.xattrs, overlay)
    return Change(path, kind, inode, opaque)


class _Masks:
    def __init__(self, masks: Sequence[bytes]) -> None:
        self._paths = {clean_name(mask) for mask in masks} - {b""}

    def covers(self, path: bytes) -> bool:
        """Whether a path is masked, or lies below one that is."""
        if not self._paths:
            return False
        parts = path.split(b"/")
        return any(b"/".join(parts[:count]) in self._paths for count in range(1, len(parts) + 1))


def _hidden(new: Snapshot, overlay: Overlay) -> set[bytes]:
    """The names that are overlayfs' whiteouts."""
    found = set()
    for path, inode in new.inodes.items():
        if stat.S_ISCHR(inode.mode) and inode.rdev == 0:
            found.add(path)
        elif stat.S_ISREG(inode.mode) and not inode.size and hides(inode.xattrs, overlay):
            parent = new.inodes.get(path.rpartition(b"/")[0])
            if parent is not None and may_hold_empty_whiteouts(parent.xattrs, overlay):
                found.add(path)
    return found


def _differs(path: bytes, old: Inode, new: Inode, resolver: Resolver) -> bool:
    if _face(old) != _face(new):
        return True
    if not stat.S_ISREG(new.mode) or (old.key == new.key and old.ctime == new.ctime):
        return False
    if old.digest is None:
        return True
    folder, _, base = path.rpartition(b"/")
    with told(path):
        fd = resolver.open(folder)
        try:
            return content_digest(fd, base) != old.digest
        finally:
            os.close(fd)


def _face(inode: Inode) -> tuple[object, ...]:
    """What a layer would show of an inode, without its content."""
    xattrs = {name: value for name, value in inode.xattrs.items() if name not in FOREIGN}
    size = inode.size if stat.S_ISREG(inode.mode) else 0
    seconds = inode.mtime // 10**9
    return inode.mode, inode.uid, inode.gid, size, seconds, inode.rdev, inode.target, xattrs


def _keep_links(
    before: dict[bytes, Inode], after: dict[bytes, Inode], kinds: dict[bytes, ChangeKind]
) -> None:
    """Where names became, or ceased to be, the same file, or one of them is written: write all of them."""
    old_groups = [[path for path in group if path in after] for group in _groups(before)]
    partners = {path: group for group in map(frozenset, old_groups) for path in group}
    for group in _groups(after):
        # As a set of sets, which compares the names of a file once and not once for each of them.
        known = {partners.get(path, frozenset()) for path in group if path in before}
        if not known <= {frozenset(group)} or any(path in kinds for path in group):
            _include(group, kinds)
    for group in old_groups:
        if len({after[path].key for path in group}) > 1:
            _include(group, kinds)


def _include(group: Iterable[bytes], kinds: dict[bytes, ChangeKind]) -> None:
    for path in group:
        kinds.setdefault(path, ChangeKind.INCLUDED)


def _groups(inodes: dict[bytes, Inode]) -> list[list[bytes]]:
    found: dict[tuple[int, int], list[bytes]] = defaultdict(list)
    for path, inode in inodes.items():
        if inode.links > 1 and not stat.S_ISDIR(inode.mode):
            found[inode.key].append(path)
    return [group for group in found.values() if len(group) > 1]


def _keep_parents(kinds: dict[bytes, ChangeKind]) -> None:
    for path in list(kinds):
        while path := path.rpartition(b"/")[0]:
            if path in kinds:
                break
            kinds[path] = ChangeKind.INCLUDED


def _gone(before: dict[bytes, Inode], after: dict[bytes, Inode]) -> Iterator[bytes]:
    """Names that must be whited out: not those below something that is gone, or a directory no more."""
    for path in before:
        if path in after:
            continue
        parent = path.rpartition(b"/")[0]
        here = after.get(parent)
        if here is not None and stat.S_ISDIR(here.mode):
            yield path


def _order(path: bytes, kind: ChangeKind) -> list[tuple[bool, bytes]]:
    if not path:
        return []
    *above, base = path.split(b"/")
    return [(True, part) for part in above] + [(kind is not ChangeKind.DELETED, base)]


def layer_entries(
    changes: Iterable[Change], resolver: Resolver, options: Options
) -> Iterator[tuple[Entry, Iterator[bytes]]]:
    """The entries of a layer for these changes, each with its content, to be read before the next is asked for.

    Raises:
        InvalidLayerError: An id is not in the map, or a name begins with `.wh.`.
        StorageError: A file cannot be read, or changed while it was.
    """
    metadata = Metadata(options)
    first: dict[tuple[int, int], bytes] = {}
    try:
        for change in changes:
            folder, _, base = change.path.rpartition(b"/")
            if base.startswith(WHITEOUT_PREFIX):
                raise InvalidLayerError(
                    f"{shown(change.path)}: a name that begins with .wh. cannot be in a layer"
                )
            prefix = folder + b"/" if folder else b""
            if change.inode is None:
                yield Entry(name=prefix + WHITEOUT_PREFIX + base, mode=0), iter(())
                continue
            entry = _entry(change.path, change.inode, metadata, options, first)
            content = (
                _content(resolver, folder, base, change.inode)
                if entry.type is EntryType.FILE
                else iter(())
            )
            yield entry, content
            if change.opaque:
                yield (
                    Entry(name=change.path + b"/" * bool(change.path) + OPAQUE_WHITEOUT, mode=0),
                    iter(()),
                )
    finally:
        resolver.relock()


def _entry(
    path: bytes,
    inode: Inode,
    metadata: Metadata,
    options: Options,
    first: dict[tuple[int, int], bytes],
) -> Entry:
    type_ = _TYPES[stat.S_IFMT(inode.mode)]
    name, target = (path or b"."), inode.target
    if type_ is EntryType.DIRECTORY:
        name += b"/"
    elif inode.links > 1:
        earlier = first.setdefault(inode.key, path)
        if earlier != path:
            type_, target = EntryType.HARDLINK, earlier
    uid, gid = metadata.owner_in_layer(inode.uid, inode.gid, inode.xattrs, path)
    mtime = inode.mtime // 10**9
    if options.source_date_epoch is not None:
        mtime = min(mtime, options.source_date_epoch)
    device = (os.major(inode.rdev), os.minor(inode.rdev))
    return Entry(
        name=name,
        type=type_,
        mode=stat.S_IMODE(inode.mode),
        uid=uid,
        gid=gid,
        size=inode.size if type_ is EntryType.FILE else 0,
        mtime=mtime * 10**9,
        linkname=target,
        device=device if type_ in (EntryType.CHARACTER, EntryType.BLOCK) else (0, 0),
        xattrs=metadata.in_layer(inode.xattrs, path),
    )


def _content(resolver: Resolver, folder: bytes, base: bytes, inode: Inode) -> Iterator[bytes]:
    path = folder + b"/" + base if folder else base
    with told(path):
        parent = resolver.open(folder)
        try:
            fd = open_file(parent, base)
        finally:
            os.close(parent)
    try:
        left = inode.size
        with told(path):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != left:
                raise StorageError(f"{shown(path)}: it changed while it was read")
            while left:
                chunk = os.read(fd, min(left, _CHUNK))
                if not chunk:
                    raise StorageError(f"{shown(path)}: it changed while it was read")
                left -= len(chunk)
                yield chunk
    finally:
        os.close(fd)
