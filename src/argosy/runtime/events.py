"""``events``: statistics at an interval, and out-of-memory events, as lines of JSON."""

from __future__ import annotations

import posix
from select import POLLERR, POLLIN, POLLPRI, poll
from time import monotonic

from argosy.runtime.cli import _print
from argosy.runtime.errors import Failure, UsageError
from argosy.runtime.jsonio import encode
from argosy.runtime.poll import LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.runtime.cli import Command
    from argosy.runtime.container import Container

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DEFAULT = "5s"


def seconds(text: str) -> float:
    """A duration like ``100ms``, ``1m30s`` or ``5`` (seconds).

    Raises:
        UsageError: it is none, or not above 0.

    Example:
        >>> seconds("1m30s"), seconds("100ms")
        (90.0, 0.1)
    """
    total, number, rest = 0.0, "", text
    while rest:
        sign = rest[0]
        if sign in "0123456789.":
            number, rest = number + sign, rest[1:]
            continue
        unit = next(
            (unit for unit in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(unit)),
            None,
        )
        if unit is None:
            raise UsageError(f'invalid duration "{text}"')
        total, number, rest = total + _amount(number, text) * _UNITS[unit], "", rest[len(unit) :]
    if number:
        total += _amount(number, text)
    if total <= 0:
        raise Failure("duration interval must be greater than 0")
    return total


def _amount(number: str, text: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise UsageError(f'invalid duration "{text}"') from None


def events_verb(command: Command) -> int:
    """``events``: until the container has ended, or once with ``--stats``."""
    container = command.container()
    interval = seconds(command.options.get("interval") or _DEFAULT)
    if container.status() == "stopped":
        raise Failure(f"container with id {container.cid} is not running")
    if command.options.get("stats"):
        _tell(container, "stats")
        return 0
    _watch(container, interval)
    return 0


def _tell(container: Container, kind: str) -> None:
    event: dict[str, Any] = {"type": kind, "id": container.cid}
    if kind == "stats":
        event["data"] = container.cgroup().stats()
    _print(encode(event) + "\n")


def _watch(container: Container, interval: float) -> None:
    pidfd = posix.pidfd_open(container.state["pid"])
    waiter = poll()
    waiter.register(pidfd, POLLIN)
    alarm = Alarm(container)
    if alarm.fd >= 0:
        waiter.register(alarm.fd, alarm.mask)
    following = monotonic() + interval
    while True:
        left = min(max(0.0, (following - monotonic()) * 1000), LONGEST)
        ready = {fd for fd, _ in waiter.poll(left)}
        if alarm.fd in ready and alarm.rang():
            _tell(container, "oom")
        if pidfd in ready:
            return
        if monotonic() >= following:
            following += interval
            try:
                _tell(container, "stats")
            except (OSError, Failure):
                if container.status() == "stopped":
                    return
                raise


class Alarm:
    """Out-of-memory events of a cgroup, as a descriptor to poll.

    Attributes:
        fd: -1 where the kernel has none to offer.
        mask: what to poll it for.
    """

    def __init__(self, container: Container) -> None:
        self.fd, self.mask = -1, POLLIN
        self._cgroup = container.cgroup()
        self._count = self._cgroup.oom_kills()
        self._path = self._cgroup.oom_events()
        if self._path is None:
            return
        if self._path.endswith("/memory.oom_control"):
            self._register()
        else:
            self.fd = posix.open(self._path, posix.O_RDONLY | posix.O_CLOEXEC)
            self.mask = POLLPRI | POLLERR
            posix.read(self.fd, 4096)

    def _register(self) -> None:
        directory = str(self._path).rpartition("/")[0]
        self._control = posix.open(str(self._path), posix.O_RDONLY | posix.O_CLOEXEC)
        self.fd = posix.eventfd(0, posix.EFD_CLOEXEC)
        control = posix.open(f"{directory}/cgroup.event_control", posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(control, b"%d %d" % (self.fd, self._control))
        finally:
            posix.close(control)

    def rang(self) -> bool:
        """Take one event; False where it was another change, or the cgroup's end."""
        if self.mask == POLLIN:
            posix.eventfd_read(self.fd)
            try:
                posix.stat(str(self._path))
            except FileNotFoundError:
                return False
            return True
        posix.lseek(self.fd, 0, 0)
        posix.read(self.fd, 4096)
        before, self._count = self._count, self._cgroup.oom_kills()
        return self._count > before
