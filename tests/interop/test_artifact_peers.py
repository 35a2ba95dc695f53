"""Artifacts that argosy makes, oras reads; and what oras makes, argosy reads."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from argosy.content.copy import copy
from argosy.image.deliver import deliver
from argosy.image.pack import File, pack
from argosy.image.view import Image, ImageIndex, view
from argosy.layout.store import LayoutStore
from argosy.spec.platform import Platform
from tests.cli.conftest import Run, argosy

__all__ = ["argosy"]

Peer = Callable[[str], str]

pytestmark = pytest.mark.peer


def run(*argv: str | pathlib.Path) -> None:
    done = subprocess.run(argv, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def test_oras_pulls_what_is_packed_and_the_reverse(
    tmp_path: pathlib.Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    oras = peer("oras")
    (tmp_path / "work/docs/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "work/docs/sub/b").write_text("b" * 5000)
    (tmp_path / "work/docs/c").hardlink_to(tmp_path / "work/docs/sub/b")
    (tmp_path / "work/a.txt").write_text("a")
    with LayoutStore.create(str(tmp_path / "layout")) as place:
        made = pack(
            place,
            [File(path="docs"), File(path="a.txt", media_type="text/plain")],
            artifact_type="application/x.y",
        )
        copy(made.source, str(made.digest), place, "ours")
    monkeypatch.chdir(tmp_path)
    run(oras, "pull", "--oci-layout", f"{tmp_path / 'layout'}:ours", "-o", tmp_path / "theirs")
    monkeypatch.chdir(tmp_path / "work")
    run(
        oras, "push", "--oci-layout", f"{tmp_path / 'layout'}:theirs", "--artifact-type", "application/x.y", "docs",
        "a.txt:text/plain",
    )  # fmt: skip
    (tmp_path / "ours").mkdir()
    with LayoutStore.open(str(tmp_path / "layout")) as place:
        image = Image.open(place, "theirs")
        assert [d.outcome for d in deliver(image, str(tmp_path / "ours"))] == ["written"] * 2
        assert image.manifest.artifact_type == "application/x.y"
    for name in ("ours", "theirs"):
        assert (tmp_path / name / "docs/sub/b").read_text() == "b" * 5000
        assert (tmp_path / name / "docs/c").read_text() == "b" * 5000
        assert (tmp_path / name / "a.txt").read_text() == "a"


def test_a_file_of_annotations_means_what_it_means_to_oras(
    tmp_path: pathlib.Path, argosy: Run, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for name in ("a.txt", "b.txt", "c", "d/e"):
        (tmp_path / name).write_text(name)
    created = {"org.opencontainers.image.created": "2020-01-01T00:00:00Z"}
    notes = {
        "$manifest": {"m": "1", **created},
        "$config": {"n": "2"},
        "a.txt": {"not": "as it is named"},
        "./a.txt": {"k": "v"},
        "b.txt": {"org.opencontainers.image.title": "other"},
        "c:a/b": {"not": "with its type"},
        "c": {"t": "typed"},
        "d": {"dir": "1"},
        "nothing": {"x": "y"},
    }
    (tmp_path / "notes.json").write_text(json.dumps(notes))
    given = ("--annotation-file", "notes.json", "./a.txt", "b.txt", "c:a/b", "d")
    run(peer("oras"), "push", "--oci-layout", "theirs:v1", *given)
    argosy("artifact", "push", "oci:ours:v1", *given)
    ours, theirs = (argosy("manifest", "get", f"oci:{name}:v1").json for name in ("ours", "theirs"))
    for made in (ours, theirs):
        made["config"].pop("data", None)
        for key in ("digest", "size"):  # the tar of a directory has times in it
            made["layers"][3].pop(key)
        made["layers"][3]["annotations"].pop("io.deis.oras.content.digest")
    assert ours == theirs


def test_an_index_of_artifacts_that_oras_made_is_delivered(
    tmp_path: pathlib.Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    oras = peer("oras")
    monkeypatch.chdir(tmp_path)
    for cpu in ("amd64", "arm64"):
        (tmp_path / cpu).write_text(cpu)
        run(oras, "push", "--oci-layout", f"l:{cpu}", "--artifact-platform", f"linux/{cpu}", cpu)
    run(oras, "manifest", "index", "create", "--oci-layout", "l:all", "amd64", "arm64")
    with LayoutStore.open("l") as place:
        index = view(place, "all")
        assert isinstance(index, ImageIndex)
        for name in ("all", "one"):
            (tmp_path / name).mkdir()
        deliver(index, str(tmp_path / "all"))
        assert sorted(os.listdir(tmp_path / "all")) == ["amd64", "arm64"]
        deliver(index.select(Platform.parse("linux/arm64")), str(tmp_path / "one"))
        assert os.listdir(tmp_path / "one") == ["arm64"]
