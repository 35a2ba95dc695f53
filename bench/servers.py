"""Registries that are compared: each starts on a free port of loopback over a fresh directory."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
from harness import OURS, Stage

from wire import Wire


@dataclasses.dataclass(frozen=True)
class Registry:
    """A registry that runs."""

    name: str
    port: int
    pid: int
    seconds: float
    data: Path

    @property
    def host(self) -> str:
        """What clients put in front of a repository's name."""
        return f"localhost:{self.port}"

    @property
    def blobs(self) -> Path:
        """Where distribution keeps blobs."""
        return self.data / "docker/registry/v2/blobs"


def _argosy(folder: Path, port: int) -> list[str]:
    return harness.argosy(
        "serve", "--no-access-log", "--data", str(folder / "data"), "--port", str(port)
    )


def _distribution(folder: Path, port: int, program: str = "registry") -> list[str]:
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{folder}/data'}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    return [str(harness.find(program)), "serve", str(config)]


def _debian(folder: Path, port: int) -> list[str]:
    return _distribution(folder, port, "docker-registry")


def _zot(folder: Path, port: int) -> list[str]:
    config = folder / "config.json"
    document = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": f"{folder}/data", "commit": True, "gc": False},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "error", "output": os.devnull},
    }
    config.write_text(json.dumps(document))
    return [str(harness.find("zot")), "serve", str(config)]


KINDS: dict[str, tuple[str | None, Callable[[Path, int], list[str]]]] = {
    OURS: (None, _argosy),
    "distribution": ("registry", _distribution),
    "zot": ("zot", _zot),
    "docker-registry": ("docker-registry", _debian),
}
"""Registries by name: the program that has to be there, and how to start it."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def answers(port: int) -> bool:
    """Whether `/v2/` is answered."""
    try:
        wire = Wire(port)
    except OSError:
        return False
    with contextlib.closing(wire):
        try:
            return wire.ask("GET", "/v2/")[0] == 200
        except (OSError, SystemExit):
            return False


@contextlib.contextmanager
def running(name: str, folder: Path) -> Iterator[Registry]:
    """A registry over a directory, until the block ends."""
    port = free_port()
    command = KINDS[name][1](folder, port)
    env = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
    with harness.server(command, lambda: answers(port), env=env) as (pid, seconds):
        yield Registry(name, port, pid, seconds, folder / "data")


@contextlib.contextmanager
def several(stage: Stage, *names: str) -> Iterator[dict[str, Registry]]:
    """Those of the registries that are installed, each over a fresh directory."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name in names:
            program = KINDS[name][0]
            if program is None or harness.find(program):
                folder = stack.enter_context(stage.folder())
                found[name] = stack.enter_context(running(name, folder))
        yield found
