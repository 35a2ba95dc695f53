"""New images from old ones: configuration, annotations and the stack of layers.

Every function returns a new view in a draft over the old one's place; the old image stays what it is. What did not
change keeps its bytes: a configuration is encoded anew only where a property of it changed.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from argosy.content.protocols import Source, SupportsRead
from argosy.errors import (
    InvalidConfigError,
    InvalidLayerError,
    InvalidManifestError,
    NotFoundError,
    UnsupportedError,
)
from argosy.image.configure import Changes, map_with
from argosy.image.draft import NewLayer, check_tar, draft
from argosy.image.view import Image
from argosy.image.windows import as_windows
from argosy.layer.compression import Compression
from argosy.layer.pump import Pump
from argosy.spec import mediatypes
from argosy.spec.annotations import BASE_DIGEST, BASE_NAME
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import History, ImageConfig, LayerStack

__all__ = [
    "add_layers",
    "append_layer",
    "based_on",
    "derive",
    "is_based_on",
    "is_docker",
    "mutate",
    "new_layer",
    "rebase",
    "remove_layers",
]


def is_docker(image: Image) -> bool:
    """Whether the image's media types are Docker's."""
    return image.manifest.media_type == mediatypes.DOCKER_MANIFEST


def derive(
    image: Image,
    *,
    config: ImageConfig | None = None,
    layers: Sequence[Descriptor] | None = None,
    config_descriptor: Descriptor | None = None,
    others: Sequence[Source] = (),
    **manifest: Any,
) -> Image:
    """An image with some parts replaced.

    Args:
        image: The old one.
        config: Its new configuration, or None to keep the old one's bytes.
        layers: Its new layers, or None to keep them.
        config_descriptor: What to say of a configuration whose bytes stay.
        others: Where else those layers may be.
        manifest: Other fields of the manifest, such as `annotations` or `subject`.
    """
    place = draft(image.source, *others)
    fields: dict[str, Any] = dict(manifest)
    if config_descriptor is not None:
        fields["config"] = config_descriptor
    if config is not None and config != (image.config if image.is_image else None):
        old = image.manifest.config
        made = place.put(old.media_type, config.encode(), old.digest.algorithm)
        fields["config"] = dataclasses.replace(made, annotations=old.annotations)
    if layers is not None:
        fields["layers"] = tuple(layers)
    changed = dataclasses.replace(image.manifest, **fields)
    if changed == image.manifest:
        return image.within(place)
    desc = place.put(changed.media_type, changed.encode(), image.digest.algorithm)
    return Image(source=place, descriptor=desc)


def mutate(image: Image, changes: Changes, *, history: History | None = None) -> Image:
    """An image with changes to its configuration and annotations.

    Args:
        image: The old one.
        changes: What to change.
        history: A step to add to the history, marked as one that made no layer; None for none.

    Raises:
        InvalidConfigError: the result would break the specification.
        UnsupportedError: the image is an artifact without an image configuration, and `changes` is about one.
    """
    about_manifest = changes.clear & {"manifest.annotations"}
    old = {} if about_manifest else image.manifest.annotations
    merged = map_with(old, changes.annotations)
    config = None
    if image.is_image:
        config = changes.applied(image.config)
        if history is not None:
            step = dataclasses.replace(history, empty_layer=True)
            config = dataclasses.replace(config, history=(*padded_history(config), step))
    elif changes != Changes(annotations=changes.annotations, clear=about_manifest):
        raise UnsupportedError(f"{image.digest}: an artifact has no image configuration to change")
    return derive(image, config=config, annotations=merged)


def padded_history(config: ImageConfig) -> tuple[History, ...]:
    """The history with a step for each layer it does not mention, so that what is added stands at its layer.

    Those steps carry the image's time: some readers expect every step to have one.
    """
    told = sum(not step.empty_layer for step in config.history)
    missing = len(config.rootfs.diff_ids) - told
    return config.history + (History(created=config.created),) * missing


def new_layer(
    image: Image,
    changeset: SupportsRead,
    compression: Compression | None = None,
    *,
    level: int | None = None,
) -> tuple[Image, NewLayer]:
    """Put a changeset into an image's draft, without adding it to the image yet.

    Args:
        image: Whose draft; the image that is returned is the same one, in it.
        changeset: A tar archive, compressed or not.
        compression: How to store it. None keeps a compressed one as it is and makes gzip of a plain one.
        level: See `Compressor`.

    For an image of Windows the changeset is written anew: see `as_windows`.

    Raises:
        InvalidLayerError: it is no tar archive, or is damaged.
    """
    place = draft(image.source)
    image = image.within(place)
    docker = is_docker(image)
    head = changeset.read(512)
    if not head:  # of a program that failed before it wrote anything
        raise InvalidLayerError("layer: no tar archive, but nothing at all")
    stream = _Prefixed(head, changeset)
    packed = Compression.sniff(head)
    if image.is_image and image.config.os == "windows":
        with (
            place.upper.layer(compression or Compression.GZIP, level=level, docker=docker) as out,
            Pump(stream, packed) as pump,
        ):
            as_windows(pump, out)
        return image, out.layer
    if compression is packed or (compression is None and packed is not Compression.NONE):
        return image, place.upper.keep(stream, docker=docker)
    compression = compression or Compression.GZIP
    with (
        place.upper.layer(compression, level=level, docker=docker) as out,
        Pump(stream, packed) as pump,
    ):
        check_tar(_written(pump, out.write))
    return image, out.layer


def _written(pieces: Iterable[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


class _Prefixed:
    """A stream with some bytes before it."""

    def __init__(self, head: bytes, stream: SupportsRead) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1, /) -> bytes:
        if not self._head:
            return self._stream.read(size)
        head, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        return head if size >= 0 else head + self._stream.read()


def add_layers(image: Image, *layers: tuple[NewLayer, History]) -> Image:
    """An image with layers of its draft on top, each with its step in the history."""
    config = image.config
    diff_ids = (*config.rootfs.diff_ids, *(layer.diff_id for layer, _ in layers))
    steps = (dataclasses.replace(step, empty_layer=False) for _, step in layers)
    config = dataclasses.replace(
        config,
        rootfs=dataclasses.replace(config.rootfs, diff_ids=diff_ids),
        history=(*padded_history(config), *steps),
    )
    stack = (*image.manifest.layers, *(layer.descriptor for layer, _ in layers))
    return derive(image, config=config, layers=stack)


def append_layer(
    image: Image,
    changeset: SupportsRead,
    *,
    history: History | None = None,
    compression: Compression | None = None,
    level: int | None = None,
) -> Image:
    """An image with one more layer.

    Args:
        image: The old one.
        changeset: A tar archive, compressed or not.
        history: How it came to be.
        compression: None keeps a compressed changeset as it is and makes gzip of a plain one.
        level: See `Compressor`.

    Raises:
        InvalidLayerError: it is no tar archive, or is damaged.
        UnsupportedError: the image is an artifact.
    """
    placed, layer = new_layer(image, changeset, compression, level=level)
    return add_layers(placed, (layer, history or History()))


def remove_layers(
    image: Image, positions: Collection[int] = (), made_by: Iterable[re.Pattern[str]] = ()
) -> Image:
    """An image without some of its layers, nor their steps in the history.

    Args:
        image: The old one.
        positions: Where such layers are, counted from 0, the lowest.
        made_by: Found in the `created_by` of such a layer's step.

    Raises:
        NotFoundError: there is no such layer.
        UnsupportedError: the image is an artifact.
    """
    makers = [step.created_by for step, layer in image.histories() if layer]
    unwanted = set(positions)
    if beyond := unwanted.difference(range(len(makers))):
        raise NotFoundError(
            f"{image.digest}: no layer {min(beyond)} among {len(makers)}, counted from 0"
        )
    for pattern in made_by:
        found = {n for n, maker in enumerate(makers) if pattern.search(maker)}
        if not found:
            raise NotFoundError(
                f"{image.digest}: no layer was created by {pattern.pattern[:100]!r}"
            )
        unwanted |= found
    kept = [n for n in range(len(makers)) if n not in unwanted]
    told = itertools.count()
    config = dataclasses.replace(
        image.config,
        rootfs=LayerStack(
            type="layers", diff_ids=tuple(image.config.rootfs.diff_ids[n] for n in kept)
        ),
        history=tuple(
            step for step in image.config.history if step.empty_layer or next(told) not in unwanted
        ),
    )
    return derive(image, config=config, layers=[image.manifest.layers[n] for n in kept])


def based_on(image: Image, name: str | None, digest: Digest) -> Image:
    """An image whose annotations say what it is based on (annotations.md, `base.name` and `base.digest`)."""
    changed = {BASE_DIGEST: str(digest), BASE_NAME: name}
    return derive(image, annotations=map_with(image.manifest.annotations, changed))


def is_based_on(image: Image, base: Image) -> bool:
    """Whether the image's lowest layers are all those of `base`, by their DiffIDs."""
    below = base.config.rootfs.diff_ids
    return image.config.rootfs.diff_ids[: len(below)] == below


