"""Descriptors: the only address content has (image-spec, descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from argosy.errors import InvalidManifestError
from argosy.spec import _json, mediatypes
from argosy.spec._value import Value
from argosy.spec.digest import Digest
from argosy.spec.platform import PLATFORM, Platform

DIGEST = _json.parsed(Digest)
MEDIA_TYPE = _json.parsed(mediatypes.parse_media_type)


class Descriptor(Value, kw_only=True):
    """What some content is, and where: media type, digest and size in bytes.

    `data` holds the content itself where it is embedded; nobody trusts it before its digest was checked. Unknown
    properties are kept in `extra`.

    Raises:
        InvalidDigestError: `digest` is no digest.
        InvalidManifestError: `size` is negative.

    Example:
        >>> d = Descriptor.of("application/vnd.oci.empty.v1+json", b"{}")
        >>> d.size, d.digest.encoded[:8], d.is_manifest()
        (2, '44136fa3', False)
        >>> Descriptor.decode(d.encode()) == d
        True
    """

    media_type: str = _json.prop("mediaType", MEDIA_TYPE)
    digest: Digest = _json.prop("digest", DIGEST)
    size: int = _json.prop("size", _json.SIZE)
    urls: tuple[str, ...] = _json.prop("urls", _json.STRINGS, ())
    annotations: Mapping[str, str] = _json.prop("annotations", _json.STRING_MAP, {})
    data: bytes | None = _json.prop("data", _json.BASE64, None)
    artifact_type: str | None = _json.prop("artifactType", MEDIA_TYPE, None)
    platform: Platform | None = _json.prop("platform", PLATFORM, None)
    extra: Mapping[str, object] = _json.extra()

    def __post_init__(self) -> None:
        digest: str = self.digest  # a program may have it as text
        if not isinstance(digest, Digest):
            object.__setattr__(self, "digest", Digest(digest))
        if self.size < 0:
            raise InvalidManifestError(f"size: expected 0 or more bytes, got {self.size}")

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))

    @classmethod
    def of(cls, media_type: str, data: bytes, /, *, algorithm: str = "sha256", **more: Any) -> Self:
        """The descriptor of some bytes.

        Args:
            media_type: Their media type.
            data: The bytes.
            algorithm: The digest's algorithm.
            more: Other fields, such as `annotations` or `platform`.

        Raises:
            InvalidDigestError: the algorithm is not registered.
        """
        return cls(media_type=media_type, digest=Digest.of(data, algorithm), size=len(data), **more)

    @classmethod
    def decode(cls, value: object, where: str = "descriptor") -> Self:
        """Make a descriptor from a decoded JSON object.

        Raises:
            InvalidManifestError: a property is missing or invalid; the message names it.
        """
        return _json.decode_object(cls, value, where, InvalidManifestError)

    def encode(self) -> dict[str, object]:
        """The JSON object, unknown properties included."""
        return _json.encode_object(self)

    def is_manifest(self) -> bool:
        """Whether a registry serves this under `manifests/` rather than `blobs/`."""
        return mediatypes.is_manifest(self.media_type)

    def is_index(self) -> bool:
        """Whether this is an image index or a Docker manifest list."""
        return self.media_type in mediatypes.INDEXES

    def bare(self) -> Self:
        """Only media type, digest and size: what says which content it is, not what was said about it."""
        return type(self)(media_type=self.media_type, digest=self.digest, size=self.size)


DESCRIPTOR = _json.object_of(Descriptor)

EMPTY = Descriptor.of(mediatypes.OCI_EMPTY, b"{}", data=b"{}")
"""The empty descriptor, for a config or layer an artifact does not have (manifest.md, "Guidance for an Empty
Descriptor")."""
