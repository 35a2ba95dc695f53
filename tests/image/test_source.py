from __future__ import annotations

import contextlib
import io
import os
import pathlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.content.memory import MemoryStore
from argosy.errors import UsageError
from argosy.image import source as sources
from argosy.image.rpm import InvalidPackageError, Package, read_package
from argosy.layer.rootfs import RootFS
from argosy.spec import mediatypes
from tests.image.kit import all_proved, file, image_of, names, tar_of


def header(tags: dict[int, str | int | bytes]) -> bytes:
    """A package header with these tags, as rpm writes it."""
    table, store = b"", b""
    for tag, value in sorted(tags.items()):
        if isinstance(value, int):
            store += bytes(-len(store) % 4)
            table += struct.pack(">iIiI", tag, 4, len(store), 1)
            store += struct.pack(">I", value)
        elif isinstance(value, bytes):
            table += struct.pack(">iIiI", tag, 7, len(store), len(value))
            store += value
        else:
            table += struct.pack(">iIiI", tag, 6, len(store), 1)
            store += value.encode() + b"\0"
    return b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(tags), len(store)) + table + store


def package(name: str = "bash", *, source: bool = True, **more: str | int) -> bytes:
    lead = (
        b"\xed\xab\xee\xdb\x03\0"
        + struct.pack(">hh", int(source), 1)
        + name.encode().ljust(66, b"\0")
    )
    lead += struct.pack(">hh", 1, 5) + bytes(16)
    signature = header({1004: bytes(range(16)), 1000: 1234})
    numbers = {
        "version": 1001,
        "release": 1002,
        "epoch": 1003,
        "buildtime": 1006,
        "license": 1014,
        "arch": 1022,
    }
    main = header({1000: name, **{numbers[key]: value for key, value in more.items()}})
    return lead + signature + bytes(-len(signature) % 8) + main + b"payload" * 100


BASH = package(
    version="5.2",
    release="1.fc40",
    epoch=3,
    license="GPLv3+",
    buildtime=1_700_000_000,
    arch="x86_64",
)


@pytest.fixture
def rpms(tmp_path: pathlib.Path) -> pathlib.Path:
    folder = tmp_path / "rpms"
    folder.mkdir()
    (folder / "bash-5.2-1.fc40.src.rpm").write_bytes(BASH)
    (folder / "zlib-1.3-1.src.rpm").write_bytes(package("zlib", version="1.3", release="1"))
    (folder / "notes.txt").write_bytes(b"not a package")
    return folder


def test_a_package_tells_its_name_version_epoch_release_and_licence() -> None:
    found = read_package(io.BytesIO(BASH))
    assert found == Package(
        name="bash",
        version="5.2",
        release="1.fc40",
        epoch="3",
        license="GPLv3+",
        arch="x86_64",
        buildtime="1700000000",
        pkgid=bytes(range(16)).hex(),
        is_source=True,
    )


@given(st.integers(0, len(BASH) - 710))
def test_a_package_that_is_cut_off_in_its_headers_is_refused(at: int) -> None:
    with pytest.raises(InvalidPackageError):
        read_package(io.BytesIO(BASH[:at]))


@given(st.binary(max_size=64), st.integers(0, 400))
def test_a_damaged_package_is_an_error_or_read_and_never_anything_else(
    junk: bytes, at: int
) -> None:
    data = BASH[:at] + junk + BASH[at + len(junk) :]
    with contextlib.suppress(InvalidPackageError):
        read_package(io.BytesIO(data))


def test_a_header_that_asks_for_gigabytes_is_refused_at_once() -> None:
    huge = BASH[:96] + b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", 1, 0xFFFFFFF0)
    with pytest.raises(InvalidPackageError, match="too large"):
        read_package(io.BytesIO(huge))


def _build(rpms: pathlib.Path, **more: object):  # type: ignore[no-untyped-def]
    return sources.build(MemoryStore(), list(sources.artifacts(rpms=str(rpms), **more)))  # type: ignore[arg-type]


