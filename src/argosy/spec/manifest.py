"""Image manifests and indexes (image-spec, manifest.md and image-index.md), and Docker's, which are read alike.

A `Manifest`, an `Index` or an `ArtifactManifest` is a parsed value, never the stored truth: the bytes it came from
are. `decode_manifest` is the only way in for bytes from outside; it refuses a document that two tools could take for
different things (CVE-2021-41190).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from argosy.errors import InvalidManifestError, UnsupportedError
from argosy.spec import _json, mediatypes
from argosy.spec._value import Value, replace
from argosy.spec.descriptor import DESCRIPTOR, MEDIA_TYPE, Descriptor

MAX_SIZE = 8 * 1024 * 1024
"""The most bytes argosy reads as a manifest. The distribution-spec asks for at least 4 MiB."""

MAX_ENTRIES = 10_000
"""The most descriptors one manifest may hold."""


class Manifest(Value, kw_only=True):
    """An image manifest: a config and layers.

    Example:
        >>> from argosy.spec.descriptor import EMPTY
        >>> m = Manifest(artifact_type="application/x.example", config=EMPTY, layers=(EMPTY,))
        >>> decode_manifest(m.encode()) == m
        True
    """

    schema_version: int = _json.prop("schemaVersion", _json.INTEGER, 2, always=True)
    media_type: str = _json.prop("mediaType", MEDIA_TYPE, mediatypes.OCI_MANIFEST)
    artifact_type: str | None = _json.prop("artifactType", MEDIA_TYPE, None)
    config: Descriptor = _json.prop("config", DESCRIPTOR, None)
    layers: tuple[Descriptor, ...] = _json.prop(
        "layers", _json.list_of(DESCRIPTOR), (), always=True
    )
    subject: Descriptor | None = _json.prop("subject", DESCRIPTOR, None)
    annotations: Mapping[str, str] = _json.prop("annotations", _json.STRING_MAP, {})
    extra: Mapping[str, object] = _json.extra()

    def __post_init__(self) -> None:
        _check(self.schema_version, len(self.layers))
        if self.config is None:
            raise InvalidManifestError("config: this property is required")

    def __hash__(self) -> int:
        return hash((self.media_type, self.config, self.layers, self.subject))

    def encode(self) -> bytes:
        """The document as argosy writes it: UTF-8, compact, unknown properties last."""
        return _json.dumps(_json.encode_object(self))

    @property
    def kind(self) -> str:
        """What sort of artifact this is: `artifactType`, else the config's media type."""
        return self.artifact_type or self.config.media_type

    def children(self) -> tuple[Descriptor, ...]:
        """What it is made of, the config first. The subject is not one: it stands beside, not below."""
        return (self.config, *self.layers)

    def named(self) -> Iterator[tuple[str, Descriptor]]:
        """The children, each with its place in the document, as in `layers[0]`."""
        yield "config", self.config
        yield from _numbered("layers", self.layers)


class Index(Value, kw_only=True):
    """An image index: manifests, most often one a platform; an entry may be an index again.

    Example:
        >>> Index().encode()
        b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
    """

    schema_version: int = _json.prop("schemaVersion", _json.INTEGER, 2, always=True)
    media_type: str = _json.prop("mediaType", MEDIA_TYPE, mediatypes.OCI_INDEX)
    artifact_type: str | None = _json.prop("artifactType", MEDIA_TYPE, None)
    manifests: tuple[Descriptor, ...] = _json.prop(
        "manifests", _json.list_of(DESCRIPTOR), (), always=True
    )
    subject: Descriptor | None = _json.prop("subject", DESCRIPTOR, None)
    annotations: Mapping[str, str] = _json.prop("annotations", _json.STRING_MAP, {})
    extra: Mapping[str, object] = _json.extra()

    def __post_init__(self) -> None:
        _check(self.schema_version, len(self.manifests))

    def __hash__(self) -> int:
        return hash((self.media_type, self.manifests, self.subject))

    def encode(self) -> bytes:
        """The document as argosy writes it: UTF-8, compact, unknown properties last."""
        return _json.dumps(_json.encode_object(self))

    @property
    def kind(self) -> str | None:
        """What sort of artifact this is, or None: an index has no config to say so."""
        return self.artifact_type

    def children(self) -> tuple[Descriptor, ...]:
        """What it is made of."""
        return self.manifests

    def named(self) -> Iterator[tuple[str, Descriptor]]:
        """The children, each with its place in the document, as in `manifests[0]`."""
        return _numbered("manifests", self.manifests)


