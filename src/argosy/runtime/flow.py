"""Bytes on their way from one descriptor to another, for who may block on neither."""

from __future__ import annotations

import posix

_CHUNK = 4096  # a pipe that is ready takes as much at once (PIPE_BUF)


class Flow:
    """One direction between a terminal and its user.

    While the target takes nothing, nothing more is read. Whoever moves two flows, one there and one back, must never
    wait for one alone: a container that is given more than it reads waits itself for its output to be taken.

    Attributes:
        source: where bytes come from.
        target: where they go; it should not block.
        pending: what was read and is not written yet.
        open: false once the source has ended or the target is gone.
        gone: whether it was the target.

    Example:
        >>> (inlet, source), (outlet, target) = posix.pipe(), posix.pipe()
        >>> flow = Flow(inlet, target)
        >>> posix.write(source, b"ahoy"), flow.move(), flow.move(), posix.read(outlet, 4)
        (4, None, None, b'ahoy')
    """

    def __init__(self, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.pending = b""
        self.open = True
        self.gone = False

    @property
    def waits_for(self) -> int:
        """Who lets the next step be taken by being ready: the target with something pending, else the source."""
        return self.target if self.pending else self.source

    def move(self) -> None:
        """Take one step: write what is pending, as much as goes; with nothing pending, read."""
        try:
            if self.pending:
                self.pending = self.pending[posix.write(self.target, self.pending) :]
            else:
                self.pending = posix.read(self.source, _CHUNK)
                self.open = bool(self.pending)
        except BlockingIOError:
            pass
        except OSError:  # a terminal whose other side is gone says EIO
            self.gone, self.pending, self.open = bool(self.pending), b"", False
