"""The one class that verifies. Every `fetch` hands out one of these and every `push` reads through one.

Size is checked before the digest, and as early as possible: the byte after the last promised one is already an error.
"""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO, Any, Self
from weakref import WeakSet

from argosy.content.protocols import Resumable, SupportsRead
from argosy.content.workers import Turns
from argosy.errors import (
    ArgosyError,
    DigestMismatchError,
    InvalidDigestError,
    LimitExceededError,
    SizeMismatchError,
    UsageError,
)
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest, hasher

CHUNK = 1024 * 1024
"""How many bytes are moved at a time."""


BESIDE = 16 * CHUNK
"""Bytes of content from which on it may be hashed by a thread beside the one that reads."""
_PIECE = BESIDE // 256
"""Bytes of a piece that is worth handing to another thread."""


class _Here:
    """Hashes where it is called."""

    def __init__(self, algorithm: str) -> None:
        self._hasher = hasher(algorithm)
        self.update = self._hasher.update

    def whole(self) -> Any:
        return self._hasher


class _Beside:
    """Hashes one piece on a thread of its own, while its reader writes that piece and receives the next.

    Only where a core is free for that: with more contents on their way than half the cores, threads would take turns
    with each other and with whoever is at the other end, and each piece is hashed where it was read. The thread ends
    with the content, or once nobody reads it any more.
    """

    def __init__(self, algorithm: str) -> None:
        self._pieces: SimpleQueue[bytes | None] = SimpleQueue()
        self._hasher = hasher(algorithm)
        self._hashed: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting = False

    def update(self, data: bytes, /) -> None:
        self._wait()
        _moving.add(self)
        if len(data) < _PIECE or 2 * len(_moving) > _cores():
            self._hasher.update(data)
            return
        if self._thread is None:
            work = (self._hasher.update, self._pieces, self._hashed)
            self._thread = threading.Thread(
                target=_hash, args=work, name="argosy-hash", daemon=True
            )
            self._thread.start()
        self._pieces.put(data)
        self._waiting = True

    def _wait(self) -> None:
        if self._waiting:
            self._hashed.get()
            self._waiting = False

    def whole(self) -> Any:
        self._wait()
        _moving.discard(self)
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None
        return self._hasher

    def __del__(self) -> None:
        self._pieces.put(None)


_moving: WeakSet[_Beside] = WeakSet()
"""The large contents that are on their way."""


def _hash(
    update: Callable[[bytes], object],
    pieces: SimpleQueue[bytes | None],
    hashed: SimpleQueue[None],
) -> None:
    """A thread's work; it holds nothing that would keep its `_Beside` alive."""
    while (data := pieces.get()) is not None:
        try:
            update(data)
        finally:
            hashed.put(None)


@functools.cache
def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _hashing(desc: Descriptor, *, here: bool) -> _Here | _Beside:
    return (_Here if here or desc.size < BESIDE else _Beside)(desc.digest.algorithm)


class _Closed:
    """What is left of a stream: a download would go on by itself."""

    def read(self, _size: int = -1, /) -> bytes:
        raise ValueError("read of closed content")


