"""A changeset on a root: what is where afterwards, and what replaces what.

Names in comments are those of the tests of other tools whose counterpart a test is.
"""

from __future__ import annotations

import io
import os
import socket
import stat
from pathlib import Path

import pytest

from argosy.errors import DigestMismatchError, InvalidLayerError, StorageError
from argosy.layer.entry import Limits
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.spec.digest import Digest
from tests.layer.making import (
    NOON,
    fifo,
    file,
    folder,
    gzip,
    link,
    listing,
    needs_root,
    put,
    symlink,
    tar,
)
from tests.layer.test_tarstream import patched


def test_the_diff_id_is_over_all_of_the_stream(
    tmp_path: Path,
) -> None:  # umoci hardening: TestValidTrailing
    data = tar(file("a", b"x")) + b"trailing bytes" * 1000
    with RootFS(tmp_path) as root:
        assert root.apply(io.BytesIO(data)) == Digest.of(data)
        assert root.apply(io.BytesIO(gzip(data)), diff_id=Digest.of(data)) == Digest.of(data)
        sha512 = Digest.of(data, "sha512")
        assert root.apply(io.BytesIO(data), diff_id=sha512) == sha512


@pytest.mark.parametrize("openat2", [True, False])
def test_no_descriptor_stays_open(tmp_path: Path, openat2: bool) -> None:
    low = (folder("d/e"), file("d/e/f", b"1"), symlink("l", "d/../d"), file("gone/a/b"), file("x"))
    high = (
        file("l/e/new"),
        file("gone/.wh.a"),
        file("d/.wh..wh..opq"),
        link("y", "x"),
        file("d/g"),
    )
    wrong = (file("d/f", b"1"), link("z", "nowhere"))

    def carried_out(root: Path) -> None:
        root.mkdir()
        put(root, *low, openat2=openat2)
        put(root, *high, openat2=openat2)
        with pytest.raises(InvalidLayerError):
            put(root, *wrong, openat2=openat2)

    carried_out(tmp_path / "first")  # what is opened once and for all
    before = os.listdir("/proc/self/fd")
    carried_out(tmp_path / "second")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_another_layer_than_promised_is_told(tmp_path: Path) -> None:
    with RootFS(tmp_path) as root, pytest.raises(DigestMismatchError, match=r"^layer 3: diff_id"):
        root.apply(io.BytesIO(tar(file("a"))), layer="layer 3", diff_id=Digest.of(b""))


def test_an_error_names_layer_entry_and_rule_on_one_line(tmp_path: Path) -> None:
    with RootFS(tmp_path) as root, pytest.raises(InvalidLayerError) as caught:
        root.apply(io.BytesIO(tar(file("a/.wh."))), layer="layer 2 (sha256:12)")
    assert str(caught.value) == (
        "layer 2 (sha256:12): entry 'a/.wh.': a whiteout must name what it removes (image-spec, whiteouts)"
    )


def test_a_damaged_stream_names_the_entry_it_ends_in(tmp_path: Path) -> None:
    packed = gzip(tar(file("big", os.urandom(1 << 20))))
    with (
        RootFS(tmp_path) as root,
        pytest.raises(InvalidLayerError, match=r"^layer 1: entry 'big': the compressed"),
    ):
        root.apply(io.BytesIO(packed[: len(packed) // 2]), layer="layer 1")


def test_a_new_root_is_removed_again_when_its_layer_fails(tmp_path: Path) -> None:
    with pytest.raises(InvalidLayerError), RootFS.create(tmp_path / "root") as root:
        root.apply(
            io.BytesIO(tar(file("deep/er/file"), folder("deep/locked", mode=0), file("x/.wh.")))
        )
    assert not (tmp_path / "root").exists()


@needs_root
def test_a_new_root_that_cannot_be_given_to_its_owner_is_told_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)
    os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match=r"^root: operation not permitted") as caught:
            RootFS.create("root")
    finally:
        os.seteuid(0)
    assert "rootless" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_new_root_has_no_mode_of_the_umask_and_no_time(tmp_path: Path) -> None:
    with RootFS.create(tmp_path / "root"):
        pass
    status = (tmp_path / "root").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 0)
    with pytest.raises(StorageError, match="file exists"):
        RootFS.create(tmp_path / "root")


