"""What the runtime-spec says of `config.json` that a schema cannot: rules between properties.

Each rule takes the whole configuration, whose shape is already known to be right, and yields findings. `refused` is
what a runtime must refuse, `ignored` what has no effect, `doubtful` what is allowed and hardly meant.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

__all__ = ["CAPABILITIES", "RULES", "Finding", "Verdict", "namespaces_of"]

Config = Mapping[str, Any]
Verdict = Literal["refused", "ignored", "doubtful"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something a runtime would refuse or ignore, or that is hardly meant.

    Attributes:
        verdict: Which of the three.
        where: The property, as in `linux.resources.devices[0].type`; empty for the bundle itself.
        why: The reason, lower case, one line.
        source: Who says so: the specification, this kernel, or the bundle's directory.

    >>> print(Finding(verdict="refused", where="process.cwd", why="this property is required"))
    refused: process.cwd: this property is required
    """

    verdict: Verdict
    where: str
    why: str
    source: Literal["specification", "kernel", "bundle"] = "specification"

    def __str__(self) -> str:
        return ": ".join(part for part in (self.verdict, self.where, self.why) if part)


def refused(where: str, why: str) -> Finding:
    """A finding of what a runtime must refuse."""
    return Finding(verdict="refused", where=where, why=why)


def ignored(where: str, why: str) -> Finding:
    """A finding of what has no effect."""
    return Finding(verdict="ignored", where=where, why=why)


def doubtful(where: str, why: str) -> Finding:
    """A finding of what is hardly meant."""
    return Finding(verdict="doubtful", where=where, why=why)


def _prefixed(prefix: str, names: str) -> frozenset[str]:
    return frozenset(prefix + name for name in names.split())


CAPABILITIES = _prefixed(
    "CAP_",
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH "
    "FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN "
    "NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT "
    "SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM",
)

RLIMITS = _prefixed(
    "RLIMIT_",
    "AS CORE CPU DATA FSIZE LOCKS MEMLOCK MSGQUEUE NICE NOFILE NPROC RSS RTPRIO RTTIME SIGPENDING STACK",
)

_FLAGS = "atime diratime relatime strictatime symfollow dev exec suid"
MOUNT_OPTIONS = frozenset[str]().union(
    _prefixed(
        "",
        "async bind defaults dirsync iversion lazytime loud mand noiversion nolazytime nomand private rbind remount "
        "ro rprivate rshared rslave runbindable rw shared silent slave sync unbindable rro rrw idmap ridmap tmpcopyup",
    ),
    *(_prefixed(start, _FLAGS) for start in ("", "no", "r", "rno")),
)
"""What a runtime understands itself; other options are the file system's own."""

SYSCTLS: tuple[tuple[str, str], ...] = (
    ("fs.mqueue.", "ipc"),
    ("kernel.msg", "ipc"),
    ("kernel.sem", "ipc"),
    ("kernel.shm", "ipc"),
    ("net.", "network"),
    ("kernel.domainname", "uts"),
    ("kernel.hostname", "uts"),
    ("user.", "user"),
)
"""The beginning of a namespaced sysctl's name, and its namespace."""


def namespaces_of(config: Config) -> dict[str, str]:
    """The configuration's namespaces by type, with the path to join or an empty one."""
    listed = (config.get("linux") or {}).get("namespaces") or ()
    return {each["type"]: each.get("path") or "" for each in listed}


def _version(config: Config) -> Iterator[Finding]:
    if not config["ociVersion"].startswith("1."):
        yield refused("ociVersion", f"expected a version 1.x.y, got {config['ociVersion']!r}")


def _process(config: Config) -> Iterator[Finding]:
    process = config.get("process")
    if process is None:
        yield refused("process", "this property is required before the container can be started")
        return
    if not process.get("args"):
        yield refused("process.args", "expected at least one argument")
    for n, item in enumerate(process.get("args") or ()):
        if "\0" in item:
            yield refused(f"process.args[{n}]", "it has a NUL in it")
    for n, item in enumerate(process.get("env") or ()):
        if "=" not in item or item.startswith("=") or "\0" in item:
            yield refused(f"process.env[{n}]", f"expected NAME=value, got {item[:64]!r}")
    if process.get("consoleSize") and not process.get("terminal"):
        yield ignored("process.consoleSize", "there is no terminal")
    if process.get("commandLine"):
        yield ignored("process.commandLine", "it is for Windows")
    if (process.get("user") or {}).get("username"):
        yield ignored("process.user.username", "it is for Windows; Linux takes uid and gid")


