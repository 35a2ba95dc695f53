"""Copying: what moves, in which order, and what is left where it fails."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.content import graph
from argosy.content.copy import copy
from argosy.content.events import Copied, Event, Mounted, Planned, Progressed, Skipped, Tagged
from argosy.content.graph import read_index, select, walk
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Source, SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    DigestMismatchError,
    LimitExceededError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
    UsageError,
)
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.spec.platform import Platform
from argosy.testing import random


class Ordered(MemoryStore):
    """Remembers in which order content arrived, and refuses a manifest before its children, as registries do."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: list[Digest] = []
        self.mountable: set[Digest] = set()

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        super().push(desc, content, tags=tags)
        self.arrived.append(desc.digest)
        if desc.is_manifest():
            for node in walk(self, desc):
                for child in node.manifest.children():
                    assert self.exists(child), "a child came after its parent"


class Unlisted(Ordered):
    """Lists only the referrers it is told to, as where another client has overwritten the list it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: set[Digest] = set()
        self.asked = 0

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        self.asked += 1
        found = super().referrers(subject, artifact_type)
        return (entry for entry in found if entry.digest in self.listed)


class Mounting(Ordered):
    """Mounts what it is told it can."""

    def mount(self, desc: Descriptor, source: Source) -> bool:
        if desc.digest in self.mountable:
            with source.fetch(desc) as reader:
                MemoryStore.push(self, desc, reader)
            return True
        return False


def kinds(events: list[Event]) -> set[str]:
    return {type(event).__name__ for event in events}


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 3), st.booleans(), st.integers(1, 8))
def test_children_arrive_before_parents(seed: int, layers: int, nested: bool, jobs: int) -> None:
    source, target = MemoryStore(), Ordered()
    root = random.index(source, seed, "v1", nested=nested)
    random.image(source, seed, layers=layers)
    assert copy(source, "v1", target, "a", "b", jobs=jobs) == root
    assert target.arrived[-1] == root.digest
    assert sorted(target.tags()) == ["a", "b"]


def test_every_blob_is_planned_before_it_moves_and_told_once() -> None:
    source, target = MemoryStore(), MemoryStore()
    random.index(source, 1, "v1")
    events: list[Event] = []
    copy(source, "v1", target, "v1", on_event=events.append)
    planned: set[Digest] = set()
    done: list[Digest] = []
    for event in events:
        if isinstance(event, Planned):
            planned.add(event.descriptor.digest)
        else:
            assert event.descriptor.digest in planned
        if isinstance(event, Copied):
            done.append(event.descriptor.digest)
    assert sorted(done) == sorted(planned)
    assert isinstance(events[-1], Tagged)
    last = {e.descriptor.digest: e.done for e in events if isinstance(e, Progressed)}
    for event in events:
        if isinstance(event, Progressed):
            assert last[event.descriptor.digest] == event.descriptor.size


def test_nothing_moves_that_is_not_what_was_expected() -> None:
    source, target = MemoryStore(), Ordered()
    image, index = random.image(source, 1, "v1"), random.index(source, 2, "multi")
    platform = [entry.platform for entry in read_index(source, index).manifests][:1]
    for name, wanted, chosen in (("v1", index, None), ("multi", index, platform)):
        with pytest.raises(DigestMismatchError, match=f"expected {wanted.digest}, got sha256:"):
            copy(source, name, target, "x", expected=wanted.digest, platforms=chosen)  # type: ignore[arg-type]
    assert not target.arrived
    assert copy(source, "v1", target, expected=image.digest) == image


def test_referrers_and_theirs_are_copied_before_the_tag() -> None:
    source, target = MemoryStore(), Ordered()
    image = random.image(source, 1, "v1")
    signature = random.artifact(source, 2, subject=image)
    note = random.artifact(source, 3, subject=signature)
    events: list[Event] = []
    copy(source, "v1", target, "v1", referrers=True, on_event=events.append)
    assert target.exists(signature)
    assert target.exists(note)
    assert isinstance(events[-1], Tagged)


def test_referrers_of_referrers_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2023-33957, CVE-2023-46737, CVE-2024-29902: signatures without end."""

    class Endless(MemoryStore):
        def referrers(
            self, subject: Descriptor, artifact_type: str | None = None
        ) -> Iterator[Descriptor]:
            self.asked = getattr(self, "asked", 0) + 1
            assert self.asked < 1000, "no end"
            yield random.artifact(self, self.asked, subject=subject)

    monkeypatch.setattr(graph, "MAX_NODES", 300)
    source, target = Endless(), MemoryStore()
    random.image(source, 0, "v1")
    with pytest.raises(LimitExceededError, match="more than 300 descriptors in one copy"):
        copy(source, "v1", target, "v1", referrers=True)
    assert 50 < source.asked <= 300
    assert list(target.tags()) == []


