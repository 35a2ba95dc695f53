"""Docker's form of a seccomp profile: which of its rules hold for a container."""

from __future__ import annotations

from typing import Any

import pytest

from argosy.bundle.seccompprofile import for_container
from argosy.errors import InvalidConfigError

ARCHITECTURES = [
    {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
]


def chosen(rule: dict[str, Any], architecture: str = "amd64") -> dict[str, Any]:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS", "archMap": ARCHITECTURES,
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", **rule}],
    }  # fmt: skip
    return for_container(
        profile, architecture=architecture, capabilities=("CAP_CHOWN", "CAP_KILL"), kernel=(5, 10)
    )


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({}, True),
        ({"includes": {}, "excludes": None}, True),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"includes": {"arches": ["arm", "arm64"]}}, False),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"includes": {"minKernel": "5.10"}}, True),
        ({"includes": {"minKernel": "5.9"}}, True),
        ({"includes": {"minKernel": "5.11"}}, False),
        ({"includes": {"minKernel": "4.8", "caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_KILL"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"arches": ["amd64"]}, "excludes": {"arches": ["s390x"]}}, True),
    ],
)
def test_a_rule_holds_where_its_conditions_do(conditions: dict[str, Any], holds: bool) -> None:
    rules = chosen(conditions)["syscalls"]
    assert rules == ([{"names": ["reboot"], "action": "SCMP_ACT_ALLOW"}] if holds else [])


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("amd64", ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        ("arm64", ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        ("riscv64", ["SCMP_ARCH_RISCV64"]),
        ("s390x", []),
    ],
)
def test_the_architectures_are_those_of_the_machine(architecture: str, names: list[str]) -> None:
    made = chosen({}, architecture)
    assert made["architectures"] == names
    assert made["defaultErrnoRet"] == 38


@pytest.mark.parametrize(
    "rule",
    [
        {"includes": {"weather": "fine"}},
        {"includes": {"minKernel": "new"}},
        {"includes": ["amd64"]},
        {"excludes": {"caps": 7}},
    ],
)
def test_a_condition_nobody_knows_is_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfigError, match="seccomp profile"):
        chosen(rule)
