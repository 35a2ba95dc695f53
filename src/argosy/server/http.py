"""Requests and answers, as the handlers see them, and request bodies with their limits."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    InvalidError,
    InvalidUploadError,
    LimitExceededError,
    RangeNotSatisfiableError,
    SizeMismatchError,
    StorageError,
    TooManyRequestsError,
)
from argosy.server.access import Principal
from argosy.server.curfew import CURFEW

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

REFUSED = "argosy.refused"
"""In a request's scope: why it is not let in."""
PIECE = 768 * 1024
"""Bytes of a body are gathered to pieces of this size before they are hashed and written."""

_LINGER, _STALLED = 30.0, 5.0
"""Seconds in all, and without a byte, for which a body that was refused is still read; as nginx has them."""
_AGAIN_SECONDS = {429: 1.0, 503: 5.0, 507: 60.0}
"""What ends by itself, and when to ask again where the error does not know better. A full disk takes longest. No other
status is in it: 500 is a bug or a loss, and 502 what an upstream did."""
_SINGLE = frozenset({b"host", b"origin", b"authorization"})
_LENGTH = re.compile(rb"[0-9]{1,19}")
_HOST = re.compile(rb"(?:\[[0-9A-Za-z:._~%-]+\]|[0-9A-Za-z._~%!$&'()*+,;=-]+)(?::[0-9]*)?")
_CHUNKED = re.compile(r"[\s,]*chunked[\s,]*", re.IGNORECASE)
_FIELDS = 1000
"""Query parameters one request may have."""


class RequestTimeoutError(ArgosyError):
    """The client sends its body too slowly, or stopped."""

    code = "SIZE_INVALID"
    status = 408


class ClientGoneError(ArgosyError):
    """The body broke off: the client hung up or closed its half of the connection, or what it sent is no body.

    Nobody can tell which. Whoever still listens is answered 400; the log says 499.
    """

    code = "SIZE_INVALID"
    status = 499


class StoppingError(ArgosyError):
    """The process ends before the body does. Another one, or the next, goes on with it."""

    status = 503


class MisdirectedError(ArgosyError):
    """A path no route matches, or one that two readers could understand differently."""

    code = "NAME_UNKNOWN"
    status = 404


class OutsideError(RangeNotSatisfiableError):
    """A range of a blob that is not in it.

    Args:
        message: What was asked for.
        size: The bytes there are.
    """

    code = "SIZE_INVALID"

    def __init__(self, message: str, size: int = 0) -> None:
        super().__init__(message)
        self.size = size


class TooLongError(LimitExceededError):
    """More in the request line than is taken: a path or query that is too long, or too many tags."""

    status = 414


class MalformedQueryError(InvalidError):
    """Something in the query that no name, tag or media type can hold, nor every database."""

    code = "UNSUPPORTED"


class AmbiguousError(InvalidError):
    """A header that there is one of came twice, with another value, or not at all: who reads the first is told
    something else."""

    code = "UNSUPPORTED"


class CodingError(InvalidError):
    """A body in a transfer coding that nobody here undoes (RFC 9112, section 6.1)."""

    code = "UNSUPPORTED"
    status = 501


@dataclasses.dataclass(slots=True)
class Limits:
    """How long a body may take and how big it may be: seconds, and bytes (0: no limit)."""

    idle: float = 60.0
    total: float = 6 * 3600.0
    size: int = 0


