"""Mounts, made detached and then moved onto an open directory: no path inside the container is used as a string.

A bind is a detached clone (`open_tree`), a file system a detached mount (`fsopen`); attributes are set before it is
attached, propagation after. Where the kernel or an outer seccomp profile has no new mount API, mount(2) on
``/proc/self/fd/N`` stands in; that /proc is the host's, before the pivot.
"""

from __future__ import annotations

import posix
from errno import EACCES, EINVAL, ELOOP, ENODATA, ENOSYS, ENOTDIR, EPERM

from argosy.runtime import kernel as k
from argosy.runtime import tables
from argosy.runtime.channel import SOURCE
from argosy.runtime.errors import Failure
from argosy.runtime.inroot import O_PATH, S_IFDIR, Root, kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.steps import Context

_VALUE_LIMIT = 255  # fsconfig(2) takes no longer strings
_CLEARABLE = (
    k.MOUNT_ATTR_RDONLY
    | k.MOUNT_ATTR_NOSUID
    | k.MOUNT_ATTR_NODEV
    | k.MOUNT_ATTR_NOEXEC
    | k.MOUNT_ATTR_NOSYMFOLLOW
)
_LATE = k.MOUNT_ATTR_RDONLY
_LEGACY = {
    k.MOUNT_ATTR_RDONLY: 1, k.MOUNT_ATTR_NOSUID: 2, k.MOUNT_ATTR_NODEV: 4, k.MOUNT_ATTR_NOEXEC: 8,
    k.MOUNT_ATTR_NOATIME: 1024, k.MOUNT_ATTR_NODIRATIME: 2048, k.MOUNT_ATTR_STRICTATIME: 1 << 24,
    k.MOUNT_ATTR_NOSYMFOLLOW: 256,
}  # fmt: skip
_LEGACY_SUPER = {"ro": 1, "sync": 16, "mand": 64, "dirsync": 128, "lazytime": 1 << 25}
_STATFS = {
    1: k.MOUNT_ATTR_RDONLY,
    2: k.MOUNT_ATTR_NOSUID,
    4: k.MOUNT_ATTR_NODEV,
    8: k.MOUNT_ATTR_NOEXEC,
}


def attach(kernel: LinuxKernel, tree: int, target: int) -> None:
    """Attach a detached mount at the place an O_PATH descriptor stands on.

    Raises:
        KernelError: the kernel refused; ENOTDIR, as of mount(2), where one is a directory and the other is not.
    """
    flags = k.MOVE_MOUNT_F_EMPTY_PATH | k.MOVE_MOUNT_T_EMPTY_PATH
    try:
        kernel.move_mount(tree, b"", target, b"", flags)
    except k.KernelError as error:
        if error.errno == EINVAL and (kind(tree) == S_IFDIR) != (kind(target) == S_IFDIR):
            raise k.KernelError(ENOTDIR, "not a directory", "move_mount") from error
        raise


def mount(context: Context, index: int, entry: dict[str, Any], label: str) -> None:
    """The step for one entry of ``mounts``.

    Raises:
        Failure: a destination that leads onto the root, or into /proc.
        OSError: the kernel refused.
    """
    try:
        _KINDS.get(entry["type"], _filesystem)(context, index, entry, label)
    except (OSError, Failure) as error:
        error.add_note(f'error mounting "{entry["source"]}" to rootfs at "{entry["destination"]}"')
        raise


# --- detached mounts ---


def clone(kernel: LinuxKernel, dirfd: int, path: bytes, *, recursive: bool) -> int:
    """A detached clone of what is at ``path`` (or of ``dirfd`` itself for an empty path)."""
    flags = k.OPEN_TREE_CLONE | k.OPEN_TREE_CLOEXEC | (k.AT_RECURSIVE if recursive else 0)
    return kernel.open_tree(dirfd, path, flags | (0 if path else k.AT_EMPTY_PATH))


def options(data: list[str]) -> list[str]:
    """File system options split at commas, except inside quotes and after a backslash."""
    found: list[str] = []
    for text in data:
        word, quoted, escaped = "", False, False
        for sign in text:
            if sign == "," and not quoted and not escaped:
                found.append(word)
                word = ""
                continue
            quoted ^= sign == '"'
            escaped = sign == "\\" and not escaped
            word += sign
        found.append(word)
    return [word for word in found if word]


