"""`argosy rm`: what goes, and what must stay."""

from __future__ import annotations

import json
import pathlib
import tarfile

import pytest

from argosy.layout.archive import OCIArchive
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.cli.conftest import Run


def repo_tags(path: pathlib.Path) -> list[list[str]]:
    """The names that `docker load` finds in an archive, image by image."""
    with tarfile.open(path) as tar:
        file = tar.extractfile("manifest.json")
        assert file is not None
        return [item["RepoTags"] for item in json.load(file)]


def test_a_whole_name_in_a_layout_goes_without_its_siblings(
    argosy: Run, layout: pathlib.Path
) -> None:
    store = LayoutStore.open(str(layout))
    store.tag(store.resolve("v1"), "docker.io/x/y:1")
    assert argosy("rm", f"oci:{layout}:docker.io/x/y:1").out == "docker.io/x/y:1\n"
    assert sorted(store.tags()) == ["multi", "v1"]
    assert argosy("validate", f"oci:{layout}:v1").out == ""


def test_a_whole_name_in_a_layout_is_a_tag_to_every_command(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "m.json"
    file.write_text(argosy("manifest", "get", f"oci:{layout}:v1").out)
    there = f"oci:{tmp_path}/there"
    argosy("manifest", "put", f"{there}:docker.io/x/y:1", file)
    argosy("cp", "-q", f"oci:{layout}:v1", f"{there}:docker.io/x/y:1")
    argosy("mutate", there, "--label", "a=b")
    assert argosy("ls", there).out == "docker.io/x/y:1\n"
    assert '"a": "b"' in argosy("inspect", "--json", there).out


def test_a_name_of_a_docker_archive_goes_without_its_siblings(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "e.tar"
    with DockerArchive.create(path) as archive:
        random.image(archive, 1, "app:v1", "app:v2")
        random.image(archive, 2, "other:v1")
    argosy("rm", f"docker-archive:{path}:app:v1")
    assert repo_tags(path) == [["docker.io/library/app:v2"], ["docker.io/library/other:v1"]]
    argosy("rm", f"docker-archive:{path}:app:v2")
    assert repo_tags(path) == [["docker.io/library/other:v1"]]
    assert argosy("validate", f"docker-archive:{path}:other:v1").out == ""


@pytest.mark.parametrize("kind", [OCIArchive, DockerArchive])
def test_a_manifest_goes_out_of_an_archive_with_all_its_tags(
    argosy: Run, tmp_path: pathlib.Path, kind: type[OCIArchive | DockerArchive]
) -> None:
    path = tmp_path / "e.tar"
    with kind.create(path) as archive:
        gone = random.image(archive, 1, "app:v1", "app:v2")
        stays = random.image(archive, 2, "app:v3")
    argosy("rm", f"{kind.transport}:{path}@{gone.digest}")
    with kind.open(path) as source:
        assert [desc.digest for desc in source.manifests()] == [stays.digest]
        assert not source.exists(gone)


def test_referrers_go_with_the_manifest_and_never_with_a_tag(
    argosy: Run, layout: pathlib.Path
) -> None:
    store = LayoutStore.open(str(layout))
    image = store.resolve("v1")
    argosy("tag", f"oci:{layout}:v1", "sibling")
    done = argosy("rm", "--referrers", f"oci:{layout}:sibling", f"oci:{layout}:v1", code=64)
    assert f"argosy digest --full oci:{layout}:sibling" in done.err
    assert len(list(store.referrers(image))) == 1
    assert sorted(store.tags()) == ["multi", "sibling", "v1"]
    full = argosy("digest", "--full", f"oci:{layout}:sibling").out.strip()
    assert len(argosy("rm", "--referrers", full).out.split()) == 2
    assert list(store.tags()) == ["multi"]


def test_what_refers_to_a_referrer_goes_before_it(argosy: Run, layout: pathlib.Path) -> None:
    with LayoutStore.open(str(layout)) as store:
        image = store.resolve("v1")
        (note,) = store.referrers(image)
        signatures = [random.artifact(store, seed, subject=note) for seed in (4, 5)]
        last = random.artifact(store, 6, subject=signatures[0])
    words = ("rm", "--referrers", f"oci:{layout}@{image.digest}")
    told = argosy(*words, "--dry-run").out.split()
    assert (told[0], told[-2:]) == (last.digest, [note.digest, image.digest])
    assert set(told[1:3]) == {desc.digest for desc in signatures}
    assert argosy(*words).out.split() == told
    with LayoutStore.open(str(layout)) as store:
        assert [desc for desc in store.manifests() if desc.digest in told] == []


def test_wrong_usage_is_found_before_anything_is_removed(argosy: Run, layout: pathlib.Path) -> None:
    argosy("rm", f"oci:{layout}:v1", f"oci:{layout}", code=64)
    assert sorted(LayoutStore.open(str(layout)).tags()) == ["multi", "v1"]


def test_a_container_that_is_not_there_can_be_no_error(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOSY_ROOT", str(tmp_path / "engine"))
    monkeypatch.setenv("ARGOSY_RUNTIME", "/bin/true")
    assert "no container" in argosy("rm", "nosuch", code=2).err
    argosy("rm", "--ignore-missing", "nosuch", "norsuch")


def test_a_tag_and_a_digest_are_not_removed_at_once(argosy: Run, layout: pathlib.Path) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    for place in (f"oci:{layout}:v1@{digest}", f"localhost:1/app:v1@{digest}"):
        assert "not both" in argosy("rm", f"oci:{layout}:multi", place, code=64).err
    assert sorted(argosy("ls", f"oci:{layout}").out.split()) == ["multi", "v1"]


def test_an_entry_of_a_layout_is_removed_by_its_digest_alone(
    argosy: Run, layout: pathlib.Path
) -> None:
    told = argosy("rm", f"oci:{layout}@0", code=64).err
    assert "by its digest" in told
    words = told.split("`argosy ")[1].split("`")[0].split()
    argosy("rm", argosy(*words).out.strip())
    assert argosy("ls", f"oci:{layout}").out == "multi\n"


@pytest.mark.parametrize("verb", [("rm",), ("manifest", "rm")])
@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_an_image_that_an_index_lists_stays(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, verb: tuple[str, ...], kind: str
) -> None:
    place = f"{kind}:{tmp_path}/there"
    argosy("cp", "-q", f"oci:{layout}:multi", f"{place}:multi")
    listed = json.loads(argosy("manifest", "get", f"{place}:multi").out)["manifests"][0]["digest"]
    argosy("tag", f"{place}@{listed}", "one")
    done = argosy(*verb, f"{place}@{listed}", code=1)
    assert f"{listed} is part of the index" in done.err
    assert sorted(argosy("ls", place).out.split()) == ["multi", "one"]
    argosy("rm", f"{place}:one")
    assert argosy("validate", f"{place}:multi").out == ""
    index = argosy("digest", f"{place}:multi").out.strip()
    argosy("rm", f"{place}@{index}")
    assert argosy("ls", place).out == ""


def test_a_tag_that_is_not_there_hinders_none_of_the_others(
    argosy: Run, layout: pathlib.Path
) -> None:
    done = argosy("rm", f"oci:{layout}:none", f"oci:{layout}:v1", f"oci:{layout}/none:v1", code=2)
    assert done.out == "v1\n"
    assert [line for line in done.err.splitlines() if line.startswith("argosy: ")] == [
        f"argosy: 'none' is not in oci:{layout}",
        f"argosy: 'v1' is not in oci:{layout}/none",
    ]
