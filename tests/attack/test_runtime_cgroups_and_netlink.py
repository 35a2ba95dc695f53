"""Attacks on the parts of the runtime that speak to cgroups, to netlink and to seccomp's cache."""

from __future__ import annotations

import os
import pathlib
import struct

import pytest

from argosy.runtime import filtercache, netlink
from argosy.runtime.cgroups import cgroup, devices, files, layout, limits2
from argosy.runtime.errors import Failure
from argosy.runtime.netlink import IFLA_IFNAME, attributes


def test_cve_2021_43784_a_long_attribute_cannot_smuggle_others_in() -> None:
    """A payload of 64 KiB wrapped the 16-bit length around, and its rest was read as attributes of the attacker's."""
    smuggled = struct.pack("=HH", 8, IFLA_IFNAME) + b"evil"
    payload = smuggled + bytes(65536 - len(smuggled))
    with pytest.raises(Failure, match=r"longer than 65531"):
        netlink.attribute(99, payload)
    fits = netlink.attribute(99, smuggled)
    assert attributes(fits) == {99: smuggled}


def test_ghsa_g54h_m393_cpwq_a_list_of_allowed_devices_allows_nothing_else() -> None:
    """The list was once applied on top of "all devices are allowed", so that it forbade nothing."""
    listed = [{"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    policy = devices.policy(listed)
    assert policy.allow is False
    assert ("b", 8, 0) not in policy.exceptions
    reset = devices.transition(devices.Policy(allow=True), policy)
    assert reset[0] == ("devices.deny", "a")


@pytest.mark.parametrize("path", ["/../../etc", "../../../..", "/a/../../../b", "/./../x"])
def test_a_cgroups_path_cannot_leave_the_hierarchy(path: str) -> None:
    found = layout.Layout({"memory": ("/sys/fs/cgroup/memory", "/")}, {"memory": "/own"})
    assert found.directory("memory", path).startswith("/sys/fs/cgroup/memory")
    assert ".." not in found.directory("memory", path).split("/")


@pytest.mark.parametrize(
    "name", ["../../../kernel/core_pattern", "memory.max/../../x", "/etc/passwd"]
)
def test_unified_cannot_write_elsewhere(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "c").mkdir()
    with pytest.raises(Failure, match=r"no slashes"):
        limits2.unified(str(tmp_path / "c"), {name: "evil"})


@pytest.mark.parametrize("below", ["../..", "a/../../b", "/../x"])
def test_exec_cannot_join_a_cgroup_above_the_containers(below: str) -> None:
    with pytest.raises(Failure, match=r"bad sub cgroup path"):
        cgroup.inside("/sys/fs/cgroup/memory/c", below)


def test_a_planted_filter_is_not_loaded(tmp_path: pathlib.Path) -> None:
    """A cache others can write would let them choose the filter of the next container."""
    place = tmp_path / "cache"
    filtercache.put(str(place), b"key", b"12345678")
    place.chmod(0o777)
    assert filtercache.get(str(place), b"key") is None
    place.chmod(0o700)
    (kept,) = place.iterdir()
    kept.unlink()
    evil = tmp_path / "evil"
    evil.write_bytes(b"87654321" + filtercache._hash(b"key87654321"))
    os.symlink(evil, kept)
    assert filtercache.get(str(place), b"key") is None


@pytest.mark.parametrize(("name", "depth"), [("x" * 250, 20), ("y", 1500)])
def test_cgroups_deeper_than_a_path_or_a_stack_are_found_and_removed(
    name: str, depth: int, tmp_path: pathlib.Path
) -> None:
    """A container that may write its cgroups makes such: it could not be deleted, nor what is in them be killed."""
    top = tmp_path / "container"
    top.mkdir()
    here = os.open(top, os.O_DIRECTORY)
    for number in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
        if number == depth - 1:
            with os.fdopen(
                os.open("cgroup.procs", os.O_CREAT | os.O_WRONLY, dir_fd=here), "w"
            ) as file:
                file.write("4242\n")
    assert cgroup.Cgroup({"": str(top)}).pids() == [4242]
    os.unlink("cgroup.procs", dir_fd=here)
    os.close(here)
    files.remove(str(top))
    assert not top.exists()
