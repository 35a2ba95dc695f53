"""The plan: config.json to steps, without root and without touching the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime import kernel as k
from argosy.runtime import starter
from argosy.runtime.errors import ConfigError
from argosy.runtime.mountplan import parse
from argosy.runtime.plan import PROGRAM, Situation, capability_masks, devices, exec_plan, plan
from argosy.runtime.request import read_config
from argosy.runtime.steps import STEPS
from argosy.runtime.validate import validate

GOLDEN = Path(__file__).parent / "golden"


def starting() -> dict[str, Any]:
    config = starter.configuration()
    config["linux"]["namespaces"] = [
        {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")
    ]
    config["process"]["terminal"] = False
    return config


def everything() -> dict[str, Any]:
    config = starting()
    config["domainname"] = "example"
    config["process"].update(
        terminal=True, consoleSize={"height": 24, "width": 80}, apparmorProfile="p", oomScoreAdj=5,
        user={"uid": 1, "gid": 2, "umask": 0o27, "additionalGids": [3, 4]},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 4},
        scheduler={"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        capabilities={"bounding": ["CAP_KILL", "CAP_NOBODY_KNOWS"], "ambient": ["CAP_KILL"]},
    )  # fmt: skip
    config["linux"].update(
        rootfsPropagation="shared",
        sysctl={
            "net.ipv4.ip_forward": "1",
            "net/ipv4/conf/eth0.1/forwarding": "1",
            "kernel.shmmax": "5",
        },
        seccomp={"defaultAction": "SCMP_ACT_ALLOW"},
        personality={"domain": "LINUX32"},
        memoryPolicy={"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        devices=[
            {
                "path": "/dev/fuse",
                "type": "c",
                "major": 10,
                "minor": 229,
                "fileMode": 432,
                "uid": 1,
                "gid": 2,
            }
        ],
        mountLabel="system_u:object_r:c",
    )
    config["hooks"] = {"createContainer": [{"path": "/h"}], "startContainer": [{"path": "/s"}]}
    return config


def shown(steps: tuple[Any, ...]) -> str:
    return "".join(json.dumps(step) + "\n" for step in steps)


@pytest.mark.parametrize("name", ["starting", "everything", "exec", "notify", "no-pivot"])
def test_the_plan_is_what_it_was(name: str) -> None:
    situation = Situation("c1", "/bundle/rootfs", "/bundle", console=True)
    if name == "exec":
        steps = exec_plan(
            everything()["process"], everything(), Situation("c1", "/", waits=False, keep_fds=2)
        )
    elif name == "notify":
        config = everything()
        rule = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
        steps = plan(config, situation)
    elif name == "no-pivot":
        steps = plan(
            starting(), Situation("c1", "/bundle/rootfs", "/bundle", no_pivot=True, keyring=False)
        )
    else:
        steps = plan({"starting": starting, "everything": everything}[name](), situation)
    path = GOLDEN / f"{name}.jsonl"
    assert shown(steps) == path.read_text()


def test_every_step_is_in_the_table() -> None:
    for config in (starting(), everything()):
        for step in plan(config, Situation("c", "/r")):
            assert step[0] in STEPS


def names(config: dict[str, Any], **situation: Any) -> list[str]:
    return [step[0] for step in plan(config, Situation("c", "/r", **situation))]


def test_hooks_come_after_the_mounts_and_before_the_pivot() -> None:
    found = names(everything())
    assert (
        found.index("mount")
        < found.index("hooks")
        < found.index("container_hooks")
        < found.index("pivot")
    )


def test_a_program_behind_the_first_one_is_looked_up_before_it() -> None:
    config = {**everything(), "annotations": {PROGRAM: "app"}}
    steps = [step for step in plan(config, Situation("c", "/r")) if step[0] == "program"]
    assert steps == [("program", ["app"]), ("program", config["process"]["args"])]


def test_start_hooks_come_between_the_wait_and_execve() -> None:
    found = names(everything())
    assert (
        found.index("wait") < found.index("start_hooks") < found.index("execute") == len(found) - 1
    )


def test_the_root_becomes_read_only_after_the_hooks_of_the_container() -> None:
    found = names(starting())
    assert found.index("container_hooks") < found.index("readonly_root")


def test_with_no_new_privileges_the_filter_is_loaded_by_the_last_step() -> None:
    config = everything()
    del config["hooks"]["startContainer"]
    steps = plan(config, Situation("c", "/r"))
    assert "seccomp" not in [step[0] for step in steps]
    assert steps[-1] == ("execute", 0, True)


def test_the_filter_holds_for_the_containers_hooks() -> None:
    found = names(everything())
    assert found.index("wait") < found.index("seccomp") < found.index("start_hooks")


def test_without_no_new_privileges_the_filter_is_loaded_before_capabilities_go() -> None:
    config = everything()
    config["process"]["noNewPrivileges"] = False
    found = names(config)
    assert found.index("ready") < found.index("seccomp") < found.index("bounding")


def test_the_user_is_changed_between_the_bounding_set_and_the_capabilities() -> None:
    found = names(everything())
    assert found.index("bounding") < found.index("user") < found.index("capabilities")


def test_missing_capabilities_are_none_at_all() -> None:
    masks, unknown = capability_masks({})
    assert set(masks.values()) == {0}
    assert unknown == []


def test_an_unknown_capability_is_a_warning_and_not_a_failure() -> None:
    assert ("warn", "ignoring unknown or unavailable capabilities: [CAP_NOBODY_KNOWS]") in plan(
        everything(), Situation("c", "/r")
    )


def test_a_device_of_the_configuration_replaces_the_default_of_its_path() -> None:
    given = {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
    found = [device for device in devices({"devices": [given]}) if device[0] == "/dev/null"]
    assert found == [("/dev/null", "c", 1, 3, 0o600, 0, 0)]


def test_file_modes_are_decimal_numbers_of_json() -> None:
    found = devices({"devices": [{"path": "/dev/x", "type": "p", "fileMode": 438}]})[-1]
    assert found[4] == 0o666


def test_sysctl_names_may_have_slashes_for_dots() -> None:
    paths = [step[1] for step in plan(everything(), Situation("c", "/r")) if step[0] == "sysctl"]
    assert paths == ["net/ipv4/ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel/shmmax"]


class TestMountOptions:
    def parsed(self, *options: str, fstype: str = "tmpfs", **more: Any) -> dict[str, Any]:
        entry = {
            "destination": "/d",
            "type": fstype,
            "source": "/s",
            "options": list(options),
            **more,
        }
        return parse(entry, "mounts[0]")

    def test_the_later_of_two_opposites_wins(self) -> None:
        assert self.parsed("ro", "rw")["set"] == 0
        assert self.parsed("rw", "ro")["set"] == k.MOUNT_ATTR_RDONLY

    def test_unknown_options_are_the_file_systems(self) -> None:
        assert self.parsed("size=1m", "mode=0700", "nosuid")["data"] == ["size=1m", "mode=0700"]

    def test_a_bind_takes_no_options_of_a_file_system(self) -> None:
        found = self.parsed("bind", "size=1m", "ro")
        assert (found["data"], found["ignored"]) == ([], ["size=1m"])
        assert found["set"] == k.MOUNT_ATTR_RDONLY

    def test_what_a_bind_cannot_have_is_said(self) -> None:
        config = starting()
        config["mounts"] = [{"destination": "/a", "source": "/", "options": ["bind", "size=1m"]}]
        steps = plan(config, Situation("c1", "/bundle/rootfs", "/bundle"))
        assert ("warn", "mounts[0]: ignoring what a bind mount cannot have: size=1m") in steps

    def test_recursive_attributes_are_apart_from_the_mounts_own(self) -> None:
        found = self.parsed("rbind", "rro", "nosuid")
        assert (found["set"], found["rset"]) == (k.MOUNT_ATTR_NOSUID, k.MOUNT_ATTR_RDONLY)

    def test_an_access_time_mode_clears_the_others(self) -> None:
        found = self.parsed("rbind", "rnoatime", "rstrictatime")
        assert (found["rset"], found["rclear"]) == (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME)

    def test_mappings_come_in_pairs(self) -> None:
        with pytest.raises(ConfigError, match="both uid and gid mappings"):
            self.parsed("bind", uidMappings=[{"containerID": 0, "hostID": 1, "size": 1}])

    def test_only_binds_are_id_mapped(self) -> None:
        with pytest.raises(ConfigError, match="only supported for bind-mounts"):
            self.parsed("idmap")

    def test_a_relative_source_is_below_the_bundle(self) -> None:
        entry = {"destination": "/d", "source": "data", "options": ["bind"]}
        assert parse(entry, "mounts[0]", "/b")["source"] == "/b/data"

    def test_every_option_the_specification_requires_is_known(self) -> None:
        must = (
            "async atime defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec "
            "noiversion nolazytime norelatime nostrictatime nosuid nosymfollow private relatime remount ro rprivate rshared "
            "rslave runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable mand nomand "
            "rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime rrelatime rnorelatime rnoatime ratime "
            "rstrictatime rnostrictatime rnosymfollow rsymfollow"
        )
        assert self.parsed(*must.split())["data"] == []


MAPPED = {"containerID": 0, "hostID": 0, "size": 1}
BAD: list[tuple[str, Any, str]] = [
    ("ociVersion", "2.0.0", "ociVersion: unsupported version 2.0.0"),
    ("ociVersion", "one", "ociVersion: expected a version like 1.3.0"),
    ("process.user", {"uid": -1}, "process.user.uid: expected an integer from 0 to 4294967294"),
    ("process.user", {"uid": True}, "process.user.uid: expected an integer"),
    ("process.args", [], "process.args: must not be empty"),
    ("process.args", ["a", 1], r"process.args\[1\]: expected a string"),
    ("process.args", ["a\0b"], r"process.args\[0\]: contains a NUL byte"),
    ("process.cwd", "here", "Cwd must be an absolute path"),
    ("process.env", ["NOVALUE"], "invalid environment variable: missing '='"),
    ("process.rlimits", [{"type": "RLIMIT_X"}], 'invalid rlimit type "RLIMIT_X"'),
    ("process.rlimits", [{"type": "RLIMIT_CPU"}] * 2, "is there twice"),
    ("process.selinuxLabel", "x", "selinux is disabled or not supported"),
    ("process.scheduler", {"policy": "SCHED_X"}, "process.scheduler.policy: unknown value"),
    (
        "process.scheduler",
        {"policy": "SCHED_OTHER", "priority": 3},
        "priority can only be specified",
    ),
    ("process.ioPriority", {"class": "IOPRIO_CLASS_X"}, "invalid ioPriority.Class"),
    ("process.ioPriority", {"priority": 1}, 'invalid ioPriority.Class: ""'),
    ("process.execCPUAffinity", {"initial": "x"}, "process.execCPUAffinity.initial: "),
    ("process.execCPUAffinity", {"final": ""}, "process.execCPUAffinity.final: '' names no CPU"),
    (
        "process.ioPriority",
        {"class": "IOPRIO_CLASS_BE", "priority": 8},
        "invalid ioPriority.Priority: 8",
    ),
    ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}], "duplicated ns"),
    ("linux.namespaces", [{"type": "moon"}], "does not exist"),
    ("linux.namespaces", [{"type": "pid", "path": "x"}], "must be absolute"),
    (
        "linux.uidMappings",
        [MAPPED],
        "user namespace isn't enabled",
    ),
    ("linux.timeOffsets", {"monotonic": {"secs": 1}}, "time namespace isn't enabled"),
    ("linux.sysctl", {"kernel.panic": "1"}, "is not in a separate kernel namespace"),
    ("linux.sysctl", {"net.../x": "1"}, "is not the name of a sysctl"),
    ("linux.sysctl", {"net.//.kernel.panic": "1"}, "is not the name of a sysctl"),
    ("linux.sysctl", {"net/../kernel/core_pattern": "|x"}, "is not the name of a sysctl"),
    ("linux.sysctl", {"fs/mqueue/./x": "1"}, "is not the name of a sysctl"),
    ("linux.sysctl", {"user.max_user_namespaces": "1"}, "without a user namespace"),
    ("linux.sysctl", {"kernel.hostname": "x"}, "conflicts with the OCI"),
    ("linux.rootfsPropagation", "sideways", "linux.rootfsPropagation: unknown value"),
    ("linux.personality", {"domain": "DOS"}, "linux.personality.domain: unknown value"),
    ("linux.memoryPolicy", {"nodes": "0"}, 'invalid memory policy mode ""'),
    ("linux.memoryPolicy", {"mode": "MPOL_X"}, "invalid memory policy mode"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND"}, "requires at least one node"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "9-1"}, "is not a range"),
    ("linux.devices", [{"path": "/dev/x", "type": "z"}], r"linux.devices\[0\].type: unknown value"),
    ("linux.devices", [{"path": "/dev/x", "type": "c"}], "needs major and minor"),
    (
        "linux.devices",
        [{"path": "/dev/x", "type": "c", "major": 1 << 12, "minor": 0}],
        r"linux.devices\[0\].major: expected an integer from 0 to 4095, got 4096",
    ),
    ("linux.namespaces", ["pid"], r"linux.namespaces\[0\]: expected an object, got 'pid'"),
    ("linux.namespaces", [{"type": ["pid"]}], r"linux.namespaces\[0\].type: expected a string"),
    ("hostname", "\ud800", r"hostname: '\\ud800' has half of a surrogate pair"),
    ("process.args", ["sh", "\ud800"], r"process.args\[1\]: .* has half of a surrogate pair"),
    ("annotations", {"\ud800": "x"}, "annotations: .* has half of a surrogate pair"),
    ("process", "sh", "process: expected an object, got 'sh'"),
    (
        "mounts",
        [{"destination": "/x", "uidMappings": [{"containerID": 0, "hostID": 1}]}],
        r"mounts\[0\].uidMappings\[0\].size: is missing",
    ),
    (
        "linux.resources",
        {"blockIO": {"throttleReadBpsDevice": [{"rate": 1}]}},
        r"blockIO.throttleReadBpsDevice\[0\].major: is missing",
    ),
    (
        "linux.resources",
        {"network": {"priorities": [{"name": "lo"}]}},
        r"network.priorities\[0\].priority: is missing",
    ),
    ("linux.maskedPaths", ["x"], "must be absolute"),
    ("linux.netDevices", {"eth0": {"name": "a/b"}}, "invalid network device name"),
    ("hooks", {"poststop": [{"path": "x"}]}, r"hooks.poststop\[0\].path: must be absolute"),
    ("hooks", {"prestart": [{"path": "/x", "timeout": 0}]}, "timeout: must be above 0"),
    ("process.cwd", "", "Cwd property must not be empty"),
    ("process.env", ["=x"], "name cannot be empty"),
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}], "is above the hard limit"),
    ("process.scheduler", {"nice": 1}, "scheduler policy is required"),
    ("process.scheduler", {"policy": "SCHED_BATCH", "nice": 20}, "invalid scheduler.nice: 20"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "nice": -21}, "invalid scheduler.nice: -21"),
    (
        "process.scheduler",
        {"policy": "SCHED_IDLE", "flags": ["X"]},
        "process.scheduler.flags: unknown value",
    ),
    *[
        ("process.scheduler", {"policy": "SCHED_RR", name: 1}, "only be specified for SchedDeadl")
        for name in ("runtime", "deadline", "period")
    ],
    ("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": -1}, "ioPriority.Priority: -1"),
    ("linux.namespaces", [{"type": "mount"}], "without a private UTS namespace"),
    ("linux.personality", {"domain": "LINUX", "flags": ["X"]}, "personality.flags: no flags are"),
    ("linux.intelRdt", {"closID": "a/b"}, 'invalid intelRdt.ClosID "a/b"'),
    ("linux.intelRdt", {"closID": ".."}, r'invalid intelRdt.ClosID "\.\."'),
    ("linux.mountLabel", "x", "linux.mountLabel: SELinux is disabled or not supported"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "flags": ["X"]}, "invalid memory policy flag"),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "requires 0 nodes but got 1"),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "65536"}, "is not a range of 0 to 65535"),
    ("linux.readonlyPaths", ["x"], r"linux.readonlyPaths\[0\]: must be absolute"),
    ("linux.devices", [{"path": "x", "type": "p"}], r"linux.devices\[0\].path: must be absolute"),
    ("linux.netDevices", {"a" * 16: {}}, "invalid network device name"),
    *[
        ("linux", {"namespaces": [{"type": "uts"}, *spaces], **more}, why)
        for spaces, more, why in (
            ([], {"maskedPaths": ["/x"]}, "without a private MNT namespace"),
            ([], {"readonlyPaths": ["/x"]}, "without a private MNT namespace"),
            ([], {"netDevices": {"eth0": {}}}, "without a NET namespace"),
            ([], {"sysctl": {"net.core.somaxconn": "1"}}, "not allowed in host network namespace"),
            ([], {"sysctl": {"kernel.msgmax": "1"}}, "not allowed in the hosts ipc namespace"),
            ([], {"sysctl": {"fs.mqueue.x": "1"}}, "not allowed in the hosts ipc namespace"),
            ([{"type": "user"}], {}, "nor mappings to apply specified"),
            ([{"type": "user"}], {"uidMappings": [MAPPED]}, "nor mappings to apply specified"),
            (
                [{"type": "user"}],
                {"uidMappings": [MAPPED], "gidMappings": [{**MAPPED, "size": 0}]},
                r"linux.gidMappings\[0\].size: must be above 0",
            ),
            (
                [{"type": "time", "path": "/proc/1/ns/time"}],
                {"timeOffsets": {"monotonic": {"secs": 1}}},
                "both namespace path and time offsets specified",
            ),
            (
                [{"type": "time"}],
                {"timeOffsets": {"tai": {"secs": 1}}},
                "linux.timeOffsets.tai: unknown clock",
            ),
        )
    ],
]


@pytest.mark.parametrize(
    ("place", "value", "why"), BAD, ids=[f"{place}-{why[:24]}" for place, _, why in BAD]
)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(
    tmp_path: Path, place: str, value: Any, why: str
) -> None:
    config = starting()
    target = config
    *path, last = place.split(".")
    for name in path:
        target = target.setdefault(name, {})
    target[last] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=why) as caught:
        validate(read_config(str(tmp_path))[0])
    assert "\n" not in str(caught.value)


def test_without_privileges_no_network_device_is_moved() -> None:
    config = starting()
    config["linux"]["netDevices"] = {"eth0": {}}
    validate(config)
    with pytest.raises(ConfigError, match="not supported for rootless containers"):
        validate(config, rootless=True)


def test_what_is_unknown_or_null_is_ignored(tmp_path: Path) -> None:
    config = starting()
    config["vm"] = {"hypervisor": 1}
    config["linux"]["tomorrow"] = [{"x": None}]
    config["process"]["user"]["nick"] = 1
    config["mounts"].append({"destination": "/x", "type": "tmpfs", "options": None})
    (tmp_path / "config.json").write_text(json.dumps(config))
    read, _ = read_config(str(tmp_path))
    validate(read)
    assert plan(read, Situation("c", "/rootfs"))


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0", "1.99.0+build"])
def test_every_version_1_is_accepted(version: str) -> None:
    validate({**starting(), "ociVersion": version})


def test_hostname_without_a_uts_namespace_is_refused() -> None:
    config = starting()
    config["linux"]["namespaces"] = [{"type": "mount"}]
    with pytest.raises(ConfigError, match="unable to set hostname without a private UTS namespace"):
        validate(config)
