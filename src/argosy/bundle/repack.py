"""From a bundle back to an image: what changed below its root becomes one more layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from argosy.bundle.bundle import Bundle
from argosy.content.protocols import Source
from argosy.errors import ConflictError
from argosy.image.derive import add_layers, is_docker
from argosy.image.draft import draft
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.diff import Change, ChangeKind
from argosy.spec.imageconfig import History

__all__ = ["base_of", "differences", "refresh", "repack"]

Warn = Callable[[str], None]


def base_of(bundle: Bundle, source: Source) -> Image:
    """The image a bundle was unpacked from, in a place that holds it.

    Raises:
        ManifestUnknownError: the place does not.
    """
    return Image(source=source, descriptor=source.resolve(str(bundle.metadata.manifest.digest)))


def differences(
    bundle: Bundle, *, masks: Sequence[str] = (), warn: Warn | None = None
) -> Iterator[Change]:
    """What was changed in a bundle since it was unpacked.

    Args:
        bundle: The bundle.
        masks: Paths whose changes do not count, with all below them.
        warn: Told of what cannot be in a layer.

    Raises:
        StorageError: something cannot be read.
    """
    with bundle.root(warn=warn) as root:
        for change in root.diff(bundle.snapshot(root), masks=masks):
            if change.kind is not ChangeKind.INCLUDED:
                yield change


def repack(
    bundle: Bundle,
    image: Image,
    *,
    history: History | None = None,
    compression: Compression = Compression.GZIP,
    level: int | None = None,
    masks: Sequence[str] = (),
    mask_volumes: bool = True,
    epoch: int | None = None,
    warn: Warn | None = None,
) -> Image:
    """The image with what changed in a bundle as one more layer; the image itself where nothing did.

    Args:
        bundle: The bundle.
        image: What it was unpacked from.
        history: How the layer came to be.
        compression: Of the layer.
        level: See `Compressor`.
        masks: Paths whose changes do not count, with all below them.
        mask_volumes: Whether the image's volumes are such paths too (conversion.md).
        epoch: SOURCE_DATE_EPOCH, in seconds.
        warn: Told of what cannot be in a layer.

    Raises:
        ConflictError: the bundle was unpacked from another image.
        StorageError: something cannot be read, or changed meanwhile.
    """
    expected = bundle.metadata.manifest.digest
    if image.digest != expected:
        raise ConflictError(f"the bundle was unpacked from {expected}, not from {image.digest}")
    volumes = image.config.execution.volumes if mask_volumes else ()
    place = draft(image.source)
    placed = image.within(place)
    with bundle.root(epoch=epoch, warn=warn) as root:
        changes = list(root.diff(bundle.snapshot(root), masks=[*masks, *volumes]))
        if not changes:
            return placed
        with place.upper.layer(compression, level=level, docker=is_docker(image)) as out:
            root.write_layer(changes, out)
    return add_layers(placed, (out.layer, history or History()))


def refresh(bundle: Bundle, image: Image) -> Bundle:
    """The bundle, from now on compared with what it holds now, and said to come from `image`.

    Raises:
        StorageError: something cannot be read or written.
    """
    with bundle.root() as root:
        return bundle.remember(image.descriptor.bare(), root.snapshot(digests=False))
