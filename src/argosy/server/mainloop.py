"""The main process while it serves: it begins workers again that died, and hears when it is to stop.

The HTTP server's own loop is the frame; here is what it does otherwise. It would end all workers when one dies twice in
a few seconds, or once a moment after a reload, and say of some that have ended that they refuse to.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVarTuple

from granian import loops
from granian.server.mp import MPServer, WorkerProcess

__all__ = ["HURRY", "Bell", "Loop", "Main", "is_alive"]

HURRY = signal.SIGUSR2
"""What a worker hears besides SIGTERM where it is killed if it takes too long."""

_SOON, _PAUSE = 5.0, 1.0
_STOPS = (signal.SIGTERM, signal.SIGINT)
_Words = TypeVarTuple("_Words")


class Loop(asyncio.SelectorEventLoop):
    """A worker's event loop, in which a stop is heard once: the HTTP server's handler may wait for ever in a later one.

    There are more wherever a whole group is told to stop, by a terminal or by systemd, for then the main process
    tells its workers again; and the kernel tells them once for each thread of a main process that is killed.
    """

    _is_stopping = False

    def add_signal_handler(
        self, sig: int, callback: Callable[[*_Words], object], *args: *_Words
    ) -> None:
        """Call something for a signal; for SIGTERM and SIGINT together only once."""
        super().add_signal_handler(sig, self._once(callback) if sig in _STOPS else callback, *args)

    def _once(self, callback: Callable[[*_Words], object]) -> Callable[[*_Words], None]:
        def hear(*words: *_Words) -> None:
            if not self._is_stopping:
                self._is_stopping = True
                callback(*words)

        return hear


@loops.register("asyncio")
def _loop() -> Loop:
    loop = Loop()
    asyncio.set_event_loop(loop)
    return loop


class Bell:
    """What the main loop waits for; each ring ends one wait.

    An event, which it has otherwise, deadlocks where a signal's handler sets it in the moment in which the loop wakes
    up, because both want one lock; and a stop that is heard while it is cleared for a worker that died is forgotten.

    >>> bell = Bell()
    >>> bell.set(); bell.clear(); bell.wait()
    """

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Ring; also in a signal's handler."""
        self._rings.put(None)

    def wait(self) -> None:
        """Return for a ring that no wait has returned for."""
        self._rings.get()

    def clear(self) -> None:
        """Forget nothing: a wait too many finds nothing to do."""


def is_alive(process: BaseProcess) -> bool:
    """Whether a process has not ended, also where another thread waits for its end, and has heard of it first.

    Its own `is_alive` says yes then, until that thread has written down what it heard.
    """
    return not wait([process.sentinel], 0)


class Main(MPServer):
    """The HTTP server, whose good workers go on whatever becomes of one of them."""

    def __init__(self, *words: Any, **more: Any) -> None:
        super().__init__(*words, **more)
        self.main_loop_interrupt = Bell()  # type: ignore[assignment]  # all it asks of an event
        self._begun_at = float("-inf")

    def run(self, loader: Callable[[], Any]) -> None:
        """Serve until a stop. One that was asked for is no failure, whatever became of a worker a moment before.

        Args:
            loader: Makes the application, in a worker.

        Raises:
            SystemExit: all workers died, and died again.
        """
        try:
            self.serve(target_loader=loader, wrap_loader=False)
        except SystemExit:
            if not self.interrupt_signal:
                raise
        finally:
            # None is left but after an error; a thread waits for each, for ever.
            for worker in self.wrks:
                worker.interrupt_by_parent = True
                worker.inner.kill()

    def _spawn_worker(self, *words: Any, **more: Any) -> WorkerProcess:
        worker = super()._spawn_worker(*words, **more)
        worker.is_alive = lambda: is_alive(worker.inner)  # type: ignore[method-assign]
        end: Callable[[], None] = worker.terminate

        def terminate() -> None:
            end()
            with contextlib.suppress(ProcessLookupError):  # it ends while it is looked at
                if is_alive(worker.inner):
                    os.kill(worker.inner.pid, HURRY)

        worker.terminate = terminate  # type: ignore[method-assign]
        return worker

    def _respawn_workers(
        self, workers: Sequence[int], spawn_target: Any, target_loader: Any, delay: float = 0.0
    ) -> None:
        """Begin workers again: those that died, or all of them at a reload, which alone has a delay.

        Whoever dies at once, again and again, is begun once a second.
        """
        if not delay and time.monotonic() - self._begun_at < _SOON:
            time.sleep(_PAUSE)
        self._begun_at = time.monotonic()
        super()._respawn_workers(workers, spawn_target, target_loader, delay)
        if delay or len({*workers}) < self.workers:
            self.respawned_wrks.clear()  # it is no loop that nobody comes out of
