"""What those who run the registry see: one JSON line a request, and figures of the whole server for Prometheus.

Nothing secret is written down: no header but the user agent, no query parameter but the specification's, and not the
part of an upload's path that lets its holder go on with it.
"""

from __future__ import annotations

import asyncio
import bisect
import functools
import ipaddress
import json
import logging
import re
import time
from collections import defaultdict
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from argosy.errors import DeniedError, InvalidError, LimitExceededError
from argosy.server.config import is_loopback
from argosy.server.http import (
    MisdirectedError,
    Request,
    Response,
)
from argosy.server.loopback import Loopback
from argosy.server.metadata import collect
from argosy.server.registry import Exchange, Registry, log
from argosy.server.routes import Route
from argosy.server.settings import Settings
from argosy.server.team import Seat
from argosy.server.visit import VISIT, Visit

if TYPE_CHECKING:
    from argosy.server.auth.gate import Gate

__all__ = ["Counters", "Telemetry", "access_line"]

_ACCESS = logging.getLogger("argosy.access")
_quoted = functools.lru_cache(1024)(json.dumps)
_FIGURES_SECONDS = 60.0
_TELL_SECONDS = 1.0
_SHOWN = frozenset(
    {"n", "last", "digest", "mount", "from", "artifactType", "tag", "digest-algorithm", "ns",
     "scope", "service"}
)  # fmt: skip
_UPLOAD = re.compile(r"/[0-9a-f-]{36}(?:\.|%2[Ee])[0-9a-f]{32}")
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_FLUSH_SECONDS = 0.2
_FLUSH_LINES = 256


def access_line(exchange: Exchange, visit: Visit | None, now: float) -> str:
    """One request as a line of JSON."""
    request = exchange.request
    agent = request.headers.get(b"user-agent", b"")[:200].decode("latin-1")
    # Written by hand: a dictionary through the encoder costs three times as much, once a request.
    return (
        f'{{"time":"{_second(int(now))}.{int(now % 1 * 1000):03d}Z","request_id":"{request.id}",'
        f'"client":{_quoted(visit.address if visit else "")},"user":{_quoted(request.principal.name)},'
        f'"method":{_quoted(request.method[:32])},"path":{_quoted(_shown_path(exchange))},'
        f'"query":{_quoted(_shown_query(request))},"route":{_quoted(exchange.route)},'
        f'"status":{exchange.status},"received":{request.received},"sent":{exchange.sent},'
        f'"seconds":{exchange.seconds:.6f},"agent":{_quoted(agent)}}}'
    )


@functools.lru_cache(4)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def _shown_path(exchange: Exchange) -> str:
    path: str = exchange.request.scope["raw_path"].decode("latin-1")[:2048]
    if exchange.route == "upload":
        return path.rpartition("/")[0] + "/-"
    return _UPLOAD.sub("/-", path)  # of one that was refused before anybody knew its route


def _shown_query(request: Request) -> str:
    if not request.raw_query or len(request.raw_query) > 8192:
        return ""
    try:
        query = request.query
    except (InvalidError, LimitExceededError):  # what it was refused for
        return ""
    return urlencode([(k, v[:256]) for k, v in query if k in _SHOWN][:20])


class _Lines:
    """The access log: lines are gathered for a moment and written together, so that a request need not wait."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        """Add a line."""
        self._lines.append(line)
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        elif len(self._lines) >= _FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines = self._lines, []
        if lines:
            _ACCESS.info("%s", "\n".join(lines))


class Timing:
    """How long the requests of one route and method took."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect.bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds


class Counters:
    """Figures in plain dictionaries: counting costs a microsecond, telling may cost more.

    >>> one, both = Counters(), Counters()
    >>> one.requests["ping", "GET", 200] += 1
    >>> both.add(one.encode()); both.add(one.encode())
    >>> both.requests["ping", "GET", 200]
    2
    """

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self.timings: defaultdict[tuple[str, str], Timing] = defaultdict(Timing)
        self.bytes = {"received": 0, "sent": 0}
        self.database: dict[str, float] = {}

    def encode(self) -> bytes:
        """All that is counted, for other workers of this server."""
        document = {
            "requests": [[*key, count] for key, count in self.requests.items()],
            "timings": [[*key, t.seconds, t.counts] for key, t in self.timings.items()],
            "bytes": self.bytes,
        }
        return json.dumps(document).encode()

    def add(self, raw: bytes) -> None:
        """Add what another worker has counted, or what this one's predecessor had."""
        document = json.loads(raw)
        for route, method, status, count in document["requests"]:
            self.requests[route, method, status] += count
        for route, method, seconds, counts in document["timings"]:
            timing = self.timings[route, method]
            timing.seconds += seconds
            timing.counts = [sum(pair) for pair in zip(timing.counts, counts, strict=True)]
        for name, count in document["bytes"].items():
            self.bytes[name] += count


