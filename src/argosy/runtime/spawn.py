"""From the runtime to the container's init: namespaces made and joined, identities mapped, init running its plan.

Without a user or time namespace and without a PID namespace to join, init is one clone3(2) away, straight into its
version 2 cgroup. Else a middle process joins and makes namespaces, is given its identity by the runtime, and clones
init as the runtime's child (CLONE_PARENT), because a PID or time namespace begins with the next child.

The child's first act is to make itself undumpable where it joins anything: from then on nobody in the container can
reach its memory or descriptors.
"""

from __future__ import annotations

import gc
import posix
from _signal import (
    SIG_DFL,
    SIGKILL,
    SIGPIPE,
    SIGTERM,
    SIGXFSZ,
    default_int_handler,
    getsignal,
    set_wakeup_fd,
    signal,
)
from errno import EPERM

from argosy.runtime import kernel as k
from argosy.runtime.channel import ERROR, MAP, PID, Channel
from argosy.runtime.errors import Failure, StartError, describe
from argosy.runtime.lock import lock
from argosy.runtime.steps import Context, run
from argosy.runtime.tables import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.runtime.plan import Step

_DIRECT = k.CLONE_NEWNS | k.CLONE_NEWUTS | k.CLONE_NEWIPC | k.CLONE_NEWNET | k.CLONE_NEWPID


class Spaces:
    """The namespaces of one spawn.

    Attributes:
        create: CLONE_NEW* flags of new ones.
        join: (open namespace file or pidfd, CLONE_NEW* flags), in the order of joining.
    """

    def __init__(self, create: int, join: list[tuple[int, int]]) -> None:
        self.create = create
        self.join = join

    @property
    def flags(self) -> int:
        """Every type that is not inherited."""
        flags = self.create
        for _, joined in self.join:
            flags |= joined
        return flags

    @property
    def direct(self) -> bool:
        """Whether init can be cloned at once."""
        return not self.join and not self.create & (k.CLONE_NEWUSER | k.CLONE_NEWTIME)


def open_spaces(spaces: dict[str, str]) -> Spaces:
    """Open what is to be joined.

    Raises:
        Failure: a path is not a namespace of its type.
    """
    create, join = 0, []
    for kind, flag in NAMESPACES.items():
        path = spaces.get(kind)
        if path == "":
            create |= flag
        elif path:
            join.append((_open_space(kind, path, flag), flag))
    return Spaces(create, join)


def _open_space(kind: str, path: str, flag: int) -> int:
    from fcntl import ioctl

    flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC  # a FIFO is not waited for
    try:
        fd = posix.open(path, flags)
    except OSError as error:
        raise Failure(
            f"invalid {kind} namespace path {path}: {(error.strerror or '').lower()}"
        ) from error
    try:
        found = ioctl(fd, 0xB703)  # NS_GET_NSTYPE
    except OSError:
        found = 0
    if found != flag:
        posix.close(fd)
        raise Failure(f"namespace path {path} is not a {kind} namespace")
    return fd


def spawn(
    context: Context, child: Channel, spaces: Spaces, steps: tuple[Step, ...], cgroup_fd: int | None
) -> tuple[int, int]:
    """Start init.

    Args:
        context: what its steps share.
        child: the child's end of the channel.
        spaces: namespaces to make and to join.
        steps: its plan.
        cgroup_fd: the version 2 cgroup it is born into.

    Returns:
        (pid, pidfd) of init, or (-1, -1) where a middle process will tell the pid; that process is then a child too.
    """
    gc.collect(0)
    gc.freeze()
    context.cgroup_fd = cgroup_fd
    if not spaces.direct:
        pid = posix.fork()
        if pid == 0:
            _end(_middle, context, child, spaces, steps)
        _middles.append(pid)
        return -1, -1
    pid, pidfd = _clone(context, spaces.create & _DIRECT)
    if pid == 0:
        if cgroup_fd is not None:
            posix.close(cgroup_fd)
        _end(_init, context, child, spaces, steps)
    return pid, pidfd


def _clone(context: Context, flags: int) -> tuple[int, int]:
    """A child born in the version 2 cgroup; where that does not take it this way, it will be moved."""
    if context.cgroup_fd is not None:
        try:
            return context.kernel.clone3(flags, context.cgroup_fd)
        except k.KernelError as error:
            if error.errno not in (1, 2, 13, 16, 22, 95):
                raise
    return context.kernel.clone3(flags)


_middles: list[int] = []


def middle_pid() -> int:
    """The process that stands between the runtime and init."""
    return _middles[-1]


def reap(*pids: int) -> None:
    """Wait for the children of a spawn that failed; they are dead or dying."""
    for pid in (*pids, *_middles):
        try:
            if pid > 0:
                posix.waitpid(pid, 0)
        except ChildProcessError:
            pass