class ArtifactManifest(Value, kw_only=True):
    """An artifact manifest, as image-spec 1.1.0-rc2 had it (artifact.md): blobs without a config.

    1.1.0-rc3 withdrew it. Registries keep signatures and SBOMs of that time: they are read and copied, none is made.

    Example:
        >>> ArtifactManifest(artifact_type="application/x.example").encode()[-60:]
        b'ct.manifest.v1+json","artifactType":"application/x.example"}'
    """

    media_type: str = _json.prop(
        "mediaType", MEDIA_TYPE, mediatypes.OCI_ARTIFACT_MANIFEST, always=True
    )
    artifact_type: str | None = _json.prop("artifactType", MEDIA_TYPE, None)
    blobs: tuple[Descriptor, ...] = _json.prop("blobs", _json.list_of(DESCRIPTOR), ())
    subject: Descriptor | None = _json.prop("subject", DESCRIPTOR, None)
    annotations: Mapping[str, str] = _json.prop("annotations", _json.STRING_MAP, {})
    extra: Mapping[str, object] = _json.extra()

    def __post_init__(self) -> None:
        _check_entries(len(self.blobs))

    def __hash__(self) -> int:
        return hash((self.artifact_type, self.blobs, self.subject))

    def encode(self) -> bytes:
        """The document as argosy writes it: UTF-8, compact, unknown properties last."""
        return _json.dumps(_json.encode_object(self))

    @property
    def kind(self) -> str | None:
        """What sort of artifact this is, if it says so."""
        return self.artifact_type

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Its blobs, by the name that what an artifact holds has in an image manifest."""
        return self.blobs

    def children(self) -> tuple[Descriptor, ...]:
        """What it is made of."""
        return self.blobs

    def named(self) -> Iterator[tuple[str, Descriptor]]:
        """The children, each with its place in the document, as in `blobs[0]`."""
        return _numbered("blobs", self.blobs)


AnyManifest: TypeAlias = Manifest | Index | ArtifactManifest
"""What a registry keeps under `manifests/`."""


def _numbered(name: str, entries: tuple[Descriptor, ...]) -> Iterator[tuple[str, Descriptor]]:
    return ((f"{name}[{position}]", entry) for position, entry in enumerate(entries))


def _check(schema_version: int, entries: int) -> None:
    if schema_version != 2:
        raise InvalidManifestError(f"schemaVersion: expected 2, got {schema_version}")
    _check_entries(entries)


def _check_entries(entries: int) -> None:
    if entries > MAX_ENTRIES:
        raise InvalidManifestError(f"{entries} entries are over the limit of {MAX_ENTRIES}")


def decode_manifest(
    raw: bytes, media_type: str | None = None, *, limit: int = MAX_SIZE, strict: bool = False
) -> AnyManifest:
    """Read a manifest of any kind.

    Args:
        raw: The document as received.
        media_type: What the descriptor or the Content-Type header says it is, if anything; parameters are ignored.
        limit: The most bytes it may have.
        strict: Whether `schemaVersion` must be there. It can only be 2, so who reads can do without.

    Raises:
        InvalidManifestError: the document breaks the specification, is both a manifest and an index, or says it is
            of another media type than `media_type`.
        UnsupportedError: it is a Docker schema 1 manifest, or of a media type argosy does not read.
        LimitExceededError: more than `limit` bytes.
    """
    value = _json.loads_object(raw, limit=limit, error=InvalidManifestError)
    parsed = manifest_of(value, media_type)
    if strict and "schemaVersion" not in value and not isinstance(parsed, ArtifactManifest):
        raise InvalidManifestError("schemaVersion: this property is required")
    return parsed


def manifest_of(value: Mapping[str, object], media_type: str | None = None) -> AnyManifest:
    """As `decode_manifest`, of a document that is JSON read already.

    Raises:
        InvalidManifestError: as there.
        UnsupportedError: as there.
    """
    cls = _class_of(value, mediatypes.essence(media_type) if media_type else None)
    parsed = _json.decode_object(cls, value, "", InvalidManifestError)
    if "mediaType" not in value and media_type:
        parsed = replace(parsed, media_type=mediatypes.essence(media_type))
    return parsed


def _class_of(value: Mapping[str, object], expected: str | None) -> type[AnyManifest]:
    own = value.get("mediaType")
    if own is not None:
        own = MEDIA_TYPE.decode(own, "mediaType", InvalidManifestError)
    if own is not None and expected is not None and own != expected:
        raise InvalidManifestError(f"mediaType: expected {expected}, got {own}")
    claimed = expected or own
    if claimed in mediatypes.SCHEMA1 or (claimed is None and value.get("schemaVersion") == 1):
        raise schema1()
    shapes = [c for c, names in _SHAPES.items() if any(value.get(n) is not None for n in names)]
    if len(shapes) > 1:
        raise InvalidManifestError("the document has both 'manifests' and 'layers' or 'config'")
    if claimed is None:
        if not shapes:
            raise InvalidManifestError("neither 'manifests' nor 'config' and 'layers' is there")
        return shapes[0]
    cls = _CLASSES.get(claimed)
    if cls is None:
        raise UnsupportedError(f"media type {claimed} is no manifest that argosy reads")
    if shapes and shapes[0] is not cls:
        raise InvalidManifestError(f"a {claimed} cannot have {' or '.join(_SHAPES[shapes[0]])}")
    if cls is Index and value.get("manifests") is None:
        raise InvalidManifestError("manifests: this property is required")
    return cls


def schema1() -> UnsupportedError:
    """The error where a manifest is of Docker's first format."""
    return UnsupportedError(
        "Docker schema 1 manifests are not supported",
        hint="push the image again with a current tool",
    )