def new(
    kernel: LinuxKernel,
    fstype: str,
    source: str,
    entry: dict[str, Any],
    data: list[str],
    attributes: int,
) -> int:
    """A detached mount of a file system.

    Raises:
        OSError: with what the file system says about it as a note.
    """
    context = kernel.fsopen(fstype.encode())
    try:
        if source:
            kernel.fsconfig(context, k.FSCONFIG_SET_STRING, b"source", source.encode())
        for flag in entry.get("super", ()):
            kernel.fsconfig(context, k.FSCONFIG_SET_FLAG, flag.encode(), None)
        for option in data:
            key, equals, value = option.partition("=")
            command = k.FSCONFIG_SET_STRING if equals else k.FSCONFIG_SET_FLAG
            kernel.fsconfig(
                context, command, key.encode(), value.strip('"').encode() if equals else None
            )
        kernel.fsconfig(context, k.FSCONFIG_CMD_CREATE, None, None)
        return kernel.fsmount(context, attributes)
    except OSError as error:
        said = _complaint(context)
        if said:
            error.add_note(said)
        raise
    finally:
        posix.close(context)


def _complaint(context: int) -> str:
    try:
        return posix.read(context, 4096).decode("utf-8", "replace").strip().removeprefix("e ")
    except OSError as error:
        if error.errno not in (ENODATA, EINVAL):
            return ""
        return ""


def _fresh(
    context: Context, entry: dict[str, Any], target: int, data: list[str], late: int = 0
) -> int | None:
    """A new file system, attached; its descriptor, or None where mount(2) had to do it."""
    kernel = context.kernel
    attributes = entry["set"] & ~late
    fits = all(len(text.encode()) <= _VALUE_LIMIT for text in (*data, entry["source"]))
    try:
        if not fits:
            raise k.KernelError(ENOSYS, "too long", "fsconfig")
        tree = new(kernel, entry["type"], entry["source"], entry, data, attributes)
    except k.KernelError as error:
        if error.errno != ENOSYS and not (error.errno == EPERM and error.syscall == "fsopen"):
            raise
        _legacy(kernel, entry, target, data, attributes)
        return None
    attach(kernel, tree, target)
    return tree


def _legacy(
    kernel: LinuxKernel, entry: dict[str, Any], target: int, data: list[str], attributes: int
) -> None:
    flags = 0
    for attribute, flag in _LEGACY.items():
        flags |= flag if attributes & attribute else 0
    for name in entry.get("super", ()):
        flags |= _LEGACY_SUPER.get(name, 0)
    text = ",".join(data).encode() or None
    kernel.mount(
        entry["source"].encode(), b"/proc/self/fd/%d" % target, entry["type"].encode(), flags, text
    )


def _propagate(kernel: LinuxKernel, entry: dict[str, Any], tree: int | None, path: str) -> None:
    for flag, recursive in entry["propagation"]:
        if tree is None:
            kernel.mount(None, path.encode(), None, flag | (k.MS_REC if recursive else 0), None)
        else:
            kernel.mount_setattr(tree, 0, 0, recursive=recursive, propagation=flag)


def _settle(kernel: LinuxKernel, entry: dict[str, Any], tree: int | None) -> None:
    """What comes after attaching a new file system: recursive attributes, propagation; its descriptor is closed."""
    _recursive(kernel, entry, tree)
    _propagate(kernel, entry, tree, entry["destination"])
    if tree is not None:
        posix.close(tree)


# --- targets ---


def _target(context: Context, entry: dict[str, Any], *, directory: bool) -> tuple[int, bool]:
    """The mount point, made if missing: (O_PATH descriptor, whether it was there)."""
    root = context.root
    try:
        target = root.open(entry["destination"])
        existed = True
    except OSError as error:
        if error.errno != 2:
            raise
        existed = False
        target = (
            root.mkdir(entry["destination"])
            if directory
            else _make_file(root, entry["destination"])
        )
    try:
        check_target(context, context.proc.path(target), entry)
    except BaseException:
        posix.close(target)
        raise
    return target, existed


