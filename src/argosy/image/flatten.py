"""Layers made into one: all of an image's, or those above a base."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from argosy.errors import UsageError
from argosy.image.contents import Contents, Key, key_of, write_nodes
from argosy.image.derive import derive, is_docker, padded_history
from argosy.image.draft import Spool, draft
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.entry import WHITEOUT_PREFIX, Entry, EntryType
from argosy.layer.tarwriter import TarWriter
from argosy.layer.tree import MergedTree, Node
from argosy.spec.imageconfig import History

__all__ = ["flatten"]


def flatten(
    image: Image,
    *,
    above: int = 0,
    steps: int = 0,
    history: History | None = None,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
    spool: Spool | None = None,
) -> Image:
    """An image whose layers are one; or whose layers above some of the lowest are.

    Args:
        image: The old one.
        above: How many of the lowest layers stay as they are.
        steps: How many steps of the history are theirs: of the steps without a layer behind them, those stay.
        history: How the one layer came to be; the steps of what stays are kept.
        compression: Of the layer.
        level: See `Compressor`.
        spool: See `Contents`: every layer is read twice.

    Raises:
        UsageError: the image has fewer layers than shall stay.
        UnsupportedError: this is an artifact.
        InvalidLayerError: a layer is damaged or breaks a rule.
        IntegrityError: a layer is not what manifest and configuration say.
    """
    if not 0 <= above < max(1, len(image.layers)):
        raise UsageError(f"{above} layers shall stay, the image has {len(image.layers)}")
    place = draft(image.source)
    placed = image.within(place)
    config = placed.config
    contents = Contents(placed, spool=spool)
    below = contents.laid(above)
    with (
        place.upper.layer(compression, level=level, docker=is_docker(image)) as out,
        TarWriter(out) as tar,
    ):
        for name in _gone(below.root, contents.tree.root):
            tar.add(Entry(name=name, mode=0))
        _write(contents, tar, below, above)
    stack = config.rootfs
    config = dataclasses.replace(
        config,
        rootfs=dataclasses.replace(stack, diff_ids=(*stack.diff_ids[:above], out.layer.diff_id)),
        history=(*_kept(image, above, steps), history or History()),
    )
    layers = (*image.manifest.layers[:above], out.layer.descriptor)
    return derive(placed, config=config, layers=layers)


def _kept(image: Image, above: int, steps: int) -> Iterator[History]:
    """The steps of the layers that stay."""
    told = 0
    for position, step in enumerate(padded_history(image.config)):
        if told == above and (position >= steps or not step.empty_layer):
            return
        told += not step.empty_layer
        yield step


def _gone(old: Node, new: Node) -> Iterator[bytes]:
    """Whiteouts for what the lower layers have and the whole has not."""
    pending = _pairs(old, new, b"")
    while pending:
        path, was, now = pending.pop()
        if now is None:
            folder, slash, base = path.rpartition(b"/")
            yield folder + slash + WHITEOUT_PREFIX + base
        elif was.inode.is_directory and now.inode.is_directory:
            pending += _pairs(was, now, path + b"/")


def _pairs(old: Node, new: Node, prefix: bytes) -> list[tuple[bytes, Node, Node | None]]:
    """What a directory held, and what stands there now; the first name last, to be taken from the end."""
    return [
        (prefix + name, child, new.children.get(name))
        for name, child in sorted(old.children.items(), reverse=True)
    ]


def _write(contents: Contents, tar: TarWriter, below: MergedTree, above: int) -> None:
    """What the upper layers made, and names they gave to files of the lower ones."""
    before = {path: key_of(node.inode) for path, node in below.walk()}
    homes: dict[Key, bytes] = {}
    for path, node in contents.tree.walk():
        if before.get(path) == key_of(node.inode) and not node.inode.is_directory:
            homes.setdefault(key_of(node.inode), path)
    nodes: list[tuple[bytes, Node]] = []
    links: list[tuple[bytes, bytes, Entry]] = []
    root = contents.tree.root
    if root.layer >= above and not root.inode.implied:
        nodes.append((b"./", root))
    for path, node in contents.tree.walk():
        key = key_of(node.inode)
        if before.get(path) == key:
            continue  # also an implied directory is another one, where it took something's place
        home = homes.get(key)
        if node.layer < above and home is not None:
            links.append((path, home, node.entry))
        else:
            nodes.append((path, node))
    write_nodes(contents, tar, nodes)
    for path, home, entry in links:
        tar.add(
            entry._replace(name=path, type=EntryType.HARDLINK, size=0, linkname=home, sparse=None)
        )
