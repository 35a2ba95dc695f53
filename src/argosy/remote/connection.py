"""One connection: a socket with deadlines, TLS, and how failures of both are told."""

from __future__ import annotations

import functools
import importlib
import io
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from argosy.content.trust import client_context
from argosy.errors import InvalidConfigError, TransportError
from argosy.remote.http1 import Answer, BrokenOffError, ClosedError, HeadError, ProtocolError
from argosy.remote.wire import Request, SettledError, redact_url
from argosy.spec._value import Value, field

if TYPE_CHECKING:
    import ssl

BUFFER = 64 * 1024
LEAST = 16 * 1024
"""The bytes of a body that must come in one timeout's time."""

_INTERIM = rb"HTTP/1\.[0-9] 1(?!01)[0-9]{2}"
_INTERIM_HEAD = _INTERIM + rb"[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n"
_TOO_FEW = range(1, len("HTTP/1.1 100"))
"""Bytes of an answer that do not tell its status yet."""

_AUTHORITY = "give the registry's authority with --ca-file or in certs.d"
_NAME = "call the registry by a name that is in its certificate; --resolve says where that is"
_ADVICE: Mapping[object, str] = {
    9: "see whether this machine's clock is right",
    10: "the registry needs a new certificate, if this machine's clock is right",
    62: _NAME,
    64: _NAME,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "show a certificate with --cert-file and --key-file, or in certs.d",
}
"""By what OpenSSL finds wrong with a certificate (X509_V_ERR), or by the reason of its error."""

Address = tuple[str, int]


class TLS(Value, kw_only=True):
    """How a host's certificate is checked and which one is shown to it: paths of PEM files.

    `ca_files` are trusted beside the system's authorities. `insecure` checks nothing.
    """

    ca_files: tuple[str, ...] = ()
    cert_file: str | None = None
    key_file: str | None = None
    insecure: bool = False

    def context(self) -> ssl.SSLContext:
        """The context of the `ssl` module.

        Raises:
            InvalidConfigError: a file is missing or is no certificate or key.
        """
        context = client_context()
        path: str | None = None
        try:
            for path in self.ca_files:
                context.load_verify_locations(path)
            if self.cert_file:
                path = " with ".join(filter(None, (self.cert_file, self.key_file)))
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as exc:
            why = told(exc).removeprefix("TLS failed: ")
            if "PEM lib" in str(exc):  # OpenSSL's whole word on it
                why = "expected a certificate and its key in PEM"
            raise InvalidConfigError(f"certificate {path}: {why}") from None
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl_module().CERT_NONE
        return context


class Network(Value, kw_only=True):
    """How connections are made.

    Args:
        tls: The TLS settings of a `host[:port]` (the port only where it is not 443).
        proxies: Proxy URLs by scheme (`http`, `https`).
        no_proxy: Hosts that no proxy is used for, as in `NO_PROXY`.
        resolve: Addresses to use for some hosts and ports, as `--resolve` gives them.
        connect_timeout: Seconds for one address to answer and for a TLS handshake.
        timeout: Seconds without progress before a request is given up.
    """

    tls: Callable[[str], TLS] = lambda _host: TLS()
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: str = ""
    resolve: Mapping[Address, Address] = field(default_factory=dict)
    connect_timeout: float = 15.0
    timeout: float = 60.0


