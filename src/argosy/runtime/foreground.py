"""A process in the foreground: signals go to it, its terminal is ours, its end is our exit status."""

from __future__ import annotations

import posix
from _signal import (
    SIGCHLD,
    SIGKILL,
    SIGSTOP,
    SIGWINCH,
    set_wakeup_fd,
    signal,
    valid_signals,
)
from fcntl import ioctl
from termios import TCSANOW, tcgetattr, tcsetattr
from termios import error as terminal_error

from argosy.runtime.errors import Failure
from argosy.runtime.flow import Flow
from argosy.runtime.poll import wait_either

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

_TIOCGWINSZ, _TIOCSWINSZ = 0x5413, 0x5414
_UNHANDLED = {
    SIGKILL,
    SIGSTOP,
    4,
    5,
    7,
    8,
    11,
    23,
    32,
    33,
}  # also what the kernel sends for faults, and SIGURG


class Signals:
    """Every signal as bytes of a pipe, from before the process exists until it has ended."""

    def __init__(self) -> None:
        self.reader, self._writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._before = {}
        for number in valid_signals() - _UNHANDLED:
            self._before[number] = signal(number, _nothing)
        self._old = set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def read(self) -> bytes:
        """The numbers of the signals that came."""
        try:
            return posix.read(self.reader, 4096)
        except BlockingIOError:
            return b""


def _nothing(*_: object) -> None:
    """The wakeup descriptor tells."""


def host_terminal() -> int:
    """The caller's terminal: a standard stream that is one, else the controlling terminal.

    Raises:
        Failure: there is none, so nobody to show the container's terminal to.
    """
    for fd in (2, 1, 0):
        if posix.isatty(fd):
            return fd
    try:
        return posix.open("/dev/tty", posix.O_RDWR | posix.O_CLOEXEC)
    except OSError as error:
        raise Failure(f"open /dev/tty: {(error.strerror or '').lower()}") from error


class Terminal:
    """The caller's terminal made raw, and joined with the container's master."""

    def __init__(self, host: int, master: int) -> None:
        self.host = host
        self.master = master
        self._saved = tcgetattr(host)

    def open(self) -> None:
        """Make the caller's terminal raw and give its size on. It goes on to end lines: the container's does not."""
        mode = tcgetattr(self.host)
        mode[0] &= ~0o2752  # IGNBRK BRKINT PARMRK ISTRIP INLCR IGNCR ICRNL IXON
        mode[2] = mode[2] & ~0o460 | 0o60  # CSIZE PARENB, CS8
        mode[3] &= ~0o100113  # ECHO ECHONL ICANON ISIG IEXTEN
        tcsetattr(self.host, TCSANOW, mode)
        self.resize()

    def flows(self) -> list[Flow]:
        """What is typed, and what is shown. Only the master never blocks: the caller's streams stay as they are."""
        posix.set_blocking(self.master, False)
        return [Flow(0, self.master), Flow(self.master, 1)]

    def resize(self) -> None:
        """Give the caller's window size on."""
        try:
            ioctl(self.master, _TIOCSWINSZ, ioctl(self.host, _TIOCGWINSZ, b"\0" * 8))
        except OSError:
            pass

    def close(self) -> None:
        """Give the caller's terminal back as it was, unless it is gone: its window was closed."""
        try:
            tcsetattr(self.host, TCSANOW, self._saved)
        except terminal_error:
            pass


def receive_master(end: socket) -> int:
    """The console's master from our end of a socket pair."""
    from argosy.runtime.channel import take_fds

    _, ancillary, _, _ = end.recvmsg(4096, 1024)
    fds = take_fds(ancillary)
    end.close()
    return fds[0]


def attend(pid: int, signals: Signals, terminal: Terminal | None) -> int:
    """Forward signals and bytes until the process has ended.

    Returns:
        Its exit status, 128 + n where signal n ended it.
    """
    if terminal:
        terminal.open()
    try:
        return _attend(pid, signals, terminal)
    finally:
        if terminal:
            terminal.close()


def _attend(pid: int, signals: Signals, terminal: Terminal | None) -> int:
    flows = terminal.flows() if terminal else []
    status = _reap(pid)
    while status is None:
        if terminal and any(flow.gone and flow.source == terminal.master for flow in flows):
            # Nobody takes what is shown: the container's terminal hangs up.
            posix.close(terminal.master)
            terminal = None
        flows = [flow for flow in flows if flow.open] if terminal else []
        come, _ = _move(flows, [signals.reader], None)
        if come:
            status = _handle(pid, signals.read(), terminal)
    for flow in flows:
        if terminal and flow.source == terminal.master:
            _drain(flow)
    return status


def _handle(pid: int, numbers: bytes, terminal: Terminal | None) -> int | None:
    for number in set(numbers):
        if number == SIGWINCH and terminal:
            terminal.resize()
        elif number != SIGCHLD:
            try:
                posix.kill(pid, number)
            except ProcessLookupError:
                pass
    return _reap(pid)


def _reap(pid: int) -> int | None:
    """Reap whoever has ended; the process's own status is the answer."""
    answer = None
    try:
        while True:
            ended, status = posix.waitpid(-1, posix.WNOHANG)
            if not ended:
                return answer
            if ended == pid:
                code = posix.waitstatus_to_exitcode(status)
                answer = code if code >= 0 else 128 - code
    except ChildProcessError:
        return answer


def _move(flows: list[Flow], others: list[int], timeout: float | None) -> tuple[list[int], bool]:
    """Wait for any flow, or any other descriptor, and move the flows that can be.

    Returns:
        The other descriptors that are readable, and whether a flow was moved.
    """
    sources = {flow.source for flow in flows if not flow.pending}
    targets = {flow.target for flow in flows if flow.pending}
    come, go = wait_either(sources.union(others), targets, timeout)
    moved = [flow for flow in flows if flow.waits_for in (go if flow.pending else come)]
    for flow in moved:
        flow.move()
    return [fd for fd in others if fd in come], bool(moved)


def _drain(flow: Flow) -> None:
    """What the process has said already; whom it is for may take his time."""
    while flow.open and _move([flow], [], None if flow.pending else 0.0)[1]:
        pass


__all__ = ["Signals", "Terminal", "attend", "host_terminal", "receive_master"]
