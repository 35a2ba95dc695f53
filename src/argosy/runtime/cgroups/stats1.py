"""The numbers of `events --stats` on cgroup version 1, in the shape runc gives them."""

from __future__ import annotations

import posix

from argosy.runtime.cgroups import files
from argosy.runtime.cgroups.files import ControlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NANOSECONDS_PER_TICK = 10_000_000
"""`cpuacct.stat` counts in ticks of 1/100 s."""

MEMORY_KINDS = (("usage", ""), ("swap", "memsw."), ("kernel", "kmem."), ("kernelTCP", "kmem.tcp."))

CPUSET_FLAGS = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)

BLKIO = (
    ("ioServiceBytesRecursive", "io_service_bytes"),
    ("ioServicedRecursive", "io_serviced"),
    ("ioQueueRecursive", "io_queued"),
    ("ioServiceTimeRecursive", "io_service_time"),
    ("ioWaitTimeRecursive", "io_wait_time"),
    ("ioMergedRecursive", "io_merged"),
    ("ioTimeRecursive", "time"),
    ("sectorsRecursive", "sectors"),
)

BLKIO_SOURCES = (
    "blkio.bfq.{}_recursive",
    "blkio.{}_recursive",
    "blkio.throttle.{}_recursive",
    "blkio.throttle.{}",
)
"""Where the block numbers are kept, the richest first; the first that has any is used."""


def collect(dirs: dict[str, str]) -> dict[str, Any]:
    """Return the `data` object of a statistics event.

    Args:
        dirs: Directory by controller.
    """
    return {
        "cpu": cpu(dirs.get("cpu"), dirs.get("cpuacct")),
        "cpuset": cpuset(dirs.get("cpuset")),
        "memory": memory(dirs.get("memory")),
        "pids": pids(dirs.get("pids")),
        "blkio": blkio(dirs.get("blkio")),
        "hugetlb": hugetlb(dirs.get("hugetlb")),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def number(path: str, otherwise: int = 0) -> int:
    """Return the number in a file, `otherwise` where there is none; "max" is the largest the kernel knows."""
    text = files.read_or(path, "").strip()
    if text == "max":
        return (1 << 64) - 1
    return int(text) if text.lstrip("-").isdigit() else otherwise


def drop_zeros(values: dict[str, Any], *keep: str) -> dict[str, Any]:
    """Return `values` without those that are empty or zero, except the named ones."""
    return {key: value for key, value in values.items() if value or key in keep}


def cpu(cpu_dir: str | None, cpuacct_dir: str | None) -> dict[str, Any]:
    """Return processor time in nanoseconds and throttling."""
    usage: dict[str, Any] = {"kernel": 0, "user": 0}
    if cpuacct_dir:
        ticks = files.pairs(files.read_or(cpuacct_dir + "/cpuacct.stat", ""))
        per = [
            line.split()
            for line in files.read_or(cpuacct_dir + "/cpuacct.usage_all", "").splitlines()[1:]
        ]
        usage = {
            "total": number(cpuacct_dir + "/cpuacct.usage"),
            "percpu": [
                int(n) for n in files.read_or(cpuacct_dir + "/cpuacct.usage_percpu", "").split()
            ],
            "percpu_kernel": [int(fields[2]) for fields in per if len(fields) == 3],
            "percpu_user": [int(fields[1]) for fields in per if len(fields) == 3],
            "kernel": ticks.get("system", 0) * NANOSECONDS_PER_TICK,
            "user": ticks.get("user", 0) * NANOSECONDS_PER_TICK,
        }
    stat = files.pairs(files.read_or(cpu_dir + "/cpu.stat", "")) if cpu_dir else {}
    throttling = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": stat.get("throttled_time", 0),
    }
    return {"usage": drop_zeros(usage, "kernel", "user"), "throttling": drop_zeros(throttling)}


def ranges(text: str) -> list[int]:
    """Return the numbers of a list such as `0-2,7`.

    >>> ranges("0-2,7")
    [0, 1, 2, 7]
    """
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.extend(range(int(first), int(last or first) + 1))
    return found