class Raw(io.RawIOBase):
    """The receiving half of a socket, with a deadline: moved on by every LEAST bytes while a body is read."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock, self._timeout = sock, timeout
        self._moving, self._received, self._until = False, 0, 0.0
        self._failure: OSError | None = None
        self.total = 0

    def start(self, seconds: float, *, moving: bool) -> None:
        """Begin to wait: at most `seconds` for all of it, or for each LEAST bytes if `moving`."""
        self._moving, self._received = moving, 0
        self._until = time.monotonic() + seconds
        self._sock.settimeout(min(seconds, self._timeout) if moving else seconds)

    def readable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Nothing: an answer that is done does not end its connection."""

    def readinto(self, buffer: Any, /) -> int | None:
        """Receive into a buffer; TimeoutError once the deadline has passed.

        Within a body a failure is told twice: with None (nothing for now), which makes the buffer above hand out what
        it gathered, and as the error by the next call. The buffer would lose those bytes over an error.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._receive(buffer)
        except OSError as exc:
            if not self._moving:
                raise
            self._failure = exc
            return None

    def _receive(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no progress")
        if left < self._timeout / 2:
            self._sock.settimeout(left)  # a system call, so not for every piece
        count = self._sock.recv_into(buffer)
        self._received += count
        self.total += count
        if self._moving and self._received >= LEAST and left < self._timeout / 2:
            self.start(self._timeout, moving=True)
        return count


class Connection:
    """One connection: what a request is sent over, and what the pool needs to know of it."""

    def __init__(self, sock: socket.socket, timeout: float, *, proxied: bool) -> None:
        self.sock, self.timeout = sock, timeout
        self.raw = Raw(sock, timeout)
        self.peer = "" if proxied else str(sock.getpeername()[0])
        self.encrypted = hasattr(sock, "cipher")
        self._had = 0
        self._poll = select.poll()  # select() knows no descriptors from 1024 on
        self._poll.register(sock, select.POLLIN)

    def sendall(self, data: Any) -> None:
        """Send all of it, within the timeout."""
        self.sock.settimeout(self.timeout)
        self.sock.sendall(data)

    def more(self, data: Any) -> None:
        """Send more, directly behind `sendall`: the timeout holds for each piece, and setting it is a system call."""
        self.sock.sendall(data)

    def answer(self, method: str) -> Answer:
        """Read the head of the next answer.

        Raises:
            ClosedError: the connection ended first.
            ProtocolError: what came is no answer.
            OSError: the connection broke, or nothing came in time.
        """
        self._had = self.raw.total
        return Answer(io.BufferedReader(self.raw, BUFFER), method)

    def spent(self, answer: Answer) -> bool:
        """Whether an answer was all that was received: what comes unasked is nobody's answer."""
        return self.raw.total - self._had == answer.taken

    def answered(self) -> bool:
        """Whether an answer has begun, or the connection has ended, while a body is sent over plain TCP.

        An interim answer (1xx), which may come unasked at any time, is none and is taken away once it is whole.
        """
        if not self.readable():
            return False
        begun: bytes = self.sock.recv(BUFFER, socket.MSG_PEEK)
        if interim := re.match(_INTERIM_HEAD, begun):
            self.sock.recv(interim.end())
        return not re.match(_INTERIM, begun) and len(begun) not in _TOO_FEW

    def readable(self) -> bool:
        """Whether there is something to read: on a kept connection only its end, or what nobody asked for."""
        if self.sock.fileno() < 0:
            return True
        return bool(self._poll.poll(0))

    def destroy(self) -> None:
        """Close the socket."""
        self.sock.close()


def failed(request: Request, exc: BaseException) -> TransportError:
    """A transport error that says what was asked for and what went wrong."""
    if isinstance(exc, TransportError):
        return exc
    untrusted = _untrusted(exc)
    cls = SettledError if untrusted or isinstance(exc, HeadError) else TransportError
    error = cls(f"{request.method} {redact_url(request.url)}: {told(exc)}")
    known = _ADVICE.get(getattr(exc, "verify_code", getattr(exc, "reason", None)))
    error.hint = known or (_AUTHORITY if untrusted else None)
    return error


def told(exc: BaseException) -> str:
    """What went wrong, in a few words."""
    if _untrusted(exc):
        return f"certificate not trusted: {getattr(exc, 'verify_message', '')}"
    if "ssl" in sys.modules and isinstance(exc, ssl_module().SSLError):
        return f"TLS failed: {(exc.reason or str(exc)).lower().replace('_', ' ')}"
    if isinstance(exc, TimeoutError):
        return "timed out"
    if isinstance(exc, ClosedError):
        return "the connection was closed without an answer"
    if isinstance(exc, BrokenOffError):
        more = f" with {exc.left} bytes to come" if exc.left > 0 else ""
        return f"the body broke off{more}"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    if isinstance(exc, ProtocolError):
        return f"not HTTP: {exc}".replace("not HTTP: not HTTP", "not HTTP")[:300]
    return str(exc)[:300] or type(exc).__name__


def _untrusted(exc: BaseException) -> bool:
    return "ssl" in sys.modules and isinstance(exc, ssl_module().SSLCertVerificationError)


@functools.cache
def ssl_module() -> Any:
    """The module `ssl`, which takes longer to load than a small answer takes to come: only who speaks TLS does."""
    return importlib.import_module("ssl")