def test_names_are_cleaned_and_never_climb(
    tmp_path: Path,
) -> None:  # umoci: TestUnpackEntrySanitiseScoping
    root = tmp_path / "root"
    root.mkdir()
    for number, prefix in enumerate(
        ("/", "./", "../", "../../../", "a/../../", "a/../../../b/../")
    ):
        put(root, file(f"{prefix}file{number}"), folder(f"{prefix}dir{number}/"))
    assert sorted(os.listdir(root)) == sorted(
        [f"file{n}" for n in range(6)] + [f"dir{n}" for n in range(6)]
    )
    assert os.listdir(tmp_path) == ["root"]


def test_odd_names_after_an_ordinary_one_of_the_same_directory_are_looked_at_too(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/lower").touch()
    names = ("a/x", "a/y", "a/../up", "a/.hidden", "a/..dots", "a/.wh.lower", "a/z")
    put(tmp_path, *map(file, names), folder("a/sub/"), file("a/sub/../w"), file("/a/v"))
    assert sorted(os.listdir(tmp_path)) == ["a", "up"]
    assert set(os.listdir(tmp_path / "a")) == {*"vwxyz", ".hidden", "..dots", "sub"}
    with pytest.raises(InvalidLayerError, match=r"entry 'a/\.wh\.\.\.': a whiteout must name"):
        put(tmp_path, file("a/x"), file("a/.wh..."))


def test_links_in_a_path_are_followed_inside(
    tmp_path: Path,
) -> None:  # umoci: TestUnpackEntrySymlinkScoping
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    put(
        root,
        symlink("abs", str(outside)),
        symlink("rel", "../outside"),
        symlink("dead", "no/where"),
    )
    put(root, file("abs/one"), file("rel/two"), file("dead/three"))
    assert not list(outside.iterdir())
    inside = root / str(outside).lstrip("/") / "one"
    assert inside.is_file()
    assert (root / "outside/two").is_file()
    assert (root / "no/where/three").is_file()


def test_a_parent_that_is_no_directory_gives_way(
    tmp_path: Path,
) -> None:  # umoci: TestUnpackEntryNonDirParent
    put(tmp_path, file("a", b"file"), symlink("l", "a"), fifo("p"))
    put(tmp_path, file("a/b/c", b"below"), file("p/x"))
    assert (tmp_path / "a/b/c").read_bytes() == b"below"
    assert (tmp_path / "p/x").is_file()


def test_a_parent_keeps_its_metadata(tmp_path: Path) -> None:  # umoci: TestUnpackEntryParentDir
    put(
        tmp_path,
        folder("d", mode=0o2711, mtime=NOON),
        folder("d/e", mtime=NOON),
        folder(".", mtime=5 * 10**9),
    )
    put(tmp_path, file("d/f"), file("d/e/.wh.none"), file("top"))
    put(tmp_path, file("d/.wh.f"), file("d/e/g"))
    status = (tmp_path / "d").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o2711, NOON)
    assert (tmp_path / "d/e").stat().st_mtime_ns == NOON
    assert tmp_path.stat().st_mtime_ns == 5 * 10**9


def test_many_parents_keep_their_times_though_few_are_held_open(tmp_path: Path) -> None:
    folders = [folder(f"d{n}", mtime=n * 10**9) for n in range(300)]
    put(tmp_path, *folders)
    put(tmp_path, *[file(f"d{n}/{m}") for m in "ab" for n in range(300)])
    assert all((tmp_path / f"d{n}").stat().st_mtime == n for n in range(300))
    assert all((tmp_path / f"d{n}/b").is_file() for n in range(300))


def test_directories_nobody_describes_take_the_time_of_what_needed_them(tmp_path: Path) -> None:
    put(tmp_path, file("a/b/c/f", mtime=7 * 10**9))
    for path in ("a", "a/b", "a/b/c"):
        status = (tmp_path / path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime) == (0o755, 7)


