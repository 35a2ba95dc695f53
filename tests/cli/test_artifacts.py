"""`argosy artifact` and `argosy discover`."""

from __future__ import annotations

import json
import pathlib

import pytest

from argosy import Descriptor
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
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


def test_quiet_says_nothing_of_files(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = argosy("artifact", "pull", "-q", f"oci:{layout}:v1", "-o", tmp_path / "out")
    assert done.err == ""
    assert done.out.startswith("sha256:")


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


def test_a_file_says_the_annotations_of_manifest_config_and_files(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "b.txt"):
        pathlib.Path(name).write_text(name)
    title = "org.opencontainers.image.title"
    notes = {
        "$manifest": {"m": "1"},
        "$config": {"c": "2"},
        "./a.txt": {"dotted": "3"},
        "a.txt": {"plain": "4"},
        "b.txt": {title: "docs/b", "é": "5"},
        "another": {"x": "y"},
    }
    pathlib.Path("notes.json").write_text(json.dumps(notes))
    given = ("--annotation-file", "notes.json", "./a.txt", "b.txt:text/plain")
    for line in (
        ("artifact", "push", f"oci:{layout}:new"),
        ("attach", f"oci:{layout}:v1", "--artifact-type", "a/b"),
    ):
        digest = argosy(*line, *given).out.strip()
        made = json.loads(argosy("manifest", "get", f"oci:{layout}@{digest}").out)
        assert made["annotations"] == {"m": "1"}
        assert made["config"]["annotations"] == {"c": "2"}
        assert [layer["annotations"] for layer in made["layers"]] == [
            {title: "a.txt", "dotted": "3"},
            {title: "docs/b", "é": "5"},
        ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not JSON at byte 0"),
        ("[]", "expected a JSON object, got an array"),
        ('{"a": "b"}', "a: expected an object, got a string"),
        ('{"$manifest": {"a": 1}}', r"$manifest.a: expected a string, got a number"),
        ('{"file": {"org.opencontainers.image.title": "../up"}}', "'../up' cannot be the name"),
    ],
)
def test_a_file_that_holds_no_annotations_is_one_line(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("file").touch()
    pathlib.Path("notes").write_text(text)
    line = ("artifact", "push", "oci:new:v1", "file", "--annotation-file", "notes")
    assert told in argosy(*line, code=64 if "up" in text else 1).err
    assert "exclude each other" in argosy(*line, "-a", "b=c", code=64).err
    assert not pathlib.Path("new").exists()


def test_what_refers_to_an_image_is_shown_though_it_is_not_there(
    argosy: Run, layout: pathlib.Path
) -> None:
    gone = Descriptor.of(mediatypes.OCI_MANIFEST, b"gone")
    with LayoutStore.open(str(layout)) as store:
        left = random.artifact(store, 4, subject=gone)
    place = f"oci:{layout}@{gone.digest}"
    shown = argosy("discover", "--json", place).json
    assert [entry["digest"] for entry in shown.pop("referrers")] == [left.digest]
    assert shown == {"digest": gone.digest, "reference": place}
    assert argosy("discover", place).out.startswith(f"{place}\n└── ")
    argosy("discover", "--platform", "linux/amd64", place, code=2)
    argosy("discover", f"oci:{layout}@sha256:{'0' * 64}", code=2)


@pytest.mark.parametrize("words", [["-"], ["--", "-:text/plain"], ["a", "--config", "-"]])
def test_stdin_has_no_name_for_an_artifact(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("a")
    assert "stdin has no name" in argosy("artifact", "push", "oci:x:v1", *words, code=64).err
    (tmp_path / "-").write_text("b")
    argosy("artifact", "push", "-q", "oci:x:v1", "./-")


def test_the_only_file_of_an_artifact_is_printed(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("a", "b", "folder/c"):
        (tmp_path / name).write_text(f"{name}!")
    digest = argosy("artifact", "push", "-q", "oci:x:one", "a").out
    argosy("artifact", "push", "-q", "oci:x:two", "a", "b")
    argosy("artifact", "push", "-q", "oci:x:folder", "folder")
    done = argosy("artifact", "pull", "oci:x:one", "-o", "-")
    assert (done.out, done.err) == ("a!", digest)
    assert argosy("artifact", "pull", "-q", "oci:x:one", "-o", "-").err == ""
    for tag, what in {"two": "2 files", "folder": "a directory"}.items():
        done = argosy("artifact", "pull", f"oci:x:{tag}", "-o", "-", code=64)
        assert (done.out, f"has {what}" in done.err) == ("", True)
    assert not (tmp_path / "-").exists()


def test_a_type_that_is_none_is_wrong_usage(argosy: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_text("a")
    place = f"oci:{tmp_path}/x:v1"
    for words in (["--artifact-type", "bad"], [f"{tmp_path}/a:b d/c", "--disable-path-validation"]):
        argosy("artifact", "push", "-q", place, *words, code=64)
    assert not (tmp_path / "x").exists()


def test_what_needs_an_image_says_that_it_has_an_artifact(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_text("no archive")
    (tmp_path / "card.md").write_text("# A model")
    argosy("artifact", "push", "-q", "oci:models:v1", "model.bin", "card.md")
    for looked in (("fs", "ls"), ("size",), ("export",), ("diff", "oci:models:v1")):
        assert "hint: this is an artifact" in argosy(*looked, "oci:models:v1", code=1).err
    for changed in ("flatten", "reproducible"):
        told = argosy(changed, "oci:models:v1", "-t", "v2", code=1).err
        assert "this is an artifact, not an image" in told
