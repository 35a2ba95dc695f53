"""References as people type them: `[registry/]name[:tag][@digest]`.

The short forms are Docker's, because everybody's hands know them: no registry means `docker.io`, one name there means
`library/<name>`, and a first part is a registry only if it has a dot or a colon, is `localhost`, or has an upper-case
letter. `parse(str(r)) == r` for every reference.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Self

from argosy.errors import InvalidNameError, InvalidReferenceError, InvalidTagError
from argosy.spec._value import Value, replace
from argosy.spec.digest import Digest

DOCKER_HUB = "docker.io"
"""The registry of a reference without one."""

MAX_NAME_LENGTH = 255
"""The most characters that registry, slash and repository name have together: what many clients take."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_ALGORITHM = "(sha256|sha384|sha512|blake3)"
_REFERRERS_TAG = rf"{_ALGORITHM}-[0-9a-f]{{64}}"
_DIGEST_TAG = rf"{_ALGORITHM}-([0-9a-f]{{64,128}})(?:\.[A-Za-z0-9._-]+)?"
_HOST = re.compile(
    r"(?P<host>[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
    r"|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_SCHEMES = frozenset({"https://", "http://", "docker://", "oci://"})
_HUB_NAMES = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


def parse_name(text: str) -> str:
    """A repository name that fits the distribution-spec's grammar.

    Raises:
        InvalidNameError: it does not, or is longer than 255 characters.

    >>> parse_name("library/busybox")
    'library/busybox'
    """
    if len(text) > MAX_NAME_LENGTH:
        raise InvalidNameError(
            f"name of {len(text)} characters is over the limit of {MAX_NAME_LENGTH}"
        )
    if not _NAME.fullmatch(text):
        raise InvalidNameError(
            f"name {text!r}: expected lower-case letters and digits, with single '.', '_', '__' or '-' "
            "between them, in parts separated by '/'"
        )
    return text


def parse_tag(text: str) -> str:
    """A tag that fits the distribution-spec's grammar.

    Raises:
        InvalidTagError: it does not.

    >>> parse_tag("v1.0_rc")
    'v1.0_rc'
    """
    if not _TAG.fullmatch(text):
        raise InvalidTagError(
            f"tag {text[:140]!r}: expected 1 to 128 letters, digits, '_', '.' or '-', "
            "the first of them a letter, digit or '_'"
        )
    return text


def is_referrers_tag(tag: str) -> bool:
    """Whether a tag is one of the referrers tag schema: what it names is a list that clients keep, and no image.

    >>> is_referrers_tag("sha256-" + 64 * "0"), is_referrers_tag("sha256-" + 64 * "0" + ".sig")
    (True, False)
    """
    return bool(re.fullmatch(_REFERRERS_TAG, tag))


def stands_for(tag: str) -> tuple[str, str] | None:
    """Algorithm and encoded portion of the digest that a tag has in its name, or None: `sha256-<hex>` and
    `sha256-<hex>.sig`.

    The encoded portion of a list's tag ends after 64 characters, however long the digest is.

    >>> stands_for("sha256-" + 64 * "0") == stands_for("sha256-" + 64 * "0" + ".sig") == ("sha256", 64 * "0")
    True
    """
    match = re.fullmatch(_DIGEST_TAG, tag)
    return (match[1], match[2]) if match else None


def digest_tag(tag: str) -> tuple[str, str] | None:
    """As `stands_for`, but for the tag of a list of referrers: one such list is merged into another, and never
    replaces it.

    >>> digest_tag("sha256-" + 64 * "0" + ".sig") == ("sha256", 64 * "0")
    True
    """
    return None if is_referrers_tag(tag) else stands_for(tag)


def parse_registry(text: str) -> str:
    """A registry's `host[:port]`, in lower case; Docker Hub's other names become `docker.io`.

    Raises:
        InvalidReferenceError: no host, a host with characters it cannot have, or a port over 65535.

    >>> parse_registry("Registry.Example:5000")
    'registry.example:5000'
    """
    lower = text.lower()
    match = _HOST.fullmatch(lower)
    if not match or len(lower) > MAX_NAME_LENGTH:
        raise InvalidReferenceError(f"registry {text[:260]!r}: expected host or host:port")
    host, port = match["host"], match["port"]
    if port and not 0 < int(port) < 65536:
        raise InvalidReferenceError(f"registry {text!r}: expected a port from 1 to 65535")
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            raise InvalidReferenceError(f"registry {text!r}: not an IPv6 address") from None
    whole = f"{host}:{int(port)}" if port else host
    return DOCKER_HUB if whole in _HUB_NAMES else whole


def without_scheme(text: str) -> str:
    """A reference or registry without the `https://`, `http://`, `docker://` or `oci://` before it, in whichever case.

    >>> without_scheme("HTTPS://registry.example"), without_scheme("registry.example")
    ('registry.example', 'registry.example')
    """
    scheme, mark, rest = text.partition("://")
    return rest if scheme.lower() + mark in _SCHEMES else text


class Reference(Value, kw_only=True):
    """A place in a registry: a repository, and perhaps a tag, a digest, or both.

    Where both are given the digest decides and the tag is only told.

    Example:
        >>> Reference.parse("alpine:3.20")
        Reference(registry='docker.io', name='library/alpine', tag='3.20', digest=None)
        >>> str(Reference.parse("localhost:5000/app"))
        'localhost:5000/app'
        >>> Reference.parse("[::1]:5000/app:v1").registry
        '[::1]:5000'
    """

    registry: str
    name: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        parse_name(self.name)
        if len(self.registry) + 1 + len(self.name) > MAX_NAME_LENGTH:
            raise InvalidNameError(
                f"registry and name of {len(self.registry) + 1 + len(self.name)} characters are over "
                f"the limit of {MAX_NAME_LENGTH}"
            )
        if self.tag is not None:
            parse_tag(self.tag)

    @classmethod
    def parse(cls, text: str, *, default_registry: str | None = None) -> Self:
        """Read a reference.

        Args:
            text: What was typed; a leading `https://`, `http://`, `docker://` or `oci://` is dropped.
            default_registry: The registry where none is named; Docker Hub, with its `library/`, if None.

        Raises:
            InvalidReferenceError: nothing there, or a registry that is none.
            InvalidNameError: the repository name breaks the grammar.
            InvalidTagError: the tag does.
            InvalidDigestError: the digest does.
        """
        rest = without_scheme(text.strip())
        if not rest:
            raise InvalidReferenceError("the reference is empty")
        rest, at, digest = rest.partition("@")
        registry, path = _split_registry(rest, default_registry)
        path, colon, tag = path.partition(":")
        if not path:
            raise InvalidReferenceError(
                f"reference {text[:300]!r} names no repository",
                hint="expected [registry/]name[:tag][@digest]",
            )
        if registry == DOCKER_HUB and "/" not in path:
            path = f"library/{parse_name(path)}"
        return cls(
            registry=registry,
            name=path,
            tag=tag if colon else None,
            digest=Digest(digest) if at else None,
        )

    def __str__(self) -> str:
        """The whole reference, the registry always there."""
        text = self.repository
        if self.tag is not None:
            text += f":{self.tag}"
        return f"{text}@{self.digest}" if self.digest is not None else text

    @property
    def tag_or_digest(self) -> str:
        """What to ask the registry for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"

    @property
    def repository(self) -> str:
        """`registry/name`, with neither tag nor digest.

        A registry that only its upper case tells from the first part of a name is written so.
        """
        registry = self.registry if _is_host(self.registry) else self.registry.upper()
        return f"{registry}/{self.name}"

    def with_tag(self, tag: str | None) -> Self:
        """The same repository under another tag, without a digest."""
        return replace(self, tag=tag, digest=None)

    def with_digest(self, digest: Digest) -> Self:
        """The same repository by digest, the tag kept for people to read."""
        return replace(self, digest=digest)


def _is_host(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _split_registry(text: str, default: str | None) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if slash and _is_host(first):
        return parse_registry(first), rest
    return parse_registry(default) if default else DOCKER_HUB, text