class Request:
    """One request: where it goes was decided from the raw path once; nothing reads the path again.

    `name` is the repository ("" where the route has none) and `argument` the last part of the route's pattern.
    `expected` are the bytes its body is said to have, by something else than `Content-Length`; None if nothing says.
    """

    __slots__ = (
        "_query",
        "argument",
        "ended",
        "expected",
        "headers",
        "id",
        "method",
        "name",
        "principal",
        "raw_query",
        "receive",
        "received",
        "scope",
    )

    def __init__(self, scope: Scope, receive: Receive, identity: str) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.raw_query: bytes = scope.get("query_string", b"")
        self.id = identity
        self.name = ""
        self.argument = ""
        self.principal = Principal()
        self.received = 0
        self.expected: int | None = None
        self.ended = self.headers.get(b"content-length") == b"0"
        self._query: list[tuple[str, str]] | None = None

    def header(self, name: bytes) -> str | None:
        """A header's value (lower-case name), or None."""
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    def lines(self, name: bytes) -> str | None:
        """A list that may come in several headers of one name (RFC 9110, section 5.3), or None."""
        if name not in self.headers:
            return None
        return b",".join(value for key, value in self.scope["headers"] if key == name).decode(
            "latin-1"
        )

    def check(self) -> None:
        """Refuse what nobody could read, before anything is done.

        Raises:
            TooLongError: more than 1000 query parameters.
            AmbiguousError: in HTTP/1.1 no host, more than one, or one that is none (RFC 9112, section 3.2), or two
                origins or credentials.
            CodingError: a transfer coding other than `chunked`, or that one twice.
        """
        if self.raw_query.count(b"&") >= _FIELDS:
            raise TooLongError(f"more than {_FIELDS} query parameters")
        listed = self.scope["headers"]
        if self.scope.get("http_version") == "1.1":
            # The HTTP server makes an empty one of none; no http URL has such a host either.
            hosts = [value for name, value in listed if name == b"host" and value]
            if len(hosts) != 1:
                raise AmbiguousError(f"Host: expected one, got {len(hosts) or 'none'}")
            if not _HOST.fullmatch(hosts[0]):
                raise AmbiguousError("Host: expected a name or an address, and a port if any")
            coding = self.lines(b"transfer-encoding")
            if coding is not None and not _CHUNKED.fullmatch(coding):
                raise CodingError(f"Transfer-Encoding {coding[:50]!r}: expected chunked")
        if len(listed) != len(self.headers):
            for name, value in listed:
                if name in _SINGLE and value != self.headers[name]:
                    raise AmbiguousError(f"{name.decode().title()}: expected one, got several")

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query parameters in order.

        Raises:
            TooLongError: more than 1000 of them.
            MalformedQueryError: a NUL in one of them.
        """
        if self._query is None:
            self.check()
            if b"%00" in self.raw_query:
                raise MalformedQueryError("query: expected no NUL")
            self._query = parse_qsl(self.raw_query.decode("latin-1"), keep_blank_values=True)
        return self._query

    def parameter(self, name: str) -> str | None:
        """The first query parameter of a name, or None."""
        if not self.raw_query:
            return None
        return next((value for key, value in self.query if key == name), None)

    def parameters(self, name: str) -> list[str]:
        """All query parameters of a name."""
        return [value for key, value in self.query if key == name] if self.raw_query else []

    @property
    def content_length(self) -> int | None:
        """What `Content-Length` says, or None.

        Raises:
            InvalidUploadError: it is not a number.
        """
        value = self.headers.get(b"content-length")
        if value is None:
            return None
        if not _LENGTH.fullmatch(value):
            raise InvalidUploadError("Content-Length: expected a number of bytes")
        return int(value)

    async def pieces(self, limits: Limits, piece: int = PIECE) -> AsyncIterator[list[bytes]]:
        """The body, in pieces of at least `piece` bytes but for the last. All that came is handed out before an error.

        Raises:
            LimitExceededError: it is longer than allowed; as much as one piece over the limit may have been read.
            SizeMismatchError: it is not as long as it was said to be.
            RequestTimeoutError: it takes too long.
            ClientGoneError: the client hung up.
            StoppingError: this process ends.
        """
        expected = self.content_length
        if expected is None:
            expected = self.expected
        if limits.size and expected is not None and expected > limits.size:
            raise LimitExceededError(f"body of {expected} bytes: expected at most {limits.size}")
        if expected == 0:
            return
        end = asyncio.get_running_loop().time() + limits.total
        more = True
        while more:
            gathered, more, cut = await self._gather(piece, limits.idle, end)
            if limits.size and self.received > limits.size:
                raise LimitExceededError(f"body: expected at most {limits.size} bytes")
            if expected is not None and self.received > expected:
                break
            if gathered:
                yield gathered
            if cut is not None:
                raise cut
        if expected is not None and self.received != expected:
            raise SizeMismatchError("body", expected=expected, actual=self.received)

    async def _gather(
        self, piece: int, idle: float, end: float
    ) -> tuple[list[bytes], bool, ArgosyError | None]:
        """What came, whether more is to come, and what cut it off."""
        parts: list[bytes] = []
        size, more = 0, True
        receive, loop = self.receive, asyncio.get_running_loop()
        armed = float("-inf")
        cut: ArgosyError | None = None
        try:
            async with asyncio.timeout(None) as limit:
                with CURFEW.ends(limit):
                    while more and size < piece and not CURFEW.has_begun:
                        now = loop.time()
                        if now - armed > idle / 10:
                            limit.reschedule(min(now + idle, end))
                            armed = now
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            cut = ClientGoneError("body: it broke off, or is malformed")
                            break
                        body = message.get("body", b"")
                        size += len(body)
                        parts.append(body)
                        more = message.get("more_body", False)
        except TimeoutError:
            cut = RequestTimeoutError(f"body: nothing came for {idle:g} s, or it took too long")
        if more and CURFEW.has_begun:
            cut = StoppingError(
                "the registry stops: what came of the body is kept, if it is a blob's"
            )
        self.ended = not more
        self.received += size
        return parts, more, cut

    async def read(self, limits: Limits) -> bytes:
        """The whole body.

        Raises:
            LimitExceededError: it is longer than allowed.
            SizeMismatchError: it is shorter than `Content-Length`.
            RequestTimeoutError: it takes too long.
            ClientGoneError: the client hung up.
        """
        parts = [part async for piece in self.pieces(limits) for part in piece]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def drain(self) -> None:
        """Read what is left of the body and throw it away.

        Who answers and hangs up on a client that is sending resets the connection, and the answer is lost with it: a
        refused upload would look like a broken network. A client that waits for `100 Continue` sends nothing more.
        """
        announced = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if CURFEW.has_begun or not announced or (b"expect" in self.headers and not self.received):
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + _LINGER
        with contextlib.suppress(TimeoutError):
            while not self.ended and loop.time() < end:
                async with asyncio.timeout_at(min(loop.time() + _STALLED, end)):
                    message = await self.receive()
                self.received += len(message.get("body", b""))
                self.ended = not message.get("more_body", False)


@dataclasses.dataclass(slots=True)
class File:
    """A whole local file as a body."""

    path: str
    size: int

    def check(self) -> None:
        """See that the file is there and whole: who sends it by its path is not told.

        Raises:
            BlobUnknownError: it is not there.
            StorageError: it cannot be read, or is shorter than it should be.
        """
        name = os.path.basename(self.path)
        try:
            found = os.stat(self.path).st_size
        except FileNotFoundError:
            raise BlobUnknownError(f"object {name} is not in the storage") from None
        except OSError as exc:
            raise StorageError(f"object {name}: {exc.strerror}") from exc
        if found != self.size:
            raise StorageError(f"object {name} ends at byte {found}: expected {self.size}")


@dataclasses.dataclass(slots=True)
class Pieces:
    """A body that is read piece by piece, on the pool."""

    source: Iterator[bytes]
    size: int


@dataclasses.dataclass(slots=True)
class Stream:
    """A body that comes piece by piece from elsewhere; `size` in bytes, or None where nobody knows."""

    source: AsyncIterator[bytes]
    size: int | None


@dataclasses.dataclass(slots=True)
class Response:
    """An answer. `Content-Length` is the body's, or `length` where the answer to HEAD has none.

    `sent` are the bytes of the body that have gone out; `told` is the status the log has, where it is another one.
    """

    status: int = 200
    headers: list[Header] = dataclasses.field(default_factory=list)
    body: bytes | File | Pieces | Stream = b""
    length: int | None = None
    sent: int = 0
    told: int = 0

    def add(self, name: bytes, value: str) -> None:
        """Add a header."""
        self.headers.append((name, value.encode("latin-1")))


def again(error: ArgosyError) -> list[Header]:
    """The `Retry-After` of an error, if there is any point in asking again.

    >>> again(StorageError("a bug")), again(TooManyRequestsError("busy", retry_after=2.0))
    ([], [(b'retry-after', b'2')])
    """
    if error.status not in _AGAIN_SECONDS:
        return []
    known = error.retry_after if isinstance(error, TooManyRequestsError) else None
    seconds = _AGAIN_SECONDS[error.status] if known is None else known
    return [(b"retry-after", b"%d" % max(1, round(seconds)))]
