"""Where the hierarchies are, and what a cgroupsPath names in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.runtime import cgroups
from argosy.runtime.cgroups import layout
from argosy.runtime.cgroups.cgroup import inside
from argosy.runtime.errors import ConfigError, Failure

V1 = """\
21 20 0:19 / /sys/fs/cgroup ro,nosuid shared:5 - tmpfs tmpfs ro,mode=755
22 21 0:20 / /sys/fs/cgroup/systemd rw shared:6 - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
23 21 0:21 / /sys/fs/cgroup/cpu,cpuacct rw shared:7 - cgroup cgroup rw,cpu,cpuacct
24 21 0:22 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
25 21 0:22 / /other/memory rw - cgroup cgroup rw,memory
"""
HYBRID = V1 + "26 21 0:23 / /sys/fs/cgroup/unified rw shared:8 - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = "26 21 0:23 / /sys/fs/cgroup rw shared:8 - cgroup2 cgroup2 rw,nsdelegate\n"
NESTED = "24 21 0:22 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
OWN = "5:memory:/user/me\n4:cpu,cpuacct:/\n1:name=systemd:/s\n0::/user.slice/session-1.scope\n"


def test_version_1_mounts_are_found_by_controller_and_merged_ones_share_a_place() -> None:
    mounts = layout.parse_mounts(V1)
    assert mounts == {
        "name=systemd": ("/sys/fs/cgroup/systemd", "/"),
        "cpu": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "cpuacct": ("/sys/fs/cgroup/cpu,cpuacct", "/"),
        "memory": ("/sys/fs/cgroup/memory", "/"),
    }
    assert not layout.discover(V1, OWN).unified


def test_hybrid_counts_as_version_1_and_has_the_unified_directory_too() -> None:
    found = layout.discover(HYBRID, OWN)
    assert not found.unified
    assert found.directory("", "/a/b") == "/sys/fs/cgroup/unified/a/b"
    assert found.directory("memory", "/a/b") == "/sys/fs/cgroup/memory/a/b"


def test_a_relative_path_starts_at_the_callers_own_cgroup() -> None:
    found = layout.discover(HYBRID, OWN)
    assert found.directory("memory", "c") == "/sys/fs/cgroup/memory/user/me/c"
    assert found.directory("cpu", "c") == "/sys/fs/cgroup/cpu,cpuacct/c"


def test_on_version_2_a_relative_path_starts_beside_the_callers_own_cgroup() -> None:
    found = layout.discover(V2, OWN)
    assert found.unified
    assert found.directory("", "c") == "/sys/fs/cgroup/user.slice/c"


def test_a_mount_of_a_part_of_the_hierarchy_is_entered_below_that_part() -> None:
    found = layout.discover(NESTED, "5:memory:/docker/abc/inner\n")
    assert found.directory("memory", "c") == "/sys/fs/cgroup/memory/inner/c"
    assert (
        layout.discover(NESTED, "5:memory:/docker/abcdef\n")
        .directory("memory", "c")
        .endswith("/docker/abcdef/c")
    )


def test_escapes_in_mountinfo_are_undone() -> None:
    line = r"24 21 0:22 / /a\040b\134c rw - cgroup cgroup rw,pids" + "\n"
    assert layout.parse_mounts(line) == {"pids": ("/a b\\c", "/")}


@given(st.text(alphabet="/.ab", max_size=30))
def test_no_path_leads_above_the_mount_point(path: str) -> None:
    cleaned = layout.clean(path)
    assert cleaned == "" or cleaned.startswith("/")
    assert not {".", ".."} & set(cleaned.split("/"))
    assert layout.clean(cleaned) == cleaned


@pytest.mark.parametrize("path", ["/", "/..", "../..", "a/..", "/a\0b", "a\nb"])
def test_a_path_to_the_root_or_with_strange_bytes_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"linux.cgroupsPath"):
        layout.checked(path)


@pytest.mark.parametrize("below", ["..", "../x", "a/../../b", "a//b", "."])
def test_a_cgroup_below_cannot_lead_out(below: str) -> None:
    with pytest.raises(Failure, match=r"bad sub cgroup path"):
        inside("/sys/fs/cgroup/x", below)
    assert inside("/sys/fs/cgroup/x", "/a/b/") == "/sys/fs/cgroup/x/a/b"
    assert inside("/sys/fs/cgroup/x", "/") == "/sys/fs/cgroup/x"


def test_a_container_without_cgroups_does_nothing_and_says_so_when_asked_to_freeze() -> None:
    group = cgroups.load(cgroups.disabled().state())
    group.create()
    group.enter(1)
    group.apply({"pids": {"limit": 1}})
    assert (group.pids(), group.paths(), group.dirfd(), group.frozen(), group.oom_kills()) == (
        [],
        {},
        None,
        False,
        0,
    )
    group.destroy()
    with pytest.raises(Failure, match=r"cgroups not configured"):
        group.freeze()


def test_a_state_of_an_unknown_driver_is_refused() -> None:
    with pytest.raises(Failure, match=r"expected v1, v2, systemd or disabled, got 'v3'"):
        cgroups.load({"driver": "v3"})
