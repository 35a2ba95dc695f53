"""Findings of a bundle: by the schema, by the rules between properties, by the machine, by the directory."""

from __future__ import annotations

import copy
import json
import os
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.bundle import generate, host, schema
from argosy.bundle.check import check_bundle, check_config
from argosy.bundle.host import Host

HERE = Host(
    release=(6, 18),
    namespaces=frozenset(("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")),
    filesystems=frozenset(("proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup2", "ext4")),
    last_capability=40,
    unified=True,
    controllers=frozenset(("cpu", "cpuset", "memory", "io", "pids", "hugetlb")),
    seccomp_actions=frozenset(
        ["kill_process", "kill_thread", "trap", "errno", "user_notif", "trace", "log", "allow"]
    ),
    libseccomp=True,
    security_modules=frozenset(("capability",)),
    resctrl=False,
    network_devices=frozenset(("lo", "eth0")),
    huge_pages=frozenset(("2MB",)),
    cpus=2,
    nodes=frozenset((0,)),
    privileged=True,
    mapping_helpers=False,
    user_namespaces=100,
    sysctls=lambda path: path != "net/no/such",
    exists=lambda path: not path.startswith("/missing"),
)
LEGACY = {"unified": False, "controllers": frozenset(("cpu", "cpuset", "memory", "blkio", "pids"))}


def on(**changes: Any) -> Host:
    import dataclasses

    return dataclasses.replace(HERE, **changes)


def base() -> dict[str, Any]:
    return generate.example(unified=True)


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(base())
    *above, last = path.split(".")
    inner = config
    for part in above:
        inner = inner.setdefault(part, {})
    inner[last] = value
    return config


def said(config: Any, machine: Host = HERE) -> list[str]:
    return [str(finding) for finding in check_config(config, host=machine)]


def test_the_default_configuration_has_no_fault_here_or_on_version_1() -> None:
    assert said(base()) == []
    assert said(base(), on(**LEGACY)) == []


SHAPES: list[tuple[str, Any, str]] = [
    ("ociVersion", "1.3", "refused: ociVersion: expected a string that matches"),
    ("process.cwd", "tmp", "refused: process.cwd: expected an absolute path, got 'tmp'"),
    ("process.user", {"uid": -1}, "refused: process.user.uid: expected 0 to 4294967295, got -1"),
    ("process.user", {"uid": True}, "refused: process.user.uid: expected an integer, got true"),
    ("process.terminal", "yes", "refused: process.terminal: expected true or false, got 'yes'"),
    ("process.args", [1], "refused: process.args[0]: expected a string, got 1"),
    (
        "process.ioPriority",
        {"class": "IOPRIO_CLASS_X"},
        "refused: process.ioPriority.class: expected one of",
    ),
    ("process.oomScoreAdj", 1001, "refused: process.oomScoreAdj: expected -1000 to 1000, got 1001"),
    ("mounts", [{"type": "proc"}], "refused: mounts[0].destination: this property is required"),
    (
        "hooks",
        {"poststop": [{"path": "/x", "timeout": 0}]},
        "refused: hooks.poststop[0].timeout: expected 1 or more",
    ),
    (
        "hooks",
        {"poststop": [{"path": "x"}]},
        "refused: hooks.poststop[0].path: expected an absolute path",
    ),
    (
        "linux.namespaces",
        [{"type": "net"}],
        "refused: linux.namespaces[0].type: expected one of pid, network",
    ),
    (
        "linux.resources.pids",
        {"limit": "5"},
        "refused: linux.resources.pids.limit: expected an integer, got '5'",
    ),
    (
        "linux.resources.hugepageLimits",
        [{"pageSize": "2mb", "limit": 1}],
        "refused: linux.resources.hugepageLimits[0]",
    ),
    ("linux.seccomp", {}, "refused: linux.seccomp.defaultAction: this property is required"),
    (
        "linux.devices",
        [{"path": "/dev/x", "type": "z"}],
        "refused: linux.devices[0].type: expected c, b, u or p, got 'z'",
    ),
    ("linux.maskedPaths", ["proc"], "refused: linux.maskedPaths[0]: expected an absolute path"),
    ("linux.memoryPolicy", {"mode": "MPOL_X"}, "refused: linux.memoryPolicy.mode: expected one of"),
    ("annotations", {"a": 5}, "refused: annotations.a: expected a string, got 5"),
    (
        "linux.rootfsPropogation",
        "shared",
        "ignored: linux.rootfsPropogation: runtime-spec 1.3 has no such property",
    ),
]

