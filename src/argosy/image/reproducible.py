"""Images without what differs from build to build: times after a moment, the order of entries, names of owners."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO

from argosy.errors import StorageError
from argosy.image.configure import clamped
from argosy.image.derive import derive, is_docker
from argosy.image.draft import Draft, NewLayer, draft
from argosy.image.order import Order
from argosy.image.view import Image, Layer
from argosy.layer.compression import Compression
from argosy.layer.entry import Entry
from argosy.layer.kept import Kept
from argosy.layer.meter import Meter
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import TarWriter
from argosy.spec import mediatypes
from argosy.spec.annotations import CREATED
from argosy.spec.imageconfig import ImageConfig

__all__ = ["reproducible", "rewritten"]

_CHUNK = 1 << 20


def reproducible(image: Image, epoch: int) -> Image:
    """The image with every layer written anew: no time after `epoch`, entries in order, numeric owners only.

    Content, modes, owners and attributes stay. Times in configuration, history and annotations are clamped as well.

    Args:
        image: The old one.
        epoch: Seconds since 1970.

    Raises:
        UnsupportedError: this is an artifact.
        InvalidLayerError: a layer is damaged.
        IntegrityError: a layer is not what manifest and configuration say.
    """

    def clamp(entry: Entry) -> Entry:
        return entry._replace(mtime=min(entry.mtime, epoch * 10**9), records={})

    made = rewritten(image, clamp)
    config = made.config
    config = dataclasses.replace(
        config,
        created=clamped(config.created, epoch),
        history=tuple(
            dataclasses.replace(step, created=clamped(step.created, epoch))
            for step in config.history
        ),
    )
    notes = dict(made.manifest.annotations)
    if CREATED in notes:
        notes[CREATED] = clamped(notes[CREATED], epoch) or ""
    return derive(made, config=config, annotations=notes)


def rewritten(image: Image, change: Callable[[Entry], Entry | None]) -> Image:
    """The image with every entry of every layer changed, and entries in order: see `Order`.

    Args:
        image: The old one.
        change: Given an entry, the new one, of the same size; None leaves it out.
    """
    place = draft(image.source)
    placed = image.within(place)
    config = placed.config
    order = Order()
    made = [
        None
        if layer.descriptor.media_type in mediatypes.NONDISTRIBUTABLE
        else _layer(place, layer, change, order, docker=is_docker(image))
        for layer in placed.layers
    ]
    layers = [
        new.descriptor if new else old.descriptor
        for new, old in zip(made, placed.layers, strict=True)
    ]
    return derive(placed, config=_with_diff_ids(config, made), layers=layers)


def _with_diff_ids(config: ImageConfig, made: Sequence[NewLayer | None]) -> ImageConfig:
    diff_ids = tuple(
        new.diff_id if new else old for new, old in zip(made, config.rootfs.diff_ids, strict=True)
    )
    return dataclasses.replace(config, rootfs=dataclasses.replace(config.rootfs, diff_ids=diff_ids))


def _layer(
    place: Draft,
    layer: Layer,
    change: Callable[[Entry], Entry | None],
    order: Order,
    *,
    docker: bool,
) -> NewLayer:
    """The layer is kept uncompressed on disk meanwhile, because entries change their places."""
    kind = Compression.of_media_type(layer.descriptor.media_type) or Compression.GZIP
    algorithm = layer.descriptor.digest.algorithm
    with tempfile.TemporaryFile() as file:
        with layer.uncompressed() as stream:
            entries = [(new, entry) for entry in _spooled(stream, file) if (new := change(entry))]
        with (
            place.upper.layer(kind, docker=docker, algorithm=algorithm) as out,
            TarWriter(out) as tar,
        ):
            for new, old in order.of(entries):
                plain = new._replace(sparse=None)
                tar.add(plain, _content(file.fileno(), old, stream.meter))
    return out.layer


def _spooled(stream: Iterable[bytes], file: IO[bytes]) -> Iterator[Entry]:
    reader = TarReader(_copied(stream, file))
    kept = Kept()
    for entry in reader:
        kept.add(entry)
        yield entry
    reader.drain()


def _copied(stream: Iterable[bytes], file: IO[bytes]) -> Iterator[bytes]:
    for piece in stream:
        file.write(piece)
        yield piece
    file.flush()


def _content(file: int, entry: Entry, meter: Meter) -> Iterator[bytes]:
    """An entry's content out of the spooled archive, its holes filled."""
    at, end = entry.offset, 0
    for offset, length in ((0, entry.size),) if entry.sparse is None else entry.sparse:
        yield from meter.zeros(offset - end)
        end = offset + length
        stop = at + length
        while at < stop:
            data = os.pread(file, min(stop - at, _CHUNK), at)
            if not data:
                raise StorageError("temporary file: it was cut off")
            at += len(data)
            yield data
    yield from meter.zeros(entry.size - end)