def test_referrers_of_every_image_of_an_index_are_copied() -> None:
    source, target = MemoryStore(), MemoryStore()
    root = random.index(source, 1, "v1")
    arm = select(source, root, Platform.parse("linux/arm64"))
    signature = random.artifact(source, 2, subject=arm)
    copy(source, "v1", target, "v1")
    assert not target.exists(signature)
    copy(source, "v1", target, "v1", referrers=True)
    assert target.exists(signature)


def test_a_referrer_that_is_there_and_in_no_list_is_pushed_again() -> None:
    source, target = Ordered(), Unlisted()
    subject = random.image(source, 1, "v1")
    lost, listed = (random.artifact(source, n, subject=subject) for n in (2, 3))
    copy(source, "v1", target, "v1", referrers=True)
    target.listed = {listed.digest}
    target.arrived.clear()
    copy(source, "v1", target, "v1", referrers=True)
    assert target.arrived == [lost.digest]
    assert target.asked == 1


def test_digest_tags_are_copied_on_request() -> None:
    source, target = MemoryStore(), MemoryStore()
    image, other = random.image(source, 1, "v1"), random.image(source, 5, "v5")
    name = f"sha256-{image.digest.encoded}.sig"
    random.artifact(source, 2, name)
    random.artifact(source, 3, f"sha256-{other.digest.encoded}.sig")
    copy(source, "v1", target, "v1", digest_tags=True)
    assert sorted(target.tags()) == [name, "v1"]


def test_what_stands_beside_what_stands_beside_is_copied() -> None:
    source, target = MemoryStore(), MemoryStore()
    image = random.image(source, 1, "v1")
    tags = ["v1"]

    def beside(number: int, desc: Descriptor, ending: str) -> Descriptor:
        tags.append(f"sha256-{desc.digest.encoded}.{ending}")
        return random.artifact(source, number, tags[-1])

    sbom = random.artifact(source, 2, subject=image)
    of_sbom = beside(3, sbom, "sig")
    beside(4, beside(5, image, "sbom"), "sig")
    of_signature = random.artifact(source, 6, subject=of_sbom)
    copy(source, "v1", target, "v1", referrers=True, digest_tags=True)
    assert sorted(target.tags()) == sorted(tags)
    assert target.exists(of_signature)


def test_a_list_of_referrers_is_no_digest_tag() -> None:
    source, target = MemoryStore(), MemoryStore()
    image = random.image(source, 1, "v1")
    name = f"sha256-{image.digest.encoded}"
    random.index(source, 2, name)
    own = random.index(target, 3, name)
    copy(source, "v1", target, "v1", digest_tags=True)
    assert target.resolve(name) == own


def test_what_the_target_can_mount_does_not_move() -> None:
    source, target = MemoryStore(), Mounting()
    random.image(source, 1, "v1", layers=2)
    layer = next(iter(walk(source, source.resolve("v1")))).manifest.children()[1]
    target.mountable = {layer.digest}
    events: list[Event] = []
    copy(source, "v1", target, "v1", on_event=events.append)
    assert [e.descriptor.digest for e in events if isinstance(e, Mounted)] == [layer.digest]
    assert layer.digest not in target.arrived


def foreign_image(store: MemoryStore) -> Descriptor:
    data = b"not to be handed on"
    layer = Descriptor.of(
        mediatypes.OCI_NONDISTRIBUTABLE_GZIP, data, urls=("https://example.invalid/x",)
    )
    store.push(layer, io.BytesIO(data))
    config = Descriptor.of(mediatypes.OCI_EMPTY, b"{}")
    store.push(config, io.BytesIO(b"{}"))
    raw = Manifest(config=config, layers=(layer,), artifact_type="a/b").encode()
    store.add(mediatypes.OCI_MANIFEST, raw, "v1")
    return layer


