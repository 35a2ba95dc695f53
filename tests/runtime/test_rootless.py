"""Without privileges: a user namespace with one mapping, in which the caller is root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime import launcher, starter
from tests.runtime.bundlekit import BUSYBOX, Bundle, Runtime

NOBODY = 65534


def reachable(path: str) -> bool:
    """Whether somebody without privileges may get at a file."""
    return all(os.stat(place).st_mode & 0o001 for place in (path, *map(str, Path(path).parents)))


@pytest.fixture
def rootless() -> Iterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody without privileges")
    if not BUSYBOX.exists():
        pytest.skip("needs busybox-static in /bin/busybox")
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if not found or not reachable(os.path.realpath(found)):
        pytest.skip("needs a Python that everybody may execute")
    version = subprocess.run(
        [found, "-c", "import sys; print(sys.version_info >= (3, 11))"],
        capture_output=True,
        text=True,
        check=True,
    )
    if version.stdout != "True\n":
        pytest.skip("needs a Python of 3.11 or later that everybody may execute")
    place = Path(tempfile.mkdtemp(prefix="argosy-"))
    place.chmod(0o755)
    source = str(Path(launcher.__file__).parents[2])
    subprocess.run(
        [found, "-m", "argosy.runtime.launcher", str(place / "argosy-runtime")],
        check=True,
        env={"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    (place / "bundles").mkdir()
    yield Runtime(place / "argosy-runtime", place / "bundles/state", place / "bundles")
    shutil.rmtree(place)


def as_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def nobodys(runtime: Runtime) -> Bundle:
    bundle = runtime.bundle()
    bundle.config = starter.rootless(bundle.config)
    for name in ("uidMappings", "gidMappings"):
        bundle.linux[name] = [{"containerID": 0, "hostID": NOBODY, "size": 1}]
    bundle.namespace("cgroup", None)
    for place, names, files in os.walk(runtime._bundles):
        for name in (*names, *files, "."):
            os.chown(os.path.join(place, name), NOBODY, NOBODY, follow_symlinks=False)
    return bundle


def test_a_container_lives_without_any_privileges(rootless: Runtime) -> None:
    options: dict[str, Any] = {"preexec_fn": as_nobody, "env": {}}
    bundle = nobodys(rootless)
    script = "id -u; cat /proc/self/uid_map; echo x >/dev/null; touch /new; ls /dev/pts/ptmx"
    output = rootless.output(bundle.sh(script), **options)
    assert output.split() == ["0", "0", str(NOBODY), "1", "/dev/pts/ptmx"]
    assert (bundle.rootfs / "new").stat().st_uid == NOBODY
    bundle.sh("exec sleep 100").write()
    rootless.ok("run", "-d", "-b", str(bundle.path), "rl", capture_output=False, **options)
    assert rootless.ok("exec", "rl", "id", "-u", **options) == "0\n"
    rootless.ok("delete", "--force", "rl", **options)


def test_more_than_ones_own_id_needs_newuidmap(rootless: Runtime) -> None:
    bundle = nobodys(rootless)
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 10}]
    done = rootless.run(bundle, preexec_fn=as_nobody, env={})
    assert done.returncode == 1
    assert "newuidmap" in done.stderr
