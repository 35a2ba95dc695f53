"""The graph below a manifest: reading manifests from a place, and walking them.

Content is a directed graph without cycles, because a digest cannot be known before what it covers. A document from
outside may still be deep or wide without end, so walks have limits.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from argosy.content.protocols import BlobReader, Source
from argosy.content.verify import VerifyingReader, embedded
from argosy.content.workers import Task, Workers
from argosy.errors import (
    InvalidError,
    InvalidManifestError,
    LimitExceededError,
    ManifestUnknownError,
    NotFoundError,
    PlatformUnknownError,
    UsageError,
)
from argosy.spec import manifest as manifests
from argosy.spec import mediatypes
from argosy.spec._value import Value, replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import AnyManifest, Index, Manifest, decode_manifest
from argosy.spec.platform import Platform

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


def read_manifest(source: Source, desc: Descriptor) -> AnyManifest:
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
        raise not_an_image(desc)
    return found


def not_an_image(desc: Descriptor) -> InvalidManifestError:
    """The error where an image was wanted, and this manifest is none."""
    choose, artifact = (
        "choose one of its images with --platform",
        "this is an artifact, not an image",
    )
    return InvalidManifestError(
        f"{desc.digest}: expected an image manifest, got a {desc.media_type}",
        hint=choose if desc.is_index() else artifact,
    )


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
    manifest: AnyManifest
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

    def _below(self, manifest: AnyManifest) -> Iterator[Descriptor]:
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

    Nested indexes are searched too, those with a platform of their own only if it suits. Among equals the first wins.
    An image whose platform no index names is taken only where no other suits, and if its configuration does not say
    that it is for another one.

    Raises:
        PlatformUnknownError: none suits; the message names those that are there.
        ManifestUnknownError: none suits, and something that was to be searched is not there.
        LimitExceededError: indexes nest deeper than 16, or list more than 100 000 descriptors.
    """
    return _Search(source, root).path(wanted)[-1] if root.is_index() else root


class Choice(Value):
    """What of an image or index is meant.

    Attributes:
        root: The manifest.
        keep: Of an index that is kept whole, and of those below it, the children that are meant; None for all.
        made: The root and its bytes where it is a smaller index that exists nowhere yet.
    """

    root: Descriptor
    keep: frozenset[Digest] | None = None
    made: tuple[Descriptor, bytes] | None = None


def choose(
    source: Source, root: Descriptor, platforms: Sequence[Platform] | None, *, sparse: bool = False
) -> Choice:
    """What `platforms` leave of a root: itself, one image of it, or a smaller index: of the images, with those nested
    indexes list, and of BuildKit's attestations of them, where these are there.

    Nothing is read but indexes, and the configurations of images whose platform no index names.

    Args:
        source: Where it is.
        root: The manifest.
        platforms: Of an index, only the images that `select` finds for these; None for all.
        sparse: Keep the index as it is, though only these of its children are meant.

    Raises:
        UsageError: there is something else than platforms in `platforms`.
        PlatformUnknownError: no image suits one of them.
        ManifestUnknownError: as `select`.
        LimitExceededError: as `select`.
    """
    _check_platforms(platforms)
    if not platforms or not root.is_index():
        return Choice(root)
    search = _Search(source, root)
    paths = [search.path(platform) for platform in platforms]
    keep = frozenset(desc.digest for path in paths for desc in path[1:])
    if sparse:
        return Choice(root, keep)
    if len(set(platforms)) == 1:
        return Choice(paths[0][-1])
    listed = list(search.listed(keep))
    attests = importlib.import_module("argosy.spec.annotations").ATTESTS  # for few indexes
    about = (e for e in listed if e.annotations.get(attests) in keep and e.digest not in keep)
    keep |= {entry.digest for entry in about if source.exists(entry)}
    if all(entry.digest in keep for entry in listed):
        return Choice(root)
    told = {path[-1].digest: path[-1] for path in paths}
    entries = tuple(e if e.platform else told.get(e.digest, e) for e in listed if e.digest in keep)
    raw = replace(search.index(root), manifests=entries).encode()
    smaller = Descriptor.of(root.media_type, raw, algorithm=root.digest.algorithm)
    return Choice(smaller, made=(smaller, raw))


def _check_platforms(platforms: object) -> None:
    """Refuse what is easily given instead of a list of platforms: for an image that is alone it would do nothing."""
    given = platforms if isinstance(platforms, Iterable) else [None]
    if platforms and not all(isinstance(platform, Platform) for platform in given):
        raise UsageError(
            f"platforms: expected a list of Platform, got {platforms!r}",
            hint='for example [Platform.parse("linux/amd64")]',
        )


_Path = tuple[Descriptor, ...]
"""An index, those below it that lead to an image, and the image."""


