"""The table of steps and what they share: where `plan` meets the kernel, inside the container's init."""

from __future__ import annotations

import posix
from _signal import SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, signal

from argosy.runtime import console, process, rootfs
from argosy.runtime import kernel as k
from argosy.runtime.channel import DEBUG, DONE, HOOKS, NOTIFY, READY, WARNING
from argosy.runtime.errors import Failure, StartError, describe
from argosy.runtime.inroot import O_DIR, Proc, Root
from argosy.runtime.mounts import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Any

    from argosy.runtime.channel import Channel
    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.plan import Step


_ENDING = (SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM)


class Context:
    """What the steps of one process share.

    Attributes:
        kernel: the system calls.
        channel: the line to the runtime; None once it is closed.
        proc: a procfs that can be trusted.
        root: the container's root; set by the step ``root`` (``exec`` sets it at once).
        null: a detached mount of a null device, -1 without masked paths.
        fifo: O_PATH descriptor of the exec fifo, -1 for ``run`` and ``exec``.
        attended: the terminal's bytes are copied by the runtime, whose own terminal (or pipe) treats line ends.
        report: where a failure after the channel is closed is written, -1 for nowhere.
    """

    def __init__(self, kernel: LinuxKernel, channel: Channel, proc: Proc) -> None:
        self.kernel = kernel
        self.channel: Channel | None = channel
        self.other_end: Channel | None = None
        self.proc = proc
        self.root: Root = Root(kernel, -1, proc)
        self.null = -1
        self.fifo = -1
        self.report = -1
        self.console_socket: socket | None = None
        self.pidfd_socket: socket | None = None
        self.filter: Any = None
        self.state: dict[str, Any] = {}
        self.start_hooks: list[dict[str, Any]] = []
        self.variables: dict[str, str] = {}
        self.arguments: list[str] = []
        self.program = ""
        self.arrived = False
        self.chatty = False
        self.attended = False
        self.rootless = False
        self.user_namespace = False
        self.own_cgroup = False
        self.cgroup_path: str | None = None
        self.cpuset = False
        self.cgroup_fd: int | None = None
        self.doors: list[int] = []

    def line(self) -> Channel:
        """The channel, while there is one."""
        if self.channel is None:
            raise StartError("the runtime has gone away")
        return self.channel

    def warn(self, text: str) -> None:
        """One line for the runtime's log."""
        if self.channel is not None:
            self.channel.send(WARNING, text.encode())

    def debug(self, text: str) -> None:
        """One line for a log that wants it."""
        if self.chatty and self.channel is not None:
            self.channel.send(DEBUG, text.encode())


def run(context: Context, steps: tuple[Step, ...]) -> None:
    """Take the steps. The last one is execve: this returns only by raising.

    Raises:
        StartError: what failed, in one line.
    """
    for step in steps:
        try:
            STEPS[step[0]](context, *step[1:])
        except StartError:
            raise
        except (OSError, Failure) as error:
            if isinstance(error, OSError) and not hasattr(error, "__notes__"):
                error.add_note(step[0].replace("_", " "))
            raise StartError(describe(error)) from error


def _loopback(context: Context) -> None:
    from argosy.runtime.netdevices import loopback_up

    loopback_up(context.kernel)


def _enter_root(context: Context) -> None:
    """``exec``: inside the container's mount namespace its root is ours."""
    context.root = Root(context.kernel, posix.open("/", O_DIR), context.proc)


def _hooks(context: Context) -> None:
    context.line().ask(HOOKS)


def _container_hooks(context: Context, hooks: list[dict[str, Any]]) -> None:
    posix.fchdir(context.root.fd)
    if hooks:
        from argosy.runtime.hooks import run_hooks

        state = {**context.state, "status": "creating", "pid": posix.getpid()}
        run_hooks(hooks, "createContainer", state)


def _ready(context: Context) -> None:
    context.line().ask(READY)


def _warn(context: Context, text: str) -> None:
    context.warn(text)


def _seccomp(context: Context) -> None:
    from argosy.runtime import seccomp

    listener = seccomp.load(context.kernel, context.filter)
    if listener is not None:
        context.line().ask(NOTIFY, b"%d" % listener)
        posix.close(listener)


def _wait(context: Context) -> None:
    """Tell the runtime that all is set up, then wait for ``start``: for somebody to open the fifo's other end."""
    context.debug("init: closing the pipe to signal completion")
    for number in _ENDING:
        signal(number, _end)
    channel = context.line()
    posix.write(channel.fileno(), DONE)
    channel.close()
    context.channel = None
    context.report = context.proc.reopen(context.fifo, posix.O_WRONLY)
    posix.write(context.report, b"0")
    posix.close(context.fifo)


