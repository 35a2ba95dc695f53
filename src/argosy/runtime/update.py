"""``update``: other limits for a running container; what is not named stays as it is."""

from __future__ import annotations

from argosy.runtime import log
from argosy.runtime.errors import Failure, StatusError
from argosy.runtime.jsonio import decode, encode, read_file, write_file
from argosy.runtime.judge import check, prune
from argosy.runtime.shape import RESOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.cli import Command
    from argosy.runtime.container import Container

_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"), "cpu-burst": ("cpu", "burst"), "cpu-period": ("cpu", "period"),
    "cpu-rt-period": ("cpu", "realtimePeriod"), "cpu-share": ("cpu", "shares"), "cpu-quota": ("cpu", "quota"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"), "cpu-idle": ("cpu", "idle"), "pids-limit": ("pids", "limit"),
}  # fmt: skip
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}
_SIZES = {
    "memory": ("memory", "limit"), "memory-swap": ("memory", "swap"), "memory-reservation": ("memory", "reservation"),
    "kernel-memory": ("memory", "kernel"), "kernel-memory-tcp": ("memory", "kernelTCP"),
}  # fmt: skip
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def size(text: str) -> int:
    """Bytes of a size like ``64M``, ``1g``, ``2GiB``, or -1.

    Raises:
        ValueError: it is none.

    Example:
        >>> size("64M"), size("-1")
        (67108864, -1)
    """
    if text == "-1":
        return -1
    unit = text.lstrip("0123456789.")
    power = _POWERS.get(unit.lower().removesuffix("b").removesuffix("i"))
    if power is None:
        raise ValueError(text)
    return int(float(text[: len(text) - len(unit)]) * 1024**power)


def update_verb(command: Command) -> int:
    """``update``."""
    container = command.container()
    if container.status() == "stopped":
        raise StatusError("container not running")
    changes = _changes(command.options)
    check(changes, RESOURCES, "resources")
    if changes.get("memory", {}).get("kernel") or changes.get("memory", {}).get("kernelTCP"):
        log.warning("Kernel memory settings are ignored and will be removed")
    apply(container, changes)
    _update_rdt(container, command.options)
    return 0


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    path = options.get("resources")
    if path:
        found = prune(decode(read_file(0 if path == "-" else path), path))
        if not isinstance(found, dict):
            raise Failure(f"{path}: expected an object")
        return found
    changes: dict[str, dict[str, Any]] = {}
    for table, convert in ((_NUMBERS, int), (_TEXTS, str), (_SIZES, size)):
        for option, (section, name) in table.items():
            text = options.get(option)
            if text:
                try:
                    changes.setdefault(section, {})[name] = convert(text)
                except ValueError:
                    raise Failure(f"invalid value for {option}: {text}") from None
    return changes


def merged(old: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The resources after an update: sections merge by property, device lists by device.

    Example:
        >>> merged({"cpu": {"shares": 1}}, {"cpu": {"quota": 5}})["cpu"]
        {'shares': 1, 'quota': 5}
    """
    result = {**old}
    for section, values in changes.items():
        before = old.get(section)
        if isinstance(values, dict) and isinstance(before, dict):
            result[section] = {
                name: _joined(before.get(name), value) for name, value in values.items()
            }
            result[section] = {**before, **result[section]}
        else:
            result[section] = values
    cpu, memory = changes.get("cpu", {}), changes.get("memory", {})
    if "idle" in cpu and "shares" not in cpu:
        result.get("cpu", {}).pop("shares", None)
    if memory.get("limit") == -1 and "swap" not in memory:
        result["memory"].pop("swap", None)
    return result


def _joined(old: Any, new: Any) -> Any:
    """A list of devices keeps the entries of the old one that the new one does not name."""
    if not (isinstance(old, list) and isinstance(new, list)):
        return new
    named = {(entry.get("major"), entry.get("minor")) for entry in new}
    return [entry for entry in old if (entry.get("major"), entry.get("minor")) not in named] + new


def apply(container: Container, changes: dict[str, Any]) -> None:
    """Set the limits and remember them; the old ones come back where the kernel refuses.

    Device rules are left alone unless they are named: an update without them must not drop any.
    """
    config = container.config()
    old = config.get("linux", {}).get("resources", {})
    new = merged(old, changes)
    cgroup = container.cgroup()
    try:
        cgroup.apply(
            {name: value for name, value in new.items() if name != "devices" or name in changes}
        )
    except (OSError, Failure):
        try:
            cgroup.apply({name: value for name, value in old.items() if name != "devices"})
        except (OSError, Failure) as error:
            log.warning(f"unable to restore the old limits: {error}")
        raise
    config.setdefault("linux", {})["resources"] = new
    write_file(f"{container.directory}/config.json", encode(config).encode())


def _update_rdt(container: Container, options: dict[str, Any]) -> None:
    cache, bandwidth = options.get("l3-cache-schema", ""), options.get("mem-bw-schema", "")
    if not cache and not bandwidth:
        return
    if not container.state.get("rdt"):
        raise Failure("Intel RDT: the container was created without intelRdt")
    from argosy.runtime import intelrdt

    intelrdt.load(container.state["rdt"]).update(cache, bandwidth)
