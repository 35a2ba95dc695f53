"""Digests: the content's address and its proof (image-spec, descriptor.md, "Digests").

A `Digest` is a string that is valid or does not exist. Any algorithm that fits the grammar is accepted, as the
specification asks; only a registered one can be computed or verified.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Protocol, Self

from argosy.errors import InvalidDigestError
from argosy.spec._value import Value

_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", re.ASCII)
_HEX = re.compile(r"[a-f0-9]+", re.ASCII)
_MAX_LENGTH = 1024


class Hasher(Protocol):
    """What `hashlib` objects can do."""

    def update(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take in more bytes."""
        ...

    def hexdigest(self) -> str:
        """The hash so far, in lower-case hexadecimal digits."""
        ...


class Algorithm(Value):
    """A registered algorithm: its name, the length of its encoded portion in characters, and its hasher."""

    name: str
    length: int
    new: Callable[[], Hasher]


def _blake3() -> Hasher:
    try:
        from blake3 import blake3
    except ImportError:
        raise InvalidDigestError(
            "digest algorithm blake3 is not installed", hint="install argosy[blake3]"
        ) from None
    hasher: Hasher = blake3()
    return hasher


ALGORITHMS: dict[str, Algorithm] = {
    "sha256": Algorithm("sha256", 64, hashlib.sha256),
    "sha512": Algorithm("sha512", 128, hashlib.sha512),
    "blake3": Algorithm("blake3", 64, _blake3),
}
"""The registered algorithms (image-spec, descriptor.md, "Registered algorithms")."""


def hasher(algorithm: str = "sha256") -> Hasher:
    """A new hasher for a registered algorithm.

    Raises:
        InvalidDigestError: the algorithm is not registered, or its library is not installed.

    >>> hasher("sha256").hexdigest()[:8]
    'e3b0c442'
    """
    known = ALGORITHMS.get(algorithm)
    if known is None:
        raise InvalidDigestError(
            f"digest algorithm {algorithm!r} is not supported: expected one of {', '.join(ALGORITHMS)}"
        )
    return known.new()


class Digest(str):
    """`algorithm:encoded`, valid or not there at all.

    Args:
        text: The digest string. A registered algorithm's encoded portion must be lower-case hexadecimal digits of
            exactly its length.

    Raises:
        InvalidDigestError: `text` breaks the grammar.

    >>> Digest.of(b"{}").encoded[:8]
    '44136fa3'
    >>> Digest("sha256-short")
    Traceback (most recent call last):
    argosy.errors.InvalidDigestError: digest 'sha256-short': expected <algorithm>:<encoded>
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the grammar."""
        if type(text) is cls:
            return text
        if len(text) > _MAX_LENGTH or not _GRAMMAR.fullmatch(text):
            raise InvalidDigestError(f"digest {text[:100]!r}: expected <algorithm>:<encoded>")
        name, _, encoded = text.partition(":")
        known = ALGORITHMS.get(name)
        if known and len(encoded) != known.length:
            raise InvalidDigestError(
                f"digest {text[:100]!r}: expected {known.length} hexadecimal digits after '{name}:', "
                f"got {len(encoded)} characters"
            )
        if known and not _HEX.fullmatch(encoded):
            raise InvalidDigestError(f"digest {text!r}: expected lower-case hexadecimal digits")
        return super().__new__(cls, text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """The digest of some bytes.

        Raises:
            InvalidDigestError: the algorithm is not registered.
        """
        made = hasher(algorithm)
        made.update(data)
        return cls.done(algorithm, made)

    @classmethod
    def done(cls, algorithm: str, hashed: Hasher) -> Self:
        """The digest a hasher of `algorithm` has come to."""
        return super().__new__(cls, f"{algorithm}:{hashed.hexdigest()}")

    @property
    def algorithm(self) -> str:
        """What stands before the colon."""
        return self.partition(":")[0]

    @property
    def encoded(self) -> str:
        """What stands after the colon."""
        return self.partition(":")[2]

    @property
    def registered(self) -> bool:
        """Whether the algorithm is one argosy can verify (blake3 only where its library is installed)."""
        return self.algorithm in ALGORITHMS
