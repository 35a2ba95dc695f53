"""Exported archives as other programs extract them."""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator

import pytest

from argosy.image.contents import Contents, write_flat
from argosy.image.view import Image
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarstream import TarReader
from tests.image.kit import file, folder, image_of, link, tar_of

NOBODY = 65534
ROOT = os.geteuid() == 0
TIME = 10**9 * 1_000_000_000

IMAGE = (
    tar_of(
        folder("d/", 0o555, mtime=TIME), file("d/x", b"1" * 3000),
        folder("e/", mtime=2 * TIME), folder("e/f/", 0o500, mtime=TIME), file("e/f/y", b"2"),
        file("z", b"3" * 9000),
    ),
    tar_of(file("d/w", b"4" * 5000), Entry(name=b"e/g", type=EntryType.HARDLINK, linkname=b"d/w")),
    tar_of(file("e/f/a", b"5"), file("z", b"6"), link("a", "d/x"), file("d/empty")),
)  # fmt: skip
EXPECTED = {
    "d": (0o555, "1000000000"), "d/x": b"1" * 3000, "d/w": b"4" * 5000, "d/empty": b"",
    "e": (0o755, "2000000000"), "e/f": (0o500, "1000000000"), "e/f/y": b"2", "e/f/a": b"5",
    "e/g": b"4" * 5000, "z": b"6", "a": b"1" * 3000,
}  # fmt: skip


def exported(image: Image) -> bytes:
    out = io.BytesIO()
    write_flat(Contents(image), out)
    return out.getvalue()


def found(root: str) -> dict[str, object]:
    made: dict[str, object] = {}
    for path in pathlib.Path(root).rglob("*"):
        status = path.stat()
        told = (stat.S_IMODE(status.st_mode), str(int(status.st_mtime)))
        made[str(path.relative_to(root))] = told if path.is_dir() else path.read_bytes()
    return made


@pytest.fixture
def place() -> Iterator[str]:
    """A directory that every user can reach, and that is removed whatever modes are in it."""
    path = tempfile.mkdtemp()
    yield path
    for folder_path, _, _ in os.walk(path):
        os.chmod(folder_path, 0o700)
    shutil.rmtree(path)


def by_gnu_tar(raw: bytes, place: str) -> None:
    subprocess.run(["tar", "-xp", "-C", place], input=raw, check=True)


def by_gnu_tar_of_nobody(raw: bytes, place: str) -> None:
    if not ROOT or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv to be somebody else")
    os.chown(place, NOBODY, NOBODY)
    nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    subprocess.run([*nobody, "tar", "-xp", "-C", place], input=raw, check=True)


def by_python(raw: bytes, place: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        archive.extractall(place, filter="fully_trusted")


@pytest.mark.skipif(not shutil.which("tar"), reason="tar is not installed")
@pytest.mark.parametrize("extract", [by_gnu_tar, by_gnu_tar_of_nobody, by_python])
def test_modes_and_times_of_directories_survive_extraction(
    place: str, extract: Callable[[bytes, str], None]
) -> None:
    extract(exported(image_of(*IMAGE)), place)
    assert found(place) == EXPECTED


def test_what_a_directory_holds_is_directly_behind_it() -> None:
    names = [entry.name for entry in TarReader(io.BytesIO(exported(image_of(*IMAGE))))]
    assert names == sorted(names)
    assert names.index(b"d/") + 4 == names.index(b"e/")


def test_a_sparse_file_keeps_its_place_among_the_others() -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("m")
        content = b"3\n0\n1\n5000000\n1\n9000000\n0\n".ljust(512, b"\0") + b"ab"
        info.size = len(content)
        info.pax_headers = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "m",
            "GNU.sparse.realsize": "9000000",
        }  # fmt: skip
        archive.addfile(info, io.BytesIO(content))
    image = image_of(raw.getvalue(), tar_of(file("a", b"1"), file("z", b"2" * 9_000_001)))
    reader = TarReader(io.BytesIO(exported(image)))
    held = {entry.name: b"".join(reader.whole()) for entry in reader}
    assert list(held) == [b"a", b"m", b"z"]
    assert held[b"m"] == b"a" + bytes(4_999_999) + b"b" + bytes(3_999_999)
