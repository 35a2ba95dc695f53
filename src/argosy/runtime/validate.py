"""What config.json must not say, beyond its shape; pure, in runc's words where clients know them."""

from __future__ import annotations

from argosy.runtime import tables
from argosy.runtime.errors import ConfigError
from argosy.runtime.options import is_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

_HOOK_NAMES = (
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
)
_PROPAGATIONS = tuple(tables.PROPAGATION)


def validate(
    config: dict[str, Any],
    *,
    ours: Collection[str] = (),
    selinux: bool = False,
    rootless: bool = False,
) -> None:
    """Refuse what cannot be done.

    Args:
        config: the document, in its shape.
        ours: types of the namespaces to join that are the runtime's own.
        selinux: SELinux is enabled.
        rootless: the caller has no privileges outside a user namespace.

    Raises:
        ConfigError: the first property found wrong.
    """
    _version(config)
    if not config.get("root", {}).get("path"):
        raise ConfigError("root.path", "is missing")
    linux = config.get("linux", {})
    spaces = namespaces(linux)
    _uts(config, spaces)
    _isolation(linux, spaces, selinux)
    _user_namespace(linux, spaces)
    _time_namespace(linux, spaces)
    for key in linux.get("sysctl", ()):
        check_sysctl(key, spaces.keys() - set(ours))
    _netdevices(linux, spaces, rootless)
    _numa(linux)
    _words(linux)
    _hooks(config)
    _devices(linux)
    if "process" in config:
        validate_process(config["process"], selinux=selinux)


def validate_process(process: dict[str, Any], *, selinux: bool = False) -> None:
    """The same for ``process`` alone, as ``exec --process`` takes it."""
    if not process.get("args"):
        raise ConfigError("process.args", "must not be empty")
    if not process.get("cwd"):
        raise ConfigError("", "Cwd property must not be empty")
    if not process["cwd"].startswith("/"):
        raise ConfigError("", "Cwd must be an absolute path")
    if process.get("selinuxLabel") and not selinux:
        raise ConfigError(
            "", "selinux label is specified in config, but selinux is disabled or not supported"
        )
    _rlimits(process)
    _scheduler(process.get("scheduler"))
    _io_priority(process.get("ioPriority"))
    affinity(process)
    _environment(process.get("env", ()))


def namespaces(linux: dict[str, Any]) -> dict[str, str]:
    """Namespace types of the configuration to the path to join, "" for a new one.

    Raises:
        ConfigError: a type is unknown or there twice.
    """
    spaces: dict[str, str] = {}
    for index, entry in enumerate(linux.get("namespaces", ())):
        kind = entry.get("type")
        if kind not in tables.NAMESPACES:
            known = ", ".join(tables.NAMESPACES)
            raise ConfigError(
                f"linux.namespaces[{index}].type",
                f'namespace "{kind}" does not exist (known: {known})',
            )
        if kind in spaces:
            raise ConfigError(
                f"linux.namespaces[{index}]", f'malformed spec file: duplicated ns "{kind}"'
            )
        path = entry.get("path", "")
        if path and not path.startswith("/"):
            raise ConfigError(f"linux.namespaces[{index}].path", f"must be absolute, got {path!r}")
        spaces[kind] = path
    return spaces


def _version(config: dict[str, Any]) -> None:
    version = config.get("ociVersion", "")
    numbers = version.split("-", 1)[0].split("+", 1)[0].split(".")
    if len(numbers) != 3 or not all(part.isdigit() for part in numbers):
        raise ConfigError("ociVersion", f"expected a version like 1.3.0, got {version!r}")
    if numbers[0] != "1":
        raise ConfigError("ociVersion", f"unsupported version {version}: this runtime knows 1.*")


def _uts(config: dict[str, Any], spaces: dict[str, str]) -> None:
    for name in ("hostname", "domainname"):
        if config.get(name) and "uts" not in spaces:
            raise ConfigError("", f"unable to set {name} without a private UTS namespace")


def _isolation(linux: dict[str, Any], spaces: dict[str, str], selinux: bool) -> None:
    if "mount" not in spaces and (linux.get("maskedPaths") or linux.get("readonlyPaths")):
        raise ConfigError("", "unable to restrict sys entries without a private MNT namespace")
    for name in ("maskedPaths", "readonlyPaths"):
        for index, path in enumerate(linux.get(name, ())):
            if not path.startswith("/"):
                raise ConfigError(f"linux.{name}[{index}]", f"must be absolute, got {path!r}")
    if linux.get("mountLabel") and not selinux:
        raise ConfigError("linux.mountLabel", "SELinux is disabled or not supported")


def _user_namespace(linux: dict[str, Any], spaces: dict[str, str]) -> None:
    mapped = linux.get("uidMappings") or linux.get("gidMappings")
    if "user" not in spaces:
        if mapped:
            raise ConfigError(
                "",
                "user namespace mappings specified, but user namespace isn't enabled in the config",
            )
        return
    if not spaces["user"] and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise ConfigError(
            "",
            "user namespaces enabled, but no namespace path to join nor mappings to apply specified",
        )
    for name in ("uidMappings", "gidMappings"):
        for index, entry in enumerate(linux.get(name, ())):
            if not entry["size"]:
                raise ConfigError(f"linux.{name}[{index}].size", "must be above 0")


