"""Containers for real: what `argosy run` does, what it leaves, and how it fails."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from argosy.engine.network import LEASES, Bridge
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.errors import InvalidConfigError
from argosy.image.view import Image
from argosy.layout.store import LayoutStore
from tests.conftest import find_peer
from tests.engine.conftest import Argosy, alone, needs_containers, web

pytestmark = pytest.mark.xdist_group("containers")


@pytest.fixture
def image(host_layout: pathlib.Path) -> str:
    return f"oci:{host_layout}:v1"


@pytest.fixture
def left_behind(root: pathlib.Path, asked: pathlib.Path) -> Callable[[], list[str]]:
    """What the containers of this test could leave: directories, mounts, namespaces, links, cgroups."""

    def found() -> list[str]:
        ids = set(re.findall(r"\b[0-9a-f]{64}\b", asked.read_text() if asked.exists() else ""))
        links = {f"ar{container_id[:11]}" for container_id in ids}
        kept = root / "containers"
        mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return [
            *(str(p) for p in (kept.iterdir() if kept.exists() else ())),
            *(line for line in mounts if str(root) in line),
            *(p.name for p in pathlib.Path(LEASES).glob("*") if p.name in ids),
            *(str(p) for p in pathlib.Path("/sys/fs/cgroup").glob("**/argosy/*/") if p.name in ids),
            *links.intersection(os.listdir("/sys/class/net")),
        ]

    return found


def test_a_container_says_what_it_is(argosy: Argosy, image: str) -> None:
    done = argosy("run", "-q", "--rm", image, "sh", "-c", "id -u; cat /etc/motd; hostname; echo $$")
    uid, motd, hostname, pid = done.out.split()
    assert (uid, motd, pid) == ("0", "ahoy", "1")
    assert re.fullmatch("[0-9a-f]{12}", hostname)


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


def test_volumes_tmpfs_and_read_only(argosy: Argosy, image: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").write_text("from outside")
    argosy(
        "run", "-q", "--rm", "--network", "none", "-v", f"{tmp_path}:/data", "--tmpfs", "/scratch", "--read-only",
        image, "sh", "-c",
        "cat /data/data && echo back > /data/back && touch /scratch/x && ! touch /x 2>/dev/null",
    )  # fmt: skip
    assert (tmp_path / "back").read_text() == "back\n"
    argosy(
        "run",
        "-q",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{tmp_path}:/data:ro",
        image,
        "touch",
        "/data/no",
        code=1,
    )


def test_a_mount_within_another_is_seen_in_whatever_order_they_were_typed(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    for name in ("outer", "inner", "etc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}-file").touch()
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--tmpfs", "/data/tmp/", "-v", f"{tmp_path}/inner:/data/sub",
        "-v", f"{tmp_path}/outer:/data/.", "-v", f"{tmp_path}/etc:/etc", image,
        "sh", "-c", "ls /data /data/sub /etc; cat /proc/self/mounts",
    )  # fmt: skip
    listed, _, mounts = done.out.partition("overlay")
    names = {"outer-file", "inner-file", "etc-file", "hosts", "resolv.conf", "sub", "tmp"}
    assert names <= set(listed.split())
    assert "tmpfs /data/tmp tmpfs rw,nosuid,nodev,noexec" in mounts


def test_the_images_volumes_can_be_written_where_nothing_else_can(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    volumes = ["--volume", "/etc", "--volume", "/new/one", "--volume", "/mine/below"]
    argosy("mutate", image, *volumes, "-t", f"oci:{tmp_path}/changed:v1")
    script = "cat /etc/motd; touch /etc/x /new/one/x /mine/below/x && touch /usr/x || echo refused"
    (tmp_path / "mine" / "below").mkdir(parents=True)
    done = argosy(
        "run", "-q", "--rm", "--read-only", "--network", "none", "-v", f"{tmp_path}/mine:/mine",
        f"oci:{tmp_path}/changed:v1", "sh", "-c", script,
    )  # fmt: skip
    assert done.out.split() == ["ahoy", "refused"]
    assert "/usr/x" in done.err
    assert (tmp_path / "mine" / "below" / "x").exists()
    assert alone(argosy, image, "ls", "/etc").out.split().count("x") == 0


def test_the_image_says_what_stops_it_unless_somebody_else_does(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    changed = f"oci:{tmp_path}/changed:v1"
    argosy("mutate", image, "--stop-signal", "SIGUSR1", "-t", changed)
    script = "trap 'exit 5' USR1; trap 'exit 6' USR2; echo ready; while :; do sleep 0.05; done"
    for name, options in (("image", []), ("user", ["--stop-signal", "USR2"])):
        argosy(
            "run", "-q", "-d", "--name", name, "--network", "none", *options, changed, "sh", "-c", script
        )  # fmt: skip
        while "ready" not in argosy("logs", name).out:
            pass
        argosy("stop", name)
    codes = {row["Name"]: row["ExitCode"] for row in json.loads(argosy("ps", "-a", "--json").out)}
    assert codes == {"image": 5, "user": 6}


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


def test_stdin_is_closed_unless_asked_for(argosy: Argosy, image: str) -> None:
    assert alone(argosy, image, "cat", stdin="in").out == ""
    assert (
        argosy("run", "-q", "--rm", "-i", "--network", "none", image, "cat", stdin="in").out == "in"
    )


def test_a_detached_container_is_listed_logged_entered_stopped_and_removed(
    argosy: Argosy, image: str
) -> None:
    script = "echo out; echo err >&2; trap 'echo bye; exit 3' TERM; while true; do sleep 0.05; done"
    container = argosy(
        "run", "-q", "-d", "--name", "web", "--network", "none", image, "sh", "-c", script
    ).out.strip()
    row = json.loads(argosy("ps", "--json").out)[0]
    assert (row["Id"], row["Name"], row["Status"]) == (container, "web", "running")
    argosy("run", "-q", "-d", "--name", "web", "--network", "none", image, "true", code=125)
    assert argosy("exec", "web", "sh", "-c", "echo inside; exit 5", code=5).out == "inside\n"
    assert argosy(
        "exec", "-e", "X=1", "-w", "/usr", "web", "sh", "-c", "echo $X; pwd"
    ).out.split() == ["1", "/usr"]
    argosy("exec", "web", "nosuch", code=127)
    argosy.env["FROM_HERE"] = "2"  # type: ignore[attr-defined]
    assert argosy("exec", "-e", "FROM_HERE", "web", "sh", "-c", "echo $FROM_HERE").out == "2\n"
    assert argosy("exec", "-u", "root", "web", "id", "-u").out == "0\n"
    argosy("exec", "-u", "nosuchuser", "web", "true", code=125)
    argosy("rm", "web", code=1)
    assert argosy("stop", "-t", "20", container[:12]).out.strip() == container[:12]
    assert json.loads(argosy("ps", "-a", "--json").out)[0]["ExitCode"] == 3
    logs = argosy("logs", "web")
    assert logs.out.split() == ["out", "bye"]
    assert logs.err == "err\n"
    assert argosy("logs", "-n", "1", "-t", "web").out.endswith("bye\n")
    argosy("exec", "web", "true", code=125)
    argosy("exec", "nosuch", "true", code=125)
    argosy("stop", "web", code=1)
    argosy("rm", "web")
    assert argosy("ps", "-a", "-q").out == ""


def test_a_dry_run_of_rm_removes_no_container(argosy: Argosy, image: str) -> None:
    argosy("run", "-q", "-d", "--name", "w", "--network", "none", image, "sleep", "100")
    argosy("rm", "--dry-run", "w", code=1)
    assert argosy("rm", "--dry-run", "-f", "w").out == "w\n"
    assert json.loads(argosy("ps", "--json").out)[0]["Status"] == "running"


def test_a_detached_container_that_was_promised_a_stdin_waits_for_it(
    argosy: Argosy, image: str
) -> None:
    script = "echo up; cat; echo over"
    argosy(
        "run", "-q", "-d", "-i", "--name", "i", "--network", "none", image, "sh", "-c", script
    )  # fmt: skip
    while "up" not in argosy("logs", "i").out:
        pass
    argosy("stop", "-t", "0", "i")
    assert argosy("logs", "i").out == "up\n"
    assert json.loads(argosy("ps", "-a", "--json").out)[0]["ExitCode"] == 137


def test_a_local_image_for_another_platform_is_not_taken(argosy: Argosy, image: str) -> None:
    alone(argosy, image, "true")
    (entry,) = json.loads(argosy("images", "--json").out)
    for name in (entry["Name"], entry["Id"].split(":")[1][:12]):
        alone(argosy, name, "true")
        done = argosy("run", "--rm", "--platform", "linux/s390x", name, "true", code=125)
        assert "not for linux/s390x" in done.err


def test_logs_follow_until_the_end(argosy: Argosy, image: str) -> None:
    argosy(
        "run",
        "-q",
        "-d",
        "--name",
        "n",
        "--network",
        "none",
        image,
        "sh",
        "-c",
        "echo one; sleep 0.3; echo two",
    )
    assert argosy("logs", "-f", "n").out.split() == ["one", "two"]


def test_a_detached_container_that_cannot_start_says_why(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    done = argosy("run", "-q", "-d", "--network", "none", image, "nosuch", code=127)
    assert "executable file not found" in done.err
    assert left_behind() == []


def test_a_terminal_is_a_terminal(argosy: Argosy, image: str) -> None:
    script = "argosy run -q --rm -it --network none IMAGE sh -c 'test -t 0 && test -t 1 && echo yes; exit 4'"
    line = script.replace("argosy", f"{sys.executable} -m argosy").replace("IMAGE", image)
    done = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        env=argosy.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.returncode == 4
    assert "yes" in done.stdout


def test_much_that_is_typed_at_once_all_arrives(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    """The container waits for its output to be taken, so nobody may wait for it to take its input."""
    pasted = tmp_path / "pasted"
    pasted.write_text(("0123456789" * 7 + "\n") * 6000)
    line = f"{sys.executable} -m argosy run -q --rm -it --network none {image} sh -c 'while read -r line; do echo $line; case $line in end) exit 5; esac; done'"
    with pasted.open("a") as file:
        file.write("end\n")
    with pasted.open() as file:
        done = subprocess.run(
            ["script", "-qec", line, "/dev/null"], stdin=file,
            env=argosy.env, capture_output=True, text=True, check=False, timeout=120,  # type: ignore[attr-defined]
        )  # fmt: skip
    assert done.returncode == 5, done.stdout[-300:]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_published_port_leads_into_the_container(argosy: Argosy, images: pathlib.Path) -> None:
    port = free_port()
    assert web(argosy, f"oci:{images}/busybox:latest", port) == b"page\n"
    done = argosy(
        "run", "-q", "--rm", "-p", f"{port}:80", f"oci:{images}/busybox:latest", "true", code=125
    )
    assert f"port {port}/tcp is in use by another container" in done.err
    argosy("rm", "-f", "web")
    with pytest.raises(OSError, match=r"refused|reset"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)


def test_a_port_the_machine_uses_is_refused(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = argosy("run", "-q", "--rm", "-p", f"127.0.0.1:{port}:80", image, "true", code=125)
    assert f"port {port}/tcp is in use on this machine" in done.err
    assert left_behind() == []


def test_containers_reach_each_other_on_the_bridge(argosy: Argosy, images: pathlib.Path) -> None:
    busybox = f"oci:{images}/busybox:latest"
    argosy("run", "-q", "-d", "--name", "a", busybox, "sleep", "60")
    address = json.loads(argosy("ps", "--json").out)[0]["Address"]
    argosy("run", "-q", "--rm", busybox, "ping", "-c", "1", "-W", "5", address)


def test_two_engines_give_no_address_twice(tmp_path: pathlib.Path) -> None:
    needs_containers()
    find_peer("nft")
    with contextlib.ExitStack() as down:
        addresses = set()
        for name in ("one", "two"):
            bridge, container = Bridge(str(tmp_path / name)), os.urandom(32).hex()
            down.callback(bridge.down, container)
            addresses.add(bridge.up(container).address)
            assert bridge.leased() == [container]
    assert len(addresses) == 2


def test_the_hosts_network_is_the_hosts(argosy: Argosy, image: str) -> None:
    inside = argosy(
        "run", "-q", "--rm", "--network", "host", image, "ls", "-l", "/proc/self/ns/net"
    ).out
    assert os.readlink("/proc/self/ns/net") in inside


def test_ten_at_once_all_run(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    alone(argosy, image, "true")
    with ThreadPoolExecutor(10) as pool:
        done = list(
            pool.map(
                lambda n: argosy("run", "-q", "--rm", image, "sh", "-c", f"echo {n}"), range(10)
            )
        )
    assert [d.out.strip() for d in done] == [str(n) for n in range(10)]
    assert left_behind() == []


def test_one_of_several_is_killed_and_prune_clears_it_away(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]]
) -> None:
    alone(argosy, image, "true")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "argosy", "run", "-q", "--rm", image, "sh", "-c", "echo up; exec sleep 60"],
            env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    running[0].kill()
    running[0].wait()
    rows = json.loads(argosy("ps", "-a", "--json").out)
    assert sorted(row["Status"] for row in rows) == ["orphaned", "running", "running"]
    dead = next(row["Id"] for row in rows if row["Status"] == "orphaned")
    argosy("rm", dead, code=1)
    assert argosy("prune").out.split() == [dead]
    assert len(json.loads(argosy("ps", "--json").out)) == 2
    for process in running[1:]:
        process.send_signal(signal.SIGTERM)
    for process in running[1:]:
        process.kill()
        process.wait()
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    argosy("prune")
    assert left_behind() == []


PRUNED = """
import sys
from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.locate import Location

