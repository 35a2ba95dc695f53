"""The numbers of `events --stats` on cgroup version 2, in the shape runc gives them."""

from __future__ import annotations

from argosy.runtime.cgroups import files
from argosy.runtime.cgroups.stats1 import CPUSET_FLAGS, drop_zeros, number, page_sizes, ranges

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_LIMIT = (1 << 64) - 1

IO = (
    ("rbytes", "ioServiceBytesRecursive", "Read"),
    ("wbytes", "ioServiceBytesRecursive", "Write"),
    ("rios", "ioServicedRecursive", "Read"),
    ("wios", "ioServicedRecursive", "Write"),
)


def collect(path: str) -> dict[str, Any]:
    """Return the `data` object of a statistics event.

    Args:
        path: The cgroup's directory.
    """
    return {
        "cpu": cpu(path),
        "cpuset": cpuset(path),
        "memory": memory(path),
        "pids": pids(path),
        "blkio": block_io(path),
        "hugetlb": hugetlb(path),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def cpu(path: str) -> dict[str, Any]:
    """Return processor time in nanoseconds, throttling and pressure."""
    stat = files.pairs(files.read_or(path + "/cpu.stat", ""))
    usage = {name: stat.get(f"{name}_usec", 0) * 1000 for name in ("usage", "system", "user")}
    throttling = {
        "periods": stat.get("nr_periods", 0),
        "throttledPeriods": stat.get("nr_throttled", 0),
        "throttledTime": stat.get("throttled_usec", 0) * 1000,
    }
    times = {"total": usage["usage"], "kernel": usage["system"], "user": usage["user"]}
    return _with_pressure(
        {"usage": drop_zeros(times, "kernel", "user"), "throttling": drop_zeros(throttling)},
        path,
        "cpu",
    )


def _with_pressure(values: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    stall = pressure(files.read_or(f"{path}/{name}.pressure", ""))
    return {**values, "psi": stall} if stall else values


def pressure(text: str) -> dict[str, Any]:
    """Return the stall numbers of a `.pressure` file: averages in percent, total in microseconds.

    >>> pressure("some avg10=0.50 avg60=0.00 avg300=0.00 total=7\\n")
    {'some': {'avg10': 0.5, 'avg60': 0.0, 'avg300': 0.0, 'total': 7}}
    """
    found = {}
    for line in text.splitlines():
        kind, *numbers = line.split()
        fields = dict(field.split("=", 1) for field in numbers)
        found[kind] = {
            key: int(value) if key == "total" else float(value) for key, value in fields.items()
        }
    return found


def cpuset(path: str) -> dict[str, Any]:
    """Return the CPUs and memory nodes; the flags are those of version 1 and zero here."""
    lists = {
        "cpus": ranges(files.read_or(path + "/cpuset.cpus.effective", "")),
        "mems": ranges(files.read_or(path + "/cpuset.mems.effective", "")),
    }
    return {**drop_zeros(lists), **dict.fromkeys(CPUSET_FLAGS, 0)}


def memory(path: str) -> dict[str, Any]:
    """Return memory in bytes; swap is counted with memory, as version 1 counted it."""
    raw = files.pairs(files.read_or(path + "/memory.stat", ""))
    usage = _memory_entry(path, "memory")
    swap = _memory_entry(path, "memory.swap")
    both = {"limit": swap["limit"], "usage": swap["usage"] + usage["usage"], "max": 0, "failcnt": 0}
    if both["limit"] not in (0, NO_LIMIT):
        both["limit"] = min(NO_LIMIT, both["limit"] + usage["limit"])
    none = {"limit": 0, "failcnt": 0}
    kinds = {
        "usage": drop_zeros(usage, "limit", "failcnt"),
        "swap": drop_zeros(both, "limit", "failcnt"),
        "kernel": none,
        "kernelTCP": none,
    }
    found = drop_zeros({"cache": raw.get("file", 0), **kinds, "raw": raw}, *kinds)
    return _with_pressure(found, path, "memory")


def _memory_entry(path: str, stem: str) -> dict[str, int]:
    return {
        "limit": number(f"{path}/{stem}.max"),
        "usage": number(f"{path}/{stem}.current"),
        "max": number(f"{path}/{stem}.peak"),
        "failcnt": 0,
    }


def pids(path: str) -> dict[str, int]:
    """Return the number of processes and its limit; no limit is zero.

    Without the controller, the processes that are there are counted.
    """
    if not files.exists(path + "/pids.current"):
        return drop_zeros({"current": len(files.pids_in(path))})
    limit = number(path + "/pids.max")
    return drop_zeros(
        {"current": number(path + "/pids.current"), "limit": 0 if limit == NO_LIMIT else limit}
    )


def block_io(path: str) -> dict[str, Any]:
    """Return what was read and written by device, under the names of version 1, and the pressure."""
    found: dict[str, Any] = {}
    for line in files.read_or(path + "/io.stat", "").splitlines():
        device, *fields = line.split()
        major, _, minor = device.partition(":")
        values = dict(field.split("=", 1) for field in fields if "=" in field)
        for key, name, op in IO:
            if key in values and minor:
                entry = {
                    "major": int(major),
                    "minor": int(minor),
                    "op": op,
                    "value": int(values[key]),
                }
                found.setdefault(name, []).append(drop_zeros(entry))
    return _with_pressure(found, path, "io")


def hugetlb(path: str) -> dict[str, Any]:
    """Return the use of huge pages by their size."""
    found = {}
    for size in page_sizes(path, ".max"):
        events = files.pairs(files.read_or(f"{path}/hugetlb.{size}.events", ""))
        entry = {"usage": number(f"{path}/hugetlb.{size}.current"), "failcnt": events.get("max", 0)}
        found[size] = drop_zeros(entry, "failcnt")
    return found
