"""seccomp: from `linux.seccomp` to a filter in the kernel.

`prepare` runs in the parent and ends with bytes: libseccomp's filter behind our ENOSYS prologue, kept in a cache, since
compiling a real profile takes longer than everything else a container's start does. `load` runs in init and does
nothing but the one call. Nothing it needs is imported or allocated late, as most calls may be forbidden after it.
"""

from __future__ import annotations

import marshal
import posix
from _socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket
from _struct import pack

from argosy.runtime.errors import ConfigError, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.libseccomp import Context, Library

    Rule = dict[str, Any]

FORMAT = 1
"""Raised when what `compile_profile` makes of a profile changes, so that old cached filters are not used."""

WHERE = "linux.seccomp"

_ERRNO, _TRACE, _NOTIFY = 0x00050000, 0x7FF00000, 0x7FC00000

ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": _NOTIFY,
}

WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
"""Default actions that let a new call through, or leave it to a tracer: no ENOSYS is wanted."""

EPERM, ENOSYS = 1, 38

OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

ARCHITECTURES = {
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_MIPS": "mips",
    "SCMP_ARCH_MIPS64": "mips64",
    "SCMP_ARCH_MIPS64N32": "mips64n32",
    "SCMP_ARCH_MIPSEL": "mipsel",
    "SCMP_ARCH_MIPSEL64": "mipsel64",
    "SCMP_ARCH_MIPSEL64N32": "mipsel64n32",
    "SCMP_ARCH_PPC": "ppc",
    "SCMP_ARCH_PPC64": "ppc64",
    "SCMP_ARCH_PPC64LE": "ppc64le",
    "SCMP_ARCH_S390": "s390",
    "SCMP_ARCH_S390X": "s390x",
    "SCMP_ARCH_PARISC": "parisc",
    "SCMP_ARCH_PARISC64": "parisc64",
    "SCMP_ARCH_RISCV64": "riscv64",
    "SCMP_ARCH_LOONGARCH64": "loongarch64",
    "SCMP_ARCH_M68K": "m68k",
    "SCMP_ARCH_SH": "sh",
    "SCMP_ARCH_SHEB": "sheb",
}
"""libseccomp's own name by the specification's."""

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # init has one thread: all are in step
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}
DEFAULT_FLAGS = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
"""What a profile without `flags` gets, as clients have been used to before the property existed."""

NEW_LISTENER = 8
_WAIT_KILLABLE = 32
_SET_MODE_FILTER = 1

MANY = 32
"""From so many rules on, a binary tree is worth its longer compilation."""

MOST_INSTRUCTIONS = 65535
"""The kernel counts instructions in 16 bits; it refuses more than 4096 to a caller without rights by itself."""


class Filter:
    """A compiled filter and how to load it.

    Attributes:
        program: An array of `struct sock_filter`.
        flags: Flags of seccomp(2).
        listener_path: Where the notification descriptor is sent, or None when no rule notifies.
        metadata: What `listenerMetadata` gives the agent, or None.
    """

    __slots__ = ("flags", "listener_path", "metadata", "program")

    def __init__(
        self, program: bytes, flags: int, listener_path: str | None, metadata: str | None
    ) -> None:
        self.program = program
        self.flags = flags
        self.listener_path = listener_path
        self.metadata = metadata

    @property
    def notifies(self) -> bool:
        """Whether loading gives a descriptor of notifications."""
        return bool(self.flags & NEW_LISTENER)


def prepare(profile: dict[str, Any], cache_dir: str | None) -> Filter:
    """Compile a profile, or take it from the cache.

    Args:
        profile: `linux.seccomp`.
        cache_dir: A directory for compiled filters, made with mode 0700 when it is missing; None for no cache. One that
            others own or can enter is not used.

    Raises:
        ConfigError: The profile is invalid; the message names the property.
        Failure: libseccomp is not installed.
    """
    from argosy.runtime import filtercache
    from argosy.runtime.libseccomp import Library

    notifies = check(profile)
    library = Library()
    flags = flag_bits(profile, notifies)
    parts = [
        profile.get(name)
        for name in ("defaultAction", "defaultErrnoRet", "architectures", "syscalls")
    ]
    system = posix.uname()
    described = (
        FORMAT,
        parts,
        library.native(),
        library.version(),
        system.release,
        system.machine,
        flags,
    )
    key = marshal.dumps(described, 2)  # this version writes equal values alike
    program = filtercache.get(cache_dir, key)
    if program is None:
        program = compile_profile(library, profile)
        filtercache.put(cache_dir, key, program)
    return Filter(
        program,
        flags,
        profile.get("listenerPath") if notifies else None,
        profile.get("listenerMetadata") if notifies else None,
    )


