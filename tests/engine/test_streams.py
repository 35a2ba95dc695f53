"""The streams of a program in the foreground: whole, in order, and never waited for in vain."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from argosy.engine.streams import Streams, run_attached
from argosy.errors import StorageError

ATTACHED = "import sys; from argosy.engine.streams import run_attached; sys.exit(run_attached(sys.argv[1:], interactive=True))"


def attached(*argv: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    """A program below `run_attached`, in a process whose streams are what is given."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", ATTACHED, *argv], **{"timeout": 60, "check": False, **more}
    )


def test_much_goes_through_in_both_directions_at_once() -> None:
    data = os.urandom(1 << 20)
    assert attached("cat", input=data, stdout=subprocess.PIPE).stdout == data


def test_what_goes_to_one_file_keeps_its_order(tmp_path: pathlib.Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8; do echo out$i; echo err$i >&2; done"
    with (tmp_path / "both").open("wb") as file:
        attached("sh", "-c", script, stdout=file, stderr=file)
    assert (tmp_path / "both").read_text().split() == [
        f"{stream}{i}" for i in range(1, 9) for stream in ("out", "err")
    ]


def test_a_program_whose_reader_is_gone_gets_sigpipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = attached("sh", "-c", "trap - PIPE; while :; do echo y; done", stdout=writer)
    os.close(writer)
    assert done.returncode not in (0, 1)


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_output_that_does_not_block_is_waited_for(kind: str) -> None:
    reader, writer = os.pipe() if kind == "pipe" else os.openpty()
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [sys.executable, "-c", ATTACHED, "head", "-c", "300000", "/dev/zero"],
        stdout=writer,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(writer)
        got = 0
        with contextlib.suppress(OSError):  # a terminal whose other side is gone says EIO
            while data := os.read(reader, 4096):
                got += len(data)
        assert process.wait(60) == 0, process.stderr.read() if process.stderr else ""
    os.close(reader)
    assert got == 300_000


def test_output_that_cannot_be_written_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    before = os.dup(1)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    try:
        with pytest.raises(StorageError, match="standard output: no space left"):
            run_attached(["echo", "lost"], interactive=False)
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(full)


def test_who_goes_on_in_the_background_is_not_waited_for() -> None:
    script = "(while test -e /proc/$PPID; do sleep 0.1; done) & echo said"
    assert attached("sh", "-c", script, stdout=subprocess.PIPE).stdout == b"said\n"


FINISH = """
import subprocess, sys
from argosy.engine.streams import Streams

with Streams(interactive=False) as streams:
    (copy,) = {one for one in streams._copies if one.target == 1}
    join = copy.join
    copy.join = lambda seconds: (print("waits", file=sys.stderr, flush=True), join(seconds))
    program = subprocess.Popen(["head", "-c", "120000", "/dev/zero"], stdout=streams.stdout)
    streams.start()
    program.wait()
    streams.finish([int(sys.argv[1])])
    print("left", file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize(("number", "waits"), [("WINCH", True), ("CONT", True), ("TERM", False)])
def test_a_slow_reader_is_waited_for_until_this_process_is_to_end(number: str, waits: bool) -> None:
    argv = [sys.executable, "-c", FINISH, str(int(signal.Signals[f"SIG{number}"]))]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == (b"waits\n" if waits else b"left\n")
        if waits:
            assert len(process.stdout.read()) == 120_000


def test_streams_that_were_never_started_leave_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    with Streams(interactive=True):
        pass
    assert os.listdir("/proc/self/fd") == before
