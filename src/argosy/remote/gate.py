"""When a host may be asked: how often, after which pause, or not at all for now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from argosy.errors import ArgosyError
from argosy.remote.config import MOST_SECONDS

MOST = 3600.0
"""Seconds after which a host is asked again at the latest: some processes run for weeks."""


class Gate:
    """When one host may be asked again: a pause that all threads share, and a limit on requests a second.

    Args:
        rate: Requests a second; 0 for no limit.
        clock: Seconds that only ever grow.
        sleep: Waits some seconds.
    """

    def __init__(
        self,
        rate: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._gap = min(1 / rate, MOST_SECONDS) if rate > 0 else 0.0
        self._lock = threading.Lock()
        self._next = 0.0
        self._failure, self._until = ArgosyError(), self._next

    def enter(self) -> None:
        """Wait until the host may be asked."""
        while True:
            with self._lock:
                wait = self._next - self._clock()
                if wait <= 0:
                    self._next = self._clock() + self._gap
                    return
            self._sleep(wait)

    def pause(self, seconds: float) -> None:
        """Let nobody in for some seconds."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def shut(self, failure: ArgosyError, seconds: float) -> None:
        """Have `check` fail for some seconds, at most `MOST`."""
        with self._lock:
            until = self._clock() + min(seconds, MOST)
            if until > self._until:
                self._failure, self._until = failure, until

    def check(self) -> None:
        """See that nobody was sent away until later.

        Raises:
            ArgosyError: as it was then.
        """
        with self._lock:
            if self._clock() < self._until:
                raise copied(self._failure)


def copied(error: ArgosyError) -> ArgosyError:
    """The same error for another thread, which adds notes of its own to it."""
    made = type(error)(*error.args)
    vars(made).update(vars(error), __notes__=list(getattr(error, "__notes__", ())))
    return made
