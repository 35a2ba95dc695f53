"""Containers of somebody who is not root: in a mount namespace of the test's own, as the user nobody."""

from __future__ import annotations

import os
import pathlib
import pty
import pwd
import re
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Iterator

import pytest

from argosy.engine.rootless import subordinate
from tests.conftest import find_peer
from tests.engine.conftest import Argosy, Done, alone, free_port, needs_containers, web

pytestmark = pytest.mark.xdist_group("containers")

# `env`, because setpriv itself still has root's rights when it looks for the program.
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "env"]
SRC = str(pathlib.Path(__file__).parents[2] / "src")


def interpreter() -> str:
    """A Python of this version that nobody may execute."""
    same = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]!r})"
    for path in (sys.executable, "/usr/bin/python3"):
        done = subprocess.run([*NOBODY, path, "-c", same], capture_output=True, check=False)
        if done.returncode == 0:
            return path
    pytest.skip("rootless: no Python of this version that the user nobody may execute")


@pytest.fixture
def home() -> Iterator[pathlib.Path]:
    path = pathlib.Path("/var/tmp") / f"argosy-rootless-{os.getpid()}-{os.urandom(4).hex()}"
    path.mkdir()
    os.chown(path, 65534, 65534)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def argosy(home: pathlib.Path, host_layout: pathlib.Path) -> Iterator[Argosy]:
    """`argosy(…)` as nobody, with a /dev/net/tun that everybody may open."""
    needs_containers()
    python = interpreter()
    if (
        subprocess.run(
            [*NOBODY, "unshare", "-Urm", "true"], capture_output=True, check=False
        ).returncode
        != 0
    ):
        pytest.skip("rootless: this kernel gives no user namespaces to nobody")
    shutil.copytree(host_layout, home / "image")
    subprocess.run(["chmod", "-R", "a+rX", str(home / "image")], check=True)
    launcher = home / "argosy-runtime"
    path = os.pathsep.join([SRC, *site.getsitepackages()])
    env = {
        "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "ARGOSY_RUNTIME": str(launcher), "PYTHONPATH": path,
        "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    subprocess.run(
        [python, "-m", "argosy.runtime.launcher", "--plain", str(launcher)], env=env, check=True
    )
    tun = home / "tun"
    os.mknod(tun, 0o666 | 0o020000, os.makedev(10, 200))
    tun.chmod(0o666)
    prepare = f"test -e /dev/net/tun && mount --bind {tun} /dev/net/tun; cd {home}; "

    def line(*argv: object, before: str = "") -> list[str]:
        script = f'{before}{prepare}exec "$@"'
        return [
            "unshare", "-m", "sh", "-c", script, "sh", *NOBODY, python, "-P", "-m", "argosy", *map(str, argv)
        ]  # fmt: skip

    def run(*argv: object, code: int | None = 0, before: str = "") -> Done:
        done = subprocess.run(
            line(*argv, before=before),
            env=env, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"{argv}\n{done.stdout}{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    run.env, run.line = env, line  # type: ignore[attr-defined]
    yield run
    for container in run("ps", "-aq").out.split():
        run("rm", "-f", container, code=None)


def test_nobody_runs_a_container_as_its_root(argosy: Argosy, home: pathlib.Path) -> None:
    done = alone(argosy, f"oci:{home}/image:v1", "sh", "-c", "id -u; cat /proc/self/uid_map")
    assert done.out.split() == ["0", "0", "65534", "1"]
    assert list((home / "data" / "argosy" / "engine" / "containers").iterdir()) == []


def test_what_is_typed_at_a_terminal_interrupts_once_and_what_is_sent_is_passed_on(
    argosy: Argosy, home: pathlib.Path
) -> None:
    script = "n=0; trap 'n=$((n+1)); echo I' INT; trap 'exit $((40 + n))' USR1; echo up; while :; do sleep 0.05; done"
    argv = argosy.line("run", "-q", "--rm", "--network", "none", f"oci:{home}/image:v1", "sh", "-c", script)  # type: ignore[attr-defined]  # fmt: skip
    master, slave = pty.openpty()
    with (
        subprocess.Popen(
            ["setsid", "--ctty", "--wait", *argv], stdin=slave, stdout=subprocess.PIPE, text=True,
            env=argosy.env,  # type: ignore[attr-defined]
        ) as process,
        os.fdopen(master, "wb", buffering=0) as keyboard,
    ):  # fmt: skip
        os.close(slave)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        keyboard.write(b"\x03")
        assert process.stdout.readline() == "I\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait() == 41
        assert process.stdout.read() == ""


def subordinate_ids(home: pathlib.Path) -> str:
    """What to do before a command so that nobody has some."""
    find_peer("newuidmap")
    (home / "sub").write_text("nobody:200000:1000\n")
    return f"for f in subuid subgid; do touch /etc/$f; mount --bind {home}/sub /etc/$f; done; "


def test_several_containers_are_stopped_and_removed_at_once(
    argosy: Argosy, home: pathlib.Path
) -> None:
    before = subordinate_ids(home)
    for name in ("a", "b", "c", "d"):
        argosy(
            "run", "-q", "-d", "--name", name, "--network", "none", "-u", "7:8", f"oci:{home}/image:v1",
            "sleep", "100", before=before,
        )  # fmt: skip
    assert argosy("stop", "-t", "0", "a", "b", before=before).out.split() == ["a", "b"]
    argosy("rm", "a", "b", "c", before=before, code=1)
    assert argosy("rm", "-f", "c", "d", before=before).out.split() == ["c", "d"]
    assert argosy("ps", "-aq").out == ""


def test_a_container_of_nobody_is_killed_waited_for_and_started_again(
    argosy: Argosy, home: pathlib.Path
) -> None:
    before = subordinate_ids(home)
    script = "echo x >> /count; cat /count; exec sleep 100"
    argosy(
        "run", "-q", "-d", "--name", "a", "--network", "none", f"oci:{home}/image:v1", "sh", "-c", script,
        before=before,
    )  # fmt: skip
    assert argosy("kill", "a", before=before).out == "a\n"
    assert argosy("wait", "a", before=before).out == "137\n"
    assert argosy("start", "a", before=before).out == "a\n"
    assert argosy("start", "a", before=before).out == "a\n"
    while argosy("logs", "a").out.count("x") < 3:
        pass
    argosy("stop", "-t", "0", "a", before=before)
    argosy("rm", "a", before=before)


def test_the_process_that_watched_a_container_may_be_anybodys_by_now(
    argosy: Argosy, home: pathlib.Path
) -> None:
    argosy("run", "-q", "--name", "a", "--network", "none", f"oci:{home}/image:v1", "true")
    (record,) = (home / "data/argosy/engine/containers").glob("*/container.json")
    with subprocess.Popen([*NOBODY, "sleep", "100"]) as other:
        record.write_text(re.sub(r'"watcher": \d+', f'"watcher": {other.pid}', record.read_text()))
        assert argosy("rm", "a").out == "a\n"
        other.kill()


def test_subordinate_ids_are_those_of_who_the_kernel_says(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "somebody")
    name = pwd.getpwuid(os.getuid()).pw_name
    (tmp_path / "sub").write_text(f"somebody:100:1\n{name}:200:2\n{os.getuid()}:300:3\n")
    assert subordinate(str(tmp_path / "sub")) == [(200, 2), (300, 3)]


def test_subordinate_ids_are_used_where_there_are_some(argosy: Argosy, home: pathlib.Path) -> None:
    before = subordinate_ids(home)
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "-u", "7:8", f"oci:{home}/image:v1", "sh", "-c",
        "id -u; id -g; cat /proc/self/uid_map", before=before,
    )  # fmt: skip
    assert done.out.split() == ["7", "8", "0", "65534", "1", "1", "200000", "1000"]


