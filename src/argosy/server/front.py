"""In front of the application: where a request really comes from, and how many of them one client may have.

`X-Forwarded-For` and `X-Forwarded-Proto` are believed from configured proxies only; anybody else who sends them is
counted by the address of the connection.
"""

from __future__ import annotations

import functools
import ipaddress
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from argosy.errors import TooManyRequestsError
from argosy.server.access import Access, Principal, TagGuard, Verb
from argosy.server.http import REFUSED, Header, Message, Receive, Scope, Send
from argosy.server.settings import Limits
from argosy.server.team import Seat
from argosy.server.visit import VISIT, Visit

__all__ = ["Front", "Limiter", "Metered", "crowd", "is_within", "origin"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Application = Callable[[Scope, Receive, Send], Any]

_EXEMPT = frozenset({b"/livez", b"/readyz", b"/metrics"})
_EVERYBODY = "everybody"
_DRAINED = 64
"""So many refused bodies are read at a time, in each worker; who sends one more may not see why it was refused."""


def origin(
    peer: str, headers: Mapping[bytes, bytes], trusted: Sequence[Network], scheme: str
) -> tuple[str, str]:
    """A client's address and scheme: the connection's, or what a chain of trusted proxies tells.

    The list is read from its end, which the nearest proxy wrote; the first address that is not a trusted proxy's is
    the client's. What stands before it, anybody may have made up.

    >>> net = [ipaddress.ip_network("10.0.0.0/8")]
    >>> origin("10.0.0.1", {b"x-forwarded-for": b"6.6.6.6, 1.2.3.4, 10.0.0.2"}, net, "http")
    ('1.2.3.4', 'http')
    >>> origin("1.2.3.4", {b"x-forwarded-for": b"127.0.0.1"}, net, "http")
    ('1.2.3.4', 'http')
    """
    if not trusted or not is_within(peer, trusted):
        return peer, scheme
    told = headers.get(b"x-forwarded-proto", b"").strip().lower()
    scheme = told.decode() if told in {b"http", b"https"} else scheme
    listed = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
    for text in reversed(listed[-100:]):
        address = text.strip()
        if not _is_address(address):
            break
        peer = address
        if not is_within(address, trusted):
            break
    return peer, scheme


def _told(listed: Iterable[Header]) -> dict[bytes, bytes]:
    """Headers by name; the lists of several proxies one behind the other, whether in one line or in one each."""
    headers: dict[bytes, bytes] = {}
    for name, value in listed:
        before = headers.get(name) if name == b"x-forwarded-for" else None
        headers[name] = value if before is None else before + b"," + value
    return headers


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is of one of the networks."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in networks)


@functools.lru_cache(4096)
def crowd(address: str) -> str:
    """Whom an address is counted with: a host of IPv6 has all of a /64 to choose its addresses from.

    >>> crowd("2001:db8::1:2:3:4"), crowd("::ffff:192.0.2.1"), crowd("192.0.2.1")
    ('2001:db8::/64', '192.0.2.1', '192.0.2.1')
    """
    if ":" not in address or not _is_address(address):
        return address
    ip = ipaddress.IPv6Address(address)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


class Limiter:
    """Counts requests under way, and the rate, of each client, in all workers together. Used on one event loop.

    Workers that let a request in at the very same moment may be over a limit of concurrency by one each.

    Args:
        limits: What is allowed.
        seat: The worker's place among the others.
        clock: Seconds that only grow, the same in all workers.
    """

    def __init__(
        self,
        limits: Limits,
        seat: Seat | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._clock = clock
        self._seat = seat or Seat()
        self._under_way: Counter[str] = Counter()
        self._rates = self._seat.rates() if limits.requests_per_second else None

    def enter(self, visit: Visit) -> None:
        """Count a request in.

        Raises:
            TooManyRequestsError: the client, or everybody together, has too many; nothing is counted.
        """
        if self._counted(_EVERYBODY) >= self._limits.concurrency:
            raise TooManyRequestsError("the registry is busy", retry_after=1)
        self._take(visit.client)
        self._add(_EVERYBODY, 1)

    def leave(self, visit: Visit) -> None:
        """Count a request out."""
        self._add(visit.client, -1)
        self._add(_EVERYBODY, -1)

    def rename(self, visit: Visit, client: str) -> None:
        """Count a request for somebody else from now on: the client has said who it is.

        Raises:
            TooManyRequestsError: that one has too many; the request is still counted where it was.
        """
        if client == visit.client:
            return
        before = visit.client
        self._take(client)
        visit.client = client
        self._add(before, -1)

    def _take(self, client: str) -> None:
        limits = self._limits
        if self._counted(client) >= limits.concurrency_per_client:
            raise TooManyRequestsError("too many requests under way", retry_after=1)
        if self._rates is not None:
            rate, burst = limits.requests_per_second, limits.burst
            if wait := self._rates.spend(client, self._clock(), rate, burst):
                raise TooManyRequestsError("too many requests", retry_after=wait)
        self._add(client, 1)

    def _counted(self, who: str) -> int:
        return self._under_way[who] + self._seat.elsewhere(who)

    def _add(self, who: str, count: int) -> None:
        self._seat.add(who, count)
        self._under_way[who] += count
        if self._under_way[who] <= 0:
            del self._under_way[who]


class Metered:
    """An `Access` that counts a request for its principal as soon as that is known."""

    def __init__(self, access: Access, limiter: Limiter) -> None:
        self._access = access
        self._limiter = limiter

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who asks.

        Raises:
            UnauthorizedError: the credentials are wrong.
            TooManyRequestsError: they have too many requests.
        """
        principal = await self._access.authenticate(headers)
        visit = VISIT.get()
        if principal.name and visit is not None:
            self._limiter.rename(visit, f"user {principal.name}")
        return principal

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        """What the inner one says."""
        self._access.authorize(principal, verb, repository)

    def challenge(self, verb: Verb, repository: str | None) -> str:
        """What the inner one says."""
        return self._access.challenge(verb, repository)

    def guard(self, principal: Principal, repository: str) -> TagGuard | None:
        """What the inner one says."""
        return self._access.guard(principal, repository)


class Front:
    """The outermost ASGI application.

    Args:
        app: The registry.
        limiter: Counts requests.
        trusted: Networks of the proxies that are believed.
    """

    def __init__(self, app: Application, limiter: Limiter, trusted: Sequence[str] = ()) -> None:
        self._app = app
        self._limiter = limiter
        self._trusted = [ipaddress.ip_network(cidr) for cidr in trusted]
        self._drained = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count one request in and out, or turn it away."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        visit = self._visit(scope)
        VISIT.set(visit)
        if scope["raw_path"] in _EXEMPT:
            await self._app(scope, receive, send)
            return
        try:
            self._limiter.enter(visit)
        except TooManyRequestsError as error:
            scope[REFUSED] = error
            await self._refuse(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._limiter.leave(visit)

    def _visit(self, scope: Scope) -> Visit:
        peer = str((scope.get("client") or ("",))[0])
        headers = _told(scope["headers"]) if self._trusted else {}
        address, scheme = origin(peer, headers, self._trusted, str(scope.get("scheme", "http")))
        return Visit(address, scheme, crowd(address))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have it told, once its body is read, as everywhere, if that are not too many.

        It counts for nobody: who is refused takes no other's place.
        """
        self._drained += 1
        try:
            await self._app(scope, receive if self._drained <= _DRAINED else _nothing, send)
        finally:
            self._drained -= 1


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
