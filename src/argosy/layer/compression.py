"""From a layer's bytes to its uncompressed bytes: none, gzip or zstd, told by their first bytes.

What may follow: more gzip members, more zstd frames, skippable frames, and NUL bytes (padding). Anything else after the
end is refused, and so is a stream that ends early. A decompression bomb (CVE-2017-14992) meets two limits: bytes in
all, and bytes out for each byte in. Never more than one piece is held.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from isal import igzip_lib

from argosy.errors import InvalidLayerError
from argosy.layer.entry import Limits
from argosy.layer.meter import Meter
from argosy.layer.tarstream import SupportsRead, chunks_of
from argosy.spec.mediatypes import COMPRESSION

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Compression", "uncompressed"]

_CHUNK: Final = 1 << 20
_INPUT: Final = 1 << 16
_OUTPUT: Final = 1 << 18
_LEAST: Final = 512
"""So much a decoder gets first, and then ever more: it copies what follows the end of its member."""
_HEAD: Final = 10
_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE: Final = b"\x2a\x4d\x18"
_SKIPPABLE_FIRST: Final = frozenset(bytes([first]) for first in range(0x50, 0x60))
"""A zstd frame of no content: these bytes after one of those."""
_OTHERS: Final = {b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"} | {
    b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)
}
"""What else is met in the place of a layer, and has no media type."""
_DAMAGED: Final = (igzip_lib.IsalError, zstd.ZstdError)


class Compression(enum.Enum):
    """How a layer is compressed.

    >>> Compression.sniff(bytes.fromhex("1f8b08"))
    <Compression.GZIP: 'gzip'>
    """

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @classmethod
    def sniff(cls, head: bytes) -> Compression:
        """What a stream that begins with these bytes (four are enough) is compressed with."""
        if head[:3] == _GZIP:
            return cls.GZIP
        return cls.ZSTD if len(head) >= 4 and _begins_zstd(head[:4]) else cls.NONE

    @classmethod
    def of_media_type(cls, media_type: str) -> Compression | None:
        """What a layer's media type promises, or None where it is no layer's.

        >>> Compression.of_media_type("application/vnd.oci.image.layer.v1.tar+zstd")
        <Compression.ZSTD: 'zstd'>
        """
        name = COMPRESSION.get(media_type)
        return None if name is None else cls(name)


class Decoder(Protocol):
    """Takes compressed bytes piece by piece, as the standard library's decompressors do."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes: ...


def uncompressed(
    stream: SupportsRead | Iterable[bytes],
    compression: Compression | None = None,
    *,
    limits: Limits | None = None,
    where: str = "",
    meter: Meter | None = None,
) -> Iterator[bytes]:
    r"""A layer's uncompressed bytes, in pieces of at most 256 KiB (of any size when it is not compressed).

    Args:
        stream: The layer as it is stored: a readable, or chunks.
        compression: What it is compressed with; None looks at its first bytes.
        limits: How much may come out.
        where: What to call the layer in messages.
        meter: Counts what goes in and comes out, and has the limits; None makes one.

    Raises:
        InvalidLayerError: It is damaged, ends early, is followed by something else, is a bomb, or is compressed with
            what no layer is.

    >>> import gzip, io
    >>> b"".join(uncompressed(io.BytesIO(gzip.compress(b"a") + gzip.compress(b"b") + bytes(9))))
    b'ab'
    """
    meter = meter or Meter(limits or Limits())
    chunks = chunks_of(stream, _CHUNK)
    head = b""
    while len(head) < _HEAD and (chunk := next(chunks, b"")):
        head += chunk
    if compression is None:
        compression = Compression.sniff(head)
    meter.compression = compression
    for magic, name in _OTHERS.items():
        if compression is Compression.NONE and head.startswith(magic):
            raise InvalidLayerError(
                f"{where + ': ' if where else ''}compressed with {name}: a layer is gzip, zstd or neither",
                hint=f"uncompress it first: {name} -dc FILE",
            )
    try:
        yield from _METHODS[compression](head, chunks, meter)
    except _DAMAGED as error:  # type: ignore[misc]  # isal's stubs say instance where they mean class
        begun = Compression.sniff(head) is compression
        what = f"uncompressing {compression.value} failed" if begun else f"not {compression.value}"
        raise InvalidLayerError(f"{where + ': ' if where else ''}{what}: {error}") from None
    except InvalidLayerError as error:
        raise InvalidLayerError(
            f"{where + ': ' if where else ''}{error}", hint=error.hint
        ) from None


