"""Containers in the foreground: what is typed, what is shown, and signals."""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import termios

import pytest

from argosy.engine import terminal
from tests.engine.conftest import Argosy, alone

pytestmark = pytest.mark.xdist_group("containers")


def test_stdin_is_closed_unless_asked_for(argosy: Argosy, image: str) -> None:
    assert alone(argosy, image, "cat", stdin="in").out == ""
    assert (
        argosy("run", "-q", "--rm", "-i", "--network", "none", image, "cat", stdin="in").out == "in"
    )


def test_a_terminal_is_a_terminal(argosy: Argosy, image: str) -> None:
    script = "argosy run -q --rm -it --network none IMAGE sh -c 'test -t 0 && test -t 1 && echo yes; exit 4'"
    line = script.replace("argosy", f"{sys.executable} -m argosy").replace("IMAGE", image)
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        env=argosy.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.returncode == 4
    assert "yes" in done.stdout


def test_what_was_typed_before_the_program_runs_is_its_own() -> None:
    person, slave = os.openpty()
    try:
        os.write(person, b"typed\n")
        with terminal.raw_mode(slave):
            assert select.select([slave], [], [], 0)[0]
            assert os.read(slave, 100) == b"typed\n"
    finally:
        os.close(person)
        os.close(slave)


def test_much_that_is_typed_at_once_all_arrives(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    """The container waits for its output to be taken, so nobody may wait for it to take its input."""
    pasted = tmp_path / "pasted"
    pasted.write_text(("0123456789" * 7 + "\n") * 6000)
    line = f"{sys.executable} -m argosy run -q --rm -it --network none {image} sh -c 'while read -r line; do echo $line; case $line in end) exit 5; esac; done'"
    with pasted.open("a") as file:
        file.write("end\n")
    with pasted.open() as file:
        done = subprocess.run(
            ["script", "-qec", line, "/dev/null"], stdin=file,
            env=argosy.env, capture_output=True, text=True, check=False, timeout=120,  # type: ignore[attr-defined]
        )  # fmt: skip
    assert done.returncode == 5, done.stdout[-300:]


def test_output_that_cannot_be_written_costs_neither_the_container_nor_its_exit_code(
    argosy: Argosy, image: str
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "argosy", "run", "-q", "--network", "none", image, "sh", "-c", "echo lost; exit 3"],
            env=argosy.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False,  # type: ignore[attr-defined]
        )  # fmt: skip
    assert done.returncode == 125
    assert "standard output: no space left" in done.stderr
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["Status"], row["ExitCode"]) == ("exited", 3)


def test_a_terminal_nobody_sees_any_more_is_hung_up(argosy: Argosy, image: str) -> None:
    script = "while echo y; do :; done; exit 3"
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(
        [sys.executable, "-m", "argosy", "run", "-q", "-t", "--network", "none", image, "sh", "-c", script],
        env=argosy.env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    os.close(writer)
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["Status"], row["ExitCode"]) == ("exited", 3)


def test_a_terminal_that_is_closed_costs_neither_the_container_nor_its_exit_code(
    argosy: Argosy, image: str
) -> None:
    person, slave = os.openpty()
    argv = ["run", "-q", "-it", "--network", "none", image, "sh", "-c", "echo up; cat; exit 3"]
    with subprocess.Popen(
        [sys.executable, "-m", "argosy", *argv],
        env=argosy.env, stdin=slave, stdout=slave, stderr=subprocess.DEVNULL,  # type: ignore[attr-defined]
    ) as process:  # fmt: skip
        os.close(slave)
        assert os.read(person, 4) == b"up\r\n"
        os.close(person)
        assert process.wait(timeout=60) == 3
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["Status"], row["ExitCode"]) == ("exited", 3)


def test_a_signal_reaches_the_program(argosy: Argosy, image: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "argosy", "run", "-q", "--rm", "--network", "none", image, "sh", "-c",
         "trap 'echo got; exit 6' TERM; echo up; while true; do sleep 0.05; done"],
        env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "got\n"
    assert process.wait(timeout=60) == 6
    process.stdout.close()


def test_signals_of_all_kinds_reach_the_program_and_job_control_does_not(
    argosy: Argosy, image: str
) -> None:
    wanted = [signal.SIGCONT, signal.SIGABRT, signal.SIGRTMIN, signal.SIGRTMIN + 3, signal.SIGRTMAX]
    traps = "; ".join(f"trap 'echo {n:d}' {n:d}" for n in (*wanted, signal.SIGTSTP))
    argv = ["run", "-q", "--rm", "--network", "none", image, "sh", "-c"]
    with subprocess.Popen(
        [sys.executable, "-m", "argosy", *argv, f"{traps}; echo up; while :; do sleep 0.05; done"],
        env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
        process_group=0,  # of one whose parents are all elsewhere the kernel stops nobody
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTSTP)
        os.waitpid(process.pid, os.WUNTRACED)
        for number in wanted:
            process.send_signal(number)
            got = select.select([process.stdout], [], [], 60)[0] and process.stdout.readline()
            assert got == f"{number:d}\n", argosy("rm", "-f", argosy("ps", "-q").out.strip())
        argosy("rm", "-f", argosy("ps", "-q").out.strip())


def test_a_signal_to_exec_reaches_its_program(argosy: Argosy, image: str) -> None:
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", image, "sleep", "100")
    script = "trap 'echo got; exit 6' TERM; echo up; for _ in 1 2 3 4 5; do sleep 1; done"
    with subprocess.Popen(
        [sys.executable, "-m", "argosy", "exec", "c", "sh", "-c", script],
        env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "got\n"
        assert process.wait() == 6


def test_a_signal_to_exec_with_a_terminal_reaches_its_program(argosy: Argosy, image: str) -> None:
    """Killed, the runtime would leave the terminal raw and the program behind."""
    argosy("run", "-q", "-d", "--name", "c", "--network", "none", image, "sleep", "100")
    script = "trap 'exit 6' TERM; echo up; for _ in 1 2 3 4 5; do sleep 1; done"
    person, slave = os.openpty()
    mode = termios.tcgetattr(slave)
    with subprocess.Popen(
        [sys.executable, "-c", OWN_TERMINAL, sys.executable, "-m", "argosy", "exec", "-it", "c", "sh", "-c", script],
        env=argosy.env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,  # type: ignore[attr-defined]
    ) as process:  # fmt: skip
        assert os.read(person, 4) == b"up\r\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 6
    assert termios.tcgetattr(slave) == mode
    os.close(slave)
    os.close(person)


OWN_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
DEAF = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"


def test_a_caller_that_ignores_how_its_children_end_hears_how_the_container_does(
    argosy: Argosy, image: str
) -> None:
    """Ignored signals are handed on: the kernel would throw our children's exit codes away, and the container's."""
    run = ["-m", "argosy", "run", "-q", "--rm", "--network", "none", image]
    done = subprocess.run(
        [sys.executable, "-c", DEAF, sys.executable, *run, "sh", "-c", "cat /proc/self/status; exit 7"],
        env=argosy.env, capture_output=True, text=True, check=False, timeout=120,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    ignored = next(
        line.split()[1] for line in done.stdout.splitlines() if line.startswith("SigIgn")
    )
    assert int(ignored, 16) & (1 << signal.SIGCHLD - 1) == 0
