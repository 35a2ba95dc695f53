from __future__ import annotations

import os
import pathlib

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import InvalidManifestError, NotFoundError, StorageError, UsageError
from argosy.image.deliver import deliver
from argosy.image.pack import DIGEST, UNKNOWN_ARTIFACT, UNKNOWN_CONFIG, UNPACK, File, pack
from argosy.image.view import Image
from argosy.spec import mediatypes
from argosy.spec.annotations import TITLE
from argosy.spec.descriptor import EMPTY
from argosy.testing import random
from tests.image.kit import all_proved, contents, names


@pytest.fixture
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "docs/sub").mkdir(parents=True)
    (tmp_path / "docs/sub/b").write_bytes(b"b")
    return tmp_path


def test_a_file_is_a_layer_under_its_title(here: pathlib.Path) -> None:
    made = pack(
        MemoryStore(),
        [File(path="a.txt", media_type="text/plain")],
        artifact_type="application/x.y",
    )
    (layer,) = made.manifest.layers
    assert (layer.media_type, layer.annotations, layer.size) == ("text/plain", {TITLE: "a.txt"}, 5)
    assert made.manifest.artifact_type == "application/x.y"
    assert made.manifest.config == EMPTY
    assert not all_proved(made)


def test_a_directory_is_a_tar_that_says_it_is_to_be_unpacked(here: pathlib.Path) -> None:
    made = pack(MemoryStore(), [File(path="docs")])
    (layer,) = made.manifest.layers
    assert layer.media_type == mediatypes.OCI_LAYER_GZIP
    assert layer.annotations[UNPACK] == "true"
    assert layer.annotations[DIGEST].startswith("sha256:")
    assert names(made) == ["docs/", "docs/sub/", "docs/sub/b"]
    assert made.manifest.artifact_type == UNKNOWN_ARTIFACT


def test_an_artifact_without_files_has_one_empty_layer() -> None:
    made = pack(MemoryStore(), artifact_type="application/x.y", annotations={"a": "1"})
    assert made.manifest.layers == (EMPTY,)
    assert made.manifest.annotations == {"a": "1"}


def test_what_nobody_would_read_is_not_made(here: pathlib.Path) -> None:
    wrong = "nonsense"
    with pytest.raises(InvalidManifestError, match=r"artifactType: .*'nonsense'"):
        pack(MemoryStore(), artifact_type=wrong)
    with pytest.raises(InvalidManifestError, match=r"layers\[0\]\.mediaType: .*'nonsense'"):
        pack(MemoryStore(), [File(path="a.txt", media_type=wrong)])
    with pytest.raises(InvalidManifestError, match=r"config\.mediaType: .*'nonsense'"):
        pack(MemoryStore(), config=File(path="a.txt", media_type=wrong))
    with pytest.raises(InvalidManifestError, match="artifactType: a/b;c=1 has parameters"):
        pack(MemoryStore(), artifact_type="a/b;c=1")


def test_a_configuration_and_a_subject(here: pathlib.Path) -> None:
    store = MemoryStore()
    subject = random.image(store, 1)
    config = File(path="a.txt", media_type="application/x.config+json")
    made = pack(store, [], config=config, subject=subject)
    assert made.manifest.config.media_type == "application/x.config+json"
    plain = pack(store, [], config=File(path="a.txt"))
    assert (plain.manifest.config.media_type, plain.is_image) == (UNKNOWN_CONFIG, False)
    assert made.manifest.subject == subject
    assert made.manifest.artifact_type is None
    target = MemoryStore()
    copy(made.source, str(made.digest), target)
    assert [entry.digest for entry in target.referrers(subject)] == [made.digest]


@pytest.mark.parametrize("title", ["/etc/passwd", "../x", "a/../../x", "", "a\0b"])
def test_a_title_that_leaves_its_directory_is_refused(here: pathlib.Path, title: str) -> None:
    with pytest.raises(UsageError):
        pack(MemoryStore(), [File(path="a.txt", title=title or "/")])


def test_two_files_of_one_title_are_refused(here: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="two files"):
        pack(MemoryStore(), [File(path="a.txt"), File(path="docs/sub/b", title="a.txt")])


def test_a_title_is_the_shortest_name_of_its_path(here: pathlib.Path) -> None:
    files = [File(path="./a.txt"), File(path="./docs/"), File(path="docs//sub/../sub/b")]
    made = pack(MemoryStore(), files)
    titles = [layer.annotations[TITLE] for layer in made.manifest.layers]
    assert titles == ["a.txt", "docs", "docs/sub/b"]
    with pytest.raises(UsageError, match="two files"):
        pack(MemoryStore(), [File(path="./a.txt"), File(path="a.txt")])
    for path in (".", "docs/.."):
        with pytest.raises(UsageError, match="needs a name"):
            pack(MemoryStore(), [File(path=path)])


def test_every_name_of_a_file_is_a_file(here: pathlib.Path) -> None:
    os.link("docs/sub/b", "docs/c")
    found = contents(pack(MemoryStore(), [File(path="docs")]))
    assert (found["docs/c"], found["docs/sub/b"]) == (b"b", b"b")


def test_a_link_that_was_named_is_what_it_leads_to(here: pathlib.Path) -> None:
    os.symlink("docs", "link")
    made = pack(MemoryStore(), [File(path="link")])
    assert names(made) == ["link/", "link/sub/", "link/sub/b"]
    (here / "out").mkdir()
    assert [one.outcome for one in deliver(made, "out")] == ["written"]
    assert (here / "out/link/sub/b").read_bytes() == b"b"


def test_what_cannot_be_read_is_one_line(here: pathlib.Path) -> None:
    os.mkfifo("pipe")
    for path, error in (("absent", NotFoundError), ("pipe", StorageError)):
        with pytest.raises(error, match=path):
            pack(MemoryStore(), [File(path=path)])


def test_the_same_files_give_the_same_artifact(here: pathlib.Path) -> None:
    made = [pack(MemoryStore(), [File(path="docs"), File(path="a.txt")]) for _ in range(2)]
    assert made[0].digest == made[1].digest
    assert isinstance(made[0], Image)


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "sub/../b", "../docs"])
def test_a_link_out_of_its_directory_is_refused_before_anybody_pulls_it(
    here: pathlib.Path, target: str
) -> None:
    os.symlink(target, "docs/link")
    with pytest.raises(UsageError, match=f"docs/link'?: a link to '?{target}"):
        pack(MemoryStore(), [File(path="docs")])
    assert "docs/link" in names(pack(MemoryStore(), [File(path="docs")], any_path=True))


def test_what_no_artifact_can_hold_is_refused(here: pathlib.Path) -> None:
    os.mkfifo("docs/pipe")
    with pytest.raises(UsageError, match=r"docs/pipe'?: a fifo cannot be in an artifact"):
        pack(MemoryStore(), [File(path="docs")])
