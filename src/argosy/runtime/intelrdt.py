"""Intel RDT: shares of cache and memory bandwidth, as directories of the resctrl file system (config-linux, "IntelRdt).

A directory this runtime made for the container alone is removed with it; one that the configuration names is not.
"""

from __future__ import annotations

import errno
import posix

from argosy.runtime.errors import ConfigError, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WHERE = "linux.intelRdt"
LIMIT = 1 << 16

DEFAULT = "/"
"""The closID of the root directory."""


class Rdt:
    """A container's directory in resctrl.

    Attributes:
        directory: The control group's directory.
        monitor: The directory of its monitoring group, or None.
        made: What this runtime made and has to remove, in the order of its making.
    """

    __slots__ = ("directory", "made", "monitor")

    def __init__(self, directory: str, monitor: str | None, made: list[str]) -> None:
        self.directory = directory
        self.monitor = monitor
        self.made = made

    def enter(self, pid: int) -> None:
        """Put a process into the groups.

        Raises:
            Failure: The kernel refused.
        """
        for directory in (self.directory, self.monitor):
            if directory:
                _write(directory + "/tasks", str(pid))

    def update(self, l3_cache_schema: str = "", mem_bw_schema: str = "") -> None:
        """Set new shares, as `update` asks.

        Raises:
            ConfigError: A schema is none.
            Failure: The kernel refused.
        """
        settings = {"l3CacheSchema": l3_cache_schema, "memBwSchema": mem_bw_schema}
        _write_schemata(self.directory, schemata(settings))

    def destroy(self) -> None:
        """Remove what `create` made; what is gone is no error.

        Raises:
            Failure: The kernel refused.
        """
        for directory in reversed(self.made):
            try:
                posix.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _failure("rmdir", directory, error) from None

    def state(self) -> dict[str, Any]:
        """Return what `load` needs, ready for JSON."""
        return {"directory": self.directory, "monitor": self.monitor, "made": self.made}


def load(state: dict[str, Any]) -> Rdt:
    """Return the group that `Rdt.state` described."""
    return Rdt(state["directory"], state.get("monitor"), list(state.get("made") or []))


def create(settings: dict[str, Any], cid: str, root: str | None = None) -> Rdt:
    """Make the container's groups, or find those that the configuration names, and set the shares.

    Args:
        settings: `linux.intelRdt`.
        cid: The container's id.
        root: Where resctrl is mounted; None to look for it.

    Raises:
        ConfigError: A setting is invalid, or contradicts a directory that is there.
        Failure: There is no resctrl here, or the kernel refused. Nothing is left then.
    """
    lines = schemata(settings)
    name = _clos_id(settings)
    root = root or find()
    if root is None:
        raise Failure(
            f"{WHERE}: no resctrl file system is mounted here, or this machine has no Intel RDT"
        )
    directory = root if name == DEFAULT else f"{root}/{name or cid}"
    group = Rdt(directory, None, [])
    try:
        _prepare(group, name, lines)
        if settings.get("enableMonitoring"):
            group.monitor = f"{directory}/mon_groups/{cid}"
            if _mkdir(group.monitor):
                group.made.append(group.monitor)
    except BaseException:
        group.destroy()
        raise
    if name and directory in group.made:
        group.made.remove(directory)  # named by the configuration: it outlives the container
    return group


def _prepare(group: Rdt, name: str, lines: list[str]) -> None:
    """Make the control group or check the one that is there."""
    there = _exists(group.directory)
    if name and not lines and not there:
        raise ConfigError(
            f"{WHERE}.closID",
            f"there is no directory {group.directory}, and no schema to make one from",
        )
    if not there and _mkdir(group.directory):
        group.made.append(group.directory)
    if there and name:
        _compare(group.directory, lines)
    elif lines:
        _write_schemata(group.directory, lines)


def _clos_id(settings: dict[str, Any]) -> str:
    name = settings.get("closID") or ""
    if name != DEFAULT and ("/" in name or name in (".", "..") or "\n" in name or "\0" in name):
        raise ConfigError(f"{WHERE}.closID", f"expected a name without a slash, or /, got {name!r}")
    return str(name)


def schemata(settings: dict[str, Any]) -> list[str]:
    """Return the lines to write to `schemata`, in the order the specification gives.

    Raises:
        ConfigError: One holds a newline, or does not begin as it must.
    """
    cache = settings.get("l3CacheSchema") or ""
    bandwidth = settings.get("memBwSchema") or ""
    lines = [*cache.split("\n"), bandwidth, *(settings.get("schemata") or ())]
    if bandwidth and not bandwidth.startswith("MB:"):
        raise ConfigError(
            f"{WHERE}.memBwSchema", f"expected MB: at the beginning, got {bandwidth!r}"
        )
    if any(line.startswith("MB:") for line in cache.split("\n")):
        raise ConfigError(
            f"{WHERE}.l3CacheSchema",
            "has a line for memory bandwidth (MB:), which memBwSchema is for",
        )
    for line in lines[1:]:
        if "\n" in line:
            raise ConfigError(f"{WHERE}.schemata", f"{line!r} holds a newline")
    return [line for line in lines if line]


def find(mountinfo: str | None = None) -> str | None:
    """Return where resctrl is mounted, or None."""
    if mountinfo is None:
        mountinfo = _read("/proc/self/mountinfo")
    for line in mountinfo.splitlines():
        place, _, kind = line.partition(" - ")
        if kind.startswith("resctrl "):
            return place.split(" ")[4]
    return None


def _compare(directory: str, lines: list[str]) -> None:
    there = {_canonical(line) for line in _read(directory + "/schemata").splitlines()}
    for line in lines:
        if _canonical(line) not in there:
            raise ConfigError(
                f"{WHERE}.closID", f"{directory} is there, and its schemata do not have {line!r}"
            )


def _canonical(line: str) -> tuple[str, frozenset[str]]:
    """Return a schema so that two with the same meaning are equal.

    >>> _canonical("  L3:0=00f;1=F") == _canonical("L3:1=f;0=f")
    True
    """
    resource, _, shares = line.strip().partition(":")
    fields = []
    for share in shares.split(";"):
        domain, _, value = share.strip().partition("=")
        fields.append(f"{domain}={value.lower().lstrip('0') or '0'}")
    return resource, frozenset(fields)


def _write_schemata(directory: str, lines: list[str]) -> None:
    for line in lines:
        _write(directory + "/schemata", line + "\n")


def _failure(doing: str, path: str, error: OSError) -> Failure:
    return Failure(f"{WHERE}: {doing} {path}: {posix.strerror(error.errno or 0).lower()}")


def _exists(path: str) -> bool:
    return posix.access(path, posix.F_OK)


def _mkdir(path: str) -> bool:
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise Failure(f"{WHERE}: mkdir {path}: the hardware has no more groups") from None
        raise _failure("mkdir", path, error) from None
    return True


def _write(path: str, text: str) -> None:
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, text.encode())
        finally:
            posix.close(fd)
    except OSError as error:
        raise _failure(f"write {text.strip()!r} to", path, error) from None


def _read(path: str) -> str:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            parts = []
            while part := posix.read(fd, LIMIT):
                parts.append(part)
            return b"".join(parts).decode("utf-8", "replace")
        finally:
            posix.close(fd)
    except OSError as error:
        raise _failure("read", path, error) from None