def check(profile: dict[str, Any]) -> bool:
    """Check everything about a profile that needs no library; return whether a rule notifies.

    Raises:
        ConfigError: Something is invalid; the message names the property.
    """
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise ConfigError(f"{WHERE}.listenerMetadata", "must not be set without listenerPath")
    default = profile.get("defaultAction")
    if default == "SCMP_ACT_NOTIFY":
        raise ConfigError(
            f"{WHERE}.defaultAction", "SCMP_ACT_NOTIFY cannot be used as default action"
        )
    action_value(default, profile.get("defaultErrnoRet"), f"{WHERE}.default", "Action", "ErrnoRet")
    for n, name in enumerate(profile.get("architectures") or ()):
        _known(name, ARCHITECTURES, f"{WHERE}.architectures[{n}]", "arch")
    for n, name in enumerate(profile.get("flags") or ()):
        _known(name, FLAGS, f"{WHERE}.flags[{n}]", "flag")
    rules = profile.get("syscalls") or []
    for n, rule in enumerate(rules):
        _check_rule(rule, f"{WHERE}.syscalls[{n}]")
    notifies = any(rule["action"] == "SCMP_ACT_NOTIFY" for rule in rules)
    if notifies and not profile.get("listenerPath"):
        raise ConfigError(f"{WHERE}.listenerPath", "must be set where a rule has SCMP_ACT_NOTIFY")
    return notifies


def _check_rule(rule: Rule, where: str) -> None:
    action_value(rule.get("action"), rule.get("errnoRet"), where + ".", "action", "errnoRet")
    names = rule.get("names")
    if not names or not all(names):
        raise ConfigError(where + ".names", "must hold at least one name, and no empty one")
    if rule["action"] == "SCMP_ACT_NOTIFY" and "write" in names:
        raise ConfigError(where + ".names", "SCMP_ACT_NOTIFY cannot be used for the write syscall")
    for n, argument in enumerate(rule.get("args") or ()):
        _known(argument.get("op"), OPERATORS, f"{where}.args[{n}].op", "operator")
        index = argument.get("index")
        if type(index) is not int or not 0 <= index < 6:
            raise ConfigError(f"{where}.args[{n}].index", f"expected 0 to 5, got {index!r}")
        for name in ("value", "valueTwo"):
            value = argument.get(name, 0)
            if type(value) is not int or not 0 <= value < 1 << 64:
                raise ConfigError(f"{where}.args[{n}].{name}", f"expected 64 bits, got {value!r}")


def _known(name: Any, table: dict[str, Any], where: str, what: str) -> None:
    if name not in table:
        raise ConfigError(where, f"string {name} is not a valid {what} for seccomp")


def action_value(name: Any, errno_ret: Any, where: str, action_key: str, errno_key: str) -> int:
    """Return the kernel's value of an action.

    Raises:
        ConfigError: There is no such action, or it takes no errno.
    """
    _known(name, ACTIONS, where + action_key, "action")
    value = ACTIONS[name]
    if name not in WITH_ERRNO:
        if errno_ret is not None:
            raise ConfigError(where + errno_key, f"the action {name} takes no errno")
        return value
    if errno_ret is None:
        errno_ret = EPERM
    if type(errno_ret) is not int or not 0 <= errno_ret < 1 << 16:
        raise ConfigError(where + errno_key, f"expected 0 to 65535, got {errno_ret!r}")
    return value | int(errno_ret)


def flag_bits(profile: dict[str, Any], notifies: bool) -> int:
    """Return the flags of seccomp(2) for a profile."""
    names = profile.get("flags")
    bits = 0
    for name in DEFAULT_FLAGS if names is None else names:
        bits |= FLAGS[name]
    if notifies:
        return bits | NEW_LISTENER
    return (
        bits & ~_WAIT_KILLABLE
    )  # without a listener nothing waits, and the kernel refuses the flag


