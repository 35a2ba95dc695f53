"""The line to an upstream, which is left alone where it asks for silence, or has fallen silent itself."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argosy.errors import (
    AccessError,
    DeniedError,
    IntegrityError,
    InvalidManifestError,
    LimitExceededError,
    RegistryError,
    TooManyRequestsError,
    TransportError,
)
from argosy.server.door import Door
from argosy.server.registry import log
from argosy.server.storage import UnavailableError

__all__ = ["THREADS", "WRONG", "Line"]

T = TypeVar("T")

THREADS = 32
"""How many calls can wait for upstreams at a time, whatever their number."""
WRONG = (IntegrityError, InvalidManifestError, LimitExceededError)
"""What an upstream is to blame for that sends something else than it said."""
_LONGEST_PAUSE, _PAUSE = 3600.0, 10.0
_SILENCE = 60.0
"""Seconds that a call may wait in vain, and for which it is remembered that somebody has."""


class Line:
    """One upstream, asked by many.

    Args:
        registry: Its name, for errors.
        pool: `THREADS` threads, which all lines share.
        clock: Seconds since the epoch.
        ticks: Seconds that only grow.
    """

    def __init__(
        self,
        registry: str,
        pool: ThreadPoolExecutor,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._pool, self._clock = registry, pool, clock
        self._door = Door(wait=_SILENCE, threads=THREADS, clock=ticks)
        self._ticks, self._given_up = ticks, float("-inf")
        self._not_before = 0.0

    async def wait(self, answered: asyncio.Future[None], seconds: float) -> None:
        """Wait so long for what an answer brings; not at all where somebody has waited in vain a moment ago.

        Raises:
            TransportError: there is none yet; it is still waited for, by nobody.
            ArgosyError: what was brought instead.
        """
        is_silent = self._door.answered_at < self._given_up > self._ticks() - _SILENCE
        try:
            await asyncio.wait_for(asyncio.shield(answered), 0 if is_silent else seconds)
        except TimeoutError:
            if is_silent:
                raise TransportError("silent a moment ago") from None
            self._given_up = self._ticks()
            raise TransportError(f"no answer for {seconds:g} s") from None

    async def ask(self, call: Callable[[], T]) -> T:
        """Ask something that blocks, unless the upstream has asked for silence or has fallen silent.

        Raises:
            TransportError: there is no answer, or was none a moment ago.
            ArgosyError: its answer, so that our client understands it: its credentials are not ours to ask for.
        """
        pause = self._not_before - self._clock()
        if 0 < pause <= _LONGEST_PAUSE:
            raise TooManyRequestsError(f"{self._registry} limits the rate", retry_after=pause)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, functools.partial(self._call, call)
            )
        except UnavailableError as error:
            raise TransportError(f"{self._registry}: {error}") from None
        except TooManyRequestsError as error:
            pause = min(_LONGEST_PAUSE, error.retry_after or _PAUSE)
            self._not_before = self._clock() + pause
            raise
        except AccessError as error:
            log.warning("%s refuses what is asked for its clients: %s", self._registry, error)
            raise DeniedError(f"{self._registry} refuses: {error}") from None
        except WRONG as error:
            raise RegistryError(f"{self._registry} sent something else: {error}") from None

    def _call(self, call: Callable[[], T]) -> T:
        self._door.enter()
        with self._door.call():
            return call()
