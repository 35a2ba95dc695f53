"""The process itself: who it is, what it may do, and its program."""

from __future__ import annotations

import posix
from errno import EACCES, EINVAL, ENOSYS, EPERM, EROFS

from argosy.runtime import kernel as k
from argosy.runtime.errors import Failure, StartError
from argosy.runtime.inroot import S_IFDIR, S_IFMT, S_IFREG
from argosy.runtime.rootfs import _is_null
from argosy.runtime.tables import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.runtime.steps import Context

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSWD_LIMIT = 1 << 20
_LINE_LIMIT = 4096
_LAST = 63


def join_keyring(context: Context, name: str, permission: int, label: str) -> None:
    """A session keyring of the container's own, searchable by the user; kernels without keyrings are forgiven."""
    if label:
        context.proc.write_own(b"attr/keycreate", label.encode())
    try:
        ring = context.kernel.keyctl(k.KEYCTL_JOIN_SESSION_KEYRING, name.encode())
    except k.KernelError as error:
        if error.errno != ENOSYS:
            error.add_note("unable to join session keyring")
            raise
        return
    finally:
        if label:
            context.proc.write_own(b"attr/keycreate", b"")
    if permission:
        _permit(context, ring, permission)


def _permit(context: Context, ring: int, permission: int) -> None:
    text = bytearray(1024)
    held = k.buffer(text)
    context.kernel.keyctl(k.KEYCTL_DESCRIBE, ring, held, len(text))
    current = int(bytes(text).split(b";")[3], 16)
    context.kernel.keyctl(k.KEYCTL_SETPERM, ring, current | permission)


def apparmor(context: Context, profile: str) -> None:
    """The profile takes effect at execve."""
    data = b"exec " + profile.encode()
    try:
        try:
            context.proc.write_own(b"attr/apparmor/exec", data)
        except FileNotFoundError:
            context.proc.write_own(b"attr/exec", data)
        except k.KernelError as error:
            if error.errno != 2:
                raise
            context.proc.write_own(b"attr/exec", data)
    except OSError as error:
        error.add_note("unable to apply apparmor profile: apparmor failed to apply profile")
        raise


def selinux_exec(context: Context, label: str) -> None:
    """The label takes effect at execve."""
    context.proc.write_own(b"attr/exec", label.encode())


def sysctl(context: Context, path: str, value: str) -> None:
    """One sysctl, written through a procfs nobody else can reach."""
    context.proc.write(b"sys/" + path.encode(), value.encode())


def scheduler(
    context: Context,
    policy: int,
    flags: int,
    nice: int,
    priority: int,
    runtime: int,
    deadline: int,
    period: int,
) -> None:
    """sched_setattr(2)."""
    try:
        context.kernel.sched_setattr(0, policy, flags, nice, priority, runtime, deadline, period)
    except k.KernelError as error:
        if error.errno == EPERM and context.cpuset:
            raise Failure("process scheduler can't be used together with AllowedCPUs") from error
        error.add_note("error setting scheduler")
        raise


def io_priority(context: Context, value: int) -> None:
    """ioprio_set(2) for the process group."""
    context.kernel.ioprio_set(2, 0, value)


def umask(_: Context, mask: int) -> None:
    """umask(2), which takes permission bits and ignores the others."""
    posix.umask(mask & 0o777)


# --- environment ---


def environment(context: Context, entries: list[str], uid: int) -> None:
    """The variables of the process: the last of a name wins, HOME is looked up where it is missing or empty."""
    variables: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        variables.pop(name, None)
        variables[name] = value
    if not variables.get("HOME"):
        variables.pop("HOME", None)
        variables["HOME"] = _home(context, uid)
    context.variables = variables


