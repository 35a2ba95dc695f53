"""A storage that has fallen silent is left alone for a while, and its clients are told at once (`Door`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from argosy.server.door import Door
from argosy.server.storage import Place, SegmentWriter, Storage

__all__ = ["Breaker"]

T = TypeVar("T")

_THREADS = 16
"""Of a registry's pool."""


class _Writer:
    """An object being written. What was begun may be ended: much of it may be in the storage already."""

    def __init__(self, writer: SegmentWriter, door: Door) -> None:
        self._writer, self._door = writer, door
        self.write, self.abort = writer.write, writer.abort

    def commit(self) -> None:
        with self._door.call():
            self._writer.commit()


class Breaker:
    """A `Storage` behind such a door.

    Args:
        storage: The one that may fall silent.
        timeout_seconds: How long it may say nothing.
        clock: Seconds that only grow.

    Example:
        >>> from argosy.server.storage.filesystem import FileSystem
        >>> import tempfile
        >>> storage = Breaker(FileSystem(tempfile.mkdtemp(), reserve=0), timeout_seconds=60.0)
        >>> list(storage.keys("b/"))
        []
    """

    def __init__(
        self,
        storage: Storage,
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._storage = storage
        self._door = Door(wait=timeout_seconds, threads=_THREADS, clock=clock)

    def create(self, key: str, *, size: int | None = None) -> SegmentWriter:
        """Begin a new object."""
        self._door.enter()
        return _Writer(self._storage.create(key, size=size), self._door)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes of a range. Only its beginning is refused."""
        return self._each(self._storage.read(key, start, stop))

    def locate(self, key: str, *, media_type: str | None = None) -> Place:
        """What the storage says, which asks nobody."""
        return self._storage.locate(key, media_type=media_type)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects."""
        self._door.enter()
        with self._door.call():
            self._storage.delete(keys)

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix."""
        return self._each(self._storage.keys(prefix))

    def _each(self, source: Iterator[T]) -> Iterator[T]:
        self._door.enter()
        while True:
            with self._door.call():
                one = next(source, None)
            if one is None:
                return
            yield one
