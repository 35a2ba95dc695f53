"""From uncompressed bytes to a layer: compressed, with the digests of both sides made on the way.

The output depends on the input's bytes alone, not on how they were cut into writes nor on the number of processors:
input is cut into blocks of a fixed size, gzip blocks are deflated apart (in threads) and joined into one member, as
pigz does it, and the header holds no time and no name.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from isal import isal_zlib

from argosy.errors import UsageError
from argosy.layer.compression import Compression
from argosy.layer.tarwriter import SupportsWrite
from argosy.spec.digest import Digest, hasher

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Compressor", "Written", "check_level"]

_BLOCK: Final = 1 << 20
_AHEAD: Final = 6
_THREADS: Final = 2
_GZIP_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LEVELS: Final = {
    Compression.NONE: range(1),
    Compression.GZIP: range(4),
    Compression.ZSTD: range(1, 23),
}
_DEFAULT: Final = {Compression.NONE: 0, Compression.GZIP: 2, Compression.ZSTD: 3}


def check_level(compression: Compression, level: int | None) -> None:
    """Refuse a level that a method does not have.

    Raises:
        UsageError: it has no such level.

    >>> check_level(Compression.GZIP, 9)
    Traceback (most recent call last):
    argosy.errors.UsageError: gzip has no level 9: expected 0 to 3
    """
    levels = _LEVELS[compression]
    if level is not None and level not in levels:
        expected = f"{levels[0]} to {levels[-1]}" if len(levels) > 1 else "none at all"
        raise UsageError(f"{compression.value} has no level {level}: expected {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a layer came out as.

    Args:
        digest: Of the bytes as they were written: the descriptor's digest.
        size: Bytes written: the descriptor's size.
        diff_id: The digest of the uncompressed bytes, for the image's configuration.
        uncompressed: How many those are.
    """

    digest: Digest
    size: int
    diff_id: Digest
    uncompressed: int


class Compressor:
    """A file to write a layer into. Leaving the `with` block without an error ends the stream; then ask `written`.

    Args:
        out: Where the compressed bytes go, in order, from the thread that writes.
        compression: How to compress.
        level: gzip 0 to 3 (ISA-L's levels), zstd 1 to 22; None is 2 and 3.
        algorithm: Of both digests.

    Raises:
        UsageError: The method has no such level.

    >>> import io
    >>> with Compressor(io.BytesIO()) as layer:
    ...     _ = layer.write(b"hello" * 100)
    >>> layer.written.uncompressed, layer.written.diff_id == Digest.of(b"hello" * 100)
    (500, True)
    """

    def __init__(
        self,
        out: SupportsWrite,
        compression: Compression = Compression.GZIP,
        *,
        level: int | None = None,
        algorithm: str = "sha256",
    ) -> None:
        level = _DEFAULT[compression] if level is None else level
        check_level(compression, level)
        self._encoder = _ENCODERS[compression](level)
        self._out = out
        self._algorithm = algorithm
        self._plain = hasher(algorithm)
        self._packed = hasher(algorithm)
        self._workers = ThreadPoolExecutor(self._encoder.threads, thread_name_prefix="compress")
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self._pending: deque[tuple[Future[tuple[bytes, int]], Future[object], int]] = deque()
        self._buffer = bytearray()
        self._taken = self._given = 0
        self._written: Written | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            self._workers.shutdown(cancel_futures=True)
            self._hashing.shutdown(cancel_futures=True)

    @property
    def written(self) -> Written:
        """What came out.

        Raises:
            ValueError: The stream is not closed yet.
        """
        if self._written is None:
            raise ValueError("the layer is not closed yet")
        return self._written

    def write(self, data: bytes | memoryview, /) -> int:
        """Take in more uncompressed bytes; all of them."""
        self._buffer += data
        if len(self._buffer) >= _BLOCK:
            self._submit()
        return len(data)

    def close(self) -> None:
        """End the stream; `written` is there afterwards."""
        if self._written is not None:
            return
        self._submit()
        if self._buffer:
            self._block(bytes(self._buffer))
        while self._pending:
            self._collect()
        self._emit(self._encoder.end())
        self._written = Written(
            digest=Digest.done(self._algorithm, self._packed),
            size=self._given,
            diff_id=Digest.done(self._algorithm, self._plain),
            uncompressed=self._taken,
        )

    def _submit(self) -> None:
        whole = len(self._buffer) // _BLOCK * _BLOCK
        with memoryview(self._buffer) as view:
            for at in range(0, whole, _BLOCK):
                self._block(bytes(view[at : at + _BLOCK]))
        del self._buffer[:whole]

    def _block(self, block: bytes) -> None:
        self._taken += len(block)
        hashed = self._hashing.submit(self._plain.update, block)
        self._pending.append(
            (self._workers.submit(self._encoder.prepare, block), hashed, len(block))
        )
        if len(self._pending) > _AHEAD:
            self._collect()

    def _collect(self) -> None:
        made, hashed, length = self._pending.popleft()
        self._emit(self._encoder.join(made.result(), length))
        hashed.result()

    def _emit(self, data: bytes) -> None:
        if data:
            self._packed.update(data)
            self._out.write(data)
            self._given += len(data)


class _Stored:
    threads = 1

    def __init__(self, level: int) -> None: ...

    def prepare(self, block: bytes) -> tuple[bytes, int]:
        return block, 0

    def join(self, made: tuple[bytes, int], _: int) -> bytes:
        return made[0]

    def end(self) -> bytes:
        return b""


class _Gzip:
    threads = _THREADS

    def __init__(self, level: int) -> None:
        self._level = level
        self._head = _GZIP_HEADER
        self._crc = 0
        self._size = 0

    def prepare(self, block: bytes) -> tuple[bytes, int]:
        # Each block starts without history and ends on a byte, so that blocks join in any number of threads.
        deflate = isal_zlib.compressobj(self._level, isal_zlib.DEFLATED, -15, 9)
        return deflate.compress(block) + deflate.flush(isal_zlib.Z_FULL_FLUSH), isal_zlib.crc32(
            block
        )

    def join(self, made: tuple[bytes, int], length: int) -> bytes:
        self._crc = isal_zlib.crc32_combine(self._crc, made[1], length)
        self._size += length
        head, self._head = self._head, b""
        return head + made[0]

    def end(self) -> bytes:
        tail = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return self._head + b"\x03\0" + tail


class _Zstd:
    threads = 1

    def __init__(self, level: int) -> None:
        parameter = zstd.CompressionParameter
        self._stream = zstd.ZstdCompressor(
            options={parameter.compression_level: level, parameter.checksum_flag: 1}
        )

    def prepare(self, block: bytes) -> tuple[bytes, int]:
        return self._stream.compress(block), 0

    def join(self, made: tuple[bytes, int], _: int) -> bytes:
        return made[0]

    def end(self) -> bytes:
        return self._stream.flush()


_ENCODERS: Final[dict[Compression, Callable[[int], _Stored | _Gzip | _Zstd]]] = {
    Compression.NONE: _Stored,
    Compression.GZIP: _Gzip,
    Compression.ZSTD: _Zstd,
}