class _Search:
    """A search for images in an index and in those it nests, each of which is read once."""

    def __init__(self, source: Source, root: Descriptor) -> None:
        self._source, self._root = source, root.bare()
        self._indexes: dict[Digest, Index] = {}
        self._met = 0
        self._have: dict[str, None] = {}
        self._missing: ManifestUnknownError | None = None

    def path(self, wanted: Platform) -> _Path:
        """The way to the image that suits best, whose descriptor tells its platform where anything does."""
        nameless: list[_Path] = []

        def named() -> Iterator[_Path]:
            for path in self._paths(wanted, (self._root,), set()):
                if path[-1].platform is None:
                    nameless.append(path)
                else:
                    yield path

        found = _nearest(wanted, named()) or _nearest(wanted, self._told(nameless))
        if found is None:
            raise self._missing or self._unknown(wanted)
        return found

    def _paths(self, wanted: Platform, above: _Path, seen: set[Digest]) -> Iterator[_Path]:
        """The ways to all images, but through indexes for other platforms; at each fork the nearest first."""
        *_, desc = above
        if len(above) > MAX_DEPTH:
            raise LimitExceededError(f"indexes nest deeper than {MAX_DEPTH} at {desc.digest}")
        if desc.digest in seen:
            return
        seen.add(desc.digest)
        suiting: list[tuple[int, Descriptor]] = []
        for entry in self._entries(desc):
            distance = wanted.distance(entry.platform)
            if entry.is_manifest() and distance is not None:
                suiting.append((distance, entry))
        for _, entry in sorted(suiting, key=operator.itemgetter(0)):
            if entry.is_index():
                yield from self._paths(wanted, (*above, entry), seen)
            else:
                yield (*above, entry)

    def listed(self, keep: frozenset[Digest]) -> Iterator[Descriptor]:
        """What the root and the indexes in `keep` list, in order, but for these indexes themselves."""
        seen: set[Digest] = set()

        def below(desc: Descriptor) -> Iterator[Descriptor]:
            for entry in self._entries(desc):
                if entry.digest not in keep or not entry.is_index():
                    yield entry
                elif entry.digest not in seen:
                    seen.add(entry.digest)
                    yield from below(entry)

        return below(self._root)

    def _entries(self, desc: Descriptor) -> Iterator[Descriptor]:
        """What an index lists; an entry without a platform has the index's."""
        for entry in self.index(desc).manifests:
            yield replace(entry, platform=entry.platform or desc.platform)

    def index(self, desc: Descriptor) -> Index:
        """An index; one that is not there lists nothing."""
        if desc.digest not in self._indexes:
            try:
                found = read_index(self._source, desc)
            except ManifestUnknownError as exc:
                self._missing, found = exc, Index()
            self._indexes[desc.digest] = found
            self._met += 1 + len(found.manifests)
            if self._met > MAX_NODES:
                raise LimitExceededError(f"more than {MAX_NODES} descriptors in the indexes")
            for entry in found.manifests:
                self._note(entry.platform)
        return self._indexes[desc.digest]

    def _told(self, nameless: Iterable[_Path]) -> Iterator[_Path]:
        """Ways to images that are there, with the platforms that their configurations tell, where they have any."""
        for path in nameless:
            try:
                platform = self._configured(path[-1])
            except ManifestUnknownError as exc:
                self._missing = exc
                continue
            except (InvalidError, LimitExceededError, NotFoundError):
                platform = None  # whoever reads the image will say so
            self._note(platform)
            yield (*path[:-1], replace(path[-1], platform=platform))

    def _configured(self, image: Descriptor) -> Platform | None:
        if image.media_type not in mediatypes.MANIFESTS or image.artifact_type:
            return None
        config = read_image(self._source, image).config
        if config.media_type not in mediatypes.CONFIGS:
            return None
        room: Any = importlib.import_module("argosy.spec.imageconfig")  # for few indexes
        raw = read(self._source, config, limit=room.MAX_SIZE)
        found: Platform = room.ImageConfig.decode(raw).platform
        return found if found.os else None

    def _note(self, platform: Platform | None) -> None:
        # an attestation of BuildKit's is for none
        if platform is not None and platform.os != "unknown":
            self._have[str(platform)] = None

    def _unknown(self, wanted: Platform) -> PlatformUnknownError:
        return PlatformUnknownError(
            f"no image for {wanted} in {self._root.digest}: it has {', '.join(self._have) or 'none at all'}",
            hint="choose one of these with --platform" if self._have else None,
        )


def _nearest(wanted: Platform, paths: Iterable[_Path]) -> _Path | None:
    best: tuple[int, _Path] | None = None
    for path in paths:
        distance = wanted.distance(path[-1].platform)
        if distance is not None and (best is None or distance < best[0]):
            best = distance, path
        if distance == 0:
            break
    return best and best[1]
