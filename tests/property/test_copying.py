"""Many images in one run, whatever they share and whatever fails: each is at the target wholly, or its tag is not."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.content.copy import Copying, Done, copy
from argosy.content.events import Event, Planned, Progressed, Skipped, Tagged
from argosy.content.memory import MemoryStore
from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.content.workers import Task
from argosy.errors import StorageError
from argosy.spec import mediatypes
from argosy.spec._value import replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.spec.reference import digest_tag

T = TypeVar("T")
FOREIGN = mediatypes.OCI_NONDISTRIBUTABLE
PATIENCE = 120.0
"""Seconds after which a run does not end."""

Failing = dict[tuple[str, str], int]
"""How often what is done with a digest or a tag fails before it does not."""


class FailedError(StorageError):
    """What was asked to fail did."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} fails")
        self.what = what


class Place(MemoryStore):
    """Some things fail here; and it is watched how things arrive."""

    def __init__(self, failing: Failing) -> None:
        super().__init__()
        self.failing = failing
        self.wrong: list[str] = []
        self.at_a_time = 0
        self.arrived: Counter[Digest] = Counter()
        self._inside: list[Digest] = []
        self._watching = threading.Lock()

    def _fail(self, act: str, what: str) -> None:
        with self._watching:
            self.failing[act, what] = left = self.failing.get((act, what), 0) - 1
        if left >= 0:
            raise FailedError(what)

    def resolve(self, tag_or_digest: str) -> Descriptor:
        self._fail("resolve", tag_or_digest)
        return super().resolve(tag_or_digest)

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        self._fail("fetch", desc.digest)
        return super().fetch(desc)

    def exists(self, desc: Descriptor) -> bool:
        self._fail("exists", desc.digest)
        return super().exists(desc)

    def tag(self, desc: Descriptor, tag: str) -> None:
        self._fail("tag", tag)
        super().tag(desc, tag)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        with self._entered(desc):
            new = desc.digest not in self._content
            super().push(desc, content)
            if new:
                self.arrived[desc.digest] += 1
            if desc.is_manifest():
                self._check_children(desc)
            self._fail("push", desc.digest)  # it is there, and whoever sent it does not know
            super().push(desc, content, tags=tags)

    @contextlib.contextmanager
    def _entered(self, desc: Descriptor) -> Iterator[None]:
        if desc.is_manifest():
            yield
            return
        with self._watching:
            if desc.digest in self._inside:
                self.wrong.append(f"{desc.digest} moves twice at a time")
            self._inside.append(desc.digest)
            self.at_a_time = max(self.at_a_time, len(self._inside))
        try:
            yield
        finally:
            with self._watching:
                self._inside.remove(desc.digest)

    def _check_children(self, desc: Descriptor) -> None:
        manifest = decode_manifest(self._content[desc.digest][1], desc.media_type)
        for child in manifest.children():
            if child.media_type != FOREIGN and child.digest not in self._content:
                self.wrong.append(f"{desc.digest} is there before {child.digest}")


class Registry(Place):
    """Keeps no order, as a registry does."""

    unordered = True


class World(NamedTuple):
    """Images that share much, and what fails.

    Attributes:
        source: Where they are.
        failing: What fails there. `refusing`: what fails at the target.
        options: How they are copied.
        kind: The target.
    """

    source: Place
    failing: Failing
    refusing: Failing
    options: dict[str, Any]
    kind: type[Place]


