"""What the kernel is told for one container: limits, groups, sysctls; and where its id is written."""

from __future__ import annotations

import json
import pathlib

import pytest

from argosy.engine import cgroup
from argosy.runtime.cgroups import layout
from tests.engine.conftest import Argosy

pytestmark = pytest.mark.xdist_group("containers")


def test_limits_groups_and_the_size_of_shared_memory_are_what_was_said(
    argosy: Argosy, image: str
) -> None:
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--ulimit", "nofile=123:456", "--ulimit", "core=0",
        "--group-add", "nogroup", "--group-add", "4242", "--shm-size", "2m", image,
        "sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; id -G; cat /proc/self/mounts",
    )  # fmt: skip
    soft, hard, core, groups, *mounts = done.out.splitlines()
    assert (soft, hard, core, groups) == ("123", "456", "0", "0 4242 65534")
    (shm,) = [line for line in mounts if " /dev/shm " in line]
    assert "size=2048k" in shm
    assert "nosuid,nodev,noexec" in shm


def test_a_limit_of_0_is_none(argosy: Argosy, image: str) -> None:
    run = ("run", "-q", "--rm", "--network", "none")
    argosy(*run, "--memory", "0", "--cpus", "0", image, "true")
    for option, value in (
        ("--memory", "5m"),
        ("--memory", "-1"),
        ("--cpus", "-1"),
        ("--cpus", "nan"),
    ):
        assert argosy(*run, option, value, image, "true", code=125).err.startswith("argosy: ")


def test_groups_are_those_of_exec_too(argosy: Argosy, image: str) -> None:
    argosy(
        "run", "-q", "-d", "--name", "g", "--network", "none", "--group-add", "4242", image, "sleep", "100"
    )  # fmt: skip
    assert argosy("exec", "g", "id", "-G").out == "0 4242\n"
    assert argosy("exec", "-u", "nobody", "g", "id", "-G").out == "65534 4242\n"


def test_a_group_the_image_does_not_have_is_refused(argosy: Argosy, image: str) -> None:
    done = argosy("run", "-q", "--rm", "--group-add", "nosuchgroup", image, "true", code=125)
    assert "group 'nosuchgroup' is not in the image's /etc/group" in done.err


def test_a_sysctl_is_the_containers_alone(argosy: Argosy, image: str) -> None:
    places = [pathlib.Path("/proc/sys/kernel/shm_rmid_forced"), pathlib.Path("/proc/sys/net/core/somaxconn")]  # fmt: skip
    before = [place.read_text() for place in places]
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--sysctl", "net.core.somaxconn=77",
        "--sysctl", "kernel/shm_rmid_forced=1", "--sysctl", "kernel.domainname=port", image,
        "cat", *places, "/proc/sys/kernel/domainname", "/proc/sys/net/ipv4/ip_unprivileged_port_start",
    )  # fmt: skip
    assert done.out.split() == ["1", "77", "port", "0"]
    assert [place.read_text() for place in places] == before


def test_the_id_is_written_before_the_program_starts_and_stays(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "id"
    inside = argosy(
        "run", "-q", "--cidfile", file, "--network", "none", "-v", f"{tmp_path}:/here", image, "cat", "/here/id"
    ).out  # fmt: skip
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert inside == file.read_text() == row["Id"]
    done = argosy("run", "--cidfile", file, "oci:/nonexistent-image:v1", "true", code=125)
    assert f"--cidfile {file} is there already" in done.err
    assert file.read_text() == row["Id"]


@pytest.mark.parametrize(
    ("image_or_command", "code"), [(["oci:/nonexistent-image:v1"], 125), (["IMAGE", "nosuch"], 127)]
)
@pytest.mark.parametrize("background", [[], ["-d"]])
def test_no_id_is_left_of_a_container_that_never_was(
    argosy: Argosy, image: str, tmp_path: pathlib.Path, background: list[str],
    image_or_command: list[str], code: int,
) -> None:  # fmt: skip
    argv = [image if word == "IMAGE" else word for word in image_or_command]
    file = tmp_path / "id"
    argosy("run", "-q", *background, "--cidfile", file, "--network", "none", *argv, code=code)
    assert not file.exists()


TOLD = """argosy: the kernel killed a process of container c for want of memory
hint: it needs a greater --memory, or less to do
"""
EATER = "x=1234567890; while :; do x=$x$x; done"


def test_who_was_killed_for_want_of_memory_is_told(argosy: Argosy, image: str) -> None:
    options = ("--network", "none", "--memory", "20m", image, "sh", "-c")
    assert argosy("run", "-q", "--name", "c", *options, EATER, code=137).err == TOLD
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["ExitCode"], row["OOMKilled"]) == (137, True)
    assert "  exited (137, out of memory)  " in argosy("ps", "-a").out
    assert argosy("start", "-a", "c", code=137).err == TOLD


def test_a_program_that_copes_with_the_end_of_another_is_left_alone(
    argosy: Argosy, image: str
) -> None:
    script = f"test -e /again && exit 3; touch /again; sh -c '{EATER}'; exit 0"
    argosy("run", "-q", "--name", "c", "--network", "none", "-m", "20m", image, "sh", "-c", script)
    assert json.loads(argosy("ps", "-a", "--json").out)[0]["OOMKilled"]
    assert argosy("start", "-a", "c", code=3).err == ""
    assert not json.loads(argosy("ps", "-a", "--json").out)[0]["OOMKilled"]


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("24 21 0:22 / {} rw - cgroup cgroup rw,memory", "memory.oom_control"),
        ("30 21 0:29 / {} rw - cgroup2 cgroup2 rw", "memory.events"),
    ],
)
def test_both_versions_of_cgroups_tell_who_was_killed(
    tmp_path: pathlib.Path, line: str, file: str
) -> None:
    machine = layout.discover(line.format(tmp_path), "")
    assert not cgroup.out_of_memory("c", machine)
    (tmp_path / "argosy" / "c").mkdir(parents=True)
    for count, told in ((0, False), (2, True)):
        (tmp_path / "argosy" / "c" / file).write_text(f"low 0\noom {count}\noom_kill {count}\n")
        assert cgroup.out_of_memory("c", machine) is told
    assert not cgroup.out_of_memory("c", layout.discover("\n", ""))
