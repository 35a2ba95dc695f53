"""Watching one container from its creation to its end, in this process."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import selectors
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from argosy.engine import cgroup, terminal, usermode
from argosy.engine.container import Container, now
from argosy.engine.invoke import InvocationError, Runtime, exit_code_of
from argosy.engine.logfile import LogWriter
from argosy.engine.options import Published
from argosy.engine.streams import Streams, write_all
from argosy.engine.values import PASSED_ON
from argosy.runtime.flow import Flow

_SET_CHILD_SUBREAPER, _GET_CHILD_SUBREAPER = 36, 37
_CHUNK = 65536
_LAST_WORDS = 1.0
"""Seconds to wait for output that is still on its way when the container has ended."""


class Watch:
    """One container's life.

    Args:
        container: Prepared: its directory, bundle, mount and network are there.
        runtime: The runtime for it.
        detached: Output goes to the log instead of this process's own.
        stdin: What this process gets on its stdin goes to a container that is attached and was promised one.

    Attributes:
        gone: Whether the runtime has nothing of it any more, at its end.
    """

    def __init__(
        self, container: Container, runtime: Runtime, *, detached: bool, stdin: bool = True
    ) -> None:
        self._container, self._runtime, self._detached = container, runtime, detached
        options = container.record.options
        self._tty: bool = options["tty"]
        self._interactive: bool = options["interactive"]
        self._stdin = self._interactive and stdin and not detached
        self._log: LogWriter | None = None
        self._open = contextlib.ExitStack()
        self._streams: Streams | None = None
        self._selector = selectors.DefaultSelector()
        self.gone = True
        self._pid = 0
        self._pidfd = -1
        self._master = -1
        self._readers: dict[int, str] = {}
        self._typed: Flow | None = None

    def run(self, on_started: Callable[[], object]) -> int:
        """Create, start and wait; then remove what the runtime has of it.

        Returns:
            The exit code as a shell says it.

        Raises:
            InvocationError: it could not be created or started; nothing of the runtime's is left.
            StorageError: some of its output could not be written.
        """
        if self._detached:
            self._log = LogWriter(self._container.file("output.log"))
        helper: int | None = None
        with _taking_in(), _signals() as (arrived, wakeup):
            self._selector.register(wakeup, selectors.EVENT_READ)
            try:
                self._create()
                helper = self._network()
                self._start()
                on_started()
                code = self._wait(arrived, wakeup)
                self._ended(code)
                self._finish(arrived)
                return code
            finally:
                self.gone = self._deleted()
                usermode.stop(helper, self._container.path)
                self._close()

    def _deleted(self) -> bool:
        try:
            self._runtime.delete()
        except InvocationError:
            return False
        return True

    def _start(self) -> None:
        """The record is of this run from its start on: of one that did not start it tells nothing."""
        started = dataclasses.replace(
            self._container.record,
            started=now(),
            finished="",
            exit_code=None,
            oom_killed=False,
            detached=self._detached,
        )
        with self._container.becoming(started):
            self._runtime.start()

    def _ended(self, code: int) -> None:
        record = self._container.record
        record.exit_code, record.finished = code, now()
        record.oom_killed = cgroup.out_of_memory(record.id)

    def _create(self) -> None:
        if self._tty:
            self._create_with_terminal()
        elif self._detached:
            self._create_with_log()
        else:
            self._create_with_streams()
        self._pidfd = os.pidfd_open(self._pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ)

    def _create_with_streams(self) -> None:
        self._streams = streams = self._open.enter_context(Streams(interactive=self._stdin))
        self._pid = self._runtime.create(
            stdin=streams.stdin, stdout=streams.stdout, stderr=streams.stderr
        )
        streams.start()

    def _create_with_log(self) -> None:
        ends = {}
        for name in ("stdout", "stderr"):
            reader, ends[name] = os.pipe()
            self._readers[reader] = name
            self._selector.register(reader, selectors.EVENT_READ)
        stdin = self._open_stdin() if self._interactive else subprocess.DEVNULL
        try:
            self._pid = self._runtime.create(
                stdin=stdin, stdout=ends["stdout"], stderr=ends["stderr"]
            )
        finally:
            for writer in ends.values():
                os.close(writer)

    def _open_stdin(self) -> int:
        """A stdin on which nothing comes and which does not end either, until the container does."""
        reader, writer = os.pipe()
        for fd in (reader, writer):
            self._open.callback(os.close, fd)
        return reader

    def _create_with_terminal(self) -> None:
        # The address of a Unix socket has at most 107 bytes, so it lies where names are short.
        with tempfile.TemporaryDirectory(prefix="argosy-") as folder:
            path = os.path.join(folder, "console")
            with terminal.console_socket(path) as listener:
                self._pid = self._runtime.create(console_socket=path)
                self._master = terminal.receive(listener)
        self._readers[self._master] = "stdout"
        self._selector.register(self._master, selectors.EVENT_READ)
        if not self._detached:
            terminal.copy_size(0, self._master)

    def _network(self) -> int | None:
        options = self._container.record.options
        if options["network"] not in ("pasta", "slirp4netns"):
            return None
        published = [Published(**item) for item in options["published"]]
        return usermode.start(options["network"], self._pid, published, self._container.path)

    def _wait(self, arrived: list[int], wakeup: int) -> int:
        relays = self._tty and self._stdin
        with terminal.raw_mode(0) if relays else contextlib.nullcontext():
            if relays:
                self._listen()
            while True:
                for key, _ in self._selector.select():
                    if key.fd == self._pidfd:
                        self._drain()
                        _, status = os.waitpid(self._pid, 0)
                        return exit_code_of(status)
                    if key.fd == wakeup:
                        os.read(wakeup, _CHUNK)
                    else:
                        self._relay(key.fd)
                while arrived:
                    self._signal(arrived.pop(0))

    def _listen(self) -> None:
        """Begin to give the container what is typed."""
        os.set_blocking(self._master, False)
        # A number of its own to write to: a selector awaits one thing of a descriptor.
        self._typed = Flow(0, os.dup(self._master))
        self._selector.register(0, selectors.EVENT_READ)

    def _type(self, flow: Flow) -> None:
        """Move what is typed by one step, then await whom the next one needs."""
        self._selector.unregister(flow.waits_for)
        flow.move()
        if flow.open:
            event = selectors.EVENT_WRITE if flow.pending else selectors.EVENT_READ
            self._selector.register(flow.waits_for, event)
        else:
            with contextlib.suppress(OSError):
                os.write(flow.target, b"\x04")

    def _relay(self, fd: int) -> None:
        """Move what one descriptor has; at its end, listen to it no more."""
        if fd not in self._selector.get_map():
            return  # it was hung up a moment ago
        if self._typed is not None and fd == self._typed.waits_for:
            self._type(self._typed)
            return
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # a terminal whose other side is gone says EIO
            data = b""
        if not data:
            self._selector.unregister(fd)
        elif self._log is not None:
            self._log.write(self._readers[fd], data)
        else:
            try:
                write_all(1, data)
            except OSError:
                self._hang_up()

    def _hang_up(self) -> None:
        """Nobody sees the terminal any more: to the container, too, it is gone."""
        typed, self._typed = self._typed, None
        ends = {self._master} | ({typed.source, typed.target} if typed else set())
        for fd in ends & set(self._selector.get_map()):
            self._selector.unregister(fd)
        for fd in ends - {0}:
            os.close(fd)
        del self._readers[self._master]
        self._master = -1

    def _drain(self) -> None:
        """Take the output that is still on its way."""
        for registered in [fd for fd in self._readers if fd in self._selector.get_map()]:
            with selectors.DefaultSelector() as one:
                one.register(registered, selectors.EVENT_READ)
                while registered in self._selector.get_map() and one.select(_LAST_WORDS):
                    self._relay(registered)

    def _finish(self, arrived: list[int]) -> None:
        """Wait until what it wrote is written, or until this process is asked to end."""
        arrived.clear()
        if self._streams is not None:
            self._streams.finish(arrived)

    def _signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            if self._master >= 0 and not self._detached:
                terminal.copy_size(0, self._master)
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _close(self) -> None:
        self._open.close()
        self._selector.close()
        for fd in (*self._readers, self._pidfd, self._typed.target if self._typed else -1):
            if fd >= 0:
                os.close(fd)
        if self._log is not None:
            self._log.close()


@contextlib.contextmanager
def _taking_in() -> Iterator[None]:
    """Be the parent of the processes the runtime leaves behind, and afterwards again only if it was so before."""
    prctl = ctypes.CDLL(None).prctl
    before = ctypes.c_int()
    prctl(_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


@contextlib.contextmanager
def _signals() -> Iterator[tuple[list[int], int]]:
    """Collect signals instead of dying of them; the descriptor becomes readable with each."""
    arrived: list[int] = []

    def note(number: int, _frame: object) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in (*PASSED_ON, signal.SIGWINCH)}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield arrived, reader
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
