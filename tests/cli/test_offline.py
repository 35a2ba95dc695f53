"""The commands that need no network: what they print, where, and how they exit."""

from __future__ import annotations

import io
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile

import pytest

from argosy import errors
from argosy.cli.failure import exit_code
from argosy.cli.main import call
from argosy.cli.table import COMMANDS
from argosy.layout.store import LayoutStore
from argosy.spec.digest import Digest
from tests.cli.conftest import Run

ABSENT = Digest.of(b"absent")


def blob(layout: pathlib.Path, digest: str) -> pathlib.Path:
    return layout / "blobs" / digest.replace(":", "/")


def layers(argosy: Run, place: str) -> list[str]:
    return [entry["digest"] for entry in json.loads(argosy("manifest", "get", place).out)["layers"]]


def test_help_lists_every_command_and_the_exit_codes(argosy: Run) -> None:
    out = argosy("--help").out
    for name in COMMANDS:
        assert name.split()[0] in out
    assert "64 wrong usage" in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(argosy: Run, name: str) -> None:
    assert "Usage: argosy" in argosy(*name.split(), "--help").out


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["nosuch"], 64),
        (["cp"], 64),
        (["cp", "oci:a"], 64),
        (["cp", "oci:a:b", "oci:c", "--nosuch"], 64),
        (["digest", "ftp://x/y"], 64),
        (["digest", "oci:"], 64),
        (["digest", "Bad Name"], 64),
        (["digest", "oci:a:b", "--platform", "a/b/c/d"], 64),
        (["cp", "oci:a:b", "oci:c:d", "--jobs", "0"], 64),
        (["inspect", "./nothing-here"], 2),
        (["digest", "oci:/nonexistent:v1"], 2),
        (["ls", "oci:/nonexistent"], 2),
        (["digest", "oci-archive:/nonexistent.tar"], 2),
        (["ls", "oci:-"], 64),
        (["ls", "oci:images:v1"], 64),
        (["ls", f"oci:images@sha256:{'0' * 64}"], 64),
        (["ls", "docker-archive:x.tar:app:v1"], 64),
        (["ls", "registry.example/app:v1"], 64),
        (["cp", "containers-storage:x", "oci:a"], 64),
        (["cp", "docker-daemon:x:y", "oci:a"], 64),
    ],
)
def test_wrong_usage_and_absent_places_are_one_line(
    argosy: Run, argv: list[str], code: int
) -> None:
    done = argosy(*argv, code=code)
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines[0].startswith("argosy: ")
    assert len(lines) <= 2
    if len(lines) == 2:
        assert lines[1].startswith("hint: ")


LONG = "x" * 100_000


