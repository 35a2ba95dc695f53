"""What this machine's kernel has, and what of a configuration it would refuse or ignore.

`Host.probe` looks once; the rules are pure, so that another machine's answers can be asked too.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from argosy.bundle.rules import Config, Finding, dotted, namespaces_of

__all__ = ["HOST_RULES", "Host"]

_NAMESPACE_FILES = {"network": "net", "mount": "mnt"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What a machine has.

    Attributes:
        release: The kernel's version, as (major, minor).
        namespaces: Types of namespaces.
        filesystems: Types of file systems.
        last_capability: The number of the last capability, or None.
        unified: Whether cgroup version 2 alone is in use.
        controllers: The cgroup controllers, of either version.
        seccomp_actions: The kernel's names of seccomp actions; empty without seccomp.
        libseccomp: Whether libseccomp can be loaded.
        security_modules: The active security modules.
        resctrl: Whether resctrl is mounted.
        network_devices: The network devices of the caller's namespace.
        huge_pages: Sizes of huge pages, as 2MB.
        cpus: How many CPUs there can be.
        nodes: The online memory nodes.
        privileged: Whether the caller is root.
        mapping_helpers: Whether newuidmap and newgidmap are installed.
        user_namespaces: How many user namespaces there may be.
        sysctls: Tells whether a sysctl exists, by its path below /proc/sys.
        exists: Tells whether a path exists.
    """

    release: tuple[int, int]
    namespaces: frozenset[str]
    filesystems: frozenset[str]
    last_capability: int | None
    unified: bool
    controllers: frozenset[str]
    seccomp_actions: frozenset[str]
    libseccomp: bool
    security_modules: frozenset[str]
    resctrl: bool
    network_devices: frozenset[str]
    huge_pages: frozenset[str]
    cpus: int
    nodes: frozenset[int]
    privileged: bool
    mapping_helpers: bool
    user_namespaces: int
    sysctls: Callable[[str], bool] = lambda path: os.path.exists("/proc/sys/" + path)
    exists: Callable[[str], bool] = os.path.exists

    @classmethod
    def probe(cls) -> Self:
        """Look at the machine this runs on."""
        mounts = [line.partition(" - ")[2] for line in _read("/proc/self/mountinfo").splitlines()]
        legacy = {
            word
            for line in mounts
            if line.startswith("cgroup ")
            for word in line.rpartition(" ")[2].split(",")
        }
        modern = {
            word
            for place in _cgroup2_places()
            for word in _read(place + "/cgroup.controllers").split()
        }
        last = _read("/proc/sys/kernel/cap_last_cap").strip()
        return cls(
            release=_release(platform.release()),
            namespaces=frozenset(_namespaces()),
            filesystems=frozenset(
                line.split("\t")[-1] for line in _read("/proc/filesystems").splitlines()
            ),
            last_capability=int(last) if last else None,
            unified=not legacy & _V1_ONLY and any(line.startswith("cgroup2 ") for line in mounts),
            controllers=frozenset(legacy | modern),
            seccomp_actions=frozenset(_read("/proc/sys/kernel/seccomp/actions_avail").split()),
            libseccomp=_loadable("libseccomp.so.2"),
            security_modules=frozenset(_read("/sys/kernel/security/lsm").strip().split(","))
            | _modules(),
            resctrl=any(line.startswith("resctrl ") for line in mounts),
            network_devices=frozenset(_listed("/sys/class/net")),
            huge_pages=frozenset(_page_size(name) for name in _listed("/sys/kernel/mm/hugepages")),
            cpus=max(
                _numbers(_read("/sys/devices/system/cpu/possible")),
                default=(os.cpu_count() or 1) - 1,
            )
            + 1,
            nodes=frozenset(_numbers(_read("/sys/devices/system/node/online"))),
            privileged=os.geteuid() == 0,
            mapping_helpers=all(shutil.which(name) for name in ("newuidmap", "newgidmap")),
            user_namespaces=int(_read("/proc/sys/user/max_user_namespaces") or 0),
        )


