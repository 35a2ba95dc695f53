"""What the runtime does from outside for a process that is being set up: of `create` and of `exec`."""

from __future__ import annotations

import posix

from argosy.runtime import channel as ch
from argosy.runtime import log
from argosy.runtime import state as states
from argosy.runtime.errors import Failure
from argosy.runtime.tables import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.channel import Channel
    from argosy.runtime.kernel import LinuxKernel
    from argosy.runtime.plan import Step


def preload(steps: tuple[Step, ...], linux: dict[str, Any], config: dict[str, Any]) -> None:
    """Import what a step imports only when it is needed: in init nothing can be imported any more."""
    mounts = [step[2] for step in steps if step[0] == "mount"]
    if any(entry["type"] == "cgroup" for entry in mounts):
        import argosy.runtime.cgroupmount
    if any(entry["copyup"] for entry in mounts):
        import argosy.runtime.copyup
    if config.get("hooks"):
        import argosy.runtime.hooks
    if linux.get("seccomp"):
        import argosy.runtime.seccomp
    if any(step[0] == "loopback" for step in steps):
        import argosy.runtime.netdevices  # noqa: F401


_LOGGED = {ch.WARNING: log.warning, ch.DEBUG: log.debug}


def listen(channel: Channel) -> tuple[bytes, bytes]:
    """The next packet that is not for the log; those on the way to it are logged."""
    while True:
        kind, payload = channel.receive()
        if kind not in _LOGGED:
            return kind, payload
        _LOGGED[kind](payload.decode("utf-8", "replace"))


def write_score(pid: int, score: int, *, rootless: bool) -> None:
    """The process's out-of-memory score; without privileges it may be refused.

    Raises:
        OSError: it is refused; a note names it.
    """
    try:
        fd = posix.open(f"/proc/{pid}/oom_score_adj", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, b"%d" % score)
        finally:
            posix.close(fd)
    except OSError as error:
        if rootless and isinstance(error, PermissionError):
            return
        error.add_note(f"error setting oomScoreAdj {score}")
        raise


def reset_affinity(pid: int) -> None:
    """Every CPU that its cgroup allows: what the caller was bound to is not the container's business."""
    try:
        posix.sched_setaffinity(pid, range(posix.sysconf("SC_NPROCESSORS_CONF")))
    except OSError as error:
        log.debug(f"cannot reset the CPU affinity: {error}")


def set_limits(kernel: LinuxKernel, pid: int, process: dict[str, Any]) -> None:
    """The limits of ``process.rlimits``.

    Raises:
        OSError: one is refused; a note names it.
    """
    for limit in process.get("rlimits", ()):
        try:
            kernel.prlimit(pid, RLIMITS[limit["type"]], limit.get("soft", 0), limit.get("hard", 0))
        except OSError as error:
            error.add_note(f"error setting rlimit type {limit['type']}")
            raise


def hand_listener(
    kernel: LinuxKernel,
    prepared: Any,
    process: tuple[int, int],
    number: bytes,
    shown: dict[str, Any],
) -> None:
    """Take the process's seccomp listener and send it to the agent.

    Args:
        kernel: the system calls.
        prepared: the filter.
        process: its (pid, pidfd).
        number: the listener's descriptor there, in digits.
        shown: the container's state, as the agent gets it.

    Raises:
        Failure: there is no agent.
    """
    from argosy.runtime import seccomp
    from argosy.runtime.jsonio import encode

    pid, pidfd = process
    fd = kernel.pidfd_getfd(pidfd, int(number))
    try:
        told = {
            "ociVersion": states.SPEC_VERSION, "fds": ["seccompFd"], "pid": pid,
            "metadata": prepared.metadata or "", "state": shown,
        }  # fmt: skip
        seccomp.send_listener(prepared, fd, encode(told).encode())
    except Failure as error:
        error.add_note("failed to connect with seccomp agent")
        raise
    finally:
        posix.close(fd)
