"""Many images in one run: what is done at a time, in which order it is written, and what one failure leaves the others.

Gates and barriers stand for time: what must be at a time meets in them, and what must not would wait in vain.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from argosy.content.copy import Copying, Done, copy
from argosy.content.events import Copied, Event, Planned, Skipped
from argosy.content.graph import read_index, walk
from argosy.content.memory import MemoryStore
from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.content.workers import Workers
from argosy.errors import BlobUnknownError, ManifestUnknownError, StorageError
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from argosy.testing import random

PATIENCE = 30.0
"""Seconds after which what was waited for is not coming."""


class Recording(MemoryStore):
    """Remembers what was asked for and what arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[Digest] = []
        self.asked: list[Digest] = []
        self.tagged: list[str] = []

    def exists(self, desc: Descriptor) -> bool:
        self.asked.append(desc.digest)
        return super().exists(desc)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        super().push(desc, content, tags=tags)
        self.arrived.append(desc.digest)
        self.tagged.extend(tags)


class Registry(Recording):
    """Keeps no order, as a registry does."""

    unordered = True


class Slow(MemoryStore):
    """Hands out some content only when a gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[Digest, threading.Event] = {}

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        if desc.digest in self.gates:
            assert self.gates[desc.digest].wait(PATIENCE), "waited in vain"
        return super().fetch(desc)


def layers_of(store: MemoryStore, image: Descriptor) -> list[Descriptor]:
    (node,) = walk(store, image)
    return list(node.manifest.children())[1:]


def image_of(store: MemoryStore, tag: str, *layers: bytes) -> Descriptor:
    """An image of given layers."""
    config = store.add(mediatypes.OCI_CONFIG, f'{{"tag":"{tag}"}}'.encode())
    made = [store.add(mediatypes.OCI_LAYER, layer) for layer in layers]
    raw = Manifest(config=config, layers=tuple(made)).encode()
    return store.add(mediatypes.OCI_MANIFEST, raw, tag)


def as_tagged(tag: str) -> tuple[str, tuple[str]]:
    return tag, (tag,)


def all_of(steps: Iterator[tuple[str, Callable[[], Done | None]]]) -> dict[str, Done | None]:
    return {item: copied() for item, copied in steps}


@pytest.mark.parametrize("kind", [Recording, Registry])
def test_what_images_share_moves_and_is_asked_for_once(kind: type[Recording]) -> None:
    source, target = MemoryStore(), kind()
    names = [f"v{n}" for n in range(20)]
    roots = {name: image_of(source, name, b"base", name.encode()) for name in names}
    events: list[Event] = []
    with Copying(source, target, on_event=events.append) as run:
        done = all_of(run.each(names, as_tagged))
    assert {name: found and found.descriptor for name, found in done.items()} == roots
    assert all(found and found.moved for found in done.values())
    base = layers_of(source, roots["v0"])[0].digest
    assert target.arrived.count(base) == 1
    planned = [e.descriptor.digest for e in events if isinstance(e, Planned)]
    ended = [e.descriptor.digest for e in events if isinstance(e, (Copied, Skipped))]
    assert sorted(planned) == sorted(set(planned)) == sorted(ended)


def test_a_second_run_moves_nothing_and_says_so() -> None:
    source, target = MemoryStore(), Recording()
    for number in range(3):
        random.index(source, number, f"v{number}")
    for moved in (True, False):
        target.arrived.clear()
        with Copying(source, target) as run:
            done = all_of(run.each(list(source.tags()), as_tagged))
        assert [found and found.moved for found in done.values()] == [moved] * 3
    assert set(target.arrived) == {source.resolve(tag).digest for tag in source.tags()}, "tagged"


def test_what_images_share_is_looked_for_once() -> None:
    source, target = MemoryStore(), Recording()
    names = [f"v{n}" for n in range(9)]
    base = [layers_of(source, image_of(source, name, b"base", name.encode()))[0] for name in names]
    target.push(base[0], io.BytesIO(b"base"))
    target.asked.clear()
    with Copying(source, target) as run:
        all_of(run.each(names, as_tagged))
    assert target.asked.count(base[0].digest) == 1


@pytest.mark.parametrize("kind", [Recording, Registry])
def test_blobs_of_the_next_move_while_one_waits(kind: type[Recording]) -> None:
    source, target = Slow(), kind()
    first, second = image_of(source, "first", b"1"), image_of(source, "second", b"2")
    gate = source.gates[layers_of(source, first)[0].digest] = threading.Event()
    later = layers_of(source, second)[0].digest

    def watch(event: Event) -> None:
        if isinstance(event, Copied) and event.descriptor.digest == later:
            gate.set()

    with Copying(source, target, on_event=watch) as run:
        all_of(run.each(["first", "second"], as_tagged))
    assert target.resolve("first") == first
    assert target.resolve("second") == second


def test_manifests_are_written_in_order_where_there_is_one() -> None:
    source, target = Slow(), Recording()
    names = ["a", "b", "c", "d", "e"]
    roots = [image_of(source, name, name.encode()) for name in names]
    gate = source.gates[layers_of(source, roots[0])[0].digest] = threading.Event()
    last = layers_of(source, roots[-1])[0].digest

    def watch(event: Event) -> None:
        if isinstance(event, Copied) and event.descriptor.digest == last:
            gate.set()

    with Copying(source, target, on_event=watch) as run:
        all_of(run.each(names, as_tagged))
    assert target.tagged == names
    manifests = {root.digest for root in roots}
    assert [digest for digest in target.arrived if digest in manifests] == [
        root.digest for root in roots
    ]


def test_a_registry_is_sent_the_children_of_an_index_at_a_time() -> None:
    meeting = threading.Barrier(2)

    class Meeting(Registry):
        def push(
            self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()
        ) -> None:
            if desc.digest in children:
                meeting.wait(PATIENCE)
            super().push(desc, content, tags=tags)

    source, target = MemoryStore(), Meeting()
    root = random.index(source, 1, "v1")
    children = {child.digest for child in read_index(source, root).manifests}
    copy(source, "v1", target, "v1")
    assert set(target.arrived[-3:-1]) == children
    assert target.arrived[-1] == root.digest


def test_the_children_of_an_index_are_read_at_a_time() -> None:
    meeting = threading.Barrier(2)

    class Meeting(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            if desc.digest in children:
                meeting.wait(PATIENCE)
            return super().fetch(desc)

    source = Meeting()
    children: set[Digest] = set()
    root = random.index(source, 1, "v1")
    wanted = list(walk(source, root))
    children.update(child.digest for child in read_index(source, root).manifests)
    with Workers(2, "reader") as workers:
        assert list(walk(source, root, workers=workers)) == wanted


def test_manifests_that_are_read_ahead_have_a_bound() -> None:
    read: list[Digest] = []

    class Watched(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            read.append(desc.digest)
            return super().fetch(desc)

    source = Watched()
    platforms = [f"linux/{n}" for n in range(40)]
    root = random.index(source, 1, platforms=platforms)
    read.clear()
    with Workers(2, "reader") as workers:
        for number, _ in enumerate(walk(source, root, workers=workers)):
            assert len(read) <= 2 + number + 8


@pytest.mark.parametrize(("jobs", "asking"), [(1, 1), (2, 4), (4, 16)])
def test_so_many_blobs_move_and_more_are_looked_for(jobs: int, asking: int) -> None:
    meeting, lock = threading.Barrier(asking), threading.Lock()
    moving, most = 0, 0

    class Watched(Registry):
        def exists(self, desc: Descriptor) -> bool:
            meeting.wait(PATIENCE)
            return False

        def push(
            self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()
        ) -> None:
            nonlocal moving, most
            with lock:
                moving += not desc.is_manifest()
                most = max(most, moving)
            content.read(-1)
            with lock:
                moving -= not desc.is_manifest()

    source = MemoryStore()
    random.image(source, 1, "v1", layers=2 * 16 - 1)
    copy(source, "v1", Watched(), "v1", jobs=jobs)
    assert 1 <= most <= jobs


def test_one_failure_is_told_for_its_image_and_leaves_the_others() -> None:
    source, target = MemoryStore(), Recording()
    names = ["a", "b", "c"]
    roots = {name: image_of(source, name, b"base", name.encode()) for name in names}
    source.delete(layers_of(source, roots["b"])[1])
    told: dict[str, str] = {}
    with Copying(source, target) as run:
        for name, copied in run.each([*names, "missing"], as_tagged):
            try:
                copied()
                told[name] = "copied"
            except (BlobUnknownError, ManifestUnknownError) as exc:
                told[name] = type(exc).__name__
    assert told == {
        "a": "copied",
        "b": "BlobUnknownError",
        "c": "copied",
        "missing": "ManifestUnknownError",
    }
    assert sorted(target.tags()) == ["a", "c"]
    assert not target.exists(roots["b"])


def test_what_failed_for_one_image_is_tried_again_for_the_next() -> None:
    both, failed = threading.Event(), list[Digest]()
    base = (
        b"base" * 100
    )  # the largest is sent first: where the small ones have come, both images wait for it

    class Failing(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            if desc.size == len(base) and not failed:
                failed.append(desc.digest)
                assert both.wait(PATIENCE), "waited in vain"
                raise StorageError("the first time")
            return super().fetch(desc)

    def watch(event: Event) -> None:
        if isinstance(event, Copied) and event.descriptor.media_type == mediatypes.OCI_LAYER:
            small.append(event.descriptor.digest)
            if len(small) == 2:
                both.set()

    source, target, small = Failing(), MemoryStore(), list[Digest]()
    for name in ("a", "b"):
        image_of(source, name, base, name.encode())
    results: list[object] = []
    with Copying(source, target, on_event=watch) as run:
        for _, copied in run.each(["a", "b"], as_tagged):
            try:
                results.append(copied())
            except StorageError as exc:
                results.append(exc)
    assert sorted(type(one).__name__ for one in results) == ["Done", "StorageError"]
    assert len(list(target.tags())) == 1


def test_a_failure_while_manifests_are_still_read_is_what_is_raised() -> None:
    failed = threading.Event()

    class Failing(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            if desc.digest in late:
                assert failed.wait(PATIENCE)
            if desc.digest == lost.digest:
                failed.set()
                raise BlobUnknownError("gone")
            return super().fetch(desc)

    source, late = Failing(), set[Digest]()
    lost = Descriptor.of(mediatypes.OCI_LAYER, b"none")
    root = random.index(source, 1, "v1", platforms=[f"linux/{n}" for n in range(9)])
    first, *others = read_index(source, root).manifests
    lost = layers_of(source, first)[0]
    late.update(child.digest for child in others)
    with pytest.raises(BlobUnknownError, match="gone"):
        copy(source, "v1", MemoryStore(), "v1", jobs=16)


def test_nothing_more_is_begun_after_the_run_was_left() -> None:
    source, target = Slow(), Recording()
    names = [f"v{n}" for n in range(50)]
    for name in names:
        image_of(source, name, name.encode())

    def interrupted() -> None:
        with Copying(source, target, jobs=1) as run:
            for _, copied in run.each(names, as_tagged):
                copied()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(target.tags()) == ["v0"]
    assert len(target.arrived) < 30


def test_where_the_items_fail_what_came_before_them_is_copied() -> None:
    def items() -> Iterator[str]:
        yield from ("a", "b")
        raise StorageError("no more")

    source, target = MemoryStore(), MemoryStore()
    for name in ("a", "b"):
        image_of(source, name, name.encode())
    with Copying(source, target) as run, pytest.raises(StorageError, match="no more"):
        all_of(run.each(items(), as_tagged))
    assert sorted(target.tags()) == ["a", "b"]


def test_an_item_of_which_nothing_is_wanted_keeps_its_place() -> None:
    source, target = MemoryStore(), MemoryStore()
    for name in ("a", "b", "c"):
        image_of(source, name, name.encode())
    with Copying(source, target) as run:
        done = all_of(run.each("abc", lambda tag: None if tag == "b" else as_tagged(tag)))
    assert list(done) == ["a", "b", "c"]
    assert done["b"] is None
    assert sorted(target.tags()) == ["a", "c"]


def test_a_blob_with_the_digest_of_a_manifest_does_not_stand_for_it() -> None:
    source, target = MemoryStore(), Recording()
    inner = random.image(source, 1, "inner")
    config = source.add(mediatypes.OCI_CONFIG, b"{}")
    as_layer = Descriptor(media_type=mediatypes.OCI_LAYER, digest=inner.digest, size=inner.size)
    raw = Manifest(config=config, layers=(as_layer,)).encode()
    source.add(mediatypes.OCI_MANIFEST, raw, "outer")
    with Copying(source, target, jobs=1) as run:
        all_of(run.each(["outer", "inner"], as_tagged))
    (inside,) = walk(target, target.resolve("inner"))
    assert all(target.exists(child) for child in inside.manifest.children())
    assert target.tagged == ["outer", "inner"]


def test_content_is_as_it_was() -> None:
    source, target = MemoryStore(), Registry()
    for number in range(6):
        random.index(source, number, f"v{number}", nested=bool(number % 2))
    with Copying(source, target, jobs=3) as run:
        all_of(run.each(list(source.tags()), as_tagged))
    for tag in source.tags():
        for node in walk(target, target.resolve(tag)):
            for child in node.manifest.children():
                with source.fetch(child) as old, target.fetch(child) as new:
                    assert io.BytesIO(old.readall()).getvalue() == new.readall()


@pytest.mark.parametrize("order", [("old", "new"), ("new", "old")])
def test_a_layer_that_one_image_leaves_where_it_is_moves_for_another(
    order: tuple[str, str],
) -> None:
    source, target, events = MemoryStore(), MemoryStore(), list[Event]()
    image_of(source, "new", b"windows")
    config = source.add(mediatypes.OCI_CONFIG, b"{}")
    layer = Descriptor.of(mediatypes.OCI_NONDISTRIBUTABLE, b"windows")
    raw = Manifest(config=config, layers=(layer,)).encode()
    source.add(mediatypes.OCI_MANIFEST, raw, "old")
    with Copying(source, target, on_event=events.append, jobs=1) as run:
        all_of(run.each(order, as_tagged))
    assert target.exists(layer)
    assert Skipped(layer, "foreign") in events


def test_a_list_of_tags_that_broke_off_is_read_again_for_the_next_image() -> None:
    class Breaking(MemoryStore):
        def tags(self) -> Iterator[str]:
            yield from sorted(super().tags())[:1]
            if not broken:
                broken.append(True)
                raise StorageError("broke off")
            yield from sorted(super().tags())[1:]

    source, target, broken = Breaking(), MemoryStore(), list[bool]()
    for name in ("a", "b"):
        image = image_of(source, name, name.encode())
        random.artifact(source, len(name) + ord(name), f"sha256-{image.digest.encoded}.sig")
    told: list[str] = []
    with Copying(source, target, digest_tags=True, jobs=1) as run:
        for name, copied in run.each("ab", as_tagged):
            try:
                copied()
            except StorageError:
                told.append(name)
    assert told == ["a"]
    assert sorted(target.tags()) == ["b", f"sha256-{source.resolve('b').digest.encoded}.sig"]


def test_each_image_tells_of_its_own_failure() -> None:
    both, small = threading.Event(), list[Digest]()
    base = b"base" * 100  # sent first, and waited for by both

    class Failing(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            if desc.media_type == mediatypes.OCI_LAYER:
                if desc.size == len(base):
                    assert both.wait(PATIENCE), "waited in vain"
                else:
                    with lock:
                        small.append(desc.digest)
                    if len(small) == 2:
                        both.set()
                raise StorageError(desc.digest)
            return super().fetch(desc)

    source, lock = Failing(), threading.Lock()
    for name in ("a", "b"):
        image_of(source, name, base, name.encode())
    failures: list[StorageError] = []
    with Copying(source, MemoryStore()) as run:
        for _, copied in run.each("ab", as_tagged):
            with pytest.raises(StorageError) as caught:
                copied()
            failures.append(caught.value)
    assert failures[0] is not failures[1]
