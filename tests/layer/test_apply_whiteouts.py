"""Whiteouts of a changeset: what they take away from a root, and what not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.errors import InvalidLayerError
from tests.layer.making import (
    NOON,
    fifo,
    file,
    folder,
    link,
    listing,
    put,
    symlink,
)

# --- whiteouts ------------------------------------------------------------------------------------------------------


def test_whiteouts_remove_what_they_name(tmp_path: Path) -> None:
    # umoci: TestUnpackEntryWhiteout; storage: TestApplyLayerWhiteouts
    put(tmp_path, file("f"), folder("d"), file("d/x"), symlink("l", "d"), fifo("p"), file("kept"))
    put(
        tmp_path,
        file(".wh.f"),
        file(".wh.d"),
        file(".wh.l"),
        file(".wh.p"),
        file(".wh.none"),
        file("no/.wh.x"),
    )
    assert sorted(os.listdir(tmp_path)) == ["kept"]


def test_a_whiteout_of_any_type_is_one(tmp_path: Path) -> None:
    put(tmp_path, file("a"), file("b"), file("c"))
    put(tmp_path, folder(".wh.a"), symlink(".wh.b", "x"), link(".wh.c", "x"))
    assert os.listdir(tmp_path) == []


def test_whiteouts_hide_lower_layers_only_in_any_order(tmp_path: Path) -> None:
    # image-spec: "Whiteout files MUST only apply to resources in lower/parent layers"
    for order in (1, -1):
        root = tmp_path / str(order)
        root.mkdir()
        put(
            root,
            file("f", b"low"),
            folder("d/sub"),
            file("d/low"),
            file("d/sub/low"),
            file("gone/low"),
        )
        members = [
            file("f", b"high"),
            file(".wh.f"),
            file("d/sub/high"),
            file(".wh.d"),
            file(".wh.gone"),
        ]
        put(root, *members[::order])
        assert (root / "f").read_bytes() == b"high"
        assert sorted(os.listdir(root / "d")) == ["sub"]
        assert os.listdir(root / "d/sub") == ["high"]
        assert not (root / "gone").exists()


def test_an_opaque_whiteout_hides_lower_layers_only_in_any_order(tmp_path: Path) -> None:
    # umoci: TestUnpackOpaqueWhiteout; image-spec, the example under "Opaque Whiteout"
    for order in (1, -1):
        root = tmp_path / str(order)
        root.mkdir()
        put(root, folder("a/b/c"), file("a/b/c/bar"), file("a/x"), symlink("a/l", "/"), file("out"))
        high = [
            folder("a/"),
            folder("a/b/"),
            folder("a/b/c/"),
            file("a/b/c/foo"),
            link("a/h", "a/b/c/foo"),
        ]
        put(
            root,
            *([file("a/.wh..wh..opq"), *high] if order == 1 else [*high, file("a/.wh..wh..opq")]),
        )
        assert sorted(p.relative_to(root).as_posix() for p in root.rglob("*")) == [
            "a", "a/b", "a/b/c", "a/b/c/foo", "a/h", "out",
        ]  # fmt: skip


@pytest.mark.parametrize("inner", ["p/d/.wh..wh..opq", "p/.wh.d"])
def test_a_directory_that_was_emptied_is_removed_with_what_is_around_it(
    tmp_path: Path, inner: str
) -> None:
    put(tmp_path, file("p/d/old"), file("p/e/old"))
    put(tmp_path, file(inner), file("p/e/new"), file("p/.wh..wh..opq"), file(".wh.p"))
    assert sorted(listing(tmp_path)) == [".", "p", "p/e", "p/e/new"]


def test_an_opaque_whiteout_of_the_root_empties_it(tmp_path: Path) -> None:
    put(tmp_path, file("a"), folder("b/c"))
    put(tmp_path, file("new"), file(".wh..wh..opq"))
    assert os.listdir(tmp_path) == ["new"]


def test_a_whiteout_gives_spared_directories_their_times_back(tmp_path: Path) -> None:
    put(tmp_path, folder("d/e"), file("d/e/low"))
    put(
        tmp_path, folder("d", mtime=NOON), folder("d/e", mtime=NOON), file("d/e/new"), file(".wh.d")
    )
    assert os.listdir(tmp_path / "d/e") == ["new"]
    assert {(tmp_path / p).stat().st_mtime_ns for p in ("d", "d/e")} == {NOON}


def test_an_opaque_whiteout_is_no_change_of_its_directory(tmp_path: Path) -> None:
    put(tmp_path, folder("d", mtime=NOON), file("d/low"))
    put(tmp_path, file("d/.wh..wh..opq"))
    assert os.listdir(tmp_path / "d") == []
    assert (tmp_path / "d").stat().st_mtime_ns == NOON


def test_what_aufs_kept_aside_is_not_there_in_the_end(tmp_path: Path) -> None:
    # storage: TestOverlayTarAUFSUntar, diff.go's WhiteoutLinkDir
    put(
        tmp_path,
        folder(".wh..wh.plnk"),
        file(".wh..wh.plnk/123.4", b"shared"),
        folder(".wh..wh.orph"),
        file(".wh..wh.orph/x"),
        file(".wh..wh.aufs"),
        link("one", ".wh..wh.plnk/123.4"),
        link("two", "/.wh..wh.plnk/123.4"),
    )
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
    assert (tmp_path / "one").samefile(tmp_path / "two")
    with pytest.raises(InvalidLayerError):
        put(tmp_path, file(".wh..wh.plnk/1"), file("x/.wh."))
    assert not (tmp_path / ".wh..wh.plnk").exists()


def test_more_names_than_are_held_whole_are_still_known(tmp_path: Path) -> None:
    from argosy.layer.place import Written

    written = Written()
    for number in range(200_000):
        written.add(((1, number // 100), b"%d" % number))
    assert all(((1, n // 100), b"%d" % n) in written for n in range(0, 200_000, 37))
    assert not any(((2, n // 100), b"%d" % n) in written for n in range(0, 200_000, 37))
