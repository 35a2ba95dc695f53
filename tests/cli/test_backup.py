"""What `argosy restore` takes, and what it says of the rest."""

from __future__ import annotations

import pathlib

import pytest

from tests.cli.conftest import Run


def test_a_file_that_is_no_archive_is_called_that(argosy: Run, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no archive")
    done = argosy("restore", "-i", file, "localhost:1/app", code=1)
    assert f"{file}: it is a file, but neither an OCI archive nor one of Docker" in done.err
    assert "no such directory" in argosy("restore", "-i", f"{file}s", "localhost:1/app", code=2).err


def test_an_archive_is_taken_whatever_its_name_is(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for place in ("oci-archive:{}/kept:v1", "docker-archive:{}/saved:app:v1"):
        argosy("cp", "-q", f"oci:{layout}:v1", place.format(tmp_path))
    for name in ("kept", "saved"):
        done = argosy("restore", "-i", tmp_path / name, "--dry-run", f"oci:{tmp_path}/there")
        assert done.out.startswith("v1 sha256:")


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "-q", "--no-referrers", "-o"],
        ["pull", "-q", "-o"],
        ["pull", "-q", "--format", "oci-archive", "-o"],
    ],
)
def test_an_output_file_is_written_anew(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, words: list[str]
) -> None:
    argosy("tag", f"oci:{layout}:v1", "v2")
    once, twice = tmp_path / "once.tar", tmp_path / "twice.tar"
    twice.write_text("something else")
    argosy(*words, once, f"oci:{layout}:v2")
    argosy(
        *words, twice, f"oci:{layout}:multi", *(["--platform", "linux/amd64"] * ("pull" in words))
    )
    argosy(*words, twice, f"oci:{layout}:v2")
    assert twice.read_bytes() == once.read_bytes()
    before = argosy("ls", twice).out
    argosy(*words, twice, f"oci:{layout}:none", code=2)
    assert argosy("ls", twice).out == before


def test_a_digest_is_no_backup(argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    for given in (f"oci:{layout}@{digest}", f"oci:{layout}:v1@{digest}"):
        assert "argosy cp" in argosy("backup", given, "-o", tmp_path / "b.tar", code=64).err
        assert "argosy cp" in argosy("restore", "-i", layout, given, code=64).err
    assert not (tmp_path / "b.tar").exists()
