"""What is kept of a container between commands: one directory below the state root.

``state.json`` is what every verb needs and small; ``config.json`` the configuration as it was at creation;
``exec.fifo`` exists from creation to start. A directory without ``state.json`` is what a killed ``create`` left, and
``delete --force`` removes it.
"""

from __future__ import annotations

import posix

from argosy.runtime.errors import ConfigError, ExistsError, Failure, UnknownError
from argosy.runtime.jsonio import decode, encode, load, read_file, write_file
from argosy.runtime.judge import ANY, HOOKS, MAP, NEEDED, STRINGS, U64, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC_VERSION = "1.3.0"
_ID = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-")
_ID_LIMIT = 1024
_PIDS = (-1, 1 << 22)  # -1 for one that is not yet
# fmt: off
_CGROUP: dict[Any, Any] = {
    "driver": str, "paths": MAP, "rootless": bool, "asked": bool, "unit": str, "user": bool, NEEDED: ("driver",),
}
_SHAPE: dict[Any, Any] = {
    "id": str, "pid": _PIDS, "start_time": U64, "creator": _PIDS, "bundle": str, "rootfs": str, "created": str,
    "owner": str, "annotations": MAP, "cgroup": {**_CGROUP, "inner": _CGROUP}, "shared_pid": bool,
    "hooks": {ANY: HOOKS}, "shared_mounts": STRINGS, "rootless": bool, "systemd": bool, "ready": bool,
    "rdt": {"directory": str, "monitor": str, "made": STRINGS, NEEDED: ("directory",)},
    NEEDED: (
        "id", "pid", "start_time", "bundle", "rootfs", "created", "cgroup", "shared_pid", "hooks", "rootless",
    ),
}
# fmt: on
"""What `write` is given: who lists containers shall not stumble over one that was damaged."""


def check_id(cid: str) -> None:
    """Refuse what is no container ID.

    Raises:
        Failure: empty, or signs outside of ``[A-Za-z0-9_+.-]``, or one of "." and "..".
    """
    if not cid:
        raise Failure("container id cannot be empty")
    if cid in (".", "..") or not _ID.issuperset(cid) or len(cid) > _ID_LIMIT:
        raise Failure("invalid container ID format: expected letters, digits and any of _+.-")


def make_directory(root: str, cid: str) -> str:
    """Make a container's state directory.

    Raises:
        ExistsError: there is one.
    """
    check_id(cid)
    _make_root(root)
    path = f"{root}/{cid}"
    try:
        posix.mkdir(path, 0o711)
    except FileExistsError:
        raise ExistsError from None
    return path


def _make_root(root: str) -> None:
    place = ""
    for part in root.split("/"):
        place = f"{place}/{part}" if part else place
        if part:
            try:
                posix.mkdir(place, 0o700)
            except FileExistsError:
                pass


def find_directory(root: str, cid: str) -> str:
    """The state directory of a container.

    Raises:
        UnknownError: there is none.
    """
    check_id(cid)
    path = f"{root}/{cid}"
    try:
        posix.stat(path)
    except FileNotFoundError:
        raise UnknownError from None
    return path


def read(directory: str) -> dict[str, Any]:
    """state.json.

    Raises:
        UnknownError: it is not there (yet).
        Failure: it is not what `write` wrote. Nothing else tells what runs, so only a person can say that it may go.
    """
    path = f"{directory}/state.json"
    try:
        state: dict[str, Any] = load(path)
        _judge(state, directory.rpartition("/")[2])
    except FileNotFoundError:
        raise UnknownError from None
    except Failure as error:
        why = error.detail if isinstance(error, ConfigError) else str(error)
        raise Failure(
            f"{path} is damaged: {why.removeprefix(f'{path}: ')}; if nothing of the container runs any more, remove "
            "that file, and delete --force removes the rest"
        ) from None
    return state


def _judge(state: dict[str, Any], cid: str) -> None:
    check(state, _SHAPE, "")
    if state["id"] != cid:
        raise ConfigError("id", f"expected {cid}, got {state['id']!r:.80}")
    for name in ("bundle", "rootfs"):
        if not state[name].startswith("/"):
            raise ConfigError(name, f"must be absolute, got {state[name]!r:.80}")


def write(directory: str, state: dict[str, Any]) -> None:
    """Replace state.json as a whole."""
    write_file(f"{directory}/state.json", encode(state).encode())


def claim(directory: str) -> bool:
    """Take the container's state.json away: of several who delete a container, one does what is done once.

    Returns:
        Whether it was there. What is left of the directory is then the caller's to `remove`.
    """
    try:
        posix.unlink(f"{directory}/state.json")
    except FileNotFoundError:
        return False
    return True


def remove(directory: str) -> None:
    """Remove the directory and what is in it (one level of directories below), whoever else removes it too."""
    try:
        for name in posix.listdir(directory):
            _remove_entry(f"{directory}/{name}")
        posix.rmdir(directory)
    except FileNotFoundError:
        pass


def _remove_entry(path: str) -> None:
    try:
        posix.unlink(path)
    except IsADirectoryError:
        remove(path)
    except FileNotFoundError:
        pass


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot: tells a reused process ID from the old one.

    Returns:
        None where there is no such process, or only its zombie.
    """
    if pid <= 0:
        return None
    try:
        text = read_file(f"/proc/{pid}/stat", 1 << 16)
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])


def public(state: dict[str, Any], status: str) -> dict[str, Any]:
    """The state as the specification has it, with what runc adds."""
    shown = {
        "ociVersion": SPEC_VERSION,
        "id": state["id"],
        "pid": state["pid"] if status != "stopped" else 0,
        "status": status,
        "bundle": state["bundle"],
        "rootfs": state["rootfs"],
        "created": state["created"],
    }
    if state.get("annotations"):
        shown["annotations"] = state["annotations"]
    return {**shown, "owner": state.get("owner", "")}


def hook_state(state: dict[str, Any], status: str, pid: int | None = None) -> dict[str, Any]:
    """The state as hooks get it."""
    shown: dict[str, Any] = {"ociVersion": SPEC_VERSION, "id": state["id"], "status": status}
    if pid or (pid is None and state["pid"] > 0):
        shown["pid"] = pid or state["pid"]
    shown["bundle"] = state["bundle"]
    if state.get("annotations"):
        shown["annotations"] = state["annotations"]
    return shown


def owner_name(uid: int) -> str:
    """The name of a user on the host, "" for one without."""
    from pwd import getpwuid

    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return ""


__all__ = [
    "SPEC_VERSION", "check_id", "claim", "decode", "find_directory", "hook_state", "make_directory", "owner_name",
    "public", "read", "remove", "start_time", "write",
]  # fmt: skip
