"""Whiteouts as overlayfs has them, both ways, and on a real overlay where one can be mounted.

umoci's tests of the same names let a whiteout hide an entry of its own layer; the image-spec says it hides lower layers
only, so here the entry stays, and hides what is below by itself.
"""

from __future__ import annotations

import io
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from argosy.errors import UnsupportedError
from argosy.layer.options import Overlay
from argosy.layer.tarstream import TarReader
from tests.layer.making import char, file, folder, listing, needs_root, put, symlink, take

pytestmark = needs_root

FORMS = pytest.mark.parametrize("overlay", list(Overlay))


def is_plain(path: Path) -> bool:
    status = os.lstat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path, overlay: Overlay) -> bool:
    return os.getxattr(path, overlay.value + b"opaque") == b"y"


def names(layer: bytes) -> list[str]:
    return [entry.name.decode() for entry in TarReader(io.BytesIO(layer))]


@FORMS
def test_a_whiteout_is_a_device(overlay: Overlay, tmp_path: Path) -> None:
    # umoci: TestUnpackEntry_OverlayfsRootfs_Whiteout
    put(tmp_path, file(".wh.gone"), file("file"), file(".wh.file"), overlay=overlay)
    assert is_plain(tmp_path / "gone")
    assert stat.S_ISREG(os.lstat(tmp_path / "file").st_mode)


@FORMS
def test_an_opaque_whiteout_is_an_attribute(overlay: Overlay, tmp_path: Path) -> None:
    # umoci: TestUnpackEntry_OverlayfsRootfs_OpaqueWhiteout
    put(
        tmp_path,
        folder("dir", mtime=5 * 10**9),
        file("dir/f"),
        file("dir/.wh..wh..opq"),
        overlay=overlay,
    )
    assert is_opaque(tmp_path / "dir", overlay)
    assert (tmp_path / "dir/f").exists()
    assert (tmp_path / "dir").stat().st_mtime == 5


@FORMS
def test_whiteouts_make_the_directories_they_need(overlay: Overlay, tmp_path: Path) -> None:
    # umoci: TestUnpackEntry_OverlayfsRootfs_Whiteout_MissingDirs
    put(
        tmp_path,
        file("opaque/a/b/c/.wh..wh..opq"),
        file("plain/a/b/.wh.c"),
        file("nondir"),
        file("nondir/.wh..wh..opq"),
        file(".wh.whiteout"),
        file("whiteout/.wh..wh..opq"),
        overlay=overlay,
    )
    assert is_opaque(tmp_path / "opaque/a/b/c", overlay)
    assert is_plain(tmp_path / "plain/a/b/c")
    assert is_opaque(tmp_path / "nondir", overlay)
    assert is_opaque(tmp_path / "whiteout", overlay)


@FORMS
def test_inside_an_opaque_directory_there_are_no_marks(overlay: Overlay, tmp_path: Path) -> None:
    # umoci: TestUnpackEntry_OverlayfsRootfs_Whiteout_Nested; storage: TestNestedOverlayWhiteouts
    put(
        tmp_path,
        file("inner/foo/bar/.wh.before"),
        file("inner/regfile"),
        file("inner/.wh..wh..opq"),
        file("inner/a/b/.wh.after"),
        file("inner/a/b/regfile"),
        *[file(f"nested/{path}.wh..wh..opq") for path in ("a/b/c/d/", "a/b/", "")],
        overlay=overlay,
    )
    assert not os.path.lexists(tmp_path / "inner/foo/bar/before")
    assert not os.path.lexists(tmp_path / "inner/a/b/after")
    assert (tmp_path / "inner/a/b/regfile").exists()
    assert all(
        is_opaque(tmp_path / path, overlay)
        for path in ("inner", "nested", "nested/a/b", "nested/a/b/c/d")
    )


@FORMS
@pytest.mark.parametrize("implied", [True, False])
def test_a_directory_in_the_place_of_a_whiteout_is_opaque(
    overlay: Overlay, implied: bool, tmp_path: Path
) -> None:
    # umoci: TestUnpackEntry_OverlayfsRootfs_OpaqueWhiteoutConvert
    between = [] if implied else [folder("dir")]
    put(
        tmp_path,
        file(".wh.dir"),
        *between,
        file("dir/foo/bar"),
        file("dir/abc/.wh.x"),
        overlay=overlay,
    )
    assert is_opaque(tmp_path / "dir", overlay)
    assert (tmp_path / "dir/foo/bar").exists()
    assert os.listdir(tmp_path / "dir/abc") == []


@FORMS
def test_a_whiteout_over_a_directory_of_its_layer_makes_it_opaque(
    overlay: Overlay, tmp_path: Path
) -> None:
    put(tmp_path, file("dir/new"), file(".wh.dir"), overlay=overlay)
    assert is_opaque(tmp_path / "dir", overlay)
    assert (tmp_path / "dir/new").exists()


