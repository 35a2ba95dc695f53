"""A storage that has fallen silent is left alone for a while: nobody queues to find out what is known already.

A call that fails after it has waited for long, while no other was answered, shuts the door. From then on one is let
through now and then, to see whether the storage answers again; the others are refused at once. The first answer opens
the door. A storage that refuses quickly is never shut off: it costs nobody any time, and may refuse one thing only.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from argosy.errors import BlobUnknownError
from argosy.server.storage import Place, SegmentWriter, Storage, UnavailableError

__all__ = ["Breaker"]

T = TypeVar("T")

_LONG = 5.0
"""Seconds after which an error counts as silence."""


class _Door:
    """Whether calls are let through.

    Args:
        every: Seconds from one call that is let through to the next, while it is shut.
        clock: Seconds that only grow.
    """

    def __init__(self, every: float, clock: Callable[[], float]) -> None:
        self._every, self._clock = every, clock
        self._lock = threading.Lock()
        self._answered = float("-inf")
        self._why: UnavailableError | None = None
        self._next = 0.0

    def enter(self) -> None:
        """Begin something.

        Raises:
            UnavailableError: the door is shut.
        """
        with self._lock:
            if self._why is None:
                return
            now = self._clock()
            if now < self._next:
                raise UnavailableError(f"not asked again yet: {self._why}")
            self._next = now + self._every

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Learn from how a call ends."""
        began = self._clock()
        try:
            yield
        except UnavailableError as exc:
            self._failed(exc, began)
            raise
        except BlobUnknownError:  # that is an answer
            self._open()
            raise
        self._open()

    def _open(self) -> None:
        with self._lock:
            self._answered, self._why = self._clock(), None

    def _failed(self, error: UnavailableError, began: float) -> None:
        with self._lock:
            now = self._clock()
            if now - began >= _LONG and self._answered <= began:
                self._why, self._next = error, now + self._every


class _Writer:
    """An object being written. What was begun may be ended: much of it may be in the storage already."""

    def __init__(self, writer: SegmentWriter, door: _Door) -> None:
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
        # Those that are let through may wait as long as the others did: they must not hold all threads.
        self._door = _Door(max(_LONG, timeout_seconds / 8), clock)

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