@st.composite
def places(draw: st.DrawFn) -> Place:
    """A place with images, indexes, what refers to them, and tags for all of these; some tags stand for digests."""
    store, made, some = Place({}), list[Descriptor](), st.integers(0, 3)
    kinds = st.sampled_from([mediatypes.OCI_LAYER] * 3 + [FOREIGN])
    config = [store.add(mediatypes.OCI_CONFIG, b"{%s}" % (b" " * n)) for n in range(2)]
    blobs = [store.add(mediatypes.OCI_LAYER, b"%d" % n * 9) for n in range(4)]
    for number in range(draw(st.integers(1, 6))):
        subject = draw(st.none() | st.sampled_from(made)) if made else None
        if made and draw(st.sampled_from([True, False])):
            children = draw(st.lists(st.sampled_from(made), max_size=3))
            raw = Index(manifests=tuple(children), subject=subject).encode()
            desc = store.add(mediatypes.OCI_INDEX, raw)
        else:
            layers = [
                replace(blobs[n], media_type=draw(kinds)) for n in draw(st.lists(some, max_size=4))
            ]
            mine = config[draw(st.integers(0, 1))]
            raw = Manifest(config=mine, layers=tuple(layers), subject=subject).encode()
            desc = store.add(mediatypes.OCI_MANIFEST, raw)
        if made and draw(st.integers(0, 3)) == 0:
            store.tag(desc, draw(st.sampled_from(made)).digest.replace(":", "-") + ".sig")
        made.append(desc)
        for name in "ab"[: draw(st.integers(0, 2))]:
            store.tag(desc, f"{name}{number}")
    store.tag(made[-1], "last")
    return store


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Places, and what fails in them."""
    source = draw(places())
    known = st.sampled_from([*source.arrived, *source.tags()])
    often = st.sampled_from([1, 1, 2, 99])

    def failing(*acts: str) -> Failing:
        keys = st.tuples(st.sampled_from(acts), known)
        return draw(st.dictionaries(keys, often, max_size=4))

    return World(
        source,
        failing("fetch", "resolve"),
        failing("push", "exists", "tag"),
        {
            "jobs": draw(st.integers(1, 8)),
            "referrers": draw(st.booleans()),
            "digest_tags": draw(st.booleans()),
        },
        draw(st.sampled_from([Place, Registry])),
    )


def images(source: Place) -> list[str]:
    return [tag for tag in source.tags() if digest_tag(tag) is None]


def alone(world: World) -> dict[str, Place]:
    """What each tag is made of: what a copy of it alone leaves."""
    found = {}
    for tag in images(world.source):
        found[tag] = Place({})
        copy(world.source, tag, found[tag], tag, **{**world.options, "jobs": 1})
    return found


def check_whole(target: Place, part: Place) -> None:
    """All of one place is in another."""
    assert part.arrived.keys() <= target.arrived.keys()
    for tag in part.tags():
        assert target.resolve(tag) == part.resolve(tag)


def once(target: Place) -> bool:
    """Whether no blob came twice. Two images may write a manifest that is in both at the same time."""
    return all(
        number == 1 or target.resolve(digest).is_manifest()
        for digest, number in target.arrived.items()
    )


def ended(work: Callable[[], T]) -> T:
    """What some work returns, if it ends."""
    task = Task(work)
    thread = threading.Thread(target=task.run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), "it does not end"
    return task.result()


def outcomes(world: World, target: Place, events: list[Event]) -> dict[str, Done | FailedError]:
    """What became of each tag in a run that goes on after failures."""
    found: dict[str, Done | FailedError] = {}
    with Copying(world.source, target, on_event=events.append, **world.options) as run:
        for tag, copied in run.each(images(world.source), lambda tag: (tag, (tag,))):
            try:
                done = copied()
            except FailedError as exc:
                found[tag] = exc
            else:
                assert done is not None
                found[tag] = done
    return found


def check_events(events: Sequence[Event], *, all_done: bool) -> None:
    """All is planned once, before anything else is told of it, and ends once."""
    planned, over, tags = set[Digest](), Counter[Digest](), Counter[str]()
    for event in events:
        digest = event.descriptor.digest
        if isinstance(event, Planned):
            assert digest not in planned
            planned.add(digest)
            continue
        assert digest in planned
        if isinstance(event, Tagged):
            tags[event.tag] += 1
        elif not isinstance(event, Progressed) and event != Skipped(event.descriptor, "foreign"):
            over[digest] += 1
    assert set(over.values()) <= {1}
    if all_done:
        foreign = {
            e.descriptor.digest for e in events if isinstance(e, Skipped) and e.reason == "foreign"
        }
        assert over.keys() | foreign == planned


@settings(max_examples=40)
@given(world=worlds())
def test_what_is_done_is_wholly_there_and_what_failed_has_no_tag(world: World) -> None:
    parts, target, events = alone(world), world.kind(dict(world.refusing)), list[Event]()
    world.source.failing = dict(world.failing)
    found = ended(lambda: outcomes(world, target, events))
    world.source.failing, target.failing = {}, {}
    assert list(found) == list(parts)
    troubles = {what for _, what in (*world.failing, *world.refusing)}
    for tag, part in parts.items():
        mine, result = {*part.arrived, *part.tags()}, found[tag]
        if isinstance(result, FailedError):
            assert result.what in mine
            assert tag not in target.tags()
        else:
            assert result.descriptor == part.resolve(tag)
            check_whole(target, part)
            others = {one for other in parts if other != tag for one in parts[other].arrived}
            assert result.moved or others & part.arrived.keys()
        assert isinstance(result, Done) or mine & troubles
    check_events(events, all_done=all(isinstance(one, Done) for one in found.values()))
    assert target.wrong == []
    assert target.at_a_time <= world.options["jobs"]
    assert once(target)

    again = ended(lambda: outcomes(world, target, []))
    for tag, part in parts.items():
        assert isinstance(again[tag], Done)
        check_whole(target, part)
    assert target.wrong == []
    assert once(target)
    assert target.arrived.keys() == {one for part in parts.values() for one in part.arrived}
    assert not any(
        one.moved
        for one in ended(lambda: outcomes(world, target, [])).values()
        if isinstance(one, Done)
    )


@settings(max_examples=40)
@given(world=worlds(), number=st.integers(1, 30))
def test_a_run_that_is_broken_off_leaves_whole_images_and_no_threads(
    world: World, number: int
) -> None:
    parts, target, left = alone(world), world.kind(dict(world.refusing)), itertools.count(1)
    world.source.failing = dict(world.failing)
    others = set(threading.enumerate())

    def watch(_: Event) -> None:
        if next(left) == number:
            raise KeyboardInterrupt

    def run() -> str:
        tags = images(world.source)
        try:
            with Copying(world.source, target, on_event=watch, **world.options) as copying:
                for _, copied in copying.each(tags, lambda tag: (tag, (tag,))):
                    copied()
        except (FailedError, KeyboardInterrupt) as exc:
            return type(exc).__name__
        return "done"

    found = ended(run)
    new = {one.name for one in set(threading.enumerate()) - others}
    assert not any(name.startswith("argosy-") for name in new)
    world.source.failing, target.failing = {}, {}
    assert found != "done" or {*target.tags()} >= parts.keys()
    for tag in {*target.tags()} & parts.keys():
        check_whole(target, parts[tag])
    assert target.wrong == []