def rebase(image: Image, old_base: Image, new_base: Image, *, new_name: str | None = None) -> Image:
    """An image with the layers of another base below its own.

    Its execution parameters stay; platform, lowest layers and the history of those are the new base's.

    Args:
        image: What to rebase.
        old_base: What it was made from.
        new_base: What it shall look made from.
        new_name: The new base's full reference, for the annotations; None removes `base.name`.

    Raises:
        InvalidManifestError: `image` is not made from `old_base`, or is of another kind than `new_base`.
        PlatformUnknownError: the bases are for different platforms.
    """
    if not is_based_on(image, old_base):
        raise InvalidManifestError(
            f"{image.digest} is not based on {old_base.digest}: its lowest layers are others",
            hint="argosy check-base tells which base an image names",
        )
    wanted, found = image.platform, new_base.platform
    if (wanted.os, wanted.architecture) != (found.os, found.architecture):
        raise InvalidManifestError(f"new base: expected one for {wanted}, got one for {found}")
    if is_docker(new_base) != is_docker(image):
        raise InvalidManifestError(
            "new base: Docker and OCI media types would be mixed",
            hint="convert one of the two first, with argosy convert",
        )
    below = len(old_base.layers)
    config = dataclasses.replace(
        image.config,
        os_version=found.os_version,
        os_features=found.os_features,
        variant=found.variant,
        rootfs=LayerStack(
            type="layers",
            diff_ids=new_base.config.rootfs.diff_ids + image.config.rootfs.diff_ids[below:],
        ),
        history=(
            *padded_history(new_base.config),
            *_history_above(padded_history(image.config), len(old_base.config.history), below),
        ),
    )
    rebased = derive(
        image,
        config=config,
        layers=new_base.manifest.layers + image.manifest.layers[below:],
        others=[new_base.source],
    )
    return based_on(rebased, new_name, new_base.digest)


def _history_above(
    history: Sequence[History], base_steps: int, base_layers: int
) -> Sequence[History]:
    """The steps after the base's own: a step with a layer is none of those once its layers are told."""
    told = 0
    for position, step in enumerate(history):
        if told == base_layers and (position >= base_steps or not step.empty_layer):
            return history[position:]
        told += not step.empty_layer
    if told < base_layers:
        raise InvalidConfigError(f"history: expected {base_layers} steps with layers, got {told}")
    return ()
