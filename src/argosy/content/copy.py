"""Copying: one function between any two places, and one run of it for many images.

It walks the manifests first, moves blobs on a pool of threads meanwhile, and then writes the manifests children before
parents, the root last and its tags last of all. So wherever it is stopped, the target holds nothing half: at worst
blobs nobody refers to yet, which the next run finds and skips.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self, TypeVar

from argosy.content import graph
from argosy.content.associated import Associated, check_number
from argosy.content.bounds import Place, Room
from argosy.content.events import Copied, OnEvent, Skipped, Tagged, Told, ignore
from argosy.content.memory import MemoryStore
from argosy.content.overlay import Overlay
from argosy.content.protocols import Source, Target, Unordered, several, together
from argosy.content.shipping import Freight, Noted, Present, Shipping
from argosy.content.workers import MAX_JOBS, Cancelled, Task, Workers, times
from argosy.errors import (
    DigestMismatchError,
    ManifestBlobUnknownError,
    UsageError,
)
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import AnyManifest, Index, decode_manifest
from argosy.spec.platform import Platform

_ASKING = 4
"""How many things are looked for at a time for each blob that moves."""
_BEGUN = 2
"""How many images are on their way for each blob that moves."""
_RAW_BUDGET = 64 * 1024 * 1024
"""Bytes of manifests that are kept until they are written; those over it are read again."""

_ROOM = 1024 * 1024
"""Bytes of manifests that images read which are not the first of those on their way: fifteen times as much memory."""

T = TypeVar("T")
R = TypeVar("R")


def copy(
    source: Source,
    tag_or_digest: str,
    target: Target,
    *tags: str,
    expected: Digest | None = None,
    platforms: Sequence[Platform] | None = None,
    sparse: bool = False,
    referrers: bool = False,
    digest_tags: bool = False,
    foreign: bool = False,
    jobs: int = 4,
    on_event: OnEvent = ignore,
) -> Descriptor:
    """Copy an image, an index or an artifact with all it is made of, and tag it at the target.

    Content that is at the target already does not move. The digest of what is copied stays the same, but for one
    case: several `platforms` without `sparse` make a new, smaller index where they leave something out, of the images
    (also those of nested indexes) and BuildKit's attestations of them; one platform gives that image alone.

    Args:
        source: Where it is.
        tag_or_digest: What to copy.
        target: Where it goes.
        tags: Tags for it at the target; none leaves it reachable by digest only.
        expected: The digest of what the tags shall point at; nothing else is copied.
        platforms: Of an index, only the images for these; None for all.
        sparse: With `platforms`: keep the index as it is, though the target then lacks some of its children.
        referrers: Copy the manifests that refer to what is copied too, and theirs, and so on.
        digest_tags: Copy tags of the form `sha256-<hex>.sig` that stand for what is copied, and theirs, and so on. A
            list of referrers (`sha256-<hex>`) is none of them: the target has its own, and `referrers` adds to it.
        foreign: Copy non-distributable layers too.
        jobs: How many blobs move at a time, 1 to 64.
        on_event: Told what happens; called from several threads, one at a time. What it raises ends the copy.

    Returns:
        The descriptor of what the tags point at.

    Raises:
        NotFoundError: the source lacks the tag, a manifest or a blob.
        PlatformUnknownError: no image suits one of `platforms`.
        InvalidTagError: the target can have nothing under one of `tags`; nothing was moved.
        DigestMismatchError: it is not `expected`; nothing was moved.
        IntegrityError: the source sent something else than it promised; the target keeps nothing of it.
        LimitExceededError: there are more than 100 000 descriptors, referrers included, or manifests nest too deep.
        ArgosyError: what the places themselves raise, with a note that says which place it was.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> a, b = MemoryStore(), MemoryStore()
        >>> root = a.add("application/vnd.oci.image.index.v1+json", b'{"schemaVersion":2,"manifests":[]}', "v1")
        >>> copy(a, "v1", b, "v2") == root == b.resolve("v2")
        True
    """
    with Copying(
        source,
        target,
        platforms=platforms,
        sparse=sparse,
        referrers=referrers,
        digest_tags=digest_tags,
        foreign=foreign,
        jobs=jobs,
        on_event=on_event,
    ) as run:
        return run.one(tag_or_digest, *tags, expected=expected).descriptor


def chosen(
    source: Source, tag_or_digest: str, platforms: Sequence[Platform] | None = None
) -> Descriptor:
    """What `copy` returns for the same arguments, found without copying.

    At most indexes are read, and the configurations of images whose platform no index names.

    Raises:
        NotFoundError: the source lacks it.
        PlatformUnknownError: no image suits one of `platforms`.
        LimitExceededError: there are more than 100 000 descriptors, or indexes nest too deep.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.testing import random
        >>> a, b = MemoryStore(), MemoryStore()
        >>> _ = random.index(a, 1, "v1")
        >>> chosen(a, "v1", [Platform.parse("linux/arm64")]) == copy(
        ...     a, "v1", b, platforms=[Platform.parse("linux/arm64")]
        ... )
        True
    """
    return graph.choose(source, source.resolve(tag_or_digest), platforms).root


class Done(Value):
    """One image that was copied.

    Attributes:
        descriptor: What its tags point at.
        moved: Whether the target lacked any of it.
    """

    descriptor: Descriptor
    moved: bool


class _Manifest(Value):
    """A manifest that is to be written, `height` others above the lowest; `raw` is None where it must be read again."""

    descriptor: Descriptor
    raw: bytes | None
    height: int


class _Image(Freight):
    """What is known of one of the images of a run."""

    def __init__(self, source: Source, root: Descriptor, place: Place) -> None:
        super().__init__()
        self.source, self.root, self.place = source, root, place
        self.manifests: dict[Digest, Descriptor] = {}
        self.rounds: list[list[_Manifest]] = []
        """What is written: the root with all below it, then what stands beside that, and so on."""
        self.beside: list[tuple[Descriptor, str]] = []
        """Tags that stand for what is copied."""
        self.met = self.held = 0


class Copying:
    """One run from a place to another, for one image or many. It is a context: its end waits for its threads.

    Many images are copied some at a time: of the next ones blobs move already while those before them are written.
    What they share moves, and is looked for, once.

    Args:
        source: Where they are.
        target: Where they go.
        platforms: As for `copy`; so are the others.
        sparse: With `platforms`: keep an index as it is.
        referrers: Copy what refers to them too.
        digest_tags: Copy tags like `sha256-<hex>.sig` too.
        foreign: Copy non-distributable layers too.
        jobs: How many blobs move at a time, 1 to 64; what is small is asked for some more at a time.
        on_event: Told what happens; called from several threads, one at a time.

    Raises:
        UsageError: `jobs` is out of range.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.testing import random
        >>> a, b = MemoryStore(), MemoryStore()
        >>> _ = random.image(a, 1, "v1"), random.image(a, 2, "v2")
        >>> with Copying(a, b) as run:
        ...     for tag, copied in run.each(a.tags(), lambda tag: (tag, (tag,))):
        ...         print(tag, copied().moved)
        v1 True
        v2 True
    """

    def __init__(
        self,
        source: Source,
        target: Target,
        *,
        platforms: Sequence[Platform] | None = None,
        sparse: bool = False,
        referrers: bool = False,
        digest_tags: bool = False,
        foreign: bool = False,
        jobs: int = 4,
        on_event: OnEvent = ignore,
    ) -> None:
        if not 1 <= jobs <= MAX_JOBS:
            raise UsageError(f"jobs: expected 1 to {MAX_JOBS}, got {jobs}")
        self.source, self.target = source, target
        self._platforms, self._sparse = platforms, sparse
        self._unordered = isinstance(target, Unordered)
        self._told = Told(on_event)
        # they wait for nobody, so that anybody may wait for them
        self._movers = Workers(times(jobs, _ASKING), "argosy-copy")
        self._images = Workers(times(jobs, _BEGUN), "argosy-image")
        self._associated = Associated(
            source, self._movers, referrers=referrers, digest_tags=digest_tags
        )
        self._blobs = Shipping(source, target, self._movers, jobs, self._told, foreign=foreign)
        self._present = Present(target, self._blobs.fresh)
        self._lock = threading.Lock()
        self._held = 0
        self._ended = False
        self._room = Room(_ROOM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        if kind is not None:
            self._movers.cancel()
        self._ended = True
        self._room.wake()
        with self._movers, self._images:  # these wait for those, and may be interrupted
            if kind is not None:
                self._images.cancel()

    def one(self, tag_or_digest: str, *tags: str, expected: Digest | None = None) -> Done:
        """Copy one image: see `copy`."""
        with self._room.enter() as place:
            return self._written(self._begun(place, tag_or_digest, tags, expected), tags)

    def each(
        self, items: Iterable[T], wanted: Callable[[T], tuple[str, Sequence[str]] | None]
    ) -> Iterator[tuple[T, Callable[[], Done | None]]]:
        """Copy several images; for each item, in their order, what waits until its image is at the target.

        Args:
            items: Whatever stands for the images; some are taken ahead.
            wanted: The tag or digest of an item's image, and its tags at the target; None where nothing is to be done.

        Returns:
            The items, each with a function that must be called before the next one is asked for. It returns None where
            nothing was to be done, and raises what `copy` raises; other images are copied all the same.
        """

        def begun(at: tuple[T, Place]) -> tuple[_Image, Sequence[str]] | Done | None:
            item, place = at
            with place:
                found = wanted(item)
                if found is None:
                    place.leave()
                    return None
                image = self._begun(place, *found)
                return self._written(image, found[1]) if self._unordered else (image, found[1])

        def done(task: Task[tuple[_Image, Sequence[str]] | Done | None]) -> Done | None:
            found = task.result()
            return self._written(*found) if isinstance(found, tuple) else found

        placed = ((item, self._room.enter()) for item in items)
        for (item, _), task in self._images.ahead(begun, placed):
            yield item, functools.partial(done, task)

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """As `map`, on threads of the run, some items ahead. `work` must not wait for the run itself."""
        return self._movers.map(work, items)

    # --------------------------------------------------------------------------------------- reading, and moving blobs

    def _begun(
        self, place: Place, name: str, tags: Sequence[str], expected: Digest | None = None
    ) -> _Image:
        """Read what an image is made of, and bring its blobs to the target."""
        for tag in several(tags):
            self.target.check_tag(tag)
        root = self.source.resolve(name)
        choice = graph.choose(self.source, root, self._platforms, sparse=self._sparse)
        if expected not in (None, choice.root.digest):
            raise DigestMismatchError(
                "manifest to be copied", expected=expected, actual=choice.root.digest
            )
        source = _with(self.source, choice.made) if choice.made else self.source
        image = _Image(source, choice.root, place)
        try:
            with contextlib.suppress(Cancelled):  # `wait` says why, or nobody wants to know
                self._read(image, (choice.root,), choice.keep)
                if self._associated.wanted:
                    self._read_beside(image)
            self._blobs.wait(image)
            self._blobs.check(image)
        except BaseException:
            image.failed = True  # its other blobs stop
            self._let_go(image)
            raise
        return image

    def _read(
        self, image: _Image, roots: Iterable[Descriptor], keep: frozenset[Digest] | None = None
    ) -> None:
        """Read some manifests and those below them, and send the blobs of them all on their way."""
        found: list[_Manifest] = []
        heights: dict[Digest, int] = {}
        image.rounds.append(found)
        for node in graph.walk(
            image.source,
            *roots,
            keep=keep,
            workers=self._movers,
            admit=lambda manifest: self._take(image, manifest.size),
        ):
            self._blobs.check(image)
            desc, children = node.descriptor, node.manifest.children()
            height = 1 + max((heights.get(child.digest, -1) for child in children), default=-1)
            heights[desc.digest] = height
            if desc.digest in image.manifests:
                continue
            image.manifests[desc.digest] = desc
            image.met += 1 + len(children)
            check_number(image.met)
            found.append(_Manifest(desc, self._kept(image, node.raw), height))
            self._told.plan(desc)
            blobs = {(one.digest, one.media_type): one for one in children if not one.is_manifest()}
            for blob in blobs.values():
                self._told.plan(blob)
            # the largest first: one that is begun late is alone at the end
            for blob in sorted(blobs.values(), key=lambda one: -one.size):
                self._blobs.send(image, blob)

    def _take(self, image: _Image, size: int) -> None:
        """Take room for what as many bytes of manifests need."""
        image.place.take(size, lambda: not self._ended)

    def _read_beside(self, image: _Image) -> None:
        """Read what stands beside an image, and what stands beside that: who refers to it, and tags for its digest."""
        check = functools.partial(self._blobs.check, image)
        take = functools.partial(self._take, image)
        while todo := [one.descriptor for one in image.rounds[-1]]:
            tagged = list(self._associated.tags(todo, check))
            image.beside += tagged
            listed = itertools.chain(
                (desc for desc, _ in tagged), self._associated.referrers(todo, check, take)
            )
            found = {desc.digest: desc for desc in listed}
            self._read(image, (desc for key, desc in found.items() if key not in image.manifests))

    def _kept(self, image: _Image, raw: bytes) -> bytes | None:
        with self._lock:
            if self._held + len(raw) > _RAW_BUDGET:
                return None
            self._held += len(raw)
        image.held += len(raw)
        return raw

    def _let_go(self, image: _Image) -> None:
        image.rounds.clear()
        image.place.leave()
        with self._lock:
            self._held -= image.held
        image.held = 0

    # --------------------------------------------------------------------------------------------- writing manifests

    def _written(self, image: _Image, tags: Sequence[str]) -> Done:
        """Write an image's manifests, now that its blobs are there, and its tags."""
        more = self._associated.wanted
        try:
            with together(self.target):
                for found in image.rounds:
                    self._write(image, found, () if more else tags)
                self._tag(image, image.beside)
            if more:  # what clients keep lists of is listed now
                self._tag(image, ((image.root, tag) for tag in tags))
        finally:
            self._let_go(image)
        return Done(image.root, image.moved)

    def _write(self, image: _Image, found: Sequence[_Manifest], tags: Sequence[str]) -> None:
        """Write some manifests, children before parents; where order is nothing else, several at a time."""
        write = functools.partial(self._manifest, image, tags)
        if not self._unordered:
            for one in found:
                write(one)
            return
        height = operator.attrgetter("height")
        for _, level in itertools.groupby(sorted(found, key=height), height):
            first, *others = level
            if not others:
                write(first)
            for _ in self.map(write, (first, *others)) if others else ():
                pass

    def _tag(self, image: _Image, tags: Iterable[tuple[Descriptor, str]]) -> None:
        for desc, tag in tags:
            self._blobs.check(image)
            self.target.tag(desc, tag)
            self._told.tell(Tagged(desc, tag))

    def _manifest(self, image: _Image, tags: Sequence[str], one: _Manifest) -> None:
        self._blobs.check(image)
        desc, mine = one.descriptor, tags if one.descriptor.digest == image.root.digest else ()
        raw = graph.read(image.source, desc) if one.raw is None else one.raw
        manifest = decode_manifest(raw, desc.media_type)
        with Noted(f"while writing {desc.digest} to {self.target}"):
            there = self._present.has(desc, manifest)
            if mine or not there:
                self._push_manifest(desc, manifest, raw, mine)
        image.moved = image.moved or not there
        if self._present.add(desc):
            self._told.tell(Skipped(desc, "exists") if there else Copied(desc))
        for tag in mine:
            self._told.tell(Tagged(desc, tag))

    def _push_manifest(
        self, desc: Descriptor, manifest: AnyManifest, raw: bytes, tags: Sequence[str]
    ) -> None:
        try:
            self.target.push(desc, io.BytesIO(raw), tags=tags)
        except ManifestBlobUnknownError:
            if not self._inner_as_blobs(manifest):
                raise
            self.target.push(desc, io.BytesIO(raw), tags=tags)

    def _inner_as_blobs(self, manifest: AnyManifest) -> bool:
        """Store the manifests that are layers of this one as blobs too, where a registry asks for them there."""
        if isinstance(manifest, Index):
            return False
        inner = [child for child in manifest.children() if child.is_manifest()]
        for child in inner:
            content = io.BytesIO(graph.read_inner(self.source, child))
            self.target.push(graph.as_blob(child), content)
        return bool(inner)


def _with(source: Source, made: tuple[Descriptor, bytes]) -> Source:
    """The source with one more manifest: the smaller index that exists nowhere yet."""
    upper = MemoryStore()
    upper.push(made[0], io.BytesIO(made[1]))
    return Overlay(source, upper)
