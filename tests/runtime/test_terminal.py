"""What is handed on to the process and back: descriptors, sockets, terminals, readiness."""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

from argosy.runtime.foreground import Terminal
from tests.runtime.bundlekit import Bundle, Runtime, listener, terminal


def test_descriptors_that_are_handed_on(runtime: Runtime, bundle: Bundle) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    other = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(other, True)
    bundle.sh("ls /proc/self/fd | wc -l; ls -l /proc/self/fd >&2; echo through >&3").write()
    try:

        def settle() -> None:
            os.dup2(writer, 103, inheritable=True)
            os.dup2(103, 3, inheritable=True)

        words = runtime.argv(
            "run",
            "--preserve-fds",
            "1",
            "-b",
            str(bundle.path),
            f"fds{os.getpid()}",
        )
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=60,
            close_fds=False,
            preexec_fn=settle,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "5", done.stderr  # 0 1 2 3, and the directory that ls reads
        assert os.read(reader, 100) == b"through\n"
    finally:
        for fd in (reader, writer, other):
            os.close(fd)


def test_socket_activation(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.sh("echo $LISTEN_FDS $LISTEN_PID; echo given >&3").write()
    target = tmp_path / "three"
    script = (
        f"import os; os.dup2(os.open({str(target)!r}, os.O_CREAT | os.O_WRONLY), 3); os.set_inheritable(3, True);"
        f"os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        f"os.execv({str(runtime.path)!r}, ['argosy-runtime', '--root', {str(runtime.root)!r}, 'run', '-b', {str(bundle.path)!r}, 'act'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1 1\n"), done.stderr
    assert target.read_text() == "given\n"


def test_a_missing_descriptor_is_refused(runtime: Runtime, bundle: Bundle) -> None:
    assert (
        "unable to stat preserved-fd 0 (of 3)" in runtime.run(bundle, "--preserve-fds", "3").stderr
    )


def test_fewer_than_no_descriptors_are_refused_and_close_no_stream(
    runtime: Runtime, bundle: Bundle
) -> None:
    done = runtime.run(bundle, "--preserve-fds=-1")
    assert done.returncode == 1
    assert "preserve-fds" in done.stderr


def received(end: socket.socket) -> tuple[bytes, int]:
    connection, _ = end.accept()
    with connection:
        name, ancillary, _, _ = connection.recvmsg(4096, 1024)
        fds = array.array("i", ancillary[0][2])
        assert len(fds) == 1
        return name, fds[0]


def read_all(fd: int) -> bytes:
    text = b""
    while select.select([fd], [], [], 10)[0]:
        try:
            part = os.read(fd, 4096)
        except OSError:
            break
        if not part:
            break
        text += part
    return text


class TestTerminal:
    def test_create_sends_the_master(
        self, runtime: Runtime, bundle: Bundle, tmp_path: Path
    ) -> None:
        bundle.process.update(terminal=True, consoleSize={"height": 33, "width": 77})
        bundle.sh(
            "tty; stty size; ls -l /dev/console | cut -c1; test -t 0 && echo terminal"
        ).write()
        with listener(tmp_path / "console") as end:
            runtime.ok(
                "create",
                "-b",
                str(bundle.path),
                "--console-socket",
                str(tmp_path / "console"),
                f"tty{os.getpid()}",
            )
            name, master = received(end)
            assert name == b"/dev/pts/0"
            runtime.ok("start", f"tty{os.getpid()}")
            assert read_all(master).split() == [b"/dev/pts/0", b"33", b"77", b"c", b"terminal"]
            os.close(master)

    def test_run_copies_it(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.process["terminal"] = True
        with terminal() as ours:
            told = runtime.output(bundle.sh("tty; echo done"), stdin=ours)
        assert told == "/dev/pts/0\ndone\n"

    def test_without_a_terminal_of_the_callers_run_and_exec_refuse_one(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        """Nobody would see it, and its program might wait for a key for ever."""
        cid = runtime.start(bundle.sh("exec sleep 100"))
        done = runtime("exec", "-t", cid, "true", start_new_session=True)
        assert done.returncode == 255
        assert "exec failed: open /dev/tty: no such device or address" in done.stderr
        bundle.process["terminal"] = True
        refused = runtime.name()
        done = runtime.run(bundle, cid=refused, start_new_session=True)
        assert done.returncode == 1
        assert "run failed: open /dev/tty: no such device or address" in done.stderr
        assert not (runtime.root / refused).exists()

    def test_the_socket_must_be_there_when_it_is_needed_and_only_then(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.process["terminal"] = True
        bundle.write()
        assert (
            "without setting console socket"
            in runtime("create", "-b", str(bundle.path), "x").stderr
        )
        bundle.process["terminal"] = False
        bundle.write()
        done = runtime("create", "-b", str(bundle.path), "--console-socket", "/none", "x")
        assert "cannot use console socket" in done.stderr

    def test_in_exec(self, runtime: Runtime, bundle: Bundle) -> None:
        cid = runtime.start(bundle.sh("exec sleep 100"))
        with terminal() as ours:
            told = runtime.ok(
                "exec", "-t", cid, "sh", "-c", "tty; test -t 2 && echo yes", stdin=ours
            )
        assert told == "/dev/pts/0\nyes\n"


def test_a_terminal_that_is_gone_is_not_given_back() -> None:
    person, slave = os.openpty()
    held = Terminal(slave, -1)
    os.close(person)
    held.close()
    os.close(slave)


def test_a_pidfd_of_init_is_sent(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.sh("exec sleep 100").write()
    with listener(tmp_path / "pidfd") as end:
        runtime.ok(
            "run",
            "-d",
            "-b",
            str(bundle.path),
            "--pidfd-socket",
            str(tmp_path / "pidfd"),
            f"pf{os.getpid()}",
            capture_output=False,
        )
        name, fd = received(end)
        assert name == b"standard"
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        assert f"Pid:\t{runtime.state(f'pf{os.getpid()}')['pid'] or 0}\n" in info
        os.close(fd)


def test_ready_of_the_container_is_told_to_the_caller(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        bundle.sh(
            "echo -n READY=1 | nc -u -w1 local:$NOTIFY_SOCKET 2>/dev/null; echo $NOTIFY_SOCKET; ls /run/notify; sleep 30"
        )
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        bundle.write()
        with open(bundle.path / "output", "w") as output:
            words = runtime.argv(
                "create",
                "-b",
                str(bundle.path),
                f"nt{os.getpid()}",
            )
            subprocess.run(
                words,
                env=environment,
                stdout=output,
                stderr=output,
                timeout=60,
                check=True,
                stdin=subprocess.DEVNULL,
            )
        with subprocess.Popen(
            [*words[:3], "start", f"nt{os.getpid()}"], env=environment
        ) as starting:
            while True:
                try:
                    (runtime.root / f"nt{os.getpid()}/notify/notify.sock").stat()
                    break
                except FileNotFoundError:
                    select.select([], [], [], 0.01)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inside:
                inside.sendto(b"READY=1", str(runtime.root / f"nt{os.getpid()}/notify/notify.sock"))
            assert manager.recv(100) == b"READY=1\n"
            assert manager.recv(100) == b"MAINPID=%d\n" % runtime.state(f"nt{os.getpid()}")["pid"]
            barrier, ancillary, _, _ = manager.recvmsg(100, 100)
            assert barrier == b"BARRIER=1"
            os.close(array.array("i", ancillary[0][2])[0])
            assert starting.wait(60) == 0
