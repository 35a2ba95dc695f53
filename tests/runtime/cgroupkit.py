"""What the cgroup tests share: places of their own in the machine's hierarchies, and directories of plain files."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from argosy.runtime.cgroups import layout
from argosy.runtime.cgroups.v1 import LegacyCgroup
from argosy.runtime.cgroups.v2 import UnifiedCgroup


def machine() -> layout.Layout:
    """The hierarchies here; the test is skipped without root or without any."""
    if os.geteuid() != 0:
        pytest.skip("cgroups: needs root")
    found = layout.discover()
    if not found.mounts:
        pytest.skip("cgroups: no hierarchy is mounted")
    return found


def need(controller: str) -> layout.Layout:
    found = machine()
    if controller not in found.mounts:
        pytest.skip(f"cgroups: no hierarchy for {controller or 'version 2'}")
    if controller and found.unified:
        pytest.skip("cgroups: version 1 is not in use")
    return found


@contextlib.contextmanager
def legacy() -> Iterator[LegacyCgroup]:
    group = LegacyCgroup.at(
        need("memory"), f"/argosy-test-{uuid.uuid4().hex}/c", rootless=False, asked=True
    )
    with cleaned(group):
        yield group


@contextlib.contextmanager
def unified() -> Iterator[UnifiedCgroup]:
    group = UnifiedCgroup.at(
        need(""), f"/argosy-test-{uuid.uuid4().hex}/c", rootless=False, asked=True
    )
    with cleaned(group):
        yield group


@contextlib.contextmanager
def cleaned(group: LegacyCgroup | UnifiedCgroup) -> Iterator[None]:
    places = group.places()
    try:
        yield
    finally:
        if group.exists():
            group.kill()
            group.destroy()
        for place in places:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(place))


@contextlib.contextmanager
def sleeper(program: str = "exec sleep 1000") -> Iterator[subprocess.Popen[bytes]]:
    """A process that stays until it is killed."""
    process = subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def files(place: pathlib.Path, **content: str) -> str:
    """A directory of plain files; `__` in a name stands for a dot."""
    place.mkdir(exist_ok=True, parents=True)
    for name, text in content.items():
        (place / name.replace("__", ".")).write_text(text)
    return str(place)


def written(place: pathlib.Path) -> dict[str, str]:
    """What is in the files of a directory, empty ones left out."""
    return {
        each.name: text
        for each in sorted(place.iterdir())
        if each.is_file() and (text := each.read_text())
    }
