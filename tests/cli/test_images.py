"""The commands that make, change and read images, on local places."""

from __future__ import annotations

import io
import json
import os
import pathlib
import stat
import tarfile

import pytest

from argosy.cli.main import call
from argosy.image.validate import validate
from argosy.image.view import Image, ImageIndex, view
from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.cli.conftest import Run
from tests.image.test_source import BASH


def opened(layout: pathlib.Path, tag: str) -> Image:
    place = LayoutStore.open(str(layout))
    found = view(place, tag)
    assert isinstance(found, Image)
    assert [str(f) for f in validate(found) if not f.warning] == []
    return found


def config(argosy: Run, place: str) -> dict[str, dict[str, object]]:
    return json.loads(argosy("config", place).out)  # type: ignore[no-any-return]


@pytest.fixture
def tar(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "layer.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("app/file")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"hello"))
    return path


def test_append_puts_layers_on_a_base_and_prints_where_the_image_is(
    argosy: Run, layout: pathlib.Path, tar: pathlib.Path
) -> None:
    out = argosy("append", "-b", f"oci:{layout}:v1", "-f", tar, "-t", "new").out.strip()
    assert out.startswith(f"oci:{layout}@sha256:")
    assert len(opened(layout, "new").layers) == 3
    assert argosy("fs", "cat", out, "/app/file").out == "hello"
    assert argosy("digest", f"oci:{layout}:new").out.strip() == out.partition("@")[2]


def test_append_without_a_base_makes_an_image_of_its_own(
    argosy: Run, tmp_path: pathlib.Path, tar: pathlib.Path
) -> None:
    argosy("append", "-f", tar, "-t", f"oci:{tmp_path / 'out'}:v1", "--compress", "zstd")
    assert opened(tmp_path / "out", "v1").layers[0].descriptor.media_type.endswith("zstd")
    argosy("append", "-f", tar, "-t", "example.org/x:v1", "-o", tmp_path / "x.tar")
    assert argosy("ls", f"docker-archive:{tmp_path / 'x.tar'}").out.strip() == "example.org/x:v1"


def test_append_notes_its_base_where_asked(
    argosy: Run, layout: pathlib.Path, tar: pathlib.Path
) -> None:
    digest = argosy("digest", f"oci:{layout}:v1").out.strip()
    argosy(
        "append", "-b", f"oci:{layout}:v1", "-f", tar, "-t", "new", "--set-base-image-annotations"
    )
    notes = opened(layout, "new").manifest.annotations
    assert notes == {"org.opencontainers.image.base.digest": digest}


def test_append_needs_to_know_where_the_image_goes(argosy: Run, tar: pathlib.Path) -> None:
    assert "-t PLACE" in argosy("append", "-f", tar, code=64).err


def test_what_is_no_layer_is_one_line(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "junk").write_bytes(b"junk" * 500)
    (tmp_path / "nothing").touch()
    for name in ("junk", "nothing"):
        for words in (
            ["append", "-b", f"oci:{layout}:v1", "-f", tmp_path / name, "-t", "x"],
            ["mutate", f"oci:{layout}:v1", "--append", tmp_path / name],
        ):
            err = argosy(*words, code=1).err
            assert (err.count("\n"), err.endswith(f"(in {tmp_path / name})\n")) == (1, True)
    argosy("append", "-b", f"oci:{layout}:v1", "-f", tmp_path / "absent", "-t", "x", code=2)


def test_insert_and_whiteout(argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "conf").write_text("x=1")
    place = f"oci:{layout}:v1"
    argosy("insert", place, tmp_path / "conf", "/etc/conf", "--owner", "7:8", "-t", "with")
    row = json.loads(argosy("fs", "ls", f"oci:{layout}:with", "/etc", "--json").out)[0]
    assert (row["path"], row["uid"], row["gid"], row["size"]) == ("conf", 7, 8, 3)
    argosy("insert", f"oci:{layout}:with", "--whiteout", "/etc/conf")
    assert argosy("fs", "ls", f"oci:{layout}:with", "/etc").out == ""
    argosy("insert", place, "one", code=64)


def test_mutate_takes_the_flags_of_crane_and_of_umoci(argosy: Run, layout: pathlib.Path) -> None:
    argosy(
        "mutate", f"oci:{layout}:v1", "-t", "crane", "-e", "A=1", "-l", "k=v", "--entrypoint", '["/e", "x"]', "--cmd",
        "c", "-u", "me", "-w", "/w", "--exposed-ports", "80/tcp", "-a", "n=o", "--set-platform", "linux/arm64/v8",
    )  # fmt: skip
    argosy(
        "mutate", f"oci:{layout}:v1", "-t", "umoci", "--config.env", "A=1", "--config.label", "k=v",
        "--config.entrypoint", "/e", "--config.entrypoint", "x", "--config.cmd", "c", "--config.user", "me",
        "--config.workingdir", "/w", "--config.exposedports", "80/tcp", "--manifest.annotation", "n=o",
        "--platform.arch", "arm64", "--platform.variant", "v8",
    )  # fmt: skip
    one, two = (argosy("config", f"oci:{layout}:{tag}").out for tag in ("crane", "umoci"))
    assert one == two
    assert json.loads(one)["config"]["Entrypoint"] == ["/e", "x"]
    assert opened(layout, "crane").manifest.annotations == {"n": "o"}


def test_mutate_removes_clears_and_sets_anything(argosy: Run, layout: pathlib.Path) -> None:
    place = f"oci:{layout}:v1"
    argosy(
        "mutate",
        place,
        "-e",
        "SEED-",
        "--clear",
        "config.cmd",
        "--set",
        'config.Healthcheck={"Test":["NONE"]}',
    )
    execution = config(argosy, place)["config"]
    assert "Env" not in execution
    assert "Cmd" not in execution
    assert execution["Healthcheck"] == {"Test": ["NONE"]}
    assert config(argosy, place)["history"][-1]["empty_layer"] is True  # type: ignore[index]


def test_mutate_sets_annotations_of_an_artifact_and_nothing_else(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a").write_text("a")
    place = f"oci:{tmp_path / 'files'}:v1"
    argosy("artifact", "push", "--disable-path-validation", place, tmp_path / "a")
    argosy("mutate", place, "-a", "k=v")
    assert argosy("manifest", "get", place).json["annotations"] == {"k": "v"}
    for flags in (["--clear", "config.cmd"], ["-u", "me"], ["--exposed-ports", "80"]):
        assert "no image configuration" in argosy("mutate", place, *flags, code=1).err
    argosy("mutate", place, "--clear", "manifest.annotations")
    assert "annotations" not in argosy("manifest", "get", place).json


def test_an_entrypoint_clears_cmd_as_docker_does(argosy: Run, layout: pathlib.Path) -> None:
    argosy("mutate", f"oci:{layout}:v1", "--entrypoint", "/e", "-t", "a")
    assert "Cmd" not in config(argosy, f"oci:{layout}:a")["config"]
    argosy("mutate", f"oci:{layout}:v1", "--config.entrypoint", "/e", "-t", "b")
    assert "Cmd" in config(argosy, f"oci:{layout}:b")["config"]


def test_mutate_changes_every_image_of_an_index(argosy: Run, layout: pathlib.Path) -> None:
    argosy("mutate", f"oci:{layout}:multi", "-u", "me", "-t", "changed")
    place = LayoutStore.open(str(layout))
    index = view(place, "changed")
    assert isinstance(index, ImageIndex)
    assert [image.config.execution.user for image in index.images()] == ["me", "me"]
    argosy("mutate", f"oci:{layout}:multi", "--platform", "linux/arm64", "-u", "me", "-t", "one")
    assert str(opened(layout, "one").platform) == "linux/arm64"


def test_an_index_tells_of_the_platform_its_changed_image_runs_on(
    argosy: Run, layout: pathlib.Path
) -> None:
    index = f"oci:{layout}:multi"
    argosy("index", "filter", index, "--platform", "linux/arm64", "-t", "few")
    argosy("mutate", f"oci:{layout}:few", "--set-platform", "linux/s390x")
    argosy("validate", f"oci:{layout}:few")
    place = LayoutStore.open(str(layout))
    few = view(place, "few")
    assert isinstance(few, ImageIndex)
    assert [str(entry.platform) for entry in few.manifests] == ["linux/s390x"]
    old = argosy("digest", index).out
    for words in (["--set-platform", "linux/s390x"], ["--platform.arch", "s390x"]):
        assert "on the same platform" in argosy("mutate", index, *words, code=64).err
    assert argosy("digest", index).out == old


@pytest.mark.parametrize(
    "flags",
    [
        ["-e", "novalue"],
        ["--exposed-ports", "x"],
        ["--set", "a"],
        ["--created", "yesterday"],
        ["--created", "2024-01-01"],
        ["--created", "2024-13-01T00:00:00Z"],
        ["--created", "2024-01-01T00:00:00"],
        ["--history.created", "20240101T000000Z"],
        ["--cmd", "[1]"],
    ],
)
def test_a_flag_without_meaning_changes_nothing(
    argosy: Run, layout: pathlib.Path, flags: list[str]
) -> None:
    before = argosy("digest", f"oci:{layout}:v1").out
    assert call(["mutate", f"oci:{layout}:v1", *flags]) in (1, 64)
    assert argosy("digest", f"oci:{layout}:v1").out == before


def test_a_new_image_is_told_of_as_the_environment_says(
    argosy: Run, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARGOSY_PROGRESS", "none")
    assert argosy("new", f"oci:{tmp_path}/images:empty").err == ""
    assert "copied" in argosy("new", f"oci:{tmp_path}/more:empty", "--progress", "plain").err


def test_rebase_and_check_base(argosy: Run, layout: pathlib.Path, tar: pathlib.Path) -> None:
    place = f"oci:{layout}"
    argosy("append", "-b", f"{place}:v1", "-f", tar, "-t", "app")
    argosy("new", f"{place}:base2", "--platform", "linux/amd64")
    argosy(
        "rebase",
        f"{place}:app",
        "--old_base",
        f"{place}:v1",
        "--new_base",
        f"{place}:base2",
        "-t",
        "rebased",
    )
    assert len(opened(layout, "rebased").layers) == 1
    argosy("check-base", f"{place}:app", "--base", f"{place}:v1")
    said = argosy("check-base", f"{place}:app", "--base", f"{place}:base2", "--json")
    assert said.json["current"] is True
    argosy("check-base", f"{place}:rebased", "--base", f"{place}:v1", code=1)
    assert "base.name" in argosy("rebase", f"{place}:app", code=64).err


def test_a_flattened_and_rebased_image_keeps_the_steps_of_its_history(
    argosy: Run, tmp_path: pathlib.Path, tar: pathlib.Path
) -> None:
    place = f"oci:{tmp_path / 'images'}"
    for number in "12":
        argosy("append", "-f", tar, "-t", f"{place}:plain{number}", "--history.created_by", "ADD")
        said = ["--history.created_by", f"CMD {number}"]
        argosy("mutate", f"{place}:plain{number}", "--cmd", number, *said, "-t", f"base{number}")
    for name in "ab":
        with tarfile.open(tmp_path / name, "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
    said = ["--history.created_by", "COPY"]
    argosy(
        "append",
        "-b",
        f"{place}:base1",
        "-f",
        tmp_path / "a",
        "-f",
        tmp_path / "b",
        *said,
        "-t",
        "app",
    )
    argosy(
        "flatten",
        f"{place}:app",
        "--base",
        f"{place}:base1",
        "--history.created_by",
        "FLAT",
        "-t",
        "flat",
    )
    argosy("flatten", f"{place}:app", "--keep", "1", "--history.created_by", "FLAT", "-t", "kept")
    steps = {}
    for tag in ("app", "flat", "kept"):
        to = [f"{place}:{tag}", "--old_base", f"{place}:base1", "--new_base", f"{place}:base2"]
        argosy("rebase", *to, "-t", f"re{tag}")
        for made in (tag, f"re{tag}"):
            steps[made] = [
                step.created_by for step in opened(tmp_path / "images", made).config.history
            ]
            assert "warning" not in argosy("validate", f"{place}:{made}").out
    assert steps == {
        "app": ["ADD", "CMD 1", "COPY", "COPY"], "reapp": ["ADD", "CMD 2", "COPY", "COPY"],
        "flat": ["ADD", "CMD 1", "FLAT"], "reflat": ["ADD", "CMD 2", "FLAT"],
        "kept": ["ADD", "FLAT"], "rekept": ["ADD", "CMD 2", "FLAT"],
    }  # fmt: skip


def test_flatten_export_and_diff(argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    argosy("flatten", f"oci:{layout}:v1", "-t", "flat")
    assert len(opened(layout, "flat").layers) == 1
    argosy("diff", "--fs", f"oci:{layout}:v1", f"oci:{layout}:flat")
    assert (
        "config rootfs.diff_ids"
        in argosy("diff", f"oci:{layout}:v1", f"oci:{layout}:flat", code=1).out
    )
    argosy("export", f"oci:{layout}:v1", tmp_path / "out.tar")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert len(archive.getnames()) == len(set(archive.getnames())) > 3
    assert argosy("export", f"oci:{layout}:v1", "--path", "/absent", tmp_path / "x.tar", code=2).err
    assert not (tmp_path / "x.tar").exists()


def test_an_archive_is_not_changed_in_place(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    argosy("cp", f"oci:{layout}:v1", f"oci-archive:{tmp_path / 'a.tar'}:v1")
    before = (tmp_path / "a.tar").read_bytes()
    assert (
        "not changed in place"
        in argosy("mutate", f"oci-archive:{tmp_path / 'a.tar'}:v1", "-u", "x", code=64).err
    )
    assert (tmp_path / "a.tar").read_bytes() == before
    argosy(
        "mutate",
        f"oci-archive:{tmp_path / 'a.tar'}:v1",
        "-u",
        "x",
        "-t",
        f"oci:{tmp_path / 'b'}:v2",
    )
    assert opened(tmp_path / "b", "v2").config.execution.user == "x"


def test_convert_recompress_and_reproducible_say_that_the_digest_changed(
    argosy: Run, layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"oci:{layout}:v1"
    assert "the digest was" in argosy("recompress", place, "--compress", "zstd", "-t", "z").err
    assert opened(layout, "z").config == opened(layout, "v1").config
    assert "the digest was" in argosy("convert", place, "--format", "docker", "-t", "d").err
    assert opened(layout, "d").manifest.media_type.startswith("application/vnd.docker")
    assert "the digest was" not in argosy("convert", place, "-t", "same").err
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000")
    argosy("reproducible", place, "-t", "r")
    rows = json.loads(argosy("fs", "ls", "-R", f"oci:{layout}:r", "--json").out)
    assert max(row["mtime"] for row in rows) <= 1000
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    assert "SOURCE_DATE_EPOCH" in argosy("reproducible", place, code=64).err


def test_the_commands_of_an_index(argosy: Run, layout: pathlib.Path) -> None:
    place = f"oci:{layout}"
    argosy("index", "create", f"{place}:v1", "-t", f"{place}:idx", "-a", "x=y")
    argosy("index", "add", f"{place}:idx", f"{place}:multi")
    found = json.loads(argosy("manifest", "get", f"{place}:idx").out)
    assert len(found["manifests"]) == 3
    argosy("index", "annotate", f"{place}:idx", "-a", "x-", "-a", "z=1")
    argosy("index", "rm", f"{place}:idx", found["manifests"][0]["digest"])
    argosy("index", "filter", f"{place}:idx", "--platform", "linux/arm64")
    found = json.loads(argosy("manifest", "get", f"{place}:idx").out)
    assert [e["platform"]["architecture"] for e in found["manifests"]] == ["arm64"]
    assert found["annotations"] == {"z": "1"}
    argosy("index", "rm", f"{place}:idx", code=64)
    argosy("index", "add", f"{place}:v1", f"{place}:multi", code=1)
    argosy("index", "rm", f"{place}:idx", "--platform", "linux/s390x", code=2)


def test_new_is_an_empty_image(argosy: Run, tmp_path: pathlib.Path) -> None:
    assert "What the image is for" in argosy("new", "--help").out
    assert "What the image is for" in argosy("source", "build", "--help").out
    argosy("new", f"oci:{tmp_path / 'l'}:empty", "--platform", "linux/riscv64", "--author", "me")
    image = opened(tmp_path / "l", "empty")
    assert (str(image.platform), image.layers, image.config.author) == ("linux/riscv64", (), "me")


def test_history_and_size(argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    place = f"oci:{layout}:v1"
    assert "layer 0" in argosy("history", place).out
    assert argosy("history", place, "--json").json[0]["size"] > 0
    assert "FROM scratch" in argosy("history", place, "--dockerfile").out
    assert "efficiency" in argosy("size", place).out
    assert argosy("size", place, "--json").json["efficiency"] == 1.0
    (tmp_path / "ci").write_text("rules:\n  lowestEfficiency: 1.0\n  highestWastedBytes: 1KB\n")
    argosy("size", place, "--ci-config", tmp_path / "ci")
    for wrong in ("rules: [", "rules: 2020-13-45", "[" * 20_000):
        (tmp_path / "ci").write_text(wrong)
        said = argosy("size", place, "--ci-config", tmp_path / "ci", code=1).err
        assert f"{tmp_path / 'ci'}: not YAML: " in said


def test_the_times_of_a_history_are_shown_in_one_form(argosy: Run, layout: pathlib.Path) -> None:
    place = f"oci:{layout}:v1"
    for time in ("2026-11-22T21:53:54.013465444Z", "2026-11-22T21:53:54Z"):
        argosy("mutate", place, "--label", f"at={time}", "--history.created", time)
    shown = [line.split()[0] for line in argosy("history", place).out.splitlines()]
    assert shown[-2:] == ["2026-11-22T21:53:54Z"] * 2


def test_a_wasteful_image_fails_in_ci(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    for content in ("a" * 5000, "b" * 5000, "c" * 5000):
        (tmp_path / "big").write_text(content)
        argosy("insert", f"oci:{layout}:v1", tmp_path / "big", "/big")
    out = argosy("size", f"oci:{layout}:v1", "--highestWastedBytes", "1kB", code=1).out
    assert "/big" in out
    assert "broken: highestWastedBytes" in out


def test_a_value_without_meaning_is_wrong_usage_and_no_broken_rule(
    argosy: Run, layout: pathlib.Path
) -> None:
    place = f"oci:{layout}:v1"
    for words in (
        ("size", place, "--lowestEfficiency", "2"),
        ("size", place, "--highestUserWastedPercent", ""),
        ("size", place, "--highestWastedBytes", "-1"),
        ("mutate", place, "--created", "-5", "-t", "new"),
    ):
        argosy(*words, code=64)


def test_fs_cp_copies_out_of_an_image(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_text("x")
    (tmp_path / "in/run").write_text("y")
    (tmp_path / "in/run").chmod(0o4755)
    argosy("insert", f"oci:{layout}:v1", tmp_path / "in", "/srv")
    argosy("fs", "cp", f"oci:{layout}:v1", "/srv", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["file", "run"]
    argosy("fs", "cp", f"oci:{layout}:v1", "/srv/run", tmp_path / "run")
    assert stat.S_IMODE(os.stat(tmp_path / "run").st_mode) == 0o755
    argosy("fs", "cp", f"oci:{layout}:v1", "/srv/run", tmp_path / "run", code=1)
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    argosy("fs", "cp", f"oci:{layout}:v1", "/srv/run", tmp_path / "link", code=1)
    assert not (tmp_path / "victim").exists()
    argosy("fs", "cat", f"oci:{layout}:v1", "/srv/absent", code=2)


def test_source_images(argosy: Run, tmp_path: pathlib.Path) -> None:
    (tmp_path / "rpms").mkdir()
    (tmp_path / "rpms/bash-5.2-1.src.rpm").write_bytes(BASH)
    place = f"oci:{tmp_path / 'out'}:latest-source"
    argosy("source", "build", "-s", tmp_path / "rpms", "-t", place)
    (tmp_path / "vendor.tar.gz").write_bytes(b"\x1f\x8b")
    argosy("source", "add", place, tmp_path / "vendor.tar.gz")
    found = argosy("source", "ls", place, "--json").json
    assert [row["annotations"]["filename"] for row in found] == [
        "bash-5.2-1.src.rpm",
        "vendor.tar.gz",
    ]
    assert "GPLv3+" in argosy("source", "ls", place).out
    argosy("source", "unpack", place, tmp_path / "sources")
    assert (tmp_path / "sources/rpm_dir/bash-5.2-1.src.rpm").read_bytes() == BASH
    argosy("source", "build", "-t", place, code=64)
    for name in ("rpms", "sources"):
        argosy("source", "add", place, "-e", tmp_path / name)
    added = [row["annotations"]["filename"] for row in argosy("source", "ls", place, "--json").json]
    assert added[2:] == ["extra-src-0.tar", "extra-src-1.tar"]
    argosy("source", "add", place, code=64)


def test_history_has_a_time_where_one_is_expected(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    place = f"oci:{layout}:v1"
    argosy("insert", place, tmp_path / "a", "/a", "-t", "inserted")
    assert opened(layout, "inserted").config.history[-1].created is not None
    one = argosy("mutate", place, "-u", "x", "-t", "one").out
    assert argosy("mutate", place, "-u", "x", "-t", "two").out == one
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    argosy("mutate", place, "-u", "x", "-t", "three")
    assert opened(layout, "three").config.history[-1].created == "1970-01-01T00:00:00Z"


def test_what_a_sparse_copy_left_out_is_told_with_its_platform(
    argosy: Run, tmp_path: pathlib.Path
) -> None:
    platforms = ("linux/amd64", "linux/arm64")
    random.index(LayoutStore.create(tmp_path / "all"), 1, "m", platforms=platforms)
    some = f"oci:{tmp_path}/some:m"
    argosy("cp", "-q", "--sparse", "--platform", "linux/amd64", f"oci:{tmp_path}/all:m", some)
    told = argosy("validate", some, code=4).out
    assert told.startswith("error: m: manifest sha256:")
    assert told.endswith(": is not there, for linux/arm64\n")
    argosy("validate", "--platform", "linux/amd64", some)
