"""`linux.resources` on cgroup version 2: values made for version 1 are converted, `unified` is written verbatim.

Zero means "not set" except where the specification gives it a meaning of its own, because clients fill in zeros. What
version 2 cannot do is an error, unless the specification calls the property obsolete (`memory.kernel`).
"""

from __future__ import annotations

import errno

from argosy.runtime.cgroups import devicebpf, devices, files
from argosy.runtime.cgroups.files import ControlError
from argosy.runtime.cgroups.limits1 import page_size, rdma, unknown_page_size
from argosy.runtime.errors import ConfigError, Failure, describe
from argosy.runtime.kernel import KernelError, LinuxKernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Section = dict[str, Any]

IMPOSSIBLE = (
    ("memory", "disableOOMKiller", "the OOM killer cannot be disabled on cgroup v2"),
    ("cpu", "realtimeRuntime", "there is no realtime scheduling of groups on cgroup v2"),
    ("cpu", "realtimePeriod", "there is no realtime scheduling of groups on cgroup v2"),
    ("blockIO", "leafWeight", "there is no leaf weight on cgroup v2"),
    ("network", "classID", "there is no net_cls controller on cgroup v2"),
    ("network", "priorities", "there is no net_prio controller on cgroup v2"),
)

THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def apply(path: str | None, resources: dict[str, Any], *, rootless: bool = False) -> None:
    """Set the limits.

    Args:
        path: The cgroup's directory; None when the caller could not make one.
        resources: `linux.resources`.
        rootless: Whether device rules the caller may not set are no error; other limits always are.

    Raises:
        ConfigError: A value is invalid, or version 2 cannot do it.
        Failure: The kernel refused a value, or has no controller for it.
    """
    check_possible(resources)
    for section, action in _ACTIONS:
        values = resources.get(section)
        if values is None:
            continue
        if path is not None:
            _run(action, path, values, section)
        elif asks(values):
            raise Failure(f"cannot set {section} limit: container could not join or create cgroup")
    if resources.get("devices") is not None and path is not None:
        _devices(path, resources["devices"], rootless)
    if resources.get("unified"):
        if path is None:
            raise Failure("cannot set unified limit: container could not join or create cgroup")
        unified(path, resources["unified"])


def check_possible(resources: dict[str, Any]) -> None:
    """Refuse what version 2 has no word for.

    Raises:
        ConfigError: Something is asked that version 2 cannot do.
    """
    for section, name, why in IMPOSSIBLE:
        if (resources.get(section) or {}).get(name):
            raise ConfigError(f"linux.resources.{section}.{name}", why)
    swappiness = (resources.get("memory") or {}).get("swappiness")
    if swappiness not in (None, -1, (1 << 64) - 1):
        raise ConfigError(
            "linux.resources.memory.swappiness", "there is no swappiness of a cgroup on cgroup v2"
        )


def asks(values: object) -> bool:
    """Tell whether a section of resources asks for anything at all."""
    if isinstance(values, dict):
        return any(asks(value) for value in values.values())
    return bool(values)


def _run(action: Callable[[str, Any], None], path: str, values: Any, section: str) -> None:
    try:
        action(path, values)
    except ControlError as failure:
        if failure.errno == errno.ENOENT:
            name = _CONTROLLERS[section]
            enabled = files.read_or(path + "/cgroup.controllers", "").split()
            if name not in enabled:
                failure.add_note(f"the {name} controller is not available for this cgroup")
        raise


def memory(path: str, values: Section) -> None:
    """Set `linux.resources.memory`: swap first, since it can only be too low, then the limit, then the reservation."""
    limit = values.get("limit") or 0
    if values.get("checkBeforeUpdate") and limit > 0:
        _check_usage(path, limit)
    swap = swap_only(limit, values.get("swap") or 0)
    if swap is not None:
        _swap(path, swap)
    if limit:
        files.write(path + "/memory.max", _number(limit))
    if values.get("reservation"):
        files.write(path + "/memory.low", _number(values["reservation"]))


