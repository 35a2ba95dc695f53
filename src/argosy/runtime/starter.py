"""The configuration to begin with: what ``spec`` writes, the same as runc's."""

from __future__ import annotations

import posix

from argosy.runtime.kernel import CGROUP2_SUPER_MAGIC, LinuxKernel
from argosy.runtime.state import SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_OWN = ["nosuid", "noexec", "nodev"]
# fmt: off
_MOUNTS: tuple[tuple[str, str, str, list[str]], ...] = (
    ("/proc", "proc", "proc", []),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", [*_OWN, "mode=1777", "size=65536k"]),  # noqa: S108 - in the container
    ("/dev/mqueue", "mqueue", "mqueue", _OWN),
    ("/sys", "sysfs", "sysfs", [*_OWN, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", [*_OWN, "relatime", "ro"]),
)
_MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
]
_READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# fmt: on


def configuration() -> dict[str, Any]:
    """The starter configuration for root."""
    spaces = ["pid", "network", "ipc", "uts", "mount"] + ["cgroup"] * _unified()
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": [_mount(*entry) for entry in _MOUNTS],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in spaces],
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }


def _mount(destination: str, fstype: str, source: str, options: list[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"destination": destination, "type": fstype, "source": source}
    return {**entry, "options": list(options)} if options else entry


def _unified() -> bool:
    try:
        fd = posix.open("/sys/fs/cgroup", posix.O_PATH | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        return LinuxKernel().filesystem(fd) == CGROUP2_SUPER_MAGIC
    finally:
        posix.close(fd)


def rootless(config: dict[str, Any]) -> dict[str, Any]:
    """The same for a caller without privileges: a user namespace, the host's network, /sys bound."""
    linux = dict(config["linux"])
    linux.pop("resources", None)
    kept = [entry for entry in linux["namespaces"] if entry["type"] not in ("network", "user")]
    linux["namespaces"] = [*kept, {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": posix.getegid(), "size": 1}]
    mounts = []
    for entry in config["mounts"]:
        if entry["destination"] == "/sys":
            mounts.append(_mount("/sys", "none", "/sys", ["rbind", *_OWN, "ro"]))
            continue
        options = [
            option for option in entry.get("options", ()) if not option.startswith(("gid=", "uid="))
        ]
        mounts.append(_mount(entry["destination"], entry["type"], entry["source"], options))
    return {**config, "mounts": mounts, "linux": linux}
