"""The process: user, capabilities, limits, scheduling, environment, namespaces, terminal: on the real kernel."""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from argosy.runtime import parent
from argosy.runtime.errors import describe
from tests.runtime.bundlekit import Bundle, Runtime, has_namespace, terminal


def status(runtime: Runtime, bundle: Bundle) -> dict[str, str]:
    output = runtime.output(bundle.sh("cat /proc/self/status"))
    return {
        name: value.strip()
        for name, _, value in (text.partition(":") for text in output.splitlines())
    }


SETS = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "inheritable": "CapInh",
    "permitted": "CapPrm",
    "ambient": "CapAmb",
}


class TestCapabilities:
    def test_missing_in_the_configuration_means_none(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        del bundle.process["capabilities"]
        found = status(runtime, bundle)
        assert {int(found[name], 16) for name in SETS.values()} == {0}

    def test_each_set_is_exactly_what_is_asked(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.process["user"] = {"uid": 1000, "gid": 1000}
        bundle.process["capabilities"] = {
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        }  # fmt: skip
        found = status(runtime, bundle)
        assert int(found["CapBnd"], 16) == 1 << 5 | 1 << 0 | 1 << 7
        assert (
            int(found["CapAmb"], 16)
            == int(found["CapEff"], 16)
            == int(found["CapInh"], 16)
            == 1 << 5
        )

    def test_an_unknown_one_warns(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.process["capabilities"]["bounding"].append("CAP_MOON")
        done = runtime.run(bundle)
        assert done.returncode == 0
        assert "CAP_MOON" in done.stderr


def test_user_groups_and_umask(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [7, 8], "umask": 0o27}
    assert runtime.output(bundle.sh("id -u; id -g; id -G; umask")).splitlines() == [
        "1000",
        "1001",
        "1001 7 8",
        "0027",
    ]


def test_the_umask_is_022_without_one(runtime: Runtime, bundle: Bundle) -> None:
    assert runtime.output(bundle.sh("umask")) == "0022\n"


def test_limits(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]  # fmt: skip
    output = runtime.output(bundle.sh("cat /proc/self/limits"))
    lines = {text[:25].strip(): text[25:].split()[:2] for text in output.splitlines()}
    assert lines["Max open files"] == ["100", "200"]
    assert lines["Max core file size"] == ["0", "0"]


def test_no_new_privileges(runtime: Runtime, bundle: Bundle) -> None:
    assert status(runtime, bundle)["NoNewPrivs"] == "1"
    bundle.process["noNewPrivileges"] = False
    assert status(runtime, bundle)["NoNewPrivs"] == "0"


def test_out_of_memory_score(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["oomScoreAdj"] = 321
    assert runtime.output(bundle.sh("cat /proc/self/oom_score_adj")) == "321\n"


def test_an_out_of_memory_score_that_is_refused_is_named() -> None:
    with pytest.raises(OSError) as refused:
        parent.write_score(os.getpid(), 2000, rootless=False)
    assert describe(refused.value) == "error setting oomScoreAdj 2000: invalid argument"


def test_scheduler(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    fields = runtime.output(bundle.sh("cat /proc/self/stat")).rpartition(")")[2].split()
    assert (fields[16], fields[38]) == ("7", "3")


def test_io_priority(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    cid = runtime.start(bundle.sh("exec sleep 100"))
    done = subprocess.run(
        ["ionice", "-p", str(runtime.state(cid)["pid"])], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "idle"


def test_personality(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert (
        runtime.output(bundle.sh("cat /proc/self/personality 2>/dev/null || echo 00000008"))
        == "00000008\n"
    )


def test_memory_policy(runtime: Runtime, bundle: Bundle) -> None:
    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("needs a kernel with NUMA")
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    assert "bind:0" in runtime.output(bundle.sh("head -1 /proc/self/numa_maps"))


def test_sysctl(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {
        "net.ipv4.ip_forward": "1",
        "kernel.msgmax": "4321",
        "net/ipv4/conf/lo/forwarding": "0",
    }
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/net/ipv4/conf/lo/forwarding"
    assert runtime.output(bundle.sh(script)).split() == ["1", "4321", "0"]


def test_cpu_affinity_of_the_caller_is_not_handed_on(runtime: Runtime, bundle: Bundle) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    everything = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, everything[:1])
        assert runtime.output(bundle.sh("nproc")).strip() == str(len(everything))
    finally:
        os.sched_setaffinity(0, everything)


class TestEnvironment:
    def test_it_is_the_configurations_and_nothing_else(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        bundle.process["args"] = ["/bin/env"]
        bundle.process["env"] = ["PATH=/bin", "A=1", "A=2", "ODD=x=y", "HOME=/here"]
        output = runtime.output(bundle, env={"LEAK": "1", "PATH": "/usr/bin"})
        assert sorted(output.splitlines()) == ["A=2", "HOME=/here", "ODD=x=y", "PATH=/bin"]

    @pytest.mark.parametrize(("uid", "home"), [(0, "/root"), (1000, "/home"), (4242, "/")])
    def test_home_comes_from_the_containers_users(
        self, runtime: Runtime, bundle: Bundle, uid: int, home: str
    ) -> None:
        bundle.process["user"] = {"uid": uid, "gid": 0}
        bundle.process["env"].append("HOME=")
        assert runtime.output(bundle.sh("echo $HOME")) == home + "\n"

    def test_the_program_is_found_on_the_containers_path(
        self, runtime: Runtime, bundle: Bundle
    ) -> None:
        (bundle.rootfs / "own").mkdir()
        (bundle.rootfs / "own/mine").write_text("#!/bin/sh\necho mine\n")
        (bundle.rootfs / "own/mine").chmod(0o755)
        bundle.process.update(args=["mine"], env=["PATH=/none:/own"])
        assert runtime.output(bundle) == "mine\n"

    def test_the_working_directory_is_made(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.process["cwd"] = "/not/yet/there"
        assert runtime.output(bundle.sh("pwd")) == "/not/yet/there\n"

    def test_a_directory_only_the_user_may_enter(self, runtime: Runtime, bundle: Bundle) -> None:
        (bundle.rootfs / "private").mkdir(mode=0o700)
        os.chown(bundle.rootfs / "private", 1000, 1000)
        bundle.process.update(cwd="/private", user={"uid": 1000, "gid": 1000}, capabilities={})
        assert runtime.output(bundle.sh("pwd")) == "/private\n"

    def test_signals_are_as_a_program_expects_them(self, runtime: Runtime, bundle: Bundle) -> None:
        found = status(runtime, bundle)
        assert int(found["SigIgn"], 16) & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0
        assert int(found["SigBlk"], 16) == 0


class TestNamespaces:
    @pytest.mark.parametrize(
        "kind", ["pid", "network", "ipc", "uts", "mount", "cgroup", "time", "user"]
    )
    def test_a_new_one(self, runtime: Runtime, bundle: Bundle, kind: str) -> None:
        file = {"network": "net", "mount": "mnt"}.get(kind, kind)
        if not has_namespace(file):
            pytest.skip(f"needs a kernel with {kind} namespaces")
        if kind == "user":
            bundle.userns()
        bundle.namespace(kind)
        inside = runtime.output(bundle.sh(f"readlink /proc/self/ns/{file}")).strip()
        assert inside.startswith(f"{file}:[")
        assert inside != os.readlink(f"/proc/self/ns/{file}")

    @pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup", "time"])
    def test_without_one_it_is_the_callers(
        self, runtime: Runtime, bundle: Bundle, kind: str
    ) -> None:
        file = {"network": "net"}.get(kind, kind)
        bundle.namespace(kind, None)
        if kind == "uts":
            del bundle.config["hostname"]
        inside = runtime.output(bundle.sh(f"readlink /proc/self/ns/{file}")).strip()
        assert inside == os.readlink(f"/proc/self/ns/{file}")

    @pytest.mark.parametrize(
        "kinds",
        [("network",), ("pid", "ipc"), ("uts", "network", "ipc", "pid"), ("time",), ("cgroup",)],
    )
    def test_joining_those_of_another_container(
        self, runtime: Runtime, bundle: Bundle, kinds: tuple[str, ...]
    ) -> None:
        for kind in kinds:
            bundle.namespace(kind)
        first = runtime.start(bundle.sh("exec sleep 100"))
        pid = runtime.state(first)["pid"]
        second = runtime.bundle()
        for kind in kinds:
            file = {"network": "net"}.get(kind, kind)
            second.namespace(kind, f"/proc/{pid}/ns/{file}")
            inside = runtime.output(second.sh(f"readlink /proc/self/ns/{file}")).strip()
            assert inside == os.readlink(f"/proc/{pid}/ns/{file}")

    def test_joining_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.userns()
        first = runtime.start(bundle.sh("exec sleep 100"))
        pid = runtime.state(first)["pid"]
        second = runtime.bundle()
        second.userns()
        second.namespace("user", f"/proc/{pid}/ns/user")
        second.linux.pop("uidMappings")
        second.linux.pop("gidMappings")
        inside = runtime.output(second.sh("readlink /proc/self/ns/user; id -u")).split()
        assert inside == [os.readlink(f"/proc/{pid}/ns/user"), "0"]

    def test_identities_of_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.userns(300000, 1000)
        output = runtime.output(
            bundle.sh("cat /proc/self/uid_map /proc/self/gid_map; stat -c %u /bin; id -u")
        )
        assert output.split() == ["0", "300000", "1000", "0", "300000", "1000", "0", "0"]

    def test_clocks_of_a_time_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.namespace("time")
        bundle.linux["timeOffsets"] = {
            "boottime": {"secs": 10_000_000},
            "monotonic": {"secs": 5, "nanosecs": 7},
        }
        uptime = float(runtime.output(bundle.sh("cat /proc/uptime")).split()[0])
        assert uptime > 10_000_000

    def test_host_and_domain_name(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config.update(hostname="there", domainname="example.org")
        script = "hostname; cat /proc/sys/kernel/domainname"
        assert runtime.output(bundle.sh(script)) == "there\nexample.org\n"

    def test_the_loopback_interface_is_up(self, runtime: Runtime, bundle: Bundle) -> None:
        assert ",UP" in runtime.output(bundle.sh("ip link show lo"))

    def test_no_namespaces_at_all(self, runtime: Runtime, bundle: Bundle) -> None:
        bundle.config["linux"] = {}
        del bundle.config["hostname"]
        bundle.config["mounts"] = []
        assert runtime.output(bundle.sh("echo plain")) == "plain\n"


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

        words = [
            str(runtime.path),
            "--root",
            str(runtime.root),
            "run",
            "--preserve-fds",
            "1",
            "-b",
            str(bundle.path),
            f"fds{os.getpid()}",
        ]
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


@contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))
        end.listen()
        end.settimeout(30)
        yield end


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
            words = [
                str(runtime.path),
                "--root",
                str(runtime.root),
                "create",
                "-b",
                str(bundle.path),
                f"nt{os.getpid()}",
            ]
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


class TestExec:
    @pytest.fixture
    def cid(self, runtime: Runtime, bundle: Bundle) -> str:
        return runtime.start(bundle.sh("exec sleep 1000"))

    def test_it_is_inside(self, runtime: Runtime, cid: str) -> None:
        script = "cat /proc/1/cmdline; readlink /proc/self/ns/pid /proc/1/ns/pid; hostname; ls /"
        output = runtime.ok("exec", cid, "sh", "-c", script)
        assert output.startswith("sleep")
        assert "\nbin\n" in output

    def test_its_status_is_ours(self, runtime: Runtime, cid: str) -> None:
        assert runtime("exec", cid, "sh", "-c", "exit 9").returncode == 9
        assert runtime("exec", cid, "sh", "-c", "kill -9 $$").returncode == 137

    def test_a_failure_of_ours_is_255(self, runtime: Runtime, cid: str) -> None:
        done = runtime("exec", cid, "nothing")
        assert done.returncode == 255
        assert "executable file not found in $PATH" in done.stderr

    def test_options(self, runtime: Runtime, cid: str) -> None:
        script = "pwd; id -u; id -g; id -G; echo $A"
        words = ("--cwd", "/tmp", "-u", "1000:1001", "-g", "7", "-e", "A=b")
        assert runtime.ok("exec", *words, cid, "sh", "-c", script).split() == [
            "/tmp",
            "1000",
            "1001",
            "1001",
            "7",
            "b",
        ]

    def test_options_after_the_id_are_the_commands(self, runtime: Runtime, cid: str) -> None:
        assert runtime.ok("exec", cid, "echo", "-e", "x", "--tty") == "x --tty\n"

    def test_a_process_file(self, runtime: Runtime, cid: str, tmp_path: Path) -> None:
        process = {
            "args": ["sh", "-c", "id -u; pwd"],
            "cwd": "/tmp",
            "user": {"uid": 5},
            "env": ["PATH=/bin"],
        }
        (tmp_path / "process.json").write_text(json.dumps(process))
        assert runtime.ok("exec", "-p", str(tmp_path / "process.json"), cid) == "5\n/tmp\n"

    def test_capabilities_are_added_but_never_inheritable(self, runtime: Runtime, cid: str) -> None:
        output = runtime.ok(
            "exec", "--cap", "CAP_SYS_TIME", cid, "grep", "Cap", "/proc/self/status"
        )
        found = dict(text.split() for text in output.splitlines())
        assert int(found["CapEff:"], 16) >> 25 & 1
        assert int(found["CapInh:"], 16) == int(found["CapAmb:"], 16) == 0

    def test_it_is_in_the_containers_cgroups(self, runtime: Runtime, cid: str) -> None:
        output = runtime.ok("exec", cid, "cat", "/proc/self/cgroup")
        assert all(cid in text for text in output.splitlines() if text.split(":")[1] != "cpuset")

    def test_detached_it_stays(self, runtime: Runtime, cid: str, tmp_path: Path) -> None:
        runtime.ok(
            "exec",
            "-d",
            "--pid-file",
            str(tmp_path / "pid"),
            cid,
            "sleep",
            "500",
            capture_output=False,
        )
        assert int((tmp_path / "pid").read_text()) in json.loads(
            runtime.ok("ps", "--format", "json", cid)
        )

    def test_in_a_user_namespace(self, runtime: Runtime, bundle: Bundle) -> None:
        other = runtime.bundle()
        other.userns()
        cid = runtime.start(other.sh("exec sleep 1000"))
        assert runtime.ok("exec", cid, "sh", "-c", "id -u; cat /proc/self/uid_map").split()[:3] == [
            "0",
            "0",
            "100000",
        ]

    def test_limits_and_privileges_of_the_configuration_hold(
        self, runtime: Runtime, cid: str
    ) -> None:
        output = runtime.ok(
            "exec", cid, "sh", "-c", "grep NoNew /proc/self/status; grep files /proc/self/limits"
        )
        assert output.split()[:2] == ["NoNewPrivs:", "1"]
        assert "1024" in output

    def test_cpu_affinity(self, runtime: Runtime, cid: str, tmp_path: Path) -> None:
        process = {
            "args": ["grep", "Cpus_allowed_list", "/proc/self/status"],
            "cwd": "/",
            "env": ["PATH=/bin"],
        }
        process["execCPUAffinity"] = {"initial": "0", "final": "0"}  # type: ignore[assignment]
        (tmp_path / "p").write_text(json.dumps(process))
        assert runtime.ok("exec", "-p", str(tmp_path / "p"), cid).split() == [
            "Cpus_allowed_list:",
            "0",
        ]


def test_seccomp_stops_a_call(runtime: Runtime, bundle: Bundle) -> None:
    for no_new_privileges in (True, False):
        bundle.process["noNewPrivileges"] = no_new_privileges
        bundle.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
            ],
        }
        assert "not supported" in runtime.output(
            bundle.sh("mkdir /x 2>&1 || true; grep Seccomp: /proc/self/status")
        )


def test_a_seccomp_listener_is_sent_with_the_state(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(tmp_path / "agent"), "listenerMetadata": "mine",
        "syscalls": [{"names": ["chroot"], "action": "SCMP_ACT_NOTIFY"}],
    }  # fmt: skip
    for index, no_new_privileges in enumerate((True, False)):
        bundle.process["noNewPrivileges"] = no_new_privileges
        (tmp_path / "agent").unlink(missing_ok=True)
        with listener(tmp_path / "agent") as end:
            cid = runtime.create(bundle.sh("exec sleep 100"), cid=f"notify{os.getpid()}-{index}")
            connection, _ = end.accept()
            with connection:
                text, ancillary, _, _ = connection.recvmsg(65536, 1024)
            told = json.loads(text)
            assert (told["metadata"], told["fds"], told["state"]["id"]) == (
                "mine",
                ["seccompFd"],
                cid,
            )
            assert told["pid"] == runtime.state(cid)["pid"]
            assert (
                os.readlink(f"/proc/self/fd/{array.array('i', ancillary[0][2])[0]}")
                == "anon_inode:seccomp notify"
            )
            os.close(array.array("i", ancillary[0][2])[0])


def test_a_filter_of_an_older_time_does_not_stop_the_set_up(
    runtime: Runtime, bundle: Bundle
) -> None:
    """Without no_new_privs the filter is loaded early: what init does after it must do without newer calls."""
    newer = [
        "faccessat2",
        "close_range",
        "openat2",
        "clone3",
        "statx",
        "fsopen",
        "open_tree",
        "move_mount",
    ]
    bundle.process["noNewPrivileges"] = False
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    for errno_ret in (1, 38):
        rule = {"names": newer, "action": "SCMP_ACT_ERRNO", "errnoRet": errno_ret}
        bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        assert runtime.output(bundle.sh("echo $HOME; ls /proc/self/fd | wc -l")) == "/home\n4\n"


def test_the_filter_holds_for_hooks_in_the_container(runtime: Runtime, bundle: Bundle) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/x"]}]}
    assert "error running startContainer hook #0: exit status 1" in runtime.run(bundle).stderr
