"""The scripted registry, and clients for it that do not wait long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.remote.config import Options
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from tests.wire.scripted import Scripted


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def another() -> Iterator[Scripted]:
    """A second host (another port is another origin)."""
    server = Scripted()
    yield server
    server.close()


@pytest.fixture
def client(scripted: Scripted) -> Iterator[Callable[..., Repository]]:
    """`client(**options)`: the repository `app` of the scripted registry."""
    made: list[Registry] = []

    def make(**options: Any) -> Repository:
        settings = {"retry_delay": 0.001, "timeout": 0.5, "attempts": 4, **options}
        made.append(Registry(scripted.name, Options(**settings)))
        return made[-1].repository("app")

    yield make
    for registry in made:
        registry.close()
