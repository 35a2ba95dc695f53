"""The container's view of its control groups: the mount of type ``cgroup``."""

from __future__ import annotations

import posix
from errno import EBUSY, ENOENT, EPERM

from argosy.runtime import kernel as k
from argosy.runtime.inroot import O_PATH
from argosy.runtime.jsonio import read_file
from argosy.runtime.mountplan import parse
from argosy.runtime.mounts import attach, mount, new

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.steps import Context

_FLAGS = ["noexec", "nosuid", "nodev"]
_DEFAULT = k.MOUNT_ATTR_NOEXEC | k.MOUNT_ATTR_NOSUID | k.MOUNT_ATTR_NODEV


def mount_cgroup(context: Context, index: int, entry: dict[str, Any], label: str) -> None:
    """Mount the unified hierarchy, or a tmpfs with one mount for each of version 1's."""
    fd = posix.open("/sys/fs/cgroup", O_PATH)
    try:
        unified = context.kernel.filesystem(fd) == k.CGROUP2_SUPER_MAGIC
    finally:
        posix.close(fd)
    if unified:
        _unified(context, index, entry, label)
    else:
        _version_one(context, entry, label)


def _unified(context: Context, index: int, entry: dict[str, Any], label: str) -> None:
    try:
        mount(context, index, {**entry, "type": "cgroup2", "data": entry["data"]}, "")
        return
    except OSError as error:
        if error.errno not in (EPERM, EBUSY):
            raise
    # In a user namespace without a cgroup namespace the kernel refuses; without privileges the cgroup may not even be
    # visible: then an empty read-only directory hides the host's.
    source = context.cgroup_path if context.own_cgroup and context.cgroup_path else "/sys/fs/cgroup"
    try:
        mount(
            context,
            index,
            {**entry, "type": "bind", "bind": "bind", "source": source, "attributes": True},
            "",
        )
    except OSError as error:
        if error.errno != ENOENT or not context.rootless:
            raise
        tmpfs = {
            **entry,
            "type": "tmpfs",
            "source": "tmpfs",
            "data": ["nr_blocks=1", "nr_inodes=1"],
        }
        mount(context, index, {**tmpfs, "set": entry["set"] | k.MOUNT_ATTR_RDONLY}, label)


def hierarchies() -> list[tuple[str, str, str]]:
    """Version 1's mounts of this process: (mount point, its root within the hierarchy, controllers or name=…)."""
    found: dict[str, tuple[str, str, str]] = {}
    for line in read_file("/proc/self/mountinfo").decode("utf-8", "surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if kinds[0] != "cgroup":
            continue
        names = [
            word for word in kinds[2].split(",") if word not in ("rw", "ro") and "=" not in word
        ]
        named = [word for word in kinds[2].split(",") if word.startswith("name=")]
        controllers = ",".join(
            named or [word for word in names if not word.startswith(("xattr", "clone_"))]
        )
        found.setdefault(controllers, (fields[4], fields[3], controllers))
    return list(found.values())


def own_paths() -> dict[str, str]:
    """This process's cgroup in each hierarchy, by its controllers."""
    text = read_file("/proc/self/cgroup").decode("utf-8", "surrogateescape")
    parts = [line.split(":", 2) for line in text.splitlines()]
    return {controllers: path for _, controllers, path in parts}


def _version_one(context: Context, entry: dict[str, Any], label: str) -> None:
    tmpfs = parse(
        {
            "destination": entry["destination"],
            "type": "tmpfs",
            "source": "tmpfs",
            "options": _FLAGS,
        },
        "",
    )
    mount(context, -1, {**tmpfs, "data": ["mode=755"], "propagation": entry["propagation"]}, label)
    base = entry["destination"].rstrip("/")
    paths = own_paths()
    for point, root, controllers in hierarchies():
        name = point.rsplit("/", 1)[1]
        if context.own_cgroup:
            _fresh_hierarchy(context, f"{base}/{name}", controllers, entry["set"])
        else:
            inside = paths.get(controllers, "/").removeprefix(root.rstrip("/")).strip("/")
            source = f"{point}/{inside}".rstrip("/")
            bind = {
                **entry,
                "type": "bind",
                "bind": "rbind",
                "source": source,
                "destination": f"{base}/{name}",
            }
            mount(
                context,
                -1,
                {**bind, "set": entry["set"] | _DEFAULT, "attributes": True, "data": []},
                "",
            )
        if "," in name:
            for controller in name.split(","):
                context.root.symlink(name, f"{base}/{controller}")
    if entry["set"] & k.MOUNT_ATTR_RDONLY:
        fd = context.root.open(base)
        context.kernel.mount_setattr(fd, k.MOUNT_ATTR_RDONLY, 0)
        posix.close(fd)


def _fresh_hierarchy(context: Context, place: str, controllers: str, attributes: int) -> None:
    target = context.root.mkdir(place)
    try:
        source = "systemd" if controllers == "name=systemd" else "cgroup"
        words = controllers.split(",")
        tree = new(
            context.kernel,
            "cgroup",
            source,
            {},
            words,
            _DEFAULT | (attributes & k.MOUNT_ATTR_RDONLY),
        )
        attach(context.kernel, tree, target)
        posix.close(tree)
    except OSError as error:
        error.add_note(f"mounting the cgroup hierarchy {controllers}")
        raise
    finally:
        posix.close(target)