def _make_file(root: Root, path: str) -> int:
    try:
        return root.create_file(path)
    except FileExistsError:  # a symbolic link to nowhere: make what it points to
        directory, name = root.parent(path)
        try:
            link: bytes = posix.readlink(name, dir_fd=directory)
        finally:
            posix.close(directory)
        absolute = (
            link if link.startswith(b"/") else b"/".join((*path.encode().split(b"/")[:-1], link))
        )
        return root.create_file(absolute)


def check_target(context: Context, place: bytes, entry: dict[str, Any]) -> None:
    """Refuse a mount onto the root, outside of it, or into /proc.

    Raises:
        Failure: names the place.
    """
    shown = place.decode("utf-8", "replace")
    rootfs = context.proc.path(context.root.fd)
    prefix = rootfs if rootfs.endswith(b"/") else rootfs + b"/"
    if place == rootfs:
        raise Failure(
            f'mountpoint "{shown}" is on the top of rootfs "{rootfs.decode("utf-8", "replace")}"'
        )
    if not place.startswith(prefix):
        raise Failure(
            f'mountpoint "{shown}" is outside of rootfs "{rootfs.decode("utf-8", "replace")}"'
        )
    inside = place[len(prefix) :].decode("utf-8", "surrogateescape")
    if inside == "proc":
        if not _is_procfs(context, entry):
            raise Failure(f'"{shown}" cannot be mounted because it is not of type proc')
    elif inside.startswith("proc/") and inside[5:] not in tables.PROC_MOUNTS:
        raise Failure(f'"{shown}" cannot be mounted because it is inside /proc')


def _is_procfs(context: Context, entry: dict[str, Any]) -> bool:
    if not entry["bind"]:
        return bool(entry["type"] == "proc")
    fd = posix.open(entry["source"], O_PATH)
    try:
        return context.kernel.filesystem(fd) == k.PROC_SUPER_MAGIC
    finally:
        posix.close(fd)


# --- kinds ---


def _own_filesystem(context: Context, _: int, entry: dict[str, Any], __: str) -> None:
    """proc and sysfs: on a real directory, with no symbolic link on the way."""
    try:
        target = context.root.mkdir(entry["destination"], symlinks=False)
    except OSError as error:
        if error.errno in (ELOOP, ENOTDIR):
            raise Failure(
                f'filesystem "{entry["type"]}" must be mounted on ordinary directory'
            ) from error
        raise
    try:
        check_target(context, context.proc.path(target), entry)
        tree = _own_or_hosts(context, entry, target)
        _settle(context.kernel, entry, tree)
    finally:
        posix.close(target)


def _own_or_hosts(context: Context, entry: dict[str, Any], target: int) -> int | None:
    """sysfs belongs to the network namespace's owner: in a user namespace without its own, the host's is bound."""
    try:
        return _fresh(context, entry, target, options(entry["data"]))
    except k.KernelError as error:
        if entry["type"] != "sysfs" or error.errno != EPERM:
            raise
    tree = clone(context.kernel, k.AT_FDCWD, b"/sys", recursive=True)
    attach(context.kernel, tree, target)
    if entry["set"]:
        context.kernel.mount_setattr(tree, entry["set"], 0, recursive=True)
    return tree


def _filesystem(context: Context, _: int, entry: dict[str, Any], label: str) -> None:
    data = options(entry["data"])
    if (
        label
        and entry["type"] != "mqueue"
        and not any(option.startswith("context=") for option in data)
    ):
        data.append(f'context="{label}"')
    target, existed = _target(context, entry, directory=True)
    late = 0
    try:
        if entry["type"] == "tmpfs":
            late = _LATE
            if existed:
                data.insert(0, f"mode={posix.fstat(target).st_mode & 0o7777:04o}")
        elif entry["destination"].rstrip("/") == "/dev":
            late = _LATE
        tree = (
            _copied_up(context, entry, target, data)
            if entry["copyup"]
            else _fresh(context, entry, target, data, late)
        )
        if entry["type"] == "mqueue" and label and tree is not None:
            posix.setxattr(b"/proc/self/fd/%d" % tree, b"security.selinux", label.encode())
        _settle(context.kernel, entry, tree)
    finally:
        posix.close(target)


