"""The connections of one worker: none that nothing goes through, and not all of them of one address.

The HTTP server takes connections by itself. Limits of requests know nothing of those that have not asked yet, and a
file is still being sent when its request is over. So each worker looks at its own sockets now and then: the kernel
counts what goes through them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ipaddress
import os
import resource
import socket
import stat
import struct
import termios
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from argosy.server.front import crowd, is_within
from argosy.server.registry import Registry, log
from argosy.server.settings import Limits

__all__ = ["HEADERS", "STREAMS", "Connections", "Peer", "capacity", "make_room"]

Peer = tuple[str, str]
"""A client's address and port, as the HTTP server tells them."""

HEADERS = 64 * 1024
"""Bytes of all headers of an HTTP/2 request: a few that are sent may stand for many."""
STREAMS = 16
"""Requests under way at a time on one HTTP/2 connection. Each may be a file that its client does not take."""

_LOOK_SECONDS = 1.0
_MOST, _LEAST = 1024, 16
_TIMES = 4
_EACH = 1 + STREAMS
"""Descriptors of one connection: its own, and the files that are sent on it."""
_OWN = 256
"""Descriptors that are for no connection: the database, the storage, threads."""
_INFO = struct.Struct("=120xQQ")
"""Of `struct tcp_info` in linux/tcp.h: the bytes the other side has acknowledged, and those it has sent."""
_RESET = struct.pack("ii", 1, 0)


def capacity(limits: Limits) -> int:
    """How many connections a worker takes at a time: far more than requests, as far as there are descriptors.

    >>> capacity(Limits()) >= 16
    True
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _wanted(limits)
    return max(_LEAST, min(_wanted(limits), (descriptors - _OWN) // _EACH))


def make_room(limits: Limits) -> None:
    """Raise this process' limit of descriptors to what so many connections need, and the files sent on them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _EACH * _wanted(limits) + _OWN
    if resource.RLIM_INFINITY not in (soft, hard):
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _wanted(limits: Limits) -> int:
    return max(_MOST, _TIMES * limits.concurrency)


class _Seen(NamedTuple):
    """A connection, and how many bytes had gone through it."""

    fd: int
    peer: Peer
    through: int


class Connections:
    """Ends connections: those that nothing goes through and no request is under way on, and the most quiet ones of an
    address that has more than half of what this worker takes.

    Args:
        limits: `body_idle_seconds` is for connections, too.
        trusted: Networks of the proxies, each of which has the connections of many.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        limits: Limits,
        trusted: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle = limits.body_idle_seconds
        self._share = capacity(limits) // 2
        self._trusted = [ipaddress.ip_network(cidr) for cidr in trusted]
        self._clock = clock
        self._asking: dict[Peer, int] = {}
        self._quiet: dict[Peer, tuple[int, float]] = {}

    def enter(self, peer: Peer) -> None:
        """A request is under way on a connection: it has time limits of its own."""
        self._asking[peer] = self._asking.get(peer, 0) + 1

    def leave(self, peer: Peer) -> None:
        """It is over, but for a file that may still be on its way."""
        others = self._asking.pop(peer) - 1
        if others:
            self._asking[peer] = others

    async def run(self, registry: Registry) -> None:
        """The background task of each worker."""
        del registry
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._idle))
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Look at all connections once, and end some."""
        now = self._clock()
        seen = list(_connections())
        before, self._quiet = self._quiet, {}
        for one in seen:
            last = before.get(one.peer)
            is_same = last is not None and last[0] == one.through
            self._quiet[one.peer] = last if last is not None and is_same else (one.through, now)
        for one in (*self._idle_ones(seen, now), *self._too_many(seen)):
            _end(one)

    def _idle_ones(self, seen: Iterable[_Seen], now: float) -> Iterator[_Seen]:
        for one in seen:
            if now - self._quiet[one.peer][1] >= self._idle and one.peer not in self._asking:
                yield one

    def _too_many(self, seen: Iterable[_Seen]) -> Iterator[_Seen]:
        by_address: defaultdict[str, list[_Seen]] = defaultdict(list)
        for one in seen:
            address = one.peer[0]
            if not (self._trusted and is_within(address, self._trusted)):
                by_address[crowd(address)].append(one)
        for address, held in by_address.items():
            excess = len(held) - self._share
            if excess <= 0:
                continue
            log.warning("%s has %d connections: %d of them are ended", address, len(held), excess)
            held.sort(key=lambda one: (one.peer in self._asking, self._quiet[one.peer][1]))
            yield from held[:excess]


def _connections() -> Iterator[_Seen]:
    """The connections to a port this process listens on."""
    ports: set[int] = set()
    found: list[tuple[int, _Seen]] = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), _opened(int(name)) as one:
            port = one.getsockname()[1]
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                ports.add(port)
            else:
                found.append((port, _seen(int(name), one)))
    return (seen for port, seen in found if port in ports)


@contextlib.contextmanager
def _opened(fd: int) -> Iterator[socket.socket]:
    """A TCP socket of this process by a descriptor of our own: the HTTP server may close its one at any time.

    Raises:
        OSError: it is something else, or gone.
    """
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        raise OSError("no socket")
    own = os.dup(fd)
    try:
        one = socket.socket(fileno=own)
    except BaseException:
        os.close(own)
        raise
    with one:
        if one.family not in (socket.AF_INET, socket.AF_INET6):
            raise OSError("no socket of the internet")
        yield one


def _seen(fd: int, one: socket.socket) -> _Seen:
    """What there is to know of a connection.

    Raises:
        OSError: it is none.
    """
    host, port = one.getpeername()[:2]
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    return _Seen(fd, (host, str(port)), sum(_INFO.unpack(info)))


def _end(seen: _Seen) -> None:
    """End a connection. What was sent and is not taken is thrown away: it would stay in the kernel's memory."""
    with contextlib.suppress(OSError), _opened(seen.fd) as one:
        host, port = one.getpeername()[:2]
        if (host, str(port)) != seen.peer:
            return
        if any(fcntl.ioctl(one, termios.TIOCOUTQ, bytes(4))):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.shutdown(socket.SHUT_RDWR)
