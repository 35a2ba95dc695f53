"""The contract of `Target`, on every place that needs no server."""

from __future__ import annotations

import pathlib

from argosy.content.memory import MemoryStore
from argosy.content.overlay import Overlay
from argosy.content.protocols import Target
from argosy.testing.contract import TargetContract


class TestMemory(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return MemoryStore()


class TestOverlay(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return Overlay(MemoryStore(), MemoryStore())