def _end(
    body: object, context: Context, channel: Channel, spaces: Spaces, steps: tuple[Step, ...]
) -> None:
    """Run a child's body; its failure is one packet, and never a return into the caller's code."""
    try:
        gc.disable()
        set_wakeup_fd(-1)
        if context.other_end is not None:
            context.other_end.close()  # else the runtime's death would never be noticed
        lock()
        context.channel = channel
        body(context, channel, spaces, steps)  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001 - there is nobody else to catch it
        _report(context, error)
    finally:
        posix._exit(1)


def _report(context: Context, error: BaseException) -> None:
    text = describe(error).encode("utf-8", "replace")
    try:
        if context.channel is not None:
            posix.write(context.channel.fileno(), ERROR + text[:32768])
        elif context.report >= 0:
            posix.write(context.report, text[:32768])
    except OSError:
        pass


def _middle(context: Context, channel: Channel, spaces: Spaces, steps: tuple[Step, ...]) -> None:
    kernel = context.kernel
    if spaces.join:
        kernel.prctl(k.PR_SET_DUMPABLE, 0)
    _join_all(context, spaces.join)
    if spaces.create & k.CLONE_NEWUSER:
        kernel.unshare(k.CLONE_NEWUSER)
        if (
            not spaces.join
        ):  # an unprivileged runtime may only then write the mappings; nobody else is here yet
            kernel.prctl(k.PR_SET_DUMPABLE, 1)
    if spaces.create & k.CLONE_NEWTIME:
        kernel.unshare(k.CLONE_NEWTIME)
    if spaces.create & (k.CLONE_NEWUSER | k.CLONE_NEWTIME):
        channel.ask(MAP)
    kernel.prctl(k.PR_SET_DUMPABLE, 0)
    if spaces.flags & k.CLONE_NEWUSER:
        _become_root()
    kernel.unshare(spaces.create & _DIRECT & ~k.CLONE_NEWPID)
    pid, _ = _clone(context, k.CLONE_PARENT | (spaces.create & k.CLONE_NEWPID))
    if pid:
        channel.send(PID, b"%d" % pid)
        posix._exit(0)
    _init(context, channel, spaces, steps)


def _join_all(context: Context, wanted: list[tuple[int, int]]) -> None:
    """Join with the rights of now, then the user namespace, then with its rights what is only its own to give."""
    later = []
    for fd, flags in sorted(wanted, key=lambda pair: pair[1] == k.CLONE_NEWUSER):
        try:
            context.kernel.setns(fd, flags)
        except k.KernelError as error:
            if error.errno != EPERM or flags & k.CLONE_NEWUSER:
                raise _unjoined(error, flags) from None
            later.append((fd, flags))
            continue
        if flags == k.CLONE_NEWUSER:
            _become_root()
    for fd, flags in later:
        try:
            context.kernel.setns(fd, flags)
        except k.KernelError as error:
            raise _unjoined(error, flags) from None


def _unjoined(error: k.KernelError, flags: int) -> k.KernelError:
    names = ",".join(name for name, flag in NAMESPACES.items() if flag & flags)
    error.add_note(f"joining the {names} namespace")
    return error


def _become_root() -> None:
    """Root of the user namespace, where root is mapped: files made from here on belong to it."""
    for call in (posix.setresgid, posix.setresuid):
        try:
            call(0, 0, 0)
        except OSError:
            pass


def _init(context: Context, channel: Channel, spaces: Spaces, steps: tuple[Step, ...]) -> None:
    kernel = context.kernel
    kernel.prctl(k.PR_SET_DUMPABLE, 0)
    kernel.prctl(k.PR_SET_PDEATHSIG, SIGKILL)
    kind, _ = channel.receive()
    if kind != PID:
        raise StartError("the runtime has gone away")
    for door in context.doors:  # moving oneself takes no lock over the whole machine
        posix.write(door, b"0")
        posix.close(door)
    if spaces.create & k.CLONE_NEWCGROUP:
        kernel.unshare(k.CLONE_NEWCGROUP)
    kernel.prctl(k.PR_SET_PDEATHSIG, 0)
    context.debug("nsexec container setup is over; child process in init()")
    for ignored in (SIGPIPE, SIGXFSZ):  # by the interpreter; execve would hand that on
        signal(ignored, SIG_DFL)
    if (
        getsignal(SIGTERM) is default_int_handler
    ):  # the runtime's own way to end: here it would be a failure to tell
        signal(SIGTERM, SIG_DFL)
    try:
        posix.setsid()
    except OSError:
        pass
    run(context, steps)
