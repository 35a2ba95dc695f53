"""A program's standard streams: pipes of its own, and the copying between them and this process's.

Nothing of this machine's is handed in. Who holds a descriptor of a file can open the file anew through /proc/self/fd,
for writing where it was open for reading, and change its mode and owner; of a terminal he reads what is typed.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

from argosy.engine.values import ENDING, PASSED_ON
from argosy.errors import StorageError

_NAMES = {1: "standard output", 2: "standard error"}
_CHUNK = 1 << 20
_LOOK = 0.1
"""Seconds between two looks whether somebody does not want to wait any longer."""


class Streams:
    """Pipes for one program, copied from and to this process's standard streams; a context that closes them.

    Where this process's stdout and stderr are one file, the program's are one pipe, so that what it writes keeps its
    order. A program whose output nobody takes gets SIGPIPE, as it would without a copy in between. A failed read of
    stdin is its end.

    Args:
        interactive: Whether the program is given what this process gets on its stdin; else it has /dev/null.

    Attributes:
        stdin: What to start the program with, as `stdout` and `stderr` are.
    """

    def __init__(self, *, interactive: bool) -> None:
        self._stop, self._tell = os.pipe()
        self._theirs: list[int] = []
        self._copies: list[_Copy] = []
        self.stdout = self._output(1)
        self.stderr = self.stdout if _one_file(1, 2) else self._output(2)
        self.stdin = self._input() if interactive else subprocess.DEVNULL

    def _output(self, target: int) -> int:
        reader, writer = os.pipe()
        self._copies.append(_Copy(reader, target, self._stop))
        self._theirs.append(writer)
        return writer

    def _input(self) -> int:
        reader, writer = os.pipe()
        self._copies.append(_Copy(0, writer, self._stop))
        self._theirs.append(reader)
        return reader

    def start(self) -> None:
        """Copy from now on: the program has its ends, and they are closed here."""
        self._let_go()
        for copy in self._copies:
            copy.start()

    def finish(self, arrived: Sequence[int] = ()) -> None:
        """Read stdin no more, and copy what the program has written, which has ended.

        Args:
            arrived: Signals that came; an `ENDING` one among them ends the waiting for who takes the output slowly.

        Raises:
            StorageError: some of the output could not be written.
        """
        self._stop_copies()
        for copy in self._copies:
            if copy.target not in _NAMES:
                continue  # what is left of stdin has no reader
            while copy.is_alive() and not set(ENDING).intersection(arrived):
                copy.join(_LOOK)
            if copy.failure is not None:
                why = os.strerror(copy.failure.errno or 0).lower()
                raise StorageError(f"{_NAMES[copy.target]}: {why}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()
        self._stop_copies()
        for copy in self._copies:
            if copy.ident is None:  # it was never started
                copy.close()
        if not any(copy.is_alive() for copy in self._copies):
            os.close(self._stop)

    def _let_go(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())

    def _stop_copies(self) -> None:
        if self._tell >= 0:
            os.close(self._tell)
            self._tell = -1


class _Copy(threading.Thread):
    """One direction, until its end or until `stop` is closed at its other end.

    It has a thread, for either side may block as long as it likes, and the other directions must go on meanwhile.
    """

    def __init__(self, source: int, target: int, stop: int) -> None:
        super().__init__(daemon=True)
        self.source, self.target = source, target
        self.failure: OSError | None = None
        self._spliced = True
        self._stop_fd = stop

    def run(self) -> None:
        try:
            self._copy()
        except BrokenPipeError:
            pass
        except OSError as exc:
            self.failure = exc
        finally:
            self.close()

    def close(self) -> None:
        """Close this side's end of the pipe."""
        os.close(self.target if self.source == 0 else self.source)

    def _copy(self) -> None:
        while self._wait():
            if not self._move(_CHUNK):
                return
        # What other programs that hold the pipe's end write after this is not waited for.
        left = 0 if self.source == 0 else _held(self.source)
        while left > 0:
            left -= self._move(min(left, _CHUNK)) or left

    def _wait(self) -> bool:
        """Wait for bytes, or the end of them. Returns whether to go on."""
        poller = select.poll()
        for fd in (self.source, self._stop_fd):
            poller.register(fd, select.POLLIN)
        return all(fd != self._stop_fd for fd, _ in poller.poll())

    def _move(self, most: int) -> int:
        """Move some bytes, without looking at them where the kernel can. Returns how many; 0 at the end."""
        while self._spliced:
            try:
                return os.splice(self.source, self.target, most)
            except BlockingIOError:
                _await(self.source, select.POLLIN)
                _await(self.target, select.POLLOUT)
            except OSError as exc:
                if exc.errno != errno.EINVAL:  # a terminal, or a file that is appended to
                    raise
                self._spliced = False
        data = os.read(self.source, most)
        write_all(self.target, data)
        return len(data)


def write_all(fd: int, data: bytes) -> None:
    """Write all of some bytes, also where whoever shares the descriptor made it non-blocking.

    Raises:
        OSError: the rest cannot be written.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            _await(fd, select.POLLOUT)


def _await(fd: int, event: int) -> None:
    poller = select.poll()
    poller.register(fd, event)
    poller.poll()


def _one_file(one: int, other: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.sameopenfile(one, other)
    return False


def _held(pipe: int) -> int:
    """The bytes a pipe holds."""
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)
    return found[0]


def run_attached(argv: Sequence[str], *, interactive: bool, pass_fds: Sequence[int] = ()) -> int:
    """Run a program whose streams are copied from and to this process's, and that gets the signals sent to this one.

    Returns:
        Its exit code.

    Raises:
        StorageError: some of its output could not be written.
    """
    with Streams(interactive=interactive) as streams:
        code = run_signalled(
            argv, streams.start, stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr,
            pass_fds=pass_fds, process_group=0,  # or a terminal's signals would reach it twice
        )  # fmt: skip
        streams.finish()
    return code


def run_signalled(
    argv: Sequence[str], on_started: Callable[[], object] = lambda: None, **options: Any
) -> int:
    """Run a program to its end, and send it what signals are sent to this process meanwhile.

    Args:
        argv: The program and its arguments.
        on_started: Called when it runs.
        options: Those of `subprocess.Popen`.

    Returns:
        Its exit code; 128 and the signal's number if one killed it.
    """
    early: list[int] = []
    send: Callable[[int], object] = early.append
    before = {
        number: signal.signal(number, lambda number, _frame: send(number)) for number in PASSED_ON
    }
    try:
        with subprocess.Popen(argv, **options) as process:
            send = process.send_signal
            for number in early:
                send(number)
            on_started()
            code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 - code if code < 0 else code
