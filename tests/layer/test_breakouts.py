"""The cases of containerd's `TestBreakouts`, by name, each with `openat2` and with the walk in its place."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.errors import InvalidLayerError
from tests.layer.making import Member, file, folder, link, put, symlink

Check = Callable[[Path], bool]

ETC = [folder("etc", mode=0o770), file("/etc/passwd", b"inside")]
BASE = [folder("etc"), file("etc/passwd", b"inside")]


def same(one: str, other: str) -> Check:
    def check(root: Path) -> bool:
        def inside(name: str) -> str:
            path = root / name
            while path.is_symlink():
                path = root / re.sub(r"^(\.\./)*/?", "", os.readlink(path))
            parent = path.parent
            if parent.is_symlink():
                path = root / os.readlink(parent).lstrip("./") / path.name
            return str(path)

        return os.path.samestat(os.lstat(inside(one)), os.lstat(inside(other)))

    return check


def holds(name: str, text: bytes) -> Check:
    return lambda root: (root / name).read_bytes() == text


def absent(name: str) -> Check:
    return lambda root: not os.path.lexists(root / name)


def both(*checks: Check) -> Check:
    return lambda root: all(check(root) for check in checks)


UNBROKEN = holds("etc/unbroken", b"unbroken")
LINKED = same("localpasswd", "etc/passwd")

CASES: dict[str, tuple[list[Member], list[Member], Check]] = {
    "SymlinkAbsolute": (
        [],
        [folder("etc"), symlink("localetc", "/etc"), file("/localetc/unbroken", b"unbroken")],
        UNBROKEN,
    ),
    "SymlinkUpAndOut": (
        [],
        [folder("etc"), folder("dummy"), symlink("localetc", "/dummy/../etc"), file("/localetc/unbroken", b"unbroken")],
        UNBROKEN,
    ),
    "SymlinkMultipleAbsolute": (
        [],
        [folder("etc"), folder("dummy"), symlink("/dummy/etc", "/etc"), symlink("localetc", "/dummy/etc"), file("/localetc/unbroken", b"unbroken")],
        UNBROKEN,
    ),
    "SymlinkMultipleRelative": (
        [],
        [folder("etc"), folder("dummy"), symlink("/dummy/etc", "/etc"), symlink("localetc", "./dummy/etc"), file("/localetc/unbroken", b"unbroken")],
        UNBROKEN,
    ),
    "SymlinkEmptyFile": (
        [],
        [folder("etc"), file("etc/emptied", b"notempty"), symlink("localetc", "/etc"), file("/localetc/emptied")],
        holds("etc/emptied", b""),
    ),
    "HardlinkRelative": (
        [],
        [*ETC, folder("breakouts"), symlink("breakouts/d1", "../../etc"), link("breakouts/mypasswd", "/breakouts/d1/passwd")],
        same("breakouts/mypasswd", "etc/passwd"),
    ),
    "HardlinkDownAndOut": (
        [],
        [*ETC, folder("breakouts"), folder("downandout"), symlink("breakouts/d1", "../downandout/../../etc"), link("breakouts/mypasswd", "/breakouts/d1/passwd")],
        same("breakouts/mypasswd", "etc/passwd"),
    ),
    "HardlinkAbsolute": ([], [*ETC, symlink("localetc", "/etc"), link("localpasswd", "/localetc/passwd")], LINKED),
    "HardlinkRelativeLong": (
        [],
        [*ETC, symlink("localetc", "../../../../../../../etc"), link("localpasswd", "/localetc/passwd")],
        LINKED,
    ),
    "HardlinkRelativeUpAndOut": (
        [],
        [*ETC, folder("upandout"), symlink("localetc", "upandout/../../../etc"), link("localpasswd", "/localetc/passwd")],
        LINKED,
    ),
    "HardlinkDirectRelative": ([], [*ETC, link("localpasswd", "../../../../../etc/passwd")], LINKED),
    "HardlinkDirectAbsolute": ([], [*ETC, link("localpasswd", "/etc/passwd")], LINKED),
    "SymlinkParentRelative": (
        [],
        [*ETC, symlink("localetc/sub/..", "/etc/"), link("/localetc/localpasswd", "/etc/passwd")],
        same("etc/localpasswd", "etc/passwd"),
    ),
    "SymlinkSlashEnded": (
        [],
        [*ETC, folder("localetc/"), link("/localetc/localpasswd", "/etc/passwd")],
        same("localetc/localpasswd", "etc/passwd"),
    ),
    "SymlinkOverrideDirectory": (
        [*BASE, folder("localetc")],
        [symlink("localetc", "/etc"), link("/localetc/localpasswd", "/etc/passwd")],
        same("etc/localpasswd", "etc/passwd"),
    ),
    "SymlinkOverrideDirectoryRelative": (
        [*BASE, folder("localetc")],
        [symlink("localetc", "../../etc"), link("/localetc/localpasswd", "/etc/passwd")],
        same("etc/localpasswd", "etc/passwd"),
    ),
    "DirectoryOverrideSymlink": (
        [*BASE, symlink("localetc", "/etc")],
        [folder("localetc/"), link("/localetc/localpasswd", "/etc/passwd")],
        both(same("localetc/localpasswd", "etc/passwd"), absent("etc/localpasswd")),
    ),
    "DirectoryOverrideSymlinkAndHardlink": (
        [*BASE, symlink("localetc", "etc"), link("/localetc/localpasswd", "/etc/passwd")],
        [folder("localetc/"), file("/localetc/localpasswd", b"different")],
        both(holds("localetc/localpasswd", b"different"), holds("etc/passwd", b"inside")),
    ),
    "WhiteoutSymlink": (
        [*BASE, symlink("localetc", "/etc")],
        [file(".wh.localetc")],
        both(holds("etc/passwd", b"inside"), absent("localetc")),
    ),
    "WhiteoutSymlinkPath": (
        [*BASE, file("etc/whitedout", b"ahhhh whiteout"), symlink("localetc", "/etc")],
        [file("localetc/.wh.whitedout")],
        both(holds("etc/passwd", b"inside"), absent("etc/whitedout")),
    ),
    "WhiteoutDirectoryName": (
        [*BASE],
        [file(".wh.etc/somefile", b"non-empty")],
        both(holds("etc/passwd", b"inside"), holds(".wh.etc/somefile", b"non-empty")),
    ),
    "WhiteoutDeadSymlinkParent": (
        [*BASE, symlink("localetc", "/dne")],
        [file("localetc/.wh.etc")],
        holds("etc/passwd", b"inside"),
    ),
    "WhiteoutRelativePath": ([*BASE, symlink("localetc", "/dne")], [file("dne/../.wh.etc")], absent("etc/passwd")),
    "HardlinkSymlinkBeforeCreateTarget": (
        [],
        [folder("etc", mode=0o770), symlink("localpasswd", "/etc/passwd"), link("localpasswd-dup", "localpasswd"), file("/etc/passwd", b"after")],
        lambda root: os.readlink(root / "localpasswd-dup") == "/etc/passwd",
    ),
    "HardlinkSymlinkRelative": (
        [],
        [*ETC, symlink("passwdlink", "../../../../../etc/passwd"), link("localpasswd", "/passwdlink")],
        lambda root: os.readlink(root / "localpasswd") == "../../../../../etc/passwd",
    ),
    "HardlinkSymlinkAbsolute": (
        [],
        [*ETC, symlink("passwdlink", "/etc/passwd"), link("localpasswd", "/passwdlink")],
        lambda root: os.readlink(root / "localpasswd") == "/etc/passwd",
    ),
    "SymlinkOverridePath": (
        [*BASE, folder("a/b"), file("a/b/c", b"kept")],
        [symlink("a", "etc"), file("a/new", b"there")],
        both(holds("etc/new", b"there"), absent("etc/b")),
    ),
}  # fmt: skip

REFUSED: dict[str, list[Member]] = {
    "SymlinkParentDirectory": [*ETC, symlink("..", "/etc/"), link("localpasswd", "/etc/passwd")],
    "SymlinkEmptyFilename": [*ETC, symlink("", "/etc/"), link("localpasswd", "/etc/passwd")],
    "WhiteoutRootParent": [file(".wh...")],
    "WhiteoutParent": [file("etc/.wh...")],
    "WhiteoutRoot": [file(".wh..")],
    "WhiteoutCurrentDirectory": [file("etc/.wh..")],
    "WhiteoutEmptyName": [file("etc/.wh.")],
}


@pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])
@pytest.mark.parametrize("name", CASES)
def test_a_layer_that_would_break_out_stays_inside(
    name: str, openat2: bool, tmp_path: Path
) -> None:
    lower, upper, check = CASES[name]
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "etc").mkdir()
    put(root, *lower, openat2=openat2)
    put(root, *upper, openat2=openat2)
    assert check(root)
    assert not list((tmp_path / "etc").iterdir())
    assert sorted(os.listdir(tmp_path)) == ["etc", "root"]


@pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "walk"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_layer_that_would_change_the_root_or_its_parent_is_refused(
    name: str, openat2: bool, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    put(root, *BASE)
    with pytest.raises(InvalidLayerError):
        put(root, *REFUSED[name], openat2=openat2)
    assert (root / "etc/passwd").read_bytes() == b"inside"
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_hardlink_symlink_chmod(
    tmp_path: Path,
) -> None:  # containerd: TestBreakouts HardlinkSymlinkChmod
    root, outside = tmp_path / "root", tmp_path / "perm400"
    root.mkdir()
    outside.write_bytes(b"...")
    outside.chmod(0o400)
    put(root, symlink("exists", str(outside)), link("sketchylink", "exists", mode=0o777))
    assert outside.stat().st_mode & 0o777 == 0o400


def test_a_loop_of_links_is_told_with_its_entry(tmp_path: Path) -> None:
    with pytest.raises(InvalidLayerError, match="entry 'a/f': too many levels of symbolic links"):
        put(tmp_path, symlink("a", "b"), symlink("b", "a"), file("a/f"))
