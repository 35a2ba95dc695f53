"""The threads of a copy, where they cannot begin."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import pytest

from argosy.content.copy import Copying, copy
from argosy.content.graph import walk
from argosy.content.memory import MemoryStore
from argosy.content.verify import VerifyingReader
from argosy.content.workers import Turns, Workers
from argosy.errors import BlobUnknownError
from argosy.spec.descriptor import Descriptor
from argosy.testing import random

PATIENCE = 30.0
"""Seconds after which what was waited for is not coming."""


def test_an_interrupt_while_a_thread_is_started_is_the_interrupt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    source, target = MemoryStore(), MemoryStore()
    image = random.image(source, 1, "v1")
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        copy(source, "v1", target)
    assert not target.exists(image)


@pytest.mark.parametrize("most", [0, 1])
def test_where_no_thread_may_be_had_those_there_are_do_the_work(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def refused(thread: threading.Thread) -> None:
        if len(started) >= most:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    source, target = MemoryStore(), MemoryStore()
    index = random.index(source, 1, "v1")
    random.image(source, 2, "v2")
    monkeypatch.setattr(threading.Thread, "start", refused)
    with Copying(source, target) as run:
        for _, copied in run.each(["v1", "v2"], lambda tag: (tag, (tag,))):
            copied()
    assert len(started) == most
    assert target.resolve("v1") == index
    assert sorted(target.tags()) == ["v1", "v2"]


def test_a_failure_is_the_same_where_no_thread_may_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    source, target = MemoryStore(), MemoryStore()
    image = random.image(source, 1, "v1")
    (node,) = walk(source, image)
    source.delete(node.manifest.children()[1])
    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(BlobUnknownError):
        copy(source, "v1", target, "v1")
    assert not list(target.tags())


def test_a_second_interrupt_leaves_no_thread_that_waits_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, gate, join = threading.Event(), threading.Event(), threading.Thread.join
    interrupted: list[threading.Thread] = []
    others = set(threading.enumerate())

    class Slow(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            if desc == second:
                asked.set()
                assert gate.wait(PATIENCE), "waited in vain"
            return super().fetch(desc)

    def interrupt(thread: threading.Thread, timeout: float | None = None) -> None:
        if not interrupted:
            interrupted.append(thread)
            raise KeyboardInterrupt
        gate.set()
        join(thread, timeout)

    source, target = Slow(), MemoryStore()
    random.image(source, 1, "v1")
    second = random.image(source, 2, "v2")
    monkeypatch.setattr(threading.Thread, "join", interrupt)

    def run() -> None:
        with Copying(source, target) as copying:
            for _, copied in copying.each(["v1", "v2"], lambda tag: (tag, (tag,))):
                copied()
                assert asked.wait(PATIENCE), "waited in vain"
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    gate.set()
    for thread in set(threading.enumerate()) - others:
        if thread.name.startswith("argosy-"):
            join(thread, PATIENCE)
            assert not thread.is_alive(), f"{thread.name} does not end"
    assert interrupted
    assert list(target.tags()) == ["v1"]


def test_who_asks_for_a_thread_that_cannot_be_had_does_the_work_while_others_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, done = threading.Thread.start, list[int]()

    def also() -> None:
        task = workers.begin(lambda: done.append(2))
        begun.set()
        task.result()

    other, begun = threading.Thread(target=also, daemon=True), threading.Event()

    def refused(thread: threading.Thread) -> None:
        if thread.name == "example":
            start(other)
            begun.wait(0.1)  # it must not come meanwhile
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    with Workers(1, "example") as workers:
        workers.begin(lambda: done.append(1)).result()
        other.join(PATIENCE)
    assert sorted(done) == [1, 2]


def test_a_failure_that_waits_to_be_asked_for_holds_nothing_that_was_at_hand() -> None:
    class Large:
        pass

    held: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise ValueError("no")

    with Workers(1, "example") as workers:
        task = workers.begin(work)
    assert held[0]() is None
    with pytest.raises(ValueError, match="no") as caught:
        task.result()
    assert caught.traceback[-1].name == "work"


def test_a_turn_for_which_somebody_waits_is_not_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, spare = Turns(1), []

    def waits(ready: Callable[[], object]) -> bool:
        while not ready():
            turns.give_back()
            spare.append(turns.spare())
        return True

    monkeypatch.setattr(turns._changed, "wait_for", waits)
    assert turns.spare()
    with turns:
        assert spare == [False]
    assert turns.spare()
