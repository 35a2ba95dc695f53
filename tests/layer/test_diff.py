"""What has changed, as a layer. Names in comments are those of containerd's and umoci's tests."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from argosy.errors import InvalidLayerError
from argosy.layer.compression import Compression
from argosy.layer.compressor import Compressor
from argosy.layer.diff import ChangeKind
from argosy.layer.entry import Entry, EntryType
from argosy.layer.idmap import IdMap
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.snapshot import Snapshot
from argosy.layer.tarstream import TarReader
from tests.layer.making import (
    NOON,
    fifo,
    file,
    folder,
    link,
    listing,
    needs_root,
    put,
    symlink,
    take,
)


def snap(path: Path, **options: Any) -> Snapshot:
    with RootFS(path, Options(**options)) as root:
        return root.snapshot()


def shown(layer: bytes) -> list[str]:
    """Names, links as `name -> target`; the root's own entry is left out."""
    found = []
    for entry in TarReader(io.BytesIO(layer)):
        arrow = f" -> {entry.linkname.decode()}" if entry.type is EntryType.HARDLINK else ""
        found.append(entry.name.decode() + arrow)
    return [name for name in found if name != "./"]


def changed(tmp_path: Path, before: list[Any], change: Callable[[Path], object]) -> list[str]:
    put(tmp_path, *before)
    since = snap(tmp_path)
    change(tmp_path)
    return shown(take(tmp_path, since))


def test_nothing_changed_is_no_layer(tmp_path: Path) -> None:  # EmptyDiff; repack.bats, empty diff
    put(tmp_path, folder("etc"), file("etc/f"), symlink("l", "etc"), fifo("p"))
    since = snap(tmp_path)
    assert take(tmp_path, since) == b""
    assert take(tmp_path, Snapshot.decode(since.encode())) == b""


def test_parents_are_included(tmp_path: Path) -> None:  # ParentInclusion
    def change(root: Path) -> None:
        (root / "d1/d").mkdir(mode=0o700)
        (root / "d2/f").write_bytes(b"ok")

    assert changed(tmp_path, [folder("d1"), folder("d2")], change) == [
        "d1/",
        "d1/d/",
        "d2/",
        "d2/f",
    ]


def test_content_that_changes_behind_equal_times_is_found_with_its_parents(tmp_path: Path) -> None:
    def change(root: Path) -> None:
        (root / "a/b/f").write_bytes(b"new")
        os.utime(root / "a/b/f", ns=(NOON, NOON))

    assert changed(tmp_path, [folder("a/b"), file("a/b/f", b"old")], change) == [
        "a/",
        "a/b/",
        "a/b/f",
    ]


def test_a_restored_copy_has_not_changed(tmp_path: Path) -> None:
    root, copy = tmp_path / "root", tmp_path / "copy"
    root.mkdir()
    put(root, folder("d"), file("d/f", b"x"), link("d/g", "d/f"))
    since = snap(root)
    shutil.copytree(root, copy, copy_function=shutil.copy2)
    (copy / "d/g").unlink()
    os.link(copy / "d/f", copy / "d/g")
    for name in ("d", "."):
        os.utime(copy / name, ns=(NOON, (root / name).stat().st_mtime_ns))
    assert shown(take(copy, since)) == []


def test_a_new_name_of_a_file_brings_the_others_along(
    tmp_path: Path,
) -> None:  # HardlinkParentInclusion
    def change(root: Path) -> None:
        os.link(root / "d1/f1", root / "d2/l1")
        (root / "d6/l1").unlink()
        (root / "d6/l2").unlink()

    before = [
        file("d1/f1", b"link me"),
        folder("d2"),
        file("d5/f1", b"x"),
        link("d6/l1", "d1/f1"),
        link("d6/l2", "d5/f1"),
    ]
    assert changed(tmp_path, before, change) == [
        "d1/", "d1/f1", "d2/", "d2/l1 -> d1/f1", "d6/", "d6/.wh.l1", "d6/.wh.l2",
    ]  # fmt: skip


