"""Copying: one function between any two places.

It walks the manifests first (children before parents), moves blobs on a pool of threads, and then writes the
manifests in that same order, the root last and its tags last of all. So wherever it is stopped, the target holds
nothing half: at worst blobs nobody refers to yet, which the next run finds and skips.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Self

from argosy.content import graph
from argosy.content.events import (
    Copied,
    Event,
    Mounted,
    OnEvent,
    Planned,
    Progressed,
    Skipped,
    Tagged,
    ignore,
)
from argosy.content.memory import MemoryStore
from argosy.content.overlay import Overlay
from argosy.content.protocols import Mounter, Source, Target, together
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    DigestMismatchError,
    LimitExceededError,
    ManifestBlobUnknownError,
    PlatformUnknownError,
    UsageError,
)
from argosy.spec import mediatypes
from argosy.spec._value import Value, replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.spec.platform import Platform, best
from argosy.spec.reference import digest_tag

MAX_JOBS = 64
_RAW_BUDGET = 64 * 1024 * 1024


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
    case: several `platforms` without `sparse` make a new, smaller index where they leave something out; one platform
    gives that image alone.

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
    if not 1 <= jobs <= MAX_JOBS:
        raise UsageError(f"jobs: expected 1 to {MAX_JOBS}, got {jobs}")
    for tag in tags:
        target.check_tag(tag)
    with _Copy(source, target, jobs, foreign, on_event) as run:
        root = source.resolve(tag_or_digest)
        chosen = _choose(source, root, platforms, sparse) if platforms else _Choice(root)
        if expected not in (None, chosen.root.digest):
            raise DigestMismatchError(
                "manifest to be copied", expected=expected, actual=chosen.root.digest
            )
        more = referrers or digest_tags
        run.tree(chosen, () if more else tags)
        if more:
            with together(target):
                run.belongings(referrers=referrers, digest_tags=digest_tags)
            run.tag(chosen.root, tags)
    return chosen.root


def chosen(
    source: Source, tag_or_digest: str, platforms: Sequence[Platform] | None = None
) -> Descriptor:
    """What `copy` returns for the same arguments, found without copying: at most indexes are read.

    Raises:
        NotFoundError: the source lacks it.
        PlatformUnknownError: no image suits one of `platforms`.

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
    root = source.resolve(tag_or_digest)
    return _choose(source, root, platforms, sparse=False).root if platforms else root


class _Choice(Value):
    """What is copied: a root, of an index perhaps only some images, or a smaller index that was made for it."""

    root: Descriptor
    keep: frozenset[Digest] | None = None
    made: tuple[Descriptor, bytes] | None = None


def _choose(
    source: Source, root: Descriptor, platforms: Sequence[Platform], sparse: bool
) -> _Choice:
    """What `platforms` leave of a root: itself, one image of it, or a smaller index."""
    if not root.is_index():
        return _Choice(root)
    index = graph.read_index(source, root)
    kept = [_entry(source, index, root, platform) for platform in platforms]
    digests = frozenset(entry.digest for entry in kept)
    if sparse:
        return _Choice(root, digests)
    if len(digests) == 1:
        return _Choice(graph.select(source, kept[0], platforms[0]))
    entries = tuple(e for e in index.manifests if e.digest in digests)
    if entries == index.manifests:
        return _Choice(root)
    raw = replace(index, manifests=entries).encode()
    smaller = Descriptor.of(root.media_type, raw)
    return _Choice(smaller, made=(smaller, raw))


def _entry(source: Source, index: Index, root: Descriptor, wanted: Platform) -> Descriptor:
    found = best(wanted, [entry.platform for entry in index.manifests])
    if found is None:
        graph.select(source, root, wanted)  # raises, naming what is there
        raise PlatformUnknownError(f"no image for {wanted} in {root.digest}")
    return index.manifests[found]


def _with(source: Source, made: tuple[Descriptor, bytes]) -> Source:
    """The source with one more manifest: the smaller index that exists nowhere yet."""
    upper = MemoryStore()
    upper.push(made[0], io.BytesIO(made[1]))
    return Overlay(source, upper)


def _wait_for_a_turn() -> None:
    """Have this thread take no core from another when it wakes up: it moves data, and is in no hurry.

    Where the other end of a connection is on this machine, it would stop the one it waits for. A policy that somebody
    chose for this process stays.
    """
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class _Cancelled(Exception):  # noqa: N818 - never leaves this module
    pass


