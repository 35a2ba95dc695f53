"""What is wrong with a bundle's directory, as a runtime will find it (runtime-spec, bundle.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from argosy.bundle.bundle import METADATA, SNAPSHOT, Bundle, read_config
from argosy.errors import ArgosyError

__all__ = ["problems"]


def problems(path: str) -> Iterator[str]:
    """What does not hold, one line each.

    A bundle that was not unpacked from an image is no worse for it: metadata and snapshot are checked where they are.

    Args:
        path: The bundle's directory.
    """
    for name, check in _CHECKS.items():
        try:
            yield from (f"{name}: {problem}" for problem in check(path))
        except ArgosyError as exc:
            yield f"{name}: {exc}"


def _config(path: str) -> Iterator[str]:
    config = read_config(path)
    if not isinstance(config.get("ociVersion"), str):
        yield "ociVersion: this property is required"
    process: Any = config.get("process")
    if isinstance(process, dict):
        cwd, args = process.get("cwd"), process.get("args")
        if not isinstance(cwd, str) or not cwd.startswith("/"):
            yield f"process.cwd: expected an absolute path, got {cwd!r}"
        if not isinstance(args, list) or not args:
            yield "process.args: expected at least one argument"
    root: Any = config.get("root")
    if not isinstance(root, dict) or not isinstance(root.get("path"), str):
        yield "root.path: this property is required"
        return
    rootfs = os.path.join(path, root["path"])
    if not os.path.isdir(rootfs):
        yield f"root.path: {rootfs} is no directory"


def _metadata(path: str) -> Iterator[str]:
    if os.path.lexists(os.path.join(path, METADATA)):
        Bundle.open(path)
    yield from ()


def _snapshot(path: str) -> Iterator[str]:
    if os.path.lexists(os.path.join(path, SNAPSHOT)):
        Bundle.open(path).snapshot()
    yield from ()


def _mode(path: str) -> Iterator[str]:
    try:
        mode = os.stat(path).st_mode
    except OSError as exc:
        yield f"{path}: {os.strerror(exc.errno or 0).lower()}"
        return
    if mode & 0o077:
        yield f"mode {mode & 0o7777:04o} lets others reach the image's set-user-id programs: expected 0700"


_CHECKS = {
    "directory": _mode,
    "config.json": _config,
    METADATA: _metadata,
    SNAPSHOT: _snapshot,
}