@pytest.mark.parametrize(
    "argv",
    [
        [LONG],
        ["ls", f"./{LONG}"],
        ["ls", f"--{LONG}"],
        ["ls", "--sort", LONG, "oci:x"],
        ["cp", f"oci:{LONG}", "oci:y"],
        ["cp", "oci:x", "oci:y", "z " * 50_000],
        ["append", "-f", LONG, "-t", "oci:y"],
        ["rm", LONG],
    ],
)
def test_an_error_stays_readable_whatever_was_typed(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(argv) in {1, 2, 64}
    told = capfd.readouterr().err
    assert "…" in told
    assert max(map(len, told.splitlines())) <= 2001


def test_a_mistyped_command_gets_a_suggestion(argosy: Run) -> None:
    assert "Did you mean inspect" in argosy("inspct", code=64).err


def test_digest_config_and_manifest_print_what_is_stored(argosy: Run, layout: pathlib.Path) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    raw = argosy("manifest", "get", f"oci:{layout}:v1").out
    assert Digest.of(raw.encode()) == digest
    config = argosy("config", f"oci:{layout}:v1").out
    assert Digest.of(config.encode()) == json.loads(raw)["config"]["digest"]
    assert argosy("manifest", "head", f"oci:{layout}:v1").json["digest"] == digest
    assert argosy("digest", "--json", f"oci:{layout}:v1").json["size"] == len(raw)
    assert argosy("digest", "--full", f"oci:{layout}:v1").out.strip() == f"oci:{layout}@{digest}"
    assert argosy("digest", f"oci:{layout}@{digest}").out.strip() == digest


def test_platform_picks_an_image_of_an_index(argosy: Run, layout: pathlib.Path) -> None:
    whole = argosy("digest", f"oci:{layout}:multi").out
    arm = argosy("digest", f"oci:{layout}:multi", "--platform", "linux/arm64").out
    assert whole != arm
    done = argosy("digest", f"oci:{layout}:multi", "--platform", "linux/s390x", code=2)
    assert "linux/amd64, linux/arm64" in done.err


def test_a_place_with_several_images_asks_for_one(argosy: Run, layout: pathlib.Path) -> None:
    done = argosy("digest", f"oci:{layout}", code=2)
    assert "v1, multi" in done.err or "multi, v1" in done.err


def test_ls_filters_sorts_and_prints_json(argosy: Run, layout: pathlib.Path) -> None:
    argosy("tag", f"oci:{layout}:v1", "1.2.0", "1.10.0", "1.10.0-rc.1", "latest")
    out = argosy("ls", f"oci:{layout}", "--include", r"1\..*", "--sort", "semver", "--reverse").out
    assert out.split() == ["1.10.0", "1.10.0-rc.1", "1.2.0"]
    assert argosy("ls", f"oci:{layout}", "--exclude", ".*", "--json").json == []
    assert argosy("ls", f"oci:{layout}", "--limit", 1, "--full").out.startswith(f"oci:{layout}:")
    argosy("ls", f"oci:{layout}", "--include", "(", code=64)


def test_tag_refuses_what_is_no_tag_before_it_changes_anything(
    argosy: Run, layout: pathlib.Path
) -> None:
    before = argosy("ls", f"oci:{layout}").out
    done = argosy("tag", f"oci:{layout}:v1", "good", "../bad", code=64)
    assert "../bad" in done.err
    assert argosy("ls", f"oci:{layout}").out == before


def test_rm_takes_one_tag_and_leaves_its_siblings(argosy: Run, layout: pathlib.Path) -> None:
    argosy("tag", f"oci:{layout}:v1", "v1.0")
    assert argosy("rm", "--dry-run", f"oci:{layout}:v1").out == "v1\n"
    argosy("rm", f"oci:{layout}:v1")
    assert sorted(argosy("ls", f"oci:{layout}").out.split()) == ["multi", "v1.0"]
    argosy("rm", f"oci:{layout}:v1", code=2)
    argosy("rm", "--ignore-missing", f"oci:{layout}:v1")
    argosy("rm", f"oci:{layout}", code=64)


def test_rm_by_digest_takes_all_tags_and_referrers_on_request(
    argosy: Run, layout: pathlib.Path
) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    removed = argosy("rm", "--referrers", f"oci:{layout}@{digest}").out.split()
    assert removed[-1] == digest
    assert len(removed) == 2
    assert argosy("ls", f"oci:{layout}").out.split() == ["multi"]
    assert argosy("layout", "gc", "--grace", 0, layout).out
    assert argosy("layout", "fsck", layout).out == ""


def test_manifest_put_stores_bytes_and_checks_the_digest(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    raw = argosy("manifest", "get", f"oci:{layout}:v1").out.replace(
        '"schemaVersion":2', '"schemaVersion": 2'
    )
    file = tmp_path / "m.json"
    file.write_text(raw)
    digest = argosy("manifest", "put", f"oci:{layout}:v2", file).out.strip()
    assert digest == Digest.of(raw.encode())
    assert argosy("manifest", "get", f"oci:{layout}:v2").out == raw
    argosy("manifest", "put", f"oci:{layout}@{ABSENT}", file, code=4)
    argosy("manifest", "rm", f"oci:{layout}:v2")
    argosy("digest", f"oci:{layout}:v2", code=2)


def test_inspect_tells_of_images_and_indexes(argosy: Run, layout: pathlib.Path) -> None:
    facts = argosy("inspect", "--json", f"oci:{layout}:v1").json
    assert facts["Architecture"] == "amd64"
    assert len(facts["LayersData"]) == len(facts["Layers"]) == 2
    assert facts["Size"] == sum(entry["Size"] for entry in facts["LayersData"])
    index = argosy("inspect", "--json", f"oci:{layout}:multi").json
    assert [entry["Platform"] for entry in index["Manifests"]] == ["linux/amd64", "linux/arm64"]
    assert argosy("inspect", "-f", "{{.Digest}}", f"oci:{layout}:v1").out.strip() == facts["Digest"]
    assert "linux/arm64" in argosy("inspect", f"oci:{layout}:multi").out
    argosy("inspect", "-f", "{{.Nothing}}", f"oci:{layout}:v1", code=64)
    assert (
        argosy("inspect", "--raw", f"oci:{layout}:v1").out
        == argosy("manifest", "get", f"oci:{layout}:v1").out
    )
    assert (
        argosy("inspect", "--config", f"oci:{layout}:v1").out
        == argosy("config", f"oci:{layout}:v1").out
    )
    assert set(argosy("inspect", "--tags", "--json", f"oci:{layout}:v1").json["RepoTags"]) == {
        "v1",
        "multi",
    }


@pytest.mark.parametrize("form", ["tree", "dot", "mermaid", "svg"])
def test_graph_draws_referrers_and_layers(argosy: Run, layout: pathlib.Path, form: str) -> None:
    out = argosy("graph", "-f", form, f"oci:{layout}:v1").out
    assert "application/x.example" in out
    assert "layers[1]" in out
    assert (
        "application/x.example"
        not in argosy("graph", "-f", form, "--no-referrers", f"oci:{layout}:v1").out
    )


def test_graph_as_json_has_every_edge(argosy: Run, layout: pathlib.Path) -> None:
    drawn = argosy("graph", "--json", f"oci:{layout}:multi").json
    labels = [edge["label"] for edge in drawn["edges"]]
    assert labels.count("config") == 2
    assert {v["kind"] for v in drawn["vertices"]} == {"index", "manifest", "config", "layer"}


def test_graph_draws_what_is_missing_as_missing(argosy: Run, layout: pathlib.Path) -> None:
    blob(layout, layers(argosy, f"oci:{layout}:v1")[0]).unlink()
    assert "missing" in argosy("graph", f"oci:{layout}:v1").out


def test_explain_verifies_every_link(argosy: Run, layout: pathlib.Path) -> None:
    links = argosy("explain", "--json", f"oci:{layout}:v1").json
    assert [link["name"] for link in links] == [
        "manifest", "image id", "layer 0", "diff_id 0", "layer 1", "diff_id 1", "chain id 0", "chain id 1",
    ]  # fmt: skip
    assert all(link["holds"] for link in links)
    assert "✓ chain id 1" in argosy("explain", f"oci:{layout}:v1").out


def test_explain_shows_the_link_that_broke_and_exits_with_4(
    argosy: Run, layout: pathlib.Path
) -> None:
    first = blob(layout, layers(argosy, f"oci:{layout}:v1")[0])
    data = first.read_bytes()
    first.chmod(0o644)
    first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    links = argosy("explain", "--json", f"oci:{layout}:v1", code=4).json
    assert [link["name"] for link in links if not link["holds"]] == ["layer 0"]


def test_validate_names_what_is_wrong_and_exits_with_4(argosy: Run, layout: pathlib.Path) -> None:
    assert argosy("validate", "--all-tags", f"oci:{layout}").out == ""
    first = blob(layout, layers(argosy, f"oci:{layout}:v1")[0])
    first.unlink()
    done = argosy("validate", "--json", f"oci:{layout}:v1", code=4)
    assert any("layer 0" in finding["where"] for finding in done.json)
    assert argosy("layout", "fsck", layout, code=4).out.startswith("missing")


PLACES = [
    "oci:{}/new:v1",
    "oci-archive:{}/new.tar:v1",
    "docker-archive:{}/new.tar:example.test/app:v1",
    "dir:{}/new",
]


@pytest.mark.parametrize("place", PLACES)
def test_cp_reaches_every_local_place(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, place: str
) -> None:
    there = place.format(tmp_path)
    done = argosy("cp", f"oci:{layout}:v1", there)
    assert done.out == ""
    assert "copied" in done.err
    assert argosy("digest", there).out == argosy("digest", f"oci:{layout}:v1").out
    assert argosy("validate", there).out == ""


def test_cp_is_quiet_when_asked_and_json_when_asked(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert argosy("cp", "-q", f"oci:{layout}:v1", f"oci:{tmp_path}/a:v1").err == ""
    lines = argosy(
        "cp", "--progress", "json", f"oci:{layout}:v1", f"oci:{tmp_path}/b:v1"
    ).err.splitlines()
    assert {json.loads(line)["event"] for line in lines} >= {"planned", "copied", "tagged"}


def test_cp_takes_tags_platforms_and_a_digest_file(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    new, file = f"oci:{tmp_path}/new", tmp_path / "digest"
    argosy(
        "cp",
        f"oci:{layout}:multi",
        f"{new}:a",
        "-t",
        "b",
        "--platform",
        "linux/arm64",
        "--digest-file",
        file,
    )
    assert sorted(argosy("ls", new).out.split()) == ["a", "b"]
    assert (
        file.read_text().strip()
        == argosy("digest", f"oci:{layout}:multi", "--platform", "linux/arm64").out.strip()
    )
    argosy("cp", "--all-tags", f"oci:{layout}", f"oci:{tmp_path}/all")
    assert sorted(argosy("ls", f"oci:{tmp_path}/all").out.split()) == ["multi", "v1"]
    argosy("cp", "--all-tags", f"oci:{layout}", f"oci:{tmp_path}/all:x", code=64)


def test_cp_with_referrers_takes_them_along(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    argosy("cp", "-r", f"oci:{layout}:v1", f"oci:{tmp_path}/new:v1")
    assert "referrer: artifact" in argosy("graph", f"oci:{tmp_path}/new:v1").out


def test_cp_of_damaged_content_exits_with_4_and_leaves_no_tag(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    first = blob(layout, layers(argosy, f"oci:{layout}:v1")[0])
    size = first.stat().st_size
    first.chmod(0o644)
    first.write_bytes(bytes(size))
    argosy("layout", "init", tmp_path / "new")
    done = argosy("cp", "-q", f"oci:{layout}:v1", f"oci:{tmp_path}/new:v1", code=4)
    assert first.name in done.err
    assert argosy("ls", f"oci:{tmp_path}/new").out == ""


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_a_failed_cp_leaves_no_archive(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, kind: str
) -> None:
    blob(layout, layers(argosy, f"oci:{layout}:v1")[0]).unlink()
    argosy("cp", "-q", f"oci:{layout}:v1", f"{kind}:{tmp_path}/new.tar:v1", code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["layout"]


def test_bare_paths_are_looked_at(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    argosy("cp", "-q", f"{layout}:v1", f"oci-archive:{tmp_path}/a.tar:v1")
    argosy("cp", "-q", f"{layout}:v1", f"docker-archive:{tmp_path}/d.tar:x.test/a:v1")
    argosy("cp", "-q", f"{layout}:v1", f"dir:{tmp_path}/dir")
    expected = argosy("digest", f"{layout}:v1").out
    assert argosy("digest", tmp_path / "a.tar").out == expected
    assert argosy("digest", tmp_path / "dir").out == expected
    assert argosy("digest", tmp_path / "d.tar").out
    (tmp_path / "junk").write_bytes(b"junk")
    argosy("digest", tmp_path / "junk", code=64)


def test_archives_stream_through_pipes(layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "argosy", "cp", "-q"]
    out = subprocess.run(
        [*command, f"oci:{layout}:v1", "oci-archive:-:v1"], capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(out.stdout)) as archive:
        assert "oci-layout" in archive.getnames()
    subprocess.run(
        [*command, "oci-archive:-:v1", f"oci:{tmp_path}/new:v1"], input=out.stdout, check=True
    )
    assert LayoutStore.open(str(tmp_path / "new")).resolve("v1") == LayoutStore.open(
        str(layout)
    ).resolve("v1")


def test_a_closed_pipe_is_no_error_message(layout: pathlib.Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m argosy graph --json oci:{layout}:multi | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.returncode in (0, 141)


def test_layout_init_and_ls(argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    argosy("layout", "init", tmp_path / "empty")
    argosy("layout", "init", tmp_path / "empty")
    assert argosy("layout", "ls", "--json", tmp_path / "empty").json == []
    assert "v1" in argosy("layout", "ls", layout).out
    assert argosy("validate", f"oci:{tmp_path}/empty", code=2).err


def test_an_unwritable_place_is_one_line(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = argosy("cp", "-q", f"oci:{layout}:v1", f"oci:{tmp_path}/file/new:v1", code=1)
    assert len(done.err.splitlines()) <= 2


def test_version_is_told_in_every_way(argosy: Run) -> None:
    version = argosy("version", "--json").json["argosy"]
    assert version in argosy("--version").out
    done = subprocess.run(
        [sys.executable, "-m", "argosy", "-V"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"argosy {version}\n"


def test_real_images_go_through_the_command_line(
    argosy: Run, images: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    shutil.copytree(images / "busybox", tmp_path / "busybox")
    place = f"oci:{tmp_path}/busybox:latest"
    assert argosy("validate", place).out == ""
    links = argosy("explain", "--json", "--platform", "linux/arm64", place).json
    assert all(link["holds"] for link in links)
    argosy("cp", "-q", place, f"oci-archive:{tmp_path}/busybox.tar:latest")
    assert (
        argosy("digest", f"oci-archive:{tmp_path}/busybox.tar:latest").out
        == argosy("digest", place).out
    )


@pytest.mark.parametrize("kind", ["oci", "dir"])
def test_a_place_made_for_what_never_came_is_removed_again(
    argosy: Run, tmp_path: pathlib.Path, kind: str
) -> None:
    argosy("cp", "-q", "oci:/nonexistent:v1", f"{kind}:{tmp_path}/made", code=2)
    argosy("cp", "-q", "127.0.0.1:1/x:y", "--retry", "0", f"{kind}:{tmp_path}/made", code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidManifestError("x"), 1),
        (errors.StorageError("x"), 1),
        (OSError(28, "x"), 1),
        (errors.ManifestUnknownError("x"), 2),
        (errors.PlatformUnknownError("x"), 2),
        (errors.UnauthorizedError("x"), 3),
        (errors.DeniedError("x"), 3),
        (errors.DigestMismatchError("x"), 4),
        (errors.TooManyRequestsError("x"), 5),
        (errors.UsageError("x"), 64),
        (KeyError("x"), 70),
    ],
)
def test_every_kind_of_failure_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize("words", [(), ("manifest",)])
def test_a_group_without_a_command_shows_its_help_as_an_error(
    argosy: Run, words: tuple[str, ...]
) -> None:
    done = argosy(*words, code=64)
    assert done.out == ""
    assert done.err == argosy(*words, "--help").out
