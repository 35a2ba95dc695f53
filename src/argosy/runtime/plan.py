"""config.json to the steps that the container's init takes, in their order; pure, golden-tested without root.

A step is a tuple: the name of a function in `steps.STEPS` and its arguments, all of them plain values. What depends on
the machine (which files exist, what the kernel can do) is decided by the step when it is taken; what depends on the
configuration is decided here.
"""

from __future__ import annotations

from argosy.runtime import kernel as k
from argosy.runtime import tables
from argosy.runtime.mountplan import parse
from argosy.runtime.validate import cpulist, namespaces, sysctl_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Step = tuple[Any, ...]


PROGRAM = "argosy.program"
"""An annotation: what the first process is there to run. It is looked up too, while an error can still be told."""


class Situation:
    """What the command line and the bundle add to the configuration.

    Attributes:
        cid: the container's ID.
        rootfs: absolute path of the root file system, without symbolic links.
        bundle: absolute path of the bundle.
        rootless: the caller has no privileges outside a user namespace.
        no_pivot: move the root mount instead of pivot_root(2).
        keyring: join a session keyring of the container's own.
        console: a console is made and its master sent.
        keep_fds: descriptors from 3 on that the process keeps.
        waits: the process waits for ``start`` (create), or goes on at once (run).
        environment: what is added to ``process.env``.
    """

    __slots__ = (
        "bundle", "cid", "console", "environment", "keep_fds", "keyring", "no_pivot", "rootfs", "rootless", "waits",
    )  # fmt: skip

    def __init__(
        self,
        cid: str,
        rootfs: str,
        bundle: str = "/",
        *,
        rootless: bool = False,
        no_pivot: bool = False,
        keyring: bool = True,
        console: bool = False,
        keep_fds: int = 0,
        waits: bool = True,
        environment: tuple[str, ...] = (),
    ) -> None:
        self.cid = cid
        self.rootfs = rootfs
        self.bundle = bundle
        self.rootless = rootless
        self.no_pivot = no_pivot
        self.keyring = keyring
        self.console = console
        self.keep_fds = keep_fds
        self.waits = waits
        self.environment = environment


def plan(config: dict[str, Any], situation: Situation) -> tuple[Step, ...]:
    """The steps of a new container's init.

    Args:
        config: a configuration that `validate.validate` accepted.
        situation: where and how it is run.

    Raises:
        ConfigError: mount options that contradict each other.

    Example:
        >>> config = {"root": {"path": "/r"}, "process": {"args": ["/x"], "cwd": "/"}, "linux": {}}
        >>> [step[0] for step in plan(config, Situation("c", "/r"))][:3]
        ['keyring', 'root', 'devices']
    """
    linux = config.get("linux", {})
    spaces = namespaces(linux)
    process = config.get("process", {})
    mounts = [
        parse(entry, f"mounts[{index}]", situation.bundle, situation.rootfs)
        for index, entry in enumerate(config.get("mounts", ()))
    ]
    return (
        *_keyring(situation, spaces, process),
        *_loopback(spaces),
        *_rootfs(config, situation, spaces, mounts),
        *_console(process),
        *_finish_rootfs(config, spaces, mounts),
        *_names(config),
        *_security_paths(linux, process),
        *_scheduling(process, linux),
        ("ready",),
        *process_steps(
            process,
            linux,
            situation,
            hooked=bool(config.get("hooks", {}).get("startContainer")),
            program=config.get("annotations", {}).get(PROGRAM, ""),
        ),
    )


def exec_plan(
    process: dict[str, Any], config: dict[str, Any], situation: Situation
) -> tuple[Step, ...]:
    """The steps of one more process in a container that is there (``exec``)."""
    linux = config.get("linux", {})
    mount = "mount" in namespaces(linux)
    return (
        ("enter_root",),
        *_keyring(situation, namespaces(linux), process, join=True),
        *((("reopen_null", True),) if mount else ()),
        *_console(process, bind=False),
        ("umask", process.get("user", {}).get("umask", 0o022)),
        *((("apparmor", process["apparmorProfile"]),) if process.get("apparmorProfile") else ()),
        *_scheduling(
            process,
            {name: linux[name] for name in ("personality", "memoryPolicy") if name in linux},
        ),
        ("ready",),
        *process_steps(process, linux, situation, joined=True),
    )


def _keyring(
    situation: Situation, spaces: dict[str, str], process: dict[str, Any], *, join: bool = False
) -> tuple[Step, ...]:
    if not situation.keyring:
        return ()
    permission = 0x8 if "user" in spaces else 0x80000
    return (
        (
            "keyring",
            f"_ses.{situation.cid}",
            0 if join else permission,
            process.get("selinuxLabel", ""),
        ),
    )