def _copied_up(context: Context, entry: dict[str, Any], target: int, data: list[str]) -> int:
    from argosy.runtime.copyup import copy_directory

    tree = new(context.kernel, "tmpfs", entry["source"], entry, data, entry["set"] & ~_LATE)
    copy_directory(target, tree)
    attach(context.kernel, tree, target)
    return tree


def _bind(context: Context, index: int, entry: dict[str, Any], _: str) -> None:
    kernel = context.kernel
    tree = _source(context, index, entry)
    try:
        target, _existed = _target(context, entry, directory=kind(tree) == S_IFDIR)
        try:
            late = _LATE if entry["destination"].rstrip("/") == "/dev" else 0
            set_attributes(kernel, entry, tree, late)
            _recursive(kernel, entry, tree)
            attach(kernel, tree, target)
            _propagate(kernel, entry, tree, entry["destination"])
        finally:
            posix.close(target)
    finally:
        posix.close(tree)


def _remount(context: Context, _: int, entry: dict[str, Any], __: str) -> None:
    """Other attributes for what is mounted there already; a second mount on it could be taken away again."""
    target = context.root.open(entry["destination"])
    try:
        check_target(context, context.proc.path(target), entry)
        set_attributes(context.kernel, entry, target)
        _recursive(context.kernel, entry, target)
        _propagate(context.kernel, entry, target, entry["destination"])
    finally:
        posix.close(target)


def _source(context: Context, index: int, entry: dict[str, Any]) -> int:
    """A detached clone of what is to be bound: our own, or the host's side's where we may not see it."""
    if not entry["idmap"]:
        try:
            return clone(
                context.kernel,
                k.AT_FDCWD,
                entry["source"].encode(),
                recursive=entry["bind"] == "rbind",
            )
        except k.KernelError as error:
            if (
                index < 0
                or context.rootless
                or not context.user_namespace
                or error.errno not in (EACCES, EPERM)
            ):
                raise
    return context.line().ask_fd(SOURCE, b"%d" % index)


def set_attributes(kernel: LinuxKernel, entry: dict[str, Any], tree: int, late: int = 0) -> None:
    """A bind's own attributes: what was not asked for is cleared, unless the mount's owner has locked it.

    Raises:
        Failure: an attribute is locked that the configuration asks away.
    """
    if not entry["attributes"]:
        return
    wanted, away = entry["set"] & ~late, entry["clear"]
    try:
        kernel.mount_setattr(tree, wanted, away | (_CLEARABLE & ~entry["set"]))
        return
    except k.KernelError as error:
        if error.errno != EPERM:
            raise
        locked = _locked(tree) & away
        if locked:
            names = ",".join(name for name, pair in tables.ATTRIBUTES.items() if pair[0] & locked)
            why = (error.strerror or "").lower()
            raise Failure(f"cannot clear locked flags {names}: {error.syscall}: {why}") from error
    unlocked = k.MOUNT_ATTR_NOSYMFOLLOW & ~entry["set"]  # the one flag that is never locked
    kernel.mount_setattr(tree, wanted, away | unlocked)


def _locked(tree: int) -> int:
    flags = posix.fstatvfs(tree).f_flag
    found = 0
    for bit, attribute in _STATFS.items():
        found |= attribute if flags & bit else 0
    return found


def _recursive(kernel: LinuxKernel, entry: dict[str, Any], tree: int | None) -> None:
    if (entry["rset"] or entry["rclear"]) and tree is not None:
        kernel.mount_setattr(tree, entry["rset"], entry["rclear"], recursive=True)


def _cgroup(context: Context, index: int, entry: dict[str, Any], label: str) -> None:
    from argosy.runtime.cgroupmount import mount_cgroup

    mount_cgroup(context, index, entry, label)


_KINDS = {
    "bind": _bind,
    "remount": _remount,
    "proc": _own_filesystem,
    "sysfs": _own_filesystem,
    "cgroup": _cgroup,
}

__all__ = ["attach", "check_target", "clone", "mount", "new", "options", "set_attributes"]