RULES: list[tuple[str, Any, str]] = [
    ("ociVersion", "2.0.0", "refused: ociVersion: expected a version 1.x.y"),
    ("process.args", [], "refused: process.args: expected at least one argument"),
    ("process.env", ["A"], "refused: process.env[0]: expected NAME=value, got 'A'"),
    (
        "process.rlimits",
        [{"type": "RLIMIT_X", "soft": 1, "hard": 1}],
        "refused: process.rlimits[0].type: there is no RLIMIT_X",
    ),
    (
        "process.rlimits",
        [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2,
        "refused: process.rlimits[1].type: RLIMIT_CPU is there twice",
    ),
    (
        "process.rlimits",
        [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}],
        "refused: process.rlimits[0].soft: 2 is above",
    ),
    (
        "process.capabilities",
        {"bounding": ["CAP_FLY"]},
        "ignored: process.capabilities.bounding[0]: there is no capability",
    ),
    (
        "process.capabilities",
        {"effective": ["CAP_KILL"]},
        "doubtful: process.capabilities.effective: CAP_KILL has no effect",
    ),
    (
        "process.capabilities",
        {"inheritable": ["CAP_KILL"]},
        "doubtful: process.capabilities.inheritable: programs with file",
    ),
    (
        "process.scheduler",
        {"policy": "SCHED_FIFO"},
        "refused: process.scheduler.priority: expected 1 to 99 for SCHED_FIFO",
    ),
    (
        "process.scheduler",
        {"policy": "SCHED_OTHER", "runtime": 5},
        "refused: process.scheduler.runtime: it is for SCHED_DEADLINE",
    ),
    (
        "mounts",
        [{"destination": "/a", "source": "/b", "options": ["bind", "size=5"]}],
        "ignored: mounts[0].options: a bind mount",
    ),
    ("mounts", [{"destination": "/a"}], "refused: mounts[0].type: expected a file system's type"),
    (
        "mounts",
        [{"destination": "/a", "source": "/b", "options": ["rbind", "idmap"]}],
        "refused: mounts[0].options: idmap without",
    ),
    (
        "mounts",
        [{"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}],
        "refused: mounts[0].options: tmpcopyup is for tmpfs",
    ),
    (
        "mounts",
        [{"destination": "a", "type": "tmpfs"}],
        "doubtful: mounts[0].destination: 'a' is relative",
    ),
    (
        "linux.namespaces",
        [{"type": "mount"}] * 2,
        "refused: linux.namespaces[1].type: the mount namespace is there twice",
    ),
    (
        "linux.namespaces",
        [{"type": "mount"}],
        "refused: hostname: unable to set hostname without a private UTS namespace",
    ),
    (
        "linux.uidMappings",
        [{"containerID": 0, "hostID": 1, "size": 1}],
        "refused: linux.uidMappings: it needs a user namespace",
    ),
    (
        "linux.namespaces",
        [{"type": "mount"}, {"type": "uts"}, {"type": "user"}],
        "refused: linux.uidMappings: a new user namespace",
    ),
    (
        "linux.sysctl",
        {"vm.swappiness": "1"},
        "refused: linux.sysctl.vm.swappiness: it is not namespaced",
    ),
    (
        "linux.sysctl",
        {"net.//.kernel.panic": "1"},
        "refused: linux.sysctl.net.//.kernel.panic: it is not the name of a sysctl",
    ),
    (
        "linux.sysctl",
        {"net/../vm/swappiness": "1"},
        "refused: linux.sysctl.net/../vm/swappiness: it is not the name of a sysctl",
    ),
    (
        "linux.devices",
        [{"path": "/dev/x", "type": "c"}],
        "refused: linux.devices[0]: a device needs major and minor",
    ),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        "refused: linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot",
    ),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1},
        "refused: linux.seccomp.defaultErrnoRet: the action",
    ),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"},
        "ignored: linux.seccomp.listenerPath: no rule",
    ),
    (
        "linux.resources",
        {"memory": {"limit": 5, "swap": 4}},
        "refused: linux.resources.memory.swap: memory+swap limit",
    ),
    (
        "linux.resources",
        {"cpu": {"quota": 5, "burst": 6}},
        "refused: linux.resources.cpu.burst: 6 is above the quota of 5",
    ),
    (
        "linux.resources",
        {"unified": {"a/b": "1"}},
        "refused: linux.resources.unified.a/b: expected the name of a control file",
    ),
    (
        "linux.resources",
        {"memory": {"kernel": 5}},
        "ignored: linux.resources.memory.kernel: kernels have given it up",
    ),
    ("linux.netDevices", {"eth0": {"name": "x" * 16}}, "refused: linux.netDevices.eth0.name:"),
    (
        "linux.timeOffsets",
        {"monotonic": {"secs": 1}},
        "refused: linux.timeOffsets: it needs a time namespace",
    ),
    ("windows", {"layerFolders": ["x"]}, "ignored: windows: this is for another platform"),
    ("hooks", {"prestart": [{"path": "/x"}]}, "doubtful: hooks.prestart: it is deprecated"),
]

