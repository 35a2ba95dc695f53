"""Images, indexes and layers as lazy views over a place.

A view is a place and a descriptor. Nothing is fetched before it is asked for, nothing is fetched twice, and what was
fetched has been verified. The bytes as received stay reachable (`raw`, `raw_config`): a parsed value is never encoded
again in their stead.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Self

from argosy.content import graph
from argosy.content.protocols import BlobReader, Source
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    InvalidConfigError,
    InvalidManifestError,
    LimitExceededError,
    PlatformUnknownError,
    UnsupportedError,
)
from argosy.image.layerstream import LayerStream
from argosy.layer.entry import Limits
from argosy.spec import imageconfig, mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import History, ImageConfig
from argosy.spec.manifest import ArtifactManifest, Index, Manifest, decode_manifest
from argosy.spec.platform import Platform

__all__ = ["Image", "ImageIndex", "Layer", "view"]

_MAX_ENTRIES = 10_000
_READ = frozenset({"raw", "document", "raw_config", "config"})
"""What an `Image` keeps of what it read, wherever that was."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an image: a changeset, most often compressed.

    Args:
        source: Where it is.
        descriptor: Its compressed bytes.
        diff_id: The digest of its uncompressed bytes, by the image's configuration; None in artifacts.
        position: Which layer it is, the base being 0.
    """

    source: Source = dataclasses.field(repr=False, compare=False)
    descriptor: Descriptor
    diff_id: Digest | None = None
    position: int = 0

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"layer {self.position} ({self.descriptor.digest})"

    @property
    def is_changeset(self) -> bool:
        """Whether its media type says that it is a tar archive of a changeset."""
        return self.descriptor.media_type in mediatypes.LAYERS

    def compressed(self) -> BlobReader:
        """The bytes as stored; digest and size are proved by the read that reaches the end."""
        return self.source.fetch(self.descriptor)

    def changeset(self) -> BlobReader:
        """As `compressed`, for `RootFS.apply`, which reads in a thread of its own.

        Where there is nothing to uncompress, that thread hashes as well: one more would only be in the way.
        """
        blob = self.compressed()
        if self.diff_id == self.descriptor.digest and isinstance(blob, VerifyingReader):
            blob.hash_here()
        return blob

    def uncompressed(self, *, limits: Limits | None = None) -> LayerStream:
        """The changeset as a tar archive; the read that reaches the end has proved blob and `diff_id`.

        Raises:
            InvalidLayerError: raised by the reader: damaged, cut off, or more than the limits.
            DigestMismatchError: raised by the reader: the blob or the changeset is another one.
        """
        return LayerStream(self.compressed(), self.diff_id, limits=limits, where=self.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
    """An image, or another artifact with a manifest, in some place.

    Args:
        source: Where it is.
        descriptor: Its manifest.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.image.new import scratch
        >>> image = scratch(MemoryStore(), Platform.parse("linux/amd64"))
        >>> str(image.platform), len(image.layers)
        ('linux/amd64', 0)
    """

    source: Source = dataclasses.field(repr=False, compare=False)
    descriptor: Descriptor

    @classmethod
    def open(
        cls, source: Source, tag_or_digest: str = "latest", platform: Platform | None = None
    ) -> Self:
        """The image a tag or digest names; from an index, the one that suits the platform best.

        Args:
            source: Where it is.
            tag_or_digest: What to look for.
            platform: What it must run on; this machine's for an index, and whatever it is for a lone image, if None.

        Raises:
            ManifestUnknownError: there is no such tag or manifest.
            PlatformUnknownError: nothing there suits the platform.
            InvalidManifestError: what is there is no manifest.
        """
        return cls.select(source, source.resolve(tag_or_digest), platform)

    @classmethod
    def select(
        cls, source: Source, descriptor: Descriptor, platform: Platform | None = None
    ) -> Self:
        """As `open`, for what a descriptor names."""
        if descriptor.is_index():
            chosen = graph.select(source, descriptor, platform or Platform.host())
            return cls(source=source, descriptor=chosen)
        image = cls(source=source, descriptor=descriptor)
        if platform is not None and image.is_image:
            _require(platform, image.platform)
        return image

    def within(self, source: Source) -> Self:
        """The same image in another place that has it; what was read of it is not read again."""
        known = {name: value for name, value in vars(self).items() if name in _READ}
        made = type(self)(source=source, descriptor=self.descriptor)
        vars(made).update(known)
        return made

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.descriptor.digest

    @functools.cached_property
    def raw(self) -> bytes:
        """The manifest as stored."""
        return graph.read(self.source, self.descriptor)

    @functools.cached_property
    def document(self) -> Manifest | ArtifactManifest:
        """The manifest, parsed, also where it is of the withdrawn kind that has no config.

        Raises:
            InvalidManifestError: it is none, or is an index.
        """
        parsed = decode_manifest(self.raw, self.descriptor.media_type)
        if isinstance(parsed, Index):
            raise InvalidManifestError(f"{self.digest}: expected an image manifest, got an index")
        return parsed

    @property
    def manifest(self) -> Manifest:
        """The manifest, parsed.

        Raises:
            InvalidManifestError: it is none, is an index, or has no config.
        """
        if not isinstance(self.document, Manifest):
            raise graph.not_an_image(self.descriptor)
        return self.document

    @property
    def is_image(self) -> bool:
        """Whether the config is an image configuration; otherwise it is an artifact of another kind."""
        found = self.document
        return isinstance(found, Manifest) and found.config.media_type in mediatypes.CONFIGS

    @functools.cached_property
    def raw_config(self) -> bytes:
        """The config blob as stored, whatever it is."""
        return graph.read(self.source, self.manifest.config, limit=imageconfig.MAX_SIZE)

    @functools.cached_property
    def config(self) -> ImageConfig:
        """The image configuration.

        Raises:
            UnsupportedError: this is an artifact whose config is something else.
            InvalidConfigError: it breaks the specification.
        """
        config = self.manifest.config
        if config.media_type not in mediatypes.CONFIGS:
            raise UnsupportedError(
                f"{self.digest}: {config.media_type} is no image configuration",
                hint="this is an artifact, not an image",
            )
        return ImageConfig.decode(self.raw_config)

    @property
    def platform(self) -> Platform:
        """What the image runs on, by its configuration."""
        return self.config.platform

    @functools.cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers from the base upwards, with their DiffIDs where this is an image.

        Raises:
            InvalidConfigError: there are more or fewer DiffIDs than layers.
        """
        descriptors = self.document.layers
        diff_ids: Sequence[Digest | None] = [None] * len(descriptors)
        if self.is_image:
            diff_ids = self.config.rootfs.diff_ids
            if len(diff_ids) != len(descriptors):
                raise InvalidConfigError(
                    f"rootfs.diff_ids: expected {len(descriptors)}, one a layer, got {len(diff_ids)}"
                )
        return tuple(
            Layer(source=self.source, descriptor=desc, diff_id=diff_id, position=position)
            for position, (desc, diff_id) in enumerate(zip(descriptors, diff_ids, strict=True))
        )

    def histories(self) -> tuple[tuple[History, Layer | None], ...]:
        """The history with the layer each step made, or None for a step that made none.

        Layers that the history does not mention come with an empty step.

        Raises:
            InvalidConfigError: the history tells of more layers than there are.
        """
        layers = iter(self.layers)
        pairs: list[tuple[History, Layer | None]] = []
        for position, step in enumerate(self.config.history):
            layer = None if step.empty_layer else next(layers, None)
            if layer is None and not step.empty_layer:
                raise InvalidConfigError(
                    f"history[{position}]: tells of a layer that is not there: expected {len(self.layers)} layers"
                )
            pairs.append((step, layer))
        pairs += [(History(), layer) for layer in layers]
        return tuple(pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """An image index in some place.

    Args:
        source: Where it is.
        descriptor: The index.
    """

    source: Source = dataclasses.field(repr=False, compare=False)
    descriptor: Descriptor

    @classmethod
    def open(cls, source: Source, tag_or_digest: str = "latest") -> Self:
        """The index a tag or digest names.

        Raises:
            ManifestUnknownError: there is none.
            InvalidManifestError: it is a manifest, not an index.
        """
        descriptor = source.resolve(tag_or_digest)
        if not descriptor.is_index():
            raise InvalidManifestError(
                f"{descriptor.digest}: expected an image index, got {descriptor.media_type}"
            )
        return cls(source=source, descriptor=descriptor)

    @property
    def digest(self) -> Digest:
        """The index's digest."""
        return self.descriptor.digest

    @functools.cached_property
    def raw(self) -> bytes:
        """The index as stored."""
        return graph.read(self.source, self.descriptor)

    @functools.cached_property
    def index(self) -> Index:
        """The index, parsed.

        Raises:
            InvalidManifestError: it is none.
        """
        parsed = decode_manifest(self.raw, self.descriptor.media_type)
        if not isinstance(parsed, Index):
            raise InvalidManifestError(f"{self.digest}: expected an image index, got a manifest")
        return parsed

    @property
    def manifests(self) -> tuple[Descriptor, ...]:
        """Its entries."""
        return self.index.manifests

    def leaves(self) -> Iterator[Descriptor]:
        """The manifests of images in it and in the indexes it nests, in order.

        Raises:
            LimitExceededError: nested deeper than 16, or more than 10 000 of them and of indexes.
        """
        for count, entry in enumerate(_entries(self, 0)):
            if count >= _MAX_ENTRIES:
                raise LimitExceededError(f"{self.digest}: more than {_MAX_ENTRIES} manifests")
            if not entry.is_index():
                yield entry

    def select(self, platform: Platform | None = None) -> Image:
        """The image that suits a platform best, this machine's if None.

        Raises:
            PlatformUnknownError: none does; the message says which there are.
        """
        chosen = graph.select(self.source, self.descriptor, platform or Platform.host())
        return Image(source=self.source, descriptor=chosen)

    def images(self) -> Iterator[Image]:
        """Every image in it."""
        for leaf in self.leaves():
            yield Image(source=self.source, descriptor=leaf)


def _entries(index: ImageIndex, depth: int) -> Iterator[Descriptor]:
    if depth > graph.MAX_DEPTH:
        raise LimitExceededError(f"{index.digest}: indexes nested deeper than {graph.MAX_DEPTH}")
    for entry in index.manifests:
        if entry.is_manifest():
            yield entry
        if entry.is_index():
            nested = ImageIndex(source=index.source, descriptor=entry)
            yield from _entries(nested, depth + 1)


def _require(wanted: Platform, found: Platform) -> None:
    if wanted.distance(found) is None:
        raise PlatformUnknownError(f"expected an image for {wanted}, got one for {found}")


def view(source: Source, tag_or_digest: str = "latest") -> Image | ImageIndex:
    """What a tag or digest names: an image or an index.

    Raises:
        ManifestUnknownError: there is no such tag or manifest.
        UnsupportedError: it is of a media type that is neither.
    """
    descriptor = source.resolve(tag_or_digest)
    if descriptor.is_index():
        return ImageIndex(source=source, descriptor=descriptor)
    if not descriptor.is_manifest():
        raise UnsupportedError(
            f"media type {descriptor.media_type} is no manifest that argosy reads"
        )
    return Image(source=source, descriptor=descriptor)
