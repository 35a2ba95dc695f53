"""The end of a process that does not wait for ever: bodies still under way are cut a moment before, and what came of
them is kept, as where a client hangs up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

__all__ = ["CURFEW", "Curfew"]


class Curfew:
    """Whether bodies may go on.

    Example:
        >>> curfew = Curfew()
        >>> curfew.begin()
        >>> curfew.has_begun
        True
    """

    def __init__(self) -> None:
        self.has_begun = False
        self._waiting: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """Cut all bodies that are coming, and those that will; called on the loop they come on."""
        self.has_begun = True
        for limit in self._waiting:
            if not limit.expired():
                limit.reschedule(0.0)

    @contextlib.contextmanager
    def ends(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Have it end a wait, too."""
        self._waiting.add(limit)
        try:
            yield
        finally:
            self._waiting.discard(limit)


CURFEW = Curfew()
"""This process' one."""
