"""`linux.resources` on cgroup version 1, as writes to the control files of each hierarchy.

Zero means "not set" except where the specification gives it a meaning of its own (`pids.limit`, `cpu.idle`,
`cpu.burst`, `swappiness`), because clients fill in zeros.
"""

from __future__ import annotations

import errno

from argosy.runtime.cgroups import devices, files
from argosy.runtime.cgroups.files import ControlError
from argosy.runtime.cgroups.layout import UNIFIED
from argosy.runtime.errors import ConfigError, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Section = dict[str, Any]

THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def apply(dirs: dict[str, str], resources: dict[str, Any], *, rootless: bool = False) -> None:
    """Set the limits.

    Args:
        dirs: Directory by controller.
        resources: `linux.resources`.
        rootless: Whether device rules the caller may not set are no error; other limits always are.

    Raises:
        ConfigError: A value is invalid, or there is no controller for it here.
        Failure: The kernel refused a value.
    """
    if resources.get("unified"):
        raise ConfigError("linux.resources.unified", "cannot use unified resources on cgroup v1")
    for controller, section, is_set, action in _ACTIONS:
        values = resources.get(section)
        if values is None or not is_set(values):
            continue
        if controller not in dirs:
            if controller == "hugetlb" and UNIFIED in dirs:
                _hugetlb_unified(dirs[UNIFIED], resources)
                continue
            if controller == "devices" and rootless:
                continue
            raise Failure(
                f"cannot set {controller} limit: container could not join or create cgroup"
            )
        try:
            action(dirs[controller], values)
        except ControlError:
            if controller != "devices" or not rootless:
                raise


def _hugetlb_unified(path: str, resources: dict[str, Any]) -> None:
    """Hybrid: the controller lives in cgroup2."""
    from argosy.runtime.cgroups import limits2, v2

    v2.enable(path)
    limits2.hugepages(path, resources["hugepageLimits"])


def _any_of(*names: str) -> Callable[[Section], bool]:
    return lambda values: any(values.get(name) not in (None, 0, "", False, []) for name in names)


def _present(*names: str) -> Callable[[Section], bool]:
    return lambda values: any(values.get(name) is not None for name in names)


def _always(_values: object) -> bool:
    return True


def _memory(path: str, memory: Section) -> None:
    _memory_and_swap(path, memory.get("limit") or 0, memory.get("swap") or 0)
    if memory.get("reservation"):
        files.write(path + "/memory.soft_limit_in_bytes", str(memory["reservation"]))
    if memory.get("disableOOMKiller"):
        files.write(path + "/memory.oom_control", "1")
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness not in (-1, (1 << 64) - 1):
        if not 0 <= swappiness <= 100:
            raise ConfigError(
                "linux.resources.memory.swappiness",
                f"invalid memory swappiness value: {swappiness} (valid range is 0-100)",
            )
        files.write(path + "/memory.swappiness", str(swappiness))


def _memory_and_swap(path: str, limit: int, swap: int) -> None:
    """Set both in the order the kernel accepts: the sum never below the memory's own limit."""
    has_swap = files.exists(path + "/memory.memsw.limit_in_bytes")
    if limit == -1 and swap == 0 and has_swap:
        swap = -1  # no limit of memory under one of both makes no sense
    orders: list[Callable[[], None]] = []
    if limit:
        orders.append(lambda: _limit(path, limit))
    if swap:
        orders.append(lambda: files.write(path + "/memory.memsw.limit_in_bytes", str(swap)))
    if limit and swap and (swap == -1 or int(files.read(path + "/memory.limit_in_bytes")) < swap):
        orders.reverse()
    for order in orders:
        order()


def _limit(path: str, limit: int) -> None:
    try:
        files.write(path + "/memory.limit_in_bytes", str(limit))
    except ControlError as failure:
        if failure.errno != errno.EBUSY:
            raise
        usage = files.read(path + "/memory.usage_in_bytes").strip()
        peak = files.read(path + "/memory.max_usage_in_bytes").strip()
        raise Failure(
            f"unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})"
        ) from None


def _cpu(path: str, cpu: Section) -> None:
    _pair(
        path, cpu, ("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")
    )
    if cpu.get("shares"):
        _shares(path, cpu["shares"])
    burst = _burst_first(path, cpu)
    _pair(path, cpu, ("period", "cpu.cfs_period_us"), ("quota", "cpu.cfs_quota_us"))
    if burst is not None:
        files.write(path + "/cpu.cfs_burst_us", burst)
    if cpu.get("idle") is not None:
        files.write(path + "/cpu.idle", str(cpu["idle"]))


def _shares(path: str, shares: int) -> None:
    files.write(path + "/cpu.shares", str(shares))
    check_shares(shares, int(files.read(path + "/cpu.shares")))


def check_shares(asked: int, kept: int) -> None:
    """Refuse shares of which the kernel took only what it allows.

    Raises:
        ConfigError: It kept another number.
    """
    if asked != kept:
        bound = "maximum" if asked > kept else "minimum"
        raise ConfigError("linux.resources.cpu.shares", f"the {bound} allowed cpu-shares is {kept}")


def _pair(path: str, cpu: Section, period: tuple[str, str], amount: tuple[str, str]) -> None:
    """Set a period and an amount; whichever the kernel refuses beside the old other one is set second."""
    again = False
    if cpu.get(period[0]):
        try:
            files.write(f"{path}/{period[1]}", str(cpu[period[0]]))
        except ControlError as failure:
            if failure.errno != errno.EINVAL or not cpu.get(amount[0]):
                raise
            again = True
    if cpu.get(amount[0]):
        files.write(f"{path}/{amount[1]}", str(cpu[amount[0]]))
    if again:
        files.write(f"{path}/{period[1]}", str(cpu[period[0]]))


