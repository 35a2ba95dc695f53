"""HTTP/1.1 as a client reads and writes it (RFC 9112): heads, and bodies with a length, in chunks, or up to the end.

Why not `http.client`: docs/adr/0003-http-client.md. What is read is held to the grammar: an answer that two readers
could take for different things (two lengths, an unknown coding, bytes behind its end) is refused, or its connection is
not used again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import BinaryIO

MAX_LINE = 64 * 1024
MAX_HEAD = 256 * 1024
"""Bytes of one line, and of an answer's whole head."""
MAX_INTERIM = 20
"""Interim answers (1xx) before the one that counts."""

_STATUS = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"[!-~]+")
_VALUE = re.compile(r"[\t -~\x80-\xff]*")
_CHUNK = rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?"
_NO_BODY = frozenset({204, 304})


class ProtocolError(Exception):
    """What came is not HTTP/1.1, or says two things at once."""


class HeadError(ValueError):
    """A request's head that cannot be sent. Its words name the field and not its value, which may be a secret."""


class BrokenOffError(ProtocolError):
    """The connection ended within an answer; `left` bytes were to come, or -1 where nobody said how many."""

    def __init__(self, left: int) -> None:
        super().__init__("the body broke off")
        self.left = left


class ClosedError(ConnectionError):
    """The connection ended before an answer began."""


def head(method: str, target: str, fields: Iterable[tuple[str, str]]) -> bytes:
    r"""The head of a request.

    Raises:
        HeadError: a line break or another character within it that HTTP has no place for.

    Example:
        >>> head("GET", "/v2/", [("Host", "registry.example")])
        b'GET /v2/ HTTP/1.1\r\nHost: registry.example\r\n\r\n'
    """
    if not _TARGET.fullmatch(target):
        raise HeadError("a request's target has white space or control characters")
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in fields:
        check_field(name, value)
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def check_field(name: str, value: str) -> None:
    """Refuse a header field that cannot be sent.

    Raises:
        HeadError: why.
    """
    if not _NAME.fullmatch(name.encode("latin-1", "replace")):
        raise HeadError(f"not a header's name: {name[:100]!r}")
    if not _VALUE.fullmatch(value):
        raise HeadError(f"the value of the header {name} has characters that cannot be sent")


class Answer:
    """One answer, read from a connection: its head at once, its body piece by piece.

    Args:
        file: What is read.
        method: The request's method: an answer to HEAD has no body, one to CONNECT no end.

    Attributes:
        status: The status code.
        fields: The header fields in their order.
        left: Bytes of body to come; None where only its end will tell.
        closes: Whether the connection is not to be used again.
        taken: Bytes that were consumed of what was received.

    Raises:
        ClosedError: the connection ended first.
        ProtocolError: what came is no answer.
    """

    def __init__(self, file: BinaryIO, method: str) -> None:
        self._file = file
        self.taken = 0
        self.left: int | None = None
        for _ in range(MAX_INTERIM):
            minor, self.status = self._status()
            self.fields = self._fields()
            if self.status >= 200:
                break
            if self.status == 101:
                raise ProtocolError("101: another protocol, which nobody asked for")
        else:
            raise ProtocolError("interim answers without end")
        self._chunked = False
        self.closes = minor == 0 or "close" in self._tokens("connection")
        self._frame(method)

    # ------------------------------------------------------------------------------------------------------ the head

    def _line(self, *, first: bool = False) -> bytes:
        line = self._file.readline(MAX_LINE + 1)
        self.taken += len(line)
        if len(line) > MAX_LINE or (self.taken > MAX_HEAD and self.left is None):
            raise ProtocolError("the head is too long")
        if not line.endswith(b"\n"):
            self._file.read(1)  # where it was an error that ended it, that is raised
            if first and not line:
                raise ClosedError("the connection was closed without an answer")
            raise BrokenOffError(-1)
        return line.rstrip(b"\r\n")

    def _status(self) -> tuple[int, int]:
        line = self._line(first=True)
        match = _STATUS.fullmatch(line)
        if match is None:
            raise ProtocolError(f"not HTTP: {line[:100]!r}")
        return int(match[1]), int(match[2])

    def _fields(self) -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        while line := self._line():
            if (
                line[:1] in b" \t" and found
            ):  # a folded line, which RFC 9112 section 5.2 takes for a space
                name, value = found[-1]
                found[-1] = (name, f"{value} {line.strip().decode('latin-1')}")
                continue
            raw, colon, rest = line.partition(b":")
            if not colon or not _NAME.fullmatch(raw):
                raise ProtocolError(f"not a header field: {line[:100]!r}")
            found.append((raw.decode("ascii"), rest.strip(b" \t").decode("latin-1")))
        return found

    def _all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name]

    def _tokens(self, name: str) -> list[str]:
        return [part.strip().lower() for value in self._all(name) for part in value.split(",")]

    def _frame(self, method: str) -> None:
        """Where the body ends (RFC 9112, section 6.3)."""
        lengths = set(self._tokens("content-length"))
        codings = [coding for coding in self._tokens("transfer-encoding") if coding]
        if codings and lengths:  # overridden: nobody shall take it for the body's
            self.fields = [f for f in self.fields if f[0].lower() != "content-length"]
        if method == "HEAD" or self.status in _NO_BODY or self.status < 200:
            self.left = 0
        elif codings:
            if codings != ["chunked"]:
                raise ProtocolError(f"transfer coding {', '.join(codings)[:100]!r}")
            self._chunked = True
            self.closes = self.closes or bool(lengths)
        elif len(lengths) > 1:
            raise ProtocolError("several lengths of one body")
        elif lengths:
            (length,) = lengths
            if not (length.isascii() and length.isdigit()) or len(length) > 18:
                raise ProtocolError(f"Content-Length {length[:100]!r}")
            self.left = int(length)
        else:
            self.closes = True

    # ------------------------------------------------------------------------------------------------------ the body

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        return self.left == 0 and not self._chunked

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the body; empty at its end.

        What came before a failure is handed out first, and the next call raises.

        Raises:
            BrokenOffError: the connection ended before the body did.
            OSError: it broke, or nothing came in time.
        """
        if self._chunked:
            return self._read_chunked(size)
        if self.left is None:
            data = self._some(size)
            self.left = 0 if not data else None
        else:
            data = self._some(min(size, self.left))
            if not data and self.left:
                raise BrokenOffError(self.left)
            self.left -= len(data)
        self.taken += len(data)
        return data

    def _some(self, size: int) -> bytes:
        # None is a failure that waits behind what was read before it: the second call raises it
        return self._file.read(size) or self._file.read(size) or b""

    def _read_chunked(self, size: int) -> bytes:
        if not self.left:
            behind, self.left = self.left is not None, 0
            if behind and self._line():
                raise ProtocolError("a chunk longer than it said")
            match = re.fullmatch(_CHUNK, self._line())
            if match is None:
                raise ProtocolError("not a chunk of a body")
            self.left = int(match[1], 16)
            if not self.left:
                self._trailers()
                return b""
        data = self._some(min(size, self.left))
        self.taken += len(data)
        if not data:
            raise BrokenOffError(-1)
        self.left -= len(data)
        return data

    def _trailers(self) -> None:
        until = self.taken + MAX_HEAD
        while self._line():
            if self.taken > until:
                raise ProtocolError("trailers without end")
        self._chunked = False
