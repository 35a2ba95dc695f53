from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import stat
import time
from collections.abc import Callable

import pytest

from argosy.content.memory import MemoryStore
from argosy.errors import ConflictError, DigestMismatchError, InvalidManifestError, StorageError
from argosy.image import indexes
from argosy.image.deliver import deliver
from argosy.image.derive import derive
from argosy.image.draft import draft
from argosy.image.pack import DIGEST, UNPACK, File, pack
from argosy.image.view import Image
from argosy.spec.annotations import TITLE
from argosy.spec.digest import Digest
from tests.image.kit import file, folder, link, tar_of


def artifact(*titles: str, content: bytes = b"x") -> Image:
    """An artifact whose titles nobody has checked."""
    place = draft(MemoryStore())
    empty = pack(place, artifact_type="application/x.y")
    layers = tuple(
        dataclasses.replace(
            place.put("text/plain", content + title.encode()), annotations={TITLE: title}
        )
        for title in titles
    )
    return derive(empty, layers=layers)


def archive(title: str, tar: bytes, **notes: str) -> Image:
    """An artifact with one directory whose archive nobody has checked."""
    place = draft(MemoryStore())
    empty = pack(place, artifact_type="application/x.y")
    layer = place.put("application/vnd.oci.image.layer.v1.tar", tar)
    marked = dataclasses.replace(layer, annotations={TITLE: title, UNPACK: "true", **notes})
    return derive(empty, layers=[marked])


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_what_is_packed_is_delivered(
    tmp_path: pathlib.Path, out: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs/sub").mkdir(parents=True)
    (tmp_path / "docs/sub/b").write_bytes(b"b" * 100_000)
    (tmp_path / "docs/run").write_bytes(b"#!")
    (tmp_path / "docs/run").chmod(0o755)
    (tmp_path / "docs/link").symlink_to("sub/b")
    (tmp_path / "empty").write_bytes(b"")
    made = pack(
        MemoryStore(),
        [File(path="docs"), File(path="empty"), File(path="docs/run", title="deep/run")],
    )
    assert [d.outcome for d in deliver(made, str(out))] == ["written"] * 3
    assert (out / "docs/sub/b").read_bytes() == b"b" * 100_000
    assert os.readlink(out / "docs/link") == "sub/b"
    assert os.access(out / "docs/run", os.X_OK)
    assert (out / "empty").read_bytes() == b""
    assert (out / "deep/run").read_bytes() == b"#!"


def test_files_that_are_there_are_replaced_or_are_an_error(out: pathlib.Path) -> None:
    (out / "a").write_bytes(b"old")
    with pytest.raises(ConflictError, match="/a: is there already"):
        deliver(artifact("first", "a"), str(out), keep_old=True)
    assert os.listdir(out) == ["a"]
    assert (out / "a").read_bytes() == b"old"
    deliver(artifact("a"), str(out))
    assert (out / "a").read_bytes() == b"xa"


@pytest.mark.parametrize(
    ("mine", "made"),
    [
        ("a/deep/work.py", lambda: artifact("first", "a")),
        ("a", lambda: artifact("first", "a/b")),
        ("d/x/work.py", lambda: archive("d", tar_of(folder("d/"), link("d/x", "y")))),
        ("d/x", lambda: archive("d", tar_of(folder("d/"), file("d/x/y", b"1")))),
        ("d/x/work.py", lambda: archive("d", tar_of(folder("d/"), file("d/x", b"1")))),
    ],
)
def test_what_is_in_the_way_stays_and_is_told(
    out: pathlib.Path, mine: str, made: Callable[[], Image]
) -> None:
    (out / mine).parent.mkdir(parents=True, exist_ok=True)
    (out / mine).write_bytes(b"precious")
    with pytest.raises(StorageError, match="in the way"):
        deliver(made(), str(out))
    assert not (out / "first").exists()
    assert (out / mine).read_bytes() == b"precious"


def test_a_title_below_the_title_of_a_file_writes_nothing(out: pathlib.Path) -> None:
    for titles in (("a", "a/b"), ("a/b/c", "a")):
        with pytest.raises(InvalidManifestError, match="which is a file"):
            deliver(artifact(*titles), str(out))
        assert os.listdir(out) == []


def test_a_file_may_lie_below_a_directory_of_the_same_artifact(out: pathlib.Path) -> None:
    tree = archive("d", tar_of(folder("d/"), file("d/x", b"1")))
    more = artifact("d/y")
    both = derive(tree, layers=tree.manifest.layers + more.manifest.layers, others=[more.source])
    assert [d.outcome for d in deliver(both, str(out))] == ["written", "written"]
    assert sorted(os.listdir(out / "d")) == ["x", "y"]


def test_a_layer_without_a_title_is_passed_over(out: pathlib.Path) -> None:
    empty = pack(MemoryStore(), artifact_type="application/x.y")
    assert [d.outcome for d in deliver(empty, str(out))] == ["skipped"]
    assert os.listdir(out) == []


def test_two_layers_of_one_title_write_nothing(out: pathlib.Path) -> None:
    with pytest.raises(InvalidManifestError, match="twice"):
        deliver(artifact("a", "./a"), str(out))
    assert os.listdir(out) == []


def test_the_files_of_all_artifacts_of_an_index_come_once(out: pathlib.Path) -> None:
    one, two, other = artifact("a", "b"), artifact("b", "c"), artifact("a", content=b"y")
    both = indexes.create(MemoryStore(), one, two)
    assert [d.title for d in deliver(both, str(out))] == ["a", "b", "c"]
    assert {name: (out / name).read_text() for name in "abc"} == {"a": "xa", "b": "xb", "c": "xc"}
    with pytest.raises(InvalidManifestError, match="'a' comes twice"):
        deliver(indexes.create(MemoryStore(), one, other), str(out))


def test_a_title_that_is_no_utf8_writes_nothing(out: pathlib.Path) -> None:
    image = artifact("a")
    [layer] = image.manifest.layers
    odd = dataclasses.replace(layer, annotations={TITLE: "a\ud800"})
    with pytest.raises(InvalidManifestError, match="not UTF-8"):
        deliver(derive(image, layers=[odd]), str(out))
    assert os.listdir(out) == []


def test_an_archive_that_is_not_its_digest_is_refused(out: pathlib.Path) -> None:
    wrong = archive("d", tar_of(file("d/x", b"1")), **{DIGEST: str(Digest.of(b"other"))})
    with pytest.raises(DigestMismatchError):
        deliver(wrong, str(out))
    assert os.listdir(out) == []


def test_set_id_bits_and_owners_of_strangers_do_not_come_along(out: pathlib.Path) -> None:
    deliver(archive("d", tar_of(file("d/x", b"1", mode=0o6755, uid=1234))), str(out))
    status = os.stat(out / "d/x")
    assert (status.st_mode & 0o7777, status.st_uid) == (0o755, os.geteuid())


def test_delivered_files_are_made_now_and_by_the_umask(out: pathlib.Path) -> None:
    before = int(time.time())
    tree = archive("d", tar_of(folder("d/", 0o777), file("d/x", b"1", mode=0o666, mtime=10**9)))
    old = os.umask(0o077)
    try:
        deliver(artifact("a", "deep/a"), str(out))
        deliver(tree, str(out))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(old)
    modes = {name: stat.S_IMODE(os.stat(out / name).st_mode) for name in ("a", "deep/a", "d/x")}
    assert modes == {"a": 0o600, "deep/a": 0o600, "d/x": 0o600}
    assert [stat.S_IMODE(os.stat(out / name).st_mode) for name in ("deep", "d")] == [0o700] * 2
    assert os.stat(out / "a").st_mtime >= before
    assert os.stat(out / "d/x").st_mtime == 1


def test_where_one_layer_is_damaged_none_comes_and_what_was_there_stays(out: pathlib.Path) -> None:
    class Damaging(MemoryStore):
        def fetch(self, desc):  # type: ignore[no-untyped-def]
            reader = super().fetch(desc)
            if desc.digest == Digest.of(b"xlast"):
                return type(reader)(io.BytesIO(b"?" * desc.size), desc)
            return reader

    store = Damaging()
    good = artifact("first", "deep/second", "last")
    (out / "first").write_text("mine")
    for desc in (good.descriptor, *good.manifest.children()):
        with good.source.fetch(desc) as reader:
            store.push(desc, reader)
    with pytest.raises(DigestMismatchError):
        deliver(Image(source=store, descriptor=good.descriptor), str(out))
    assert os.listdir(out) == ["first"]
    assert (out / "first").read_text() == "mine"
