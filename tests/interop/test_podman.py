"""podman and buildah: podman runs containers by our runtime, and what both build is read by us."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from argosy.image.validate import validate
from argosy.image.view import Image
from argosy.layout.store import LayoutStore
from tests.conftest import find_peer
from tests.interop.containers import Tool, on_disk, our_image, tool

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("containers")]


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    with on_disk("podman") as path:
        yield path


@pytest.fixture
def podman(folder: pathlib.Path) -> Iterator[Tool]:
    """`podman(…)` with storage of its own and our runtime."""
    if os.geteuid() != 0:
        pytest.skip("podman with our runtime: needs root")
    program = find_peer("podman")
    runtime = folder / "argosy-runtime"
    subprocess.run(
        [sys.executable, "-m", "argosy.runtime.launcher", "--plain", str(runtime)], check=True
    )
    run = tool(
        program, "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs",
        "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", str(runtime),
    )  # fmt: skip
    yield run
    run("rm", "--all", "--force", "--time", "0", code=None)


@pytest.fixture
def image(folder: pathlib.Path, podman: Tool) -> str:
    """An image made by us, in podman's storage."""
    return podman("pull", "--quiet", our_image(folder)).stdout.strip()


# Limits of our own: podman would raise them, for which root needs CAP_SYS_RESOURCE.
OPTIONS = [
    "--network", "none", "--security-opt", "label=disable", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
]  # fmt: skip


def test_podman_runs_by_our_runtime(podman: Tool, image: str) -> None:
    assert podman("run", "--rm", *OPTIONS, image, "cat", "/etc/motd").stdout == "ahoy\n"
    podman("run", "--rm", *OPTIONS, image, "sh", "-c", "exit 7", code=7)
    podman("run", "--rm", *OPTIONS, image, "nosuch", code=127)
    podman("run", "--rm", *OPTIONS, image, "/etc", code=126)
    assert podman("run", "--rm", "--user", "65534", *OPTIONS, image, "id", "-u").stdout == "65534\n"


def test_podman_looks_after_a_container_by_our_runtime(podman: Tool, image: str) -> None:
    script = "echo out; trap 'echo bye; exit 3' TERM; while true; do sleep 0.05; done"
    podman(
        "run", "--detach", "--name", "web", "--health-cmd", "cat /etc/motd", "--health-interval", "disable", *OPTIONS,
        image, "sh", "-c", script,
    )  # fmt: skip
    assert podman("exec", "web", "sh", "-c", "echo inside; exit 5", code=5).stdout == "inside\n"
    podman("exec", "web", "nosuch", code=127)
    podman("pause", "web")
    assert json.loads(podman("inspect", "web").stdout)[0]["State"]["Status"] == "paused"
    podman("unpause", "web")
    assert "web" in podman("stats", "--no-stream", "--format", "{{.Name}}", "web", code=None).stdout
    podman("healthcheck", "run", "web")
    assert "sleep" in podman("top", "web", "args").stdout or podman("top", "web", "pid").stdout
    podman("stop", "--time", "20", "web")
    assert podman("logs", "web").stdout.split() == ["out", "bye"]
    assert json.loads(podman("inspect", "web").stdout)[0]["State"]["ExitCode"] == 3
    podman("rm", "web")
    assert podman("ps", "--all", "--quiet").stdout == ""


def test_what_podman_commits_is_read_by_us(podman: Tool, image: str, folder: pathlib.Path) -> None:
    podman(
        "run", "--name", "made", *OPTIONS, image, "sh", "-c", "echo new > /new; echo x > /etc/motd"
    )
    podman("commit", "--quiet", "made", "localhost/made:1")
    podman("push", "--quiet", "localhost/made:1", f"oci:{folder}/made:1")
    place = Image.open(LayoutStore.open(str(folder / "made")), "1")
    assert [str(f) for f in validate(place) if not f.warning] == []
    assert len(place.layers) == 2


def test_what_buildah_builds_is_read_by_us(folder: pathlib.Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("buildah: needs root")
    base = [
        find_peer("buildah"), "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs",
    ]  # fmt: skip

    def buildah(*argv: str) -> str:
        done = subprocess.run(
            [*base, *argv], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    (folder / "file").write_text("content")
    made = buildah("from", "scratch")
    buildah("copy", made, str(folder / "file"), "/dir/file")
    buildah("config", "--entrypoint", '["/dir/file"]', "--label", "a=b", "--env", "X=1", made)
    buildah("commit", "--quiet", made, f"oci:{folder}/image:1")
    buildah("rm", made)
    image = Image.open(LayoutStore.open(str(folder / "image")), "1")
    assert [str(f) for f in validate(image) if not f.warning] == []
    assert image.config.execution.entrypoint == ("/dir/file",)
    assert image.config.execution.labels["a"] == "b"
