"""An engine in a directory of its own, an image of this machine's programs, and the command line."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.engine.network import LEASES
from argosy.layout.store import LayoutStore
from argosy.testing.hostimage import host_image


class Done(NamedTuple):
    code: int
    out: str
    err: str


Argosy = Callable[..., Done]


def alone(argosy: Argosy, image: str, *argv: str, options: Sequence[str] = (), **more: Any) -> Done:
    """A container without a network that is removed when it ends."""
    return argosy("run", "-q", "--rm", "--network", "none", *options, image, *argv, **more)


def web(argosy: Argosy, image: str, port: int, *options: str) -> bytes:
    """The page that a container `web` shows on this machine's `port`."""
    argosy(
        "run", "-q", "-d", "--name", "web", "-p", f"127.0.0.1:{port}:80", *options, image,
        "sh", "-c", "mkdir /w; echo page > /w/index.html; echo ready; exec httpd -f -p 80 -h /w",
    )  # fmt: skip
    for _ in range(200):
        if "ready" in argosy("logs", "web").out:
            break
    for _ in range(50):
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            return bytes(page.read())
    return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def needs_containers() -> None:
    """Skip, by name, where this machine cannot run containers for root."""
    if os.geteuid() != 0:
        pytest.skip("containers: needs root")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("containers: this kernel gives no mount namespace here")


@pytest.fixture(scope="session")
def host_layout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A layout with an image `v1` made of this machine's own programs."""
    path = tmp_path_factory.mktemp("host") / "image"
    image = host_image(
        MemoryStore(),
        ("sh", "cat", "ls", "id", "sleep", "mount", "touch", "true", "env", "hostname"),
        message="ahoy",
    )
    copy(image.source, image.descriptor.digest, LayoutStore.create(str(path)), "v1")
    return path


@pytest.fixture
def image(host_layout: pathlib.Path) -> str:
    """Its place, as it is typed."""
    return f"oci:{host_layout}:v1"


@pytest.fixture
def root() -> Iterator[pathlib.Path]:
    """The engine's directory: on the disk, for an overlay's upper directory may not lie on another overlay."""
    path = pathlib.Path("/var/tmp") / f"argosy-test-{os.getpid()}-{os.urandom(4).hex()}"
    path.mkdir(mode=0o755)
    yield path
    mounted = pathlib.Path("/proc/self/mountinfo").read_text()
    assert str(path) not in mounted, "a mount was left behind"
    shutil.rmtree(path)


@pytest.fixture
def launcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The runtime's launcher, written as an installation writes it."""
    path = tmp_path_factory.getbasetemp() / "argosy-runtime"
    if not path.exists():
        subprocess.run(
            [sys.executable, "-m", "argosy.runtime.launcher", "--plain", str(path)], check=True
        )
    return str(path)


@pytest.fixture
def asked(tmp_path: pathlib.Path) -> pathlib.Path:
    """What the runtime was asked for, a line a call."""
    return tmp_path / "asked"


@pytest.fixture
def argosy(
    root: pathlib.Path, launcher: str, asked: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[Argosy]:
    """`argosy("run", …, code=0)`; what is left in the end is removed."""
    needs_containers()
    runtime = tmp_path / "runtime"
    runtime.write_text(f'#!/bin/sh\necho "$*" >> {asked}\nexec {launcher} "$@"\n')
    runtime.chmod(0o755)
    env = {**os.environ, "ARGOSY_ROOT": str(root), "ARGOSY_RUNTIME": str(runtime)}

    def run(*argv: object, code: int | None = 0, stdin: str = "") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "argosy", *map(str, argv)],
            env=env, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"{argv}\n{done.stdout}{done.stderr}"
        return Done(done.returncode, done.stdout, done.stderr)

    run.env = env  # type: ignore[attr-defined]
    yield run
    for container in run("ps", "-aq").out.split():
        run("rm", "-f", container, code=None)
    run("prune")


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
            *(path for path in cgroups() if os.path.basename(path) in ids),
            *links.intersection(os.listdir("/sys/class/net")),
        ]

    return found


def cgroups() -> list[str]:
    """The directories of all cgroups; other tests make and remove some meanwhile, which a glob does not bear."""
    return [path for path, _, _ in os.walk("/sys/fs/cgroup")]