def _check_usage(path: str, limit: int) -> None:
    usage = int(files.read_or(path + "/memory.current", "0"))
    if usage > limit:
        raise Failure(
            f"unable to set memory limit to {limit}: rejected, because the current usage is {usage} "
            "(linux.resources.memory.checkBeforeUpdate)"
        )


def _swap(path: str, swap: str) -> None:
    try:
        files.write(path + "/memory.swap.max", swap)
    except ControlError as failure:
        # A kernel without swap accounting has no file; no swap and endless swap are then as good as set.
        if failure.errno != errno.ENOENT or swap not in ("0", "max"):
            raise


def _number(value: int) -> str:
    return "max" if value < 0 else str(value)


def swap_only(limit: int, swap: int) -> str | None:
    """Return the swap alone from memory and memory+swap; None when it is not set.

    Raises:
        ConfigError: The two contradict each other.

    >>> swap_only(100, 300), swap_only(100, 100), swap_only(100, -1), swap_only(-1, 0), swap_only(5, 0)
    ('200', '0', 'max', 'max', None)
    """
    where = "linux.resources.memory.swap"
    if swap == 0:
        return "max" if limit == -1 else None
    if swap < 0:
        return "max"
    if limit == -1:
        return str(swap)
    if limit == 0:
        raise ConfigError(where, "unable to set swap limit without memory limit")
    if limit < 0:
        raise ConfigError("linux.resources.memory.limit", f"invalid memory value: {limit}")
    if swap < limit:
        raise ConfigError(where, "memory+swap limit should be >= memory limit")
    return str(swap - limit)