def test_permissions_of_directories_are_changes(
    tmp_path: Path,
) -> None:  # UpdateDirectoryPermission, HardlinkUpdatedParent
    def change(root: Path) -> None:
        (root / "d1").chmod(0o777)
        os.link(root / "d1/f", root / "d2/l")

    before = [folder("d1"), file("d1/f"), folder("d2")]
    assert changed(tmp_path, before, change) == ["d1/", "d1/f", "d2/", "d2/l -> d1/f"]


def test_whiteouts_come_before_their_siblings_and_after_their_parents(tmp_path: Path) -> None:
    # WhiteoutIncludesParents, WhiteoutParentRemoval
    def change(root: Path) -> None:
        (root / "d1/f1").unlink()
        (root / "d2/f1").unlink()
        (root / "d2/f0").write_bytes(b"new")
        shutil.rmtree(root / "d3")
        (root / "a").mkdir()

    before = [file("d1/f1"), file("d2/f1"), file("d2/f2"), file("d3/x/y")]
    assert changed(tmp_path, before, change) == [
        ".wh.d3",
        "a/",
        "d1/",
        "d1/.wh.f1",
        "d2/",
        "d2/.wh.f1",
        "d2/f0",
    ]


def test_a_change_of_type_needs_no_whiteout(tmp_path: Path) -> None:
    def change(root: Path) -> None:
        shutil.rmtree(root / "d")
        (root / "d").write_bytes(b"file now")
        (root / "f").unlink()
        (root / "f").mkdir()
        (root / "f/x").touch()

    assert changed(tmp_path, [file("d/a/b"), file("f")], change) == ["d", "f/", "f/x"]


def test_sockets_are_left_out_and_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # IgnoreSockets
    since = snap(tmp_path)
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("s")
    (tmp_path / "f").touch()
    warnings: list[str] = []
    assert shown(take(tmp_path, since, warn=warnings.append)) == ["f"]
    assert warnings == ["'s': a socket cannot be in a layer"]


def test_a_sparse_file_is_written_whole(tmp_path: Path) -> None:
    # layer.md: "Sparse files SHOULD NOT be used"
    (tmp_path / "f").touch()
    os.truncate(tmp_path / "f", 1 << 16)
    [entry] = [e for e in TarReader(io.BytesIO(take(tmp_path))) if e.name == b"f"]
    assert (entry.size, entry.sparse) == (1 << 16, None)


def test_names_that_cease_to_be_one_file_are_written_apart(tmp_path: Path) -> None:
    def change(root: Path) -> None:
        (root / "b").unlink()
        (root / "b").write_bytes(b"x")
        os.utime(root / "b", ns=(NOON, NOON))

    assert changed(tmp_path, [file("a", b"x"), link("b", "a")], change) == ["a", "b"]


def test_a_file_of_many_names_is_compared_once_and_not_for_each_of_them(tmp_path: Path) -> None:
    class Name(bytes):
        hashed = 0

        def __hash__(self) -> int:
            Name.hashed += 1
            return super().__hash__()

    def hashed(count: int) -> int:
        root = tmp_path / str(count)
        root.mkdir()
        put(root, file("a"), *(link(f"b{i}", "a") for i in range(count)))
        before = Snapshot({Name(path): inode for path, inode in snap(root).inodes.items()})
        Name.hashed = 0
        with RootFS(root) as tree:
            assert list(tree.diff(before)) == []
        return Name.hashed

    assert hashed(200) < 3 * hashed(100)