def test_the_root_has_an_entry_too_but_stays_a_directory(tmp_path: Path) -> None:
    put(tmp_path, folder("./", mode=0o711, mtime=9 * 10**9))
    assert (stat.S_IMODE(tmp_path.stat().st_mode), tmp_path.stat().st_mtime) == (0o711, 9)
    for member in (file("."), symlink("/", "x"), link("./", "x")):
        with pytest.raises(InvalidLayerError, match="the root must stay a directory"):
            put(tmp_path, member)


# --- replacing ------------------------------------------------------------------------------------------------------

KINDS = {
    "file": [file("x", b"new", mode=0o4755)],
    "directory": [folder("x", mode=0o1777)],
    "symlink": [symlink("x", "to")],
    "hardlink": [file("y", b"other"), link("x", "y")],
    "fifo": [fifo("x", mode=0o600)],
    "missing": [],
}


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", [kind for kind in KINDS if kind != "missing"])
def test_what_is_there_gives_way(before: str, after: str, tmp_path: Path) -> None:
    fresh, over = tmp_path / "fresh", tmp_path / "over"
    fresh.mkdir()
    over.mkdir()
    inner = [file("x/inner", b"y")] if before == "directory" else []
    put(over, *KINDS[before], *inner)
    put(over, *KINDS[after])
    put(fresh, *([file("y", b"other")] if before == "hardlink" else []), *KINDS[after])
    if inner and after == "directory":
        put(fresh, *inner)
    assert listing(over, times=False).keys() == listing(fresh, times=False).keys()
    assert listing(over)["x"] == listing(fresh)["x"]


def test_a_file_over_a_hard_link_leaves_the_other_name_alone(tmp_path: Path) -> None:
    put(tmp_path, file("a", b"old"), link("b", "a"))
    put(tmp_path, file("b", b"new"))
    assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (b"old", b"new")


def test_of_two_entries_of_one_name_the_last_counts(tmp_path: Path) -> None:
    put(tmp_path, file("a", b"1"), folder("a", mode=0o700), file("a/x"), file("a", b"2"))
    assert (tmp_path / "a").read_bytes() == b"2"


def test_a_directory_over_a_directory_resets_its_metadata(tmp_path: Path) -> None:
    put(tmp_path, folder("d", mode=0o700, xattrs={b"user.old": b"1"}), file("d/kept"))
    put(tmp_path, folder("d", mode=0o755, xattrs={b"user.new": b"2"}))
    assert os.listxattr(tmp_path / "d") == ["user.new"]
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755
    assert (tmp_path / "d/kept").exists()


def test_a_directory_replaces_a_link_to_one_unless_links_are_kept(tmp_path: Path) -> None:
    # umoci: TestIsDirlink, unpack.bats --keep-dirlinks
    for keep in (False, True):
        root = tmp_path / str(keep)
        root.mkdir()
        put(
            root,
            folder("usr/lib"),
            symlink("lib", "usr/lib"),
            symlink("abs", "/usr/lib"),
            symlink("out", "/../.."),
        )
        put(
            root,
            symlink("dead", "nothing"),
            symlink("loop", "loop"),
            file("f"),
            symlink("tofile", "f"),
        )
        names = ["lib", "abs", "dead", "loop", "tofile"]
        put(root, *[m for n in names for m in (folder(n), file(f"{n}/x"))], keep_dirlinks=keep)
        kept = [n for n in names if (root / n).is_symlink()]
        assert kept == (["lib", "abs"] if keep else [])
        assert (root / "usr/lib/x").exists() == keep


def test_a_dirlink_never_leaves_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir(mode=0o700)
    put(root, symlink("d", "../outside"))
    put(root, folder("d", mode=0o777), file("d/x"), keep_dirlinks=True)
    assert not list(outside.iterdir())
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    assert (root / "d/x").is_file()


