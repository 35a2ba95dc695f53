"""What goes over the wire: requests, answers and their headers, and what of them may be shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit, urlunsplit

from argosy.content.protocols import SupportsRead
from argosy.errors import LimitExceededError, TransportError
from argosy.spec._value import Value, field, replace
from argosy.spec.distribution import MAX_ERROR_BODY

T = TypeVar("T")

MAX_DOCUMENT = 8 * 1024 * 1024
"""The most bytes of an answer that are read into memory, unless its request says otherwise."""


class SettledError(TransportError):
    """A transport error that stays the same however often it is tried: refused here, not trusted, or tried enough."""


class Headers:
    """The header fields of a message: names without case, several values a name, in their order.

    >>> h = Headers([("Link", "<a>"), ("link", "<b>"), ("Content-Length", "3")])
    >>> h.get("content-length"), h.get_all("LINK"), h.get("Range", "-")
    ('3', ['<a>', '<b>'], '-')
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = tuple(fields)

    def get(self, name: str, default: str = "") -> str:
        """The first value of a field, or `default`."""
        values = self.get_all(name)
        return values[0] if values else default

    def get_all(self, name: str) -> list[str]:
        """Every value of a field."""
        lower = name.lower()
        return [value for key, value in self._fields if key.lower() == lower]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __contains__(self, name: str) -> bool:
        return bool(self.get_all(name))


class Body(Protocol):
    """What a request sends: its length in bytes, and a reader that starts at its beginning each time."""

    length: int

    def open(self) -> SupportsRead:
        """A reader of the whole body.

        Raises:
            TransportError: it was read before and cannot be read again.
        """
        ...


