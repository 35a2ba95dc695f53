"""What comes out of a layer against what goes in: one count for what is uncompressed and for holes that are filled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from argosy.errors import InvalidLayerError
from argosy.layer.entry import Limits

if TYPE_CHECKING:
    from argosy.layer.compression import Compression

__all__ = ["Meter"]

_CHUNK: Final = 1 << 18


class Meter:
    """Counts both sides of a decoder and the zeros that sparse files become behind it, and refuses a bomb.

    Each count is one thread's: a decoder may run ahead of who fills the holes.

    Args:
        limits: `content`, `ratio` and `grace` are looked at.

    >>> meter = Meter(Limits(grace=10, ratio=2))
    >>> [bytes(piece) for piece in meter.passed([b"abc"])], len(b"".join(meter.zeros(3)))
    ([b'abc'], 3)
    >>> b"".join(meter.zeros(20))
    Traceback (most recent call last):
    argosy.errors.InvalidLayerError: 3 bytes have become 26: more than 2 for one is a bomb
    """

    __slots__ = ("_filled", "_made", "_taken", "compression", "limits", "padding")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.padding = 0
        """NUL bytes behind the compressed stream, which some readers take and others refuse."""
        self.compression: Compression | None = None
        """What the stream is compressed with; None while nothing of it was read."""
        self._taken = self._made = self._filled = 0

    def took(self, size: int) -> None:
        """Bytes that went in."""
        self._taken += size

    def gave(self, size: int) -> None:
        """Bytes that came out.

        Raises:
            InvalidLayerError: They are too many.
        """
        self._made += size
        self._check()

    def passed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Chunks that are not compressed, counted on both sides so that holes are held against them."""
        for chunk in chunks:
            self._taken += len(chunk)
            self._made += len(chunk)
            yield chunk

    def zeros(self, size: int) -> Iterator[bytes]:
        """A hole as zeros.

        Raises:
            InvalidLayerError: With these, too many bytes came out.
        """
        block = bytes(min(size, _CHUNK))
        while size > 0:
            piece = block[:size]
            self._filled += len(piece)
            self._check()
            yield piece
            size -= len(piece)

    def _check(self) -> None:
        made, limits = self._made + self._filled, self.limits
        if made > limits.content:
            raise InvalidLayerError(f"more than {limits.content} bytes uncompressed")
        if made > limits.grace and made > self._taken * limits.ratio:
            raise InvalidLayerError(
                f"{self._taken} bytes have become {made}: more than {limits.ratio} for one is a bomb",
                hint="run and unpack take a layer that is meant to be so with a greater --max-ratio",
            )