@pytest.mark.parametrize("openat2", [True, False])
def test_what_is_additive_takes_the_place_of_files_and_of_nothing_else(
    tmp_path: Path, openat2: bool
) -> None:
    put(tmp_path, file("d/mine", b"mine"), file("f", b"old"), symlink("l", "d"), symlink("to", "n"))
    before = listing(tmp_path, times=False)
    for way, members in {
        "a directory": [[file("d")], [symlink("d", "f")], [file("x"), link("d", "x")], [fifo("d")]],
        "no directory": [[folder("f")], [folder("l")], [file("f/x")], [folder("f/x")]],
    }.items():
        for wanted in members:
            with pytest.raises(StorageError, match=f"{way} is in the way"):
                put(tmp_path, *wanted, additive=True, openat2=openat2)
            (tmp_path / "x").unlink(missing_ok=True)
            assert listing(tmp_path, times=False) == before
    put(tmp_path, file("f", b"new"), additive=True, openat2=openat2)
    put(tmp_path, file("l/x"), file("to/x"), file("d/.wh.mine"), additive=True, openat2=openat2)
    put(tmp_path, file("d/.wh..wh..opq"), folder("d"), additive=True, openat2=openat2)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path / "d")) == [".wh..wh..opq", ".wh.mine", "mine", "x"]
    assert os.listdir(tmp_path / "n") == ["x"]


# --- bad names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a" * 256, "a/" * 1500 + "f", "d/" + "b" * 300 + "/f"])
def test_names_no_file_system_takes_are_told_with_their_entry(name: str, tmp_path: Path) -> None:
    # storage: TestApplyLayerInvalidFilenames, TestUntarInvalidFilenames
    with pytest.raises(InvalidLayerError, match=r"^entry '"):
        put(tmp_path, file(name))


def test_deep_trees_made_through_links_are_removed_again(tmp_path: Path) -> None:
    deep = "d/" * 200
    with RootFS.create(tmp_path / "root", Options(limits=Limits())) as root:
        root.apply(io.BytesIO(tar(folder(deep), symlink("l", deep + "x"), folder("l/" + deep), symlink("m", "l/" + deep), folder("m/" + deep))))  # fmt: skip
        root.apply(io.BytesIO(tar(file(".wh.d"))))
        assert sorted(os.listdir(tmp_path / "root")) == ["l", "m"]


def test_names_are_bytes(tmp_path: Path) -> None:  # umoci repack.bats [unicode]
    put(tmp_path, file(b"latin-\xe9"), file("grün/ñ"), file(b"new\nline"))
    assert os.path.exists(os.fsencode(tmp_path) + b"/latin-\xe9")
    assert (tmp_path / "grün/ñ").exists()


def test_a_socket_in_the_way_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
    put(tmp_path, file("s", b"x"))
    assert (tmp_path / "s").read_bytes() == b"x"


def test_a_file_among_the_parents_of_a_whiteout_is_no_matter(tmp_path: Path) -> None:
    # storage: TestChrootApplyDotDotFile
    put(tmp_path, file("f"), file("..gitme"))
    put(tmp_path, file("f/.wh.x"), file("..gitme/.wh.y"), file("f/.wh..wh..opq"))
    assert sorted(os.listdir(tmp_path)) == ["..gitme", "f"]


@pytest.mark.parametrize("name", ["", ".", "./"])
def test_what_would_take_the_root_away_is_named(name: str, tmp_path: Path) -> None:
    with (
        RootFS(tmp_path) as root,
        pytest.raises(
            InvalidLayerError, match=rf"^layer 3: entry '{name}': the root must stay a directory$"
        ),
    ):
        root.apply(io.BytesIO(tar(file("a"), file(name))), layer="layer 3")


def test_what_is_wrong_with_an_entry_is_not_said_of_the_one_before_it(tmp_path: Path) -> None:
    layer = tar(file("first"))[:-1024] + patched(tar(file("second")), 156, b"Q")
    with (
        RootFS(tmp_path) as root,
        pytest.raises(InvalidLayerError, match=r"^layer 3: entry 'second': type"),
    ):
        root.apply(io.BytesIO(layer), layer="layer 3")
