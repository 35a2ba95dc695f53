"""A layer made of files of this machine, put on top of an image without unpacking it."""

from __future__ import annotations

import os
from collections.abc import Callable

from argosy.errors import UsageError
from argosy.image.derive import add_layers, is_docker
from argosy.image.draft import draft
from argosy.image.view import Image
from argosy.image.walk import TreeOptions, write_tree
from argosy.layer.compression import Compression
from argosy.layer.entry import OPAQUE_WHITEOUT, WHITEOUT_PREFIX, Entry, clean_name
from argosy.layer.tarwriter import TarWriter
from argosy.spec.imageconfig import History

__all__ = ["insert", "remove_path", "with_written_layer"]


def insert(
    image: Image,
    path: str,
    target: str,
    *,
    opaque: bool = False,
    options: TreeOptions | None = None,
    history: History | None = None,
    compression: Compression = Compression.GZIP,
) -> Image:
    """An image with a file, or a directory and all in it, as one more layer.

    Args:
        image: The old one.
        path: The file or directory here.
        target: Its full path in the image; parents that the image lacks are made by who applies the layer.
        opaque: Hide what lower layers have below that directory.
        options: How the files are told of.
        history: How it came to be.
        compression: Of the layer.

    Raises:
        NotFoundError, DeniedError, StorageError: `path` is not there, may not or cannot be read.
        InvalidLayerError: a name below `path` begins with `.wh.`, and would remove something.
        UsageError: `target` is a whiteout, or a file shall become the root.
    """
    name = _target(target)
    if (opaque or not name) and not os.path.isdir(path):
        raise UsageError(f"{path}: only a directory can be opaque or become the root of an image")

    def write(tar: TarWriter) -> None:
        if opaque:
            when = (options or TreeOptions()).epoch or 0
            marker = name + b"/" + OPAQUE_WHITEOUT if name else OPAQUE_WHITEOUT
            tar.add(Entry(name=marker, mode=0, mtime=when * 10**9))
        write_tree(tar, path, name, options, changeset=True)

    return with_written_layer(image, write, history, compression)


def remove_path(
    image: Image,
    target: str,
    *,
    history: History | None = None,
    compression: Compression = Compression.GZIP,
) -> Image:
    """An image with a whiteout for a path as one more layer: what lower layers have there is gone.

    Raises:
        UsageError: `target` is the root, or a whiteout itself.
    """
    folder, slash, base = _target(target).rpartition(b"/")
    if not base:
        raise UsageError("the root cannot be removed from an image")
    marker = Entry(name=folder + slash + WHITEOUT_PREFIX + base, mode=0)
    return with_written_layer(image, lambda tar: tar.add(marker), history, compression)


def with_written_layer(
    image: Image,
    write: Callable[[TarWriter], object],
    history: History | None = None,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
) -> Image:
    """An image with one more layer, whose entries `write` puts into a tar archive."""
    place = draft(image.source)
    placed = image.within(place)
    with (
        place.upper.layer(compression, level=level, docker=is_docker(image)) as out,
        TarWriter(out) as tar,
    ):
        write(tar)
    return add_layers(placed, (out.layer, history or History()))


def _target(path: str) -> bytes:
    name = clean_name(os.fsencode(path))
    if any(part.startswith(WHITEOUT_PREFIX) for part in name.split(b"/")):
        raise UsageError(f"{path}: a name in an image cannot begin with .wh.")
    return name
