"""Files that a command was told to write: links, devices and FIFOs among them."""

from __future__ import annotations

import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = os.geteuid() == 0

OUTPUTS = {
    "export": lambda argosy, place, out: argosy("export", place, out),
    "digest file of cp": lambda argosy, place, out: argosy(
        "cp", "-q", place, f"oci:{out.parent}/copy", "--digest-file", out
    ),
    "digest file of mutate": lambda argosy, place, out: argosy(
        "mutate", "-q", place, "-e", "A=1", "--digest-file", out
    ),
    "archive": lambda argosy, place, out: argosy("cp", "-q", place, f"oci-archive:{out}:v1"),
    "archive for Docker": lambda argosy, place, out: argosy(
        "cp", "-q", place, f"docker-archive:{out}:v1"
    ),
}
every_output = pytest.mark.parametrize("write", OUTPUTS.values(), ids=OUTPUTS)
Write = Callable[[Run, str, Path], object]


@every_output
@pytest.mark.parametrize("filled", [True, False])
def test_behind_a_symbolic_link_its_target_is_written(
    argosy: Run, layout: Path, tmp_path: Path, write: Write, filled: bool
) -> None:
    (tmp_path / "else").mkdir()
    target, link = tmp_path / "else/target", tmp_path / "link"
    if filled:
        target.touch()
    link.symlink_to("else/target")
    write(argosy, f"oci:{layout}:v1", link)
    assert link.readlink() == Path("else/target")
    assert target.stat().st_size
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["target"]


@every_output
def test_a_fifo_is_written_to(argosy: Run, layout: Path, tmp_path: Path, write: Write) -> None:
    pipe, got = tmp_path / "pipe", bytearray()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.extend(pipe.read_bytes()), daemon=True)
    reader.start()
    write(argosy, f"oci:{layout}:v1", pipe)
    reader.join()
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert got


@every_output
@pytest.mark.skipif(not ROOT, reason="only root makes devices")
def test_a_device_is_not_replaced(argosy: Run, layout: Path, tmp_path: Path, write: Write) -> None:
    null = tmp_path / "null"
    os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    write(argosy, f"oci:{layout}:v1", null)
    assert stat.S_ISCHR(null.lstat().st_mode)


def test_an_archive_behind_a_link_keeps_what_it_holds(
    argosy: Run, layout: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.tar").symlink_to("target.tar")
    argosy("cp", "-q", f"oci:{layout}:v1", f"oci-archive:{tmp_path}/link.tar:one")
    argosy("cp", "-q", f"oci:{layout}:multi", f"oci-archive:{tmp_path}/link.tar:two")
    assert argosy("ls", f"oci-archive:{tmp_path}/target.tar").out.split() == ["one", "two"]
    assert tarfile.is_tarfile(tmp_path / "target.tar")


def test_an_edited_specification_stays_behind_its_link(argosy: Run, tmp_path: Path) -> None:
    argosy("spec", "-o", tmp_path / "target.json")
    (tmp_path / "config.json").symlink_to("target.json")
    path = tmp_path / "config.json"
    argosy("spec", "--from", path, "-o", path, "--hostname", "changed")
    assert path.is_symlink()
    assert "changed" in (tmp_path / "target.json").read_text()


@pytest.mark.parametrize("command", ["mutate -q {0} -e A=1", "cp -q {0} {0}2", "flatten -q {0}"])
def test_where_the_digest_cannot_be_written_nothing_changes(
    argosy: Run, layout: Path, tmp_path: Path, command: str
) -> None:
    place = f"oci:{layout}:v1"
    before = argosy("ls", f"oci:{layout}").out, argosy("digest", place).out
    line = [*command.format(place).split(), "--digest-file", tmp_path / "none/digest"]
    assert "none/digest: no such file" in argosy(*line, code=1).err
    assert (argosy("ls", f"oci:{layout}").out, argosy("digest", place).out) == before


def test_a_command_that_fails_leaves_the_digest_file_as_it_was(
    argosy: Run, layout: Path, tmp_path: Path
) -> None:
    path = tmp_path / "digest"
    path.write_text("old")
    argosy("cp", f"oci:{layout}:none", f"oci:{layout}:v2", "--digest-file", path, code=2)
    assert path.read_text() == "old"
    assert sorted(found.name for found in tmp_path.iterdir()) == ["digest", "layout"]
    argosy("cp", "-q", f"oci:{layout}:v1", f"oci:{layout}:v2", "--digest-file", path)
    assert path.read_text() == argosy("digest", f"oci:{layout}:v2").out


def test_validate_says_of_each_image_what_was_checked(
    argosy: Run, layout: Path, tmp_path: Path
) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    assert argosy("validate", f"oci:{layout}:v1").err == f"v1: {digest} is sound\n"
    told = f"v1: {digest} is sound as far as it was read: its layers are there, and were not read\n"
    assert argosy("validate", "--fast", f"oci:{layout}:v1").err == told
    manifest = json.loads(argosy("manifest", "get", f"oci:{layout}:v1").out)
    (tmp_path / "bad.json").write_text(json.dumps({**manifest, "layers": []}))
    argosy("manifest", "put", f"oci:{layout}:bad", tmp_path / "bad.json")
    done = argosy("validate", "--all-tags", f"oci:{layout}", code=4)
    assert f"v1: {digest} is sound\n" in done.err, "a mistake in another image says nothing of it"
    assert "bad: " not in done.err
    assert "error: bad: " in done.out
    argosy("validate", "--all-tags", f"oci:{layout}:v1", code=64)
