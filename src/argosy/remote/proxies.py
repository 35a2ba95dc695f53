"""Proxies: HTTP's, by CONNECT or by absolute URLs (RFC 9110), and SOCKS 5 (RFC 1928, RFC 1929).

Loaded only where there is one. What a proxy is asked for is a name: it is the one that resolves it.
"""

from __future__ import annotations

import binascii
import re
import socket
from typing import Self
from urllib.parse import unquote, urlsplit

from argosy.errors import InvalidConfigError, TransportError
from argosy.remote import http1, network
from argosy.remote.connection import Connection
from argosy.remote.refusals import PROXY_ADVICE
from argosy.remote.wire import SettledError, redact_url
from argosy.spec._value import Value, field

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_NO_PASSWORD, _PASSWORD, _CONNECT, _NAME = 0, 2, 1, 3
_ADDRESSES = {1: (socket.AF_INET, 4), 4: (socket.AF_INET6, 16)}
"""Kinds of addresses (ATYP), and the bytes each has."""
_NOT_ALLOWED = 2
_REFUSALS = {
    1: "it failed",
    _NOT_ALLOWED: "its rules do not allow it",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "it took too many hops",
}
"""What a SOCKS proxy answers to CONNECT where it does not connect."""


class Proxy(Value):
    """A proxy, as the environment names it. `repr` and `shown` have no password."""

    scheme: str
    host: str
    port: int
    shown: str
    username: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a proxy's URL; its user information may have any characters, as the environment may.

        Raises:
            InvalidConfigError: it is none, or of a scheme that is not spoken.
        """
        try:
            parts = urlsplit(url)
            name, port = parts.hostname, parts.port
        except ValueError:  # its words may hold the password
            name = port = None
        before, at, behind = url.rpartition("@")
        # a / # or ? before the @ ends what can be a password, and the rest would be looked for as a host
        spoilt = at and re.search("[/#?]", before.partition("://")[2])
        if spoilt or not name or parts.scheme not in _PORTS or port == 0:
            raise InvalidConfigError(
                f"proxy {redact_url(behind if spoilt else url)}: expected http://, https:// or socks5://host:port",
                hint="special characters of its password must be percent-encoded, as %2F for /"
                if spoilt
                else None,
            )
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        port = port or _PORTS[parts.scheme]
        return cls(parts.scheme, name, port, redact_url(url), user, password)

    @property
    def is_socks(self) -> bool:
        """Whether it passes connections on, and knows nothing of HTTP."""
        return self.scheme.startswith("socks")

    def authentication(self) -> list[tuple[str, str]]:
        """The header that tells an HTTP proxy who asks; none where nobody is named."""
        if not self.username:
            return []
        pair = f"{self.username}:{self.password}".encode()
        basic = "Basic " + binascii.b2a_base64(pair, newline=False).decode()
        return [("Proxy-Authorization", basic)]

    def connect(
        self, sock: socket.socket, host: str, port: int, timeouts: tuple[float, float]
    ) -> None:
        """Have a connection to the proxy passed on to a host.

        Args:
            sock: The connection.
            host: The name or address of the other side.
            port: Its port.
            timeouts: Seconds for anything to be sent, and for the answer to be there.

        Raises:
            TransportError: the proxy refused, or its answer was none.
            OSError: the connection broke, or nothing came in time.
        """
        wire = Connection(sock, timeouts[0], proxied=True)
        wire.raw.start(timeouts[1], moving=False)
        (_socks if self.is_socks else _tunnel)(self, wire, host, port)

    def refused(self, why: str, *, settled: bool, password: bool = False) -> TransportError:
        """The error of a refusal; a wrong password that is sent again and again locks its user out."""
        error = SettledError if settled else TransportError
        return error(f"proxy {self.shown} refused: {why}", hint=PROXY_ADVICE if password else None)


def _tunnel(proxy: Proxy, wire: Connection, host: str, port: int) -> None:
    target = network.address(host, port)
    wire.sendall(http1.head("CONNECT", target, [("Host", target), *proxy.authentication()]))
    answer = wire.answer("HEAD")  # what comes next is the other side's
    if not 200 <= answer.status < 300:
        why = f"{answer.status} to a connection to {target}"
        settled, password = answer.status in {401, 403, 407}, answer.status in {401, 407}
        raise proxy.refused(why, settled=settled, password=password)
    if not wire.spent(answer):
        raise TransportError(f"proxy {proxy.shown} speaks before it is spoken to")


def _socks(proxy: Proxy, wire: Connection, host: str, port: int) -> None:
    ways = bytes([_NO_PASSWORD, _PASSWORD] if proxy.username else [_NO_PASSWORD])
    wire.sendall(b"\x05" + _counted(ways))
    version, way = _read(wire, 2)
    if version != 5:
        raise TransportError(f"proxy {proxy.shown}: it does not speak SOCKS 5")
    if way not in ways:
        raise proxy.refused("it wants to know who asks", settled=True, password=True)
    if way == _PASSWORD:
        wire.sendall(b"\x01" + _own(proxy.username) + _own(proxy.password))
        if _read(wire, 2)[1]:
            raise proxy.refused("it knows no such user and password", settled=True, password=True)
    wire.sendall(b"\x05" + bytes([_CONNECT, 0]) + _target(host) + port.to_bytes(2, "big"))
    _, reply, _, kind = _read(wire, 4)
    if reply:
        why = f"{_REFUSALS.get(reply, f'error {reply}')}, to a connection to {network.address(host, port)}"
        raise proxy.refused(why, settled=reply == _NOT_ALLOWED)
    length = _ADDRESSES[kind][1] if kind in _ADDRESSES else _read(wire, 1)[0]
    _read(wire, length + 2)  # where it connects from, which is no matter


def _target(host: str) -> bytes:
    for kind, (family, _) in _ADDRESSES.items():
        try:
            return bytes([kind]) + socket.inet_pton(family, host)
        except OSError:
            pass
    name = host.encode() if host.isascii() else host.encode("idna")
    return bytes([_NAME]) + _counted(name)


def _own(text: str) -> bytes:
    try:
        return _counted(text.encode())
    except OverflowError:
        raise InvalidConfigError(
            "a SOCKS proxy takes 255 bytes of a user name and of a password"
        ) from None


def _counted(data: bytes) -> bytes:
    return len(data).to_bytes(1, "big") + data


def _read(wire: Connection, count: int) -> bytes:
    """So many bytes and no more: the next are the other side's."""
    found = bytearray()
    while len(found) < count:
        buffer = bytearray(count - len(found))
        got = wire.raw.readinto(buffer)
        if not got:
            raise http1.ClosedError("the proxy hung up")
        found += buffer[:got]
    return bytes(found)