@FORMS
def test_marks_come_back_as_whiteouts(overlay: Overlay, tmp_path: Path) -> None:
    # umoci: TestTranslateOverlayWhiteouts_Char00, _XattrOpaque; storage: TestOverlayTarUntar
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    os.mknod(tmp_path / "gone", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(tmp_path / "dir/gone", stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(tmp_path / "dir", overlay.value + b"opaque", b"y")
    assert names(take(tmp_path, overlay=overlay)) == [
        "./", ".wh.gone", "dir/", "dir/.wh..wh..opq", "dir/.wh.gone", "dir/file",
    ]  # fmt: skip


@FORMS
@pytest.mark.parametrize("mark", [(b"opaque", b"x"), (b"whiteouts", b"y")])
def test_whiteouts_by_attribute_come_back_too(
    overlay: Overlay, mark: tuple[bytes, bytes], tmp_path: Path
) -> None:
    # umoci: TestTranslateOverlayWhiteouts_XattrWhiteout
    for top in ("marked", "unmarked"):
        (tmp_path / top).mkdir()
        (tmp_path / top / "hidden").touch()
        (tmp_path / top / "full").write_bytes(b"x")
        for name in ("hidden", "full"):
            os.setxattr(tmp_path / top / name, overlay.value + b"whiteout", b"")
    os.setxattr(tmp_path / "marked", overlay.value + mark[0], mark[1])
    found = names(take(tmp_path, overlay=overlay))
    assert found == [
        "./",
        "marked/",
        "marked/.wh.hidden",
        "marked/full",
        "unmarked/",
        "unmarked/full",
        "unmarked/hidden",
    ]


@FORMS
def test_attributes_that_look_like_marks_are_escaped_and_come_back(
    overlay: Overlay, tmp_path: Path
) -> None:
    # umoci: TestUnpackGenerateRoundTrip_ComplexXattr_OverlayfsRootfs
    name = overlay.value
    wanted = {
        name + b"opaque": b"y",
        name + b"overlay.opaque": b"z",
        name + b"metacopy": b"",
        b"user.plain": b"1",
    }
    put(tmp_path, folder("d", xattrs=wanted), overlay=overlay)
    on_disk = {os.fsencode(n): os.getxattr(tmp_path / "d", n) for n in os.listxattr(tmp_path / "d")}
    assert on_disk == {
        name + b"overlay.opaque": b"y",
        name + b"overlay.overlay.opaque": b"z",
        name + b"overlay.metacopy": b"",
        b"user.plain": b"1",
    }
    entries = {
        entry.name: entry for entry in TarReader(io.BytesIO(take(tmp_path, overlay=overlay)))
    }
    assert entries[b"d/"].xattrs == wanted


def test_without_overlay_such_attributes_are_like_any(tmp_path: Path) -> None:
    put(tmp_path, folder("d", xattrs={b"user.overlay.opaque": b"y"}))
    assert os.getxattr(tmp_path / "d", "user.overlay.opaque") == b"y"


LOWER = [
    folder("d"),
    file("d/low"),
    folder("o/sub"),
    file("o/sub/low"),
    file("f", b"low"),
    file("w"),
    symlink("l", "d"),
]
UPPER = [
    file(".wh.w"), file("d/.wh.low"), file("d/new"), file("o/.wh..wh..opq"), file("o/sub/new"), file("f", b"high"),
    file("l/through"), file(".wh.l"), file("e/made"),
]  # fmt: skip


@FORMS
def test_a_mounted_overlay_shows_what_carried_out_whiteouts_leave(
    overlay: Overlay, tmp_path: Path
) -> None:
    carried = tmp_path / "carried"
    carried.mkdir()
    upper = [member for member in UPPER if b"through" not in member[0].name]
    put(carried, *LOWER)
    put(carried, *upper)
    with Mounted(tmp_path, overlay, LOWER, upper) as merged:
        assert listing(merged, times=False).keys() == listing(carried, times=False).keys()
        assert (merged / "f").read_bytes() == b"high"


class Mounted:
    """Two layers, each in its own directory, as one overlay."""

    def __init__(
        self, top: Path, overlay: Overlay, *layers: list[Any], upper: bool = False
    ) -> None:
        self.merged = top / "merged"
        self.merged.mkdir()
        paths = []
        for number, members in enumerate(layers):
            path = top / f"layer{number}"
            path.mkdir()
            put(path, *members, overlay=overlay)
            paths.append(str(path))
        self.options = f"lowerdir={':'.join(reversed(paths))}" + (
            ",userxattr" if overlay is Overlay.USER else ""
        )
        if upper:
            for name in ("upper", "work"):
                (top / name).mkdir()
            self.options += f",upperdir={top}/upper,workdir={top}/work"

    def __enter__(self) -> Path:
        done = subprocess.run(
            ["mount", "-t", "overlay", "overlay", "-o", self.options, self.merged],
            check=False,
            capture_output=True,
        )
        if done.returncode:
            pytest.skip(f"overlay: it cannot be mounted here: {done.stderr.decode().strip()}")
        return self.merged

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.merged], check=True)


DEVICE = char("d/low")
REFUSED = "^entry 'd/low': an overlay holds no character device 0:0$"


@FORMS
def test_overlayfs_own_mark_is_no_entry_of_an_upper_directory(
    overlay: Overlay, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=REFUSED) as caught:
        put(tmp_path, DEVICE, overlay=overlay)
    assert "whiteout is a file named .wh." in str(caught.value.hint)
    assert not os.path.lexists(tmp_path / "d/low")


def test_overlayfs_own_mark_cannot_be_made_on_an_overlay(tmp_path: Path) -> None:
    with Mounted(tmp_path, Overlay.TRUSTED, LOWER, upper=True) as merged:
        put(merged, char("null", device=(1, 3)))
        with pytest.raises(UnsupportedError, match=REFUSED):
            put(merged, DEVICE)


def test_a_device_without_a_number_is_one_where_no_overlay_is(tmp_path: Path) -> None:
    put(tmp_path, DEVICE)
    assert is_plain(tmp_path / "d/low")