MACHINES: list[tuple[str, Any, dict[str, Any], str]] = [
    ("linux.resources", {"memory": {"swappiness": 5}}, {}, "refused: linux.resources.memory.swappiness: cgroup version 2"),
    ("linux.resources", {"unified": {"memory.high": "1"}}, LEGACY, "refused: linux.resources.unified: this machine has cgroup version 1"),
    ("linux.resources", {"memory": {"limit": 5}}, {"controllers": frozenset(())}, "refused: linux.resources.memory: this machine has no memory controller"),
    ("linux.resources", {"network": {"classID": 5}}, LEGACY, "refused: linux.resources.network.classID: this machine has no net_cls"),
    ("linux.resources", {"cpu": {"cpus": "0-7"}}, {}, "refused: linux.resources.cpu.cpus: this machine has no 2, 3, 4"),
    ("linux.resources", {"cpu": {"mems": "1"}}, {}, "refused: linux.resources.cpu.mems: this machine has no 1"),
    ("linux.resources", {"hugepageLimits": [{"pageSize": "1GB", "limit": 1}]}, {}, "refused: linux.resources.hugepageLimits[0].pageSize: expected one of this machine's: 2MB"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_LOG"}, {"seccomp_actions": frozenset(("allow",))}, "refused: linux.seccomp.defaultAction: this kernel does not know SCMP_ACT_LOG"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_LOG"}, {"seccomp_actions": frozenset()}, "refused: linux.seccomp: this kernel has no seccomp"),
    ("linux.seccomp", {"defaultAction": "SCMP_ACT_LOG"}, {"libseccomp": False}, "refused: linux.seccomp: libseccomp is not installed"),
    ("process.apparmorProfile", "x", {}, "refused: process.apparmorProfile: AppArmor is not enabled here"),
    ("process.selinuxLabel", "x", {}, "refused: process.selinuxLabel: SELinux is not enabled here"),
    ("process.execCPUAffinity", {"initial": "7"}, {}, "refused: process.execCPUAffinity.initial: there are 2 CPUs here"),
    ("process.oomScoreAdj", -5, {"privileged": False}, "refused: process.oomScoreAdj: only root"),
    ("process.capabilities", {"bounding": ["CAP_BPF"]}, {"last_capability": 37}, "ignored: process.capabilities.bounding[0]: this kernel has no CAP_BPF"),
    ("linux.netDevices", {"eth7": {}}, {}, "refused: linux.netDevices.eth7: there is no such network device here"),
    ("linux.intelRdt", {"closID": "x"}, {}, "refused: linux.intelRdt: no resctrl"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "3"}, {}, "refused: linux.memoryPolicy.nodes: this machine has the nodes [0]"),
    ("linux.sysctl", {"net.no.such": "1"}, {}, "refused: linux.sysctl.net.no.such: this kernel has no /proc/sys/net/no/such"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "uts"}, {"type": "network", "path": "/missing"}], {}, "refused: linux.namespaces[2].path: /missing does not exist"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "uts"}, {"type": "time"}], {"namespaces": frozenset(("mount", "uts"))}, "refused: linux.namespaces[2].type: this kernel has no time namespaces"),
    ("mounts", [{"destination": "/a", "type": "zfs"}], {}, "refused: mounts[0].type: this kernel knows no file system 'zfs'"),
    ("mounts", [{"destination": "/a", "source": "/missing", "options": ["bind"]}], {}, "refused: mounts[0].source: /missing does not exist"),
    ("mounts", [{"destination": "/a", "source": "/b", "options": ["rbind", "rro"]}], {"release": (5, 11)}, "refused: mounts[0].options: recursive attributes need Linux 5.12"),
    ("hooks", {"poststop": [{"path": "/missing"}]}, {}, "refused: hooks.poststop[0].path: /missing does not exist"),
    ("hostname", "x", {"privileged": False}, "refused: linux.namespaces: without root a container needs a user namespace"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "expected"), SHAPES + RULES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_what_is_wrong_is_found_and_named(path: str, value: Any, expected: str) -> None:
    assert any(finding.startswith(expected) for finding in said(changed(path, value))), said(
        changed(path, value)
    )


