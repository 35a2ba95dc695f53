"""Links, owners, attributes and times that a changeset gives to files.

Names in comments are those of the tests of other tools whose counterpart a test is.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from argosy.errors import InvalidLayerError, StorageError
from argosy.layer.idmap import IdMap
from argosy.layer.rootfs import RootFS
from tests.layer.making import (
    NOON,
    block,
    char,
    fifo,
    file,
    folder,
    link,
    needs_root,
    put,
    symlink,
)

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
def test_names_of_owners_do_not_count_where_there_are_numbers(tmp_path: Path) -> None:
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        info = tarfile.TarInfo("f")
        info.uid, info.gid, info.uname, info.gname = 11, 12, "root", "root"
        archive.addfile(info)
    with RootFS(tmp_path) as root:
        root.apply(io.BytesIO(layer.getvalue()))
    status = (tmp_path / "f").stat()
    assert (status.st_uid, status.st_gid) == (11, 12)


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
    with pytest.raises(InvalidLayerError, match="outside what Linux has"):
        put(tmp_path, char("big", device=(0, 1 << 20)))


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


@pytest.mark.parametrize("version", ["oldgnu", "0.0", "0.1", "1.0"])
def test_a_file_that_is_all_hole_is_one(version: str, tmp_path: Path) -> None:
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 20)
    (tmp_path / "next").write_bytes(b"next")
    how = ["--format=gnu"] if version == "oldgnu" else ["--format=posix"]
    how += [] if version == "oldgnu" else [f"--sparse-version={version}"]
    data = subprocess.check_output(["tar", "-S", *how, "-C", tmp_path, "-c", "hole", "next"])
    (tmp_path / "root").mkdir()
    with RootFS(tmp_path / "root") as root:
        root.apply(io.BytesIO(data))
    made = (tmp_path / "root/hole").stat()
    assert (made.st_size, made.st_blocks) == (1 << 20, 0)
    assert (tmp_path / "root/next").read_bytes() == b"next"


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
