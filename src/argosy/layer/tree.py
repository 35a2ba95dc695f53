"""Changesets laid over each other in memory: what a root would hold, without a disk.

Only headers are kept, each with its layer and the place of its content in that layer's uncompressed stream, so that
content can be read later. Whiteouts, replacement, implied parents and symbolic links mean what they mean to `RootFS`.
An entry takes about a kilobyte and what its names and attributes take; `Limits.entries` and `Limits.kept` hold for all
layers together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from argosy.errors import InvalidLayerError, LimitExceededError, NotFoundError
from argosy.layer.entry import (
    AUFS_LINKS,
    AUFS_PREFIX,
    WHITEOUT_PREFIX,
    Entry,
    EntryType,
    Limits,
    Whiteout,
    clean_name,
    shown,
)
from argosy.layer.kept import Kept

__all__ = ["Inode", "Lost", "MergedTree", "Node"]

_LINKS: Final = 40


@dataclass(frozen=True, slots=True)
class Inode:
    """A file, however many names it has.

    Args:
        entry: The header that made it; `entry.offset` is where its content begins.
        layer: Which layer that was in, from 0 for the lowest; -1 for the root no layer describes.
        implied: No entry describes it: a directory another entry needed.
    """

    entry: Entry
    layer: int
    implied: bool = False

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.entry.type is EntryType.DIRECTORY


@dataclass(slots=True)
class Node:
    """One name in the merged tree. Names of one file (hard links) share their inode."""

    inode: Inode
    children: dict[bytes, Node] = field(default_factory=dict)
    touched: int = -1
    purged: int = -1

    @property
    def entry(self) -> Entry:
        """The header that made what stands here."""
        return self.inode.entry

    @property
    def layer(self) -> int:
        """The layer of that header."""
        return self.inode.layer


@dataclass(frozen=True, slots=True)
class Lost:
    """A file that a later entry hid: bytes that an image carries for nothing.

    Args:
        path: Where it stood.
        layer: The layer that has it.
        by: The layer that hid it.
        size: Its bytes.
    """

    path: bytes
    layer: int
    by: int
    size: int


class MergedTree:
    """A root in memory.

    Args:
        limits: How much the layers may ask for.

    >>> tree = MergedTree()
    >>> tree.lay([Entry(name=b"etc/hosts", size=4), Entry(name=b"etc/motd")])
    >>> tree.lay([Entry(name=b"etc/.wh.motd")])
    >>> [path for path, node in tree.walk()]
    [b'etc', b'etc/hosts']
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._kept = Kept(limits)
        self.layers = 0
        """How many layers have been laid."""
        self.lost: list[Lost] = []
        """Files hidden so far, in the order in which that happened."""
        self.root = Node(Inode(_implied(b"", 0), -1, implied=True))

    def lay(self, entries: Iterable[Entry]) -> None:
        """Lay the next layer over what is there.

        Args:
            entries: Its headers in order, such as a `TarReader`.

        Raises:
            InvalidLayerError: An entry breaks a rule, or there are too many.
            LimitExceededError: Names and attributes of all layers take too much memory.
        """
        for entry in entries:
            try:
                self._kept.add(entry)
                self._place(entry)
            except (InvalidLayerError, LimitExceededError) as error:
                raise type(error)(
                    f"layer {self.layers}: entry {shown(entry.name)}: {error}"
                ) from None
        self.root.children.pop(AUFS_LINKS, None)
        self.layers += 1

    def get(self, path: str | bytes, *, follow: bool = True) -> Node:
        """What stands at a path.

        Args:
            path: From the root; a leading slash makes no difference.
            follow: Where the last component is a symbolic link, what it leads to.

        Raises:
            NotFoundError: Nothing.
        """
        raw = path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path
        try:
            found = self._resolve(raw, follow=follow, make=None)
        except InvalidLayerError as error:
            raise NotFoundError(f"{shown(raw)}: {error}") from None
        if found is None:
            raise NotFoundError(f"{shown(raw)} is not in the image")
        return found[-1]

    def walk(self, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
        """All names below a path, sorted, parents before children; the path itself is not among them."""
        top = self.get(path) if path else self.root
        prefix = clean_name(path)
        pending = [(prefix, top)]
        while pending:
            here, node = pending.pop()
            if node is not top:
                yield here, node
            pending.extend(
                (here + b"/" + name if here else name, node.children[name])
                for name in sorted(node.children, reverse=True)
            )

    def _place(self, entry: Entry) -> None:
        path = clean_name(entry.name)
        folder_path, _, base = path.rpartition(b"/")
        if not path:
            if entry.type is not EntryType.DIRECTORY:
                raise InvalidLayerError("the root must stay a directory")
            self.root.inode = Inode(entry, self.layers)
            return
        if (
            path.startswith(AUFS_PREFIX)
            and not path.startswith(AUFS_LINKS)
            and Whiteout.of(path) is not Whiteout.OPAQUE
        ):
            return
        kind = None if path.startswith(AUFS_LINKS) else Whiteout.of(base)
        if kind is not None:
            self._whiteout(kind, folder_path, base[len(WHITEOUT_PREFIX) :])
            return
        chain = self._resolve(folder_path, follow=True, make=entry)
        assert chain is not None
        node = self._made(entry, chain[-1].children.get(base))
        for above in chain:
            above.touched = self.layers
        self._put(chain[-1], base, node, path)

    def _made(self, entry: Entry, old: Node | None) -> Node:
        if entry.type is EntryType.HARDLINK:
            target = self._resolve(clean_name(entry.linkname), follow=False, make=None)
            if target is None or target[-1].inode.is_directory:
                raise InvalidLayerError(
                    f"a hard link to {shown(entry.linkname)}, which is no file here"
                )
            if any(node is old for node in target[:-1]):
                raise InvalidLayerError(
                    f"a hard link takes the place of its target {shown(entry.linkname)}"
                )
            return Node(target[-1].inode, touched=self.layers)
        if entry.type is EntryType.SYMLINK and not entry.linkname:
            raise InvalidLayerError("a symbolic link must lead somewhere")
        node = Node(Inode(entry, self.layers), touched=self.layers)
        if entry.type is EntryType.DIRECTORY and old is not None and old.inode.is_directory:
            node.children, node.purged = old.children, old.purged
        return node

    def _put(self, folder: Node, base: bytes, node: Node, path: bytes) -> None:
        old = folder.children.get(base)
        if old is not None and old.inode is not node.inode and old.children is not node.children:
            self._lose(path, old)
        folder.children[base] = node

    def _whiteout(self, kind: Whiteout, folder_path: bytes, name: bytes) -> None:
        if kind is Whiteout.AUFS:
            return
        chain = self._resolve(folder_path, follow=True, make=None)
        if chain is None:
            return
        folder = chain[-1]
        if kind is Whiteout.OPAQUE:
            self._purge(folder_path, folder)
        elif (node := folder.children.get(name)) is not None:
            path = folder_path + b"/" + name if folder_path else name
            if node.touched < self.layers:
                self._lose(path, folder.children.pop(name))
            elif node.inode.is_directory:
                self._purge(path, node)

    def _purge(self, path: bytes, top: Node) -> None:
        """Remove what lower layers put below a directory: once a layer, however many whiteouts there are of it."""
        pending = [(path, top)]
        while pending:
            here, node = pending.pop()
            if node.purged == self.layers:
                continue
            node.purged = self.layers
            for name, child in list(node.children.items()):
                below = here + b"/" + name if here else name
                if child.touched < self.layers:
                    self._lose(below, node.children.pop(name))
                elif child.inode.is_directory:
                    pending.append((below, child))

    def _lose(self, path: bytes, top: Node) -> None:
        pending = [(path, top)]
        while pending:
            here, node = pending.pop()
            if node.entry.size:
                self._kept.take(len(here))
                self.lost.append(Lost(here, node.layer, self.layers, node.entry.size))
            pending.extend((here + b"/" + name, child) for name, child in node.children.items())

    def _resolve(self, path: bytes, *, follow: bool, make: Entry | None) -> list[Node] | None:
        """The nodes from the root to a path; None where it is not there and nothing is to be made."""
        chain, parts, links = [self.root], deque(path.split(b"/")), 0
        names: list[bytes] = []
        while parts:
            part = parts.popleft()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del names[-1:]
                chain = chain[:-1] if len(chain) > 1 else chain
                continue
            node = chain[-1].children.get(part)
            if node is not None and node.entry.type is EntryType.SYMLINK and (parts or follow):
                links += 1
                if links > _LINKS:
                    raise InvalidLayerError("too many symbolic links")
                if node.entry.linkname.startswith(b"/"):
                    del chain[1:], names[:]
                parts.extendleft(reversed(node.entry.linkname.split(b"/")))
                continue
            names.append(part)
            if node is None or ((parts or make is not None) and not node.inode.is_directory):
                if make is None:
                    return None
                implied = _implied(b"/".join(names), make.mtime)
                # A path of 2000 parts makes as many directories, each with its whole name.
                self._kept.add(implied)
                node = Node(Inode(implied, self.layers, implied=True))
                self._put(chain[-1], part, node, b"/".join(names))
            chain.append(node)
        return chain


def _implied(path: bytes, mtime: int) -> Entry:
    return Entry(name=path, type=EntryType.DIRECTORY, mode=0o755, mtime=mtime)