class Request(Value, kw_only=True):
    """One HTTP request.

    Args:
        method: `GET`, `HEAD`, `POST`, `PUT`, `PATCH` or `DELETE`.
        url: Absolute, or a path on the registry that the session completes.
        headers: Beside those that the session and the transport add.
        body: Bytes, or a `Body` that is streamed.
        scopes: What the registry's token must allow, such as `repository:app:pull`.
        stream: Leave a successful answer's body unread.
        limit: The most bytes of body to read into memory.
        retry: Send again after a failure that may pass. False where the flow itself knows better what to do.
        statuses: Error statuses the flow wants to see rather than have raised.
        named_by: The class of address (`network.classify`) of whoever named this URL, if nobody here did: it may then
            lead only to public addresses and those of the same class.
        settling: Bytes the other side has to digest before it can answer, which adds to the patience with it.
        pause: Seconds to leave the host alone first, because something just failed there.
        secret: The body holds one, and goes to no other place than the one it was made for.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | Body | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ()
    stream: bool = False
    limit: int = MAX_DOCUMENT
    retry: bool = True
    statuses: tuple[int, ...] = ()
    named_by: str | None = None
    settling: int = 0
    pause: float = 0.0
    secret: bool = False

    def replace(self, **changes: Any) -> Request:
        """A copy with some fields changed."""
        return replace(self, **changes)


class Response:
    """One HTTP answer. Its body is `data` once read, or is read from `body`, which must then be closed.

    Args:
        status: The status code.
        headers: The header fields.
        url: Where it came from, after redirects.
        data: The body, where it is in memory already.
        body: The body, where it is still on its way.
        close: What lets the connection go; called once.
        peer: The address the connection leads to, or an empty string behind a proxy.

    Attributes:
        again: Whether the request was sent before, and may have been carried out then: that answer was lost.
    """

    __slots__ = ("_close", "again", "body", "data", "headers", "peer", "status", "url")

    def __init__(
        self,
        status: int,
        headers: Headers | Mapping[str, str] | None = None,
        *,
        url: str = "",
        data: bytes = b"",
        body: SupportsRead | None = None,
        close: Callable[[], None] | None = None,
        peer: str = "",
    ) -> None:
        self.status = status
        self.headers = headers if isinstance(headers, Headers) else Headers((headers or {}).items())
        self.url = url
        self.data = data
        self.body = body
        self.peer = peer
        self.again = False
        self._close = close

    @property
    def length(self) -> int | None:
        """What `Content-Length` says, or None where it says nothing that can be: of no number so long is made one."""
        return _number(self.headers.get("Content-Length"))

    @property
    def whole(self) -> int | None:
        """The length of all of what this may be only a part of, as its head says, or None where it does not."""
        total = self.headers.get("Content-Range").rpartition("/")[2]
        return _number(total) if self.status in {206, 416} else self.length

    @property
    def coding(self) -> str:
        """The `Content-Encoding`, which nobody asks for; empty where the body is what it is."""
        text = self.headers.get("Content-Encoding").lower()
        return "" if text == "identity" else text

    def close(self) -> None:
        """Let the connection go; a body that was not read to its end is lost, and the connection with it."""
        if self._close:
            self._close()
        self._close = self.body = None

    def load(self, limit: int = MAX_DOCUMENT) -> Response:
        """Read the body into `data`.

        Raises:
            LimitExceededError: it has more than `limit` bytes.
            TransportError: it broke off.
        """
        if self.body is None:
            return self
        try:
            self.data = b"".join(self._pieces(limit + 1))
        finally:
            self.close()
        if len(self.data) > limit:
            self.data = b""
            raise LimitExceededError(f"answer of {redact_url(self.url)} is over {limit} bytes")
        return self

    def load_error(self) -> Response:
        """Read what an error body has to say: at most 64 KiB, and a body that breaks off is no new error."""
        if self.body is None:
            return self
        parts: list[bytes] = []
        try:
            for part in self._pieces(MAX_ERROR_BODY):
                parts.append(part)  # noqa: PERF402 - what came before a failure counts
        except TransportError:
            pass
        finally:
            self.close()
        self.data = b"".join(parts)
        return self

    def _pieces(self, most: int) -> Iterator[bytes]:
        """The body as it comes, in chunks perhaps, and no more of it than this."""
        while most > 0 and self.body is not None and (part := self.body.read(min(most, 1 << 16))):
            most -= len(part)
            yield part


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


class Transport(Protocol):
    """One request out, one answer in."""

    def send(self, request: Request) -> Response:
        """Send a request and return its answer, whatever its status.

        Raises:
            TransportError: no answer came: connection, TLS, timeout, or bytes that are not HTTP.
        """
        ...


Flow = Generator[Request, Response, T]


def run(flow: Flow[T], transport: Transport) -> T:
    """Drive a flow to its end: send what it yields, give it the answers, throw it the errors.

    >>> def ping() -> Flow[int]:
    ...     return (yield Request(method="GET", url="/v2/")).status
    >>> class Always:
    ...     def send(self, request): return Response(200)
    >>> run(ping(), Always())
    200
    """
    try:
        request = next(flow)
        while True:
            try:
                response = transport.send(request)
            except BaseException as exc:  # noqa: BLE001 - also an interrupt: a flow may have something to take back
                request = flow.throw(exc)
            else:
                request = flow.send(response)
    except StopIteration as stop:
        result: T = stop.value
        return result


# ------------------------------------------------------------------------------------------------- what must not show

_HIDDEN = r"token|key|secret|auth|password|cookie|signature"
_CHALLENGES = frozenset({"www-authenticate", "proxy-authenticate"})
_ADDRESSES = frozenset({"location", "content-location"})
_URL = r"""<[^>]*|[A-Za-z][A-Za-z0-9+.-]{0,30}:/[^\s"<>]*"""
_PLAIN_QUERIES = frozenset(
    {"digest", "mount", "from", "n", "last", "service", "scope", "artifactType", "tag", "digest-algorithm", "ns",
     "client_id", "offline_token", "account"}
)  # fmt: skip


def redact_url(url: str) -> str:
    """A URL that may be shown: no user information, and only queries that are known to hold no secret.

    Of text that is no URL, nothing behind its `?` is shown.

    >>> redact_url("https://u:p@cdn.example/b?X-Amz-Signature=abc&digest=sha256:0")
    'https://cdn.example/b?X-Amz-Signature=REDACTED&digest=sha256:0'
    >>> redact_url("http://u:p@[broken?sig=abc")
    'http://[broken'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        scheme, slashes, rest = re.split("[?#]", url, maxsplit=1)[0].rpartition("//")
        return f"{scheme}{slashes}{rest.rpartition('@')[2]}"
    query = re.sub("[^&;]+", lambda m: _redact_query(m[0]), parts.query)
    # with a scheme but no host, as in http:user:password@host, a path begins with what should stand there
    path = parts.path if parts.netloc or not parts.scheme else parts.path.rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, ""))


def _redact_query(part: str) -> str:
    name, equals, _ = part.partition("=")
    if name in _PLAIN_QUERIES:
        return part
    return f"{name}=REDACTED" if equals else "REDACTED"


def redact_headers(
    fields: Iterable[tuple[str, str]], own: Iterable[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Header fields that may be shown: the scheme of an `Authorization` stays, its secret goes.

    Args:
        fields: Names and values.
        own: Names of the headers that the user gave, whose values nobody else can judge.
    """
    hidden = {name.lower() for name in own}
    return tuple((name, _redact_field(name.lower(), value, hidden)) for name, value in fields)


def _redact_field(name: str, value: str, hidden: set[str]) -> str:
    if name in hidden or (re.search(_HIDDEN, name) and name not in _CHALLENGES):
        scheme, space, _ = value.partition(" ")
        return f"{scheme} REDACTED" if space and name.endswith("authorization") else "REDACTED"
    if name in _ADDRESSES:
        return redact_url(value)
    return redact_urls(value)


def redact_urls(text: str) -> str:
    """Text whose URLs may be shown."""
    return re.sub(_URL, lambda m: _redact_found(m[0]), text)


def _redact_found(url: str) -> str:
    return f"<{redact_url(url[1:])}" if url.startswith("<") else redact_url(url)


class Exchange(Value, kw_only=True):
    """One HTTP exchange as an observer is told of it, its secrets redacted.

    `status` is 0 where no answer came, and `error` then says why. `seconds` is the time from the request's first byte
    to the answer's head.
    """

    method: str
    url: str
    request_headers: tuple[tuple[str, str], ...]
    status: int = 0
    response_headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    error: str = ""