@pytest.mark.parametrize("network", ["pasta", "slirp4netns"])
def test_a_network_for_nobody_publishes_ports(
    argosy: Argosy, home: pathlib.Path, images: pathlib.Path, network: str
) -> None:
    find_peer(network)
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("rootless networks: this machine has no /dev/net/tun")
    port = free_port()
    assert web(argosy, f"oci:{images}/busybox:latest", port, "--network", network) == b"page\n"
    assert argosy("exec", "web", "id", "-u").out == "0\n"
    argosy("stop", "-t", "0", "web")
    argosy("rm", "web")
    assert argosy("ps", "-aq").out == ""


def test_limits_and_groups_of_nobody_are_those_he_has(argosy: Argosy, home: pathlib.Path) -> None:
    before = subordinate_ids(home)
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--ulimit", "nofile=100:200", "--group-add", "7",
        "--sysctl", "net.core.somaxconn=9", "--shm-size", "1m", f"oci:{home}/image:v1",
        "sh", "-c", "ulimit -Hn; id -G; cat /proc/sys/net/core/somaxconn", before=before,
    )  # fmt: skip
    assert done.out.splitlines() == ["200", "0 7", "9"]
    for option, value, words in (
        ("--ulimit", "nofile=-1", "without root the hard limit is at most"),
        ("--group-add", "4242", "group 4242 is not to be had: this user has 1001 group ids"),
        ("--sysctl", "user.max_user_namespaces=1", "user.max_user_namespaces"),
    ):
        image = f"oci:{home}/image:v1"
        done = argosy("run", "-q", "--rm", option, value, image, "true", before=before, code=125)
        assert words in done.err


def test_mounts_of_nobody_are_as_read_only_as_was_said(argosy: Argosy, home: pathlib.Path) -> None:
    (home / "shared").mkdir()
    (home / "shared").chmod(0o777)
    script = (
        "echo x > /shared/x; cat /shared/x; echo x > /host/tmp/x || echo refused; echo x > /t/x"
    )
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "-v", "/:/host:ro", "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m",
        "--mount", f"type=bind,src={home}/shared,dst=/shared", f"oci:{home}/image:v1", "sh", "-c", script,
    )  # fmt: skip
    assert done.out.split() == ["x", "refused"]


def test_a_device_nobody_may_open_is_bound_with_its_files_permissions(
    argosy: Argosy, home: pathlib.Path
) -> None:
    node = home / "full"
    os.mknod(node, 0o666 | 0o020000, os.makedev(1, 7))
    node.chmod(0o644)
    image = f"oci:{home}/image:v1"
    script = "ls -l /dev/mine; exec 3< /dev/mine && echo read; (exec 3> /dev/mine) || echo refused"
    run = ("run", "-q", "--rm", "--network", "none", "--device")
    done = argosy(*run, f"{node}:/dev/mine", image, "sh", "-c", script)
    assert "1, 7" in done.out
    assert done.out.split()[-2:] == ["read", "refused"]
    done = argosy(*run, f"{node}:/dev/mine:r", image, "true", code=125)
    assert "without root it cannot be for r alone" in done.err


def test_what_nobody_may_not_have_is_refused_in_one_line(
    argosy: Argosy, home: pathlib.Path
) -> None:
    done = argosy(
        "run", "-q", "--rm", "--network", "bridge", f"oci:{home}/image:v1", "true", code=125
    )
    assert done.err.startswith("argosy: the bridge network is root's")
    assert argosy("prune").out == ""
    containers = home / "data" / "argosy" / "engine" / "containers"
    assert not containers.exists() or list(containers.iterdir()) == []
