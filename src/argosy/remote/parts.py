"""A blob over several connections where one alone is slow: parts of it side by side, handed on in their order.

One connection begins, and goes on to the end where it is fast or no turn is to spare. Whatever a part fails by, that
one takes over again where the bytes stopped, with all that it does about failures.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import deque
from collections.abc import Callable

from argosy.content.workers import Cancelled, Task, Turns
from argosy.errors import ArgosyError
from argosy.remote.download import Download
from argosy.remote.places import Places
from argosy.spec.descriptor import Descriptor

SAMPLE = 8 * 1024 * 1024
"""Bytes that come over one connection before it is judged; as many must be left."""
SLOW = 64 * 1024 * 1024
"""Bytes a second below which a connection is helped."""
_SECONDS = 0.5
"""How long a part takes, which makes up for the time of asking for it."""
_LEAST, _MOST = 1024 * 1024, 4 * 1024 * 1024
"""Bytes of a part."""
_AHEAD = 7
"""How many parts are on their way behind the one that is read."""
_CHANCES = 3
_PIECE = 64 * 1024


def parted(whole: Download, desc: Descriptor, places: Places) -> Parts:
    """A blob that comes in parts where `whole` is slow."""

    def part(start: int, stop: int) -> Download:
        made = Download(desc, places.part, stop=stop, attempts=1, pause=places.rest)
        made.start_at(start)
        return made

    return Parts(whole, part, desc.size)


class Parts:
    """A blob's bytes: `SupportsRead` and `Resumable`.

    Args:
        whole: All of them.
        part: Those from an offset up to another.
        size: How many there are.
    """

    def __init__(self, whole: Download, part: Callable[[int, int], Download], size: int) -> None:
        self._whole, self._part, self._size = whole, part, size
        self._at = self._next = self._length = 0
        self._apart = False
        self._turns: Turns | None = None
        self._chances = _CHANCES
        self._sampled, self._seconds = 0, 0.0
        self._begun: deque[Task[bytearray]] = deque()
        self._threads: list[threading.Thread] = []
        self._stopped = threading.Event()
        self._left = memoryview(b"")

    def spread(self, turns: Turns) -> None:
        """Let a slow connection be helped by as many as there are turns to spare."""
        self._turns = turns

    def start_at(self, offset: int, /) -> None:
        """See `Resumable`."""
        self._stop()
        self._at, self._apart = offset, False
        self._whole.start_at(offset)

    def elsewhere(self, failure: ArgosyError) -> bool:
        """Have the bytes come from another place, if there is one, since they were not the blob's."""
        return self._whole.elsewhere(failure)

    def close(self) -> None:
        """Let the connections go, and wait until they are free."""
        self._stop()
        self._whole.close()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, any number if negative; empty at the end.

        Raises:
            ArgosyError: as `Download.read`.
        """
        if not self._left and self._begun:
            self._take()
        if self._left:
            some = len(self._left) if size < 0 else size
            data, self._left = bytes(self._left[:some]), self._left[some:]
            self._at += len(data)
            return data
        if self._apart:
            self.start_at(self._at)
        return self._from_whole(size)

    def _from_whole(self, size: int) -> bytes:
        started = time.monotonic()
        data = self._whole.read(size)
        self._seconds += time.monotonic() - started
        self._sampled += len(data)
        self._at += len(data)
        if self._sampled >= SAMPLE:
            rate = self._sampled / max(self._seconds, 1e-6)
            self._sampled, self._seconds = 0, 0.0
            if rate < SLOW and self._chances and self._size - self._at >= SAMPLE:
                self._begin(rate)
        return data

    # --------------------------------------------------------------------------------------------------------- parts

    def _begin(self, rate: float) -> None:
        self._next, self._length = self._at, int(min(max(rate * _SECONDS, _LEAST), _MOST))
        self._stopped = threading.Event()
        self._fill()
        if self._begun:
            self._apart = True
            self._whole.close()

    def _fill(self) -> None:
        """Begin more parts; each has a turn until it is read, so that few are in memory."""
        while self._next < self._size and len(self._begun) < _AHEAD:
            if self._turns is None or not self._turns.spare():
                return
            stop = min(self._next + self._length, self._size)
            task = Task(functools.partial(self._fetched, self._stopped, self._next, stop))
            thread = threading.Thread(target=task.run, name="argosy-part", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads may be had
                self._turns.give_back()
                self._chances = 0
                return
            self._threads = [one for one in self._threads if one.is_alive()]
            self._threads.append(thread)
            self._begun.append(task)
            self._next = stop

    def _fetched(self, stopped: threading.Event, start: int, stop: int) -> bytearray:
        stream = self._part(start, stop)
        made = bytearray()
        try:
            while len(made) < stop - start:
                if stopped.is_set():
                    raise Cancelled
                made += stream.read(min(_PIECE, stop - start - len(made)))
        finally:
            stream.close()
        return made

    def _take(self) -> None:
        """Wait for the next part. Its turn is this stream's own from now on."""
        task = self._begun.popleft()
        self._give_back(1)
        self._fill()
        try:
            self._left = memoryview(task.result())
        except ArgosyError:  # what it means, the whole will say
            self._chances -= 1
            self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._give_back(len(self._begun))
        self._begun.clear()
        self._left = memoryview(b"")

    def _give_back(self, number: int) -> None:
        if self._turns is not None:
            for _ in range(number):
                self._turns.give_back()
