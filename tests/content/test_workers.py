"""The threads of a copy, where they cannot begin."""

from __future__ import annotations

import threading

import pytest

from argosy.content.copy import Copying, copy
from argosy.content.graph import walk
from argosy.content.memory import MemoryStore
from argosy.errors import BlobUnknownError
from argosy.testing import random


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
