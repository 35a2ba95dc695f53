"""A stream of chunks read in whole small pieces, and handed on in views where it is content."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Bytes"]


class Bytes:
    """Chunks as one stream: whole small reads, and views for content."""

    __slots__ = ("_at", "_chunk", "_chunks", "_done", "_size", "_view")

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._view = memoryview(b"")
        self._size = 0
        self._at = 0
        self._done = 0

    @property
    def offset(self) -> int:
        """Bytes handed out so far."""
        return self._done + self._at

    def view(self, limit: int) -> memoryview:
        """Between 1 and limit bytes; none at the end."""
        start = self._at
        if start == self._size:
            self._done += start
            self._chunk = next(self._chunks, b"")
            self._view = memoryview(self._chunk)
            self._size = len(self._chunk)
            start = 0
        end = start + limit
        self._at = min(self._size, end)
        return self._view[start:end]

    def read(self, size: int) -> bytes:
        """Exactly this many bytes, fewer only at the end."""
        start = self._at
        end = start + size
        if end <= self._size:
            self._at = end
            return self._chunk[start:end]
        parts: list[memoryview] = []
        while size and (part := self.view(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> int:
        """Pass over this many bytes; how many were missing."""
        end = self._at + size
        if end <= self._size:
            self._at = end
            return 0
        while size and (part := self.view(size)):
            size -= len(part)
        return size
