"""``create``, ``run`` and ``exec`` from the command line."""

from __future__ import annotations

import posix
from _signal import SIG_DFL, SIGTERM, default_int_handler, getsignal, signal
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socketpair

from argosy.runtime import log
from argosy.runtime import state as states
from argosy.runtime.channel import connect
from argosy.runtime.errors import ExecError, Failure, StartError, UsageError
from argosy.runtime.jsonio import write_file
from argosy.runtime.kernel import PR_SET_CHILD_SUBREAPER, LinuxKernel
from argosy.runtime.options import absolute, is_number
from argosy.runtime.request import Request, read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.cli import Command
    from argosy.runtime.container import Container
    from argosy.runtime.execute import Execution

_NO_CONSOLE = "cannot allocate tty if runc will detach without setting console socket"
_NEEDLESS_CONSOLE = "cannot use console socket if runc will not detach or allocate tty"
_U32 = 0xFFFFFFFF


def create_verb(command: Command) -> int:
    """``create``."""
    request, config = _request(command, waits=True)
    _check_terminal(command, config["process"], detached=True)
    _connect(command, request, config["process"])
    pid_file = absolute(command.options.get("pid-file"))
    _undo_when_terminated()
    container = _in_bundle(request, config)
    _finish(container, pid_file)
    return 0


def run_verb(command: Command) -> int:
    """``run``: create, start, and (unless detached) stay until the end."""
    request, config = _request(command, waits=False)
    detached = bool(command.options.get("detach"))
    _check_terminal(command, config["process"], detached=detached)
    _connect(command, request, config["process"])
    pid_file = absolute(command.options.get("pid-file"))
    if detached:
        _undo_when_terminated()
        container = _in_bundle(request, config)
        _finish(container, pid_file)
        _poststart(container, detached=True)
        return 0
    return _run_here(command, request, config, pid_file)


def _undo_when_terminated() -> None:
    """SIGTERM ends the making of a container as Ctrl-C does: nothing is left of it."""
    if getsignal(SIGTERM) == SIG_DFL:
        signal(SIGTERM, default_int_handler)


def _run_here(
    command: Command, request: Request, config: dict[str, Any], pid_file: str | None
) -> int:
    from argosy.runtime.foreground import Signals, Terminal, attend, host_terminal, receive_master

    if not command.options.get("no-subreaper"):
        LinuxKernel().prctl(PR_SET_CHILD_SUBREAPER, 1)
    ours = None
    if config["process"].get("terminal"):
        host = host_terminal()
        ours, request.console = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        request.attended = True
    signals = Signals()
    relay = _relay(request)
    container = _in_bundle(request, config)
    _finish(container, pid_file)
    try:
        terminal = None
        if ours is not None:
            request.console.close()
            terminal = Terminal(host, receive_master(ours))
        _poststart(container, detached=False)
        if relay:
            relay.run_beside(container.state["pid"])
        status = attend(container.state["pid"], signals, terminal)
    except BaseException:
        container.delete(force=True)
        raise
    if not command.options.get("keep"):
        container.delete(force=True)
    return status


def _relay(request: Request) -> Any:
    if not request.notify:
        return None
    from argosy.runtime.notify import Relay

    return Relay(
        f"{request.root}/{request.cid}/notify/notify.sock",
        posix.environ[b"NOTIFY_SOCKET"],
        later=True,
    )


def _poststart(container: Container, *, detached: bool) -> None:
    try:
        container.run_poststart()
    except Failure:
        if detached:
            container.delete(force=True)
        raise


def _request(command: Command, *, waits: bool) -> tuple[Request, dict[str, Any]]:
    options, settings = command.options, command.settings
    bundle = absolute(options.get("bundle")) or posix.getcwd()
    states.check_id(command.arguments[0])
    config, _ = read_config(bundle)
    request = Request(command.root, command.arguments[0], bundle, waits=waits)
    manager = settings.get("cgroup-manager", "cgroupfs")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise UsageError(f"invalid cgroup-manager: {manager} (known: cgroupfs, systemd, disabled)")
    request.systemd = bool(settings.get("systemd-cgroup")) or manager == "systemd"
    request.no_cgroups = manager == "disabled"
    request.tolerant = _tolerant(settings.get("rootless", "auto"))
    request.no_pivot = bool(options.get("no-pivot"))
    request.keyring = not options.get("no-new-keyring")
    request.listen_fds = _listen_fds()
    request.preserve_fds = _preserved(options.get("preserve-fds", 0), request.listen_fds)
    _say_sealed(command)
    request.notify = bool(posix.environ.get(b"NOTIFY_SOCKET"))
    if not config.get("process"):
        raise Failure("process property must not be empty")
    return request, config


