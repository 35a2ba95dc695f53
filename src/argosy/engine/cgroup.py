"""The cgroup of a container of root's: where it is, and what the kernel has written down there."""

from __future__ import annotations

import contextlib

from argosy.runtime.cgroups import files, layout
from argosy.runtime.errors import Failure


def path_of(container_id: str) -> str:
    """The `cgroupsPath` of a container."""
    return f"/argosy/{container_id}"


def out_of_memory(container_id: str, machine: layout.Layout | None = None) -> bool:
    """Whether the kernel has killed a process of a container for want of memory: the container's, or the machine's.

    To be asked before the cgroup goes. Of a container without one, as those of users are, nobody knows.
    """
    found = machine or layout.discover()
    controller, name = ("memory", "memory.oom_control")
    if controller not in found.mounts:
        controller, name = layout.UNIFIED, "memory.events"
    if controller not in found.mounts:
        return False
    try:
        text = files.read_or(f"{found.directory(controller, path_of(container_id))}/{name}", "")
    except Failure:
        return False
    return files.pairs(text).get("oom_kill", 0) > 0


def remove(container_id: str) -> None:
    """Remove what cgroups a container still has where its runtime knows of none; one that stays is no failure."""
    found = layout.discover()
    for controller in found.mounts:
        with contextlib.suppress(Failure):
            files.remove(found.directory(controller, path_of(container_id)))
