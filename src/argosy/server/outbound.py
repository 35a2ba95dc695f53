"""Requests the registry itself makes: webhooks, and keys of token issuers. Nothing else leaves it.

The name is resolved first, every address it has is judged, and the connection goes to the address that was judged, so
that a name cannot lead to the inside of the network by a second answer (DNS rebinding). Of several addresses the first
that takes the connection is the one. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from argosy.content.trust import client_context
from argosy.errors import DeniedError, LimitExceededError, TransportError

__all__ = ["Answer", "allowed", "request"]

MAX_BODY = 1024 * 1024
_PATIENCE = 3
_MOST_ADDRESSES = 2
"""So many are tried: `localhost` has two, and who waits holds a lease meanwhile."""

Resolve = Callable[[str, int], list[str]]


class Answer(NamedTuple):
    """A response: status, headers in lower case, and its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host.

    Raises:
        TransportError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError(f"{host}: {error.strerror or error}") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def allowed(address: str) -> bool:
    """Whether an address is one of the public internet: not private, link-local, loopback, multicast or reserved.

    >>> [allowed(a) for a in ("93.184.215.14", "169.254.169.254", "127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            ip = inner
        elif ip in ipaddress.ip_network("64:ff9b::/96"):
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_seconds: float = 10.0,
    allow_private: bool = False,
    resolve: Resolve = resolve,
) -> Answer:
    """Send one request and read the whole answer.

    Args:
        method: The HTTP method.
        url: An http or https URL.
        headers: Headers to send.
        body: What to send.
        timeout_seconds: How long connecting to an address, and each read, may take.
        allow_private: Whether the address may be one of an inner network.
        resolve: How names become addresses.

    Raises:
        DeniedError: the name leads to an address that is not allowed.
        TransportError: no answer.
        LimitExceededError: the answer is over 1 MiB.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise DeniedError(f"{_shown(url)}: expected an http or https URL")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = resolve(parts.hostname, port)
    if not addresses:
        raise TransportError(f"{parts.hostname}: no address")
    if not allow_private and not all(allowed(address) for address in addresses):
        raise DeniedError(f"{_shown(url)}: leads to an inner address")
    sent = {"User-Agent": "argosy", "Connection": "close", **(headers or {})}
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection = _connect(parts.scheme, addresses, port, parts.hostname, timeout_seconds)
        with contextlib.closing(connection):
            connection.request(method, target, body=body, headers=sent)
            response = connection.getresponse()
            data = _read(response, time.monotonic() + _PATIENCE * timeout_seconds)
            told = {name.lower(): value for name, value in response.getheaders()}
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise TransportError(f"{_shown(url)}: {error or type(error).__name__}") from None
    if len(data) > MAX_BODY:
        raise LimitExceededError(f"{_shown(url)}: the answer is over {MAX_BODY} bytes")
    return Answer(response.status, told, data)


def _connect(
    scheme: str, addresses: list[str], port: int, host: str, timeout_seconds: float
) -> http.client.HTTPConnection:
    """A connection to the first address that takes one, and proves itself as the host."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    if scheme == "https":
        connection.default_port = 443  # so that the Host header is the one the server knows
    plain = _first(addresses[:_MOST_ADDRESSES], port, timeout_seconds)
    try:
        connection.sock = (
            client_context().wrap_socket(plain, server_hostname=host)
            if scheme == "https"
            else plain
        )
    except BaseException:
        plain.close()
        raise
    return connection


def _first(addresses: list[str], port: int, timeout_seconds: float) -> socket.socket:
    for address in addresses[:-1]:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), timeout=timeout_seconds)
    return socket.create_connection((addresses[-1], port), timeout=timeout_seconds)


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body, up to one byte more than is allowed."""
    data = bytearray()
    while len(data) <= MAX_BODY and (piece := response.read1(MAX_BODY + 1 - len(data))):
        data += piece
        if time.monotonic() > deadline:
            raise TimeoutError("the answer takes too long")
    return bytes(data)


def _shown(url: str) -> str:
    """Where a URL leads. Whatever else is in it may be secret: many a webhook is known by its path alone."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:200]