def _tolerant(rootless: str) -> bool:
    """Whether errors of cgroups that nobody asked for are ignored.

    Raises:
        UsageError: not one of the three words.
    """
    if rootless not in ("auto", "true", "false"):
        raise UsageError(f"invalid rootless: {rootless} (known: true, false, auto)")
    if rootless != "auto":
        return rootless == "true"
    if posix.geteuid():
        return True
    from argosy.runtime.jsonio import read_file

    return read_file("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]


def _listen_fds() -> int:
    if posix.environ.get(b"LISTEN_PID") != b"%d" % posix.getpid():
        return 0
    count = posix.environ.get(b"LISTEN_FDS", b"0")
    return int(count) if count.isdigit() else 0


def _preserved(count: int, first: int) -> int:
    if count < 0:
        raise Failure(f"invalid value {count} for preserve-fds: expected a number from 0 on")
    for index in range(count):
        try:
            posix.fstat(3 + first + index)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise Failure(f"unable to stat preserved-fd {index} (of {count}): {why}") from error
    LinuxKernel().close_range(
        3 + first + count, 0xFFFFFFFF
    )  # what the caller leaked is nobody's (CVE-2024-21626)
    return count


def _say_sealed(command: Command) -> None:
    log.debug(f"{command.program} exeseal: using /proc/self/exe clone (or a place as read-only)")


def _check_terminal(command: Command, process: dict[str, Any], *, detached: bool) -> None:
    socket = command.options.get("console-socket")
    if detached and process.get("terminal") and not socket:
        raise Failure(_NO_CONSOLE)
    if socket and not (detached and process.get("terminal")):
        raise Failure(_NEEDLESS_CONSOLE)


def _connect(command: Command, request: Any, process: dict[str, Any]) -> None:
    console = command.options.get("console-socket")
    if console and process.get("terminal"):
        request.console = connect(console)
    pidfd = command.options.get("pidfd-socket")
    if pidfd:
        end = connect(pidfd)
        if isinstance(request, Request):
            request.pidfd = end
        else:
            request.pidfd_socket = end


def _in_bundle(request: Request, config: dict[str, Any]) -> Container:
    """Create with the bundle as working directory: that is where hooks run."""
    try:
        posix.chdir(request.bundle)
    except OSError as error:
        raise Failure(f"chdir {request.bundle}: {(error.strerror or '').lower()}") from error
    request.bundle = posix.getcwd()
    from argosy.runtime.create import Creation

    try:
        return Creation(request, config).create()
    except ExecError:
        raise
    except StartError as error:
        raise StartError(f"unable to start container process: {error}") from error


def _finish(container: Container, pid_file: str | None) -> None:
    if pid_file is None:
        return
    try:
        write_pid_file(pid_file, container.state["pid"])
    except OSError:
        container.delete(force=True)
        raise


def write_pid_file(path: str, pid: int) -> None:
    """The process ID, without a newline, appearing as a whole."""
    write_file(path, b"%d" % pid, 0o666)


# --- exec ---


def exec_verb(command: Command) -> int:
    """``exec``: returns the process's own status."""
    from argosy.runtime.execute import Execution

    container = command.container()
    options = command.options
    pid_file = absolute(options.get("pid-file"))
    process = _process(command, container)
    execution = Execution(container, process)
    execution.check_status(paused=bool(options.get("ignore-paused")))
    detached = bool(options.get("detach"))
    _check_terminal(command, process, detached=detached)
    execution.keep_fds = _preserved(options.get("preserve-fds", 0), 0)
    _say_sealed(command)
    execution.cgroups = sub_cgroups(options.get("cgroup", []))
    _connect(command, execution, process)
    if detached:
        execution.start()
        _write_exec_pid(execution, pid_file)
        return 0
    return _exec_here(execution, pid_file)


def _exec_here(execution: Execution, pid_file: str | None) -> int:
    from argosy.runtime.foreground import Signals, Terminal, attend, host_terminal, receive_master

    ours = None
    if execution.process.get("terminal"):
        host = host_terminal()
        ours, execution.console = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        execution.attended = True
    signals = Signals()
    pid = execution.start()
    _write_exec_pid(execution, pid_file)
    terminal = None
    if ours is not None:
        execution.console.close()
        terminal = Terminal(host, receive_master(ours))
    return attend(pid, signals, terminal)


def _write_exec_pid(execution: Execution, pid_file: str | None) -> None:
    if pid_file is None:
        return
    try:
        write_pid_file(pid_file, execution.pid)
    except OSError:
        posix.kill(execution.pid, 9)
        raise


def _process(command: Command, container: Container) -> dict[str, Any]:
    """The process to execute: of ``--process``, or the container's own as the options change it.

    Raises:
        Failure: no command, or an option's value is wrong.
    """
    from argosy.runtime.jsonio import load
    from argosy.runtime.judge import check, prune
    from argosy.runtime.shape import PROCESS

    options = command.options
    if options.get("process"):
        found: dict[str, Any] = prune(load(options["process"]))
        check(found, PROCESS, "process")
        return found
    if len(command.arguments) < 2:
        raise Failure("exec args cannot be empty")
    process: dict[str, Any] = dict(container.config().get("process", {}))
    process["args"] = command.arguments[1:]
    process["terminal"] = bool(options.get("tty"))
    process["env"] = [*process.get("env", ()), *options.get("env", ())]
    for option, name in (
        ("cwd", "cwd"),
        ("apparmor", "apparmorProfile"),
        ("process-label", "selinuxLabel"),
    ):
        if options.get(option):
            process[name] = options[option]
    if "no-new-privs" in options:
        process["noNewPrivileges"] = options["no-new-privs"]
    if options.get("cap"):
        process["capabilities"] = add_capabilities(process.get("capabilities", {}), options["cap"])
    process["user"] = _user(process.get("user", {}), options)
    return process


def add_capabilities(sets: dict[str, list[str]], names: list[str]) -> dict[str, list[str]]:
    """``exec --cap``: bounding, effective and permitted; ambient only where something is inheritable already.

    Inheritable capabilities are never added: they would outlive what was asked for (CVE-2022-29162).
    """
    grown = dict(sets)
    kinds = ["bounding", "effective", "permitted"]
    if sets.get("inheritable") is not None:
        kinds.append("ambient")
    for kind in kinds:
        grown[kind] = [*sets.get(kind, ()), *names]
    return grown


def _user(user: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    changed = dict(user)
    if options.get("user"):
        uid, colon, gid = options["user"].partition(":")
        changed["uid"] = parse_id(uid, "uid")
        if colon:
            changed["gid"] = parse_id(gid, "gid")
    gids = [parse_id(text, "additional gid") for text in options.get("additional-gids", ())]
    if gids:
        changed["additionalGids"] = [*user.get("additionalGids", ()), *gids]
    return changed


def parse_id(text: str, what: str) -> int:
    """A user or group ID: one to ten digits, within 32 bits.

    Raises:
        Failure: anything else; nothing is guessed (CVE-2026-30892).
    """
    if not (is_number(text) and int(text) < _U32):
        raise Failure(f'bad {what}: expected a number from 0 to {_U32 - 1}, got "{text}"')
    return int(text)


def sub_cgroups(words: list[str]) -> dict[str, str]:
    """``--cgroup``: controller to path below the container's cgroup; "" is version 2's one hierarchy.

    Raises:
        Failure: a prefix is missing, empty or there twice.

    Example:
        >>> sub_cgroups(["cpu,memory:/sub"])
        {'cpu': '/sub', 'memory': '/sub'}
    """
    found: dict[str, str] = {}
    for word in words:
        controllers, colon, path = word.partition(":")
        if not colon:
            if len(words) != 1:
                raise Failure(f"invalid --cgroup argument: {word} (missing <controller>: prefix)")
            found[""] = word
            continue
        for controller in controllers.split(","):
            if not controller:
                raise Failure(f"invalid --cgroup argument: {word} (empty <controller> prefix)")
            if controller in found:
                raise Failure(
                    f"invalid --cgroup argument(s): controller {controller} specified multiple times"
                )
            found[controller] = path
    return found


__all__ = ["create_verb", "exec_verb", "run_verb"]