def test_nondistributable_layers_move_only_on_request() -> None:
    source, target = MemoryStore(), MemoryStore()
    layer = foreign_image(source)
    events: list[Event] = []
    copy(source, "v1", target, "v1", on_event=events.append)
    assert [e.reason for e in events if isinstance(e, Skipped)] == ["foreign"]
    assert not target.exists(layer)
    copy(source, "v1", target, "v1", foreign=True)
    assert target.exists(layer)


def test_a_missing_blob_leaves_no_manifest_and_no_tag() -> None:
    source, target = MemoryStore(), MemoryStore()
    desc = random.image(source, 1, "v1")
    layer = next(iter(walk(source, desc))).manifest.children()[2]
    source.delete(layer)
    with pytest.raises(BlobUnknownError) as caught:
        copy(source, "v1", target, "v1")
    assert not target.exists(desc)
    assert list(target.tags()) == []
    assert any("reading from memory" in note for note in caught.value.__notes__)


def test_a_missing_child_of_an_index_is_named() -> None:
    source, target = MemoryStore(), MemoryStore()
    root = random.index(source, 1, "v1")
    child = read_index(source, root).manifests[1]
    source.delete(child)
    with pytest.raises(ManifestUnknownError) as caught:
        copy(source, "v1", target, "v1")
    assert child.digest in str(caught.value)
    assert list(target.tags()) == []


