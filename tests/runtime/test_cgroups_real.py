"""cgroups of this machine's kernel: made, entered, limited, frozen, killed, counted, removed."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from argosy.runtime import cgroups
from argosy.runtime.cgroups import files as control
from argosy.runtime.cgroups.cgroup import Cgroup
from argosy.runtime.cgroups.v1 import LegacyCgroup
from argosy.runtime.cgroups.v2 import UnifiedCgroup
from argosy.runtime.errors import Failure
from tests.runtime.bundlekit import Bundle, Runtime
from tests.runtime.cgroupkit import legacy, machine, need, sleeper, unified

pytestmark = pytest.mark.root

Group = Callable[[], contextlib.AbstractContextManager[LegacyCgroup | UnifiedCgroup]]
both = pytest.mark.parametrize("make", [legacy, unified], ids=["v1", "v2"])


def text(*parts: str) -> str:
    return pathlib.Path(*parts).read_text().strip()


@both
def test_a_life_from_create_to_destroy_leaves_nothing(make: Group) -> None:
    with make() as group, sleeper() as process:
        group.create()
        group.enter(process.pid)
        assert group.pids() == [process.pid]
        loaded = cgroups.load(group.state())
        assert type(loaded) is type(group)
        assert loaded.paths() == group.paths()
        loaded.freeze()
        assert loaded.frozen()
        loaded.thaw()
        assert not loaded.frozen()
        loaded.kill()
        assert process.wait(10) == -9
        loaded.destroy()
        assert not loaded.exists()
        loaded.destroy()


@both
def test_processes_below_are_counted_and_killed_and_removed_too(make: Group) -> None:
    with make() as group, sleeper() as one, sleeper() as two:
        group.create()
        group.enter(one.pid)
        for place in group.places():
            os.makedirs(place + "/deep/er")
            if (place + "/").count("cpuset/"):
                for name in ("cpus", "mems"):
                    for part in ("/deep", "/deep/er"):
                        pathlib.Path(place + part, f"cpuset.{name}").write_text(
                            text(place, f"cpuset.{name}")
                        )
        group.enter(two.pid, "deep/er")
        assert group.pids() == sorted((one.pid, two.pid))
        group.kill()
        assert (one.wait(10), two.wait(10)) == (-9, -9)
        group.destroy()
        assert not group.exists()


@both
def test_a_frozen_cgroup_is_killed_all_the_same(make: Group) -> None:
    with make() as group, sleeper() as process:
        group.create()
        group.enter(process.pid)
        group.freeze()
        group.kill()
        assert process.wait(10) == -9


def test_without_the_kernels_kill_all_are_stopped_and_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Linux before 5.14 has no `cgroup.kill`."""
    write = control.write

    def old_kernel(path: str, value: str) -> None:
        if path.endswith("/cgroup.kill"):
            raise control.ControlError("open", path, FileNotFoundError(2, "no such file"))
        write(path, value)

    monkeypatch.setattr(control, "write", old_kernel)
    with unified() as group, sleeper() as one, sleeper() as two:
        group.create()
        group.enter(one.pid)
        group.enter(two.pid)
        group.kill()
        assert (one.wait(10), two.wait(10)) == (-9, -9)
        assert not group.frozen()


@both
def test_a_cgroup_with_processes_is_refused_and_stays(make: Group) -> None:
    with make() as group, sleeper() as process:
        group.create()
        group.enter(process.pid)
        with pytest.raises(
            Failure, match=r"container's cgroup is not empty: 1 process\(es\) found"
        ):
            cgroups.load(group.state()).check()
        assert group.pids() == [process.pid]


@both
def test_a_frozen_empty_cgroup_is_refused(make: Group) -> None:
    with make() as group:
        group.create()
        group.freeze()
        with pytest.raises(Failure, match=r"container's cgroup unexpectedly frozen"):
            cgroups.load(group.state()).check()
        group.thaw()
        cgroups.load(group.state()).check()