def test_each_package_is_a_layer_with_annotations(rpms: pathlib.Path) -> None:
    image = _build(rpms)
    assert [la.media_type for la in image.manifest.layers] == [mediatypes.OCI_LAYER] * 2
    notes = image.manifest.layers[0].annotations
    assert notes["source.artifact.filename"] == "bash-5.2-1.fc40.src.rpm"
    assert notes["source.artifact.version"] == "5.2"
    assert notes["source.artifact.epoch"] == "3"
    assert notes["source.artifact.license"] == "GPLv3+"
    assert notes["source.artifact.mimetype"] == "application/x-rpm"
    assert image.manifest.annotations == {"com.redhat.image.type": "source"}
    assert not all_proved(image)


def test_a_package_without_an_epoch_has_none(rpms: pathlib.Path) -> None:
    """BuildSourceImage wrote the version there."""
    assert "source.artifact.epoch" not in _build(rpms).manifest.layers[1].annotations


def test_a_layer_holds_the_source_by_digest_and_a_link_by_name(rpms: pathlib.Path) -> None:
    image = _build(rpms)
    checksum = image.manifest.layers[0].annotations["source.artifact.filename.checksum"]
    assert names(image, 0) == [
        "./",
        "./blobs/",
        "./blobs/sha256/",
        f"./blobs/sha256/{checksum.removeprefix('sha256:')}",
        "./rpm_dir/",
        "./rpm_dir/bash-5.2-1.fc40.src.rpm",
    ]


def test_the_same_sources_give_the_same_image(rpms: pathlib.Path, tmp_path: pathlib.Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch")
    one = _build(rpms, context=str(context))
    os.utime(context / "Dockerfile", (1, 1))
    assert _build(rpms, context=str(context)).digest == one.digest


def test_context_and_extra_directories_are_tars(rpms: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in ("context", "extra"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    image = _build(rpms, context=str(tmp_path / "context"), extra=[str(tmp_path / "extra")])
    found = [s.annotations["filename"] for s in sources.listed(image)]
    assert found == [
        "context.tar",
        "extra-src-0.tar",
        "bash-5.2-1.fc40.src.rpm",
        "zlib-1.3-1.src.rpm",
    ]


def test_sources_unpack_together(rpms: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = _build(rpms)
    with RootFS.create(tmp_path / "out") as root:
        for layer in image.layers:
            with layer.compressed() as blob:
                root.apply(blob, diff_id=layer.diff_id)
    assert (tmp_path / "out/rpm_dir/bash-5.2-1.fc40.src.rpm").read_bytes() == BASH


def test_adding_a_source_that_is_there_already_changes_nothing(rpms: pathlib.Path) -> None:
    image = _build(rpms)
    again = sources.add(image, list(sources.artifacts(rpms=str(rpms))))
    assert again.digest == image.digest


def test_what_is_added_hides_nothing_that_is_there(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor.tar").write_text(name)

    def file(name: str) -> sources.Artifact:
        path = str(tmp_path / name / "vendor.tar")
        return sources.Artifact(driver="extra_src_dir", path=path, filename="vendor.tar")

    image = sources.build(MemoryStore(), [*sources.artifacts(extra=[str(tmp_path / "one")])])
    more = sources.artifacts(extra=[str(tmp_path / "two")], first=sources.extras(image))
    image = sources.add(image, [*more, file("one"), file("one")])
    found = [s.annotations["filename"] for s in sources.listed(image)]
    assert found == ["extra-src-0.tar", "extra-src-1.tar", "vendor.tar"]
    assert sources.extras(image) == 2
    with pytest.raises(UsageError, match=r"vendor\.tar is in the image already"):
        sources.add(image, [file("two")])


def test_a_binary_package_is_no_source(rpms: pathlib.Path) -> None:
    (rpms / "evil.src.rpm").write_bytes(package("evil", source=False))
    with pytest.raises(InvalidPackageError, match=r"evil\.src\.rpm.*binary"):
        _build(rpms)


def test_a_directory_without_packages_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="no source packages"):
        _build(tmp_path)


def test_an_image_that_is_no_source_image_is_told() -> None:
    with pytest.raises(UsageError, match="no source image"):
        sources.listed(image_of(tar_of(file("a"))))
