"""Containers for real: what `argosy run` does, what it leaves, and how it fails."""

from __future__ import annotations

import ctypes
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from argosy.engine.invoke import InvocationError
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.errors import InvalidConfigError
from argosy.image.view import Image
from argosy.layout.store import LayoutStore
from tests.conftest import find_peer
from tests.engine.conftest import Argosy, alone, needs_containers
from tests.layer.making import file, folder, tar

pytestmark = pytest.mark.xdist_group("containers")


def test_a_container_says_what_it_is(argosy: Argosy, image: str) -> None:
    done = argosy("run", "-q", "--rm", image, "sh", "-c", "id -u; cat /etc/motd; hostname; echo $$")
    uid, motd, hostname, pid = done.out.split()
    assert (uid, motd, pid) == ("0", "ahoy", "1")
    assert re.fullmatch("[0-9a-f]{12}", hostname)


@pytest.mark.parametrize(
    ("architecture", "options", "warned"),
    [
        ("s390x", (), True),
        ("s390x", ("--platform", "linux/s390x"), False),
        ("", (), False),
        (None, (), False),
    ],
)
def test_an_image_for_another_machine_is_warned_of_unless_it_is_asked_for(
    argosy: Argosy, image: str, tmp_path: pathlib.Path, architecture: str | None,
    options: tuple[str, ...], warned: bool,
) -> None:  # fmt: skip
    if architecture is not None:
        other = f"oci:{tmp_path / 'other'}:v1"
        argosy("mutate", image, "--architecture", architecture, "-t", other)
        image = other
    said = argosy("run", "--rm", "--network", "none", *options, image, "true").err
    assert ("warning: the image is for linux/s390x, and this machine is linux/" in said) is warned
    assert ("warning" in said) is warned


def test_the_exit_code_is_the_programs(argosy: Argosy, image: str) -> None:
    alone(argosy, image, "sh", "-c", "exit 42", code=42)


def test_a_killed_program_gives_128_and_the_signal(
    argosy: Argosy, image: str, root: pathlib.Path, launcher: str
) -> None:
    script = "echo up; exec sleep 60"
    with subprocess.Popen(
        [sys.executable, "-m", "argosy", "run", "-q", "--rm", "--network", "none", image, "sh", "-c", script],
        env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (row,) = json.loads(argosy("ps", "--json").out)
        command = [launcher, "--root", f"{root}/run/runtime", "state", row["Id"]]
        state = subprocess.run(command, capture_output=True, check=True).stdout
        os.kill(json.loads(state)["pid"], signal.SIGKILL)
        assert process.wait() == 137


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["nosuchcommand"], 127, "executable file not found"),
        (["/nosuch/command"], 127, "no such file"),
        (["/etc/motd"], 126, "permission denied"),
        (["/etc"], 126, ""),
    ],
)
def test_a_command_that_cannot_run_gives_dockers_codes_and_one_line(
    argosy: Argosy,
    image: str,
    command: list[str],
    code: int,
    words: str,
    left_behind: Callable[[], list[str]],
) -> None:
    done = alone(argosy, image, *command, code=code)
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert left_behind() == []


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["oci:/nonexistent:v1"], "/nonexistent"),
        (["--platform", "linux/s390x", "IMAGE"], "linux/amd64"),
        (["--pull", "never", "localhost:1/nothing"], "not among the local images"),
        (["--user", "nosuchuser", "IMAGE"], "nosuchuser"),
        (["--security-opt", "seccomp=/nonexistent", "IMAGE"], "/nonexistent"),
        (["-w", "relative", "IMAGE"], "absolute"),
        (["--stop-signal", "NOPE", "IMAGE"], "NOPE"),
        (["--bogus", "IMAGE"], "--bogus"),
        (["-m", "much", "IMAGE"], "much"),
        (["-v", "relative:/x", "IMAGE"], "relative"),
        (["--add-host", "name", "IMAGE"], "IP address"),
        (["--dns", "name", "IMAGE"], "IP address"),
        (["--env-file", "/bin/sh", "IMAGE"], "UTF-8"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    argosy: Argosy, image: str, argv: list[str], words: str, left_behind: Callable[[], list[str]]
) -> None:
    given = [image if word == "IMAGE" else word for word in argv]
    done = argosy("run", "-q", "--rm", *given, "true", code=None)
    assert done.code == 125
    assert words in done.err
    assert done.err.startswith("argosy: ")
    assert left_behind() == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"user": "nosuch"}, "user 'nosuch' is not in the image's /etc/passwd"),
        ({"groups": ("nosuch",)}, "group 'nosuch' is not in the image's /etc/group"),
        ({"entrypoint": ""}, "names no command"),
    ],
)
def test_what_the_image_does_not_have_is_told_before_a_network_is_made(
    root: pathlib.Path, host_layout: pathlib.Path, said: dict[str, Any], words: str
) -> None:
    needs_containers()
    engine = Engine(Places(data=str(root), run=str(root / "run"), runtime=("/nonexistent",)))
    engine.bridge.up = pytest.fail  # type: ignore[assignment]
    options = RunOptions(network="bridge", **said)
    with pytest.raises(InvalidConfigError, match=words):
        engine.run("i", Image.open(LayoutStore.open(str(host_layout)), "v1"), options)
    assert list((root / "containers").iterdir()) == []


