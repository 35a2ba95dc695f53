"""Threads that do what somebody waits for."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MAX_JOBS = 64
JOBS = 8
"""How many things are asked of a registry at a time, where nobody said how many."""


def times(jobs: int, factor: int) -> int:
    """So many times the jobs, 64 at most; of one job, which means one thing after another, one."""
    return min(MAX_JOBS, jobs * min(jobs, factor))


class Cancelled(Exception):  # noqa: N818 - nothing has failed
    """What was begun is not done, because nobody wants it any more. It never leaves this room."""


def _release(failure: BaseException) -> None:
    """Let go of what was at hand where something failed: who waits for it may be far behind."""
    trace = failure.__traceback__
    while trace is not None:
        with contextlib.suppress(RuntimeError):  # that one is running
            trace.tb_frame.clear()
        trace = trace.tb_next


class Task(Generic[R]):
    """Something that is done on another thread.

    Args:
        work: What is done.
    """

    __slots__ = ("_failure", "_found", "_running", "_work")

    def __init__(self, work: Callable[[], R]) -> None:
        self._work: Callable[[], R] | None = work
        self._failure: BaseException | None = None
        self._running = threading.Lock()
        self._running.acquire()

    def run(self) -> None:
        """Do it."""
        try:
            if self._work is None:
                raise Cancelled
            self._found = self._work()
        except BaseException as exc:  # noqa: BLE001 - it is raised where its end is waited for
            _release(exc)
            self._failure = exc
        finally:
            self._work = None
            self._running.release()

    def cancel(self) -> None:
        """Let it not be done, if it has not begun."""
        self._work = None

    def result(self) -> R:
        """Wait for its end; what it returned, or raised."""
        with self._running:
            if self._failure is not None:
                raise self._failure
            return self._found


class Workers:
    """Threads for one caller: they do what it begins, in that order, and are there until the block ends.

    Its end waits for what was begun; where it fails, only for what the threads are at.

    `concurrent.futures` would do, and takes longer to load than the manifests of an image to come.

    Args:
        most: How many things are done at a time.
        name: What the threads are called.

    Example:
        >>> with Workers(4, "example") as workers:
        ...     print(list(workers.map(abs, [-1, 2, -3])))
        [1, 2, 3]
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = self._room = most
        self._name = name
        self._threads: list[threading.Thread] = []
        self.cancelled = False
        self._lock = threading.Lock()  # several threads may begin something, also while it ends
        self._todo: SimpleQueue[Task[Any] | None] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: object, trace: object) -> None:
        if kind is not None:
            self.cancel()
        self._close()

    def begin(self, work: Callable[[], R]) -> Task[R]:
        """Have something done."""
        task = Task(work)
        self.start(task)
        return task

    def start(self, task: Task[Any]) -> None:
        """Have a task done: here and now, where this process may have no thread for it."""
        with self._lock:
            if len(self._threads) < self._room and not self.cancelled:
                self._add()
            if self._threads and not self.cancelled:
                self._todo.put(task)
                return
        self._do(task)

    def _add(self) -> None:
        thread = threading.Thread(target=self._run, name=self._name)
        self._threads.append(thread)  # before an interrupt can come while it starts
        try:
            thread.start()
        except RuntimeError:  # no more threads may be had: as many as there are will do
            self._threads.pop()
            self._room = len(self._threads)

    def ahead(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, Task[R]]]:
        """What is done with each item, in their order, of which some are begun before they are asked for.

        Where `items` fails, that is raised after those before it.
        """
        rest = iter(items)
        begun: deque[tuple[T, Task[R]]] = deque()
        failure: Exception | None = None
        while True:
            try:
                for item in itertools.islice(rest, 2 * self._most - len(begun)):
                    begun.append((item, self.begin(functools.partial(work, item))))
            except Exception as exc:  # noqa: BLE001 - it is raised below
                rest, failure = iter(()), exc
            if begun:
                yield begun.popleft()
            elif failure is not None:
                raise failure
            else:
                return

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """As `map`, some items ahead."""
        return (task.result() for _, task in self.ahead(work, items))

    def cancel(self) -> None:
        """Do no more than what the threads are at; the rest is `Cancelled`."""
        with self._lock:
            self.cancelled = True

    def _close(self) -> None:
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            with contextlib.suppress(RuntimeError):  # Ctrl-C came while it was started
                thread.join()

    def _run(self) -> None:
        _at_leisure()
        while (task := self._todo.get()) is not None:
            self._do(task)

    def _do(self, task: Task[Any]) -> None:
        if self.cancelled:
            task.cancel()
        task.run()


class Turns:
    """So many things are done at a time. It is a context: who enters it waits for a turn, and has it until the end.

    Args:
        most: How many.

    Example:
        >>> turns = Turns(2)
        >>> with turns:
        ...     turns.spare(), turns.spare()
        (True, False)
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: self._free)
            finally:
                self._waiting -= 1
            self._free -= 1

    def __exit__(self, *exc: object) -> None:
        self.give_back()

    def spare(self) -> bool:
        """Have one more turn, where nobody waits for it; whether that is so. It must be given back."""
        with self._changed:
            if self._free <= self._waiting:
                return False
            self._free -= 1
            return True

    def give_back(self) -> None:
        """End a turn."""
        with self._changed:
            self._free += 1
            self._changed.notify()


def _at_leisure() -> None:
    """Have this thread take no core from another when it wakes up: it moves data, and is in no hurry.

    Where the other end of a connection is on this machine, it would stop the one it waits for. A policy that somebody
    chose for this process stays.
    """
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def each(ask: Callable[[T], R], wanted: Sequence[T], *, jobs: int = JOBS) -> list[R]:
    """What is answered to each, in their order; what the first of them to fail raises, and then no more is asked.

    >>> each(str.upper, ["a", "b"])
    ['A', 'B']
    """
    if jobs == 1 or len(wanted) < 2:
        return [ask(one) for one in wanted]
    with Workers(jobs, "argosy-ask") as workers:
        return list(workers.map(ask, wanted))