def _time_namespace(linux: dict[str, Any], spaces: dict[str, str]) -> None:
    offsets = linux.get("timeOffsets")
    if not offsets:
        return
    if "time" not in spaces:
        raise ConfigError(
            "", "time namespace offsets specified, but time namespace isn't enabled in the config"
        )
    if spaces["time"]:
        why = "both namespace path and time offsets specified -- you may only provide one"
        raise ConfigError("", f"time namespace enabled, but {why}")
    for clock in offsets:
        if clock not in ("monotonic", "boottime"):
            raise ConfigError(
                f"linux.timeOffsets.{clock}", "unknown clock (known: monotonic, boottime)"
            )


def sysctl_name(key: str) -> str:
    """A key in its dotted form; ``a/b.c`` is ``a.b/c`` (sysctl.d(5))."""
    first = min((key.find(sign) for sign in "./" if sign in key), default=-1)
    if first < 0 or key[first] == ".":
        return key
    return key.translate({46: "/", 47: "."})


def check_sysctl(key: str, own: Collection[str]) -> None:
    """Refuse a sysctl that is not of a namespace of the container's own.

    Args:
        key: as it was written.
        own: types of the namespaces that are.

    Raises:
        ConfigError: it is not, or it is no name of one.
    """
    sysctl_path(key)
    why = _sysctl_refused(sysctl_name(key), own)
    if why:
        raise ConfigError("", why)


def sysctl_path(key: str) -> str:
    """A key's path below /proc/sys.

    Raises:
        ConfigError: it leads elsewhere (CVE-2022-0811): ``net/../kernel/core_pattern`` is the machine's.
    """
    # a slash stands for a dot, so that ``//`` is the directory above
    parts = [part.replace("/", ".") for part in sysctl_name(key).split(".")]
    if any(part in ("", ".", "..") for part in parts):
        raise ConfigError("linux.sysctl", f'"{key}" is not the name of a sysctl')
    return "/".join(parts)


def _sysctl_refused(name: str, own: Collection[str]) -> str | None:
    """Why a sysctl cannot be the container's own, if so: a namespace that is joined may be the machine's too."""
    if name in tables.IPC_SYSCTLS or name.startswith("fs.mqueue."):
        return (
            None if "ipc" in own else f'sysctl "{name}" is not allowed in the hosts ipc namespace'
        )
    if name.startswith("net."):
        return (
            None if "network" in own else f'sysctl "{name}" not allowed in host network namespace'
        )
    if name == "kernel.domainname" and "uts" in own:
        return None
    if name == "kernel.hostname" and "uts" in own:
        return f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
    if name.startswith("user."):
        return (
            None
            if "user" in own
            else f"setting ucounts without a user namespace not allowed: {name}"
        )
    return f'sysctl "{name}" is not in a separate kernel namespace'


def _interface(name: str) -> bool:
    return (
        0 < len(name) < 16 and name not in (".", "..") and not any(sign in name for sign in "/: ")
    )


def _netdevices(linux: dict[str, Any], spaces: dict[str, str], rootless: bool) -> None:
    devices = linux.get("netDevices")
    if not devices:
        return
    if "network" not in spaces:
        raise ConfigError("", "unable to move network devices without a NET namespace")
    if rootless:
        raise ConfigError("", "network devices are not supported for rootless containers")
    for name, device in devices.items():
        for given in (name, device.get("name") or name):
            if not _interface(given):
                raise ConfigError("", f'invalid network device name "{given}"')


def _choice(value: Any, known: Iterable[str], where: str) -> None:
    if value not in known:
        raise ConfigError(where, f'unknown value "{value}" (known: {", ".join(known)})')


def affinity(process: dict[str, Any]) -> tuple[list[int] | None, list[int] | None]:
    """The CPUs that `exec` starts a process on, and those it then has; None where nobody says.

    Raises:
        ConfigError: a list is none, or empty.
    """
    found: list[list[int] | None] = []
    for name in ("initial", "final"):
        where = f"process.execCPUAffinity.{name}"
        text = process.get("execCPUAffinity", {}).get(name)
        found.append(cpulist(text, where) if text is not None else None)
        if found[-1] == []:
            raise ConfigError(where, f"{text!r} names no CPU")
    return found[0], found[1]


def _numa(linux: dict[str, Any]) -> None:
    policy = linux.get("memoryPolicy")
    if policy is None:
        return
    mode = policy.get("mode", "")
    if mode not in tables.MEMORY_MODES:
        raise ConfigError(
            "", f'invalid memory policy mode "{mode}" (known: {", ".join(tables.MEMORY_MODES)})'
        )
    for flag in policy.get("flags", ()):
        if flag not in tables.MEMORY_FLAGS:
            raise ConfigError(
                "", f'invalid memory policy flag "{flag}" (known: {", ".join(tables.MEMORY_FLAGS)})'
            )
    nodes = cpulist(policy.get("nodes", ""), "invalid memory policy nodes")
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") and nodes:
        raise ConfigError("", f"memory policy mode requires 0 nodes but got {len(nodes)}")
    if mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED") and not nodes:
        raise ConfigError("", "memory policy mode requires at least one node but got 0")


