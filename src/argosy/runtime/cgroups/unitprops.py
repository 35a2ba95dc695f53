"""`linux.resources` as properties of a systemd unit, so that systemd keeps what the runtime set.

What systemd has no property for is written to the control files alone, after the properties. A property is a pair of
name and variant, a variant a pair of signature and value.
"""

from __future__ import annotations

import posix

from argosy.runtime.cgroups import devices, files
from argosy.runtime.cgroups.limits2 import check_name, cpu_weight, swap_only
from argosy.runtime.cgroups.stats1 import ranges
from argosy.runtime.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Property = tuple[str, tuple[str, Any]]

INFINITY = (1 << 64) - 1
DEFAULT_PERIOD = 100000
"""The kernel's own CPU period, in microseconds."""

SINCE = {
    "CPUQuotaPeriodUSec": 242,
    "AllowedCPUs": 244,
    "AllowedMemoryNodes": 244,
    "OOMPolicy": 253,
}
"""The version of systemd that brought a property; idle CPUWeight and device groups have their own below."""

IDLE_SINCE = 252
DEVICE_GROUPS_SINCE = 240

UNIFIED_AMOUNTS = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
}


def properties(resources: dict[str, Any], *, unified: bool, version: int) -> list[Property]:
    """Return the properties that `resources` come to.

    Args:
        resources: `linux.resources`.
        unified: Whether the machine has cgroup version 2 alone.
        version: systemd's version.

    Raises:
        ConfigError: A value is invalid.
    """
    found: list[Property] = []
    if resources.get("devices") is not None:
        found += device_properties(resources["devices"], version)
    found += _memory(resources.get("memory") or {}, unified)
    found += _cpu(resources.get("cpu") or {}, unified, version)
    weight = (resources.get("blockIO") or {}).get("weight")
    if weight and not unified:
        found.append(("BlockIOWeight", ("t", weight)))
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        found.append(("TasksMax", ("t", tasks(limit))))
    found += _cpuset(resources.get("cpu") or {})
    if unified:
        found += _unified(resources.get("unified") or {}, version)
    return [each for each in found if version >= SINCE.get(each[0], 0)]


def tasks(limit: int) -> int:
    """Return TasksMax for a limit of processes; systemd knows no zero, which the control file gets later."""
    return INFINITY if limit < 0 else max(1, limit)


def _amount(value: int) -> int:
    return INFINITY if value < 0 else value


def _memory(memory: dict[str, Any], unified: bool) -> list[Property]:
    limit = memory.get("limit") or 0
    if not unified:
        return [("MemoryLimit", ("t", _amount(limit)))] if limit else []
    found: list[Property] = []
    if limit:
        found.append(("MemoryMax", ("t", _amount(limit))))
    if memory.get("reservation"):
        found.append(("MemoryLow", ("t", _amount(memory["reservation"]))))
    swap = swap_only(limit, memory.get("swap") or 0)
    if swap is not None:
        found.append(("MemorySwapMax", ("t", INFINITY if swap == "max" else int(swap))))
    return found


def _cpu(cpu: dict[str, Any], unified: bool, version: int) -> list[Property]:
    found: list[Property] = []
    shares = cpu.get("shares")
    if unified and cpu.get("idle") == 1 and version >= IDLE_SINCE:
        found.append(("CPUWeight", ("t", 0)))
    elif unified and shares:
        found.append(("CPUWeight", ("t", cpu_weight(shares))))
    elif shares:
        found.append(("CPUShares", ("t", shares)))
    return found + bandwidth(cpu.get("quota") or 0, cpu.get("period") or 0)


