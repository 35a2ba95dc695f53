"""Commands that look at what only a mirror can be asked for."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from argosy.image.view import Image
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


@pytest.fixture
def behind(mirror: Repository, tmp_path: pathlib.Path) -> Repository:
    """`app` with an image `v1`, in a registry whose mirror has an older one, and a `v2`."""
    registry = mirror.registry
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry}"\n[[registry.mirror]]\nlocation = "{registry}/mirrored"\n'
    )
    random.image(mirror, 2, "v1", "v2")
    made = registry.repository("app")
    random.image(made, 3, "v1")
    return made


def test_an_image_is_changed_in_place_as_its_registry_has_it(
    argosy: Run, behind: Repository
) -> None:
    new = Image.open(behind, "v1")
    argosy("mutate", "-q", "-l", "a=b", f"{behind}:v1")
    changed = Image.open(behind, "v1")
    assert changed.config.execution.labels["a"] == "b"
    assert [x.diff_id for x in changed.layers] == [x.diff_id for x in new.layers]


def test_what_is_attached_refers_to_what_the_registry_has(
    argosy: Run, behind: Repository, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").write_text("n")
    argosy("attach", "-q", f"{behind}:v1", "--artifact-type", "application/x.n", "note")
    assert len(list(behind.referrers(behind.resolve("v1")))) == 1


def test_what_is_written_to_is_asked_itself_and_not_its_mirror(
    argosy: Run, behind: Repository, layout: pathlib.Path
) -> None:
    """Else an old mirror would say that nothing is to do."""
    registry = behind.registry
    argosy("cp", "-q", "--no-clobber", f"oci:{layout}:v1", f"{registry}/app:v2")
    with LayoutStore.open(str(layout)) as store:
        wanted = store.resolve("v1")
        assert registry.repository("app").resolve("v2").digest == wanted.digest