def compile_profile(library: Library, profile: dict[str, Any]) -> bytes:
    """Return the whole program for a profile that `check` has passed.

    Raises:
        ConfigError: libseccomp refuses something, or the program is too long for the kernel.
    """
    from argosy.runtime import libseccomp

    default = action_value(
        profile["defaultAction"],
        profile.get("defaultErrnoRet"),
        f"{WHERE}.default",
        "Action",
        "ErrnoRet",
    )
    context = libseccomp.Context(library, default)
    try:
        for n, name in enumerate(profile.get("architectures") or ()):
            where = f"{WHERE}.architectures[{n}]"
            context.add_architecture(_token(library, name, where), where)
        rules = profile.get("syscalls") or []
        if sum(len(rule["names"]) for rule in rules) > MANY:
            context.optimize()
        for n, rule in enumerate(rules):
            _add_rule(context, rule, default, f"{WHERE}.syscalls[{n}]")
        program = _prologue(library, profile) + context.export()
    finally:
        context.release()
    if len(program) // 8 > MOST_INSTRUCTIONS:
        raise ConfigError(
            WHERE,
            f"the profile needs {len(program) // 8} instructions, the kernel takes {MOST_INSTRUCTIONS}",
        )
    return program


def _token(library: Library, name: str, where: str) -> int:
    token = library.architecture(ARCHITECTURES[name])
    if not token:
        version = ".".join(map(str, library.version()))
        raise ConfigError(where, f"libseccomp {version} does not know {name}")
    return token


def _add_rule(context: Context, rule: Rule, default: int, where: str) -> None:
    action = action_value(rule["action"], rule.get("errnoRet"), where + ".", "action", "errnoRet")
    if action == default:
        return  # it says what happens anyway, and libseccomp refuses it
    alternatives = conditions(rule.get("args") or [])
    for name in rule["names"]:
        number = context.library.number(name)
        if number == -1:
            continue  # a call this libseccomp does not know: newer or older than it
        for each in alternatives:
            context.add(action, number, each, f"{where}: {name}")


def conditions(arguments: list[Rule]) -> list[list[tuple[int, int, int, int]]]:
    """Return the alternatives that `args` come to, each a list of conditions that must hold together.

    Conditions on different arguments must hold together; where one argument has several, every condition of the rule
    stands for itself, as runc has it and profiles rely on.
    """
    found = [
        (each["index"], OPERATORS[each["op"]], each.get("value", 0), each.get("valueTwo", 0))
        for each in arguments
    ]
    if len({each[0] for each in found}) < len(found):
        return [[each] for each in found]
    return [found]


def _prologue(library: Library, profile: dict[str, Any]) -> bytes:
    """Return the ENOSYS prologue, unless the profile's default does as well without."""
    from argosy.runtime import enosys

    if profile["defaultAction"] in PERMISSIVE or profile.get("defaultErrnoRet") == ENOSYS:
        return b""
    tokens = {library.architecture(own): name for name, own in ARCHITECTURES.items()}
    wanted = [*(profile.get("architectures") or ()), tokens[library.native()]]
    names = {name for rule in profile.get("syscalls") or () for name in rule["names"]}
    highest = {}
    for architecture in dict.fromkeys(wanted):
        token = _token(library, architecture, WHERE)
        numbers = [library.number(name, token) for name in names]
        if max(numbers, default=-1) > 0:
            highest[architecture] = max(numbers)
    return enosys.prologue(highest)


def load(kernel: LinuxKernel, prepared: Filter) -> int | None:
    """Load a filter into the calling process, in init and right before what it is for.

    Returns:
        The descriptor of notifications, which the parent fetches by its number, or None.

    Raises:
        KernelError: The kernel refused: EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a program or flag.
    """
    result = kernel.seccomp(_SET_MODE_FILTER, prepared.flags, prepared.program)
    return result if prepared.flags & NEW_LISTENER else None


def send_listener(prepared: Filter, fd: int, container_process_state: bytes) -> None:
    """Send the descriptor of notifications to the agent, with one container process state, and hang up.

    Args:
        prepared: The filter, for its `listener_path`.
        fd: The descriptor, in this process.
        container_process_state: The state as JSON.

    Raises:
        Failure: The agent is not there, or does not take it.
    """
    path = prepared.listener_path or ""
    link = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        link.settimeout(10.0)
        link.connect(path)
        sent = link.sendmsg([container_process_state], [(SOL_SOCKET, SCM_RIGHTS, pack("=i", fd))])
        if sent < len(container_process_state):
            link.sendall(container_process_state[sent:])
    except OSError as error:
        why = posix.strerror(error.errno).lower() if error.errno else str(error)
        raise Failure(f"failed to send seccomp descriptor to listener {path}: {why}") from None
    finally:
        link.close()
