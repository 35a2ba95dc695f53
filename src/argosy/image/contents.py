"""The files of an image, read without unpacking it: the merged tree, and content where it lies in the layers.

Two passes: the first reads the headers of every layer into a `MergedTree`, the second reads those layers again whose
content is wanted. Nothing is written to disk, unless the layers are far away and shall not be fetched twice, or files
of several layers are put in another order.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, Self

from argosy.errors import InvalidLayerError, UsageError
from argosy.image.draft import Spool
from argosy.image.layerstream import LayerStream
from argosy.image.view import Image, Layer
from argosy.layer.entry import Entry, EntryType, clean_name, shown
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import SupportsWrite, TarWriter
from argosy.layer.tree import Inode, MergedTree, Node

__all__ = ["Contents", "Key", "key_of", "write_flat"]

_CHUNK: Final = 1 << 20


class Key(NamedTuple):
    """Which header of which layer: the layer's position and where the header's content begins."""

    layer: int
    offset: int


def key_of(inode: Inode) -> Key:
    """What tells a file from every other, however many names it has."""
    return Key(inode.layer, inode.entry.offset)


class Contents:
    """The files of an image.

    Args:
        image: The image.
        spool: Keeps the layers that are fetched, because they may be read twice, or be in several images. Without it
            nothing is kept.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.testing.random import image
        >>> store = MemoryStore()
        >>> made = Image(source=store, descriptor=image(store, 1, layers=1))
        >>> [path for path, node in Contents(made).tree.walk()][:2]
        [b'dir6', b'dir6/file0']
    """

    def __init__(self, image: Image, *, spool: Spool | None = None) -> None:
        self.image = image
        self._spool = spool

    @functools.cached_property
    def tree(self) -> MergedTree:
        """All layers laid over each other.

        Raises:
            InvalidLayerError: a layer is damaged or breaks a rule.
            IntegrityError: a layer is not what manifest and configuration say.
        """
        return self.laid(len(self.image.layers))

    def laid(self, count: int) -> MergedTree:
        """The lowest `count` layers laid over each other."""
        tree = MergedTree()
        for layer in self.image.layers[:count]:
            with self._opened(layer) as stream:
                reader = TarReader(stream, where=layer.name)
                tree.lay(reader)
                reader.drain()
        return tree

    def _opened(self, layer: Layer) -> LayerStream:
        if not layer.is_changeset:
            raise InvalidLayerError(f"{layer.name}: {layer.descriptor.media_type} is no changeset")
        if self._spool is None:
            return layer.uncompressed()
        if not self._spool.exists(layer.descriptor):
            with layer.compressed() as blob:
                self._spool.push(layer.descriptor, blob)
        return dataclasses.replace(layer, source=self._spool).uncompressed()

    def read(
        self, wanted: Mapping[Key, object]
    ) -> Iterator[tuple[Key, Entry, Iterator[bytes | memoryview]]]:
        """The content of some files, in the order in which they lie; layers without any are not read.

        Args:
            wanted: Which ones.

        Returns:
            For each its key, header and content with holes filled, to be read before the next.

        Raises:
            InvalidLayerError: a layer is damaged.
            IntegrityError: a layer is not what manifest and configuration say.
        """
        left: dict[int, int] = defaultdict(int)
        for key in wanted:
            left[key.layer] += 1
        for layer in self.image.layers:
            if left[layer.position]:
                for key, entry, reader in self._read(layer, wanted):
                    yield key, entry, reader.whole()

    def _read(
        self, layer: Layer, wanted: Mapping[Key, object]
    ) -> Iterator[tuple[Key, Entry, TarReader]]:
        with self._opened(layer) as stream:
            reader = TarReader(stream, where=layer.name)
            for entry in reader:
                key = Key(layer.position, entry.offset)
                if key in wanted:
                    yield key, entry, reader
            reader.drain()

    def file(self, path: str) -> Node:
        """The regular file at a path, links followed.

        Raises:
            NotFoundError: there is nothing.
            UsageError: it is a directory or a device.
        """
        node = self.tree.get(path)
        if node.entry.type is not EntryType.FILE:
            kind = node.entry.type.name.lower()
            raise UsageError(f"{shown(path.encode(errors='surrogateescape'))} is a {kind}, no file")
        return node

    def content(self, path: str) -> Iterator[bytes | memoryview]:
        """The content of the file at a path; proved when it has been read to its end.

        Raises:
            NotFoundError: there is nothing.
            UsageError: it is no file.
            IntegrityError: the layer is not what manifest and configuration say.
        """
        key = key_of(self.file(path).inode)
        for _, _, chunks in self.read({key: None}):
            yield from chunks

    def regions(self, path: str) -> Iterator[tuple[int, memoryview]]:
        """As `content`, but as (offset, bytes): between them are holes, and there may be one at the end."""
        key = key_of(self.file(path).inode)
        for _, _, reader in self._read(self.image.layers[key.layer], {key: None}):
            yield from reader.regions()


def write_flat(
    contents: Contents, out: SupportsWrite, path: str = "", *, top: str | None = None
) -> None:
    """Write the files of an image as one tar archive: no whiteouts, every path once, in the order of a tree.

    Args:
        contents: The image.
        out: Where the archive goes.
        path: Only what is at this path; all if empty.
        top: What that is called in the archive; its last component if None, the archive's root if empty.

    Raises:
        NotFoundError: there is nothing at `path`.
        InvalidLayerError: a layer is damaged or breaks a rule.
        IntegrityError: a layer is not what manifest and configuration say.
    """
    with TarWriter(out) as tar:
        write_nodes(contents, tar, _named(contents.tree, path, top))


def _named(tree: MergedTree, path: str, top: str | None) -> Iterator[tuple[bytes, Node]]:
    raw = clean_name(os.fsencode(path))
    node = tree.get(raw) if raw else tree.root
    name = os.fsencode(top) if top is not None else raw.rpartition(b"/")[2]
    if not node.inode.implied or name:
        yield name or b".", node
    for below, child in tree.walk(raw):
        rest = below[len(raw) :].lstrip(b"/")
        yield name + b"/" + rest if name else rest, child


def write_nodes(contents: Contents, tar: TarWriter, nodes: Iterable[tuple[bytes, Node]]) -> None:
    """Write named nodes in their order; of the names of one file the first has the content, the others are links.

    What a directory holds must come directly behind it: tar sets a directory's mode and time as soon as it meets a name
    outside of it, so that later ones would find it read-only, or change its time.

    Args:
        contents: Where content is read from.
        tar: The archive.
        nodes: Names in the archive, and what stands there; see `MergedTree.walk`.
    """
    listed = list(nodes)
    first: dict[Key, bytes] = {}
    with _Reordered(contents, {key_of(n.inode): n.entry.size for _, n in listed}) as content:
        for name, node in listed:
            entry, key = node.entry, key_of(node.inode)
            if node.inode.is_directory:
                tar.add(_renamed(entry, name.rstrip(b"/") + b"/"))
            elif (known := first.setdefault(key, name)) != name:
                tar.add(_link(entry, name, known))
            else:
                tar.add(_renamed(entry, name), content.of(key))


class _Reordered:
    """The content of files in another order than they lie in, every layer read once.

    All layers but the one with the most content are put into a temporary file first. That one is read as it is asked
    for, and what lies in it before its turn is put there too: of layers in the order of their names, nothing.
    """

    def __init__(self, contents: Contents, sizes: Mapping[Key, int]) -> None:
        self._sizes = {key: size for key, size in sizes.items() if size}
        total: dict[int, int] = defaultdict(int)
        for key, size in self._sizes.items():
            total[key.layer] += size
        largest = max(total, key=lambda layer: total[layer], default=-1)
        self._places: dict[Key, int] = {}
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - `__exit__` closes it
        self._end = 0
        for kept in contents.read({k: None for k in self._sizes if k.layer != largest}):
            self._keep(*kept)
        self._rest = contents.read({k: None for k in self._sizes if k.layer == largest})

    def of(self, key: Key) -> Iterator[bytes | memoryview]:
        """The content of one file; nothing for what has none."""
        if key not in self._sizes:
            return
        while key not in self._places:
            found, entry, chunks = next(self._rest)
            if found == key:
                yield from chunks
                return
            self._keep(found, entry, chunks)
        self._spool.seek(self._places[key])
        left = self._sizes[key]
        while left and (data := self._spool.read(min(left, _CHUNK))):
            left -= len(data)
            yield data

    def _keep(self, key: Key, entry: Entry, chunks: Iterable[bytes | memoryview]) -> None:
        self._places[key] = self._end
        self._spool.seek(self._end)
        for chunk in chunks:
            if entry.sparse is not None and chunk == bytes(len(chunk)):
                self._spool.seek(len(chunk), os.SEEK_CUR)  # a hole stays one
            else:
                self._spool.write(chunk)
        self._end += entry.size
        if entry.sparse is not None:
            self._spool.truncate(self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._spool:
            if kind is None:
                deque(self._rest, 0)  # to its end, where the layer is proved


def _renamed(entry: Entry, name: bytes) -> Entry:
    return entry._replace(name=name, sparse=None)


def _link(entry: Entry, name: bytes, target: bytes) -> Entry:
    return entry._replace(name=name, type=EntryType.HARDLINK, size=0, linkname=target, sparse=None)
