"""Requests the registry itself makes: webhooks, and keys of token issuers. Nothing else leaves it.

The name is resolved first, every address it has is judged, and the connection goes to the address that was judged, so
that a name cannot lead to the inside of the network by a second answer (DNS rebinding). Redirects are not followed.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3

from argosy.errors import DeniedError, LimitExceededError, TransportError

__all__ = ["Answer", "allowed", "request"]

MAX_BODY = 1024 * 1024

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
        timeout_seconds: How long connecting, and each read, may take.
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
    pool = _pool(parts.scheme, addresses[0], port, parts.hostname)
    try:
        response = pool.urlopen(
            method,
            (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
            body=body,
            headers={
                "Host": parts.netloc.rpartition("@")[2],
                "User-Agent": "argosy",
                **(headers or {}),
            },
            redirect=False,
            retries=False,
            timeout=urllib3.Timeout(connect=timeout_seconds, read=timeout_seconds),
            preload_content=False,
        )
        data = response.read(MAX_BODY + 1, decode_content=False)
        response.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise TransportError(f"{_shown(url)}: {error}") from None
    finally:
        pool.close()
    if len(data) > MAX_BODY:
        raise LimitExceededError(f"{_shown(url)}: the answer is over {MAX_BODY} bytes")
    return Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, data)


def _pool(scheme: str, address: str, port: int, host: str) -> urllib3.HTTPConnectionPool:
    """A connection to one address that proves itself as the host."""
    if scheme == "http":
        return urllib3.HTTPConnectionPool(address, port, maxsize=1)
    return urllib3.HTTPSConnectionPool(
        address, port, maxsize=1, server_hostname=host, assert_hostname=host
    )


def _shown(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"[:200]