class Telemetry:
    """Counters of one worker, and the log of its requests.

    Args:
        settings: Whether requests are logged, and who may read the figures.
        gate: Says who is an admin; None where there are no users.
        seat: The worker's place among the others.
    """

    def __init__(
        self, settings: Settings, gate: Gate | None = None, seat: Seat | None = None
    ) -> None:
        self._lines = _Lines() if settings.log.access else None
        self._door = settings.operations.metrics
        is_ours = gate is None and is_loopback(settings.listen.host)
        self._browsers = (
            Loopback(settings.listen.public_url) if is_ours or self._door == "loopback" else None
        )
        self._gate = gate
        self._collected_at = float("-inf")
        self._counters = Counters()
        self._seat = seat or Seat()
        self._is_told, self._is_failing = True, False
        if before := self._seat.inherited():
            self._counters.add(before)

    def record(self, exchange: Exchange) -> None:
        """Count a request and log it; the application calls this after each."""
        request, counters = exchange.request, self._counters
        method = request.method if request.method in _METHODS else "other"
        counters.requests[exchange.route, method, exchange.status] += 1
        counters.timings[exchange.route, method].add(exchange.seconds)
        counters.bytes["received"] += request.received
        counters.bytes["sent"] += exchange.sent
        self._is_told = False
        if self._lines is not None:
            self._lines.write(access_line(exchange, VISIT.get(), time.time()))

    async def run(self, registry: Registry) -> None:
        """The background task: tells the other workers, and sees that the last lines are written at the end."""
        del registry
        try:
            while True:
                await asyncio.sleep(_TELL_SECONDS)
                self._tell()
        finally:
            self._tell()
            if self._lines is not None:
                self._lines.flush()

    def _tell(self) -> None:
        """Show the other workers this one's figures."""
        if self._is_told:
            return
        try:
            self._seat.publish(self._counters.encode())
        except OSError as exc:
            if not self._is_failing:
                log.warning("figures cannot be written: %s", exc)
            self._is_failing = True
        else:
            self._is_told, self._is_failing = True, False

    def routes(self) -> tuple[Route, ...]:
        """`/metrics`, where somebody may read it."""
        if self._door == "none":
            return ()
        return (Route(("GET",), "/metrics", "open", self._metrics, "metrics"),)

    async def _metrics(self, registry: Registry, request: Request) -> Response:
        """`GET /metrics`.

        Raises:
            AccessError: they are not for whoever asks.
            MisdirectedError: they are for this machine only.
        """
        await self._check(request)
        now = time.monotonic()
        if now - self._collected_at > _FIGURES_SECONDS:
            self._collected_at = now
            at = registry.clock()
            self._counters.database = await registry.metadata.read(
                lambda tx: collect.figures(tx, at), slow=True
            )
        from argosy.server.exposition import CONTENT_TYPE, expose

        return Response(200, [(b"content-type", CONTENT_TYPE)], expose(self._of_all()))

    def _of_all(self) -> Counters:
        """The figures of all workers. Whoever asks another one next must not find fewer: ours are told first."""
        self._tell()
        total = Counters()
        for figures in (self._counters.encode(), *self._seat.published()):
            total.add(figures)
        total.database = self._counters.database
        return total

    async def _check(self, request: Request) -> None:
        if self._door == "loopback" and not _is_loopback(VISIT.get()):
            raise MisdirectedError("no such route")
        if self._browsers is not None:
            await self._browsers.authenticate(request.headers)
        if self._door == "admin" and self._gate is not None:
            principal = await self._gate.authenticate(request.headers)
            self._gate.authorize(principal, "admin", None)
        elif self._door == "admin":
            raise DeniedError("nobody is an admin here")


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


def _is_loopback(visit: Visit | None) -> bool:
    try:
        return visit is not None and ipaddress.ip_address(visit.address).is_loopback
    except ValueError:
        return False
