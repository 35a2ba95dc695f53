"""The caller's standard streams, and the terminal between the caller and a process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from argosy.runtime.flow import Flow
from tests.runtime.bundlekit import Bundle, Runtime, terminal

LINE = "0123456789" * 7 + "\n"
MANY = 6000
"""Lines that are more than every buffer on the way there and back holds."""


@pytest.fixture
def pasted(tmp_path: Path) -> Path:
    path = tmp_path / "pasted"
    path.write_text(LINE * MANY)
    return path


READS = ["sh", "-c", f"head -n {MANY}; echo the end"]


class TestMuchInput:
    """Whoever writes to the container's terminal and waits until it is taken waits for ever: the container waits too,
    for its output to be taken."""

    @staticmethod
    def told(command: list[str], pasted: Path) -> str:
        with terminal() as ours, pasted.open() as given:
            done = subprocess.run(
                command, stdin=given, stdout=subprocess.PIPE, stderr=ours, text=True, timeout=60, check=True
            )  # fmt: skip
        return done.stdout

    def test_to_run(self, runtime: Runtime, bundle: Bundle, pasted: Path) -> None:
        bundle.process.update(terminal=True, args=READS)
        bundle.write()
        command = runtime.argv("run", "-b", str(bundle.path))
        told = self.told([*command, runtime.name()], pasted)
        assert told.endswith("the end\n")
        assert len(told) > MANY * len(LINE)

    def test_to_exec(self, runtime: Runtime, bundle: Bundle, pasted: Path) -> None:
        cid = runtime.start(bundle.sh("exec sleep 100"))
        command = runtime.argv("exec", "-t", cid, *READS)
        told = self.told(command, pasted)
        assert told.endswith("the end\n")
        assert len(told) > MANY * len(LINE)


def test_a_terminal_hangs_up_when_nobody_takes_what_it_shows(
    runtime: Runtime, bundle: Bundle
) -> None:
    """As for ``| head``: its program would wait for ever."""
    bundle.process["terminal"] = True
    bundle.sh("while echo more; do :; done; exit 7").write()
    reader, writer = os.pipe()
    os.close(reader)
    with terminal() as ours, os.fdopen(writer) as nobody:
        done = runtime(
            "run", "-b", str(bundle.path), runtime.name(), stdin=ours, capture_output=False, stdout=nobody, stderr=ours
        )  # fmt: skip
    assert done.returncode == 7


def test_what_the_target_does_not_take_is_kept_and_nothing_more_is_read() -> None:
    (inlet, source), (outlet, target) = os.pipe(), os.pipe()
    os.set_blocking(target, False)
    size = os.write(target, b"x" * 1_000_000)
    os.write(source, b"one")
    flow = Flow(inlet, target)
    flow.move()
    os.write(source, b"two")
    flow.move()
    assert (flow.pending, flow.waits_for, flow.open) == (b"one", target, True)
    os.read(outlet, size)
    flow.move()
    assert os.read(outlet, 100) == b"one"
    os.close(source)
    for _ in range(3):
        flow.move()
    assert (os.read(outlet, 100), flow.open) == (b"two", False)
    for fd in (inlet, outlet, target):
        os.close(fd)


def test_lines_end_on_the_callers_terminal_as_they_do_without_a_container(
    runtime: Runtime, bundle: Bundle
) -> None:
    """The caller's terminal is raw for what is typed only: nothing else would return the carriage."""
    bundle.process.update(terminal=True, args=["echo", "ahoy"])
    bundle.write()
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as shown, os.fdopen(theirs) as stream:
        done = runtime("run", "-b", str(bundle.path), runtime.name(), capture_output=False, stdin=stream, stdout=stream,
                       stderr=stream)  # fmt: skip
        assert (done.returncode, shown.read(100)) == (0, b"ahoy\r\n")


SHOW = "for fd in 0 1 2; do readlink /proc/self/fd/$fd; done > /shown"


class TestStreamsThatTheCallerClosed:
    """They are /dev/null, not the next files that happen to be opened, of this program or of the container's."""

    @staticmethod
    def call(runtime: Runtime, *words: str, closed: str = "<&- >&- 2>&-") -> int:
        command = runtime.argv(*words)
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
        return subprocess.run(shell, timeout=60, check=False).returncode

    def test_run(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.sh(SHOW).write()
        assert self.call(runtime, "run", "-b", str(bundle.path), runtime.name()) == 0
        self.shown(bundle)

    @pytest.mark.parametrize("closed", ["<&-", "<&- >&- 2>&-"])
    def test_create(self, runtime: Runtime, bundle: Bundle, closed: str) -> None:
        bundle.sh(f"{SHOW}; echo done > /done").write()
        os.mkfifo(bundle.rootfs / "done")
        cid = runtime.name()
        closed = f"{closed} >/dev/null 2>&1" if closed == "<&-" else closed
        assert self.call(runtime, "create", "-b", str(bundle.path), cid, closed=closed) == 0
        runtime.ok("start", cid)
        assert (bundle.rootfs / "done").read_text() == "done\n"
        self.shown(bundle)

    def test_exec(self, runtime: Runtime, bundle: Bundle) -> None:
        cid = runtime.start(bundle.sh("exec sleep 100"))
        assert self.call(runtime, "exec", cid, "sh", "-c", SHOW) == 0
        self.shown(bundle)

    @staticmethod
    def shown(bundle: Bundle) -> None:
        found = (bundle.rootfs / "shown").read_text().split()
        assert (found[0], found[2]) == ("/dev/null", "/dev/null")


class TestANullThatTheContainerReplaced:
    @pytest.mark.parametrize("made", ["touch", "mkdir", "ln -s /etc/passwd", "true"])
    def test_keeps_nobody_out_and_gives_nothing_of_the_hosts(
        self, runtime: Runtime, bundle: Bundle, made: str
    ) -> None:
        cid = runtime.start(bundle.sh("exec sleep 100"))
        runtime.ok(
            "exec", cid, "sh", "-c", f"rm /dev/null; {made} /dev/null", stdin=subprocess.PIPE
        )
        script = "cat; echo x >/dev/stdin; stat -L -c '%t:%T %a %d' /proc/self/fd/0"
        number, mode, device = runtime.ok("exec", "--user", "1000", cid, "sh", "-c", script).split()
        assert (number, mode) == ("1:3", "666")
        assert int(device) != os.stat("/dev/null").st_dev

    def test_keeps_nobody_out_of_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.userns()
        cid = runtime.start(bundle.sh("exec sleep 100"))
        words = (
            "exec",
            "--cap",
            "CAP_SYS_ADMIN",
            cid,
            "mount",
            "-o",
            "bind",
            "/etc/passwd",
            "/dev/null",
        )
        runtime.ok(*words, stdin=subprocess.PIPE)
        script = (
            "cat; stat -L -c '%t:%T' /proc/self/fd/0; chmod 666 /proc/self/fd/0 || echo refused"
        )
        assert runtime.ok("exec", cid, "sh", "-c", script) == "1:3\nrefused\n"