def test_a_program_that_has_run_a_container_takes_in_no_orphans_of_others(
    root: pathlib.Path, host_layout: pathlib.Path
) -> None:
    """Who takes them in and does not wait for them keeps them as zombies, and the PID namespaces they are of."""
    needs_containers()
    engine = Engine(Places(data=str(root), run=str(root / "run"), runtime=("/nonexistent",)))
    options = RunOptions(network="none", command=("true",))
    with pytest.raises(InvocationError, match="/nonexistent: no such file"):
        engine.run("i", Image.open(LayoutStore.open(str(host_layout)), "v1"), options)
    takes_in = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(takes_in), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
    assert takes_in.value == 0


def test_a_corrupt_layer_is_refused_and_nothing_is_kept(
    argosy: Argosy,
    host_layout: pathlib.Path,
    tmp_path: pathlib.Path,
    root: pathlib.Path,
    left_behind: Callable[[], list[str]],
) -> None:
    subprocess.run(["cp", "-r", str(host_layout), str(tmp_path / "bad")], check=True)
    manifest = json.loads(argosy("manifest", "get", f"oci:{tmp_path}/bad:v1").out)
    blob = tmp_path / "bad" / "blobs" / manifest["layers"][0]["digest"].replace(":", "/")
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(blob.stat().st_size // 2)
        file.write(b"damage")
    done = argosy("run", "-q", "--rm", f"oci:{tmp_path}/bad:v1", "true", code=125)
    assert "sha256:" in done.err
    assert left_behind() == []
    assert not [p for p in (root / "layers").iterdir() if p.is_dir()]


def test_an_image_is_unpacked_once(argosy: Argosy, image: str) -> None:
    first = argosy("run", "--rm", "--network", "none", image, "true")
    second = argosy("run", "--rm", "--network", "none", image, "true")
    assert "unpacking" in first.err
    assert "unpacking" not in second.err


def test_changes_stay_in_the_container(argosy: Argosy, image: str) -> None:
    alone(argosy, image, "sh", "-c", "echo x > /etc/motd; touch /new")
    done = alone(argosy, image, "sh", "-c", "cat /etc/motd; ls /new", code=None)
    assert "ahoy" in done.out
    assert done.code != 0


def test_the_root_is_as_the_highest_layer_that_names_it_says(
    argosy: Argosy, image: str, tmp_path: pathlib.Path, root: pathlib.Path
) -> None:
    """Where a higher layer does not name it, and once a container has changed it, it stays so."""
    (tmp_path / "root.tar").write_bytes(tar(folder("./", mode=0o1777, uid=7, gid=8)))
    (tmp_path / "more.tar").write_bytes(tar(file("more")))
    changed = f"oci:{tmp_path}/changed:v1"
    layers = ["-f", tmp_path / "root.tar", "-f", tmp_path / "more.tar"]
    argosy("append", "-q", "-b", image, *layers, "-t", changed)
    done = alone(argosy, changed, "ls", "-ldn", "/")
    mode, _, *owner = done.out.split()[:4]
    assert (mode, owner) == ("drwxrwxrwt", ["7", "8"])
    argosy("run", "-q", "--name", "c", "--network", "none", changed, "ls", "-ld", "/")
    (upper,) = (root / "containers").glob("*/upper")
    upper.chmod(0o750)  # as the program in it would
    assert argosy("start", "-a", "c").out.startswith("drwxr-x---")


def test_environment_user_and_directory_are_what_was_said(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\nFROM_FILE=1\n")
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "-e", "A=b c", "--env-file", file, "-u", "nobody", "-w", "/usr",
        "--hostname", "ship", "-l", "x=y", image, "sh", "-c", 'echo "$A"; echo $FROM_FILE; id -u; pwd; hostname',
    )  # fmt: skip
    assert done.out.splitlines() == ["b c", "1", "65534", "/usr", "ship"]


def test_labels_come_from_files_too_and_the_option_is_the_last_word(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    file = tmp_path / "labels"
    file.write_text("# a comment\nkept=file\nboth=file\nbare\n")
    argosy(
        "run", "-q", "-d", "--name", "labelled", "--network", "none", "--label-file", file, "-l", "both=option", image,
        "true",
    )  # fmt: skip
    wanted = [
        "--filter",
        "label=kept=file",
        "--filter",
        "label=both=option",
        "--filter",
        "label=bare",
    ]
    assert argosy("ps", "-a", *wanted, "--format", "{{.Names}}").out.split() == ["labelled"]
    argosy("rm", "-f", "labelled")


def test_limits_reach_the_cgroup(argosy: Argosy, image: str) -> None:
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--memory", "64m", "--cpus", "0.5", "--pids-limit", "20", image,
        "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; "
        "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null; true",
    )  # fmt: skip
    assert done.out.split() == [str(64 << 20), "20"]


def test_capabilities_and_seccomp_are_dockers(argosy: Argosy, image: str) -> None:
    script = "cat /proc/self/status"
    plain = alone(argosy, image, "sh", "-c", script).out
    assert "CapEff:\t00000000a80425fb" in plain
    assert "Seccomp:\t2" in plain
    free = argosy(
        "run", "-q", "--rm", "--network", "none", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN",
        "--security-opt", "seccomp=unconfined", "--security-opt", "no-new-privileges", image, "sh", "-c", script,
    ).out  # fmt: skip
    assert "CapEff:\t0000000000001000" in free
    assert "Seccomp:\t0" in free
    assert "NoNewPrivs:\t1" in free
    alone(argosy, image, "mount", "-t", "tmpfs", "x", "/tmp", code=None)


def test_the_profile_file_of_another_engine_lets_programs_run(argosy: Argosy, image: str) -> None:
    profile = "/usr/share/containers/seccomp.json"
    if not os.path.exists(profile):
        pytest.skip(f"seccomp profile of another engine: {profile} is not there")
    command = ["sh", "-c", "mount -t tmpfs x /tmp || echo refused"]
    for capability, out in (("CHOWN", "refused\n"), ("SYS_ADMIN", "")):
        done = argosy(
            "run", "-q", "--rm", "--network", "none", "--cap-add", capability,
            "--security-opt", f"seccomp={profile}", image, *command,
        )  # fmt: skip
        assert done.out == out


def test_a_local_image_for_another_platform_is_not_taken(argosy: Argosy, image: str) -> None:
    alone(argosy, image, "true")
    (entry,) = json.loads(argosy("images", "--json").out)
    for name in (entry["Name"], entry["Id"].split(":")[1][:12]):
        alone(argosy, name, "true")
        done = argosy("run", "--rm", "--platform", "linux/s390x", name, "true", code=125)
        assert "not for linux/s390x" in done.err


def test_images_are_listed_removed_and_readable_by_others(
    argosy: Argosy, image: str, root: pathlib.Path
) -> None:
    alone(argosy, image, "true")
    (entry,) = json.loads(argosy("images", "--json").out)
    assert argosy("images", "-q").out.strip() == entry["Id"].split(":")[1][:12]
    skopeo = find_peer("skopeo")
    seen = subprocess.run(
        [skopeo, "inspect", "--raw", f"oci:{root}/images:{entry['Name']}"],
        capture_output=True,
        check=True,
    )
    assert json.loads(seen.stdout)["schemaVersion"] == 2
    short = entry["Id"].split(":")[1][:12]
    alone(argosy, short, "true")
    assert argosy("rmi", short).out == f"removed {entry['Name']}\n"
    argosy("rmi", short, code=2)
    assert json.loads(argosy("images", "--json").out) == []


def test_real_images_run(argosy: Argosy, images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    out = argosy(
        "run", "-q", "--rm", f"oci:{images}/busybox:latest", "busybox", "echo", "hello"
    ).out
    assert out == "hello\n"
    rootfs = images / "alpine-minirootfs-3.20.3-x86_64.tar.gz"
    argosy("append", "-f", rootfs, "-t", f"oci:{tmp_path}/alpine:3.20")
    done = argosy(
        "run", "-q", "--rm", f"oci:{tmp_path}/alpine:3.20", "cat", "/etc/os-release", code=None
    )
    assert "Alpine" in done.out, done.err


@pytest.mark.parametrize(
    ("said", "command", "out"),
    [
        ('["echo", "a b"]', ["c"], "a b c\n"),
        ("[]", ["echo", "d"], "d\n"),
        ("[", ["-d", "/", "]"], ""),
    ],
)
def test_an_entry_point_may_be_a_json_array(
    argosy: Argosy, images: pathlib.Path, said: str, command: list[str], out: str
) -> None:
    options = ("--entrypoint", said)
    assert alone(argosy, f"oci:{images}/busybox:latest", *command, options=options).out == out
