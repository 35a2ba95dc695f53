"""An artifact's titles and archives are a stranger's: nothing they say leads out of the directory."""

from __future__ import annotations

import os
import pathlib

import pytest

from argosy.errors import InvalidLayerError, InvalidManifestError
from argosy.image.deliver import deliver
from argosy.layer.entry import Entry, EntryType
from tests.image.kit import file, folder, link, tar_of
from tests.image.test_deliver import archive, artifact


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("precious")
    return tmp_path / "out"


def untouched(out: pathlib.Path) -> bool:
    parent = out.parent
    return (parent / "victim").read_text() == "precious" and sorted(os.listdir(parent)) == [
        "out",
        "victim",
    ]


@pytest.mark.parametrize(
    "title", ["../victim", "/etc/passwd", "a/../../victim", "..", ".", "./", "a\0b"]
)
def test_a_title_outside_of_the_directory_writes_nothing(out: pathlib.Path, title: str) -> None:
    """CVE-2025-62725: a title of an artifact was a path of the machine."""
    with pytest.raises(InvalidManifestError):
        deliver(artifact("good", title), str(out))
    assert untouched(out)
    assert os.listdir(out) in ([], ["good"])


def test_a_title_behind_a_link_that_is_there_does_not_leave_the_directory(
    out: pathlib.Path,
) -> None:
    (out / "link").symlink_to("..")
    deliver(artifact("link/victim"), str(out))
    assert untouched(out)


def test_a_title_that_is_a_link_replaces_it(out: pathlib.Path) -> None:
    (out / "a").symlink_to("../victim")
    deliver(artifact("a"), str(out))
    assert untouched(out)
    assert not os.path.islink(out / "a")


def test_cve_2026_50163_a_hard_link_relative_to_the_working_directory_is_refused(
    out: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out.parent)
    for target in (b"victim", b"../victim", str(out.parent / "victim").encode(), b"d/../../victim"):
        evil = tar_of(folder("d/"), Entry(name=b"d/x", type=EntryType.HARDLINK, linkname=target))
        with pytest.raises(InvalidLayerError, match="hard link"):
            deliver(archive("d", evil), str(out))
    assert untouched(out)


def test_ghsa_m37j_52j7_pjw7_a_chain_of_links_does_not_lead_out(out: pathlib.Path) -> None:
    chains: list[list[Entry | tuple[Entry, bytes]]] = [
        [link("d/a", ".."), file("d/a/victim", b"evil")],
        [folder("d/s/"), link("d/s/up", ".."), link("d/a", "s/up/.."), file("d/a/victim", b"evil")],
        [link("d/a", "b"), link("d/b", "/"), file("d/a/victim", b"evil")],
        [link("d/a", "."), link("d/a/b", ".."), file("d/b/victim", b"evil")],
        [link("d", ".."), file("d/victim", b"evil")],
    ]
    for chain in chains:
        with pytest.raises(InvalidLayerError):
            deliver(archive("d", tar_of(*chain)), str(out))
        assert untouched(out)
        assert os.listdir(out) == []


@pytest.mark.parametrize("target", ["/etc/passwd", "/", "/d/a", "../..", "a/../../x", "../s/.."])
def test_a_symbolic_link_out_of_its_title_is_refused(out: pathlib.Path, target: str) -> None:
    tree = tar_of(folder("d/"), folder("d/s/"), link("d/s/l", target))
    with pytest.raises(InvalidLayerError, match=f"a link to '{target}', outside of 'd'"):
        deliver(archive("d", tree), str(out))
    assert os.listdir(out) == []


def test_ghsa_8xwf_rjm4_xvhv_a_sibling_whose_name_begins_alike_is_outside(
    out: pathlib.Path,
) -> None:
    """CVE-2026-50162."""
    for name in ("d-evil/x", "dd", "../out-evil/x", "x"):
        with pytest.raises(InvalidLayerError, match="outside"):
            deliver(archive("d", tar_of(folder("d/"), file(name, b"evil"))), str(out))
    assert untouched(out)
    assert os.listdir(out) == []


def test_devices_cannot_be_in_an_artifact(out: pathlib.Path) -> None:
    for entry in (
        Entry(name=b"d/dev", type=EntryType.CHARACTER, device=(1, 3)),
        Entry(name=b"d/pipe", type=EntryType.FIFO),
    ):
        with pytest.raises(InvalidLayerError):
            deliver(archive("d", tar_of(entry)), str(out))
    assert os.listdir(out) == []


def test_a_name_that_hides_something_in_a_layer_hides_nothing_here(out: pathlib.Path) -> None:
    (out / "d").mkdir()
    (out / "d/mine").write_text("mine")
    evil = tar_of(file("d/.wh.mine"), file("d/.wh..wh..opq"), file("d/.wh..wh.plnk/x"))
    deliver(archive("d", evil), str(out))
    deliver(artifact(".wh.d", ".wh..wh..opq"), str(out))
    assert (out / "d/mine").read_text() == "mine"
    assert sorted(os.listdir(out)) == [".wh..wh..opq", ".wh.d", "d"]
    assert sorted(os.listdir(out / "d")) == [".wh..wh..opq", ".wh..wh.plnk", ".wh.mine", "mine"]
