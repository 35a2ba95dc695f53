"""What has fallen silent is left alone for a while: nobody queues to find out what is known already.

A call that fails after it has waited for long, while no other was answered, shuts the door. From then on one is let
through now and then, to see whether there is an answer again; the others are refused at once. The first answer opens
the door. What refuses quickly is never shut off: it costs nobody any time, and may refuse one thing only.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from argosy.errors import ArgosyError, TransportError
from argosy.server.storage import UnavailableError

__all__ = ["Door"]

_LONG = 5.0
"""Seconds after which an error counts as silence."""


class Door:
    """Whether calls are let through.

    Args:
        wait: How long a call may wait in vain, in seconds.
        threads: How many can wait at a time. Those that are let through hold half of them at most.
        clock: Seconds that only grow.

    Example:
        >>> door = Door(wait=30.0, threads=10)
        >>> door.enter()
        False
        >>> with door.call():
        ...     pass
    """

    def __init__(
        self, *, wait: float, threads: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every, self._clock = max(_LONG, 2 * wait / threads), clock
        self._lock = threading.Lock()
        self.answered_at = float("-inf")
        self._why: ArgosyError | None = None
        self._next = 0.0

    def enter(self) -> bool:
        """Begin something.

        Returns:
            Whether it is one that is let through to see whether there is an answer again.

        Raises:
            UnavailableError: the door is shut.
        """
        with self._lock:
            if self._why is None:
                return False
            now = self._clock()
            if now < self._next:
                raise UnavailableError(f"not asked again yet: {self._why}")
            self._next = now + self._every
            return True

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Learn from how a call ends."""
        began = self._clock()
        try:
            yield
        except (UnavailableError, TransportError) as exc:
            self._failed(exc, began)
            raise
        except ArgosyError:  # that is an answer
            self.answered()
            raise
        self.answered()

    def answered(self) -> None:
        """Learn that there is an answer, whatever it is."""
        with self._lock:
            self.answered_at, self._why = self._clock(), None

    def _failed(self, error: ArgosyError, began: float) -> None:
        with self._lock:
            now = self._clock()
            if now - began >= _LONG and self.answered_at <= began:
                self._why, self._next = error, now + self._every
