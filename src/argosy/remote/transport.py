"""The one door to sockets: HTTP/1.1 (`http1`) over pooled connections.

Why no HTTP library: docs/adr/0003-http-client.md. What this file sees to:

- a pool a host; a kept connection that died is replaced before anybody notices;
- a deadline for an answer's head and a least speed for its body, so a peer that sends a byte a minute is given up;
- an answer that comes before the request was sent whole is read (a registry that says 401 or 413 at once);
- a body that ends early is an error, never a short blob;
- addresses are chosen here, so a URL that somebody else named can be held to public ones (`network.may_lead`).
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from argosy.content.protocols import ContentError
from argosy.errors import TransportError
from argosy.remote import http1, network
from argosy.remote.connection import (
    BUFFER,
    TLS,
    Connection,
    Network,
    failed,
    told,
)
from argosy.remote.wire import Body, Headers, Request, Response, SettledError, redact_url

if TYPE_CHECKING:
    import ssl

    from argosy.remote.proxies import Proxy

SEND_CHUNK = 512 * 1024
"""Bytes read, hashed and sent at a time: what was hashed is still in the processor's cache when it is sent."""
UNSENT = 128 * 1024
"""Bytes that may wait in the kernel to be sent. With megabytes there, what is sent has left the processor's cache
before a registry near by takes it; how much may be under way, which far registries need, is not limited by it."""

PROBE_TIMEOUT = 2.0
"""Seconds for a handshake to begin where it is not known whether a port speaks TLS at all."""
_HELLO = bytes.fromhex(
    "1603010041" "0100003d" "0303" + "a5" * 32 + "00" "0004c02f009c" "0100" "0010"
    "000a000400020017" "000d000400020403"
)  # fmt: skip
"""The first words of a TLS client: whoever speaks TLS answers them with a record, if only one that says no."""
_RECORDS = (b"\x15\x03", b"\x16\x03")


_NO_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class _ClosedError(TransportError):
    """The other side closed the connection before it answered: on a kept one that says nothing about the request."""