def _home(context: Context, uid: int) -> str:
    """The home directory that the container's /etc/passwd gives, "/" without one. Its size is bounded."""
    wanted = b"%d" % uid
    try:
        fd = context.root.open("/etc/passwd", posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError:
        return "/"
    try:
        if posix.fstat(fd).st_mode & S_IFMT != S_IFREG:
            return "/"
        text = posix.read(fd, _PASSWD_LIMIT)
    except OSError:
        return "/"
    finally:
        posix.close(fd)
    for line in text.splitlines():
        fields = line.split(b":", 6) if len(line) <= _LINE_LIMIT else ()
        if len(fields) > 5 and fields[2] == wanted:
            return fields[5].decode("utf-8", "surrogateescape") or "/"
    return "/"


# --- user and capabilities ---


def bounding(context: Context, mask: int) -> None:
    """Drop every capability from the bounding set that is not in ``mask``; then keep the rest over setuid."""
    for number in range(_LAST + 1):
        if mask >> number & 1:
            continue
        try:
            context.kernel.prctl(k.PR_CAPBSET_DROP, number)
        except k.KernelError as error:
            if error.errno == EINVAL:
                break
            if error.errno != EPERM or context.kernel.prctl(k.PR_CAPBSET_READ, number):
                error.add_note("unable to apply bounding set")
                raise
    context.kernel.prctl(k.PR_SET_KEEPCAPS, 1)


def user(context: Context, uid: int, gid: int, groups: list[int], rootless: bool) -> None:
    """Supplementary groups, group, user; standard streams go to the user first."""
    _own_streams(uid)
    if not rootless and not _groups_denied(context):
        posix.setgroups(groups)
    for name, call, number in (("gid", posix.setresgid, gid), ("uid", posix.setresuid, uid)):
        try:
            call(number, number, number)
        except OSError as error:
            if error.errno == EINVAL:
                raise Failure(
                    f"cannot set{name} to unmapped {name} {number} in user namespace"
                ) from error
            error.add_note(f"unable to setup user: set{name}")
            raise


def _groups_denied(context: Context) -> bool:
    """Whether the user namespace forbids it, be it the container's own or the one the runtime was called in."""
    try:
        fd = context.proc.open_own(b"setgroups", posix.O_RDONLY)
    except OSError:
        return False
    try:
        return posix.read(fd, 16).strip() == b"deny"
    finally:
        posix.close(fd)


def _own_streams(uid: int) -> None:
    for fd in range(3):
        found = posix.fstat(fd)
        if found.st_uid == uid or _is_null(fd):
            continue
        try:
            posix.fchown(fd, uid, -1)
        except OSError as error:
            if error.errno not in (EPERM, EROFS, EINVAL, ENOSYS, EACCES):
                raise


def enter_directory(context: Context, path: str) -> None:
    """chdir(2) with the capabilities of now; one that only the user may enter is left to `change_directory`."""
    try:
        posix.chdir(path)
        context.arrived = True
    except PermissionError:
        pass
    except OSError as error:
        raise _no_cwd(path, error) from error


def change_directory(context: Context, path: str) -> None:
    """chdir(2) as the user, where that is still to do; a place outside of the container is refused.

    Raises:
        StartError: the directory is not inside the container's root (a descriptor of the host's got in).
    """
    if not context.arrived:
        try:
            posix.chdir(path)
        except OSError as error:
            raise _no_cwd(path, error) from error
    verify_cwd()


def _no_cwd(path: str, error: OSError) -> StartError:
    return StartError(
        f'chdir to cwd ("{path}") set in config.json failed: {(error.strerror or "").lower()}'
    )


def verify_cwd() -> None:
    """See that the working directory is below the root.

    Raises:
        StartError: it is not.
    """
    try:
        here = posix.getcwdb()
    except FileNotFoundError:
        here = b"(unreachable)"
    if not here.startswith(b"/"):
        raise StartError("current working directory is outside of container mount namespace root -- possible container "
                         "breakout detected")  # fmt: skip


def capabilities(context: Context, masks: dict[str, int]) -> None:
    """The four sets of the process, exactly; what the kernel cannot give is left out."""
    kernel = context.kernel
    kernel.prctl(k.PR_SET_KEEPCAPS, 0)
    have = kernel.capget()[1]
    refused = (masks["permitted"] | masks["inheritable"]) & ~have
    if refused:
        context.warn(
            f"cannot grant the capabilities of mask {refused:#x}: the caller does not have them"
        )
    permitted = masks["permitted"] & have
    inheritable = masks["inheritable"] & have & masks["bounding"]
    kernel.capset(masks["effective"] & permitted, permitted, inheritable)
    try:
        kernel.prctl(k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_CLEAR_ALL)
    except k.KernelError:
        return
    for name, number in CAPABILITIES.items():
        if not masks["ambient"] >> number & 1:
            continue
        try:
            kernel.prctl(k.PR_CAP_AMBIENT, k.PR_CAP_AMBIENT_RAISE, number)
        except k.KernelError as error:
            context.warn(f"can't raise ambient capability {name}: {(error.strerror or '').lower()}")


# --- program ---


def find_program(context: Context, arguments: list[str]) -> None:
    """execvp(3)'s search with the container's PATH, while an error can still be told.

    Raises:
        StartError: no such program, in runc's words.
    """
    name = arguments[0]
    context.arguments = arguments
    if "/" in name:
        why = _why_not(name)
        if why:
            raise StartError(f'exec: "{name}": {why}')
        context.program = name
        return
    blocked = False
    for directory in context.variables.get("PATH", _DEFAULT_PATH).split(":"):
        path = f"{directory or '.'}/{name}"
        why = _why_not(path)
        if not why:
            context.program = path
            return
        blocked = blocked or why == "permission denied"
    raise StartError(
        f'exec: "{name}": {"permission denied" if blocked else "executable file not found in $PATH"}'
    )


def _why_not(path: str) -> str:
    try:
        found = posix.stat(path)
    except OSError as error:
        return f"stat {path}: {(error.strerror or '').lower()}"
    if found.st_mode & S_IFMT == S_IFDIR:
        return "is a directory"
    if not _may_execute(found) and not _may_override(path, found):
        return "permission denied"
    return ""


def _may_override(path: str, found: posix.stat_result) -> bool:
    """Whether a capability (CAP_DAC_OVERRIDE) opens what the mode does not."""
    return bool(found.st_mode & 0o111) and posix.access(path, posix.X_OK, effective_ids=True)


def _may_execute(found: posix.stat_result) -> bool:
    """By the mode alone: access(2) may be forbidden by the filter, and execve(2) has the last word anyway."""
    user = posix.geteuid()
    if user == 0:
        return bool(found.st_mode & 0o111)
    if found.st_uid == user:
        return bool(found.st_mode & 0o100)
    if found.st_gid in (posix.getegid(), *posix.getgroups()):
        return bool(found.st_mode & 0o010)
    return bool(found.st_mode & 0o001)
