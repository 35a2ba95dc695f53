"""The threads of a copy, where they cannot begin."""

from __future__ import annotations

import threading

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
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
