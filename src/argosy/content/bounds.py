"""What a run over many images keeps in memory has bounds, however many images there are and whoever made them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

T = TypeVar("T")

MOST_RECENT = 20_000
"""How many things are remembered at least before they are forgotten."""


class Recent(Generic[T]):
    """A set that forgets what was added long ago: for what can be asked again.

    Args:
        most: How many of the newest are there at least; twice as many at most.

    Example:
        >>> met = Recent(2)
        >>> [met.add(name) for name in "aabc"], "c" in met
        ([True, False, True, True], True)
    """

    def __init__(self, most: int = MOST_RECENT) -> None:
        self._most = most
        self._young: set[T] = set()
        self._old: set[T] = set()
        self._lock = threading.Lock()

    def __contains__(self, item: T) -> bool:
        return item in self._young or item in self._old

    def add(self, item: T) -> bool:
        """Remember something; whether it is new."""
        with self._lock:
            new = item not in self
            self._young.add(item)
            if len(self._young) >= self._most:
                self._old, self._young = self._young, set()
            return new


class Room:
    """Room that several share, in a row: the first of them waits for nobody, the others where it is full.

    Args:
        most: How much of it there is.

    Example:
        >>> room = Room(10)
        >>> place = room.enter()
        >>> place.take(100, wanted=lambda: True)
        >>> place.leave()
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.taken = 0
        self.changed = threading.Condition()
        self.row: dict[Place, None] = {}

    def enter(self) -> Place:
        """The next place of the row."""
        place = Place(self)
        with self.changed:
            self.row[place] = None
        return place

    def wake(self) -> None:
        """Have those who wait look whether they still want it."""
        with self.changed:
            self.changed.notify_all()


class Place:
    """One place of the row, and what was taken there. It is a context: it is left where that fails."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0
        self._host = threading.get_ident()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        if kind is not None:
            self.leave()

    def take(self, amount: int, wanted: Callable[[], bool]) -> None:
        """Take some room, as soon as there is some or those before have left; at once where it is `wanted` no more.

        The thread that entered the place never waits: those before may be waiting for that one.
        """
        room = self._room
        with room.changed:
            if threading.get_ident() != self._host:
                room.changed.wait_for(lambda: self._may(amount) or not wanted())
            self._taken += amount
            room.taken += amount

    def _may(self, amount: int) -> bool:
        return self._room.taken + amount <= self._room.most or next(iter(self._room.row)) is self

    def leave(self) -> None:
        """Give back what was taken, and the place."""
        room = self._room
        with room.changed:
            room.taken -= self._taken
            self._taken = 0
            room.row.pop(self, None)
            room.changed.notify_all()