def _loopback(spaces: dict[str, str]) -> tuple[Step, ...]:
    return (("loopback",),) if spaces.get("network") == "" else ()


def _rootfs(
    config: dict[str, Any],
    situation: Situation,
    spaces: dict[str, str],
    mounts: list[dict[str, Any]],
) -> tuple[Step, ...]:
    linux = config.get("linux", {})
    label = linux.get("mountLabel", "")
    propagation = tables.PROPAGATION.get(linux.get("rootfsPropagation", ""), (0, False))
    own = "mount" in spaces
    set_up_dev = not any(
        entry["bind"] and _clean(entry["destination"]) == "/dev" for entry in mounts
    )
    flag = propagation[0] | (k.MS_REC if propagation[1] else 0)
    steps: list[Step] = [("root", situation.rootfs, flag, own)]
    for index, entry in enumerate(mounts):
        if entry["ignored"]:
            text = ",".join(entry["ignored"])
            steps.append(
                ("warn", f"mounts[{index}]: ignoring what a bind mount cannot have: {text}")
            )
        steps.append(("mount", index, entry, label))
    if set_up_dev:
        steps += [("devices", devices(linux), "user" in spaces), ("device_links",)]
    if linux.get("maskedPaths"):
        steps.append(("hold_null",))
    steps += [("hooks",), ("container_hooks", config.get("hooks", {}).get("createContainer", []))]
    steps.append(
        ("move_root", situation.rootfs)
        if situation.no_pivot
        else (("pivot",) if own else ("chroot",))
    )
    if flag and not propagation[0] & (k.MS_PRIVATE | k.MS_SLAVE):
        steps.append(("root_propagation", flag))
    if set_up_dev:
        steps.append(("reopen_null",))
    cwd = config.get("process", {}).get("cwd")
    if cwd:
        steps.append(("make_cwd", cwd))
    return tuple(steps)


def devices(linux: dict[str, Any]) -> list[tuple[str, str, int, int, int, int, int]]:
    """Every device node: (path, type, major, minor, mode, uid, gid); the configuration's win over the defaults."""
    given = [
        (
            device["path"], device["type"], device.get("major", 0), device.get("minor", 0),
            device.get("fileMode", 0o666) & 0o7777, device.get("uid", 0), device.get("gid", 0),
        )
        for device in linux.get("devices", ())
    ]  # fmt: skip
    paths = {_clean(device[0]) for device in given}
    default = [
        (path, "c", major, minor, 0o666, 0, 0) for path, major, minor in tables.DEFAULT_DEVICES
    ]
    return [d for d in default if d[0] not in paths] + [
        d for d in given if _clean(d[0]) != "/dev/ptmx"
    ]


