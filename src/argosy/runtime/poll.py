"""Waiting for descriptors, without the `select` package's ladders."""

from __future__ import annotations

from select import POLLERR, POLLHUP, POLLIN, poll


def wait_readable(fds: list[int], timeout: float | None) -> list[int]:
    """The descriptors that are readable or closed at their other end; none when the time (seconds) is up."""
    waiter = poll()
    for fd in fds:
        waiter.register(fd, POLLIN)
    ready = waiter.poll(None if timeout is None else int(timeout * 1000))
    return [fd for fd, event in ready if event & (POLLIN | POLLHUP | POLLERR)]
