"""`argosy blob …` and `manifest put` on a disk: what goes, what must stay, and how it is refused."""

from __future__ import annotations

import json
import pathlib

import pytest

from argosy.spec.digest import Digest
from tests.cli.conftest import Run

ABSENT = Digest.of(b"absent")


def parts(argosy: Run, place: str) -> list[str]:
    """The digests of a manifest, its configuration and its layers."""
    raw = argosy("manifest", "get", place).out
    manifest = json.loads(raw)
    entries = (manifest["config"], *manifest["layers"])
    return [str(Digest.of(raw.encode())), *(entry["digest"] for entry in entries)]


def test_a_blob_that_nothing_needs_is_removed_from_a_layout(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    digest = argosy("blob", "put", f"oci:{layout}", tmp_path / "file").out.strip()
    argosy("blob", "rm", f"oci:{layout}@{digest}")
    argosy("blob", "head", f"oci:{layout}@{digest}", code=2)
    assert "no such blob" in argosy("blob", "rm", f"oci:{layout}@{digest}", code=2).err


def test_a_blob_that_a_manifest_needs_stays(argosy: Run, layout: pathlib.Path) -> None:
    for digest in parts(argosy, f"oci:{layout}:v1"):
        done = argosy("blob", "rm", f"oci:{layout}@{digest}", code=1)
        assert f"{digest} is part of what oci:{layout} holds" in done.err
        assert "argosy layout gc" in done.err
    assert argosy("layout", "fsck", layout).out == ""
    assert sorted(argosy("ls", f"oci:{layout}").out.split()) == ["multi", "v1"]


def test_no_blob_goes_where_a_manifest_cannot_be_read(argosy: Run, layout: pathlib.Path) -> None:
    manifest, _, layer, _ = parts(argosy, f"oci:{layout}:v1")
    file = layout / "blobs" / manifest.replace(":", "/")
    file.chmod(0o644)
    file.write_bytes(b"?" * file.stat().st_size)
    assert "cannot be read" in argosy("blob", "rm", f"oci:{layout}@{layer}", code=1).err
    assert argosy("blob", "head", f"oci:{layout}@{layer}").json["digest"] == layer


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_an_archive_takes_no_blob_that_it_would_not_keep(
    argosy: Run, tmp_path: pathlib.Path, kind: str
) -> None:
    (tmp_path / "file").write_bytes(b"some bytes")
    done = argosy("blob", "put", f"{kind}:{tmp_path}/there.tar", tmp_path / "file", code=1)
    assert (done.out, "would not keep" in done.err) == ("", True)
    assert not (tmp_path / "there.tar").exists()


@pytest.mark.parametrize("verb", ["blob", "manifest"])
def test_content_of_another_digest_is_4_and_not_kept(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, verb: str
) -> None:
    file, there = tmp_path / "m.json", tmp_path / "there"
    file.write_text(argosy("manifest", "get", f"oci:{layout}:v1").out)
    done = argosy(verb, "put", f"oci:{there}@{ABSENT}", file, code=4)
    assert f"{verb}: expected {ABSENT}, got {Digest.of(file.read_bytes())}" in done.err
    assert not there.exists()


def test_an_algorithm_that_is_none_is_wrong_usage(argosy: Run, layout: pathlib.Path) -> None:
    argosy("blob", "put", "--algorithm", "md5", f"oci:{layout}", "/dev/null", code=64)
    made = argosy("blob", "put", "--algorithm", "sha512", f"oci:{layout}", "/dev/null").out
    assert made.startswith("sha512:")


def test_a_manifest_that_is_none_is_told_with_its_file(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "m.json").write_text("{}")
    told = argosy("manifest", "put", f"oci:{layout}:new", tmp_path / "m.json", code=1).err
    assert told.endswith(f"is there (in {tmp_path / 'm.json'})\n")