class _Workers:
    """Threads for one caller: they do what it begins, in that order, and are there until it closes them.

    `concurrent.futures` would do, and takes longer to load than the manifests of an image to come.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[threading.Thread] = []
        self._todo: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._begun = 0

    def begin(self, work: Callable[[], object]) -> None:
        """Have something done; `wait` raises what it raises."""
        self._begun += 1
        self._todo.put(work)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name="argosy-copy")
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        _wait_for_a_turn()
        while (work := self._todo.get()) is not None:
            try:
                work()
            except BaseException as exc:  # noqa: BLE001 - it is raised where its end is waited for
                self._done.put(exc)
            else:
                self._done.put(None)

    def wait(self) -> None:
        """Wait until all that was begun is done, or something has failed."""
        while self._begun:
            failure = self._done.get()
            self._begun -= 1
            if failure is not None and not isinstance(failure, _Cancelled):
                raise failure

    def close(self) -> None:
        """Wait until the threads have ended: what they are at, and what was begun, comes first."""
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            with contextlib.suppress(RuntimeError):  # Ctrl-C came while it was started
                thread.join()


class _Copy:
    """One run of `copy`: what was seen, the pool, and who is told."""

    def __init__(
        self, source: Source, target: Target, jobs: int, foreign: bool, on_event: OnEvent
    ) -> None:
        self.source, self.target, self.foreign = source, target, foreign
        self.manifests: dict[Digest, Descriptor] = {}
        self._workers = _Workers(jobs)
        self._blobs: set[Digest] = set()
        self._fresh: set[Digest] = set()
        self._met = 0
        self._lists: dict[Digest, set[Digest]] = {}
        self._stop = threading.Event()
        self._telling = threading.Lock()
        self._on_event = on_event
        self._mounter = target if isinstance(target, Mounter) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        if kind is not None:
            self._stop.set()
        self._workers.close()

    def tell(self, event: Event) -> None:
        with self._telling:
            self._on_event(event)

    def tree(self, chosen: _Choice, tags: Sequence[str] = ()) -> None:
        """Copy a root and all below it."""
        nodes: list[tuple[Descriptor, bytes | None]] = []
        held = 0
        source = _with(self.source, chosen.made) if chosen.made else self.source
        for node in graph.walk(source, chosen.root, keep=chosen.keep):
            if node.descriptor.digest in self.manifests:
                continue
            self.manifests[node.descriptor.digest] = node.descriptor
            self._count(1 + len(node.manifest.children()))
            held += len(node.raw)
            nodes.append((node.descriptor, node.raw if held <= _RAW_BUDGET else None))
            self.tell(Planned(node.descriptor))
            self._begin(child for child in node.manifest.children() if not child.is_manifest())
        self._workers.wait()
        with together(self.target):
            for desc, raw in nodes:
                mine = tags if desc.digest == chosen.root.digest else ()
                self._manifest(desc, graph.read(source, desc) if raw is None else raw, mine)

    def _count(self, met: int) -> None:
        # each walk has its limit, but a registry can name new referrers, and theirs, for ever
        self._met += met
        if self._met > graph.MAX_NODES:
            raise LimitExceededError(f"more than {graph.MAX_NODES} descriptors in one copy")

    def belongings(self, *, referrers: bool, digest_tags: bool) -> None:
        """Copy what stands beside what was copied, and what stands beside that.

        Args:
            referrers: The manifests that refer to it.
            digest_tags: The tags that stand for it by having its digest in their name.
        """
        beside = self._digest_tags() if digest_tags else {}
        asked: set[Digest] = set()
        while todo := [d for d in self.manifests.values() if d.digest not in asked]:
            for one in todo:
                asked.add(one.digest)
                for tag in beside.get((one.digest.algorithm, one.digest.encoded), ()):
                    desc = self.source.resolve(tag)
                    self._also(desc)
                    self.tag(desc, (tag,))
                for entry in self.source.referrers(one) if referrers else ():
                    self._also(entry.bare())

    def _digest_tags(self) -> dict[tuple[str, str], list[str]]:
        """The tags at the source that stand for digests, by what they stand for."""
        found: dict[tuple[str, str], list[str]] = {}
        for tag in self.source.tags():
            stands_for = digest_tag(tag)
            if stands_for is not None:
                found.setdefault(stands_for, []).append(tag)
        return found

    def _also(self, desc: Descriptor) -> None:
        if desc.digest not in self.manifests:
            self.tree(_Choice(desc))

    def tag(self, root: Descriptor, tags: Sequence[str]) -> None:
        """Point tags at what is at the target."""
        for tag in tags:
            self.target.tag(root, tag)
            self.tell(Tagged(root, tag))

    def _begin(self, blobs: Iterable[Descriptor]) -> None:
        new: list[Descriptor] = []
        for desc in blobs:
            if desc.digest not in self._blobs:
                self._blobs.add(desc.digest)
                self.tell(Planned(desc))
                new.append(desc)
        # the largest first: one that is begun late is alone at the end
        for desc in sorted(new, key=lambda one: -one.size):
            self._workers.begin(functools.partial(self._blob, desc))

    def _blob(self, desc: Descriptor) -> None:
        try:
            self.tell(self._moved(desc))
        except BaseException:
            self._stop.set()
            raise

    def _moved(self, desc: Descriptor) -> Event:
        """Bring one blob to the target, in the cheapest way that works."""
        if self._stop.is_set():
            raise _Cancelled
        if desc.media_type in mediatypes.NONDISTRIBUTABLE and not self.foreign:
            return Skipped(desc, "foreign")
        with _Noted(f"while copying {desc.digest} to {self.target}"):
            if self.target.exists(desc):
                return Skipped(desc, "exists")
            self._fresh.add(desc.digest)
            if self._mounter is not None and self._mounter.mount(desc, self.source):
                return Mounted(desc)
            with self._opened(desc) as reader:
                self._pushed(desc, reader)
        return Copied(desc)

    def _pushed(self, desc: Descriptor, reader: VerifyingReader) -> None:
        while True:
            try:
                self.target.push(desc, reader)
            except DigestMismatchError as exc:
                if not reader.elsewhere(exc):  # a mirror's wrong bytes are no reason to fail
                    raise
            else:
                return

    def _opened(self, desc: Descriptor) -> VerifyingReader:
        with _Noted(f"while reading from {self.source}"):
            reader = self.source.fetch(desc)
        watched = reader if isinstance(reader, VerifyingReader) else VerifyingReader(reader, desc)
        watched.observe(self._stopping if self._on_event is ignore else self._observer(desc))
        return watched

    def _stopping(self, _size: int) -> None:
        if self._stop.is_set():
            raise _Cancelled

    def _observer(self, desc: Descriptor) -> Callable[[int], object]:
        done = 0

        def moved(size: int) -> None:
            nonlocal done
            self._stopping(size)
            done += size
            self.tell(Progressed(desc, done))

        return moved

    def _manifest(self, desc: Descriptor, raw: bytes, tags: Sequence[str]) -> None:
        manifest = decode_manifest(raw, desc.media_type)
        with _Noted(f"while writing {desc.digest} to {self.target}"):
            if (
                self._may_be_there(desc, manifest)
                and self.target.exists(desc)
                and self._listed(desc, manifest)
            ):
                self.tell(Skipped(desc, "exists"))
                self.tag(desc, tags)
                return
            try:
                self.target.push(desc, io.BytesIO(raw), tags=tags)
            except ManifestBlobUnknownError:
                if not self._inner_as_blobs(manifest):
                    raise
                self.target.push(desc, io.BytesIO(raw), tags=tags)
        self.tell(Copied(desc))
        for tag in tags:
            self.tell(Tagged(desc, tag))

    def _inner_as_blobs(self, manifest: Manifest | Index) -> bool:
        """Store the manifests that are layers of this one as blobs too, where a registry asks for them there."""
        if isinstance(manifest, Index):
            return False
        inner = [child for child in manifest.children() if child.is_manifest()]
        for child in inner:
            content = io.BytesIO(graph.read_inner(self.source, child))
            self.target.push(graph.as_blob(child), content)
        return bool(inner)

    def _may_be_there(self, desc: Descriptor, manifest: Manifest | Index) -> bool:
        """Whether to ask for a manifest at all: where some content of it was missing, it was missing itself."""
        fresh = any(child.digest in self._fresh for child in manifest.children())
        if fresh:
            self._fresh.add(desc.digest)
        return not fresh

    def _listed(self, desc: Descriptor, manifest: Manifest | Index) -> bool:
        """Whether what is at the target is found there by its subject too, if it has one.

        Where clients keep the list it may have been lost; to push the manifest again puts it there. A subject's list is
        read once.
        """
        subject = manifest.subject
        if subject is None:
            return True
        if subject.digest not in self._lists:
            self._lists[subject.digest] = {e.digest for e in self.target.referrers(subject)}
        return desc.digest in self._lists[subject.digest]


class _Noted:
    """Adds a note to what is raised inside, once for each place."""

    def __init__(self, note: str) -> None:
        self._note = note

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is not None and not isinstance(exc, _Cancelled):
            exc.add_note(self._note)