def _burst_first(path: str, cpu: Section) -> str | None:
    """Set the burst; return it when it must wait for the new quota."""
    burst = cpu.get("burst")
    if burst is None:
        return None
    try:
        files.write(path + "/cpu.cfs_burst_us", str(burst))
    except ControlError as failure:
        if failure.errno != errno.EINVAL or not cpu.get("quota"):
            raise
        return str(burst)
    return None


def _cpuset(path: str, cpu: Section) -> None:
    prefix = "cpuset." if files.exists(path + "/cpuset.cpus") else ""
    for name in ("cpus", "mems"):
        if cpu.get(name):
            files.write(f"{path}/{prefix}{name}", cpu[name])


def _pids(path: str, pids: Section) -> None:
    limit = pids["limit"]
    files.write(path + "/pids.max", "max" if limit < 0 else str(limit))


def _blkio(path: str, block: Section) -> None:
    stem = "blkio." if files.exists(path + "/blkio.weight") else "blkio.bfq."
    if block.get("weight"):
        files.write(f"{path}/{stem}weight", str(block["weight"]))
    if block.get("leafWeight"):
        files.write(path + "/blkio.leaf_weight", str(block["leafWeight"]))
    for each in block.get("weightDevice") or ():
        device = f"{each['major']}:{each['minor']}"
        if each.get("weight"):
            files.write(f"{path}/{stem}weight_device", f"{device} {each['weight']}")
        if each.get("leafWeight"):
            files.write(path + "/blkio.leaf_weight_device", f"{device} {each['leafWeight']}")
    for name, file in THROTTLES:
        for each in block.get(name) or ():
            files.write(f"{path}/{file}", f"{each['major']}:{each['minor']} {each['rate']}")


def _hugetlb(path: str, limits: list[Section]) -> None:
    for n, each in enumerate(limits):
        size = page_size(each, n)
        plain = f"{path}/hugetlb.{size}.limit_in_bytes"
        reserved = f"{path}/hugetlb.{size}.rsvd.limit_in_bytes"
        if not files.exists(plain):
            raise unknown_page_size(n, size)
        files.write(plain, str(each["limit"]))
        if files.exists(reserved):
            files.write(reserved, str(each["limit"]))


def page_size(limit: Section, n: int) -> str:
    """Return the page size of one limit, which names a file.

    Raises:
        ConfigError: It is not written as a number and a unit.
    """
    size = str(limit.get("pageSize") or "")
    number = size.rstrip("KMGTB")
    if not number.isdigit() or size[len(number) :] not in ("KB", "MB", "GB", "TB"):
        raise ConfigError(
            f"linux.resources.hugepageLimits[{n}].pageSize",
            f"expected a size such as 2MB, got {size!r}",
        )
    return size


def unknown_page_size(n: int, size: str) -> ConfigError:
    """Return the error for huge pages this kernel does not have."""
    return ConfigError(
        f"linux.resources.hugepageLimits[{n}].pageSize", f"this kernel has no huge pages of {size}"
    )


def _net_cls(path: str, network: Section) -> None:
    files.write(path + "/net_cls.classid", str(network["classID"]))


def _net_prio(path: str, network: Section) -> None:
    for each in network["priorities"]:
        files.write(path + "/net_prio.ifpriomap", f"{each['name']} {each['priority']}")


def rdma_line(name: str, limits: Section) -> str:
    """Return the line of `rdma.max` for one device.

    >>> rdma_line("mlx5_1", {"hcaHandles": 3})
    'mlx5_1 hca_handle=3 hca_object=max'
    """
    handles, objects = limits.get("hcaHandles"), limits.get("hcaObjects")
    shown = ["max" if value is None else str(value) for value in (handles, objects)]
    return f"{name} hca_handle={shown[0]} hca_object={shown[1]}"


def rdma(path: str, limits: dict[str, Section]) -> None:
    """Set `linux.resources.rdma`; the file is the same in both versions."""
    for name, each in limits.items():
        files.write(path + "/rdma.max", rdma_line(name, each))


def _devices(path: str, rules: list[Section]) -> None:
    wanted = devices.policy(rules)
    now = devices.parse_list(files.read(path + "/devices.list"))
    for name, line in devices.transition(now, wanted):
        files.write(f"{path}/{name}", line)


_ACTIONS: tuple[tuple[str, str, Callable[[Any], bool], Callable[[str, Any], None]], ...] = (
    ("cpuset", "cpu", _any_of("cpus", "mems"), _cpuset),
    ("devices", "devices", _always, _devices),
    (
        "memory",
        "memory",
        lambda m: (
            _any_of("limit", "swap", "reservation", "disableOOMKiller")(m)
            or _present("swappiness")(m)
        ),
        _memory,
    ),
    (
        "cpu",
        "cpu",
        lambda c: (
            _any_of("shares", "quota", "period", "realtimePeriod", "realtimeRuntime")(c)
            or _present("idle", "burst")(c)
        ),
        _cpu,
    ),
    ("pids", "pids", _present("limit"), _pids),
    (
        "blkio",
        "blockIO",
        _any_of("weight", "leafWeight", "weightDevice", *[name for name, _ in THROTTLES]),
        _blkio,
    ),
    ("hugetlb", "hugepageLimits", bool, _hugetlb),
    ("net_cls", "network", _any_of("classID"), _net_cls),
    ("net_prio", "network", _any_of("priorities"), _net_prio),
    ("rdma", "rdma", bool, rdma),
)
"""Controller, property of `linux.resources`, whether the property asks for anything, how it is set."""