@pytest.mark.parametrize(
    ("path", "value", "machine", "expected"),
    MACHINES,
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_a_machine_lacks_is_found_and_named(
    path: str, value: Any, machine: dict[str, Any], expected: str
) -> None:
    found = check_config(changed(path, value), host=on(**machine))
    assert any(str(each).startswith(expected) and each.source == "kernel" for each in found), found


def test_nulls_stand_for_absence() -> None:
    config = base()
    config["linux"] |= {
        "seccomp": None,
        "sysctl": None,
        "resources": {"memory": {"limit": None}, "devices": None},
    }
    config["hooks"] = {"prestart": None}
    assert said(config) == []


def test_without_process_or_mount_namespace_a_container_cannot_be_made() -> None:
    assert said({"ociVersion": "1.3.0"}) == [
        "refused: process: this property is required before the container can be started"
    ]
    config = changed("linux.namespaces", [{"type": "uts"}])
    assert (
        "refused: linux.namespaces: a root file system of its own needs a mount namespace"
        in said(config)
    )


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "ociVersion",
                        "linux",
                        "process",
                        "mounts",
                        "namespaces",
                        "type",
                        "args",
                        "seccomp",
                        "resources",
                        "x",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_value_breaks_the_check(value: Any) -> None:
    for finding in check_config(value, host=HERE):
        assert finding.why
        assert "\n" not in str(finding) or "\n" in finding.where


def bundle(place: pathlib.Path, config: Any, *, rootfs: bool = True) -> str:
    (place / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if rootfs:
        (place / "rootfs" / "bin").mkdir(parents=True)
    return str(place)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no JSON"),
        ('{"a": 1, "a": 2}', "the property 'a' is there twice"),
        ("\xff", "it is no JSON"),
        ("[" * 100000, "it is no JSON"),
        ("[]", "expected an object, got an array"),
    ],
)
def test_a_document_that_is_none_is_refused(tmp_path: pathlib.Path, text: str, why: str) -> None:
    (found,) = check_bundle(bundle(tmp_path, text), host=HERE)
    assert why in str(found)


def test_the_directory_is_checked_too(tmp_path: pathlib.Path) -> None:
    assert [str(each) for each in check_bundle(str(tmp_path), host=HERE)] == [
        "refused: config.json: there is none"
    ]
    place = bundle(tmp_path, base(), rootfs=False)
    assert [str(each) for each in check_bundle(place, host=HERE)] == [
        f"refused: root.path: {place}/rootfs is no directory"
    ]
    (tmp_path / "rootfs" / "bin").mkdir(parents=True)
    assert check_bundle(place, host=HERE) == []
    config = generate.with_args(base(), ["/bin/app"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "the root file system has no /bin/app" in str(check_bundle(place, host=HERE)[0])
    (tmp_path / "rootfs" / "bin" / "app").symlink_to("/etc/passwd")
    assert check_bundle(place, host=HERE) == []
    mounted = generate.with_mount(
        generate.with_args(base(), ["/opt/app"]), {"destination": "/opt", "type": "tmpfs"}
    )
    (tmp_path / "config.json").write_text(json.dumps(mounted))
    assert check_bundle(place, host=HERE) == []


def test_this_machine_can_be_looked_at() -> None:
    here = Host.probe()
    assert {"mount", "pid"} <= here.namespaces
    assert "proc" in here.filesystems
    assert here.cpus >= 1
    assert here.release > (3, 0)
    assert here.privileged == (os.geteuid() == 0)


def test_the_schema_is_a_json_schema_others_can_read() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.Draft202012Validator.check_schema(schema.CONFIG)
    validator = jsonschema.Draft202012Validator(schema.CONFIG)
    assert not list(validator.iter_errors(base()))
    for path, value, expected in SHAPES:
        ours = not expected.startswith("ignored")
        assert bool(list(validator.iter_errors(changed(path, value)))) == ours, path


@pytest.mark.parametrize(
    ("name", "size"),
    [("hugepages-2048kB", "2MB"), ("hugepages-1048576kB", "1GB"), ("hugepages-64kB", "64KB")],
)
def test_sizes_of_huge_pages_have_the_cgroups_names(name: str, size: str) -> None:
    assert host._page_size(name) == size
