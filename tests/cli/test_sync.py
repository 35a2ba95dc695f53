"""`argosy sync` between places on disk: which tags it means, what it removes, what it leaves alone."""

from __future__ import annotations

import pathlib

import pytest

from argosy.layout.store import LayoutStore
from argosy.spec.digest import Digest
from argosy.testing import random
from tests.cli.conftest import Run

LIST = f"sha256-{Digest.of(b'an image').encoded}"
"""The tag of a list of referrers, as clients keep one in registries without the API for it."""


def tags(place: pathlib.Path) -> list[str]:
    return sorted(LayoutStore.open(place).tags())


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layout with images `1.0`, `1.1`, `2.0` and `latest`, and a list of referrers."""
    store = LayoutStore.create(tmp_path / "source")
    for number, tag in enumerate(("1.0", "1.1", "2.0", "latest")):
        random.image(store, number, tag)
    random.index(store, 9, LIST)
    return tmp_path / "source"


@pytest.fixture
def target(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layout with an image `mine`, and a list of referrers of its own."""
    store = LayoutStore.create(tmp_path / "target")
    random.image(store, 20, "mine")
    random.index(store, 21, LIST)
    return tmp_path / "target"


# ----------------------------------------------------------------------------------------------- lists of referrers


def test_lists_of_referrers_are_not_copied_as_tags(
    argosy: Run, source: pathlib.Path, target: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    own = LayoutStore.open(target).resolve(LIST)
    argosy("cp", "-q", "-a", "--digest-tags", f"oci:{source}", f"oci:{target}")
    argosy("restore", "-q", "-i", source, f"oci:{target}")
    assert LayoutStore.open(target).resolve(LIST) == own
    assert tags(target) == sorted(["1.0", "1.1", "2.0", "latest", "mine", LIST])
    argosy("backup", "-q", f"oci:{source}", "-o", tmp_path / "kept")
    assert LIST not in tags(tmp_path / "kept")