_V1_ONLY = frozenset(("cpu", "cpuset", "memory", "devices", "freezer", "blkio", "pids"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _cgroup2_places() -> list[str]:
    lines = _read("/proc/self/mountinfo").splitlines()
    return [line.split(" ")[4] for line in lines if " - cgroup2 " in line]


def _release(text: str) -> tuple[int, int]:
    numbers = [int(part) for part in text.replace("-", ".").split(".")[:2] if part.isdigit()]
    return (*numbers, 0, 0)[0], (*numbers, 0, 0)[1]


def _namespaces() -> Iterator[str]:
    for name in ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"):
        if os.path.lexists(f"/proc/self/ns/{_NAMESPACE_FILES.get(name, name)}"):
            yield name


def _modules() -> frozenset[str]:
    found = {"selinux"} if os.path.exists("/sys/fs/selinux/enforce") else set()
    if _read("/sys/module/apparmor/parameters/enabled").startswith("Y"):
        found.add("apparmor")
    return frozenset(found)


def _loadable(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def _page_size(name: str) -> str:
    """The cgroup's name of a size, from `hugepages-2048kB`."""
    size = int(name.removeprefix("hugepages-").removesuffix("kB") or 0)
    for unit in ("KB", "MB", "GB"):
        if size < 1024 or unit == "GB":
            return f"{size}{unit}"
        size //= 1024
    return ""


_LONGEST = 21  # signs of a range: longer ones are no numbers that a runtime takes


def _numbers(text: str) -> set[int]:
    """The numbers of a list such as 0-3,7; none for what is no such list."""
    found: set[int] = set()
    for part in text.replace(" ", "").strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()) and len(part) <= _LONGEST:
            found.update(range(int(first), min(int(last or first), 1 << 16) + 1))
    return found


def refused(where: str, why: str) -> Finding:
    """A finding of what this kernel refuses."""
    return Finding(verdict="refused", where=where, why=why, source="kernel")


def ignored(where: str, why: str) -> Finding:
    """A finding of what has no effect here."""
    return Finding(verdict="ignored", where=where, why=why, source="kernel")


def _spaces(config: Config, host: Host) -> Iterator[Finding]:
    for n, each in enumerate((config.get("linux") or {}).get("namespaces") or ()):
        where = f"linux.namespaces[{n}]"
        if each["type"] not in host.namespaces:
            yield refused(where + ".type", f"this kernel has no {each['type']} namespaces")
        if each.get("path") and not host.exists(each["path"]):
            yield refused(where + ".path", f"{each['path']} does not exist")
    creates_user = namespaces_of(config).get("user") == ""
    if creates_user and host.user_namespaces == 0:
        yield refused(
            "linux.namespaces",
            "user namespaces are switched off here (user.max_user_namespaces is 0)",
        )
    if not host.privileged and config.get("linux") and "user" not in namespaces_of(config):
        yield refused("linux.namespaces", "without root a container needs a user namespace")


def _maps(config: Config, host: Host) -> Iterator[Finding]:
    for name in ("uidMappings", "gidMappings"):
        maps = (config.get("linux") or {}).get(name) or ()
        many = len(maps) > 1 or any(each["size"] > 1 for each in maps)
        if many and not host.privileged and not host.mapping_helpers:
            yield refused(
                f"linux.{name}",
                "more than one id needs newuidmap and newgidmap, which are not installed",
            )


def _mounts(config: Config, host: Host) -> Iterator[Finding]:
    for n, mount in enumerate(config.get("mounts") or ()):
        options = mount.get("options") or []
        kind = mount.get("type") or ""
        bind = "bind" in options or "rbind" in options
        if (
            not bind
            and kind not in ("cgroup", "none", "")
            and kind.partition(".")[0] not in host.filesystems
        ):
            yield refused(
                f"mounts[{n}].type",
                f"this kernel knows no file system {kind!r}, unless a module brings it",
            )
        if (
            bind
            and (mount.get("source") or "").startswith("/")
            and not host.exists(mount["source"])
        ):
            yield refused(f"mounts[{n}].source", f"{mount['source']} does not exist")
        recursive = any(option in ("rro", "rrw") or option.startswith("rno") for option in options)
        if recursive and host.release < (5, 12):
            yield refused(f"mounts[{n}].options", "recursive attributes need Linux 5.12")
        if ("idmap" in options or "ridmap" in options) and host.release < (5, 12):
            yield refused(f"mounts[{n}].options", "idmapped mounts need Linux 5.12")


_NEWER_CAPABILITIES = {"CAP_PERFMON": 38, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40}


def _process(config: Config, host: Host) -> Iterator[Finding]:
    process = config.get("process") or {}
    for kind, names in (process.get("capabilities") or {}).items():
        for n, name in enumerate(names or ()):
            number = _NEWER_CAPABILITIES.get(name, 0)
            if host.last_capability is not None and number > host.last_capability:
                yield ignored(f"process.capabilities.{kind}[{n}]", f"this kernel has no {name}")
    if process.get("apparmorProfile") and "apparmor" not in host.security_modules:
        yield refused("process.apparmorProfile", "AppArmor is not enabled here")
    if process.get("selinuxLabel") and "selinux" not in host.security_modules:
        yield refused("process.selinuxLabel", "SELinux is not enabled here")
    if (config.get("linux") or {}).get("mountLabel") and "selinux" not in host.security_modules:
        yield refused("linux.mountLabel", "SELinux is not enabled here")
    for name in ("initial", "final"):
        cpus = _numbers((process.get("execCPUAffinity") or {}).get(name) or "")
        if cpus and min(cpus) >= host.cpus:
            yield refused(f"process.execCPUAffinity.{name}", f"there are {host.cpus} CPUs here")
    if (process.get("oomScoreAdj") or 0) < 0 and not host.privileged:
        yield refused("process.oomScoreAdj", "only root may set it below zero")


def _sysctls(config: Config, host: Host) -> Iterator[Finding]:
    for key in (config.get("linux") or {}).get("sysctl") or ():
        path = dotted(key).translate(str.maketrans("/.", "./"))
        per_device = path.startswith(
            ("net/ipv4/conf/", "net/ipv6/conf/", "net/ipv4/neigh/", "net/ipv6/neigh/")
        )
        if not per_device and not host.sysctls(path):
            yield refused(f"linux.sysctl.{key}", f"this kernel has no /proc/sys/{path}")


_CONTROLLERS: tuple[tuple[str, str, str], ...] = (
    ("memory", "memory", "memory"),
    ("pids", "pids", "pids"),
    ("blockIO", "blkio", "io"),
    ("hugepageLimits", "hugetlb", "hugetlb"),
    ("rdma", "rdma", "rdma"),
)
"""Property of resources, and its controller in version 1 and in version 2."""

_ONLY_V1 = (
    ("memory", "swappiness"),
    ("memory", "disableOOMKiller"),
    ("cpu", "realtimeRuntime"),
    ("cpu", "realtimePeriod"),
    ("blockIO", "leafWeight"),
    ("network", "classID"),
    ("network", "priorities"),
)


def _resources(config: Config, host: Host) -> Iterator[Finding]:
    resources = (config.get("linux") or {}).get("resources") or {}
    where = "linux.resources"
    for section, old, new in _CONTROLLERS:
        controller = new if host.unified else old
        if _asks(resources.get(section)) and not {controller, new} & host.controllers:
            yield refused(f"{where}.{section}", f"this machine has no {controller} controller")
    for section, name in _ONLY_V1:
        if host.unified and (resources.get(section) or {}).get(name):
            yield refused(f"{where}.{section}.{name}", "cgroup version 2 has no such thing")
    yield from _cpu(resources, host)
    if resources.get("unified") and not host.unified:
        yield refused(where + ".unified", "this machine has cgroup version 1")
    if resources.get("network") and not host.unified:
        yield from _network_classes(resources["network"], host)
    for n, limit in enumerate(resources.get("hugepageLimits") or ()):
        if limit["pageSize"] not in host.huge_pages:
            have = ", ".join(sorted(host.huge_pages)) or "none"
            yield refused(
                f"{where}.hugepageLimits[{n}].pageSize", f"expected one of this machine's: {have}"
            )


def _asks(values: object) -> bool:
    if isinstance(values, dict):
        return any(_asks(value) for value in values.values())
    return bool(values)


def _cpu(resources: Config, host: Host) -> Iterator[Finding]:
    cpu = resources.get("cpu") or {}
    where = "linux.resources.cpu"
    share = any(cpu.get(name) for name in ("shares", "quota", "period", "burst", "idle"))
    if share and "cpu" not in host.controllers:
        yield refused(where, "this machine has no cpu controller")
    for name, have in (("cpus", range(host.cpus)), ("mems", host.nodes)):
        asked = _numbers(cpu.get(name) or "")
        if asked and "cpuset" not in host.controllers:
            yield refused(f"{where}.{name}", "this machine has no cpuset controller")
        elif have and not asked <= set(have):
            missing = ", ".join(map(str, sorted(asked - set(have))[:8]))
            yield refused(f"{where}.{name}", f"this machine has no {missing}")


def _network_classes(network: Config, host: Host) -> Iterator[Finding]:
    for name, controller in (("classID", "net_cls"), ("priorities", "net_prio")):
        if network.get(name) and controller not in host.controllers:
            yield refused(
                f"linux.resources.network.{name}", f"this machine has no {controller} controller"
            )


_KERNEL_ACTIONS = {
    "SCMP_ACT_KILL": "kill_thread",
    "SCMP_ACT_KILL_THREAD": "kill_thread",
    "SCMP_ACT_KILL_PROCESS": "kill_process",
    "SCMP_ACT_TRAP": "trap",
    "SCMP_ACT_ERRNO": "errno",
    "SCMP_ACT_TRACE": "trace",
    "SCMP_ACT_ALLOW": "allow",
    "SCMP_ACT_LOG": "log",
    "SCMP_ACT_NOTIFY": "user_notif",
}


def _seccomp(config: Config, host: Host) -> Iterator[Finding]:
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return
    where = "linux.seccomp"
    if not host.seccomp_actions:
        yield refused(where, "this kernel has no seccomp filters")
        return
    if not host.libseccomp:
        yield refused(where, "libseccomp is not installed")
    used = [(where + ".defaultAction", profile["defaultAction"])]
    used += [
        (f"{where}.syscalls[{n}].action", rule["action"])
        for n, rule in enumerate(profile.get("syscalls") or ())
    ]
    for place, action in used:
        if _KERNEL_ACTIONS[action] not in host.seccomp_actions:
            yield refused(place, f"this kernel does not know {action}")
    path = profile.get("listenerPath")
    if path and not host.exists(path):
        yield refused(where + ".listenerPath", f"nobody listens at {path}")


def _others(config: Config, host: Host) -> Iterator[Finding]:
    linux = config.get("linux") or {}
    if linux.get("intelRdt") and not host.resctrl:
        yield refused("linux.intelRdt", "no resctrl file system is mounted here")
    for name in linux.get("netDevices") or ():
        if name not in host.network_devices:
            yield refused(f"linux.netDevices.{name}", "there is no such network device here")
    nodes = _numbers((linux.get("memoryPolicy") or {}).get("nodes") or "")
    if linux.get("memoryPolicy") and not nodes <= host.nodes:
        yield refused(
            "linux.memoryPolicy.nodes", f"this machine has the nodes {sorted(host.nodes)}"
        )
    for kind, hooks in (config.get("hooks") or {}).items():
        for n, hook in enumerate(hooks or ()):
            if kind != "startContainer" and not host.exists(hook["path"]):
                yield refused(f"hooks.{kind}[{n}].path", f"{hook['path']} does not exist")


HostRule = Callable[[Config, Host], Iterable[Finding]]
HOST_RULES: tuple[HostRule, ...] = (
    _spaces,
    _maps,
    _mounts,
    _process,
    _sysctls,
    _resources,
    _seccomp,
    _others,
)
