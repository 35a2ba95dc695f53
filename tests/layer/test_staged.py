"""A tree that goes into a root as a whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib

import pytest

from argosy.errors import StorageError
from argosy.layer.resolve import DIRECTORY, Resolver
from argosy.layer.rootfs import RootFS
from argosy.layer.staged import staged


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A tree of three files, each with the text `mine`."""
    for name in ("a", "d/x", "d/y"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text("mine")
    return tmp_path / "root"


def fill(tree: str, *names: str) -> None:
    for name in names:
        path = pathlib.Path(tree, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("new")


def files(root: pathlib.Path) -> dict[str, str]:
    return {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file()}


MINE = {"a": "mine", "d/x": "mine", "d/y": "mine"}


def test_directories_are_joined_and_files_give_way(root: pathlib.Path) -> None:
    (root / "d").chmod(0o700)
    (root / "link").symlink_to("d")
    with RootFS(root) as place, place.staged() as tree:
        fill(tree.path, "a", "d/x", "d/new/z", "e/f", "link/l")
        assert files(root).keys() >= MINE.keys()
    wanted = {"a": "new", "d/x": "new", "d/y": "mine", "d/new/z": "new", "e/f": "new", "d/l": "new"}
    assert files(root) == wanted
    assert (root / "d").stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(root)) == ["a", "d", "e", "link"]


def test_nothing_comes_of_a_block_that_fails(root: pathlib.Path) -> None:
    with (
        RootFS(root) as place,
        contextlib.suppress(KeyboardInterrupt),
        place.staged() as tree,
    ):
        fill(tree.path, "a", "b")
        raise KeyboardInterrupt
    assert files(root) == MINE


@pytest.mark.parametrize("names", [("b", "d/x/y"), ("b", "d/dir")])
def test_what_is_in_the_way_is_told_before_anything_moves(
    root: pathlib.Path, names: tuple[str, ...]
) -> None:
    (root / "d/dir").mkdir()
    with (
        RootFS(root) as place,
        pytest.raises(StorageError, match="in the way"),
        place.staged() as tree,
    ):
        fill(tree.path, *names)
    assert files(root) == MINE
    assert sorted(os.listdir(root)) == ["a", "d"]


def test_what_gave_way_is_put_back_where_a_later_file_cannot_be_moved(root: pathlib.Path) -> None:
    class Failing(Resolver):
        """A disk that has an error in one directory, the third time it is looked at."""

        opened = 0

        def open(self, path: bytes) -> int:
            self.opened += path == b"d"
            if path == b"d" and self.opened > 2:
                raise OSError(5, "Input/output error")
            return super().open(path)

    fd = os.open(root, DIRECTORY)
    with (
        pytest.raises(StorageError, match="input/output error"),
        staged(Failing(fd), str(root), unlock=False) as tree,
    ):
        fill(tree, "a", "b", "d/x")
    os.close(fd)
    assert files(root) == MINE
    assert sorted(os.listdir(root)) == ["a", "d"]