def test_the_first_failure_stops_the_others() -> None:
    stop = threading.Event()

    class Failing(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            if desc.is_manifest():
                return super().fetch(desc)
            if stop.is_set():
                raise AssertionError("a blob was begun after the failure")
            stop.set()
            raise BlobUnknownError("gone")

    source = Failing()
    random.image(source, 1, "v1", layers=8)
    with pytest.raises(BlobUnknownError):
        copy(source, "v1", MemoryStore(), jobs=1)


@pytest.mark.parametrize(
    ("callers", "movers"),
    [(os.SCHED_OTHER, os.SCHED_BATCH), (os.SCHED_IDLE, os.SCHED_IDLE)],
)
def test_who_moves_data_takes_no_core_from_others_and_a_chosen_policy_stays(
    callers: int, movers: int
) -> None:
    class Watched(MemoryStore):
        def push(
            self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()
        ) -> None:
            if not desc.is_manifest():
                found.append(os.sched_getscheduler(0))
            super().push(desc, content, tags=tags)

    def run() -> None:
        os.sched_setscheduler(0, callers, os.sched_param(0))
        source = MemoryStore()
        copy(source, random.image(source, 1, layers=2).digest, Watched())
        found.append(os.sched_getscheduler(0))

    found: list[int] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [movers, movers, movers, callers]


def test_what_the_watcher_raises_stops_the_copy() -> None:
    source, target = MemoryStore(), MemoryStore()
    random.image(source, 1, "v1")

    def watch(event: Event) -> None:
        if isinstance(event, Progressed):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(source, "v1", target, "v1", on_event=watch)
    assert list(target.tags()) == []


@pytest.mark.parametrize("as_config", [False, True], ids=["a layer", "the config"])
def test_a_manifest_in_a_manifest_is_copied_with_all_it_is_made_of(as_config: bool) -> None:
    """An entry with a manifest's media type is kept, and asked for, among the manifests."""
    source, target = MemoryStore(), Ordered()
    inner = random.image(source, 1, layers=2)
    config = source.add(mediatypes.OCI_CONFIG, b"{}")
    made = Manifest(config=inner if as_config else config, layers=() if as_config else (inner,))
    root = source.add(mediatypes.OCI_MANIFEST, made.encode(), "v1")
    copy(source, "v1", target, "v1")
    for node in walk(source, root):
        assert target.exists(node.descriptor)
        assert all(target.exists(child) for child in node.manifest.children())
    assert [node.descriptor for node in walk(target, root)] == [inner, root]


class Apart(MemoryStore):
    """Keeps manifests and blobs apart, and wants every layer among the blobs, as a registry may."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs: set[Digest] = set()
        self.manifests: set[Digest] = set()

    def exists(self, desc: Descriptor) -> bool:
        return desc.digest in (self.manifests if desc.is_manifest() else self.blobs)

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        if not self.exists(desc):
            raise (ManifestUnknownError if desc.is_manifest() else BlobUnknownError)(desc.digest)
        return super().fetch(desc)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        raw = content.read(-1)
        if desc.media_type == mediatypes.OCI_MANIFEST:
            for child in decode_manifest(raw).children():
                if child.digest not in self.blobs:
                    raise ManifestBlobUnknownError(child.digest)
        super().push(desc, io.BytesIO(raw), tags=tags)
        (self.manifests if desc.is_manifest() else self.blobs).add(desc.digest)


def test_a_manifest_in_a_manifest_is_a_blob_where_a_registry_says_so() -> None:
    """In a registry whatever a manifest's `layers` hold is a blob, if it asks for that."""
    source, strict, back = MemoryStore(), Apart(), MemoryStore()
    inner = random.image(source, 1)
    made = Manifest(config=source.add(mediatypes.OCI_CONFIG, b"{}"), layers=(inner,))
    source.add(mediatypes.OCI_MANIFEST, made.encode(), "v1")
    root = copy(source, "v1", strict, "v1")
    assert inner.digest in strict.blobs
    strict.manifests.remove(inner.digest)  # as a tool leaves it that knows layers only as blobs
    copy(strict, "v1", back, "v1")
    assert [node.descriptor for node in walk(back, root)] == [inner, root]


def test_a_manifest_in_a_manifest_that_is_not_there_is_named() -> None:
    source, target = MemoryStore(), MemoryStore()
    inner = random.image(source, 1)
    made = Manifest(config=source.add(mediatypes.OCI_CONFIG, b"{}"), layers=(inner,))
    source.add(mediatypes.OCI_MANIFEST, made.encode(), "v1")
    source.delete(inner)
    with pytest.raises(ManifestUnknownError, match=inner.digest):
        copy(source, "v1", target, "v1")
    assert list(target.tags()) == []


def test_manifests_that_nest_without_end_are_refused() -> None:
    store = MemoryStore()
    config = store.add(mediatypes.OCI_CONFIG, b"{}")
    desc = random.image(store, 1)
    for _ in range(20):
        raw = Manifest(config=config, layers=(desc, desc)).encode()
        desc = store.add(mediatypes.OCI_MANIFEST, raw)
    with pytest.raises(LimitExceededError, match="nest deeper"):
        copy(store, desc.digest, MemoryStore())


def test_indexes_that_nest_without_end_are_refused() -> None:
    store = MemoryStore()
    desc = store.add(mediatypes.OCI_INDEX, Index().encode())
    for _ in range(20):
        desc = store.add(mediatypes.OCI_INDEX, Index(manifests=(desc,)).encode())
    with pytest.raises(LimitExceededError):
        copy(store, desc.digest, MemoryStore())


def test_an_index_that_names_one_child_many_times_copies_it_once() -> None:
    store, target = MemoryStore(), Ordered()
    image = random.image(store, 1)
    store.add(mediatypes.OCI_INDEX, Index(manifests=(image,) * 500).encode(), "v1")
    copy(store, "v1", target, "v1")
    assert target.arrived.count(image.digest) == 1


@pytest.mark.parametrize("jobs", [0, 65])
def test_a_number_of_jobs_outside_the_range_is_wrong_usage(jobs: int) -> None:
    with pytest.raises(UsageError):
        copy(MemoryStore(), "v1", MemoryStore(), jobs=jobs)


def test_docker_media_types_are_copied_as_they_are() -> None:
    source, target = MemoryStore(), MemoryStore()
    desc = random.image(source, 1, "v1", docker=True)
    assert copy(source, "v1", target, "v1") == desc
    assert target.resolve("v1").media_type == mediatypes.DOCKER_MANIFEST


def test_an_error_is_one_of_the_tree_whatever_the_bytes() -> None:
    source = MemoryStore()
    source.add(mediatypes.OCI_MANIFEST, b"\x00not json", "v1")
    with pytest.raises(ArgosyError):
        copy(source, "v1", MemoryStore())
