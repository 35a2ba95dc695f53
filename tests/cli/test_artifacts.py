"""`argosy artifact` and `argosy discover`."""

from __future__ import annotations

import pathlib

import pytest

from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.cli.conftest import Run


def test_only_artifacts_of_the_type_are_shown_at_every_depth(
    argosy: Run, layout: pathlib.Path
) -> None:
    with LayoutStore.open(str(layout)) as store:
        image = store.resolve("v1")
        wanted = random.artifact(store, 4, subject=image, kind="application/x.sbom")
        random.artifact(store, 5, subject=wanted)
        inner = random.artifact(store, 6, subject=wanted, kind="application/x.sbom")
    words = ("discover", "--json", f"oci:{layout}:v1")
    assert len(argosy(*words).json["referrers"]) == 2
    (found,) = argosy(*words, "--artifact-type", "application/x.sbom").json["referrers"]
    assert found["digest"] == wanted.digest
    assert [entry["digest"] for entry in found["referrers"]] == [inner.digest]
    assert argosy("digest", found["referrers"][0]["reference"]).out == f"{inner.digest}\n"


def test_a_layer_that_is_left_out_is_told_with_the_reason(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    told = argosy("artifact", "pull", f"oci:{layout}:v1", "-o", tmp_path / "out").err.splitlines()
    assert told
    assert all(line.startswith("skipped sha256:") for line in told)
    assert all(line.endswith(": it has no name") for line in told)


def test_an_annotation_that_comes_twice_is_refused(argosy: Run, tmp_path: pathlib.Path) -> None:
    place = f"oci:{tmp_path}/a:v1"
    words = ("artifact", "push", "-q", place, "-a", "k=1", "-a", "k=2")
    assert "'k' comes twice" in argosy(*words, code=64).err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_an_error_where_old_files_are_kept(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).write_text("new")
    argosy("artifact", "push", "-q", "oci:l:v1", "a", "b")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b").write_text("old")
    assert (
        "out/b: is there already"
        in argosy("artifact", "pull", "oci:l:v1", "-k", "-o", "out", code=1).err
    )
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]
    argosy("artifact", "pull", "oci:l:v1", "-o", "out")
    assert (tmp_path / "out/b").read_text() == "new"


def test_a_directory_made_for_files_that_never_came_is_removed_again(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    argosy("artifact", "pull", f"oci:{tmp_path}/none:v1", "-o", tmp_path / "out", code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["/etc/hostname", "../a", "a/../../b"])
def test_a_file_whose_name_would_leave_the_artifact_is_told_what_names_are_right(
    argosy: Run, tmp_path: pathlib.Path, name: str
) -> None:
    told = argosy("artifact", "push", f"oci:{tmp_path}/a:v1", name, code=64).err
    assert "expected a relative path without '..'" in told
    assert "change to the directory the file is in" in told
    assert list(tmp_path.iterdir()) == []
