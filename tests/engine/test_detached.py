"""Containers in the background: listed, logged, entered, stopped and removed."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.engine.conftest import Argosy

pytestmark = pytest.mark.xdist_group("containers")


def test_a_detached_container_is_listed_logged_entered_stopped_and_removed(
    argosy: Argosy, image: str
) -> None:
    script = "echo out; echo err >&2; trap 'echo bye; exit 3' TERM; while true; do sleep 0.05; done"
    container = argosy(
        "run", "-q", "-d", "--name", "web", "--network", "none", image, "sh", "-c", script
    ).out.strip()
    row = json.loads(argosy("ps", "--json").out)[0]
    assert (row["Id"], row["Name"], row["Status"]) == (container, "web", "running")
    argosy("run", "-q", "-d", "--name", "web", "--network", "none", image, "true", code=125)
    assert argosy("exec", "web", "sh", "-c", "echo inside; exit 5", code=5).out == "inside\n"
    assert argosy(
        "exec", "-e", "X=1", "-w", "/usr", "web", "sh", "-c", "echo $X; pwd"
    ).out.split() == ["1", "/usr"]
    argosy("exec", "web", "nosuch", code=127)
    argosy.env["FROM_HERE"] = "2"  # type: ignore[attr-defined]
    assert argosy("exec", "-e", "FROM_HERE", "web", "sh", "-c", "echo $FROM_HERE").out == "2\n"
    assert argosy("exec", "-u", "root", "web", "id", "-u").out == "0\n"
    argosy("exec", "-u", "nosuchuser", "web", "true", code=125)
    argosy("rm", "web", code=1)
    assert argosy("stop", "-t", "20", container[:12]).out.strip() == container[:12]
    assert json.loads(argosy("ps", "-a", "--json").out)[0]["ExitCode"] == 3
    logs = argosy("logs", "web")
    assert logs.out.split() == ["out", "bye"]
    assert logs.err == "err\n"
    assert argosy("logs", "-n", "1", "-t", "web").out.endswith("bye\n")
    assert argosy("logs", "--since", "1h", "web").out == logs.out
    assert argosy("logs", "--since", "2100-01-01", "web").out == ""
    assert "for example 1h30m" in argosy("logs", "--since", "soon", "web", code=64).err
    argosy("exec", "web", "true", code=125)
    argosy("exec", "nosuch", "true", code=125)
    assert argosy("stop", "web").out == "web\n"
    argosy("kill", "web", code=1)
    argosy("rm", "web")
    assert argosy("ps", "-a", "-q").out == ""


def test_containers_are_found_by_what_they_are_of(argosy: Argosy, image: str) -> None:
    ids = [
        argosy("run", "-q", "-d", "--network", "none", *more, image, *program).out.strip()
        for more, program in (
            (("--name", "web-1", "-l", "job=17", "-l", "kind"), ("sleep", "100")),
            (("--name", "web-2", "-l", "job=18", "-l", "kind"), ("sleep", "100")),
            (("--name", "db", "-l", "job=17"), ("true",)),
        )
    ]
    argosy("wait", "db")

    def found(*filters: str) -> set[int]:
        options = [text for one in filters for text in ("--filter", one)]
        return {ids.index(one) for one in argosy("ps", "-a", "-q", *options).out.split()}

    assert found("name=web") == {0, 1}
    assert found("name=web-1", "name=^d") == {0, 2}
    assert found("label=kind") == {0, 1}
    assert found("label=kind", "label=job=17") == {0}
    assert found("label=kind=17") == set()
    assert found("status=exited") == {2}
    assert found("status=running", "status=exited", "label=job=17") == {0, 2}
    assert found(f"id={ids[1][:12]}") == {1}
    assert found(f"ancestor={image}") == {0, 1, 2}
    assert found("ancestor=nosuch") == set()
    assert argosy("ps", "-q", "-f", "status=exited").out.split() == [ids[2]]
    assert argosy("ps", "-lq").out.split() == [ids[2]]
    assert argosy("ps", "-q", "-n", "2").out.split() == [ids[2], ids[1]]
    assert argosy("ps", "-q", "--last", "9", "-f", "name=web").out.split() == [ids[1], ids[0]]
    (row,) = json.loads(argosy("ps", "--json", "--filter", "name=web-2").out)
    assert row["Labels"] == {"job": "18", "kind": ""}
    for wrong, told in (
        ("name", "expected KEY=VALUE"),
        ("color=red", "KEY one of id, name"),
        ("name=(", "'(' is not a regular expression"),
        ("status=stopped", "expected one of created, running, exited"),
        ("ancestor=Bad Name", "Bad Name"),
    ):
        assert told in argosy("ps", "--filter", wrong, code=64).err


def test_a_container_has_its_images_labels_too(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    labelled = f"oci:{tmp_path}/layout:v1"
    argosy("mutate", "-q", image, "-l", "maker=us", "-l", "job=0", "-t", labelled)
    argosy("run", "-q", "-d", "--network", "none", "-l", "job=17", labelled, "true")
    for label in ("maker", "maker=us", "job=17"):
        assert argosy("ps", "-aq", "--filter", f"label={label}").out, label
    assert not argosy("ps", "-aq", "--filter", "label=job=0").out
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert row["Labels"] == {"maker": "us", "job": "17"}


def test_ps_fills_a_template_with_the_fields_of_dockers(argosy: Argosy, image: str) -> None:
    argosy(
        "run", "-q", "-d", "--name", "a", "--network", "none", "-l", "k=v", image, "sleep", "100"
    )
    argosy("run", "-q", "-d", "--name", "b", "--network", "none", image, "sh", "-c", "exit 7")
    argosy("wait", "b")
    ids = argosy("ps", "-aq").out.split()
    out = argosy("ps", "-a", "--format", r"{{.ID}}\t{{.Names}}\t{{.State}}\t{{.Labels}}").out
    assert out == f"{ids[0][:12]}\tb\texited\t\n{ids[1][:12]}\ta\trunning\tk=v\n"
    told = argosy("ps", "-a", "--format", "{{.Status}}").out.splitlines()
    assert re.fullmatch(r"Exited \(7\) \d+ seconds? ago", told[0])
    assert re.fullmatch(r"Up \d+ seconds?", told[1])
    assert json.loads(argosy("ps", "--format", "json").out)["Names"] == "a"
    assert argosy("ps", "--format", "{{.ID}}", "--filter", "name=none").out == ""
    assert "there is no table" in argosy("ps", "--format", "table {{.ID}}", code=64).err
    assert "no field 'Nosuch'" in argosy("ps", "--format", "{{.Nosuch}}", code=64).err


def test_what_dockers_scripts_say_so_as_not_to_be_asked_is_understood(
    argosy: Argosy, image: str
) -> None:
    argosy("run", "-q", "--name", "c", "--network", "none", image, "true")
    name = json.loads(argosy("images", "--json").out)[0]["Name"]
    argosy("rmi", "nosuch", code=2)
    assert argosy("rmi", "-f", "nosuch", name).out == f"removed {name}\n"
    argosy("prune", "-f")
    assert argosy("ps", "-aq").out == ""


def test_a_dry_run_of_rm_removes_no_container(argosy: Argosy, image: str) -> None:
    argosy("run", "-q", "-d", "--name", "w", "--network", "none", image, "sleep", "100")
    argosy("rm", "--dry-run", "w", code=1)
    assert argosy("rm", "--dry-run", "-f", "w").out == "w\n"
    assert json.loads(argosy("ps", "--json").out)[0]["Status"] == "running"


def test_a_detached_container_that_was_promised_a_stdin_waits_for_it(
    argosy: Argosy, image: str
) -> None:
    script = "echo up; cat; echo over"
    argosy(
        "run", "-q", "-d", "-i", "--name", "i", "--network", "none", image, "sh", "-c", script
    )  # fmt: skip
    while "up" not in argosy("logs", "i").out:
        pass
    argosy("stop", "-t", "0", "i")
    assert argosy("logs", "i").out == "up\n"
    assert json.loads(argosy("ps", "-a", "--json").out)[0]["ExitCode"] == 137


def test_logs_follow_until_the_end(argosy: Argosy, image: str) -> None:
    argosy(
        "run",
        "-q",
        "-d",
        "--name",
        "n",
        "--network",
        "none",
        image,
        "sh",
        "-c",
        "echo one; sleep 0.3; echo two",
    )
    assert argosy("logs", "-f", "n").out.split() == ["one", "two"]


def test_a_detached_container_that_cannot_start_says_why(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    done = argosy("run", "-q", "-d", "--network", "none", image, "nosuch", code=127)
    assert "executable file not found" in done.err
    assert left_behind() == []


def test_the_image_says_what_stops_it_unless_somebody_else_does(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("mutate", image, "--stop-signal", "SIGUSR1", "-t", changed)
    script = "trap 'exit 5' USR1; trap 'exit 6' USR2; echo ready; while :; do sleep 0.05; done"
    for name, options in (("image", []), ("user", ["--stop-signal", "USR2"])):
        argosy(
            "run", "-q", "-d", "--name", name, "--network", "none", *options, changed, "sh", "-c", script
        )  # fmt: skip
        while "ready" not in argosy("logs", name).out:
            pass
        argosy("stop", name)
    codes = {row["Name"]: row["ExitCode"] for row in json.loads(argosy("ps", "-a", "--json").out)}
    assert codes == {"image": 5, "user": 6}


def test_logs_of_one_that_is_removed_at_its_end_end_too(argosy: Argosy, image: str) -> None:
    argosy(
        "run", "-q", "-d", "--rm", "--name", "n", "--network", "none", image, "sh", "-c", "echo one; exec sleep 100"
    )  # fmt: skip
    with subprocess.Popen(
        [sys.executable, "-m", "argosy", "logs", "-f", "n"],
        env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert follower.stdout.readline() == "one\n"
        argosy("rm", "-f", "n")
        assert follower.communicate(timeout=60)[0] == ""
    assert follower.returncode == 0