@both
def test_undo_leaves_no_directory_it_made_not_even_parents(make: Group) -> None:
    with make() as group:
        group.create()
        parents = [os.path.dirname(place) for place in group.places()]
        assert all(os.path.isdir(parent) for parent in parents)
        group.undo()
        assert not any(os.path.exists(parent) for parent in parents)


@both
def test_a_create_that_fails_half_way_leaves_nothing(make: Group) -> None:
    with make() as group:
        parents = [os.path.dirname(place) for place in group.places()]
        group.dirs["broken"] = "/proc/argosy-cannot-be/made"
        with pytest.raises(Failure, match=r"mkdir /proc/argosy-cannot-be/made"):
            group.create()
        del group.dirs["broken"]
        assert not any(os.path.exists(parent) for parent in parents)


def test_the_cpuset_is_inherited_all_the_way_down() -> None:
    with legacy() as group:
        need("cpuset")
        group.create()
        root = need("cpuset").mounts["cpuset"][0]
        assert text(group.dirs["cpuset"], "cpuset.cpus") == text(root, "cpuset.cpus")
        assert text(group.dirs["cpuset"], "cpuset.mems") == text(root, "cpuset.mems")


def test_limits_of_version_1_reach_the_kernel() -> None:
    with legacy() as group:
        group.create()
        group.apply(
            {
                "memory": {
                    "limit": 64 << 20,
                    "swap": 128 << 20,
                    "reservation": 32 << 20,
                    "swappiness": 10,
                },
                "cpu": {
                    "shares": 512,
                    "quota": 20000,
                    "period": 50000,
                    "burst": 1000,
                    "cpus": "0",
                    "mems": "0",
                },
                "pids": {"limit": 20},
            }
        )
        assert text(group.dirs["memory"], "memory.limit_in_bytes") == str(64 << 20)
        assert text(group.dirs["memory"], "memory.memsw.limit_in_bytes") == str(128 << 20)
        assert text(group.dirs["memory"], "memory.swappiness") == "10"
        assert text(group.dirs["cpu"], "cpu.cfs_quota_us") == "20000"
        assert text(group.dirs["cpu"], "cpu.cfs_period_us") == "50000"
        assert text(group.dirs["cpu"], "cpu.cfs_burst_us") == "1000"
        assert text(group.dirs["cpuset"], "cpuset.cpus") == "0"
        assert text(group.dirs["pids"], "pids.max") == "20"


def test_memory_and_swap_move_together_up_and_down() -> None:
    with legacy() as group:
        group.create()
        for limit, swap in ((64, 128), (256, 512), (32, 48), (-1, 0), (16, 16)):
            scaled = {"limit": limit << 20 if limit > 0 else limit, "swap": swap << 20}
            group.apply({"memory": scaled})
        assert text(group.dirs["memory"], "memory.memsw.limit_in_bytes") == str(16 << 20)


