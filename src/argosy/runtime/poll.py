"""Waiting for descriptors, without the `select` package's ladders."""

from __future__ import annotations

from select import POLLERR, POLLHUP, POLLIN, POLLOUT, poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_GONE = POLLHUP | POLLERR
LONGEST = (1 << 31) - 1  # milliseconds: poll(2) takes an int


def wait_either(
    readable: Iterable[int], writable: Iterable[int], timeout: float | None
) -> tuple[list[int], list[int]]:
    """The descriptors that are readable, and those that can be written to; one closed at its other end is both.

    Returns:
        Two empty lists when the time (seconds) is up, or 24 days of it.
    """
    asked = dict.fromkeys(readable, POLLIN)
    for fd in writable:
        asked[fd] = asked.get(fd, 0) | POLLOUT
    waiter = poll()
    for fd, events in asked.items():
        waiter.register(fd, events)
    ready = waiter.poll(None if timeout is None else min(int(timeout * 1000), LONGEST))
    come = [fd for fd, event in ready if asked[fd] & POLLIN and event & (POLLIN | _GONE)]
    go = [fd for fd, event in ready if asked[fd] & POLLOUT and event & (POLLOUT | _GONE)]
    return come, go


def wait_readable(fds: list[int], timeout: float | None) -> list[int]:
    """The descriptors that are readable or closed at their other end; none when the time (seconds) is up."""
    return wait_either(fds, (), timeout)[0]
