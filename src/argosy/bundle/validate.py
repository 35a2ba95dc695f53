"""What is wrong with a bundle's directory, as a runtime will find it (runtime-spec, bundle.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator

from argosy.bundle.bundle import METADATA, SNAPSHOT, Bundle
from argosy.bundle.check import check_bundle
from argosy.errors import ArgosyError

__all__ = ["problems"]


def problems(path: str) -> Iterator[str]:
    """What does not hold, one line each.

    The configuration is checked by `check_bundle`. A bundle that was not unpacked from an image is no worse for it:
    metadata and snapshot are checked where they are.

    Args:
        path: The bundle's directory.
    """
    for name, check in _CHECKS.items():
        try:
            yield from (f"{name}: {problem}" for problem in check(path))
        except ArgosyError as exc:
            yield f"{name}: {exc}"


def _config(path: str) -> Iterator[str]:
    for finding in check_bundle(path):
        if finding.verdict == "refused":
            yield f"{finding.where}: {finding.why}" if finding.where else finding.why


def _metadata(path: str) -> Iterator[str]:
    if os.path.lexists(os.path.join(path, METADATA)):
        Bundle.open(path)
    yield from ()


def _snapshot(path: str) -> Iterator[str]:
    if os.path.lexists(os.path.join(path, SNAPSHOT)):
        bundle = Bundle.open(path)
        with bundle.root() as root:
            bundle.snapshot(root)
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
    "bundle": _config,
    METADATA: _metadata,
    SNAPSHOT: _snapshot,
}