class HTTPTransport:
    """A `Transport` over real sockets. Safe to use from several threads.

    Args:
        net: How connections are made.
        max_idle: How many unused connections to keep for a host.
    """

    def __init__(self, net: Network | None = None, *, max_idle: int = 64) -> None:
        self._net = net or Network()
        self._max_idle = max_idle
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._contexts: dict[TLS, ssl.SSLContext] = {}
        self._met: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def send(self, request: Request) -> Response:
        """Send one request to an absolute URL. The answer's body is left to be read.

        Raises:
            TransportError: no answer came.
        """
        where = network.origin(request.url)
        connection = self._kept(where, request)
        try:
            return self._exchange(connection or self._connect(where, request), request, where)
        except _ClosedError:
            replayable = request.body is None or isinstance(request.body, bytes)
            if connection is None or not replayable or not request.retry:
                raise
        response = self._exchange(self._connect(where, request), request, where)
        response.again = True
        return response

    def speaks_tls(self, host: str, port: int) -> bool:
        """Whether the other side of a port answers a TLS handshake; nothing else is sent.

        Raises:
            TransportError: nobody listens there.
        """
        sock, _ = self._open(("https", host, port), Request(method="GET", url=""))
        with sock:
            sock.settimeout(min(PROBE_TIMEOUT, self._net.connect_timeout))
            try:
                sock.sendall(_HELLO)
                got = sock.recv(2)
                return (got if len(got) == 2 else got + sock.recv(1)) in _RECORDS
            except OSError:
                return False

    def close(self) -> None:
        """Close the connections nobody uses."""
        with self._lock:
            kept, self._idle = self._idle, {}
        for connections in kept.values():
            for connection in connections:
                connection.destroy()

    # ---------------------------------------------------------------------------------------------------- exchanging

    def _exchange(
        self, connection: Connection, request: Request, where: tuple[str, str, int]
    ) -> Response:
        unread: Exception | None = None
        try:
            whole = self._send(connection, request, where)
            connection.raw.start(self._patience(request), moving=False)
            answer = connection.answer(request.method)
            connection.raw.start(self._net.timeout, moving=True)
        except ContentError as exc:
            connection.destroy()
            unread = exc.failure
        except BaseException as exc:
            connection.destroy()
            if isinstance(exc, ConnectionError):
                raise _ClosedError(str(failed(request, exc))) from None
            if isinstance(exc, (OSError, http1.ProtocolError, ValueError)):
                raise failed(request, exc) from None
            raise
        if unread is not None:  # out here it keeps the context that it has
            raise unread
        reusable = whole and not answer.closes

        def done(at_end: bool) -> None:
            if reusable and at_end and connection.spent(answer):
                self._keep(where, connection)
            else:
                connection.destroy()

        body = _AnswerBody(answer, request, done)
        return Response(
            answer.status,
            Headers(answer.fields),
            url=request.url,
            body=body,
            close=body.close,
            peer=connection.peer,
        )

    def _patience(self, request: Request) -> float:
        length = _length(request.body)
        return self._net.timeout + request.settling / 20e6 + length / 20e6

    def _send(self, connection: Connection, request: Request, where: tuple[str, str, int]) -> bool:
        """Send a request; False where the other side answered before it had all of it."""
        parts = network.split(request.url)
        host = parts.netloc.rpartition("@")[2]
        target = parts.path or "/"
        if parts.query:
            target = f"{target}?{parts.query}"
        fields = [("Host", host), ("Accept-Encoding", "identity"), *request.headers.items()]
        proxy = self._proxy(where)
        if proxy and where[0] == "http" and not proxy.is_socks:
            target = f"http://{host}{target}"
            fields += proxy.authentication()
        if request.body is not None or request.method in {"POST", "PUT", "PATCH"}:
            fields.append(("Content-Length", str(_length(request.body))))
        head = http1.head(request.method, target, fields)
        try:
            if isinstance(request.body, bytes):
                connection.sendall(head + request.body)
                return True
            connection.sendall(head)
            return _send_body(connection, request.body)
        except OSError as exc:
            if request.body is None or not _hung_up(exc):
                raise
            return False  # what it said before it hung up is worth more than that it did

    # ---------------------------------------------------------------------------------------------------- connecting

    def _kept(self, where: tuple[str, str, int], request: Request) -> Connection | None:
        while True:
            with self._lock:
                if self._pid != os.getpid():  # a fork must not share its parent's connections
                    self._idle, self._pid = {}, os.getpid()
                kept = self._idle.get(where)
                if not kept:
                    return None
                _check_lead(request, kept[-1].peer or where[1])
                connection = kept.pop()
            if not connection.readable():  # asked of the system while others go on
                return connection
            connection.destroy()

    def _keep(self, where: tuple[str, str, int], connection: Connection) -> None:
        if not connection.readable():
            with self._lock:
                kept = self._idle.setdefault(where, [])
                if len(kept) < self._max_idle:
                    kept.append(connection)
                    return
        connection.destroy()

    def _connect(self, where: tuple[str, str, int], request: Request) -> Connection:
        scheme, host, port = where
        sock, proxied = self._open(where, request)
        try:
            if scheme == "https":
                sock.settimeout(self._net.connect_timeout)
                context = self._context(host, port)
                if hasattr(sock, "cipher"):  # a proxy that is spoken to in TLS
                    nested: Any = importlib.import_module("argosy.remote.nested")
                    sock = nested.NestedTLS(sock, context, host)
                else:
                    sock = context.wrap_socket(sock, server_hostname=host)
            return Connection(sock, self._net.timeout, proxied=proxied)
        except BaseException as exc:
            sock.close()
            if isinstance(exc, OSError):
                error = failed(request, exc)
                error.hint = error.hint or "if the registry speaks no TLS there: --plain-http"
                raise error from None
            raise

    def _open(self, where: tuple[str, str, int], request: Request) -> tuple[socket.socket, bool]:
        scheme, host, port = where
        proxy = self._proxy(where)
        if proxy is None:
            return self._dial(host, port, request), False
        _check_lead(request, host)
        try:
            sock = self._dial(proxy.host, proxy.port, Request(method="CONNECT", url=proxy.shown))
        except TransportError as exc:
            raise type(exc)(f"proxy {exc}") from None
        if proxy.scheme == "https":
            sock = self._secured(sock, proxy.host, proxy.port, f"proxy {proxy.shown}")
        if scheme == "https" or proxy.is_socks:
            try:
                proxy.connect(sock, host, port, (self._net.connect_timeout, self._net.timeout))
            except BaseException as exc:
                sock.close()
                if isinstance(exc, (OSError, http1.ProtocolError, http1.HeadError, UnicodeError)):
                    raise TransportError(f"proxy {proxy.shown}: {told(exc)}") from None
                raise
        return sock, True

    def _dial(self, host: str, port: int, request: Request) -> socket.socket:
        target = self._net.resolve.get((host, port), (host, port))
        try:
            found = socket.getaddrinfo(_encoded(target[0]), target[1], type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            # A name that is none stays so; one that was there before may only be missed for a moment.
            none = isinstance(exc, UnicodeError) or exc.errno in _NO_NAME
            error = SettledError if none and (host, port) not in self._met else TransportError
            raise error(f"{network.address(host, port)}: {told(exc)}") from None
        failure: OSError | None = None
        for family, kind, protocol, _, address in found:
            _check_lead(request, str(address[0]))
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self._net.connect_timeout)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            except OSError as exc:
                failure = exc
                sock.close()
            except BaseException:
                sock.close()
                raise
            else:
                self._met.add((host, port))
                return sock
        # Nobody was ever there: that is settled. Who was there before may be starting anew.
        refused = isinstance(failure, ConnectionRefusedError) and (host, port) not in self._met
        error = SettledError if refused else TransportError
        raise error(
            f"{network.address(host, port)}: {told(failure or OSError('no address'))}"
        ) from None

    def _secured(self, sock: socket.socket, host: str, port: int, name: str) -> socket.socket:
        try:
            sock.settimeout(self._net.connect_timeout)
            return self._context(host, port).wrap_socket(sock, server_hostname=host)
        except BaseException as exc:
            sock.close()
            if isinstance(exc, OSError):
                raise TransportError(f"{name}: {told(exc)}") from None
            raise

    def _context(self, host: str, port: int) -> ssl.SSLContext:
        tls = self._net.tls(network.address(host, port).removesuffix(":443"))
        with self._lock:
            context = self._contexts.get(tls)
        if context is None:
            context = tls.context()
            with self._lock:
                self._contexts[tls] = context
        return context

    def _proxy(self, where: tuple[str, str, int]) -> Proxy | None:
        scheme, host, port = where
        proxy = self._net.proxies.get(scheme)
        if not proxy or network.no_proxy(host, port, self._net.no_proxy):
            return None
        room: Any = importlib.import_module("argosy.remote.proxies")
        made: Proxy = room.Proxy.of(proxy)
        return made


