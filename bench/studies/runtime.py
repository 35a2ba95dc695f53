"""The runtime beside runc and crun, on one bundle."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from harness import (
    OURS,
    Attempt,
    ProgramError,
    Row,
    Stage,
    Study,
    Target,
    present,
    process,
    system_calls,
)

from argosy.runtime import starter

_EXIT = {"x86_64": "31ffb83c0000000f05", "aarch64": "000080d2a80b80d2010000d4"}
_WAIT = {
    "x86_64": "b8220000000f05",
    "aarch64": "000080d2010080d2020080d2030080d2040080d2280980d2010000d4",
}
_MACHINE = {"x86_64": 62, "aarch64": 183}


def elf(code: bytes) -> bytes:
    """A static program of these instructions and nothing else."""
    size = 64 + 56 + len(code)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    machine = _MACHINE[platform.machine()]
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    return ident + head + segment + code


PLAIN = "argosy --plain"


@contextlib.contextmanager
def installed(*options: str) -> Iterator[str]:
    """The launcher as an administrator installs it: on a disk, since a read-only mount is to cover its interpreter."""
    writer = [sys.executable, "-m", "argosy.runtime.launcher"]
    with tempfile.TemporaryDirectory(prefix="argosy-runtime-", dir="/var/tmp") as folder:
        path = f"{folder}/argosy-runtime"
        subprocess.run([*writer, *options, path], check=True)
        try:
            yield path
        finally:
            subprocess.run([*writer, "--remove", path], check=True)


def bundle(place: Path) -> None:
    """A bundle with two programs: `true` exits, `wait` stays."""
    for name in ("bin", "dev", "proc", "sys", "etc"):
        (place / "rootfs" / name).mkdir(parents=True)
    done, wait = (bytes.fromhex(code[platform.machine()]) for code in (_EXIT, _WAIT))
    for name, code in (("true", done), ("wait", wait + done)):
        program = place / "rootfs/bin" / name
        program.write_bytes(elf(code))
        program.chmod(0o755)
    config = starter.configuration()
    config["ociVersion"] = "1.0.2"  # old runtimes refuse what is newer than they are
    config["process"].update(terminal=False, args=["/bin/true"])
    (place / "config.json").write_text(json.dumps(config))


class Runtime:
    """A runtime with its state, and a container of every turn."""

    def __init__(self, folder: Path, bundle: Path, *words: str) -> None:
        self.words = [*words, "--root", str(folder)]
        self.bundle = bundle
        self.numbers = (f"bench-{os.getpid()}-{id(self)}-{n}" for n in itertools.count())

    def call(self, *words: str) -> float:
        """Milliseconds of one call."""
        return process([*self.words, *words])[0] * 1000

    def pid(self, cid: str) -> int:
        """The process id of a container's init."""
        said = subprocess.run([*self.words, "state", cid], capture_output=True, check=True).stdout
        return int(json.loads(said)["pid"])

    @contextlib.contextmanager
    def container(self, verb: str, program: str) -> Iterator[tuple[str, int, float]]:
        """A container by `create` or `run -d`: its id, its init's process id, and the milliseconds it took."""
        config = json.loads((self.bundle / "config.json").read_text())
        config["process"]["args"] = [program]
        (self.bundle / "config.json").write_text(json.dumps(config))
        cid = next(self.numbers)
        words = ["-d"] if verb == "run" else []
        taken = self.call(verb, *words, "-b", str(self.bundle), cid)
        try:
            yield cid, self.pid(cid), taken
        except BaseException:
            subprocess.run([*self.words, "delete", "--force", cid], check=False)
            raise

    def run(self) -> dict[str, float]:
        """`run` of a program that exits at once."""
        with self.container("create", "/bin/true") as (cid, pid, create):
            memory, ended = resident(pid), os.pidfd_open(pid)
            start = self.call("start", cid)
            select.select([ended], [], [], 30)
            os.close(ended)
            delete = self.call("delete", cid)
        run = self.call("run", "-b", str(self.bundle), next(self.numbers))
        return {
            "run": run,
            "create + start + delete": create + start + delete,
            "create": create,
            "start": start,
            "delete": delete,
            "init memory": memory,
        }

    def stay(self) -> dict[str, float]:
        """What is asked of a container that runs."""
        with self.container("run", "/bin/wait") as (cid, pid, _):
            ended = os.pidfd_open(pid)
            state, execute = self.call("state", cid), self.call("exec", cid, "/bin/true")
            kill = self.call("kill", cid, "KILL")
            select.select([ended], [], [], 30)
            os.close(ended)
            self.call("delete", cid)
        return {"state": state, "exec": execute, "kill": kill}


def resident(pid: int) -> float:
    """Megabytes (10**6 bytes) a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"process {pid} has no memory")


def why_not(one: Runtime) -> str:
    """Why a peer cannot run a container on this machine; empty when it can."""
    try:
        one.run()
    except ProgramError as exc:
        return str(exc).rpartition("exit code ")[2].partition(": ")[2]
    return ""


@contextlib.contextmanager
def containers(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """All verbs, by runtime."""
    with stage.folder() as folder, installed() as ours, installed("--plain") as plain:
        bundle(folder / "bundle")
        found = {}
        peers = present({"runc": ["runc"], "crun": ["crun"]})
        for name, words in ({OURS: [ours], PLAIN: [plain]} | peers).items():
            one = Runtime(folder / name, folder / "bundle", *words)
            if name in peers and (reason := why_not(one)):
                stage.notes.append(f"{name} cannot run here: {reason}")
            else:
                found[name] = one

        def turn(one: Runtime) -> Attempt:
            return lambda: one.run() | one.stay()

        yield {name: turn(one) for name, one in found.items()}


def where(stage: Stage) -> str:
    """The system calls of `run`, by the time they took."""
    with stage.folder() as folder, installed() as ours:
        bundle(folder / "bundle")
        words = [ours, "--root", str(folder / "state"), "run", "-b", str(folder / "bundle")]
        try:
            return system_calls(*words, f"bench-{os.getpid()}")
        finally:
            shutil.rmtree(folder / "state", ignore_errors=True)


STUDIES = (
    Study(
        "runtime",
        "One bundle (`argosy-runtime spec`, a static program): each call is a whole process. argosy is installed "
        "by root, with an interpreter of its own; `argosy --plain` starts Python twice where a container is entered.",
        (
            Row("run", "ms", (Target(1, ("runc",)),)),
            Row("create + start + delete", "ms", (Target(1, ("runc",)),)),
            Row("create", "ms"),
            Row("start", "ms"),
            Row("delete", "ms", (Target(15),)),
            Row("state", "ms", (Target(15),)),
            Row("kill", "ms", (Target(15),)),
            Row("exec", "ms", (Target(1, ("runc",)),)),
            Row("init memory", "MB", (Target(12),)),
        ),
        containers,
        (PLAIN, "runc", "crun"),
        runs=20,
        quick=5,
        profile=where,
        root=True,
    ),
)
