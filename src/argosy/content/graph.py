"""The graph below a manifest: reading manifests from a place, and walking them.

Content is a directed graph without cycles, because a digest cannot be known before what it covers. A document from
outside may still be deep or wide without end, so walks have limits.
"""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from argosy.content.protocols import BlobReader, Source
from argosy.content.verify import VerifyingReader, embedded
from argosy.content.workers import Task, Workers
from argosy.errors import (
    InvalidManifestError,
    LimitExceededError,
    ManifestUnknownError,
    NotFoundError,
    PlatformUnknownError,
)
from argosy.spec import manifest as manifests
from argosy.spec import mediatypes
from argosy.spec._value import Value, replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.spec.platform import Platform, best

MAX_DEPTH = 16
"""How deep indexes, and manifests in manifests, may nest."""

MAX_NODES = 100_000
"""How many descriptors one walk may meet."""

_AHEAD = 8
"""How many manifests a walk reads ahead."""
_AHEAD_SIZE = 256 * 1024
"""Bytes of the largest manifest that is read ahead."""


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
    *roots: Descriptor,
    keep: frozenset[Digest] | None = None,
    missing_ok: bool = False,
    workers: Workers | None = None,
    admit: Callable[[Descriptor], object] | None = None,
) -> Iterator[Node]:
    """Every manifest below and including some, children before parents, each once.

    Args:
        source: Where they are.
        roots: Where to begin; they must be manifests.
        keep: Of every index, only the children with these digests; None for all.
        missing_ok: Leave out children that are not there, instead of raising.
        workers: Read some manifests ahead on these threads.
        admit: Called before a manifest is taken into memory, and may wait.

    Raises:
        LimitExceededError: manifests nest deeper than 16, or there are more than 100 000 descriptors.
        ManifestUnknownError: a child is not in the source.
        InvalidManifestError: a manifest breaks the image-spec.
    """
    walker = _Walker(source, keep, missing_ok, workers, admit)
    for root, begun in walker.ahead(roots):
        yield from walker.visit(root, 0, begun)


class _Walker:
    def __init__(
        self,
        source: Source,
        keep: frozenset[Digest] | None,
        missing_ok: bool,
        workers: Workers | None,
        admit: Callable[[Descriptor], object] | None,
    ) -> None:
        self._source, self._keep, self._missing_ok = source, keep, missing_ok
        self._admit = admit
        self._seen: set[Digest] = set()
        self._met = 0
        self._workers = workers
        self._free = _AHEAD if workers else 0

    def visit(
        self, desc: Descriptor, depth: int, begun: Task[bytes] | None, *, inner: bool = False
    ) -> Iterator[Node]:
        if desc.digest in self._seen:
            return
        self._seen.add(desc.digest)
        if depth > MAX_DEPTH:
            raise LimitExceededError(f"manifests nest deeper than {MAX_DEPTH} at {desc.digest}")
        node = self._node(desc, depth, begun, read_inner if inner else read)
        if node is None:
            return
        self._met += 1 + len(node.manifest.children())
        if self._met > MAX_NODES:
            raise LimitExceededError(f"more than {MAX_NODES} descriptors below the root")
        below = tuple({child.digest: child for child in self._below(node.manifest)}.values())
        if isinstance(node.manifest, Index):
            for child, task in self.ahead(below):
                yield from self.visit(child, depth + 1, task)
        else:
            for child in below:
                yield from self.visit(child, depth + 1, None, inner=True)
        yield node

    def ahead(self, descs: Sequence[Descriptor]) -> Iterator[tuple[Descriptor, Task[bytes] | None]]:
        """Manifests, to be visited in this order, of which the next are read meanwhile.

        In the whole walk, however it branches, only so many are: they are held in memory.
        """
        rest = iter(descs)
        waiting: deque[tuple[Descriptor, Task[bytes] | None]] = deque()
        while True:
            for desc in itertools.islice(rest, self._free if len(descs) > 1 else 0):
                waiting.append((desc, self._begun(desc)))
            if not waiting:
                waiting.extend((desc, None) for desc in itertools.islice(rest, 1))
            if not waiting:
                return
            desc, task = waiting.popleft()
            yield desc, task
            if task is not None:
                self._free += 1

    def _begun(self, desc: Descriptor) -> Task[bytes] | None:
        if self._workers is None or desc.size > _AHEAD_SIZE or desc.digest in self._seen:
            return None
        self._free -= 1
        return self._workers.begin(functools.partial(read, self._source, desc))

    def _below(self, manifest: Manifest | Index) -> Iterator[Descriptor]:
        """The manifests a manifest is made of: most often an index's, but an artifact's layer may be one too."""
        chosen = self._keep if isinstance(manifest, Index) else None
        for child in manifest.children():
            if child.is_manifest() and (chosen is None or child.digest in chosen):
                yield child

    def _node(
        self,
        desc: Descriptor,
        depth: int,
        begun: Task[bytes] | None,
        reads: Callable[[Source, Descriptor], bytes],
    ) -> Node | None:
        if self._admit is not None:
            self._admit(desc)
        try:
            raw = begun.result() if begun else reads(self._source, desc)
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


class Choice(Value):
    """What of an image or index is meant.

    Attributes:
        root: The manifest.
        keep: Of an index that is kept whole, the children that are meant; None for all.
        made: The root and its bytes where it is a smaller index that exists nowhere yet.
    """

    root: Descriptor
    keep: frozenset[Digest] | None = None
    made: tuple[Descriptor, bytes] | None = None


def choose(
    source: Source, root: Descriptor, platforms: Sequence[Platform] | None, *, sparse: bool = False
) -> Choice:
    """What `platforms` leave of a root: itself, one image of it, or a smaller index; at most indexes are read.

    Args:
        source: Where it is.
        root: The manifest.
        platforms: Of an index, only the images for these; None for all.
        sparse: Keep the index as it is, though only these of its children are meant.

    Raises:
        PlatformUnknownError: no image suits one of them.
    """
    if not platforms or not root.is_index():
        return Choice(root)
    index = read_index(source, root)
    kept = [_entry(source, index, root, platform) for platform in platforms]
    digests = frozenset(entry.digest for entry in kept)
    if sparse:
        return Choice(root, digests)
    if len(digests) == 1:
        return Choice(select(source, kept[0], platforms[0]))
    entries = tuple(e for e in index.manifests if e.digest in digests)
    if entries == index.manifests:
        return Choice(root)
    raw = replace(index, manifests=entries).encode()
    smaller = Descriptor.of(root.media_type, raw)
    return Choice(smaller, made=(smaller, raw))


def _entry(source: Source, index: Index, root: Descriptor, wanted: Platform) -> Descriptor:
    found = best(wanted, [entry.platform for entry in index.manifests])
    if found is None:
        select(source, root, wanted)  # raises, naming what is there
        raise PlatformUnknownError(f"no image for {wanted} in {root.digest}")
    return index.manifests[found]