root, runtime, place = sys.argv[1:]
engine = Engine(Places(data=root, run=root + "/run", runtime=(runtime,)))
name, image = engine.images.get(Location.parse(place))

def prune(layer):
    engine.images.store.untag(name)
    print(Engine(engine.places).prune()[1], flush=True)

options = RunOptions(command=("cat", "/etc/motd", "/etc/more"), network="none", remove=True)
sys.exit(engine.run(name, image, options, on_layer=prune))
"""


def test_prune_leaves_what_a_container_is_about_to_need(
    argosy: Argosy, image: str, root: pathlib.Path, launcher: str, tmp_path: pathlib.Path
) -> None:
    alone(argosy, image, "true")
    (tmp_path / "more").write_text("more")
    argosy("insert", image, tmp_path / "more", "/etc/more", "-t", f"oci:{tmp_path}/changed:v1")
    argosy("rmi", json.loads(argosy("images", "--json").out)[0]["Name"])
    done = subprocess.run(
        [sys.executable, "-c", PRUNED, root, launcher, f"oci:{tmp_path}/changed:v1"],
        env=argosy.env, capture_output=True, text=True, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()) == (0, ["[]", "ahoy", "more"]), done.stderr


def test_an_artifact_among_the_images_is_no_hindrance_to_prune(
    argosy: Argosy, root: pathlib.Path, host_layout: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(host_layout)
    argosy("images")
    argosy("artifact", "push", f"oci:{root}/images:localhost/artifact:v1", "index.json")
    argosy("prune")


def test_output_that_cannot_be_written_costs_neither_the_container_nor_its_exit_code(
    argosy: Argosy, image: str
) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "argosy", "run", "-q", "--network", "none", image, "sh", "-c", "echo lost; exit 3"],
            env=argosy.env, stdout=full, stderr=subprocess.PIPE, text=True, check=False,  # type: ignore[attr-defined]
        )  # fmt: skip
    assert done.returncode == 125
    assert "standard output: no space left" in done.stderr
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["Status"], row["ExitCode"]) == ("exited", 3)


def test_a_terminal_nobody_sees_any_more_is_hung_up(argosy: Argosy, image: str) -> None:
    script = "while echo y; do :; done; exit 3"
    reader, writer = os.pipe()
    os.close(reader)
    subprocess.run(
        [sys.executable, "-m", "argosy", "run", "-q", "-t", "--network", "none", image, "sh", "-c", script],
        env=argosy.env, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False,  # type: ignore[attr-defined]
    )  # fmt: skip
    os.close(writer)
    (row,) = json.loads(argosy("ps", "-a", "--json").out)
    assert (row["Status"], row["ExitCode"]) == ("exited", 3)


def test_a_disk_that_takes_nothing_leaves_no_container(
    argosy: Argosy, image: str, left_behind: Callable[[], list[str]], root: pathlib.Path
) -> None:
    alone(argosy, image, "true")
    line = f"ulimit -f 0; exec {sys.executable} -m argosy run -q --network none {image} true"
    done = subprocess.run(
        ["sh", "-c", line], env=argosy.env, capture_output=True, text=True, check=False  # type: ignore[attr-defined]
    )  # fmt: skip
    assert done.returncode == 125
    assert "container.json: file too large" in done.stderr
    assert left_behind() == []


def test_prune_removes_what_was_never_recorded(argosy: Argosy, root: pathlib.Path) -> None:
    argosy("ps")
    (root / "containers" / ("a" * 64) / "upper").mkdir(parents=True)
    assert argosy("prune").out.split() == ["a" * 64]
    assert os.listdir(root / "containers") == []


def test_a_signal_reaches_the_program(argosy: Argosy, image: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "argosy", "run", "-q", "--rm", "--network", "none", image, "sh", "-c",
         "trap 'echo got; exit 6' TERM; echo up; while true; do sleep 0.05; done"],
        env=argosy.env, stdout=subprocess.PIPE, text=True,  # type: ignore[attr-defined]
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "got\n"
    assert process.wait(timeout=60) == 6
    process.stdout.close()


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
