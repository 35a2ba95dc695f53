"""Mount sources that only the host's side can open: id-mapped ones, and those a user namespace could not reach."""

from __future__ import annotations

import posix

from argosy.runtime import kernel as k
from argosy.runtime.errors import Failure
from argosy.runtime.identity import holder
from argosy.runtime.mounts import clone

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.plan import Step


def open_sources(
    kernel: LinuxKernel,
    steps: tuple[Step, ...],
    linux: dict[str, Any],
    spaces: dict[str, str],
    *,
    rootless: bool,
) -> dict[int, int]:
    """Detached trees by the mount's index.

    Raises:
        Failure: an id-mapped mount without mappings, or in a rootless container.
        OSError: a source cannot be opened or mapped.
    """
    opened: dict[int, int] = {}
    held: dict[str, int] = {}
    try:
        for step in steps:
            if step[0] != "mount":
                continue
            index, entry = step[1], step[2]
            if entry["bind"] and (entry["idmap"] or ("user" in spaces and not rootless)):
                try:
                    opened[index] = _open_source(kernel, entry, linux, spaces, held, rootless)
                except (OSError, Failure) as error:
                    error.add_note(
                        f'error mounting "{entry["source"]}" to rootfs at "{entry["destination"]}"'
                    )
                    raise
    finally:
        for fd in held.values():
            posix.close(fd)
    return opened


def _open_source(
    kernel: LinuxKernel,
    entry: dict[str, Any],
    linux: dict[str, Any],
    spaces: dict[str, str],
    held: dict[str, int],
    rootless: bool,
) -> int:
    recursive = entry["bind"] == "rbind"
    tree = clone(kernel, k.AT_FDCWD, entry["source"].encode(), recursive=recursive)
    propagation = linux.get("rootfsPropagation", "rslave")
    try:
        if not propagation.endswith("shared"):
            kernel.mount_setattr(tree, 0, 0, recursive=True, propagation=k.MS_SLAVE)
        if entry["idmap"]:
            if rootless:
                raise Failure("id-mapped mounts are not supported for rootless containers")
            userns = _userns(kernel, entry, linux, spaces, held)
            kernel.mount_setattr(
                tree, k.MOUNT_ATTR_IDMAP, 0, recursive=entry["idmap"] == "ridmap", userns_fd=userns
            )
    except BaseException:
        posix.close(tree)
        raise
    return tree


def _userns(
    kernel: LinuxKernel,
    entry: dict[str, Any],
    linux: dict[str, Any],
    spaces: dict[str, str],
    held: dict[str, int],
) -> int:
    uids, gids = entry["uids"], entry["gids"]
    if not uids and spaces.get("user"):
        return _once(
            held,
            spaces["user"],
            lambda: posix.open(spaces["user"], posix.O_RDONLY | posix.O_CLOEXEC),
        )
    if not uids:
        uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    if not uids or not gids:
        raise Failure("id-mapped mounts must have both uid and gid mappings specified")
    return _once(held, repr((uids, gids)), lambda: holder(kernel, uids, gids))


def _once(held: dict[str, int], key: str, make: Any) -> int:
    if key not in held:
        held[key] = make()
    return held[key]
