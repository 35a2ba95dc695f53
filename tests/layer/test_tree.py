"""Layers laid over each other in memory, with the expectations of sylabs/oci-tools' squash tests."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidLayerError, NotFoundError
from argosy.layer.entry import Entry, EntryType, Limits
from argosy.layer.tree import MergedTree
from tests.layer.making import Member, file, folder, link, symlink


def laid(*layers: list[Member]) -> MergedTree:
    tree = MergedTree()
    for members in layers:
        tree.lay(entry for entry, _ in members)
    return tree


def names(tree: MergedTree) -> list[str]:
    return [path.decode() for path, _ in tree.walk()]


BASE = [folder("d"), file("d/a", b"1"), file("d/b", b"22"), symlink("l", "d"), file("f", b"333")]


def test_layers_lie_over_each_other() -> None:
    tree = laid(BASE, [file("d/a", b"4444"), file("l/c"), file(".wh.f")])
    assert names(tree) == ["d", "d/a", "d/b", "d/c", "l"]
    assert [(lost.path, lost.layer, lost.by, lost.size) for lost in tree.lost] == [
        (b"d/a", 0, 1, 1),
        (b"f", 0, 1, 3),
    ]
    assert tree.get("l/a").layer == 1
    assert tree.get("/l", follow=False).entry.type is EntryType.SYMLINK
    assert tree.get("/l").inode.is_directory


def test_whiteouts_hide_lower_layers_only_in_any_order() -> None:
    upper = [file("d/new"), file("f"), file(".wh.d"), file(".wh.f")]
    for members in (upper, upper[::-1]):
        assert names(laid(BASE, members)) == ["d", "d/new", "f", "l"]
    opaque = [file("d/new"), file("d/.wh..wh..opq")]
    for members in (opaque, opaque[::-1]):
        assert names(laid(BASE, members)) == ["d", "d/new", "f", "l"]


def test_a_hard_link_outlives_its_first_name() -> None:  # oci-tools: hard-link-delete-1..4
    tree = laid(
        [file("a", b"x"), link("b", "a"), link("c", "b")], [file(".wh.a")], [file("b", b"yy")]
    )
    assert names(tree) == ["b", "c"]
    assert (tree.get("c").layer, tree.get("c").entry.name, tree.get("c").entry.size) == (0, b"a", 1)
    assert tree.get("b").layer == 2
    tree = laid([file("a", b"x")], [link("b", "a")], [file(".wh.a")])
    assert tree.get("b").entry.size == 1
    tree = laid([file("a", b"x"), link("b", "a")])
    assert tree.get("a").inode is tree.get("b").inode


def test_links_never_leave_the_root() -> None:
    tree = laid(
        [symlink("up", "../../../etc"), symlink("abs", "/etc"), file("up/one"), file("abs/two")]
    )
    assert names(tree) == ["abs", "etc", "etc/one", "etc/two", "up"]


def test_what_breaks_a_rule_is_refused() -> None:
    for member in (file(".wh."), file("."), link("x", "none"), link("x", "d")):
        with pytest.raises(InvalidLayerError, match=r"^layer 1: entry '"):
            laid(BASE, [member])
    with pytest.raises(InvalidLayerError, match="too many symbolic links"):
        laid([symlink("a", "b"), symlink("b", "a"), file("a/x")])
    with pytest.raises(InvalidLayerError, match="more than 2 entries"):
        MergedTree(Limits(entries=2)).lay(entry for entry, _ in BASE)


def test_what_is_not_there_is_told() -> None:
    tree = laid(BASE, [symlink("dead", "no"), symlink("loop", "loop")])
    for path in ("x", "f/x", "dead", "loop", "d/a/b"):
        with pytest.raises(NotFoundError):
            tree.get(path)


def test_parts_of_the_tree_can_be_walked() -> None:
    tree = laid(BASE)
    assert [path for path, _ in tree.walk(b"d")] == [b"d/a", b"d/b"]
    assert tree.root.inode.implied
    tree.lay([Entry(name=b"./", type=EntryType.DIRECTORY, mode=0o700)])
    assert tree.root.entry.mode == 0o700


def test_what_aufs_kept_aside_serves_links_only() -> None:
    tree = laid([file(".wh..wh.plnk/1", b"x"), file(".wh..wh.orph/2"), link("a", ".wh..wh.plnk/1")])
    assert names(tree) == ["a"]


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ([file("d/e/f"), link("d", "d/e/f")], "a hard link takes the place of its target"),
        ([symlink("l")], "a symbolic link must lead somewhere"),
    ],
)
def test_what_no_disk_takes_is_refused(members: list[Member], rule: str) -> None:
    with pytest.raises(InvalidLayerError, match=rule):
        laid(members)
    assert names(laid([file("f"), link("f", "f")])) == ["f"]
