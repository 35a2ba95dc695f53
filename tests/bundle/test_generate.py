"""Configurations made and edited."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from argosy.bundle import generate as g
from argosy.bundle.check import check_config
from argosy.bundle.seccompprofile import default_profile
from argosy.errors import InvalidConfigError


def test_the_default_is_what_runc_writes() -> None:
    config = g.example(unified=False)
    assert config["ociVersion"] == "1.3.0"
    assert config["process"]["args"] == ["sh"]
    assert config["process"]["terminal"] is True
    assert config["process"]["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=xterm",
    ]
    assert config["process"]["noNewPrivileges"] is True
    assert config["root"] == {"path": "rootfs", "readonly": True}
    assert [each["type"] for each in config["linux"]["namespaces"]] == [
        "pid",
        "network",
        "ipc",
        "uts",
        "mount",
    ]
    assert config["linux"]["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    assert [each["destination"] for each in config["mounts"]] == [
        "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup",
    ]  # fmt: skip
    assert g.example(unified=True)["linux"]["namespaces"][-1] == {"type": "cgroup"}


def test_editing_leaves_the_old_one_as_it_was() -> None:
    old = g.example(unified=True)
    before = copy.deepcopy(old)
    new = g.with_args(old, ["x"])
    new = g.with_env(new, {"A": "1", "TERM": "dumb"})
    new = g.with_user(new, 5, 6, [7])
    new = g.with_mount(new, {"destination": "/proc", "type": "proc"})
    new = g.with_mount(new, {"destination": "/new", "type": "tmpfs"})
    new = g.with_namespace(new, "network", "/run/netns/x")
    new = g.with_namespace(g.without_namespace(new, "uts"), "time")
    new = g.with_capabilities(new, drop=["all"], add=["net_raw"])
    new = g.with_rlimit(new, "nproc", 5, 6)
    new = g.with_resources(new, "memory", {"limit": 5, "swap": 6})
    new = g.with_sysctls(new, {"net.ipv4.ip_forward": "1"})
    new = g.with_annotations(new, {"a": "b"})
    new = g.with_hook(new, "poststop", {"path": "/bin/x"})
    new = g.with_seccomp(new)
    new = g.without_mount(g.without(new, "process.rlimits"), "/sys")
    assert old == before
    assert new["process"]["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=dumb",
        "A=1",
    ]
    assert new["process"]["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    assert new["mounts"][0] == {"destination": "/proc", "type": "proc"}
    assert new["mounts"][-1] == {"destination": "/new", "type": "tmpfs"}
    assert {"type": "network", "path": "/run/netns/x"} in new["linux"]["namespaces"]
    assert new["process"]["capabilities"] == {
        kind: ["CAP_NET_RAW"] for kind in ("bounding", "effective", "permitted")
    }
    assert "rlimits" not in new["process"]
    assert new["linux"]["resources"]["memory"] == {"limit": 5, "swap": 6}
    assert new["hooks"] == {"poststop": [{"path": "/bin/x"}]}


def test_all_capabilities_can_be_given_and_one_taken() -> None:
    made = g.with_capabilities({}, add=["ALL"], drop=["CAP_KILL"], sets=("bounding",))
    assert len(made["process"]["capabilities"]["bounding"]) == 41
    kept = g.with_capabilities(made, drop=["kill"])
    assert "CAP_KILL" not in kept["process"]["capabilities"]["bounding"]


def test_a_device_brings_its_right() -> None:
    made = g.with_device(
        g.example(), {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}, "rw"
    )
    assert made["linux"]["devices"] == [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    ]
    assert made["linux"]["resources"]["devices"][-1] == {
        "allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw",
    }  # fmt: skip
    fifo = g.with_device({}, {"path": "/run/f", "type": "p"})
    assert "resources" not in fifo["linux"]


WRONG: list[tuple[Any, str]] = [
    (lambda c: g.with_args(c, []), r"process\.args"),
    (lambda c: g.with_env(c, {"": "x"}), r"process\.env"),
    (lambda c: g.with_env(c, {"A=B": "x"}), r"process\.env"),
    (lambda c: g.with_mount(c, {"destination": 5}), r"mounts\.destination"),
    (lambda c: g.without_mount(c, "/nothing"), r"nothing is mounted at /nothing"),
    (lambda c: g.with_namespace(c, "net"), r"linux\.namespaces\[\d\]\.type: expected one of"),
    (lambda c: g.with_capabilities(c, add=["fly"]), r"there is no capability 'fly'"),
    (lambda c: g.with_capabilities(c, sets=("x",)), r"there is no set 'x'"),
    (lambda c: g.with_rlimit(c, "x", 1, 2), r"there is no RLIMIT_X"),
    (lambda c: g.with_rlimit(c, "cpu", 3, 2), r"above the hard limit"),
    (lambda c: g.with_hook(c, "never", {"path": "/x"}), r"hooks\.never: expected one of"),
    (
        lambda c: g.with_hook(c, "poststop", {"path": "x"}),
        r"hooks\.poststop\[0\]\.path: expected an absolute path",
    ),
    (
        lambda c: g.with_property(c, "linux.nope", 1),
        r"linux\.nope: runtime-spec 1\.3\.0 has no such property",
    ),
    (
        lambda c: g.with_property(c, "process.terminal", 1),
        r"process\.terminal: expected true or false, got 1",
    ),
    (
        lambda c: g.with_resources(c, "memory", {"limit": "x"}),
        r"linux\.resources\.memory\.limit: expected an integer",
    ),
    (
        lambda c: g.with_seccomp(c, {"defaultAction": "x"}),
        r"linux\.seccomp\.defaultAction: expected one of",
    ),
    (lambda c: g.with_user(c, -1, 0), r"process\.user\.uid: expected 0 to"),
]


@pytest.mark.parametrize(("edit", "why"), WRONG, ids=[why for _, why in WRONG])
def test_an_edit_that_makes_no_sense_names_its_property(edit: Any, why: str) -> None:
    with pytest.raises(InvalidConfigError, match=why):
        edit(g.example())


def allowed(profile: dict[str, Any]) -> set[str]:
    return {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }


def test_the_default_profile_leaves_out_what_is_dangerous() -> None:
    plain = allowed(default_profile())
    assert {"read", "openat", "execve", "futex", "statx"} <= plain
    for name in (
        "mount", "umount2", "unshare", "setns", "bpf", "keyctl", "add_key", "userfaultfd", "io_uring_setup", "kexec_load",
        "init_module", "open_by_handle_at", "clone", "clone3", "socket", "personality", "pivot_root", "reboot",
    ):  # fmt: skip
        assert name not in plain, name


def test_each_capability_brings_its_calls() -> None:
    assert {"mount", "unshare", "clone", "clone3", "setns"} <= allowed(
        default_profile(capabilities=["CAP_SYS_ADMIN"])
    )
    assert allowed(default_profile(capabilities=["CAP_SYS_CHROOT"])) - allowed(
        default_profile()
    ) == {"chroot"}
    assert default_profile("arm64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert default_profile("riscv64")["architectures"] == ["SCMP_ARCH_RISCV64"]


def test_the_default_profile_is_one_the_check_accepts() -> None:
    found = [
        each
        for each in check_config(g.with_seccomp(g.example()))
        if each.where.startswith("linux.seccomp")
    ]
    assert [each for each in found if each.source != "kernel"] == []
