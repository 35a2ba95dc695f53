"""The runtime configuration of one container, without one."""

from __future__ import annotations

import os
from typing import Any

import pytest

from argosy.bundle.users import User
from argosy.engine.configure import configure
from argosy.engine.mounts import Mount
from argosy.engine.options import RunOptions
from argosy.engine.values import Ulimit
from argosy.errors import UsageError
from argosy.spec.imageconfig import ExecutionParameters, ImageConfig, LayerStack


def made(
    image: ExecutionParameters | None = None, files: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """The configuration of `true` in an image."""
    config = ImageConfig(
        os="linux", architecture="amd64", rootfs=LayerStack(type="layers"),
        config=image or ExecutionParameters(),
    )  # fmt: skip
    return configure(
        config, RunOptions(command=("true",), **options),
        user=User(), container_id="c" * 64, rootfs=os.path.dirname(__file__), files=files or {},
    )  # fmt: skip


def destinations(config: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in config["mounts"]]


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("/t", ["nosuid", "nodev", "noexec"]),
        ("/t:size=1m,exec", ["nosuid", "nodev", "size=1m", "exec"]),
        ("/t:noexec,dev,suid", ["noexec", "dev", "suid"]),
    ],
)
def test_a_tmpfs_keeps_its_flags_unless_their_contrary_is_said(text: str, flags: list[str]) -> None:
    mounts = {mount["destination"]: mount for mount in made(mounts=(Mount.tmpfs(text),))["mounts"]}
    assert mounts["/t"]["options"] == flags


def test_what_lies_in_another_mount_comes_after_it() -> None:
    bound = tuple(Mount.volume(f"/:{place}") for place in ("/a/b/c", "/dev/shm", "/etc", "/a//b/"))
    mounts = (*bound, Mount.tmpfs("/a"))
    order = destinations(made(mounts=mounts, files={"/etc/hosts": "/hosts"}))
    assert len(order) == len(set(order))
    places = [p for p in order if p.startswith(("/a", "/etc", "/dev"))]
    assert places.index("/a") < places.index("/a/b") < places.index("/a/b/c")
    assert places.index("/etc") < places.index("/etc/hosts")
    assert places.index("/dev") < places.index("/dev/shm")


@pytest.mark.parametrize("other", [Mount.volume("/:/b/../a/"), Mount.tmpfs("//a")])
def test_two_mounts_in_one_place_are_refused(other: Mount) -> None:
    with pytest.raises(UsageError, match="/a: two mounts"):
        RunOptions(mounts=(Mount.volume("/:/a"), other))


@pytest.mark.parametrize("place", ["/", "/..", "relative", "/a/../"])
def test_nothing_is_mounted_on_the_root(place: str) -> None:
    with pytest.raises(UsageError, match="absolute path below"):
        Mount.tmpfs(place)
    with pytest.raises(UsageError, match="absolute path below"):
        Mount.volume(f"/srv:{place}")


def test_a_sysctl_of_the_hosts_network_is_refused() -> None:
    setting = ("net.core.somaxconn=7",)
    assert made(sysctls=setting)["linux"]["sysctl"]["net.core.somaxconn"] == "7"
    with pytest.raises(UsageError, match="host network"):
        made(sysctls=setting, network="host")
    assert made(network="host")["linux"]["sysctl"] == {}


def test_a_sysctl_has_one_name_however_it_is_written() -> None:
    sysctls = made(sysctls=("net/ipv4/ip_unprivileged_port_start=9",))["linux"]["sysctl"]
    assert sysctls == {"net.ipv4.ip_unprivileged_port_start": "9"}


def test_the_last_ulimit_of_a_kind_counts_and_minus_one_is_none() -> None:
    texts = ("nofile=1:2", "core=-1", "nofile=3:-1")
    limits = made(ulimits=tuple(map(Ulimit.parse, texts)))["process"]["rlimits"]
    assert limits == [
        {"type": "RLIMIT_NOFILE", "soft": 3, "hard": (1 << 64) - 1},
        {"type": "RLIMIT_CORE", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1},
    ]


def test_what_is_mounted_on_dev_shm_has_no_other_size() -> None:
    with pytest.raises(UsageError, match="/dev/shm"):
        made(shm_size=1, mounts=(Mount.tmpfs("/dev/shm"),))


@pytest.mark.parametrize(
    ("image", "said", "expected"),
    [
        (["e"], None, ["e", "true"]),
        ([""], None, ["true"]),
        (["e"], "", ["true"]),
        ([], "x", ["x", "true"]),
        (["", "e"], None, ["", "e", "true"]),
    ],
)
def test_an_entry_point_of_one_empty_word_is_none(
    image: list[str], said: str | None, expected: list[str]
) -> None:
    config = made(ExecutionParameters(entrypoint=tuple(image)), entrypoint=said)
    assert config["process"]["args"] == expected