def bandwidth(quota: int, period: int) -> list[Property]:
    """Return the properties for a CPU quota and its period, in microseconds; zero is not set.

    systemd counts in whole percents of a CPU, so the quota is rounded up to the next.
    """
    found: list[Property] = []
    if period:
        found.append(("CPUQuotaPeriodUSec", ("t", period)))
    if quota or period:
        per_second = INFINITY
        if quota > 0:
            per_second = quota * 1000000 // (period or DEFAULT_PERIOD)
            per_second = -(-per_second // 10000) * 10000
        found.append(("CPUQuotaPerSecUSec", ("t", per_second)))
    return found


def rounded(cpu: dict[str, Any]) -> dict[str, Any]:
    """Return `cpu` with its quota as systemd rounds it, so that control file and unit agree."""
    quota, period = cpu.get("quota") or 0, cpu.get("period") or DEFAULT_PERIOD
    if quota <= 0:
        return cpu
    per_second = -(-(quota * 1000000 // period) // 10000) * 10000
    return {**cpu, "quota": per_second * period // 1000000}


def _cpuset(cpu: dict[str, Any]) -> list[Property]:
    pairs = (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes"))
    return [
        (name, ("ay", bits(cpu[key], f"linux.resources.cpu.{key}")))
        for key, name in pairs
        if cpu.get(key)
    ]


def bits(text: str, where: str) -> bytes:
    """Return a list such as `0-2,7` as a bit mask, the lowest byte first.

    Raises:
        ConfigError: It is no such list, or empty.

    >>> bits("0-2,8", "cpus")
    b'\\x07\\x01'
    """
    try:
        numbers = ranges(text.replace(" ", ""))
    except ValueError:
        numbers = []
    if not numbers or max(numbers) >= 1 << 16 or min(numbers) < 0:
        raise ConfigError(where, f"expected a list such as 0-3,7, got {text!r}")
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask.to_bytes((mask.bit_length() + 7) // 8, "little")


def _unified(values: dict[str, str], version: int) -> list[Property]:
    found: list[Property] = []
    for name, text in values.items():
        check_name(name)
        try:
            found += _unified_one(name, text.strip(), values, version)
        except (ValueError, IndexError):
            raise ConfigError(
                f"linux.resources.unified.{name}", f"value conversion error: {text!r}"
            ) from None
    return found


def _unified_one(name: str, text: str, values: dict[str, str], version: int) -> list[Property]:
    idle = values.get("cpu.idle", "").strip() == "1" and version >= IDLE_SINCE
    if name in UNIFIED_AMOUNTS:
        amount = INFINITY if text == "max" else int(text)
        return [(UNIFIED_AMOUNTS[name], ("t", max(1, amount) if name == "pids.max" else amount))]
    if name == "cpu.max":
        quota, period = [*text.split(), str(DEFAULT_PERIOD)][:2]
        return bandwidth(0 if quota == "max" else int(quota), int(period))
    if name == "cpu.idle":
        return [("CPUWeight", ("t", 0))] if idle else []
    if name == "cpu.weight":
        return [] if idle else [("CPUWeight", ("t", int(text)))]
    if name in ("cpuset.cpus", "cpuset.mems"):
        key = "AllowedCPUs" if name == "cpuset.cpus" else "AllowedMemoryNodes"
        return [(key, ("ay", bits(text, f"linux.resources.unified.{name}")))]
    return []


def oom_policy(resources: dict[str, Any], version: int) -> list[Property]:
    """Return what `memory.oom.group` means to systemd; it can be said only when the unit starts."""
    group = str((resources.get("unified") or {}).get("memory.oom.group", "")).strip()
    policy = {"0": "continue", "1": "kill"}.get(group)
    return [("OOMPolicy", ("s", policy))] if policy and version >= SINCE["OOMPolicy"] else []


def device_properties(rules: list[dict[str, Any]], version: int) -> list[Property]:
    """Return the device rules as systemd can say them; our own program or the control files say the rest.

    systemd knows lists of allowed devices only. "All but some" becomes "all" here, and is narrowed by ours.
    """
    wanted = devices.policy(rules)
    nothing: Property = ("DeviceAllow", ("a(ss)", []))
    if wanted.allow:
        return [nothing, ("DevicePolicy", ("s", "auto"))]
    entries = []
    for device, access in wanted.exceptions.items():
        path = device_path(device, version)
        if path:
            entries.append((path, devices.letters(access)))
    return [nothing, ("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", entries))]


def device_path(device: tuple[str, int, int], version: int) -> str | None:
    """Return how systemd names a device or a group of them; None for what it cannot."""
    kind, major, minor = device
    group = "block-" if kind == "b" else "char-"
    if major == devices.ANY:
        return group + "*" if minor == devices.ANY else None
    if minor == devices.ANY:
        if version >= DEVICE_GROUPS_SINCE:
            return f"{group}{major}"
        name = _driver(kind, major)
        return group + name if name else None
    path = f"/dev/{'block' if kind == 'b' else 'char'}/{major}:{minor}"
    if version < DEVICE_GROUPS_SINCE and not posix.access(path, posix.F_OK):
        return None  # an old systemd complains about a device that is not there
    return path


def _driver(kind: str, major: int) -> str | None:
    """Return the name of a major number in `/proc/devices`."""
    section = ""
    for line in files.read("/proc/devices").splitlines():
        if line.endswith(":"):
            section = line[:1].lower()
        elif section == kind and line.split()[:1] == [str(major)]:
            return line.split()[1]
    return None
