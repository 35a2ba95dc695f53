"""A changeset on a root: what replaces what, whose metadata it is, and what whiteouts take away.

Names in comments are those of the tests of other tools whose counterpart a test is.
"""

from __future__ import annotations

import io
import os
import socket
import stat
import struct
import subprocess
from pathlib import Path

import pytest

from argosy.errors import DigestMismatchError, InvalidLayerError, StorageError
from argosy.layer.entry import Limits
from argosy.layer.idmap import IdMap
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.spec.digest import Digest
from tests.layer.making import (
    NOON,
    block,
    char,
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


# --- hard links -----------------------------------------------------------------------------------------------------


def test_hard_links_are_one_file_with_the_metadata_of_the_first(
    tmp_path: Path,
) -> None:  # umoci: TestUnpackHardlink
    put(
        tmp_path,
        file("a", b"x", mode=0o640, mtime=NOON),
        link("b", "a", mode=0o777, mtime=1),
        symlink("s", "a"),
        link("t", "s"),
        link("u", "./../b"),
    )
    assert (tmp_path / "a").samefile(tmp_path / "u")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert (tmp_path / "a").stat().st_mtime_ns == NOON
    # storage: TestUntarHardlinkToSymlink
    assert os.readlink(tmp_path / "t") == "a"
    assert os.lstat(tmp_path / "t").st_ino == os.lstat(tmp_path / "s").st_ino


def test_a_hard_link_to_nothing_or_to_a_directory_is_refused(tmp_path: Path) -> None:
    # storage: TestApplyLayerInvalidHardlink, TestUntarInvalidHardlink
    put(tmp_path, folder("d"), file("f"))
    for target in ("none", "none/x", "f/x", "d", "/", "../../../../etc/hostname-of-nobody"):
        with pytest.raises(InvalidLayerError, match="a hard link to"):
            put(tmp_path, link("l", target))
    with pytest.raises(InvalidLayerError, match="takes the place of its target"):
        put(tmp_path, folder("p"), file("p/f"), link("p", "p/f"))


def test_a_hard_link_to_itself_is_left_as_it_is(tmp_path: Path) -> None:
    put(tmp_path, file("f", b"x"), link("f", "f"))
    assert (tmp_path / "f").read_bytes() == b"x"


def test_symbolic_links_must_lead_somewhere(tmp_path: Path) -> None:
    # storage: TestApplyLayerInvalidSymlink, TestUntarInvalidSymlink
    with pytest.raises(InvalidLayerError, match="entry 'l': a symbolic link must lead somewhere"):
        put(tmp_path, symlink("l", ""))


# --- metadata -------------------------------------------------------------------------------------------------------


@needs_root
def test_owners_do_not_cost_set_id_bits_or_capabilities(tmp_path: Path) -> None:
    # umoci unpack.bats [setuid], [setcap]
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    put(
        tmp_path,
        file("suid", b"x", mode=0o6755, uid=1, gid=2, xattrs={b"security.capability": capability}),
        folder("sgid", mode=0o2755, uid=1, gid=2),
        file("sgid/f", uid=3, gid=4),
    )
    status = (tmp_path / "suid").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1, 2, 0o6755)
    assert os.getxattr(tmp_path / "suid", "security.capability") == capability
    assert (tmp_path / "sgid/f").stat().st_gid == 4


@needs_root
def test_a_directory_that_gives_its_group_does_not_change_whose_its_files_are(
    tmp_path: Path,
) -> None:
    put(
        tmp_path,
        folder("d", mode=0o2755, gid=50),
        *(file(f"d/first{gid}", gid=gid) for gid in (50, 0, 60, 50, 60)),
        folder("d", mode=0o2755, gid=60),
        *(file(f"d/then{gid}", gid=gid) for gid in (50, 0, 60, 50, 60)),
        folder("d", mode=0o755, gid=60),
        *(file(f"d/last{gid}", gid=gid, uid=7) for gid in (50, 0, 60, 50, 60)),
    )
    for path in (tmp_path / "d").iterdir():
        assert path.name.endswith(str(path.stat().st_gid)), path.name
        assert path.stat().st_uid == (7 if path.name.startswith("last") else 0)