def test_hard_links_are_known_by_device_and_inode(tmp_path: Path) -> None:
    # umoci keys inodes alone: files of two file systems with one number would become one
    from argosy.layer.diff import Change, layer_entries
    from argosy.layer.resolve import Resolver
    from argosy.layer.snapshot import Inode

    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        node = Inode(stat.S_IFIFO | 0o644, 0, 0, 0, 0, 0, device=1, number=7, links=2, rdev=0)
        twin = Inode(stat.S_IFIFO | 0o644, 0, 0, 0, 0, 0, device=2, number=7, links=2, rdev=0)
        changes = [
            Change(name, ChangeKind.ADDED, n)
            for name, n in ((b"a", node), (b"b", twin), (b"c", node))
        ]
        kinds = [entry.type for entry, _ in layer_entries(changes, Resolver(fd), Options())]
        assert kinds == [EntryType.FIFO, EntryType.FIFO, EntryType.HARDLINK]
    finally:
        os.close(fd)


def test_a_links_target_outside_the_changes_is_not_named(tmp_path: Path) -> None:
    # layer.md: "may be outside the directory ..., in which case the linkname is not recorded"
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"x")
    os.link(tmp_path / "outside", root / "f")
    assert shown(take(root)) == ["f"]


@needs_root
def test_owners_attributes_and_devices_are_taken(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    (tmp_path / "f").write_bytes(b"x")
    os.chown(tmp_path / "f", 5, 6)
    os.chmod(tmp_path / "f", 0o4750)
    os.setxattr(tmp_path / "f", "security.capability", capability)
    os.setxattr(tmp_path / "f", "user.empty", b"")
    entry = {e.name: e for e in TarReader(io.BytesIO(take(tmp_path)))}[b"f"]
    assert (entry.uid, entry.gid, entry.mode) == (5, 6, 0o4750)
    assert entry.xattrs == {b"security.capability": capability, b"user.empty": b""}


@needs_root
def test_an_attribute_whose_name_no_tar_can_hold_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, file("f"))
    os.setxattr(tmp_path / "f", "user.a=b", b"val")
    os.setxattr(tmp_path / "f", "user.a", b"kept")
    warnings: list[str] = []
    [entry] = [
        e
        for e in TarReader(io.BytesIO(take(tmp_path, warn=warnings.append)))
        if e.size == 0 and e.name == b"f"
    ]
    assert entry.xattrs == {b"user.a": b"kept"}
    assert warnings == ["'f': an attribute 'user.a=b' cannot be in a layer, left out"]


def test_ids_are_mapped_back_and_an_unmapped_one_is_named(
    tmp_path: Path,
) -> None:  # umoci: TestUnmapRootless
    ids = IdMap.parse("0:1000:10")
    for number, name in ((1000, "a"), (1009, "b")):
        (tmp_path / name).touch()
        os.chown(tmp_path / name, number, number)
    os.chown(tmp_path, 1000, 1000)
    owners = {e.name: e.uid for e in TarReader(io.BytesIO(take(tmp_path, uids=ids, gids=ids)))}
    assert owners == {b"./": 0, b"a": 0, b"b": 9}
    os.chown(tmp_path / "b", 1010, 1000)
    with pytest.raises(InvalidLayerError, match="'b': uid 1010 of the host is not in the id map"):
        take(tmp_path, uids=ids, gids=ids)


def test_masked_paths_are_left_out(tmp_path: Path) -> None:  # repack.bats [volumes], --mask-path
    put(tmp_path, file("vol/old"), file("volume"), file("x/vol"))
    since = snap(tmp_path)
    (tmp_path / "vol/old").unlink()
    (tmp_path / "vol/new").touch()
    (tmp_path / "volume").write_bytes(b"1")
    (tmp_path / "x/vol").write_bytes(b"1")
    assert shown(take(tmp_path, since, masks=["/vol/"])) == ["volume", "x/", "x/vol"]