def _rlimits(config: Config) -> Iterator[Finding]:
    seen: set[str] = set()
    for n, limit in enumerate((config.get("process") or {}).get("rlimits") or ()):
        where = f"process.rlimits[{n}]"
        if limit["type"] not in RLIMITS:
            yield refused(where + ".type", f"there is no {limit['type']}")
        if limit["type"] in seen:
            yield refused(where + ".type", f"{limit['type']} is there twice")
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            yield refused(
                where + ".soft", f"{limit['soft']} is above the hard limit of {limit['hard']}"
            )


def _capabilities(config: Config) -> Iterator[Finding]:
    sets = (config.get("process") or {}).get("capabilities")
    if sets is None:
        return
    for kind, names in sets.items():
        for n, name in enumerate(names or ()):
            if name not in CAPABILITIES:
                yield ignored(
                    f"process.capabilities.{kind}[{n}]", f"there is no capability {name!r}"
                )
    has = {
        kind: set(sets.get(kind) or ())
        for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    for low, high in (
        ("effective", "permitted"),
        ("ambient", "permitted"),
        ("ambient", "inheritable"),
    ):
        for name in sorted(has[low] - has[high]):
            yield doubtful(
                f"process.capabilities.{low}", f"{name} has no effect, as it is not in {high}"
            )
    if has["inheritable"] - has["ambient"]:
        yield doubtful(
            "process.capabilities.inheritable",
            "programs with file capabilities would gain them (CVE-2022-29162)",
        )


def _schedule(config: Config) -> Iterator[Finding]:
    scheduler = (config.get("process") or {}).get("scheduler")
    if not scheduler:
        return
    policy = scheduler["policy"]
    realtime = policy in ("SCHED_FIFO", "SCHED_RR")
    if scheduler.get("priority") and not realtime:
        yield refused("process.scheduler.priority", f"{policy} has no priority")
    if realtime and not 1 <= scheduler.get("priority", 0) <= 99:
        yield refused(
            "process.scheduler.priority",
            f"expected 1 to 99 for {policy}, got {scheduler.get('priority', 0)}",
        )
    for name in ("runtime", "deadline", "period"):
        if scheduler.get(name) and policy != "SCHED_DEADLINE":
            yield refused(f"process.scheduler.{name}", f"it is for SCHED_DEADLINE, not {policy}")


def _mounts(config: Config) -> Iterator[Finding]:
    spaces = namespaces_of(config)
    for n, mount in enumerate(config.get("mounts") or ()):
        where = f"mounts[{n}]"
        options = mount.get("options") or []
        bind = "bind" in options or "rbind" in options
        if not mount["destination"].startswith("/"):
            yield doubtful(
                where + ".destination", f"{mount['destination']!r} is relative, which is deprecated"
            )
        if not bind and not mount.get("type"):
            yield refused(
                where + ".type", "expected a file system's type, or bind among the options"
            )
        if bind and not mount.get("source"):
            yield refused(where + ".source", "a bind mount needs one")
        yield from _mount_options(where, mount, options, bind)
        yield from _id_mapped(where, mount, options, spaces)


def _mount_options(where: str, mount: Config, options: list[str], bind: bool) -> Iterator[Finding]:
    data = [option for option in options if option not in MOUNT_OPTIONS]
    if bind and data:
        yield ignored(
            where + ".options", f"a bind mount has no options of a file system: {', '.join(data)}"
        )
    if "tmpcopyup" in options and mount.get("type") != "tmpfs":
        yield refused(where + ".options", "tmpcopyup is for tmpfs only")


def _id_mapped(
    where: str, mount: Config, options: list[str], spaces: Mapping[str, str]
) -> Iterator[Finding]:
    both = [bool(mount.get(name)) for name in ("uidMappings", "gidMappings")]
    mapped = "idmap" in options or "ridmap" in options
    if both[0] != both[1]:
        yield refused(where, "uidMappings and gidMappings must be both there, or neither")
    if mapped and not any(both) and "user" not in spaces:
        yield refused(
            where + ".options", "idmap without uidMappings needs a user namespace to take them from"
        )


def _names(config: Config) -> Iterator[Finding]:
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in namespaces_of(config):
            yield refused(name, f"unable to set {name} without a private UTS namespace")


def _namespaces(config: Config) -> Iterator[Finding]:
    seen: set[str] = set()
    linux = config.get("linux") or {}
    for n, each in enumerate(linux.get("namespaces") or ()):
        if each["type"] in seen:
            yield refused(
                f"linux.namespaces[{n}].type", f"the {each['type']} namespace is there twice"
            )
        seen.add(each["type"])
    for name, needed in (
        ("uidMappings", "user"),
        ("gidMappings", "user"),
        ("timeOffsets", "time"),
        ("netDevices", "network"),
    ):
        if linux.get(name) and needed not in seen:
            yield refused(f"linux.{name}", f"it needs a {needed} namespace")
    if namespaces_of(config).get("user") == "":
        for name in ("uidMappings", "gidMappings"):
            if not linux.get(name):
                yield refused(f"linux.{name}", "a new user namespace needs mappings")
    for name in linux.get("timeOffsets") or ():
        if name not in ("monotonic", "boottime"):
            yield refused(f"linux.timeOffsets.{name}", "expected monotonic or boottime")
    if "mount" not in seen and linux:
        yield refused("linux.namespaces", "a root file system of its own needs a mount namespace")


def _numbers(config: Config) -> Iterator[Finding]:
    """Lists of processors and of memory nodes, such as 0-3,7."""
    linux = config.get("linux") or {}
    policy = linux.get("memoryPolicy") or {}
    affinity = (config.get("process") or {}).get("execCPUAffinity") or {}
    listed = {f"process.execCPUAffinity.{name}": text for name, text in affinity.items()}
    for where, text in (*listed.items(), ("linux.memoryPolicy.nodes", policy.get("nodes"))):
        if text is not None and not _is_list(text):
            yield refused(where, f"expected numbers like 0-3,7, got {text[:64]!r}")
        elif where in listed and text is not None and not text.strip():
            yield refused(where, "it names no CPU")
    mode, nodes = policy.get("mode"), (policy.get("nodes") or "").strip()
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") and nodes:
        yield refused("linux.memoryPolicy.nodes", f"{mode} takes none")
    if mode not in (None, "MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED") and not nodes:
        yield refused("linux.memoryPolicy.nodes", f"{mode} needs at least one")
    if (linux.get("personality") or {}).get("flags"):
        yield refused("linux.personality.flags", "there are none")


_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")


def _is_list(text: str) -> bool:
    """Whether a runtime can read it: no number is above 65535."""
    found = [_RANGE.fullmatch(part.strip()) for part in text.split(",")] if text.strip() else []
    return all(one and int(one[1]) <= int(one[2] or one[1]) <= 65535 for one in found)


def _sysctls(config: Config) -> Iterator[Finding]:
    spaces = namespaces_of(config)
    for key in (config.get("linux") or {}).get("sysctl") or ():
        name = dotted(key)
        needed = next((space for start, space in SYSCTLS if name.startswith(start)), None)
        where = f"linux.sysctl.{key}"
        if {part.replace("/", ".") for part in name.split(".")} & {"", ".", ".."}:
            yield refused(where, "it is not the name of a sysctl")
        elif needed is None:
            yield refused(where, "it is not namespaced, so it would change the whole machine")
        elif name == "kernel.hostname":
            yield refused(where, "set hostname instead")
        elif needed not in spaces:
            yield refused(where, f"it needs a {needed} namespace")


def dotted(key: str) -> str:
    """A sysctl's name with dots between its parts, whichever way it is written.

    >>> dotted("net/ipv4/conf/eth0.1/forwarding"), dotted("net.ipv4.conf.eth0/1.forwarding")
    ('net.ipv4.conf.eth0/1.forwarding', 'net.ipv4.conf.eth0/1.forwarding')
    """
    slash, dot = key.find("/"), key.find(".")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key.translate(str.maketrans("/.", "./"))
    return key


def _devices(config: Config) -> Iterator[Finding]:
    seen: set[str] = set()
    for n, device in enumerate((config.get("linux") or {}).get("devices") or ()):
        where = f"linux.devices[{n}]"
        if device["path"] in seen:
            yield doubtful(where + ".path", f"{device['path']} is there twice")
        seen.add(device["path"])
        if device["type"] == "p":
            continue
        if device.get("major") is None or device.get("minor") is None:
            yield refused(where, "a device needs major and minor")
        elif not (0 <= device["major"] < 1 << 12 and 0 <= device["minor"] < 1 << 20):
            yield refused(where, "expected a major number to 4095 and a minor one to 1048575")


def _seccomp(config: Config) -> Iterator[Finding]:
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return
    where = "linux.seccomp"
    rules = profile.get("syscalls") or []
    notified = [n for n, rule in enumerate(rules) if rule["action"] == "SCMP_ACT_NOTIFY"]
    if profile["defaultAction"] == "SCMP_ACT_NOTIFY":
        yield refused(where + ".defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action")
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        yield refused(where + ".listenerMetadata", "it must not be set without listenerPath")
    if notified and not profile.get("listenerPath"):
        yield refused(where + ".listenerPath", "it must be set where a rule has SCMP_ACT_NOTIFY")
    if profile.get("listenerPath") and not notified:
        yield ignored(where + ".listenerPath", "no rule has SCMP_ACT_NOTIFY")
    for n in notified:
        if "write" in rules[n]["names"]:
            yield refused(
                f"{where}.syscalls[{n}].names",
                "SCMP_ACT_NOTIFY cannot be used for the write syscall",
            )
    pairs = [(where + ".defaultErrnoRet", profile["defaultAction"], profile.get("defaultErrnoRet"))]
    pairs += [
        (f"{where}.syscalls[{n}].errnoRet", rule["action"], rule.get("errnoRet"))
        for n, rule in enumerate(rules)
    ]
    for place, action, errno_ret in pairs:
        if errno_ret is not None and action not in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
            yield refused(place, f"the action {action} takes no errno")


def _resources_of(config: Config) -> Mapping[str, Any]:
    return (config.get("linux") or {}).get("resources") or {}


def _memory(config: Config) -> Iterator[Finding]:
    memory = _resources_of(config).get("memory") or {}
    where = "linux.resources.memory"
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if swap > 0 and limit == 0:
        yield refused(where + ".swap", "unable to set swap limit without memory limit")
    elif swap > 0 and limit > swap:
        yield refused(where + ".swap", "memory+swap limit should be >= memory limit")
    if limit > 0 and (memory.get("reservation") or 0) > limit:
        yield doubtful(where + ".reservation", "it is above the limit")
    for name in ("kernel", "kernelTCP", "useHierarchy"):
        if memory.get(name) is not None:
            yield ignored(f"{where}.{name}", "kernels have given it up")


def _limits(config: Config) -> Iterator[Finding]:
    resources = _resources_of(config)
    where = "linux.resources"
    cpu = resources.get("cpu") or {}
    if (cpu.get("burst") or 0) > (cpu.get("quota") or 0) > 0:
        yield refused(where + ".cpu.burst", f"{cpu['burst']} is above the quota of {cpu['quota']}")
    for n, device in enumerate((resources.get("blockIO") or {}).get("weightDevice") or ()):
        if device.get("weight") is None and device.get("leafWeight") is None:
            yield refused(f"{where}.blockIO.weightDevice[{n}]", "expected weight or leafWeight")
    for name in resources.get("unified") or ():
        if "/" in name or name.find(".") <= 0:
            expected = "expected the name of a control file, CONTROLLER.PARAMETER"
            yield refused(f"{where}.unified.{name}", expected)


def _net_devices(config: Config) -> Iterator[Finding]:
    targets: list[str] = []
    for name, device in ((config.get("linux") or {}).get("netDevices") or {}).items():
        target = (device or {}).get("name") or name
        for each, where in (
            (name, f"linux.netDevices.{name}"),
            (target, f"linux.netDevices.{name}.name"),
        ):
            if (
                not 1 <= len(each.encode()) <= 15
                or each in (".", "..")
                or set(each) & set("/: \t\n")
            ):
                yield refused(where, f"{each!r} is no name of a network device")
                break
        if target in targets and "%" not in target:
            yield refused(
                f"linux.netDevices.{name}.name", f"more than one device is to be named {target!r}"
            )
        targets.append(target)


def _cgroup_mount(config: Config) -> Iterator[Finding]:
    for n, mount in enumerate(config.get("mounts") or ()):
        writable = "ro" not in (mount.get("options") or ())
        if mount.get("type") == "cgroup" and writable and "cgroup" not in namespaces_of(config):
            yield doubtful(
                f"mounts[{n}]",
                "the host's cgroups would be writable: add ro or a cgroup namespace (CVE-2023-25809)",
            )


def _annotations(config: Config) -> Iterator[Finding]:
    for key in config.get("annotations") or ():
        if not key:
            yield refused("annotations", "a key must not be empty")


def _platforms(config: Config) -> Iterator[Finding]:
    for name in ("solaris", "windows", "vm", "zos", "freebsd"):
        if config.get(name):
            yield ignored(name, "this is for another platform than Linux")


def _deprecated(config: Config) -> Iterator[Finding]:
    if (config.get("hooks") or {}).get("prestart"):
        yield doubtful(
            "hooks.prestart",
            "it is deprecated; createRuntime, createContainer and startContainer replace it",
        )


Rule = Callable[[Config], Iterable[Finding]]
RULES: tuple[Rule, ...] = (
    _version, _process, _rlimits, _capabilities, _schedule, _mounts, _names, _namespaces, _numbers, _sysctls,
    _devices, _seccomp, _memory, _limits, _net_devices, _cgroup_mount, _annotations, _platforms, _deprecated,
)  # fmt: skip