def _stored(head: bytes, chunks: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
    while head:
        meter.took(len(head))
        meter.gave(len(head))
        yield head
        head = next(chunks, b"")


def _members(
    new: Callable[[bytes, Limits], Decoder], begins: Callable[[bytes], bool]
) -> Callable[[bytes, Iterator[bytes], Meter], Iterator[bytes]]:
    def read(head: bytes, chunks: Iterator[bytes], meter: Meter) -> Iterator[bytes]:
        padded = False
        decoder: Decoder | None = new(head[:4], meter.limits)
        room = _LEAST
        for piece in _pieces(head, chunks):
            meter.took(len(piece))
            at = 0
            while decoder is not None or at < len(piece):
                if decoder is None:
                    padded = padded or piece[at] == 0
                    if padded:
                        _check_end(not bytes(piece[at:]).strip(b"\0"))
                        meter.padding += len(piece) - at
                        break
                    first = bytes(piece[at : at + 4])
                    _check_end(begins(first))
                    decoder, room = new(first, meter.limits), _LEAST
                taken = piece[at : at + room] if decoder.needs_input else b""
                at += len(taken)
                room *= 4
                made = decoder.decompress(taken, _OUTPUT)
                if made:
                    meter.gave(len(made))
                    yield made
                if decoder.eof:
                    at -= len(decoder.unused_data)
                    decoder = None
                elif decoder.needs_input and at == len(piece):
                    break
        if decoder is not None:
            raise InvalidLayerError("the compressed stream is cut off")

    return read


def _pieces(head: bytes, chunks: Iterator[bytes]) -> Iterator[memoryview]:
    """The input in pieces."""
    while head:
        view = memoryview(head)
        for at in range(0, len(view), _INPUT):
            yield view[at : at + _INPUT]
        head = next(chunks, b"")


def _check_end(known: bool) -> None:
    if not known:
        raise InvalidLayerError("what follows the compressed stream is neither another nor padding")


def _begins_gzip(head: bytes) -> bool:
    """Whether up to four bytes can be the first of a member."""
    return _GZIP.startswith(head[:3])


def _begins_zstd(head: bytes) -> bool:
    """Whether up to four bytes can be the first of a frame."""
    return _ZSTD.startswith(head) or _begins_skippable(head)


def _begins_skippable(head: bytes) -> bool:
    return head[:1] in _SKIPPABLE_FIRST and _SKIPPABLE.startswith(head[1:4])


class _Skipped:
    """Skippable zstd frames that follow each other: a decoder for each is dear, and they can have eight bytes."""

    needs_input = True

    def __init__(self) -> None:
        self.eof = False
        self.unused_data = b""
        self._header = b""
        self._left = 0

    def decompress(self, data: bytes | memoryview, max_length: int = -1) -> bytes:  # noqa: ARG002
        """Nothing comes out of them."""
        data = self._header + bytes(data)
        at, end = self._left, len(data)
        _check_end(at > 0 or _begins_skippable(data))
        while at + 8 <= end and _begins_skippable(data[at : at + 4]):
            at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        cut = at < end < at + 8 and _begins_skippable(data[at:])
        self._header, self._left = data[at:] if cut else b"", max(at - end, 0)
        self.eof = at <= end and not cut
        self.unused_data = data[at:] if self.eof else b""
        return b""


def _gzip(_head: bytes, _: Limits) -> Decoder:
    decoder: Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    return decoder


def _zstd(head: bytes, limits: Limits) -> Decoder:
    if _begins_skippable(head):
        return _Skipped()
    decoder: Decoder = zstd.ZstdDecompressor(
        options={zstd.DecompressionParameter.window_log_max: limits.window}
    )
    return decoder


_METHODS: Final = {
    Compression.NONE: _stored,
    Compression.GZIP: _members(_gzip, _begins_gzip),
    Compression.ZSTD: _members(_zstd, _begins_zstd),
}
