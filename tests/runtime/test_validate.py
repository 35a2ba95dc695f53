"""What config.json must not say, and what it may: without root and without touching the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime.errors import ConfigError
from argosy.runtime.request import read_config
from argosy.runtime.validate import validate
from tests.runtime.bundlekit import MAPPED, starting


def put(config: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The configuration with another value at a place."""
    target = config
    *path, last = place.split(".")
    for name in path:
        target = target.setdefault(name, {})
    target[last] = value
    return config


BAD: list[tuple[str, Any, str]] = [
    ("ociVersion", "2.0.0", "ociVersion: unsupported version 2.0.0"),
    ("ociVersion", "one", "ociVersion: expected a version like 1.3.0"),
    ("ociVersion", "1.3", "ociVersion: expected a version like 1.3.0"),
    ("ociVersion", "1.x.0", "ociVersion: expected a version like 1.3.0"),
    ("root.path", "", "root.path: is missing"),
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
    ("linux.netDevices", {"..": {}}, "invalid network device name"),
    ("linux.gidMappings", [MAPPED], "user namespace isn't enabled"),
    ("process.execCPUAffinity", {"final": "0-x"}, '"0-x" is not a list like 0-3,7'),
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
            ([{"type": "user"}], {"gidMappings": [MAPPED]}, "nor mappings to apply specified"),
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
    config = put(starting(), place, value)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=why) as caught:
        validate(read_config(str(tmp_path))[0])
    assert "\n" not in str(caught.value)


RIGHT: list[tuple[str, Any]] = [
    ("process.rlimits", [{"type": "RLIMIT_CPU", "soft": 2, "hard": 2}]),
    ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 19}),
    ("process.scheduler", {"policy": "SCHED_RR", "priority": 5}),
    ("process.scheduler", {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2}),
    ("process.execCPUAffinity", {"initial": "0-3,7", "final": "65535"}),
    ("linux.memoryPolicy", {"mode": "MPOL_LOCAL"}),
    ("linux.memoryPolicy", {"mode": "MPOL_PREFERRED"}),
    ("linux.memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0"}),
    ("linux.intelRdt", {"closID": "/"}),
    ("linux.intelRdt", {"closID": "guaranteed"}),
    ("linux.sysctl", {"kernel.domainname": "x", "net/ipv4/ip_forward": "1"}),
    ("linux.devices", [{"path": "/p", "type": "p"}]),
    ("linux.devices", [{"path": "/c", "type": "c", "major": 1, "minor": 3}]),
    ("linux.namespaces", [{"type": "uts"}, {"type": "user", "path": "/proc/1/ns/user"}]),
]


@pytest.mark.parametrize(("place", "value"), RIGHT, ids=str)
def test_a_right_value_is_taken(place: str, value: Any) -> None:
    config = put(starting(), place, value)
    if place == "linux.namespaces":
        del config["linux"]["maskedPaths"], config["linux"]["readonlyPaths"]
    validate(config)


def test_labels_are_for_machines_that_have_selinux() -> None:
    config = starting()
    config["process"]["selinuxLabel"] = config["linux"]["mountLabel"] = "x"
    validate(config, selinux=True)


def test_without_privileges_no_network_device_is_moved() -> None:
    config = starting()
    config["linux"]["netDevices"] = {"eth0": {}}
    validate(config)
    with pytest.raises(ConfigError, match="not supported for rootless containers"):
        validate(config, rootless=True)


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.2.1", "1.3.0", "1.99.0+build"])
def test_every_version_1_is_accepted(version: str) -> None:
    validate({**starting(), "ociVersion": version})


def test_hostname_without_a_uts_namespace_is_refused() -> None:
    config = starting()
    config["linux"]["namespaces"] = [{"type": "mount"}]
    with pytest.raises(ConfigError, match="unable to set hostname without a private UTS namespace"):
        validate(config)
