"""Commands that look at what only a mirror can be asked for."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from argosy.layout.store import LayoutStore
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from argosy.testing import random
from tests.cli.conftest import Run
from tests.interop.registries import running

GONE = "localhost:9/app"
"""A repository whose registry cannot be reached."""


@pytest.fixture
def mirror(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The only place that answers for `GONE`, with an index `v1`."""
    rules = tmp_path / "registries.conf"
    with running("argosy", tmp_path / "registry") as real, Registry(real.name) as registry:
        repository = registry.repository("mirrored/app")
        random.index(repository, 1, "v1")
        rules.write_text(
            f'[[registry]]\nlocation = "localhost:9"\n[[registry.mirror]]\nlocation = "{real.name}/mirrored"\n'
        )
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(rules))
        yield repository


def test_an_index_is_shown_where_its_registry_cannot_be_reached(
    argosy: Run, mirror: Repository
) -> None:
    shown = argosy("inspect", "--json", "--retry", "0", f"{GONE}:v1").json
    assert [entry["Platform"] for entry in shown["Manifests"]] == ["linux/amd64", "linux/arm64"]


def test_layers_are_there_where_only_a_mirror_has_them(argosy: Run, mirror: Repository) -> None:
    argosy("validate", "--fast", "--retry", "0", f"{GONE}:v1")
    drawn = argosy("graph", "--json", "--no-referrers", "--retry", "0", f"{GONE}:v1").json
    assert not [v for v in drawn["vertices"] if v["kind"] == "missing"]


def test_what_is_written_to_is_asked_itself_and_not_its_mirror(
    argosy: Run, mirror: Repository, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Else an old mirror would say that nothing is to do."""
    registry = mirror.registry
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry}"\n[[registry.mirror]]\nlocation = "{registry}/mirrored"\n'
    )
    argosy("cp", "-q", "--no-clobber", f"oci:{layout}:v1", f"{registry}/app:v1")
    with LayoutStore.open(str(layout)) as store:
        wanted = store.resolve("v1")
        assert registry.repository("app").resolve("v1").digest == wanted.digest