def cpu_weight(shares: int) -> int:
    """Return the weight of version 2 for the shares of version 1, least, default and most on each other.

    The curve is `10 ** ((l*l + 125*l) / 612 - 7/34)` with `l = log2(shares)`.

    >>> cpu_weight(2), cpu_weight(1024), cpu_weight(262144)
    (1, 100, 10000)
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    log = _log2(shares)
    exact = 10 ** ((log * log + 125 * log) / 612.0 - 7.0 / 34.0)
    return int(exact) + (exact > int(exact))


def _log2(value: int) -> float:
    """Return the logarithm without `math`, which is a shared object on some builds."""
    whole = value.bit_length() - 1
    rest = value / (1 << whole)
    result = float(whole)
    step = 0.5
    while step > 1e-16 and rest != 1.0:
        rest *= rest
        if rest >= 2.0:
            rest /= 2.0
            result += step
        step /= 2
    return result


def cpu(path: str, values: Section) -> None:
    """Set `linux.resources.cpu` but for the cpuset."""
    if values.get("idle") is not None:
        files.write(path + "/cpu.idle", str(values["idle"]))
    if values.get("shares") and values.get("idle") != 1:  # an idle group has no weight to set
        files.write(path + "/cpu.weight", str(cpu_weight(values["shares"])))
    burst = _burst(path, values)
    if values.get("quota") or values.get("period"):
        files.write(path + "/cpu.max", _bandwidth(path, values))
    if burst is not None:
        files.write(path + "/cpu.max.burst", burst)
    for name in ("cpus", "mems"):
        if values.get(name):
            files.write(f"{path}/cpuset.{name}", values[name])


def _bandwidth(path: str, values: Section) -> str:
    """Return the line of `cpu.max`; what is not given stays as it is."""
    quota = values.get("quota") or 0
    now = files.read(path + "/cpu.max").split()
    amount = now[0] if not quota else _number(quota)
    return f"{amount} {values.get('period') or now[1]}"


def _burst(path: str, values: Section) -> str | None:
    """Set the burst; return it when it must wait for the new quota."""
    if values.get("burst") is None:
        return None
    try:
        files.write(path + "/cpu.max.burst", str(values["burst"]))
    except ControlError as failure:
        if failure.errno != errno.EINVAL or not values.get("quota"):
            raise
        return str(values["burst"])
    return None


def pids(path: str, values: Section) -> None:
    """Set `linux.resources.pids`; zero is a limit."""
    if values.get("limit") is not None:
        files.write(path + "/pids.max", _number(values["limit"]))


def io_weight(weight: int) -> int:
    """Return the weight of version 2 (1 to 10000) for that of version 1 (10 to 1000).

    >>> io_weight(10), io_weight(1000)
    (1, 10000)
    """
    return 1 + (weight - 10) * 9999 // 990


def block_io(path: str, values: Section) -> None:
    """Set `linux.resources.blockIO`, weights by BFQ where that scheduler is there."""
    bfq = files.read_or(path + "/io.bfq.weight", "")
    file = "io.bfq.weight" if bfq else "io.weight"
    if values.get("weight"):
        files.write(f"{path}/{file}", str(values["weight"] if bfq else io_weight(values["weight"])))
    for n, each in enumerate(values.get("weightDevice") or ()):
        if each.get("leafWeight"):
            where = f"linux.resources.blockIO.weightDevice[{n}].leafWeight"
            raise ConfigError(where, "there is no leaf weight on cgroup v2")
        if each.get("weight"):
            weight = each["weight"] if bfq else io_weight(each["weight"])
            files.write(f"{path}/{file}", f"{each['major']}:{each['minor']} {weight}")
    for name, key in THROTTLES:
        for each in values.get(name) or ():
            rate = each["rate"] or "max"
            files.write(path + "/io.max", f"{each['major']}:{each['minor']} {key}={rate}")


def hugepages(path: str, limits: list[Section]) -> None:
    """Set `linux.resources.hugepageLimits`: reservations where the kernel counts them, and usage."""
    for n, each in enumerate(limits):
        size = page_size(each, n)
        if not files.exists(f"{path}/hugetlb.{size}.max"):
            raise unknown_page_size(n, size)
        files.write(f"{path}/hugetlb.{size}.max", str(each["limit"]))
        if files.exists(f"{path}/hugetlb.{size}.rsvd.max"):
            files.write(f"{path}/hugetlb.{size}.rsvd.max", str(each["limit"]))


def unified(path: str, values: dict[str, str]) -> None:
    """Write each value to the file of its name, in the order given.

    Raises:
        ConfigError: A name is no control file's, or its controller is not there.
        Failure: The kernel refused.
    """
    for name, value in values.items():
        check_name(name)
        try:
            files.write(f"{path}/{name}", value)
        except ControlError as failure:
            controller = name.partition(".")[0]
            present = files.read_or(path + "/cgroup.controllers", "").split()
            if failure.errno in (errno.EPERM, errno.ENOENT, errno.EACCES) and not (
                controller in present or controller == "cgroup"
            ):
                raise ConfigError(
                    f"linux.resources.unified.{name}",
                    f"can't be set: controller {controller!r} not available",
                ) from None
            failure.add_note(f"linux.resources.unified.{name}")
            raise


def check_name(name: str) -> None:
    """Check that a key of `unified` names a control file and nothing else.

    Raises:
        ConfigError: It has a slash, or no controller before a dot.
    """
    where = f"linux.resources.unified.{name}"
    if "/" in name or "\0" in name:
        raise ConfigError(where, f"unified resource {name!r} must be a file name (no slashes)")
    if name.find(".") <= 0:
        raise ConfigError(
            where, f"unified resource {name!r} must be in the form CONTROLLER.PARAMETER"
        )


def _devices(path: str, rules: list[Section], rootless: bool) -> None:
    policy = devices.policy(rules)
    if policy.allow and not policy.exceptions:
        policy = devices.Policy(allow=True)
    try:
        devicebpf.attach(LinuxKernel(), path, policy)
    except KernelError as error:
        # Without the right to load programs one can make no device nodes either: what is there came by bind mounts.
        if not rootless or error.errno not in (errno.EPERM, errno.EACCES):
            raise Failure(f"device rules: {path}: {describe(error)}") from None


_ACTIONS: tuple[tuple[str, Callable[[str, Any], None]], ...] = (
    ("pids", pids),
    ("memory", memory),
    ("blockIO", block_io),
    ("cpu", cpu),
    ("hugepageLimits", hugepages),
    ("rdma", rdma),
)

_CONTROLLERS = {
    "pids": "pids",
    "memory": "memory",
    "blockIO": "io",
    "cpu": "cpu",
    "hugepageLimits": "hugetlb",
    "rdma": "rdma",
}