def test_times_are_whole_seconds_and_at_most_the_epoch(tmp_path: Path) -> None:
    # umoci: TestTarGenerateSourceDateEpoch*; containerd: TestSourceDateEpoch; source_date_epoch.bats
    (tmp_path / "new").touch()
    (tmp_path / "old").touch()
    os.utime(tmp_path / "new", ns=(0, 2_000_000_000_999_999_999))
    os.utime(tmp_path / "old", ns=(0, 1_000_000_000_999_999_999))
    for epoch, wanted in ((None, 2_000_000_000), (1_500_000_000, 1_500_000_000)):
        entries = {
            e.name: e for e in TarReader(io.BytesIO(take(tmp_path, source_date_epoch=epoch)))
        }
        assert entries[b"new"].mtime == wanted * 10**9
        assert entries[b"old"].mtime == 1_000_000_000 * 10**9


def test_a_name_that_looks_like_a_whiteout_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / ".wh.x").touch()
    with pytest.raises(InvalidLayerError, match=r"begins with .wh."):
        take(tmp_path)


def test_a_snapshot_of_something_else_is_refused() -> None:
    for raw in (
        b"",
        b"{}",
        b'"argosy snapshot 1"\n[1]',
        b'"argosy snapshot 1"\n["a",[1],"",{},null]',
    ):
        with pytest.raises(InvalidLayerError, match="not a snapshot"):
            Snapshot.decode(raw)


def test_a_layer_of_a_whole_tree_makes_the_tree_again(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    put(
        one,
        folder(".", mode=0o711),
        folder("d", mode=0o1777),
        file("d/f", b"x" * 1000),
        link("d/g", "d/f"),
    )
    put(one, symlink("l", "d/f"), fifo("p"), file(b"odd \xff", b"", mode=0))
    layer = take(one)
    with RootFS(two) as root:
        root.apply(io.BytesIO(layer))
    assert listing(one) == listing(two)
    assert take(one) == layer


@pytest.mark.parametrize("compression", list(Compression))
def test_a_layer_written_twice_has_one_digest(compression: Compression, tmp_path: Path) -> None:
    put(tmp_path, folder("d"), *[file(f"d/{n}", os.urandom(50_000)) for n in range(60)])
    seen = set()
    for _ in range(2):
        with RootFS(tmp_path) as root, Compressor(io.BytesIO(), compression) as out:
            root.write_layer(root.diff(), out)
        seen.add((out.written.digest, out.written.diff_id))
    assert len(seen) == 1


def test_changes_say_what_they_are(tmp_path: Path) -> None:
    put(tmp_path, folder("d"), file("d/f"), file("gone"))
    since = snap(tmp_path)
    (tmp_path / "d/f").write_bytes(b"x")
    (tmp_path / "new").touch()
    (tmp_path / "gone").unlink()
    with RootFS(tmp_path) as root:
        kinds = {change.path: change.kind for change in root.diff(since) if change.path}
    assert kinds == {
        b"gone": ChangeKind.DELETED,
        b"d": ChangeKind.INCLUDED,
        b"d/f": ChangeKind.MODIFIED,
        b"new": ChangeKind.ADDED,
    }


def test_an_entry_is_a_value() -> None:
    assert Entry(name=b"a") == Entry(name=b"a")


def test_the_difference_of_a_tree_as_large_as_a_distribution(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    members = [
        member
        for top in range(300)
        for member in (
            folder(f"usr/{top}"),
            *(file(f"usr/{top}/{n}", b"%d" % (n * top)) for n in range(30)),
            symlink(f"usr/{top}/link", "0"),
            link(f"usr/{top}/hard", f"usr/{top}/1"),
        )
    ]
    for path in (old, new):
        path.mkdir()
        put(path, folder("."), *members)
    with RootFS(new) as root:
        since = root.snapshot()
        for top in range(0, 300, 3):
            shutil.rmtree(new / f"usr/{top}") if top % 2 else (new / f"usr/{top}/hard").unlink()
            (new / f"usr/{top + 1}/5").write_bytes(b"changed")
            (new / f"usr/{top + 2}/new").hardlink_to(new / f"usr/{top + 2}/2")
        out = io.BytesIO()
        root.write_layer(root.diff(since), out)
    with RootFS(old) as root:
        root.apply(io.BytesIO(out.getvalue()))
    assert listing(old) == listing(new)
