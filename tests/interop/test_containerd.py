"""containerd: its shim runs containers by our runtime, from an image of ours."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import find_peer
from tests.interop.containers import Tool, on_disk, our_image, tool

pytestmark = [pytest.mark.peer, pytest.mark.xdist_group("containers")]

IMAGE = "example.org/ahoy:v1"
# Without what asks for other services of the host, or changes the host's /opt.
CONFIG = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{folder}/c.sock"
[ttrpc]
  address = "{folder}/t.sock"
"""


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    with on_disk("ctd") as path:
        yield path


@pytest.fixture
def ctr(folder: pathlib.Path) -> Iterator[Tool]:
    """`ctr(…)` to a containerd of our own, which has our image."""
    if os.geteuid() != 0:
        pytest.skip("containerd with our runtime: needs root")
    program, client = find_peer("containerd"), find_peer("ctr")
    find_peer("containerd-shim-runc-v2")
    (folder / "config.toml").write_text(CONFIG.format(folder=folder))
    with open(folder / "log", "wb") as log:
        daemon = subprocess.Popen(
            [program, "--config", str(folder / "config.toml")], stdout=log, stderr=log
        )

    run = tool(client, "--address", f"{folder}/c.sock", "--connect-timeout", "30s")
    try:
        run("version")
        give_image(folder, run)
        yield run
    finally:
        for task in run("task", "ls", "--quiet", code=None).stdout.split():
            run("task", "delete", "--force", task, code=None)
        daemon.terminate()
        daemon.wait(30)


def give_image(folder: pathlib.Path, ctr: Tool) -> None:
    argosy = [sys.executable, "-m", "argosy", "cp", "--quiet"]
    places = [our_image(folder), f"oci-archive:{folder}/image.tar:v1"]
    subprocess.run([*argosy, *places], check=True, timeout=60)
    ctr(
        "image",
        "import",
        "--base-name",
        "example.org/ahoy",
        "--snapshotter",
        "native",
        f"{folder}/image.tar",
    )


@pytest.fixture
def by_ours(folder: pathlib.Path) -> list[str]:
    """The options of ``ctr run``."""
    runtime = folder / "argosy-runtime"
    subprocess.run(
        [sys.executable, "-m", "argosy.runtime.launcher", "--plain", str(runtime)], check=True
    )
    return [
        "--runc-binary",
        str(runtime),
        "--runc-root",
        f"{folder}/runc",
        "--snapshotter",
        "native",
    ]


def test_containerds_shim_runs_by_our_runtime(ctr: Tool, by_ours: list[str]) -> None:
    assert ctr("run", "--rm", *by_ours, IMAGE, "one", "cat", "/etc/motd").stdout == "ahoy\n"
    ctr("run", "--rm", *by_ours, IMAGE, "two", "sh", "-c", "exit 7", code=7)
    failed = ctr("run", "--rm", *by_ours, IMAGE, "three", "nosuch", code=None)
    assert failed.returncode
    assert "nosuch" in failed.stderr


def test_containerds_shim_looks_after_a_container_by_our_runtime(
    ctr: Tool, by_ours: list[str], folder: pathlib.Path
) -> None:
    script = "trap 'exit 3' TERM; while true; do sleep 0.05; done"
    ctr("run", "--detach", *by_ours, IMAGE, "web", "sh", "-c", script)
    assert "RUNNING" in ctr("task", "ls").stdout
    done = ctr("task", "exec", "--exec-id", "e", "web", "sh", "-c", "echo inside; exit 5", code=5)
    assert done.stdout == "inside\n"
    ctr("task", "pause", "web")
    assert "PAUSED" in ctr("task", "ls").stdout
    ctr("task", "resume", "web")
    assert "RUNNING" in ctr("task", "ls").stdout
    assert len(ctr("task", "ps", "web").stdout.splitlines()) > 1
    assert "memory" in ctr("task", "metrics", "web").stdout
    ctr("task", "kill", "--signal", "KILL", "web")
    assert ctr("task", "delete", "--force", "web", code=None).returncode in (0, 137)
    ctr("container", "delete", "web")
    assert ctr("container", "ls", "--quiet").stdout == ""
    assert not list(folder.glob("runc/*/web"))