def cpulist(text: str, where: str) -> list[int]:
    """The numbers of a list like ``0-3,7``.

    Raises:
        ConfigError: it is not one, or a number is above 65535.
    """
    numbers: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        low, dash, high = part.strip().partition("-")
        if not is_number(low) or (dash and not is_number(high)):
            raise ConfigError(where, f'"{text}" is not a list like 0-3,7')
        first, last = int(low), int(high or low)
        if last < first or last > 65535:
            raise ConfigError(where, f'"{part}" is not a range of 0 to 65535')
        numbers.update(range(first, last + 1))
    return sorted(numbers)


def _words(linux: dict[str, Any]) -> None:
    propagation = linux.get("rootfsPropagation")
    if propagation:
        _choice(propagation, _PROPAGATIONS, "linux.rootfsPropagation")
    personality = linux.get("personality")
    if personality:
        _choice(personality.get("domain"), tables.PERSONALITIES, "linux.personality.domain")
        if personality.get("flags"):
            raise ConfigError("linux.personality.flags", "no flags are known")
    rdt = linux.get("intelRdt")
    if rdt:
        closid = rdt.get("closID", "")
        if closid in (".", "..") or (len(closid) > 1 and "/" in closid):
            raise ConfigError("", f'invalid intelRdt.ClosID "{closid}"')


def _hooks(config: dict[str, Any]) -> None:
    for name in _HOOK_NAMES:
        for index, hook in enumerate(config.get("hooks", {}).get(name, ())):
            where = f"hooks.{name}[{index}]"
            if not hook.get("path", "").startswith("/"):
                raise ConfigError(f"{where}.path", f"must be absolute, got {hook.get('path')!r}")
            if hook.get("timeout", 1) <= 0:
                raise ConfigError(f"{where}.timeout", f"must be above 0, got {hook['timeout']}")


def _devices(linux: dict[str, Any]) -> None:
    for index, device in enumerate(linux.get("devices", ())):
        where = f"linux.devices[{index}]"
        _choice(device.get("type"), ("c", "b", "u", "p"), f"{where}.type")
        if not device.get("path", "").startswith("/"):
            raise ConfigError(f"{where}.path", f"must be absolute, got {device.get('path')!r}")
        if device["type"] != "p" and not {"major", "minor"} <= device.keys():
            raise ConfigError(where, "needs major and minor")


def _rlimits(process: dict[str, Any]) -> None:
    seen = set()
    for index, limit in enumerate(process.get("rlimits", ())):
        kind = limit.get("type", "")
        if kind not in tables.RLIMITS:
            raise ConfigError(f"process.rlimits[{index}].type", f'invalid rlimit type "{kind}"')
        if kind in seen:
            raise ConfigError(
                f"process.rlimits[{index}].type", f'rlimit type "{kind}" is there twice'
            )
        seen.add(kind)
        if limit.get("soft", 0) > limit.get("hard", 0):
            raise ConfigError(
                f"process.rlimits[{index}]", f"soft limit {limit['soft']} is above the hard limit"
            )


def _scheduler(scheduler: dict[str, Any] | None) -> None:
    if scheduler is None:
        return
    policy = scheduler.get("policy")
    if not policy:
        raise ConfigError("", "scheduler policy is required")
    _choice(policy, tables.SCHED_POLICIES, "process.scheduler.policy")
    for flag in scheduler.get("flags", ()):
        _choice(flag, tables.SCHED_FLAGS, "process.scheduler.flags")
    nice = scheduler.get("nice", 0)
    if policy in ("SCHED_OTHER", "SCHED_BATCH") and not -20 <= nice <= 19:
        raise ConfigError("", f"invalid scheduler.nice: {nice} when scheduler.policy is {policy}")
    if scheduler.get("priority") and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise ConfigError(
            "", "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
        )
    if policy != "SCHED_DEADLINE" and any(
        scheduler.get(name) for name in ("runtime", "deadline", "period")
    ):
        why = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
        raise ConfigError("", why)


def _io_priority(priority: dict[str, Any] | None) -> None:
    if priority is None:
        return
    if not 0 <= priority.get("priority", 0) <= 7:
        raise ConfigError("", f"invalid ioPriority.Priority: {priority['priority']}")
    kind = priority.get("class", "")
    if kind not in tables.IO_CLASSES:
        raise ConfigError("", f'invalid ioPriority.Class: "{kind}"')


def _environment(environment: Iterable[str]) -> None:
    for entry in environment:
        if entry.startswith("="):
            raise ConfigError("", "invalid environment variable: name cannot be empty")
        if "=" not in entry:
            raise ConfigError("", "invalid environment variable: missing '='")
