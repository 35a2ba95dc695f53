"""Lists that were asked for elsewhere: kept for a while, so that all pages are of one list."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Kept", "Lists"]


class Kept(NamedTuple):
    """A list, and when it was asked for, in seconds since the epoch."""

    entries: Sequence[Any]
    asked: float

    def is_fresh(self, now: float, seconds: float) -> bool:
        """Whether it is younger than some seconds; not where it was asked for by a clock that has been put back."""
        return 0 <= now - self.asked < seconds


class Lists:
    """Lists by key, within a limit of entries; what was not wanted for the longest time goes first. A list counts as an
    entry itself: many are empty.

    >>> lists = Lists(3)
    >>> lists.put("a", Kept("xy", 1.0)); lists.put("b", Kept("xy", 2.0))
    >>> lists.get("a"), lists.get("b")
    (None, Kept(entries='xy', asked=2.0))
    """

    def __init__(self, limit: int = 20_000) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[object, Kept] = OrderedDict()

    def get(self, key: object) -> Kept | None:
        """A list that is here."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: object, kept: Kept) -> None:
        """Keep a list: the last one always, however long it is."""
        old = self._kept.pop(key, None)
        self._size += _cost(kept) - (_cost(old) if old else 0)
        self._kept[key] = kept
        while self._size > self._limit and len(self._kept) > 1:
            self._size -= _cost(self._kept.popitem(last=False)[1])


def _cost(kept: Kept) -> int:
    return 1 + len(kept.entries)
