"""Containers that are waited for, killed, and started again."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from argosy.engine.container import Container, now
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.errors import ContainerError, ContainerUnknownError
from tests.engine.conftest import Argosy, free_port

pytestmark = pytest.mark.xdist_group("containers")

FOREVER = "echo up; trap 'exit 4' TERM; trap 'echo heard' USR1; while :; do sleep 0.05; done"


def run(argosy: Argosy, image: str, script: str, *options: object) -> None:
    """A container `c` in the background, whose program is up."""
    argosy(
        "run", "-q", "-d", "--name", "c", "--network", "none", *options, image, "sh", "-c", script
    )
    while "up" not in argosy("logs", "c").out:
        pass


def row(argosy: Argosy) -> dict[str, Any]:
    (found,) = json.loads(argosy("ps", "-a", "--json").out)
    assert isinstance(found, dict)
    return found


def in_background(argosy: Argosy, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "argosy", *argv], env=argosy.env,  # type: ignore[attr-defined]
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def until_it_waits(process: subprocess.Popen[str]) -> None:
    """Until the kernel says that a process waits for a lock."""
    while f" {process.pid} " not in "".join(
        line for line in pathlib.Path("/proc/locks").read_text().splitlines(True) if "->" in line
    ):
        assert process.poll() is None


def until_it_looks_at(process: subprocess.Popen[str], path: str) -> None:
    """Until a process has a file open."""
    found: list[str] = []
    while not any(name.endswith(path) for name in found):
        assert process.poll() is None
        with contextlib.suppress(FileNotFoundError):
            folder = f"/proc/{process.pid}/fd"
            found = [os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)]


COUNT = "echo x >> /count; cat /count; echo up; exit 3"


def test_a_container_is_started_again_with_what_it_has_written(argosy: Argosy, image: str) -> None:
    run(argosy, image, COUNT)
    assert argosy("wait", "c").out == "3\n"
    before = row(argosy)
    assert argosy("start", "c").out == "c\n"
    assert argosy("wait", "c").out == "3\n"
    after = row(argosy)
    assert argosy("logs", "c").out.split() == ["x", "up", "x", "x", "up"]
    assert (after["Id"], after["Status"], after["ExitCode"]) == (before["Id"], "exited", 3)
    assert after["Started"] > before["Finished"]
    assert after["Finished"] > after["Started"]


def test_one_that_runs_is_left_alone(argosy: Argosy, image: str) -> None:
    run(argosy, image, FOREVER)
    before = row(argosy)
    assert argosy("start", "c").out == "c\n"
    assert row(argosy) == before
    assert "is running" in argosy("start", "-a", "c", code=1).err


def test_of_two_starts_at_one_moment_one_starts_it_and_the_other_leaves_it_alone(
    argosy: Argosy, image: str, launcher: str, tmp_path: pathlib.Path
) -> None:
    run(argosy, image, FOREVER)
    argosy("kill", "c")
    gate, at_work = tmp_path / "gate", tmp_path / "at-work"
    for path in (gate, at_work):
        os.mkfifo(path)
    runtime = tmp_path / "slow"
    runtime.write_text(
        f'#!/bin/sh\ncase "$*" in *" create "*) : > {at_work}; : < {gate};; esac\nexec {launcher} "$@"\n'
    )
    runtime.chmod(0o755)
    argosy.env["ARGOSY_RUNTIME"] = str(runtime)  # type: ignore[attr-defined]
    first = in_background(argosy, "start", "c")
    at_work.read_bytes()
    second = in_background(argosy, "start", "c")
    until_it_looks_at(second, f"{row(argosy)['Id']}/lock")
    gate.write_bytes(b"")
    for process in (second, first):
        assert process.communicate()[0] == "c\n"
        assert process.returncode == 0
    assert argosy("logs", "c").out == "up\n" * 2


def test_who_starts_a_container_is_waited_for_as_long_as_it_takes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(data=str(tmp_path), run=str(tmp_path), runtime=())
    places.make()
    other = Container.make(places, RunOptions(), image="i", digest="d", detached=True)
    other.record.exit_code = 3
    other.save()
    container = Container.load(places, other.id)
    clock = itertools.count()
    looks = []

    def look(_: float) -> None:
        looks.append(_)
        if len(looks) == 20:
            other.record.started, other.record.exit_code = now(), None
            other.save()

    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("time.sleep", look)
    assert not container.hold_unless_running()
    assert (container.lock, container.status, len(looks)) == (None, "running", 20)
    other.release()
    assert container.hold_unless_running()
    with pytest.raises(ContainerError, match="watched by another process"):
        Container.load(places, other.id).hold()
    container.discard()
    with pytest.raises(ContainerUnknownError):
        other.hold_unless_running()


def test_it_is_attached_with_its_output_its_input_and_its_exit_code(
    argosy: Argosy, image: str
) -> None:
    script = "echo out; echo err >&2; cat; exit 7"
    argosy(
        "run", "-q", "-i", "--name", "c", "--network", "none", image, "sh", "-c", script, stdin="1\n", code=7
    )  # fmt: skip
    done = argosy("start", "-a", "c", stdin="2\n", code=7)
    assert (done.out, done.err) == ("out\n", "err\n")
    assert argosy("start", "-i", "c", stdin="3\n", code=7).out == "out\n3\n"
    assert "its output was not kept" in argosy("logs", "c", code=1).err
    argosy("start", "c")
    argosy("kill", "c")
    assert argosy("logs", "c").out == "out\n"
    assert "only one container" in argosy("start", "-a", "c", "d", code=64).err


def test_everything_that_was_said_holds_again_without_the_image(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    script = (
        "cat /data/x; touch /t/x && ls /t; id -G; hostname; ulimit -n; cat /proc/sys/net/core/somaxconn; "
        "touch /etc/x 2>&1; echo up"
    )
    (tmp_path / "x").write_text("x\n")
    run(
        argosy, image, script, "-v", f"{tmp_path}:/data:ro", "--tmpfs", "/t", "--group-add", "7", "--hostname",
        "ship", "--ulimit", "nofile=99", "--sysctl", "net.core.somaxconn=9", "--read-only",
    )  # fmt: skip
    argosy("wait", "c")
    (entry,) = json.loads(argosy("images", "--json").out)
    argosy("rmi", entry["Name"])
    first = argosy("logs", "c").out
    argosy("start", "c")
    argosy("wait", "c")
    assert argosy("logs", "c").out == first * 2
    assert first.split()[:7] == ["x", "x", "0", "7", "ship", "99", "9"]


def test_a_network_and_its_ports_are_there_again(argosy: Argosy, image: str) -> None:
    port = free_port()
    argosy("run", "-q", "-d", "--name", "c", "-p", f"127.0.0.1:{port}:80", image, "sleep", "100")
    address = row(argosy)["Address"]
    argosy("stop", "-t", "0", "c")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        assert f"port {port}/tcp is in use" in argosy("start", "c", code=1).err
    found = row(argosy)
    assert (found["Status"], found["ExitCode"]) == ("exited", 137)
    argosy("start", "c")
    assert row(argosy)["Address"] in argosy("exec", "c", "cat", "/etc/hosts").out
    assert address


def test_one_that_cannot_be_started_stays_as_it_is(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 5\n")
    program.chmod(0o755)
    argosy(
        "run", "-q", "--name", "c", "--network", "none", "-v", f"{tmp_path}:/p", image, "/p/program", code=5
    )  # fmt: skip
    before = row(argosy)
    program.unlink()
    for options in ([], ["-a"]):
        assert "/p/program" in argosy("start", *options, "c", code=1).err
        assert row(argosy) == before
        assert argosy("wait", "c").out == "5\n"
    program.write_text("#!/bin/sh\nexit 6\n")
    program.chmod(0o755)
    argosy("start", "-a", "c", code=6)


def test_of_a_runtime_that_is_killed_nothing_is_told_that_it_said_before(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    argosy("run", "-q", "--name", "c", "--network", "none", image, "true")
    runtime = tmp_path / "killed"
    runtime.write_text("#!/bin/sh\nkill -9 $$\n")
    runtime.chmod(0o755)
    argosy.env["ARGOSY_RUNTIME"] = str(runtime)  # type: ignore[attr-defined]
    (log,) = (pathlib.Path(argosy.env["ARGOSY_ROOT"]) / "containers").glob("*/runtime.log")  # type: ignore[attr-defined]
    log.write_text('{"level": "error", "msg": "said before"}\n')
    told = argosy("start", "c", code=1).err
    assert re.fullmatch(r"argosy: the runtime failed to create container [0-9a-f]{12}\n", told)


def test_one_whose_watcher_was_killed_is_started_again_once_it_has_ended(
    argosy: Argosy, image: str
) -> None:
    run(argosy, image, FOREVER)
    record = next((pathlib.Path(argosy.env["ARGOSY_ROOT"]) / "containers").glob("*/container.json"))  # type: ignore[attr-defined]
    watcher = json.loads(record.read_text())["watcher"]
    pidfd = os.pidfd_open(watcher)
    os.kill(watcher, signal.SIGKILL)
    os.close(pidfd)
    while row(argosy)["Status"] != "orphaned":
        pass
    assert "nobody watches it" in argosy("start", "c", code=1).err
    assert "nobody will know" in argosy("wait", "c", code=1).err
    argosy("kill", "c")
    assert row(argosy)["Status"] == "dead"
    assert "nobody knows how container c ended" in argosy("wait", "c", code=1).err
    argosy("start", "c")
    argosy("stop", "c")
    assert argosy("wait", "c").out == "4\n"


def test_what_a_start_left_that_was_killed_is_cleared_away_by_the_next(
    argosy: Argosy, image: str, launcher: str, tmp_path: pathlib.Path
) -> None:
    argosy("run", "-q", "--name", "c", image, "sh", "-c", "exit 3", code=3)
    before = row(argosy)
    runtime = tmp_path / "killer"
    runtime.write_text(
        f'#!/bin/sh\ncase "$*" in *" start "*) kill -9 $PPID; exit 1;; esac\nexec {launcher} "$@"\n'
    )
    runtime.chmod(0o755)
    whole = argosy.env["ARGOSY_RUNTIME"]  # type: ignore[attr-defined]
    argosy.env["ARGOSY_RUNTIME"] = str(runtime)  # type: ignore[attr-defined]
    assert "ended unexpectedly" in argosy("start", "c", code=1).err
    argosy.env["ARGOSY_RUNTIME"] = whole  # type: ignore[attr-defined]
    assert f"{before['Id']}/rootfs " in pathlib.Path("/proc/self/mountinfo").read_text()
    assert row(argosy)["Status"] == "exited"
    argosy("start", "-a", "c", code=3)
    assert f"{before['Id']}/rootfs " not in pathlib.Path("/proc/self/mountinfo").read_text()


def test_whoever_waits_hears_of_the_end_also_of_one_that_is_removed_at_it(
    argosy: Argosy, image: str
) -> None:
    run(argosy, image, FOREVER, "--rm")
    with (
        in_background(argosy, "wait", "c") as one,
        in_background(argosy, "wait", "--json", "c") as two,
    ):
        for process in (one, two):
            until_it_waits(process)
        identity = row(argosy)["Id"]
        argosy("kill", "-s", "TERM", "c")
        assert one.stdout is not None
        assert one.stdout.read() == "4\n"
        assert two.stdout is not None
        assert json.loads(two.stdout.read()) == [{"Id": identity, "Name": "c", "ExitCode": 4}]
    assert argosy("ps", "-aq").out == ""
    argosy("wait", "c", code=2)


def test_one_that_is_waited_for_can_be_listed_and_removed(argosy: Argosy, image: str) -> None:
    run(argosy, image, FOREVER)
    with in_background(argosy, "wait", "c") as process:
        until_it_waits(process)
        assert row(argosy)["Status"] == "running"
        argosy("rm", "-f", "c")
        assert process.stdout is not None
        assert process.stdout.read() == "137\n"


def test_kill_waits_for_the_end_and_other_signals_are_only_sent(argosy: Argosy, image: str) -> None:
    run(argosy, image, FOREVER)
    assert argosy("kill", "--signal", "SIGUSR1", "c").out == "c\n"
    while "heard" not in argosy("logs", "c").out:
        pass
    assert row(argosy)["Status"] == "running"
    assert argosy("kill", "c").out == "c\n"
    assert (row(argosy)["Status"], row(argosy)["ExitCode"]) == ("exited", 137)
    assert "is not running" in argosy("kill", "c", code=1).err
    assert "signal 'NOPE' is not known" in argosy("kill", "-s", "NOPE", "nosuch", code=64).err


def test_one_that_refuses_hinders_no_other(argosy: Argosy, image: str) -> None:
    for name in ("a", "b"):
        argosy("run", "-q", "-d", "--name", name, "--network", "none", image, "sleep", "100")
    told = "there is no container nosuch"
    for argv in (("kill", "-s", "CONT"), ("stop", "-t", "0"), ("start",), ("rm", "-f")):
        done = argosy(*argv, "a", "nosuch", "b", code=2)
        assert done.out == "a\nb\n"
        assert told in done.err
    assert argosy("ps", "-aq").out == ""


def test_exec_gives_no_terminal_where_there_is_none(argosy: Argosy, image: str) -> None:
    run(argosy, image, FOREVER)
    argv = ["setsid", "--wait", sys.executable, "-m", "argosy", "exec", "-t", "c", "true"]
    done = subprocess.run(
        argv, env=argosy.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == "argosy: there is no terminal here\nhint: leave out -t\n"
