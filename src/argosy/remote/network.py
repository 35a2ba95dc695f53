"""Addresses and origins: what is public, what is not, and where a registry may send us.

A registry answers with places to go next: redirects, upload locations, token realms, links, layers' `urls`. None may
lead from the outside to the inside (server-side request forgery): `may_lead` is the one rule, and it is checked
against the address that was really connected to, so a name that resolves differently the second time gains nothing.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from argosy.remote.wire import SettledError, redact_url

_PORTS = {"http": 80, "https": 443}
_UNSEEN = frozenset(map(chr, (*range(33), 127)))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

PUBLIC, PRIVATE, LOOPBACK, LINK_LOCAL = "public", "private", "loopback", "link-local"


def classify(host: str) -> str | None:
    """The class of an address (`public`, `private`, `loopback`, `link-local`), or None for a name.

    >>> classify("169.254.169.254"), classify("::ffff:10.0.0.1"), classify("1.1.1.1"), classify("example.com")
    ('link-local', 'private', 'public', None)
    """
    if is_loopback_name(host):
        return LOOPBACK
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return _legacy_form(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = (
            getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None) or address
        )
    if address.is_loopback or address.is_unspecified:
        return LOOPBACK
    if address.is_link_local:
        return LINK_LOCAL
    if address.is_global and not address.is_multicast:
        return PUBLIC
    return PRIVATE


def _legacy_form(host: str) -> str | None:
    # 2130706433, 0x7f.1, 017700000001: what inet_aton reads as an address though nobody writes it in good faith
    last = host.rstrip(".").rpartition(".")[2].lower()
    numeric = last.isdigit() or (last.startswith("0x") and len(last) > 1)
    return LINK_LOCAL if numeric else None


def is_loopback_name(host: str) -> bool:
    """Whether a name is one of the machine itself (RFC 6761): `localhost` or anything below it."""
    lower = host.lower().rstrip(".")
    return lower == "localhost" or lower.endswith(".localhost")


def may_lead(origin: str, target: str) -> bool:
    """Whether something at an address of class `origin` may send us to one of class `target`.

    Everybody may name a public address or one of their own class; a registry on this machine also a private one.
    """
    return target in {PUBLIC, origin} or (origin, target) == (LOOPBACK, PRIVATE)


def split(url: str) -> SplitResult:
    """The parts of an absolute http or https URL.

    Raises:
        SettledError: it is something else, or has no host.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its words may hold what must not be shown
        raise SettledError(f"not a URL: {_shown(url)}") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise SettledError(f"expected an http or https URL, got {_shown(url)}")
    if not _UNSEEN.isdisjoint(url):
        raise SettledError(f"a URL cannot have white space or control characters: {_shown(url)}")
    return parts


def join(base: str, text: str) -> str:
    """Where some text that came from `base` leads: absolute, without its fragment, and certain to have parts.

    Blanks and bytes beyond ASCII, which some leave in a file's name, are encoded as they should have been.

    Raises:
        SettledError: it is no address.

    >>> join("https://registry.example/v2/", "/up/a b#c")
    'https://registry.example/up/a%20b'
    """
    try:
        parts = urlsplit(urljoin(base, text))
    except ValueError:
        raise SettledError(f"{redact_url(base)} names no address: {_shown(text)}") from None
    path, query = (re.sub("[ \x80-\xff]", _quoted, part) for part in (parts.path, parts.query))
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


def _quoted(byte: re.Match[str]) -> str:
    return f"%{ord(byte[0]):02X}"


def _shown(url: str) -> str:
    return repr(redact_url(url)[:200])


@functools.lru_cache(64)  # of a request it is asked eight times
def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what credentials belong to.

    >>> origin("https://Registry.example/v2/")
    ('https', 'registry.example', 443)
    """
    parts = split(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def address(host: str, port: int) -> str:
    """A host and its port, as one writes them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def no_proxy(host: str, port: int, rules: str) -> bool:
    """Whether `NO_PROXY` exempts a host: names and their subdomains, `*`, addresses, CIDR blocks, each with a port.

    Hosts of this machine are always exempt.

    >>> no_proxy("a.example.com", 443, ".example.com, 10.0.0.0/8"), no_proxy("example.org", 443, "example.com")
    (True, False)
    """
    if classify(host) == LOOPBACK:
        return True
    host = host.lower().rstrip(".")
    return any(_exempts(rule.strip().lower(), host, port) for rule in rules.split(","))


def _exempts(rule: str, host: str, port: int) -> bool:
    if not rule:
        return False
    if rule == "*":
        return True
    if _within(rule, host):
        return True
    name, colon, wanted = rule.rpartition(":")
    if colon and wanted.isdigit():
        if int(wanted) != port:
            return False
        rule = name
    rule = rule.removeprefix("*").strip("[]").strip(".")
    return _within(rule, host) or host == rule or host.endswith(f".{rule}")


def _within(rule: str, host: str) -> bool:
    """Whether a host is an address, and is this one or in this block."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        return False