def _clean(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _console(process: dict[str, Any], *, bind: bool = True) -> tuple[Step, ...]:
    steps: list[Step] = []
    if process.get("terminal"):
        size = process.get("consoleSize", {})
        steps.append(("console", size.get("height", 0), size.get("width", 0), bind))
    return (*steps, ("pidfd", "standard" if bind else "setns"))


def _finish_rootfs(
    config: dict[str, Any], spaces: dict[str, str], mounts: list[dict[str, Any]]
) -> tuple[Step, ...]:
    steps: list[Step] = []
    if "mount" in spaces:
        steps += [
            ("readonly_mount", entry["destination"])
            for entry in mounts
            if entry["set"] & k.MOUNT_ATTR_RDONLY and late_readonly(entry)
        ]
        if config["root"].get("readonly"):
            steps.append(("readonly_root",))
    return (*steps, ("umask", config.get("process", {}).get("user", {}).get("umask", 0o022)))


def late_readonly(entry: dict[str, Any]) -> bool:
    """Whether a mount becomes read-only only after everything was set up in it."""
    return entry["type"] == "tmpfs" or _clean(entry["destination"]) == "/dev"


def _names(config: dict[str, Any]) -> tuple[Step, ...]:
    return tuple((name, config[name]) for name in ("hostname", "domainname") if config.get(name))


def _security_paths(linux: dict[str, Any], process: dict[str, Any]) -> tuple[Step, ...]:
    steps: list[Step] = []
    if process.get("apparmorProfile"):
        steps.append(("apparmor", process["apparmorProfile"]))
    for key, value in linux.get("sysctl", {}).items():
        steps.append(("sysctl", sysctl_path(key), value))
    steps += [("readonly_path", path) for path in linux.get("readonlyPaths", ())]
    if linux.get("maskedPaths"):
        paths = list(dict.fromkeys(_clean(path) for path in linux["maskedPaths"]))
        steps.append(("masked_paths", paths, linux.get("mountLabel", "")))
    return tuple(steps)


def _scheduling(process: dict[str, Any], linux: dict[str, Any]) -> tuple[Step, ...]:
    steps: list[Step] = []
    if process.get("noNewPrivileges"):
        steps.append(("no_new_privileges",))
    if process.get("scheduler"):
        steps.append(("scheduler", *_sched(process["scheduler"])))
    if process.get("ioPriority"):
        priority = process["ioPriority"]
        steps.append(
            (
                "io_priority",
                tables.IO_CLASSES[priority["class"]] << 13 | priority.get("priority", 0),
            )
        )
    if linux.get("personality"):
        steps.append(("personality", tables.PERSONALITIES[linux["personality"]["domain"]]))
    if linux.get("memoryPolicy") is not None:
        steps.append(("memory_policy", *_mempolicy(linux["memoryPolicy"])))
    return tuple(steps)


def _sched(scheduler: dict[str, Any]) -> tuple[int, ...]:
    flags = 0
    for flag in scheduler.get("flags", ()):
        flags |= tables.SCHED_FLAGS[flag]
    numbers = [
        scheduler.get(name, 0) for name in ("nice", "priority", "runtime", "deadline", "period")
    ]
    return (tables.SCHED_POLICIES[scheduler["policy"]], flags, *numbers)


def _mempolicy(policy: dict[str, Any]) -> tuple[int, int]:
    mode = tables.MEMORY_MODES[policy["mode"]]
    for flag in policy.get("flags", ()):
        mode |= tables.MEMORY_FLAGS[flag]
    mask = 0
    for node in cpulist(policy.get("nodes", ""), "linux.memoryPolicy.nodes"):
        mask |= 1 << node
    return mode, mask


def process_steps(
    process: dict[str, Any],
    linux: dict[str, Any],
    situation: Situation,
    *,
    joined: bool = False,
    hooked: bool = False,
    program: str = "",
) -> tuple[Step, ...]:
    """The last steps of every process: labels, filter, user, capabilities, and its program."""
    user = process.get("user", {})
    seccomp = bool(linux.get("seccomp"))
    late = bool(process.get("noNewPrivileges"))
    notify = seccomp and any(
        rule.get("action") == "SCMP_ACT_NOTIFY" for rule in linux["seccomp"].get("syscalls", ())
    )
    steps: list[Step] = []
    if process.get("selinuxLabel"):
        steps.append(("selinux_exec", process["selinuxLabel"]))
    if seccomp and not late:
        steps.append(("seccomp",))
    masks, unknown = capability_masks(process.get("capabilities") or {})
    if unknown:
        steps.append(
            ("warn", f"ignoring unknown or unavailable capabilities: [{' '.join(unknown)}]")
        )
    environment = [*process.get("env", ()), *situation.environment]
    steps += [
        ("environment", environment, user.get("uid", 0)),
        ("enter", process.get("cwd", "/")),
        ("bounding", masks["bounding"]),
        (
            "user",
            user.get("uid", 0),
            user.get("gid", 0),
            list(user.get("additionalGids", ())),
            situation.rootless,
        ),
        ("cwd", process.get("cwd", "/")),
        ("capabilities", masks),
        *((("program", [program]),) if program else ()),
        ("program", list(process.get("args", ()))),
    ]
    if seccomp and late and notify:
        steps.append(("seccomp",))
    steps.append(("wait",) if situation.waits else ("release",))
    last = seccomp and late and not notify
    if hooked and last:  # the filter holds for the container's hooks too
        steps.append(("seccomp",))
        last = False
    if not joined:
        steps.append(("start_hooks",))
    steps.append(("execute", situation.keep_fds, last))
    return tuple(steps)


def capability_masks(capabilities: dict[str, list[str]]) -> tuple[dict[str, int], list[str]]:
    """Bit masks of the five sets, missing ones empty, and the names nobody knows.

    Example:
        >>> capability_masks({"bounding": ["CAP_KILL", "CAP_X"]})[0]["bounding"] == 1 << 5
        True
    """
    masks = dict.fromkeys(tables.CAPABILITY_SETS, 0)
    unknown: list[str] = []
    for name in tables.CAPABILITY_SETS:
        for capability in capabilities.get(name, ()):
            number = tables.CAPABILITIES.get(capability.upper())
            if number is None:
                unknown.append(capability)
            else:
                masks[name] |= 1 << number
    return masks, list(dict.fromkeys(unknown))