_SHAPES: dict[type[AnyManifest], tuple[str, ...]] = {
    Manifest: ("config", "layers"),
    Index: ("manifests",),
}
_CLASSES: dict[str, type[AnyManifest]] = {
    **dict.fromkeys(mediatypes.MANIFESTS, Manifest),
    **dict.fromkeys(mediatypes.INDEXES, Index),
    mediatypes.OCI_ARTIFACT_MANIFEST: ArtifactManifest,
}


def check_types(made: AnyManifest) -> None:
    """See that a manifest that is made has only media types that every registry takes.

    Raises:
        InvalidManifestError: one is none, or has parameters.
    """
    for where, media_type in _types(made):
        MEDIA_TYPE.decode(media_type, where, InvalidManifestError)
    for problem in _with_parameters(made):
        raise InvalidManifestError(problem)


def _with_parameters(manifest: AnyManifest) -> Iterator[str]:
    for where, media_type in _types(manifest):
        if not mediatypes.plain(media_type):
            yield f"{where}: {media_type} has parameters, which some registries refuse"


def _types(manifest: AnyManifest) -> Iterator[tuple[str, str]]:
    """The media types that a manifest names, each with its place."""
    found = [("artifactType", manifest.artifact_type)]
    for name, child in manifest.named():
        found.append((f"{name}.mediaType", child.media_type))
        found.append((f"{name}.artifactType", child.artifact_type))
    return ((where, media_type) for where, media_type in found if media_type is not None)


def problems(manifest: AnyManifest) -> Iterator[str]:
    """What a readable manifest does against a MUST or a portability SHOULD of the image-spec, one line each."""
    yield from _with_parameters(manifest)
    if isinstance(manifest, Manifest):
        if manifest.config.media_type == mediatypes.OCI_EMPTY and not manifest.artifact_type:
            yield "artifactType: must be set where config.mediaType is the empty value"
        if not manifest.layers:
            yield "layers: should have at least one entry"
        if manifest.config.is_manifest():
            yield f"config.mediaType: {manifest.config.media_type} is a manifest"
    elif isinstance(manifest, Index):
        for name, entry in manifest.named():
            if not entry.is_manifest():
                yield f"{name}.mediaType: {entry.media_type} is no manifest"
    else:
        yield f"{manifest.media_type} was withdrawn: image-spec 1.1 has artifacts as image manifests"
