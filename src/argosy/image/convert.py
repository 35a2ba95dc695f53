"""The same content in another form: Docker's or OCI's media types, another compression, clamped times.

Every function here changes digests, which is what it is for. A function on images works on a whole index by `each`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

from argosy.errors import UnsupportedError
from argosy.image.derive import derive, is_docker
from argosy.image.draft import Draft, NewLayer, draft
from argosy.image.view import Image, ImageIndex, Layer
from argosy.layer.compression import Compression
from argosy.spec import mediatypes
from argosy.spec.annotations import ATTESTS
from argosy.spec.descriptor import Descriptor
from argosy.spec.platform import Platform

__all__ = ["each", "recompress", "recompressed", "retyped", "to_docker", "to_oci"]


def each(
    index: ImageIndex, change: Callable[[Image], Image], media_type: str | None = None
) -> ImageIndex:
    """An index whose images were changed, nested indexes and BuildKit's attestations kept right.

    Args:
        index: The old one.
        change: Given each image, in order; what refers to it by digest in the index then refers to the new one, and an
            entry that tells of its platform tells of a new one.
        media_type: What the index and those it nests shall be; None is what they are.

    Raises:
        LimitExceededError: nested deeper than 16, or more than 10 000 images and indexes.
    """
    deque(index.leaves(), maxlen=0)
    place = draft(index.source)
    entries: list[Descriptor] = []
    became: dict[str, str] = {}
    for entry in index.manifests:
        place, made = _changed(place, entry, change, media_type)
        became[str(entry.digest)] = str(made.digest)
        data = entry.data if made.digest == entry.digest else None
        entries.append(dataclasses.replace(made, data=data))
    renamed = tuple(_renamed(entry, became) for entry in entries)
    kind = media_type or index.index.media_type
    changed = dataclasses.replace(index.index, media_type=kind, manifests=renamed)
    if changed == index.index:
        return ImageIndex(source=place, descriptor=index.descriptor)
    desc = place.put(changed.media_type, changed.encode(), index.digest.algorithm)
    return ImageIndex(source=place, descriptor=desc)


def _changed(
    place: Draft, entry: Descriptor, change: Callable[[Image], Image], media_type: str | None
) -> tuple[Draft, Descriptor]:
    """An entry changed, and the index's draft: a change may have added places that content comes from."""
    platform = entry.platform
    if entry.is_index():
        made: Image | ImageIndex = each(
            ImageIndex(source=place, descriptor=entry), change, media_type
        )
    elif entry.media_type not in mediatypes.MANIFESTS or ATTESTS in entry.annotations:
        return place, entry
    else:
        old = Image(source=place, descriptor=entry)
        made = change(old)
        platform = platform and _platform(old, made, platform)
    if not isinstance(made.source, Draft) or made.source.upper is not place.upper:
        raise UnsupportedError("an image of an index can only be changed within the index's draft")
    new = made.descriptor
    return made.source, dataclasses.replace(
        entry, media_type=new.media_type, digest=new.digest, size=new.size, platform=platform
    )


def _platform(old: Image, new: Image, said: Platform) -> Platform:
    """What an index is to say of a changed image: what it said of the old one, if that runs on the same."""
    same = new.manifest.config.digest == old.manifest.config.digest or not new.is_image
    return said if same or new.platform == old.platform else new.platform


def _renamed(entry: Descriptor, became: dict[str, str]) -> Descriptor:
    refers = entry.annotations.get(ATTESTS, "")
    if became.get(refers, refers) == refers:
        return entry
    return dataclasses.replace(entry, annotations={**entry.annotations, ATTESTS: became[refers]})


def to_oci(image: Image) -> Image:
    """The image with OCI's media types; config and layers keep their bytes.

    The manifest's digest changes where a media type does.
    """
    return _typed(image, mediatypes.to_oci)


