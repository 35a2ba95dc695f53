"""Commands that look at what only a mirror can be asked for."""

from __future__ import annotations

import pathlib

import pytest

from argosy.remote.registry import Registry
from argosy.testing import random
from tests.cli.conftest import Run
from tests.interop.registries import running


def test_an_index_is_shown_where_its_registry_cannot_be_reached(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "registries.conf"
    with running("argosy", tmp_path / "registry") as real:
        with Registry(real.name) as registry:
            random.index(registry.repository("mirrored/app"), 1, "v1")
        rules.write_text(
            f'[[registry]]\nlocation = "localhost:9"\n[[registry.mirror]]\nlocation = "{real.name}/mirrored"\n'
        )
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(rules))
        shown = argosy("inspect", "--json", "--retry", "0", "localhost:9/app:v1").json
    assert [entry["Platform"] for entry in shown["Manifests"]] == ["linux/amd64", "linux/arm64"]
