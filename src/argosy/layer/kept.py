"""What entries take that are kept in memory: a budget over all layers of an image.

A stranger says how long names, records, attributes and sparse maps are, and compressed they cost nothing: without an
end to their sum, a layer of kilobytes takes gigabytes.
"""

from __future__ import annotations

from typing import Final

from argosy.errors import InvalidLayerError, LimitExceededError
from argosy.layer.entry import Entry, Limits

__all__ = ["Kept"]

_RECORD: Final = 200
"""Bytes that Python takes for a record or attribute beside its own: one of ten bytes is no cheaper."""
_REGION: Final = 120
"""Bytes that a region of a sparse map takes."""


class Kept:
    """Counts entries that are kept, and the bytes of their headers.

    Args:
        limits: `entries` and `kept` hold for all that is counted.

    >>> Kept(Limits(kept=9)).add(Entry(name=b"etc/hostname"))
    Traceback (most recent call last):
    argosy.errors.LimitExceededError: names and attributes of all layers together take more than 9 bytes
    """

    __slots__ = ("_bytes", "_entries", "_limits")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._entries = self._bytes = 0

    def add(self, entry: Entry) -> None:
        """Count an entry.

        Raises:
            InvalidLayerError: There are too many.
            LimitExceededError: Their headers take too much memory.
        """
        self._entries += 1
        if self._entries > self._limits.entries:
            raise InvalidLayerError(f"more than {self._limits.entries} entries")
        size = len(entry.name) + len(entry.linkname)
        if entry.records or entry.xattrs or entry.sparse:
            size += _more(entry)
        self.take(size)

    def take(self, size: int) -> None:
        """Count bytes.

        Raises:
            LimitExceededError: They are too many.
        """
        self._bytes += size
        if self._bytes > self._limits.kept:
            raise LimitExceededError(
                f"names and attributes of all layers together take more than {self._limits.kept} bytes"
            )


def _more(entry: Entry) -> int:
    pairs = (*entry.records.items(), *entry.xattrs.items())
    total = sum(len(key) + len(value) + _RECORD for key, value in pairs)
    return total + _REGION * len(entry.sparse or ())
