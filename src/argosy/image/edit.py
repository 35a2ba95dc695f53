"""Configurations and manifests as a person edited them: checked, and kept to the byte."""

from __future__ import annotations

import dataclasses

from argosy.errors import InvalidConfigError, InvalidManifestError
from argosy.image.draft import draft
from argosy.image.view import Image, ImageIndex
from argosy.spec.imageconfig import ImageConfig
from argosy.spec.manifest import Index, decode_manifest

__all__ = ["with_config", "with_manifest"]


def with_config(image: Image, raw: bytes) -> Image:
    """The image with this configuration, byte for byte.

    Raises:
        InvalidConfigError: it breaks the specification, or tells of more or fewer layers than the image has.
        UnsupportedError: the image is an artifact.
    """
    if raw == image.raw_config:
        return image
    if image.is_image:
        config = ImageConfig.decode(raw)
        expected, actual = len(image.manifest.layers), len(config.rootfs.diff_ids)
        if expected != actual:
            raise InvalidConfigError(
                f"rootfs.diff_ids: expected {expected}, one a layer, got {actual}"
            )
    place = draft(image.source)
    old = image.manifest.config
    made = place.put(old.media_type, raw, old.digest.algorithm)
    manifest = dataclasses.replace(
        image.manifest, config=dataclasses.replace(made, annotations=old.annotations)
    )
    desc = place.put(manifest.media_type, manifest.encode(), image.digest.algorithm)
    return Image(source=place, descriptor=desc)


def with_manifest(
    old: Image | ImageIndex, raw: bytes, media_type: str | None = None
) -> Image | ImageIndex:
    """What these bytes say, in the place of `old`.

    Args:
        old: What was edited.
        raw: The new manifest or index, byte for byte.
        media_type: What it shall be; its own `mediaType`, else that of `old`, if None.

    Raises:
        InvalidManifestError: it breaks the specification, or refers to content that is not there.
    """
    if raw == old.raw and media_type in (None, old.descriptor.media_type):
        return old
    parsed = decode_manifest(raw, media_type)
    kind = media_type or parsed.media_type
    place = draft(old.source)
    for child in parsed.children():
        if not child.urls and child.data is None and not place.exists(child):
            raise InvalidManifestError(f"{child.digest} is not in {place}")
    desc = place.put(kind, raw, old.digest.algorithm)
    if isinstance(parsed, Index):
        return ImageIndex(source=place, descriptor=desc)
    return Image(source=place, descriptor=desc)
