"""The whole journey: a registry of our own in between, real images of others, a container in the end."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.engine.conftest import Argosy, alone

pytestmark = pytest.mark.xdist_group("containers")


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[str]:
    """`argosy serve` on a free port; its `host:port`."""
    with subprocess.Popen(
        [sys.executable, "-m", "argosy", "serve", "--data", str(tmp_path / "registry"), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip().rpartition("http://")[2]
        finally:
            process.terminate()


def test_a_real_image_of_two_platforms_goes_through_our_registry_into_a_container(
    argosy: Argosy, registry: str, images: pathlib.Path, root: pathlib.Path
) -> None:
    source, there = f"oci:{images}/busybox:latest", f"{registry}/library/busybox:1.37"
    argosy("push", "-q", source, there)
    assert argosy("digest", there).out == argosy("digest", source).out
    assert argosy("validate", there).out == ""
    done = argosy("run", "--rm", there, "busybox", "echo", "hello")
    assert done.out == "hello\n"
    assert "unpacking layer 0" in done.err
    (entry,) = json.loads(argosy("images", "--json").out)
    assert entry["Name"] == there
    assert entry["Digest"] == argosy("digest", there).out.strip()
    assert (
        argosy("run", "-q", "--rm", "--pull", "never", there, "busybox", "echo", "again").out
        == "again\n"
    )
    done = argosy("run", "-q", "--rm", "--platform", "linux/s390x", there, "true", code=125)
    assert "linux/amd64, linux/arm64/v8" in done.err


def test_alpine_becomes_an_image_goes_through_our_registry_and_runs(
    argosy: Argosy, registry: str, images: pathlib.Path
) -> None:
    there = f"{registry}/alpine:3.20"
    argosy("append", "-q", "-f", images / "alpine-minirootfs-3.20.3-x86_64.tar.gz", "-t", there)
    argosy(
        "mutate",
        "-q",
        there,
        "--cmd",
        "cat",
        "--cmd",
        "/etc/alpine-release",
        "-t",
        f"{registry}/alpine:run",
    )
    assert argosy("run", "-q", "--rm", f"{registry}/alpine:run").out == "3.20.3\n"
    listed = argosy("fs", "cat", there, "/etc/alpine-release").out
    assert listed == "3.20.3\n"


def test_an_image_that_is_gone_from_the_registry_is_named(
    argosy: Argosy, registry: str, root: pathlib.Path
) -> None:
    done = argosy("run", "-q", "--rm", f"{registry}/nosuch:v1", "true", code=125)
    assert "nosuch" in done.err
    assert list((root / "containers").iterdir()) == []


def test_always_pulling_takes_the_moved_tag(
    argosy: Argosy, registry: str, images: pathlib.Path, host_layout: pathlib.Path
) -> None:
    there = f"{registry}/app:latest"
    argosy("cp", "-q", f"oci:{host_layout}:v1", there)
    assert alone(argosy, there, "cat", "/etc/motd").out == "ahoy\n"
    argosy("cp", "-q", f"oci:{images}/busybox:latest", there)
    assert alone(argosy, there, "cat", "/etc/motd").out == "ahoy\n"
    done = argosy(
        "run",
        "-q",
        "--rm",
        "--network",
        "none",
        "--pull",
        "always",
        there,
        "busybox",
        "echo",
        "new",
    )
    assert done.out == "new\n"
