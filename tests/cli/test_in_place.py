"""What becomes of a tag when its image is changed and nobody said where the new one goes."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.cli import making
from argosy.image.view import ImageIndex, view
from argosy.layout.store import LayoutStore
from argosy.remote.registry import Registry
from argosy.spec.annotations import BASE_DIGEST
from argosy.testing import random
from tests.cli.conftest import Run
from tests.interop.registries import running


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Iterator[str]:
    """A repository with the image `v1`."""
    with (
        running("argosy", tmp_path) as real,
        Registry(real.name) as registry,
    ):
        random.image(registry.repository("app"), 1, "v1")
        yield f"{real.name}/app"


def test_the_tag_of_a_changed_image_moves_in_a_registry_too(argosy: Run, repository: str) -> None:
    place = f"{repository}:v1"
    for words in (
        ["mutate", place, "-e", "A=b"],
        ["flatten", place],
        ["recompress", place, "--compress", "zstd"],
    ):
        out = argosy(*words, "-q").out.strip()
        assert out == f"{repository}@{argosy('digest', place).out.strip()}"
    assert argosy("config", place).json["config"]["Env"][-1] == "A=b"


def test_what_was_named_by_its_digest_is_printed_without_a_tag(
    argosy: Run, repository: str
) -> None:
    old = argosy("digest", f"{repository}:v1").out.strip()
    out = argosy("mutate", f"{repository}:v1@{old}", "-e", "A=b", "-q").out.strip()
    assert out.startswith(f"{repository}@sha256:")
    assert argosy("config", out).json["config"]["Env"][-1] == "A=b"
    assert argosy("digest", f"{repository}:v1").out.strip() == old


def test_a_base_is_not_changed(argosy: Run, layout: pathlib.Path, repository: str) -> None:
    (layer := layout / "layer.tar").write_bytes(random.layer_tar(9))
    for place in (f"oci:{layout}:v1", f"{repository}:v1"):
        old = argosy("digest", place).out
        assert "-t PLACE" in argosy("append", "-b", place, "-f", layer, code=64).err
        assert argosy("digest", place).out == old


def test_every_image_of_an_index_is_rebased_on_the_base_for_its_platform(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_text("mine")
    place = f"oci:{layout}"
    other = LayoutStore.create(str(tmp_path / "other"))
    random.index(other, 7, "base")
    argosy("insert", "-q", f"{place}:multi", tmp_path / "file", "/file", "-t", "app")
    argosy(
        "rebase", "-q", f"{place}:app",
        "--old_base", f"{place}:multi", "--new_base", f"oci:{tmp_path / 'other'}:base",
    )  # fmt: skip
    argosy("validate", f"{place}:app")
    made, base = view(LayoutStore.open(str(layout)), "app"), view(other, "base")
    assert isinstance(made, ImageIndex)
    assert isinstance(base, ImageIndex)
    assert len(made.manifests) == len(base.manifests) > 1
    for entry in made.manifests:
        assert entry.platform is not None
        image, below = made.select(entry.platform), base.select(entry.platform)
        assert image.config.rootfs.diff_ids[:-1] == below.config.rootfs.diff_ids
        assert image.manifest.annotations[BASE_DIGEST] == below.digest


def test_one_image_of_an_index_never_takes_its_place(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"oci:{layout}:multi"
    old = argosy("digest", place).out
    argosy("unpack", "-q", place, tmp_path / "bundle")
    (tmp_path / "bundle/rootfs/new").touch()
    for words in (
        ["repack", place, tmp_path / "bundle"],
        ["mutate", place, "--platform", "linux/amd64", "-u", "x"],
    ):
        told = argosy(*words, "-q", code=64).err
        assert "is an index, whose other images would be lost" in told
        assert argosy("digest", place).out == old
        argosy(*words, "-q", "-t", "one")
        assert argosy("inspect", f"oci:{layout}:one", "--json").json["Architecture"] == "amd64"


def test_an_editor_is_not_opened_for_what_cannot_be_written(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (editor := tmp_path / "editor").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    argosy("cp", "-q", f"oci:{layout}:v1", f"oci-archive:{tmp_path}/a.tar:v1")
    for words in (
        ["config", f"oci:{layout}:multi"],
        ["config", f"oci-archive:{tmp_path}/a.tar"],
        ["manifest", f"oci:{layout}:v1", "-t", "oci:there:@3"],
    ):
        argosy("edit", *words, "-q", code=64)
        assert not (tmp_path / "ran").exists()
    argosy("edit", "config", f"oci:{layout}:multi", "-q", "-t", "one")
    assert (tmp_path / "ran").exists()


def test_changes_of_one_tag_by_several_processes_are_all_kept(
    argosy: Run, layout: pathlib.Path
) -> None:
    place, numbers = f"oci:{layout}:v1", range(8)
    more = LayoutStore.open(str(layout))
    for n in numbers:
        random.image(more, n + 10, f"more{n}")
    before = len(argosy("manifest", "get", f"oci:{layout}:multi").json["manifests"])
    lines = [
        *(["mutate", place, "-l", f"k{n}=v"] for n in numbers),
        *(["index", "add", f"oci:{layout}:multi", f"oci:{layout}:more{n}"] for n in numbers),
    ]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "argosy", *line, "-q"],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for line in lines
    ]
    assert [process.wait() for process in running] == [0] * len(lines)
    assert len(argosy("config", place).json["config"]["Labels"]) == len(numbers)
    after = argosy("manifest", "get", f"oci:{layout}:multi").json["manifests"]
    assert len(after) == before + len(numbers)


def first_of(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], room: Any) -> None:
    """Have somebody else act when a command has read the image it changes, once."""
    add, todo = room.put, [act]

    def put(*args: Any) -> object:
        while todo:
            todo.pop()()
        return add(*args)

    monkeypatch.setattr(room, "put", put)


@pytest.mark.parametrize("kind", ["argosy", "registry", "docker-registry"])
def test_what_another_made_of_a_registrys_tag_meanwhile_is_not_lost(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with running(kind, tmp_path / kind) as real, Registry(real.name) as registry:
        app = registry.repository("app")
        random.index(app, 1, "multi")
        mine, theirs = random.image(app, 2, "mine"), random.image(app, 3, "theirs")
        place = f"{real.name}/app"

        def other() -> None:
            argosy("index", "add", f"{place}:multi", f"{place}:theirs", "-q")

        first_of(monkeypatch, other, making)
        told = argosy("index", "add", f"{place}:multi", f"{place}:mine", "-q").err
        assert "app:multi was changed meanwhile" in told
        entries = argosy("manifest", "get", f"{place}:multi").json["manifests"]
        assert [entry["digest"] for entry in entries[-2:]] == [theirs.digest, mine.digest]


def test_what_cannot_be_done_again_leaves_a_tag_that_another_moved(
    argosy: Run, repository: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{repository}:v1"
    (editor := tmp_path / "editor").write_text('#!/bin/sh\nsed -i s/amd64/arm64/ "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    first_of(monkeypatch, lambda: argosy("mutate", place, "-l", "theirs=1", "-q"), making)
    told = argosy("edit", "config", place, "-q", code=1).err
    assert "app:v1 was changed meanwhile: it names sha256:" in told
    kept = re.search(r"kept in (\S+)", told)
    assert kept
    shutil.rmtree(pathlib.Path(kept[1]).parent)
    config = argosy("config", place).json
    assert (config["architecture"], config["config"]["Labels"]) == ("amd64", {"theirs": "1"})


def test_a_tag_that_was_taken_away_meanwhile_does_not_come_back(
    argosy: Run, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{repository}:v1"
    first_of(monkeypatch, lambda: argosy("rm", place), making)
    told = argosy("flatten", place, "-q", code=1).err
    assert "app:v1 was changed meanwhile: it names nothing now" in told
    assert "v1" not in argosy("ls", repository).out.split()


def test_changes_of_one_tag_of_our_registry_by_several_processes_are_all_kept(
    argosy: Run, repository: str
) -> None:
    numbers = range(6)
    lines = [["mutate", f"{repository}:v1", "-l", f"k{n}=v", "-q"] for n in numbers]
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "argosy", *line],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for line in lines
    ]
    assert [process.wait() for process in running] == [0] * len(lines)
    labels = argosy("config", f"{repository}:v1").json["config"]["Labels"]
    assert labels == {f"k{n}": "v" for n in numbers}