class VerifyingReader:
    """Reads content and proves it: the read that reaches the end raises unless size and digest are right.

    Args:
        stream: Where the bytes come from. It is closed with this reader.
        desc: What they must be.
        close: Called once at the end instead of `stream.close()`, where the stream has none.

    Raises:
        InvalidDigestError: the digest's algorithm cannot be computed here, so nothing could be proved.
        UsageError: `stream` cannot be read from, as `bytes` cannot.

    Example:
        >>> import io
        >>> d = Descriptor.of("text/plain", b"hello")
        >>> VerifyingReader(io.BytesIO(b"hello"), d).readall()
        b'hello'
        >>> VerifyingReader(io.BytesIO(b"jello"), d).readall()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        argosy.errors.DigestMismatchError: content does not match its descriptor: expected sha256:2cf2..., got ...
    """

    def __init__(
        self, stream: SupportsRead, desc: Descriptor, *, close: Callable[[], object] | None = None
    ) -> None:
        if not hasattr(stream, "read"):
            got = type(stream).__name__
            raise UsageError(f"content: expected a file to read bytes from, got {got}")
        self.descriptor = desc
        self._stream = stream
        self._close = close or getattr(stream, "close", None)
        self._here = False
        self._hashed = _hashing(desc, here=False)
        self._left = desc.size
        self._front = 0
        self._proved = False
        self._on_bytes: Callable[[int], object] | None = None

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes (all that is left if negative); empty only after everything was proved.

        Raises:
            SizeMismatchError: there are fewer or more bytes than promised.
            DigestMismatchError: they hash to something else.
            ValueError: the reader is closed.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        if size == 0 or self._proved:
            return b""
        data = self._stream.read(min(size, self._left)) if self._left else b""
        if data:
            self._hashed.update(data)
            self._left -= len(data)
            if self._left < 0:
                raise self._size_error(self.descriptor.size - self._left)
            if self._on_bytes is not None:
                self._on_bytes(len(data))
        elif self._left:
            raise self._size_error(self.descriptor.size - self._left)
        if not self._left:
            self._prove()
        return data

    def hash_here(self) -> None:
        """Hash in the thread that reads, where another would only be in the way. After a `read` it is too late."""
        if self._left == self.descriptor.size:
            self._here = True
            self._hashed = _hashing(self.descriptor, here=True)

    def resume(self, front: SupportsRead) -> int:
        """Take the front part from elsewhere (a partial file of an earlier run) and go on behind it.

        Call it before the first `read`. Its bytes are hashed, so the whole is proved as ever; they are not returned
        by `read` again.

        Args:
            front: The bytes that are already there, from the first one on.

        Returns:
            The number of bytes taken: all of `front`; 0 where the stream cannot begin later, or `front` is as long as
            the content or longer and is not the content, and reading begins at the first byte.
        """
        if not isinstance(self._stream, Resumable) or self._left != self.descriptor.size:
            return 0
        fresh, taken = _hashing(self.descriptor, here=self._here), 0
        while data := front.read(CHUNK):
            fresh.update(data)
            taken += len(data)
            if taken > self.descriptor.size:
                return 0
        if taken == self.descriptor.size:
            if self._digest(fresh) != self.descriptor.digest:
                return 0
            self._stream = io.BytesIO()  # nothing is left to ask for
        elif taken:
            self._stream.start_at(taken)
        self._hashed, self._front = fresh, taken
        self._left -= taken
        return taken

    def rewind(self) -> bool:
        """Begin again at the first byte, where the stream can; False where it cannot, and nothing has changed.

        For a place that lost what it was sent. Nothing is proved until the end is reached once more.
        """
        back: Callable[[int], object] | None = getattr(self._stream, "start_at", None)
        if back is None and getattr(self._stream, "seekable", lambda: False)():
            back = getattr(self._stream, "seek", None)
        if back is None:
            return False
        back(0)
        if self._on_bytes is not None:
            self._on_bytes(self._left - self.descriptor.size)
        self._hashed = _hashing(self.descriptor, here=self._here)
        self._left, self._front, self._proved = self.descriptor.size, 0, False
        return True

    def elsewhere(self, failure: ArgosyError) -> bool:
        """Begin again with other bytes, where there are any; False where there are none.

        Where a front part was taken, it may be what was wrong, and the stream itself is read from the first byte on.
        Else the stream is asked for another place.

        Args:
            failure: Why: what was read is not what it must be.
        """
        if self._front:
            return self.rewind()
        other: Callable[[ArgosyError], bool] | None = getattr(self._stream, "elsewhere", None)
        return other is not None and other(failure) and self.rewind()

    def spread(self, turns: Turns) -> None:
        """Let the stream, where it can, read several parts of itself at a time, one for each turn to spare."""
        spread: Callable[[Turns], object] | None = getattr(self._stream, "spread", None)
        if spread is not None:
            spread(turns)

    def observe(self, on_bytes: Callable[[int], object]) -> None:
        """Have `on_bytes` told the size of every piece that is read; what it raises, `read` raises.

        After a `rewind` it is told how much of that is to be read again, as a negative number.
        """
        self._on_bytes = on_bytes

    def readall(self, limit: int | None = None) -> bytes:
        """All of it, proved.

        Args:
            limit: The most bytes to take into memory.

        Raises:
            LimitExceededError: the descriptor promises more than `limit`; nothing is read.
            IntegrityError: the content is not what the descriptor says.
        """
        if limit is not None and self.descriptor.size > limit:
            raise LimitExceededError(
                f"{self.descriptor.digest}: {self.descriptor.size} bytes are over the limit of {limit} bytes"
            )
        return self.read()

    def _prove(self) -> None:
        if self._stream.read(1):
            raise self._size_error(f"more than {self.descriptor.size}")
        actual = self._digest(self._hashed)
        if actual != self.descriptor.digest:
            raise DigestMismatchError(expected=self.descriptor.digest, actual=actual)
        self._proved = True

    def _digest(self, hashed: _Here | _Beside) -> Digest:
        return Digest.done(self.descriptor.digest.algorithm, hashed.whole())

    def _size_error(self, actual: object) -> SizeMismatchError:
        return SizeMismatchError(
            f"{self.descriptor.digest}: wrong size",
            expected=f"{self.descriptor.size} bytes",
            actual=actual,
        )

    @property
    def proved(self) -> bool:
        """Whether the end was reached and everything was right."""
        return self._proved

    def close(self) -> None:
        """Let the stream go; nothing more is read."""
        close, self._close = self._close, None
        self._stream = _Closed()
        if close is not None:
            close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


def copy_verified(
    content: SupportsRead,
    desc: Descriptor,
    out: IO[bytes] | Any,
    *,
    on_bytes: Callable[[int], object] | None = None,
) -> None:
    """Write all of `content` to `out`, verified; `out` may hold unproved bytes if this raises.

    Args:
        content: Where the bytes come from.
        desc: What they must be.
        out: Anything with `write(bytes)`.
        on_bytes: Told the number of bytes of every piece.

    Raises:
        IntegrityError: the content is not what `desc` says.
    """
    reader = content if _proves(content, desc) else VerifyingReader(content, desc)
    while data := reader.read(CHUNK):
        out.write(data)
        if on_bytes is not None:
            on_bytes(len(data))


def _proves(content: SupportsRead, desc: Descriptor) -> bool:
    """Whether reading `content` already proves it to be `desc`: then nothing is hashed twice."""
    return (
        isinstance(content, VerifyingReader)
        and content.descriptor.digest == desc.digest
        and content.descriptor.size == desc.size
    )


def embedded(desc: Descriptor) -> bytes | None:
    """The descriptor's `data`, if it is there and is what the descriptor says; else None."""
    if desc.data is None or len(desc.data) != desc.size:
        return None
    try:
        proved = Digest.of(desc.data, desc.digest.algorithm) == desc.digest
    except InvalidDigestError:
        return None
    return desc.data if proved else None