def _end(number: int, _: object) -> None:
    """Without a handler these signals would not reach PID 1 of a namespace: a created container can be ended."""
    posix._exit(128 + number)


def _release(context: Context) -> None:
    """``run`` and ``exec``: nothing to wait for; the channel stays open to tell of a failure."""
    context.debug("init: closing the pipe to signal completion; setns_init: about to exec")
    context.report = context.line().fileno()


def _start_hooks(context: Context) -> None:
    if context.start_hooks:
        from argosy.runtime.hooks import run_hooks

        state = {**context.state, "status": "created", "pid": posix.getpid()}
        environment = [f"{name}={value}" for name, value in context.variables.items()]
        run_hooks(context.start_hooks, "startContainer", state, environment)


def _execute(context: Context, keep_fds: int, filtered: bool) -> None:
    """Close everything, load the filter, become the program."""
    kernel = context.kernel
    environment = [
        f"{name}={value}".encode("utf-8", "surrogateescape")
        for name, value in context.variables.items()
    ]
    arguments = [argument.encode("utf-8", "surrogateescape") for argument in context.arguments]
    prepared = kernel.prepare_execve(
        context.program.encode("utf-8", "surrogateescape"), arguments, environment
    )
    _close_all(context, 3 + keep_fds, context.report)
    if filtered:
        from argosy.runtime import seccomp

        seccomp.load(kernel, context.filter)
    try:
        kernel.execve(prepared)
    except k.KernelError as error:
        raise StartError(f"exec {context.program}: {(error.strerror or '').lower()}") from error


def _close_all(context: Context, first: int, keep: int) -> None:
    """Close every descriptor from ``first`` on; ``keep``, close-on-exec, outlives it to tell of a failing execve."""
    last = 0xFFFFFFFF
    try:
        if keep < first:
            context.kernel.close_range(first, last)
            return
        if keep > first:
            context.kernel.close_range(first, keep - 1)
        context.kernel.close_range(keep + 1, last)
    except k.KernelError:  # no such call, or a filter that forbids it
        _close_one_by_one(context, first, keep)


def _close_one_by_one(context: Context, first: int, keep: int) -> None:
    listed = posix.open(
        b"self/fd", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=context.proc.host
    )
    for fd in sorted(map(int, posix.listdir(listed))):
        if fd >= first and fd != keep:
            try:
                posix.close(fd)
            except OSError:  # the descriptor that listed them
                pass


STEPS: dict[str, Callable[..., None]] = {
    "keyring": process.join_keyring,
    "loopback": _loopback,
    "enter_root": _enter_root,
    "root": rootfs.prepare,
    "mount": mount,
    "devices": rootfs.make_devices,
    "device_links": rootfs.link_devices,
    "hold_null": rootfs.hold_null,
    "hooks": _hooks,
    "container_hooks": _container_hooks,
    "pivot": rootfs.pivot,
    "chroot": rootfs.chroot,
    "move_root": rootfs.move_root,
    "root_propagation": rootfs.root_propagation,
    "reopen_null": rootfs.reopen_null,
    "make_cwd": rootfs.make_cwd,
    "console": console.set_up_console,
    "pidfd": console.send_pidfd,
    "readonly_mount": rootfs.readonly_mount,
    "readonly_root": rootfs.readonly_root,
    "umask": process.umask,
    "hostname": lambda context, name: context.kernel.sethostname(name.encode()),
    "domainname": lambda context, name: context.kernel.setdomainname(name.encode()),
    "apparmor": process.apparmor,
    "sysctl": process.sysctl,
    "readonly_path": rootfs.readonly_path,
    "masked_paths": rootfs.masked_paths,
    "no_new_privileges": lambda context: context.kernel.prctl(k.PR_SET_NO_NEW_PRIVS, 1),
    "scheduler": process.scheduler,
    "io_priority": process.io_priority,
    "personality": lambda context, persona: context.kernel.personality(persona),
    "memory_policy": lambda context, mode, mask: context.kernel.set_mempolicy(mode, mask),
    "ready": _ready,
    "selinux_exec": process.selinux_exec,
    "seccomp": _seccomp,
    "warn": _warn,
    "environment": process.environment,
    "bounding": process.bounding,
    "user": process.user,
    "enter": process.enter_directory,
    "cwd": process.change_directory,
    "capabilities": process.capabilities,
    "program": process.find_program,
    "wait": _wait,
    "release": _release,
    "start_hooks": _start_hooks,
    "execute": _execute,
}
