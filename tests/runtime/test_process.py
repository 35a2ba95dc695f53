"""The process: user, capabilities, limits, scheduling, environment: on the real kernel."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from argosy.runtime import parent
from argosy.runtime.errors import describe
from tests.runtime.bundlekit import Bundle, Runtime


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


@pytest.mark.parametrize("name", ["uid", "gid"])
def test_the_id_that_leaves_a_process_what_it_is_is_refused(
    runtime: Runtime, bundle: Bundle, name: str
) -> None:
    bundle.process["user"][name] = (1 << 32) - 1
    done = runtime.run(bundle.sh("id"))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"process.user.{name}: expected an integer from 0 to 4294967294" in done.stderr
    bundle.process["user"][name] = (1 << 32) - 2
    assert runtime.output(bundle.sh(f"id -{name[0]}")) == "4294967294\n"


def test_of_a_umask_the_permission_bits_count(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["user"]["umask"] = 0xFFFFFFFF
    assert runtime.output(bundle.sh("umask")) == "0777\n"


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


@pytest.mark.parametrize(("of_its_own", "search"), [(False, 0x80000), (True, 0x8)])
def test_the_session_keyring_is_the_containers_and_its_user_may_search_it(
    runtime: Runtime, bundle: Bundle, of_its_own: bool, search: int
) -> None:
    if not os.path.exists("/proc/keys"):
        pytest.skip("keyrings: this kernel shows none")
    if of_its_own:
        bundle.userns()
    bundle.linux["maskedPaths"] = []
    cid = runtime.name()
    keys = runtime.run(bundle.sh("cat /proc/keys"), cid=cid).stdout.splitlines()
    (ring,) = [line.split() for line in keys if f"_ses.{cid}:" in line]
    assert int(ring[4], 16) & search