def test_a_memory_limit_below_the_usage_is_refused_with_the_usage() -> None:
    program = f"exec {sys.executable} -c \"b = bytearray(b'x') * (48 << 20); print(1, flush=True); input()\""
    with legacy() as group, sleeper("read go; " + program) as _:
        group.create()
        process = subprocess.Popen(
            ["sh", "-c", "read go; " + program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdin
            assert process.stdout
            group.enter(process.pid)
            process.stdin.write(b"go\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"1\n"
            group.apply({"memory": {"limit": 512 << 20, "swap": 512 << 20}})
            with pytest.raises(
                Failure,
                match=r"unable to set memory limit to 4096 \(current usage: \d+, peak usage: \d+\)",
            ):
                group.apply({"memory": {"limit": 4096}})
        finally:
            process.kill()
            process.communicate()


def test_a_limit_of_zero_processes_lets_none_fork() -> None:
    with legacy() as group:
        group.create()
        group.apply({"pids": {"limit": 0}})
        assert text(group.dirs["pids"], "pids.max") == "0"
        process = subprocess.Popen(
            ["sh", "-c", "read go; (exit 0)"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        group.enter(process.pid)
        _, complaint = process.communicate(b"go\n", timeout=20)
        assert b"fork" in complaint
        assert process.returncode


def test_an_out_of_memory_kill_is_seen() -> None:
    with legacy() as group:
        group.create()
        group.apply({"memory": {"limit": 16 << 20, "swap": 16 << 20}})
        program = f"read go; exec {sys.executable} -c \"b = bytearray(b'x') * (64 << 20)\""
        process = subprocess.Popen(["sh", "-c", program], stdin=subprocess.PIPE)
        group.enter(process.pid)
        process.communicate(b"go\n", timeout=60)
        assert process.returncode == -9
        assert group.oom_kills() == 1
        events = group.oom_events()
        assert events
        assert os.path.exists(events)


def test_version_2_limits_by_the_controllers_it_has() -> None:
    with unified() as group:
        group.create()
        controllers = text(group.path, "cgroup.controllers").split()
        group.apply({"unified": {"cgroup.max.depth": "3"}})
        assert text(group.path, "cgroup.max.depth") == "3"
        if "hugetlb" in controllers:
            group.apply({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
            assert text(group.path, "hugetlb.2MB.max") == str(4 << 20)
        if "memory" not in controllers:
            with pytest.raises(Failure, match=r"memory\.max") as caught:
                group.apply({"memory": {"limit": 4 << 20}})
            assert "the memory controller is not available" in caught.value.__notes__[0]


def test_hybrid_sets_the_limits_of_controllers_that_live_in_version_2() -> None:
    found = machine()
    if "" not in found.mounts or found.unified or "hugetlb" in found.mounts:
        pytest.skip("cgroups: no hybrid with hugetlb in version 2")
    if "hugetlb" not in text(found.mounts[""][0], "cgroup.controllers").split():
        pytest.skip("cgroups: no hugetlb controller")
    with legacy() as group:
        group.create()
        group.apply({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]})
        assert text(group.dirs[""], "hugetlb.2MB.max") == str(4 << 20)


def test_a_process_can_be_born_in_a_version_2_cgroup() -> None:
    from argosy.runtime.kernel import LinuxKernel

    with unified() as group:
        group.create()
        fd = group.dirfd()
        assert fd is not None
        read, write = os.pipe()
        pid, pidfd = LinuxKernel().clone3(0, fd)
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        assert group.pids() == [pid]
        for each in (read, write, fd, pidfd):
            os.close(each)
        os.waitpid(pid, 0)


@both
def test_a_process_enters_every_hierarchy_by_itself(make: Group) -> None:
    from argosy.runtime.kernel import LinuxKernel

    with make() as group:
        group.create()
        read, write = os.pipe()
        came, told = os.pipe()
        doors, born = group.doors(), group.dirfd()
        pid, pidfd = LinuxKernel().clone3(0, born)
        if pid == 0:
            for door in doors:
                os.write(door, b"0")
            os.write(told, b"x")
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.read(came, 1)
        own = pathlib.Path(f"/proc/{pid}/cgroup").read_text()
        for controller, place in group.paths().items():
            assert f":{controller}:/{'/'.join(place.split('/')[-2:])}\n" in own, controller
        for each in (*doors, read, write, came, told, pidfd, *([born] if born is not None else [])):
            os.close(each)
        os.waitpid(pid, 0)


def test_doors_that_cannot_be_opened_leave_none_open() -> None:
    with legacy() as group:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Failure, match=r"open .*/tasks: no such file or directory"):
            group.doors()
        assert len(os.listdir("/proc/self/fd")) == before


def test_delegation_gives_away_the_listed_files_and_no_other() -> None:
    with unified() as group:
        group.create()
        group.own(4321)
        place = pathlib.Path(group.path)
        assert place.stat().st_uid == 4321
        listed = set(control.read_or("/sys/kernel/cgroup/delegate", "").split())
        assert {each.name for each in place.iterdir() if each.stat().st_uid == 4321} <= listed
        assert (place / "cgroup.procs").stat().st_uid == 4321
        assert (place / "cgroup.kill").stat().st_uid == 0


@both
def test_statistics_have_runcs_shape(make: Group) -> None:
    with (
        make() as group,
        sleeper("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 1000") as process,
    ):
        group.create()
        group.enter(process.pid)
        found = group.stats()
        assert list(found) == [
            "cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces",
        ]  # fmt: skip
        assert found["pids"]["current"] == 1
        assert {"kernel", "user"} <= set(found["cpu"]["usage"])
        assert {"usage", "swap", "kernel", "kernelTCP"} <= set(found["memory"])
        assert "sched_load_balance" in found["cpuset"]


def test_statistics_show_the_limits_that_were_set() -> None:
    expected_memory = {"usage", "swap", "kernel", "kernelTCP", "raw"}
    with legacy() as group, sleeper() as process:
        group.create()
        group.enter(process.pid)
        group.apply({"memory": {"limit": 64 << 20}, "pids": {"limit": 5}})
        found = group.stats()
        assert set(found["memory"]) - {"cache"} == expected_memory
        assert found["memory"]["usage"]["limit"] == 64 << 20
        assert found["pids"] == {"current": 1, "limit": 5}


def make_and_limit(group: Cgroup, resources: dict[str, Any]) -> None:
    group.create()
    group.apply(resources)


def test_a_caller_without_rights_goes_without_a_cgroup_nobody_asked_for() -> None:
    found = need("memory")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            group = LegacyCgroup.at(found, "argosy-rootless", rootless=True, asked=False)
            group.create()
            group.enter(os.getpid())
            group.apply({"devices": [{"allow": False}]})
            assert group.paths() == {}
            for asked, resources, why in (
                (
                    False,
                    {"pids": {"limit": 3}},
                    "cannot set pids limit: container could not join or create cgroup",
                ),
                (True, {}, "permission denied"),
            ):
                group = LegacyCgroup.at(found, "/argosy-rootless", rootless=True, asked=asked)
                with pytest.raises(Failure, match=why):
                    make_and_limit(group, resources)
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_manager_names_the_cgroup_by_path_or_by_id() -> None:
    found = machine()
    key = next(iter(found.mounts))
    named = cgroups.manager(
        "/a/b", "c", systemd=False, rootless=False, resources={}, annotations={}
    )
    assert named.paths()[key] == found.mounts[key][0] + "/a/b"
    own: Cgroup = cgroups.manager(
        None, "c", systemd=False, rootless=True, resources={}, annotations={}
    )
    assert own.paths()[key].endswith("/c")
    assert own.tolerant
    assert not named.tolerant
    if not found.unified:
        with pytest.raises(Failure, match=r"cannot use unified resources on cgroup v1"):
            cgroups.manager(
                "/a",
                "c",
                systemd=False,
                rootless=False,
                resources={"unified": {"a.b": "1"}},
                annotations={},
            )


def test_the_kernels_refusal_names_value_and_file() -> None:
    with legacy() as group:
        group.create()
        with pytest.raises(Failure, match=r'failed to write "9999": write .*/cpuset\.cpus: '):
            group.apply({"cpu": {"cpus": "9999"}})


def test_a_cgroup_that_cannot_be_made_is_what_is_told_not_that_it_cannot_be_removed(
    runtime: Runtime, bundle: Bundle
) -> None:
    bundle.write()
    read_only = (
        "grep cgroup /proc/self/mounts | while read _ at _; do mount -o remount,bind,ro $at; done"
    )
    argv = runtime.argv("run", "-b", str(bundle.path), runtime.name())
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{read_only}; exec "$@"', "sh", *argv],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "mkdir /sys/fs/cgroup" in done.stderr
    assert "read-only file system" in done.stderr
