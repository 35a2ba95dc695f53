"""Places without tags: which image is meant, and which one a new image takes the place of."""

from __future__ import annotations

import io
import pathlib
import tarfile
from collections.abc import Callable

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.layout.archive import OCIArchive
from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.cli.conftest import Run

Built = Callable[[str], pathlib.Path]


@pytest.fixture
def built(tmp_path: pathlib.Path) -> Built:
    """A layer whose one file, `f`, holds a word."""

    def make(word: str) -> pathlib.Path:
        path = tmp_path / f"{word}.tar"
        with tarfile.open(path, "w") as archive:
            info = tarfile.TarInfo("f")
            info.size = len(word)
            archive.addfile(info, io.BytesIO(word.encode()))
        return path

    return make


def entries(layout: pathlib.Path) -> list[str]:
    return [str(entry.digest) for entry in LayoutStore.open(str(layout)).index().manifests]


def test_an_image_without_a_tag_is_changed_in_place(
    argosy: Run, built: Built, tmp_path: pathlib.Path
) -> None:
    place = f"oci:{tmp_path / 'a'}"
    argosy("append", "-q", "-f", built("one"), "-t", place)
    argosy("mutate", "-q", place, "-e", "A=b")
    argosy("mutate", "-q", place, "-e", "B=c")
    assert argosy("config", place).json["config"]["Env"] == ["A=b", "B=c"]
    assert len(entries(tmp_path / "a")) == 1


def test_what_refers_to_an_image_without_a_tag_is_not_meant(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    store = LayoutStore.create(str(tmp_path / "a"))
    image = random.image(store, 1)
    referrer = random.artifact(store, 2, subject=image)
    assert argosy("digest", f"oci:{tmp_path / 'a'}").out.strip() == image.digest
    argosy("mutate", "-q", f"oci:{tmp_path / 'a'}", "-e", "A=b")
    assert len(entries(tmp_path / "a")) == 2
    assert referrer.digest in entries(tmp_path / "a")


def test_a_referrer_alone_is_meant(argosy: Run, tmp_path: pathlib.Path) -> None:
    subject = random.image(MemoryStore(), 1)
    store = LayoutStore.create(str(tmp_path / "a"))
    only = random.artifact(store, 2, subject=subject)
    assert argosy("digest", f"oci:{tmp_path / 'a'}").out.strip() == only.digest


def test_a_tag_that_stands_for_a_digest_is_not_meant(argosy: Run, tmp_path: pathlib.Path) -> None:
    store = LayoutStore.create(str(tmp_path / "a"))
    image = random.image(store, 1)
    random.image(store, 2, f"{image.digest.replace(':', '-')}.sig")
    assert argosy("digest", f"oci:{tmp_path / 'a'}").out.strip() == image.digest
    store.tag(image, "v1")
    assert argosy("digest", f"oci:{tmp_path / 'a'}").out.strip() == image.digest


def test_several_images_without_a_tag_must_be_told_apart(
    argosy: Run, built: Built, tmp_path: pathlib.Path
) -> None:
    place = f"oci:{tmp_path / 'a'}"
    for word in ("one", "two"):
        argosy("append", "-q", "-f", built(word), "-t", place)
    first, second = entries(tmp_path / "a")
    for words in (["digest", place], ["mutate", place, "-e", "A=b"], ["cp", place, f"{place}b:v1"]):
        told = argosy(*words, code=2).err
        assert f"holds 2 images: {first}, {second}" in told
        assert f"{place}@{first}" in told
    assert entries(tmp_path / "a") == [first, second]
    assert argosy("fs", "cat", f"{place}@{second}", "/f").out == "two"


def test_what_its_place_names_stays_when_another_is_made_of_it(
    argosy: Run, built: Built, tmp_path: pathlib.Path
) -> None:
    place = f"oci:{tmp_path / 'a'}"
    for word in ("one", "two"):
        argosy("append", "-q", "-f", built(word), "-t", place)
    before = entries(tmp_path / "a")
    made = argosy("mutate", "-q", f"{place}:@0", "-e", "A=b").out.strip()
    assert made.startswith(f"{place}@sha256:")
    assert entries(tmp_path / "a") == [*before, made.partition("@")[2]]


def test_an_archive_without_a_name_is_the_image_written_last(
    argosy: Run, built: Built, tmp_path: pathlib.Path
) -> None:
    for word in ("one", "two"):
        argosy("append", "-q", "-f", built(word), "-t", f"oci-archive:{tmp_path / 'a.tar'}")
        argosy("append", "-q", "-f", built(word), "-o", tmp_path / "b.tar")
        argosy("append", "-q", "-f", built(word), "-t", f"oci:{tmp_path / word}")
        argosy("cp", "-q", f"oci:{tmp_path / word}", f"oci-archive:{tmp_path / 'c.tar'}")
        argosy(
            "pull",
            "-q",
            "-o",
            tmp_path / "d.tar",
            f"oci:{tmp_path / word}@{entries(tmp_path / word)[0]}",
        )
    for name in "abcd":
        assert argosy("fs", "cat", tmp_path / f"{name}.tar", "/f").out == "two"
        with tarfile.open(tmp_path / f"{name}.tar") as archive:
            assert sum(member.name.startswith("blobs/sha256/") for member in archive) == 3


def test_an_archive_keeps_what_has_a_name_and_takes_what_is_named_by_its_digest(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    place = f"oci-archive:{tmp_path / 'a.tar'}"
    argosy("cp", "-q", f"oci:{layout}:v1", place)
    digest = argosy("digest", f"oci:{layout}:multi").out.strip()
    before = (tmp_path / "a.tar").read_bytes()
    for words in (
        ["cp", f"oci:{layout}@{digest}", place],
        ["mutate", f"oci:{layout}@{digest}", "-t", place],
    ):
        assert "would not be found beside them" in argosy(*words, code=64).err
    assert (tmp_path / "a.tar").read_bytes() == before
    argosy("cp", "-q", f"oci:{layout}@{digest}", f"{place}@{digest}")
    with OCIArchive.open(tmp_path / "a.tar") as archive:
        assert list(archive.tags()) == ["v1"]
        assert archive.resolve(digest).digest == digest


def test_forgetting_an_image_spares_what_has_a_tag(tmp_path: pathlib.Path) -> None:
    store = LayoutStore.create(str(tmp_path / "a"))
    named, bare = random.image(store, 1, "v1"), random.image(store, 2)
    store.forget(named)
    store.forget(bare)
    assert (list(store.tags()), len(entries(tmp_path / "a"))) == (["v1"], 1)
    assert store.resolve(bare.digest).digest == bare.digest, "its content is there until gc"


def test_a_dir_is_its_image_whatever_stands_beside_it(argosy: Run, tmp_path: pathlib.Path) -> None:
    memory = MemoryStore()
    image = random.image(memory, 1, "v1")
    random.artifact(memory, 2, subject=image)
    argosy("cp", "-q", _kept(memory, tmp_path), f"dir:{tmp_path / 'd'}", "--referrers")
    assert argosy("digest", f"dir:{tmp_path / 'd'}").out.strip() == image.digest
    argosy("mutate", "-q", f"dir:{tmp_path / 'd'}", "-e", "A=b")
    assert argosy("config", f"dir:{tmp_path / 'd'}").json["config"]["Env"][-1] == "A=b"


def _kept(memory: MemoryStore, folder: pathlib.Path) -> str:
    copy(memory, "v1", LayoutStore.create(str(folder / "kept")), "v1", referrers=True)
    return f"oci:{folder / 'kept'}:v1"
