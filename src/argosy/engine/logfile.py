"""A container's output on disk: Docker's json-file lines, bounded in size."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from argosy.engine.container import now, rfc3339
from argosy.errors import UsageError

MAX_SIZE = 16 * 1024 * 1024
"""The bytes after which a log is begun anew; one older file is kept."""

MAX_LINE = 16 * 1024
"""The bytes of one line; longer ones are split."""


_AGO = re.compile(r"(?=\d)(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)


class Line(NamedTuple):
    """One line of output. `time` is RFC 3339, `stream` is `stdout` or `stderr`."""

    time: str
    stream: str
    text: str


class LogWriter:
    """Takes output as it comes and writes whole lines. What the disk does not take is lost; the container goes on."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = _opened(path)
        self._torn = False
        self._parts: dict[str, bytes] = {}

    def write(self, stream: str, data: bytes) -> None:
        """Take some bytes of a stream."""
        *lines, rest = (self._parts.pop(stream, b"") + data).split(b"\n")
        whole = len(rest) - len(rest) % MAX_LINE
        found = [piece for line in lines for piece in _pieces(line, b"\n")]
        if whole:
            found += _pieces(rest[:whole])
        if found:
            self._put(stream, found)
        if whole < len(rest):
            self._parts[stream] = rest[whole:]

    def _put(self, stream: str, pieces: Sequence[bytes]) -> None:
        """Write what came at one moment, in one step."""
        end = f', "stream": {json.dumps(stream)}, "time": {json.dumps(now())}}}\n'
        data = "".join(
            f'{{"log": {json.dumps(piece.decode("utf-8", "replace"))}{end}' for piece in pieces
        ).encode()
        with contextlib.suppress(OSError):
            # The rest of a line that was cut off must not spoil the next one.
            self._torn = self._file.write(b"\n" + data if self._torn else data) < len(data)
            if self._file.tell() > MAX_SIZE:
                self._begin_anew()

    def _begin_anew(self) -> None:
        # It may have been renamed before, when no new one could be made.
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, f"{self._path}.1")
        new = _opened(self._path)
        self._file.close()
        self._file = new

    def close(self) -> None:
        """Write what is held back and close."""
        for stream, rest in self._parts.items():
            self._put(stream, [rest])
        self._parts.clear()
        self._file.close()


def _pieces(line: bytes, end: bytes = b"") -> list[bytes]:
    """A line, split where it is too long for one."""
    starts = range(0, max(len(line), 1), MAX_LINE)
    found = [line[start : start + MAX_LINE] for start in starts]
    found[-1] += end
    return found


def _opened(path: str) -> io.FileIO:
    return open(path, "ab", buffering=0)


class LogReader:
    """Every line of a log that is kept, the oldest first; then those that came meanwhile, each once.

    What was begun anew is read to its end before what follows it: only a log that is begun anew twice between two
    looks loses lines.

    Args:
        path: The file.
        since: The time of the first line that is wanted, as `moment` gives it.
    """

    def __init__(self, path: str, since: str = "") -> None:
        self._path = path
        self._since = since
        self._files: list[BinaryIO] = []
        # The current one is opened first: if it becomes the older one now, it is only met twice.
        self._append(path)
        self._append(f"{path}.1", at=0)

    def lines(self) -> Iterator[Line]:
        """The lines nobody was given yet."""
        self._append(self._path)
        while self._files:
            yield from (x for x in _whole_lines(self._files[0]) if x.time >= self._since)
            if len(self._files) == 1:
                return
            self._files.pop(0).close()

    def _append(self, path: str, at: int | None = None) -> None:
        """Open what is not open yet, to be read last, or at another place."""
        with contextlib.suppress(FileNotFoundError):
            file = open(path, "rb")  # noqa: SIM115 - closed by `lines` or `close`
            if any(os.path.sameopenfile(file.fileno(), other.fileno()) for other in self._files):
                file.close()
            else:
                self._files.insert(len(self._files) if at is None else at, file)

    def close(self) -> None:
        """Read no more."""
        for file in self._files:
            file.close()


def moment(text: str) -> str:
    """A time as the log has it: typed as one of RFC 3339, as seconds since 1970, or as how long ago it was.

    Raises:
        UsageError: it is none of them.

    >>> moment("2026-01-02T03:04:05+01:00"), moment("0") < moment("1h30m") < moment("10s")
    ('2026-01-02T02:04:05.000000Z', True)
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            hours, minutes, seconds = (int(number or 0) for number in ago.groups())
            back = dt.timedelta(hours=hours, minutes=minutes, seconds=seconds)
            return rfc3339(dt.datetime.now(dt.UTC) - back)
        if text.isdecimal():
            return rfc3339(dt.datetime.fromtimestamp(int(text), dt.UTC))
        return rfc3339(dt.datetime.fromisoformat(text).astimezone(dt.UTC))
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"time {text[:60]!r}: expected one as in RFC 3339, seconds since 1970, or how long ago",
            hint="for example 1h30m, or 2026-01-02T03:04:05Z",
        ) from None


def _whole_lines(file: BinaryIO) -> Iterator[Line]:
    """Lines up to the end; one that is still being written is left."""
    while (text := file.readline()).endswith(b"\n"):
        line = parse(text)
        if line is not None:
            yield line
    file.seek(-len(text), os.SEEK_CUR)


def parse(text: bytes) -> Line | None:
    """A line of the file, or None where a writer was cut off."""
    try:
        value = json.loads(text)
        return Line(value["time"], value["stream"], value["log"])
    except (ValueError, KeyError, TypeError):
        return None