def to_docker(image: Image) -> Image:
    """The image with Docker's media types; config and layers keep their bytes, the manifest's digest changes.

    Annotations are dropped: Docker's manifest has no place for them.

    Raises:
        UnsupportedError: this is an artifact, has a subject, or a layer of a type Docker has no word for.
    """
    if image.manifest.media_type == mediatypes.DOCKER_MANIFEST:
        return image
    if not image.is_image or image.manifest.artifact_type or image.manifest.subject:
        raise UnsupportedError(
            f"{image.digest}: Docker has no artifacts and no subjects, only images"
        )
    for position, layer in enumerate(image.manifest.layers):
        if mediatypes.to_docker(layer.media_type) == layer.media_type:
            raise UnsupportedError(f"layer {position}: Docker has no word for {layer.media_type}")
    return _typed(image, mediatypes.to_docker)


def _typed(image: Image, as_wanted: Callable[[str], str]) -> Image:
    old = image.manifest
    docker = as_wanted(old.media_type) == mediatypes.DOCKER_MANIFEST

    def typed(desc: Descriptor) -> Descriptor:
        made = dataclasses.replace(desc, media_type=as_wanted(desc.media_type))
        return dataclasses.replace(made, annotations={}, data=None) if docker else made

    return derive(
        image,
        media_type=as_wanted(old.media_type),
        layers=[typed(layer) for layer in old.layers],
        config_descriptor=typed(old.config),
        annotations={} if docker else old.annotations,
    )


def retyped(view: Image | ImageIndex, *, docker: bool) -> Image | ImageIndex:
    """An image, or an index and all in it, with Docker's or OCI's media types.

    BuildKit's attestations stay what they are, for they are no images.

    Raises:
        UnsupportedError: something in it has no counterpart in Docker's.
    """
    change = to_docker if docker else to_oci
    if isinstance(view, Image):
        return change(view)
    return each(view, change, mediatypes.DOCKER_LIST if docker else mediatypes.OCI_INDEX)


def recompress(
    image: Image, compression: Compression, *, level: int | None = None, force: bool = False
) -> Image:
    """The image with its layers compressed in another way; DiffIDs and configuration stay.

    An artifact stays as it is: its files are its own, also where ORAS gives them the media type of a layer.

    Args:
        image: The old one.
        compression: How the layers shall be compressed.
        level: See `Compressor`.
        force: Compress those anew that are of this compression already.

    Raises:
        IntegrityError: a layer is not what manifest and configuration say.
    """
    place = draft(image.source)
    placed = image.within(place)
    if not image.is_image:
        return placed
    layers = [
        layer.descriptor
        if _stays(layer, compression, force)
        else _packed(place, layer, compression, level, docker=is_docker(image))
        for layer in placed.layers
    ]
    return derive(placed, layers=layers)


def _stays(layer: Layer, compression: Compression, force: bool) -> bool:
    kind = Compression.of_media_type(layer.descriptor.media_type)
    foreign = layer.descriptor.media_type in mediatypes.NONDISTRIBUTABLE
    return kind is None or foreign or (kind is compression and not force)


def _packed(
    place: Draft, layer: Layer, compression: Compression, level: int | None, *, docker: bool
) -> Descriptor:
    made = recompressed(place, layer, compression, level=level, docker=docker)
    return dataclasses.replace(made.descriptor, annotations=_kept(layer.descriptor))


def recompressed(
    place: Draft,
    layer: Layer,
    compression: Compression,
    *,
    level: int | None = None,
    docker: bool = False,
) -> NewLayer:
    """One layer compressed in another way, kept in a draft."""
    algorithm = layer.descriptor.digest.algorithm
    with (
        place.upper.layer(compression, level=level, docker=docker, algorithm=algorithm) as out,
        layer.uncompressed() as stream,
    ):
        for piece in stream:
            out.write(piece)
    return out.layer


_BYTES_TOO = (
    "containerd.io/snapshot/stargz/",
    "io.github.containers.zstd-chunked.",
    "io.containers.estargz.",
)


def _kept(desc: Descriptor) -> dict[str, str]:
    """Annotations without those that tell of the compressed bytes (tables of contents of eStargz, zstd:chunked)."""
    return {k: v for k, v in desc.annotations.items() if not k.startswith(_BYTES_TOO)}
