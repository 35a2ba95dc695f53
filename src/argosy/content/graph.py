"""The graph below a manifest: reading manifests from a place, and walking them.

Content is a directed graph without cycles, because a digest cannot be known before what it covers. A document from
outside may still be deep or wide without end, so walks have limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from argosy.content.protocols import BlobReader, Source
from argosy.content.verify import VerifyingReader, embedded
from argosy.errors import (
    InvalidManifestError,
    LimitExceededError,
    ManifestUnknownError,
    NotFoundError,
    PlatformUnknownError,
)
from argosy.spec import manifest as manifests
from argosy.spec import mediatypes
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.spec.platform import Platform, best

MAX_DEPTH = 16
"""How deep indexes, and manifests in manifests, may nest."""

MAX_NODES = 100_000
"""How many descriptors one walk may meet."""


def read(source: Source, desc: Descriptor, *, limit: int = manifests.MAX_SIZE) -> bytes:
    """The verified bytes of some small content: from the descriptor's `data`, or from the source.

    Args:
        source: Where it is.
        desc: What it is.
        limit: The most bytes to take into memory.

    Raises:
        LimitExceededError: it is larger than `limit`.
        NotFoundError: it is not there.
        IntegrityError: the source sent something else.
    """
    if desc.size > limit:
        raise LimitExceededError(
            f"{desc.digest}: {desc.size} bytes are over the limit of {limit} bytes"
        )
    at_hand = embedded(desc)
    if at_hand is not None:
        return at_hand
    with source.fetch(desc) as reader:
        return readall(reader)


def as_blob(desc: Descriptor) -> Descriptor:
    """Where a registry keeps a manifest that was pushed as a layer or a config of another: among its blobs."""
    return Descriptor(media_type=mediatypes.OCTET_STREAM, digest=desc.digest, size=desc.size)


def read_inner(source: Source, desc: Descriptor) -> bytes:
    """As `read`, for a manifest that is a layer or the config of another: from the manifests, else from the blobs.

    Raises:
        ManifestUnknownError: it is in neither place.
    """
    try:
        return read(source, desc)
    except ManifestUnknownError as exc:
        try:
            return read(source, as_blob(desc))
        except NotFoundError:
            raise exc from None


def readall(reader: BlobReader) -> bytes:
    """Everything a reader has, proved by its end."""
    if isinstance(reader, VerifyingReader):
        return reader.readall()
    return b"".join(iter(lambda: reader.read(1 << 20), b""))


def read_manifest(source: Source, desc: Descriptor) -> Manifest | Index:
    """Read and decode a manifest.

    Raises:
        InvalidManifestError: it breaks the image-spec; the message is noted with its digest.
        NotFoundError: it is not there.
        IntegrityError: the source sent something else.
    """
    raw = read(source, desc)
    try:
        return decode_manifest(raw, desc.media_type)
    except ValueError as exc:
        exc.add_note(f"in {desc.digest}")
        raise


def read_index(source: Source, desc: Descriptor) -> Index:
    """Read and decode an index.

    Raises:
        InvalidManifestError: it is none, or breaks the image-spec.
        NotFoundError: it is not there.
    """
    found = read_manifest(source, desc)
    if not isinstance(found, Index):
        raise InvalidManifestError(f"{desc.digest}: expected an index, got a {desc.media_type}")
    return found


def read_image(source: Source, desc: Descriptor) -> Manifest:
    """Read and decode an image manifest.

    Raises:
        InvalidManifestError: it is none, or breaks the image-spec.
        NotFoundError: it is not there.
    """
    found = read_manifest(source, desc)
    if not isinstance(found, Manifest):
        raise InvalidManifestError(
            f"{desc.digest}: expected an image manifest, got a {desc.media_type}",
            hint="choose one of its images with --platform",
        )
    return found


class Node(Value):
    """One manifest of a walk.

    Attributes:
        descriptor: What it is.
        raw: Its bytes.
        manifest: What they say.
        depth: 0 for the root.
    """

    descriptor: Descriptor
    raw: bytes
    manifest: Manifest | Index
    depth: int


def walk(
    source: Source,
    root: Descriptor,
    *,
    keep: frozenset[Digest] | None = None,
    missing_ok: bool = False,
) -> Iterator[Node]:
    """Every manifest below and including `root`, children before parents, each once.

    Args:
        source: Where they are.
        root: Where to begin; it must be a manifest.
        keep: Of every index, only the children with these digests; None for all.
        missing_ok: Leave out children that are not there, instead of raising.

    Raises:
        LimitExceededError: manifests nest deeper than 16, or there are more than 100 000 descriptors.
        ManifestUnknownError: a child is not in the source.
        InvalidManifestError: a manifest breaks the image-spec.
    """
    walker = _Walker(source, keep, missing_ok)
    yield from walker.visit(root, 0)


class _Walker:
    def __init__(self, source: Source, keep: frozenset[Digest] | None, missing_ok: bool) -> None:
        self._source, self._keep, self._missing_ok = source, keep, missing_ok
        self._seen: set[Digest] = set()
        self._met = 0

    def visit(self, desc: Descriptor, depth: int, *, inner: bool = False) -> Iterator[Node]:
        if desc.digest in self._seen:
            return
        self._seen.add(desc.digest)
        if depth > MAX_DEPTH:
            raise LimitExceededError(f"manifests nest deeper than {MAX_DEPTH} at {desc.digest}")
        node = self._node(desc, depth, read_inner if inner else read)
        if node is None:
            return
        self._met += 1 + len(node.manifest.children())
        if self._met > MAX_NODES:
            raise LimitExceededError(f"more than {MAX_NODES} descriptors below the root")
        for child in self._below(node.manifest):
            yield from self.visit(child, depth + 1, inner=isinstance(node.manifest, Manifest))
        yield node

    def _below(self, manifest: Manifest | Index) -> Iterator[Descriptor]:
        """The manifests a manifest is made of: most often an index's, but an artifact's layer may be one too."""
        chosen = self._keep if isinstance(manifest, Index) else None
        for child in manifest.children():
            if child.is_manifest() and (chosen is None or child.digest in chosen):
                yield child

    def _node(
        self, desc: Descriptor, depth: int, reads: Callable[[Source, Descriptor], bytes]
    ) -> Node | None:
        try:
            raw = reads(self._source, desc)
        except ManifestUnknownError:
            if depth and self._missing_ok:
                return None
            raise
        try:
            return Node(desc, raw, decode_manifest(raw, desc.media_type), depth)
        except ValueError as exc:
            exc.add_note(f"in {desc.digest}")
            raise


def select(source: Source, root: Descriptor, wanted: Platform) -> Descriptor:
    """The image below `root` that suits a platform best; `root` itself where it is no index.

    Nested indexes are searched too, those with a platform of their own only if it suits.

    Raises:
        PlatformUnknownError: none suits; the message names those that are there.
    """
    for _ in range(MAX_DEPTH):
        if not root.is_index():
            return root
        index = read_manifest(source, root)
        entries = [e for e in index.children() if e.is_manifest()]
        found = best(wanted, [e.platform for e in entries])
        if found is None:
            have = ", ".join(dict.fromkeys(str(e.platform) for e in entries if e.platform))
            raise PlatformUnknownError(
                f"no image for {wanted} in {root.digest}: it has {have or 'none at all'}",
                hint="choose one of these with --platform" if have else None,
            )
        root = entries[found]
    raise LimitExceededError(f"indexes nest deeper than {MAX_DEPTH} at {root.digest}")
