"""The plan: config.json to steps, without root and without touching the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime import kernel as k
from argosy.runtime.errors import ConfigError
from argosy.runtime.mountplan import parse
from argosy.runtime.plan import PROGRAM, Situation, capability_masks, devices, exec_plan, plan
from argosy.runtime.request import read_config
from argosy.runtime.steps import STEPS
from argosy.runtime.validate import validate
from tests.runtime.bundlekit import MAPPED, starting

GOLDEN = Path(__file__).parent / "golden"


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


def test_of_a_file_mode_the_permission_bits_count() -> None:
    given = {"path": "/dev/x", "type": "c", "major": 1, "minor": 3, "fileMode": 0o60640}
    assert devices({"devices": [given]})[-1][4] == 0o640


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

    def test_a_mount_of_type_bind_is_one_and_recursive_where_that_is_asked_for(self) -> None:
        assert self.parsed(fstype="bind")["bind"] == "bind"
        assert self.parsed("rbind", fstype="bind")["bind"] == "rbind"

    @pytest.mark.parametrize(
        ("options", "more", "why"),
        [
            (["bind"], {"source": ""}, r"mounts\[0\].source: is missing for a bind mount"),
            ([], {"destination": ""}, r"mounts\[0\].destination: is missing"),
            (["bind", "tmpcopyup"], {}, "tmpcopyup is for tmpfs only"),
            ([], {"uidMappings": [MAPPED], "gidMappings": [MAPPED]}, "only supported for bind-"),
        ],
    )
    def test_what_contradicts_the_mount_is_refused(
        self, options: list[str], more: dict[str, Any], why: str
    ) -> None:
        with pytest.raises(ConfigError, match=why):
            self.parsed(*options, **more)

    def test_a_destination_below_the_root_file_system_of_the_host_is_meant_in_it(self) -> None:
        for destination, meant in (("/b/rootfs/d", "/d"), ("/b/rootfsx", "/b/rootfsx")):
            entry = {"destination": destination, "source": "/s", "options": ["bind"]}
            assert parse(entry, "mounts[0]", "/b", "/b/rootfs")["destination"] == meant

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
