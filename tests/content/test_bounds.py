"""What a run over many images keeps in memory stays bounded, and nobody waits for ever because of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.content import associated, shipping
from argosy.content import copy as copying
from argosy.content.bounds import Recent, Room
from argosy.content.copy import Copying
from argosy.content.graph import walk
from argosy.content.memory import MemoryStore
from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.content.workers import Workers
from argosy.errors import NotFoundError
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index
from argosy.testing import random

PATIENCE = 30.0
"""Seconds after which what was waited for is not coming."""
NAMES = tuple(f"v{n}" for n in range(20))


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
def test_the_newest_are_remembered_and_not_many_more(items: list[int], most: int) -> None:
    recent: Recent[int] = Recent(most)
    for number, item in enumerate(items):
        before = set(items[:number])
        new = recent.add(item)
        assert new or item in before
        newest = list(dict.fromkeys(reversed(items[: number + 1])))[:most]
        assert all(one in recent for one in newest)
        assert sum(one in recent for one in range(10)) <= 2 * most


def test_who_is_not_first_waits_where_the_room_is_full() -> None:
    room, order, waits = Room(10), [], threading.Event()
    first, second = room.enter(), room.enter()
    first.take(11, lambda: True)

    def later() -> None:
        second.take(1, lambda: waits.set() or True)  # type: ignore[func-returns-value]
        order.append("second")

    thread = threading.Thread(target=later)
    thread.start()
    assert waits.wait(PATIENCE), "it did not wait"
    order.append("first")
    first.leave()
    thread.join()
    assert order == ["first", "second"]


def test_the_first_of_the_row_never_waits_and_who_fails_leaves_it() -> None:
    room = Room(1)
    with contextlib.suppress(ValueError), room.enter() as failed:
        failed.take(5, lambda: True)
        raise ValueError
    assert (room.taken, list(room.row)) == (0, [])
    place = room.enter()
    with Workers(1, "other") as workers:
        workers.begin(lambda: place.take(100, lambda: True)).result()
    place.leave()
    place.leave()
    assert room.taken == 0


class Logged(MemoryStore):
    """Writes down which manifests are read and which are stored."""

    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        if desc.is_manifest():
            self.log.append(f"read {desc.digest}")
        return super().fetch(desc)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Iterable[str] = ()) -> None:
        super().push(desc, content, tags=tuple(tags))
        if desc.is_manifest():
            self.log.append(f"wrote {desc.digest}")


class Registry(Logged):
    """Keeps no order, as a registry does."""

    unordered = True


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of runs in which there is room for no more than the first image."""
    monkeypatch.setattr(copying, "_ROOM", 1)
    return []


def filled(log: list[str]) -> Logged:
    source = Logged(log)
    for number, name in enumerate(NAMES):
        random.image(source, number, name, layers=2)
    log.clear()
    return source


@pytest.mark.parametrize("kind", [Logged, Registry])
def test_images_for_which_there_is_no_room_wait_for_those_before(
    kind: type[Logged], log: list[str]
) -> None:
    source, target = filled(log), kind(log)
    with Copying(source, target) as run:
        for _, copied in run.each(NAMES, lambda tag: (tag, (tag,))):
            copied()
    wanted = [source.resolve(name).digest for name in NAMES]
    assert log == [f"{word} {digest}" for digest in wanted for word in ("read", "wrote")]


@pytest.mark.parametrize("kind", [Logged, Registry])
def test_where_no_thread_can_be_had_nobody_waits_for_room(
    kind: type[Logged], log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source, target = filled(log), kind(log)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Copying(source, target) as run:
        for _, copied in run.each(NAMES, lambda tag: (tag, (tag,))):
            copied()
    assert sorted(target.tags()) == sorted(NAMES)


@pytest.mark.parametrize("failure", [None, KeyboardInterrupt])
def test_a_run_that_is_left_waits_for_no_room(
    failure: type[BaseException] | None, log: list[str]
) -> None:
    source, target = filled(log), Logged(log)
    with contextlib.suppress(KeyboardInterrupt), Copying(source, target) as run:
        for _ in run.each(NAMES, lambda tag: (tag, (tag,))):
            if failure:
                raise failure
            break
    assert list(target.tags()) == []


def test_items_of_which_nothing_is_wanted_or_that_fail_leave_the_row(log: list[str]) -> None:
    source, target = filled(log), Logged(log)

    def wanted(tag: str) -> tuple[str, tuple[str, ...]] | None:
        return {"v3": None, "v5": ("missing", ())}.get(tag, (tag, (tag,)))

    with Copying(source, target) as run:
        for _, copied in run.each(NAMES, wanted):
            with contextlib.suppress(NotFoundError):
                copied()
    assert sorted(target.tags()) == sorted(set(NAMES) - {"v3", "v5"})


class Referred(Logged):
    """Writes down which referrers are listed; each image has three."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(log)
        self.roots = [random.image(self, number, name) for number, name in enumerate(NAMES)]
        self.theirs = [
            [random.artifact(self, 10 * number + n, subject=root) for n in range(3)]
            for number, root in enumerate(self.roots)
        ]
        log.clear()

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        for entry in super().referrers(subject, artifact_type):
            self.log.append(f"listed {entry.digest}")
            yield entry


@pytest.mark.parametrize("few", [2, 3, 4])
@pytest.mark.parametrize("kind", [Logged, Registry])
def test_all_that_refers_is_copied_however_long_the_list_is(
    kind: type[Logged], few: int, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(associated, "_FEW", few)
    source, target = Referred(log), kind(log)
    with Copying(source, target, referrers=True) as run:
        for _, copied in run.each(NAMES, lambda tag: (tag, (tag,))):
            copied()
    assert all(target.exists(entry) for entries in source.theirs for entry in entries)


def test_of_a_long_list_the_rest_is_read_when_its_image_is_the_first(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(associated, "_FEW", 2)
    source, target = Referred(log), Logged(log)
    with Copying(source, target, referrers=True) as run:
        for _, copied in run.each(NAMES, lambda tag: (tag, (tag,))):
            copied()
    for root, entries in zip(source.roots, source.theirs[1:], strict=False):
        assert log.index(f"wrote {root.digest}") < log.index(f"listed {entries[-1].digest}")


def test_what_is_remembered_of_a_targets_lists_has_a_bound(
    log: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_MOST_LISTED", 8)
    target = Referred(log)
    present = shipping.Present(target, Recent())
    for root, entries in zip(target.roots, target.theirs, strict=True):
        for entry in entries:
            assert present.has(entry, Index(subject=root))
        log.clear()
        assert present.has(entries[0], Index(subject=root))
        assert log == []
    assert present.has(target.theirs[0][0], Index(subject=target.roots[0]))
    assert len(log) == 3


def test_a_large_manifest_is_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    source = Logged(log)
    root = random.index(source, 1, "index", platforms=[f"linux/{n}" for n in range(20)])
    log.clear()
    monkeypatch.setattr("argosy.content.graph._AHEAD_SIZE", 10)
    with Workers(4, "reader") as workers:
        for number, _ in enumerate(walk(source, root, workers=workers)):
            assert len(log) <= 2 + number
