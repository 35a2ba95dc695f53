from __future__ import annotations

import io
import os
import pathlib
import resource
import socket
import subprocess
from collections.abc import Iterable, Iterator

import pytest

from argosy.errors import InvalidLayerError, NotFoundError, StorageError, UsageError
from argosy.image.insert import insert, remove_path
from argosy.image.view import Image
from argosy.image.walk import TreeOptions, write_tree
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import TarWriter
from tests.image.kit import all_proved, contents, file, image_of, names, tar_of


def _entries(image: Image) -> dict[str, Entry]:
    with image.layers[-1].uncompressed() as stream:
        reader = TarReader(stream)
        found = {entry.name.decode("utf-8", "surrogateescape"): entry for entry in reader}
        reader.drain()
    return found


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "a").write_bytes(b"content")
    (root / "a").chmod(0o4755)
    os.link(root / "a", root / "sub/z")
    (root / "l").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    return root


def test_a_file_is_put_where_it_was_told(tree: pathlib.Path) -> None:
    image = insert(image_of(), str(tree / "a"), "/usr/bin/tool")
    assert contents(image) == {"usr/bin/tool": b"content"}
    assert _entries(image)["usr/bin/tool"].mode == 0o4755
    assert not all_proved(image)


def test_a_directory_comes_with_all_in_it_and_its_links_are_not_followed(
    tree: pathlib.Path,
) -> None:
    found = _entries(insert(image_of(), str(tree), "/opt"))
    assert list(found) == ["opt/", "opt/a", "opt/l", "opt/pipe", "opt/sub/", "opt/sub/z"]
    assert found["opt/l"].linkname == b"/etc/passwd"
    assert (found["opt/sub/z"].type, found["opt/sub/z"].linkname) == (EntryType.HARDLINK, b"opt/a")
    assert found["opt/pipe"].type is EntryType.FIFO


def test_a_directory_can_become_the_root(tree: pathlib.Path) -> None:
    assert names(insert(image_of(), str(tree), "/"))[:2] == ["a", "l"]
    with pytest.raises(UsageError, match="only a directory"):
        insert(image_of(), str(tree / "a"), "/")


def test_opaque_hides_what_is_below(tree: pathlib.Path) -> None:
    image = insert(image_of(tar_of(file("opt/old"))), str(tree / "sub"), "/opt", opaque=True)
    assert names(image)[0] == "opt/.wh..wh..opq"


def test_a_path_is_removed_by_a_whiteout() -> None:
    assert names(remove_path(image_of(tar_of(file("var/x"))), "/var/x")) == ["var/.wh.x"]
    with pytest.raises(UsageError):
        remove_path(image_of(), "/")


def test_a_target_that_is_a_whiteout_is_refused(tree: pathlib.Path) -> None:
    with pytest.raises(UsageError, match=r"\.wh\."):
        insert(image_of(), str(tree / "a"), "/etc/.wh.passwd")


@pytest.mark.parametrize("name", [".wh.passwd", "sub/.wh..wh..opq", ".wh.folder/x"])
def test_a_file_whose_name_would_remove_another_is_refused(tree: pathlib.Path, name: str) -> None:
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).touch()
    with pytest.raises(InvalidLayerError, match=r"opt/.*: a name that begins with \.wh\."):
        insert(image_of(), str(tree), "/opt")


def test_owners_and_times_are_as_asked(tree: pathlib.Path) -> None:
    options = TreeOptions(owner=(5, 6), epoch=100)
    entry = _entries(insert(image_of(), str(tree / "a"), "x", options=options))["x"]
    assert (entry.uid, entry.gid, entry.mtime) == (5, 6, 100 * 10**9)


def test_the_same_tree_gives_the_same_layer(tree: pathlib.Path) -> None:
    options = TreeOptions(owner=(0, 0), fixed_time=0)
    one, two = (insert(image_of(), str(tree), "x", options=options) for _ in range(2))
    assert one.digest == two.digest


def test_a_socket_is_left_out_with_a_warning(tmp_path: pathlib.Path) -> None:
    told: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        image = insert(image_of(), str(tmp_path), "x", options=TreeOptions(warn=told.append))
    assert names(image) == ["x/"]
    assert "socket" in told[0]


def test_what_is_not_there_is_one_line(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        insert(image_of(), str(tmp_path / "absent"), "x")


def test_names_that_are_not_text_survive(tmp_path: pathlib.Path) -> None:
    os.mkdir(tmp_path / "d")
    with open(os.fsencode(tmp_path / "d") + b"/\xff\xfe", "wb") as out:
        out.write(b"x")
    assert b"d/\xff\xfe" in [
        e.name for e in _entries(insert(image_of(), str(tmp_path / "d"), "d")).values()
    ]


@pytest.fixture
def few_files() -> Iterator[None]:
    """So few files may be open that a directory for each level would be too many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_tree_of_any_depth_is_walked(tmp_path: pathlib.Path, few_files: None) -> None:
    deep = tmp_path / "top" / "/".join("d" * 600)
    deep.mkdir(parents=True)
    (deep / "x").write_bytes(b"deep")
    (tmp_path / "top/d/z").write_bytes(b"after")
    made = contents(insert(image_of(), str(tmp_path / "top"), "/t"))
    assert len(made) == 603
    assert made["t/" + "d/" * 600 + "x"] == b"deep"
    assert list(made)[-1] == "t/d/z"
    subprocess.run(["rm", "-r", tmp_path / "top"], check=True)  # pytest would recurse


def test_a_directory_that_moves_away_meanwhile_leads_nowhere_else(tmp_path: pathlib.Path) -> None:
    (tmp_path / "top/a/b").mkdir(parents=True)
    (tmp_path / "top/a/b/c").touch()
    os.mkfifo(tmp_path / "top/z")

    class Moving(TarWriter):
        def add(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> int:
            if entry.name.endswith(b"/c"):
                (tmp_path / "top/a/b").rename(tmp_path / "elsewhere")
            return super().add(entry, content)

    with pytest.raises(StorageError, match="was moved while it was read"):
        write_tree(Moving(io.BytesIO()), str(tmp_path / "top"), b"t")


def test_an_attribute_whose_name_no_tar_can_hold_is_left_out(tree: pathlib.Path) -> None:
    os.setxattr(tree / "a", "user.a=b", b"val")
    os.setxattr(tree / "a", "user.a", b"kept")
    warnings: list[str] = []
    image = insert(image_of(), str(tree / "a"), "/a", options=TreeOptions(warn=warnings.append))
    assert _entries(image)["a"].xattrs == {b"user.a": b"kept"}
    assert warnings == ["'a': an attribute 'user.a=b' cannot be in a layer, left out"]