def cpuset(path: str | None) -> dict[str, Any]:
    """Return the CPUs, the memory nodes and the flags of the cpuset."""
    if path is None:
        return dict.fromkeys(CPUSET_FLAGS, 0)
    flags = {name: number(f"{path}/cpuset.{name}") for name in CPUSET_FLAGS}
    lists = {
        "cpus": ranges(files.read_or(path + "/cpuset.cpus", "")),
        "mems": ranges(files.read_or(path + "/cpuset.mems", "")),
    }
    return {**drop_zeros(lists), **flags}


def memory(path: str | None) -> dict[str, Any]:
    """Return memory in bytes, by kind, and the kernel's own list."""
    if path is None:
        empty = {"limit": 0, "failcnt": 0}
        return {kind: dict(empty) for kind, _ in MEMORY_KINDS}
    raw = files.pairs(files.read_or(path + "/memory.stat", ""))
    kinds = {kind: _memory_entry(path, f"memory.{infix}") for kind, infix in MEMORY_KINDS}
    return drop_zeros({"cache": raw.get("cache", 0), **kinds, "raw": raw}, *kinds)


def _memory_entry(path: str, stem: str) -> dict[str, int]:
    entry = {
        "limit": number(f"{path}/{stem}limit_in_bytes"),
        "usage": number(f"{path}/{stem}usage_in_bytes"),
        "max": number(f"{path}/{stem}max_usage_in_bytes"),
        "failcnt": number(f"{path}/{stem}failcnt"),
    }
    return drop_zeros(entry, "limit", "failcnt")


def pids(path: str | None) -> dict[str, int]:
    """Return the number of processes and its limit; no limit is zero."""
    if path is None:
        return {}
    limit = files.read_or(path + "/pids.max", "max").strip()
    counted = {
        "current": number(path + "/pids.current"),
        "limit": 0 if limit == "max" else int(limit),
    }
    return drop_zeros(counted)


def blkio(path: str | None) -> dict[str, Any]:
    """Return the block numbers of the richest source there is."""
    if path is None:
        return {}
    for source in BLKIO_SOURCES:
        found = {
            key: entries(files.read_or(f"{path}/{source.format(name)}", "")) for key, name in BLKIO
        }
        if any(found.values()):
            return drop_zeros(found)
    return {}


def entries(text: str) -> list[dict[str, Any]]:
    """Return the lines `MAJOR:MINOR [OP] VALUE` of a block file as objects; the grand total is left out.

    >>> entries("8:0 Read 7\\nTotal 7\\n")
    [{'major': 8, 'op': 'Read', 'value': 7}]
    """
    found = []
    for line in text.splitlines():
        device, *rest = line.split()
        major, colon, minor = device.partition(":")
        if colon and rest:
            op = rest[0] if len(rest) > 1 else ""
            entry = {"major": int(major), "minor": int(minor), "op": op, "value": int(rest[-1])}
            found.append(drop_zeros(entry))
    return found


def hugetlb(path: str | None) -> dict[str, Any]:
    """Return the use of huge pages by their size."""
    if path is None:
        return {}
    return {
        size: drop_zeros(
            {
                "usage": number(f"{path}/hugetlb.{size}.usage_in_bytes"),
                "max": number(f"{path}/hugetlb.{size}.max_usage_in_bytes"),
                "failcnt": number(f"{path}/hugetlb.{size}.failcnt"),
            },
            "failcnt",
        )
        for size in page_sizes(path, ".limit_in_bytes")
    }


def page_sizes(path: str, suffix: str) -> list[str]:
    """Return the sizes of huge pages a directory has files for."""
    try:
        with posix.scandir(path) as found:
            names = [each.name for each in found if each.name.startswith("hugetlb.")]
    except OSError as error:
        raise ControlError("read", path, error) from None
    sizes = [name[len("hugetlb.") : -len(suffix)] for name in names if name.endswith(suffix)]
    return sorted(size for size in sizes if "." not in size)
