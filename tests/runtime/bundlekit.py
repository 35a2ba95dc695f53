"""Bundles and the launcher for tests on the real kernel: a small root file system of busybox, one state root a test."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.runtime import launcher, starter

BUSYBOX = Path("/bin/busybox")
# fmt: off
APPLETS = [
    "sh", "cat", "echo", "ls", "id", "mount", "umount", "stat", "sleep", "true", "false", "env", "touch", "mkdir", "rm",
    "readlink", "hostname", "grep", "dd", "mknod", "ln", "cp", "kill", "nproc", "sync", "head", "tr", "test", "stty", "wc",
    "ip", "chmod", "chown", "cut", "umask", "printf", "nc", "mv", "od", "ps", "sysctl", "seq", "unshare", "nice", "pwd", "tty",
]
# fmt: on

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces and mounts")
needs_busybox = pytest.mark.skipif(
    not BUSYBOX.exists(), reason="needs busybox-static in /bin/busybox"
)


def make_rootfs(path: Path) -> Path:
    """A root file system: busybox, a few directories, users."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root", "home", "usr/bin", "run"):
        (path / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for name in APPLETS:
        os.symlink("busybox", path / "bin" / name)
    (path / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"
    )
    (path / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    return path


MAPPED = {"containerID": 0, "hostID": 0, "size": 1}


def starting() -> dict[str, Any]:
    """A configuration as it begins, with a namespace of every usual kind."""
    config = starter.configuration()
    config["linux"]["namespaces"] = [
        {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")
    ]
    config["process"]["terminal"] = False
    return config


class Bundle:
    """A bundle whose configuration a test changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rootfs = make_rootfs(path / "rootfs")
        self.config: dict[str, Any] = starter.configuration()
        self.config["process"]["terminal"] = False
        self.config["root"]["readonly"] = False
        self.config["process"]["args"] = ["true"]

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]  # type: ignore[no-any-return]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]  # type: ignore[no-any-return]

    def sh(self, script: str) -> Bundle:
        """The process is a shell script."""
        self.process["args"] = ["sh", "-c", script]
        return self

    def namespace(self, kind: str, path: str | None = "") -> None:
        """Add, replace or (None) remove a namespace."""
        kept = [entry for entry in self.linux["namespaces"] if entry["type"] != kind]
        if path is not None:
            kept.append({"type": kind, **({"path": path} if path else {})})
        self.linux["namespaces"] = kept

    def userns(self, host: int = 100000, size: int = 65536) -> None:
        """A user namespace, and a root file system that belongs to it."""
        self.namespace("user")
        for name in ("uidMappings", "gidMappings"):
            self.linux[name] = [{"containerID": 0, "hostID": host, "size": size}]
        for place, names, files in os.walk(self.rootfs):
            for name in (*names, *files, "."):
                os.chown(os.path.join(place, name), host, host, follow_symlinks=False)
        for parent in (self.path, *self.path.parents):
            if parent.stat().st_mode & 0o011 != 0o011 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)

    def mount(self, destination: str, fstype: str, source: str, *options: str, **more: Any) -> None:
        entry = {
            "destination": destination,
            "type": fstype,
            "source": source,
            "options": list(options),
            **more,
        }
        self.config["mounts"].append(entry)

    def write(self) -> None:
        (self.path / "config.json").write_text(json.dumps(self.config))


class Runtime:
    """The launcher with a state root of its own."""

    def __init__(self, path: Path, root: Path, bundles: Path) -> None:
        self.path = path
        self.root = root
        self._bundles = bundles
        self._count = 0

    def bundle(self) -> Bundle:
        self._count += 1
        place = self._bundles / f"bundle{self._count}"
        place.mkdir()
        return Bundle(place)

    def argv(self, *words: str) -> list[str]:
        return [str(self.path), "--root", str(self.root), *words]

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        given: dict[str, Any] = {
            "capture_output": True,
            "text": True,
            "timeout": 60,
            "stdin": subprocess.DEVNULL,
        }
        return subprocess.run(self.argv(*words), check=False, **{**given, **options})

    def ok(self, *words: str, **options: Any) -> str:
        done = self(*words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(
        self, bundle: Bundle, *words: str, cid: str = "", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """``run`` a bundle in the foreground."""
        bundle.write()
        return self("run", "-b", str(bundle.path), *words, cid or self.name(), **options)

    def output(self, bundle: Bundle, *words: str, **options: Any) -> str:
        done = self.run(bundle, *words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def create(self, bundle: Bundle, *words: str, cid: str = "") -> str:
        """``create``; returns the ID. Its output goes to a file beside the configuration."""
        cid = cid or self.name()
        bundle.write()
        with open(bundle.path / "output", "w") as output:
            done = self(
                "create",
                "-b",
                str(bundle.path),
                *words,
                cid,
                capture_output=False,
                stdout=output,
                stderr=output,
            )
        assert done.returncode == 0, (bundle.path / "output").read_text()
        return cid

    def start(self, bundle: Bundle, *words: str, cid: str = "") -> str:
        cid = self.create(bundle, *words, cid=cid)
        self.ok("start", cid)
        return cid

    def state(self, cid: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ok("state", cid))
        return found

    def name(self) -> str:
        self._count += 1
        return f"t{os.getpid()}-{self._bundles.name}-{self._count}".replace("_", "-")[-60:]

    def clean(self) -> None:
        for entry in self.root.iterdir() if self.root.exists() else ():
            if not entry.name.startswith("."):
                self("delete", "--force", entry.name)


@pytest.fixture(scope="session")
def launcher_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher, written for the interpreter that runs the tests."""
    path = tmp_path_factory.mktemp("launcher") / "argosy-runtime"
    launcher.write(str(path))
    return path


@pytest.fixture
def runtime(launcher_path: Path, tmp_path: Path) -> Iterator[Runtime]:
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and mounts")
    if not BUSYBOX.exists():
        pytest.skip("needs busybox-static in /bin/busybox")
    place = Path(tempfile.mkdtemp(prefix="argosy-"))  # pytest's own directory is for its user alone
    place.chmod(0o711)
    made = Runtime(launcher_path, tmp_path / "state", place)
    yield made
    made.clean()
    shutil.rmtree(place)


@pytest.fixture
def bundle(runtime: Runtime) -> Bundle:
    return runtime.bundle()


def cgroups_of(cid: str) -> list[str]:
    """Every cgroup directory named after a container, in any hierarchy."""
    return [
        place for place, names, _ in os.walk("/sys/fs/cgroup") if cid in place.rsplit("/", 1)[-1]
    ]


def has_namespace(kind: str) -> bool:
    return os.path.exists(f"/proc/self/ns/{kind}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def await_end(pid: int) -> None:
    """Return when a process of somebody else has ended."""
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    select.select([ended], [], [])
    os.close(ended)


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    """A terminal for the standard input of `run` and `exec -t`."""
    ours, theirs = os.openpty()
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


__all__ = [
    "Bundle",
    "Runtime",
    "alive",
    "await_end",
    "bundle",
    "cgroups_of",
    "launcher_path",
    "runtime",
    "terminal",
]


@contextlib.contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    """A Unix socket that somebody is expected to connect to."""
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))
        end.listen()
        end.settimeout(30)
        yield end
