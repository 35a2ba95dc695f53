"""Which owner in a container is which on the host (runtime-spec, "User namespace mappings").

A map is ranges; an id outside of all of them has no owner on the other side, and that is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from argosy.errors import InvalidLayerError, UsageError

__all__ = ["IDENTITY", "IdMap", "IdRange"]

_MAX: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class IdRange:
    """`size` ids from `container` on, which are those from `host` on outside."""

    container: int
    host: int
    size: int

    def __post_init__(self) -> None:
        if (
            self.size < 1
            or min(self.container, self.host) < 0
            or max(self.container, self.host) + self.size > _MAX
        ):
            raise UsageError(
                f"id map {self.container}:{self.host}:{self.size} is outside 0 to {_MAX - 1}"
            )


@dataclass(frozen=True, slots=True)
class IdMap:
    """Ranges of ids; without any, every id stands for itself.

    >>> ids = IdMap.parse("0:100000:65536")
    >>> ids.to_host(1000), ids.to_container(101000)
    (101000, 1000)
    """

    ranges: tuple[IdRange, ...] = ()

    @classmethod
    def parse(cls, *texts: str) -> Self:
        """Ranges written as `container:host:size` (`container:host` is one id), as umoci and newuidmap take them.

        Raises:
            UsageError: It is no range, or ranges overlap on one side.
        """
        ranges = []
        for text in texts:
            parts = text.split(":")
            if len(parts) not in (2, 3) or not all(
                part.isascii() and part.isdigit() for part in parts
            ):
                raise UsageError(f"id map {text!r}: expected container:host:size")
            ranges.append(IdRange(*(int(part) for part in (*parts, "1")[:3])))
        for side in ("container", "host"):
            starts = sorted((getattr(each, side), each.size) for each in ranges)
            if any(low + size > high for (low, size), (high, _) in pairwise(starts)):
                raise UsageError(f"id map {' '.join(texts)}: {side} ids overlap")
        return cls(tuple(ranges))

    def to_host(self, number: int, kind: str = "id") -> int:
        """The host's id for a container's.

        Raises:
            InvalidLayerError: No range holds it.
        """
        if not self.ranges:
            return number
        for each in self.ranges:
            if 0 <= number - each.container < each.size:
                return number - each.container + each.host
        raise InvalidLayerError(f"{kind} {number} of the container is not in the id map")

    def to_container(self, number: int, kind: str = "id") -> int:
        """The container's id for a host's.

        Raises:
            InvalidLayerError: No range holds it.
        """
        if not self.ranges:
            return number
        for each in self.ranges:
            if 0 <= number - each.host < each.size:
                return number - each.host + each.container
        raise InvalidLayerError(f"{kind} {number} of the host is not in the id map")


IDENTITY: Final = IdMap()
"""Every id stands for itself."""
