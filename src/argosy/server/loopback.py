"""An open registry on loopback, and the browsers of its machine.

Any page of the web can have a browser send requests to this machine. It reads no answer and sends no PUT or DELETE,
because the registry allows no other origin to (CORS). But where the name of its own site leads to 127.0.0.1 for once
(DNS rebinding), the registry is of the page's origin: it could pull, push and delete. And it may always POST, which is
enough to fill a disk. So those are refused who call the registry by a name that may be somebody else's, and whom a page
of elsewhere sends. Nobody has addresses, names without a dot, and those of networks of one's own for a site of the web.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from argosy.errors import DeniedError
from argosy.server.access import Anonymous, Principal
from argosy.server.config import is_loopback

__all__ = ["Loopback"]

_PRIVATE = (".internal", ".local", ".test", ".home.arpa")
"""Ends of names that are nobody's on the web (RFC 6761, 6762, 8375): machines outside containers have such."""


_LONGEST = 300
"""Bytes of a host and what stands around it. What was let through is remembered: it must not be long."""


class Loopback(Anonymous):
    """Everybody on this machine may do everything.

    Args:
        public_url: What else clients call the registry.

    Example:
        >>> Loopback("http://registry.example:5000")._check(b"registry.example:5000", None)
    """

    def __init__(self, public_url: str | None = None) -> None:
        self._names = {"localhost", _name(public_url or "")} - {""}
        self._seen = functools.lru_cache(256)(self._check)

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Nobody in particular, of this machine.

        Raises:
            DeniedError: a browser that was led here.
        """
        self._seen(headers.get(b"host", b""), headers.get(b"origin"))
        return await super().authenticate(headers)

    def _check(self, host: bytes, origin: bytes | None) -> None:
        if max(len(host), len(origin or b"")) > _LONGEST:
            raise DeniedError("Host or Origin: longer than any")
        called = _name("//" + host.decode("latin-1"))
        if host and not (self._is_ours(called) or _is_nobodys(called)):
            raise DeniedError(
                f"{called or 'this'} is no name of this registry: listen.public_url says what is"
            )
        if origin is None:
            return
        page = _name(origin.decode("latin-1"))
        if not (page == called or self._is_ours(page)):
            raise DeniedError(f"pages of {page or 'nowhere'} may not use this registry")

    def _is_ours(self, name: str) -> bool:
        return name in self._names or name.endswith(".localhost") or is_loopback(name)


def _name(url: str) -> str:
    """The host of a URL; empty if it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_nobodys(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return bool(name) and ("." not in name or name.endswith(_PRIVATE))
    return True