@needs_root
def test_devices_are_made(tmp_path: Path) -> None:  # umoci unpack.bats [mknod]
    try:
        put(
            tmp_path,
            char("null", device=(1, 3), mode=0o666),
            block("loop", device=(7, 0), mode=0o660, gid=6),
        )
    except StorageError as error:
        pytest.skip(f"device nodes: {error}")
    null, loop = os.lstat(tmp_path / "null"), os.lstat(tmp_path / "loop")
    assert (null.st_mode, null.st_rdev) == (stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert (loop.st_mode, loop.st_rdev, loop.st_gid) == (stat.S_IFBLK | 0o660, os.makedev(7, 0), 6)
    with pytest.raises(InvalidLayerError, match="outside what Linux has"):
        put(tmp_path, char("big", device=(4096, 0)))


@needs_root
def test_ids_are_mapped_and_an_unmapped_one_is_named(tmp_path: Path) -> None:
    # umoci: TestUnpackEntryMap, TestMapRootless, pack_mapping.bats
    ids = IdMap.parse("0:1000:10", "100:5000:1")
    members = [
        file("a", uid=0, gid=9),
        symlink("l", "a", uid=100, gid=100),
        folder("d", uid=3, gid=3),
        file("i/j"),
    ]
    put(tmp_path, *members, uids=ids, gids=ids)
    assert [(s.st_uid, s.st_gid) for s in map(os.lstat, (tmp_path / n for n in "aldi"))] == [
        (1000, 1009), (5000, 5000), (1003, 1003), (1000, 1000),
    ]  # fmt: skip
    with pytest.raises(
        InvalidLayerError, match="entry 'b': uid 10 of the container is not in the id map"
    ):
        put(tmp_path, file("b", uid=10), uids=ids, gids=ids)


def test_attributes_are_set_byte_for_byte_and_old_ones_removed(tmp_path: Path) -> None:
    # umoci repack.bats [xattrs]; storage: TestTarUntarWithXattr
    value = bytes(range(256))
    put(
        tmp_path,
        file("f", xattrs={b"user.a": b"1", b"user.b": b""}),
        folder("d", xattrs={b"user.d": value}),
    )
    assert os.getxattr(tmp_path / "f", "user.b") == b""
    assert os.getxattr(tmp_path / "d", "user.d") == value
    put(tmp_path, file("f", xattrs={b"user.c": value}), folder("d"))
    assert os.listxattr(tmp_path / "f") == ["user.c"]
    assert os.listxattr(tmp_path / "d") == []


@needs_root
def test_attributes_of_the_host_are_left_alone(tmp_path: Path) -> None:
    # umoci: TestUnpackGenerateRoundTrip_MockedSELinux
    put(
        tmp_path,
        file(
            "f", xattrs={b"security.selinux": b"label", b"system.nfs4_acl": b"x", b"user.k": b"v"}
        ),
    )
    assert os.listxattr(tmp_path / "f") == ["user.k"]


@needs_root
def test_a_default_acl_does_not_reach_into_new_files(tmp_path: Path) -> None:
    entries = ((1, 7, -1), (2, 7, 1), (4, 5, -1), (0x10, 7, -1), (0x20, 5, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"ACLs: {error}")
    put(tmp_path, file("f"), folder("d"), file("d/g"))
    assert [os.listxattr(tmp_path / name) for name in ("f", "d", "d/g")] == [[], [], []]


def test_attributes_special_files_cannot_have_are_warned_of(tmp_path: Path) -> None:
    warnings = put(
        tmp_path, fifo("p", xattrs={b"user.x": b"1"}), fifo("q", xattrs={b"user.x": b"1"})
    )
    assert len(warnings) == 1
    assert "user.x" in warnings[0]
    assert stat.S_ISFIFO(os.lstat(tmp_path / "q").st_mode)


def test_times_before_1970_and_fractions_are_kept(tmp_path: Path) -> None:
    put(
        tmp_path,
        file("f", mtime=-(10**9)),
        symlink("l", "f", mtime=5 * 10**9),
        folder("d", mtime=-(2 * 10**9)),
    )
    assert [os.lstat(tmp_path / n).st_mtime for n in "fld"] == [-1, 5, -2]


def test_sparse_files_keep_their_holes(tmp_path: Path) -> None:
    (tmp_path / "holes").write_bytes(b"start")
    os.truncate(tmp_path / "holes", 8 << 20)
    data = subprocess.run(
        ["tar", "-S", "-C", tmp_path, "-c", "holes"], capture_output=True, check=True
    ).stdout
    (tmp_path / "root").mkdir()
    with RootFS(tmp_path / "root") as root:
        root.apply(io.BytesIO(data))
    made = tmp_path / "root/holes"
    assert made.read_bytes() == b"start" + bytes((8 << 20) - 5)
    assert made.stat().st_blocks * 512 < 1 << 20


def test_the_umask_does_not_count(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        put(
            tmp_path,
            file("f", mode=0o666),
            folder("d", mode=0o777),
            fifo("p", mode=0o622),
            file("i/f"),
        )
    finally:
        os.umask(old)
    modes = [stat.S_IMODE(os.lstat(tmp_path / name).st_mode) for name in ("f", "d", "p", "i")]
    assert modes == [0o666, 0o777, 0o622, 0o755]


@needs_root
def test_an_immutable_file_is_told_and_kept(
    tmp_path: Path,
) -> None:  # storage: TestApplyToImmutable
    (tmp_path / "f").write_bytes(b"old")
    if subprocess.run(
        ["chattr", "+i", tmp_path / "f"], check=False, capture_output=True
    ).returncode:
        pytest.skip("chattr +i: not here")
    try:
        with pytest.raises(StorageError, match="entry 'f': operation not permitted"):
            put(tmp_path, file("f", b"new"))
        assert (tmp_path / "f").read_bytes() == b"old"
    finally:
        subprocess.run(["chattr", "-i", tmp_path / "f"], check=True)


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
