"""What images of a docker archive are called by the commands that give tags: whole names, which `docker load` reads."""

from __future__ import annotations

import json
import pathlib
import subprocess
import tarfile
from collections.abc import Callable, Iterator

import pytest

from argosy.remote.registry import Registry
from argosy.testing import random
from tests.cli.conftest import Run
from tests.interop.registries import running


def names(path: pathlib.Path) -> list[str]:
    """All names that `docker load` finds in an archive."""
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        found = (name for item in json.load(file) for name in item["RepoTags"] or ())
        return sorted(name.removeprefix("docker.io/library/") for name in found)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A repository with the tags `1.0.0` and `1.1.0`."""
    with (
        running("argosy", tmp_path_factory.mktemp("registry")) as real,
        Registry(real.name) as registry,
    ):
        place = registry.repository("app/multi")
        random.image(place, 1, "1.0.0")
        random.image(place, 2, "1.1.0")
        yield f"{real.name}/app/multi"


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        ("v2", "app:v2"),
        ("app:v2", "app:v2"),
        ("other:v2", "other:v2"),
        ("x.test:5000/a/b:v2", "x.test:5000/a/b:v2"),
    ],
)
def test_a_bare_tag_is_one_of_the_name_the_archive_has(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, tag: str, name: str
) -> None:
    path = tmp_path / "d.tar"
    argosy("cp", "-q", f"oci:{layout}:v1", f"docker-archive:{path}:app:v1", "-t", tag)
    assert names(path) == sorted(["app:v1", name])
    argosy("tag", f"docker-archive:{path}:app:v1", tag.replace("v2", "v3"))
    assert names(path) == sorted(["app:v1", name, name.replace("v2", "v3")])


def test_the_only_image_of_an_archive_gives_its_name(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "d.tar"
    argosy("cp", "-q", f"oci:{layout}:v1", f"docker-archive:{path}:app:v1")
    argosy("tag", f"docker-archive:{path}", "v2")
    assert names(path) == ["app:v1", "app:v2"]


def test_without_a_name_that_of_the_source_is_taken(
    argosy: Run, repository: str, tmp_path: pathlib.Path
) -> None:
    one, all_tags, kept = (tmp_path / name for name in ("one.tar", "all.tar", "kept.tar"))
    argosy("cp", "-q", f"{repository}:1.0.0", f"docker-archive:{one}", "-t", "v2")
    assert names(one) == [f"{repository}:1.0.0", f"{repository}:v2"]
    argosy("cp", "-q", "-a", repository, f"docker-archive:{all_tags}")
    assert names(all_tags) == [f"{repository}:1.0.0", f"{repository}:1.1.0"]
    argosy("backup", "-q", repository, "-o", f"docker-archive:{kept}")
    assert names(kept) == names(all_tags)


def test_all_tags_can_be_given_a_name(argosy: Run, repository: str, tmp_path: pathlib.Path) -> None:
    place = f"docker-archive:{tmp_path}/d.tar"
    argosy("cp", "-q", "-a", repository, f"{place}:app")
    assert names(tmp_path / "d.tar") == ["app:1.0.0", "app:1.1.0"]
    argosy("cp", "-q", "-a", repository, f"{place}:app:v1", code=64)


@pytest.mark.parametrize("more", [(), ("-a",), ("-t", "v2")])
def test_a_tag_of_which_nobody_knows_the_name_is_refused(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, more: tuple[str, ...]
) -> None:
    source = f"oci:{layout}" if "-a" in more else f"oci:{layout}:v1"
    done = argosy("cp", *more, source, f"docker-archive:{tmp_path}/d.tar", code=64)
    assert f"docker-archive:{tmp_path}/d.tar:NAME:" in done.err
    assert not (tmp_path / "d.tar").exists()


def test_content_without_a_tag_needs_no_name(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    argosy("cp", "-q", f"oci:{layout}@{digest}", f"oci:{tmp_path}/bare")
    argosy("cp", "-q", f"oci:{tmp_path}/bare", f"docker-archive:{tmp_path}/d.tar")
    assert names(tmp_path / "d.tar") == []


def test_names_come_back_as_tags_and_two_that_would_meet_are_refused(
    argosy: Run, repository: str, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"docker-archive:{tmp_path}/d.tar"
    argosy("cp", "-q", f"oci:{layout}:v1", f"{place}:app:v1", "-t", "v2")
    argosy("cp", "-q", "-a", place, f"{repository}-all")
    assert argosy("ls", f"{repository}-all").out.split() == ["v1", "v2"]
    argosy("restore", "-q", "-i", place, f"{repository}-restored")
    assert argosy("ls", f"{repository}-restored").out.split() == ["v1", "v2"]
    argosy("tag", f"{place}:app:v1", "other:v1")
    assert "several names" in argosy("cp", "-a", place, f"{repository}-not", code=64).err


@pytest.mark.parametrize("tag", ["bad tag", "App:v1", "a@sha256:" + "0" * 64, "app:z z"])
def test_what_is_no_name_is_wrong_usage(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, tag: str
) -> None:
    place = f"docker-archive:{tmp_path}/d.tar:app:v1"
    argosy("cp", "-q", f"oci:{layout}:v1", place, "-t", tag, code=64)
    assert not (tmp_path / "d.tar").exists()
    argosy("cp", "-q", f"oci:{layout}:v1", place)
    argosy("tag", place, tag, code=64)
    assert names(tmp_path / "d.tar") == ["app:v1"]


def test_skopeo_and_crane_know_the_names(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, peer: Callable[[str], str]
) -> None:
    path = tmp_path / "d.tar"
    argosy("cp", "-q", f"oci:{layout}:v1", f"docker-archive:{path}:app:v1", "-t", "v2")
    for words in (
        (peer("skopeo"), "inspect", "--config", f"docker-archive:{path}:app:v2"),
        (peer("crane"), "validate", "--tarball", path, "--fast"),
    ):
        done = subprocess.run([str(word) for word in words], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [peer("skopeo"), "list-tags", f"docker-archive:{path}"], capture_output=True, check=True
    )
    assert json.loads(listed.stdout)["Tags"] == [f"docker.io/library/app:v{n}" for n in (1, 2)]
