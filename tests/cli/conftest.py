"""Running a command line in this process."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from argosy.cli.main import call
from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.server.receivers import receiver

__all__ = ["receiver"]


class Done(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def argosy(capfd: pytest.CaptureFixture[str]) -> Run:
    """`argosy("cp", a, b)` runs a command; `code=` is the exit code it must have."""

    def run(*argv: object, code: int = 0) -> Done:
        capfd.readouterr()
        got = call([str(word) for word in argv])
        out, err = capfd.readouterr()
        assert got == code, f"{argv} exited with {got}\n{out}{err}"
        assert "Traceback" not in err
        return Done(got, out, err)

    return run


@pytest.fixture
def layout(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layout with an image `v1`, an index `multi`, and an artifact that refers to the image."""
    store = LayoutStore.create(str(tmp_path / "layout"))
    image = random.image(store, 1, "v1")
    random.index(store, 2, "multi")
    random.artifact(store, 3, subject=image)
    return tmp_path / "layout"