class _AnswerBody:
    """An answer's body, from which a connection goes back to the pool once it was read to its end."""

    def __init__(
        self, answer: http1.Answer, request: Request, done: Callable[[bool], None]
    ) -> None:
        self._answer, self._request = answer, request
        self._done: Callable[[bool], None] | None = done
        if answer.done:
            self._finish(at_end=True)

    def read(self, size: int = -1, /) -> bytes:
        if self._done is None or size == 0:
            return b""
        if size < 0:
            return b"".join(iter(lambda: self.read(SEND_CHUNK), b""))
        try:
            data = self._answer.read(size)
        except (OSError, http1.ProtocolError, ValueError) as exc:
            self._finish(at_end=False)
            raise failed(self._request, exc) from None
        if self._answer.done:
            self._finish(at_end=True)
        return data

    def _finish(self, *, at_end: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(at_end)

    def close(self) -> None:
        # a short rest is worth reading: the connection lives on
        length = self._answer.left if self._done is not None else None
        if length is not None and length <= BUFFER:
            try:
                while self._done is not None and self.read(BUFFER):
                    pass
            except TransportError:
                return
        self._finish(at_end=False)


def _length(body: bytes | Body | None) -> int:
    if body is None:
        return 0
    return len(body) if isinstance(body, bytes) else body.length


def _send_body(connection: Connection, body: Body | None) -> bool:
    if body is None:
        return True
    sent = 0
    for data in _pieces(body):
        # over TLS a readable socket may only hold a session ticket
        if not connection.encrypted and connection.answered():
            return False
        connection.more(data)
        sent += len(data)
    if sent != body.length:
        raise TransportError(f"the content ended after {sent} of {body.length} bytes")
    return True


def _pieces(body: Body) -> Iterator[bytes]:
    length = body.length
    try:
        reader = body.open()
        while length > 0 and (data := reader.read(min(SEND_CHUNK, length))):
            length -= len(data)
            yield data
    except (OSError, ValueError) as exc:  # as those of a connection are
        raise ContentError(exc) from None


def _check_lead(request: Request, host: str) -> None:
    if request.named_by is None:
        return
    kind = network.classify(host)
    if kind is not None and not network.may_lead(request.named_by, kind):
        raise SettledError(
            f"refused to follow {redact_url(request.url)}: a {request.named_by} host may not lead to the "
            f"{kind} address {host}"
        )


def _hung_up(exc: OSError) -> bool:
    # an error of TLS is an OSError without a number of the system's
    return isinstance(exc, (BrokenPipeError, ConnectionResetError)) or hasattr(exc, "reason")


def _encoded(host: str) -> bytes | str:
    # a name in ASCII needs no IDNA, whose tables take longer to load than an answer to come
    return host.encode() if host.isascii() else host
