"""A layer's changeset as it is read: uncompressed ahead in a thread, and proved at its end."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from argosy.content.protocols import BlobReader
from argosy.errors import DigestMismatchError
from argosy.layer.entry import Limits
from argosy.layer.pump import Pump
from argosy.spec.digest import Digest

__all__ = ["LayerStream"]


class LayerStream:
    """The uncompressed bytes of one layer. Use it in a `with` block, or close it: that ends its thread.

    Args:
        blob: The layer as stored; it proves its own digest.
        diff_id: What the uncompressed bytes must hash to; None where nobody said.
        limits: How much may come out.
        where: What to call the layer in messages.
    """

    def __init__(
        self,
        blob: BlobReader,
        diff_id: Digest | None,
        *,
        limits: Limits | None = None,
        where: str = "",
    ) -> None:
        self._blob = blob
        self._expected = diff_id
        self._where = where
        algorithm = diff_id.algorithm if diff_id else "sha256"
        self._pump = Pump(blob, limits=limits, where=where, algorithm=algorithm)
        self.meter = self._pump.meter
        self._rest = memoryview(b"")

    def __enter__(self) -> Self:
        self._pump.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and close the blob. Closing early is no error."""
        try:
            self._pump.close()
        finally:
            self._blob.close()

    def __iter__(self) -> Iterator[bytes]:
        """The pieces in order. The last one is out only after blob and changeset were proved.

        Raises:
            InvalidLayerError: it is damaged, cut off, or over a limit.
            IntegrityError: the blob is not what its descriptor says, or the changeset not what its `diff_id` says.
        """
        yield from self._pump
        if self._expected is not None and self._pump.diff_id != self._expected:
            raise DigestMismatchError(
                f"{self._where or 'layer'}: uncompressed, it is not the diff_id",
                expected=self._expected,
                actual=self._pump.diff_id,
            )

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, all that is left if negative; empty only after everything was proved."""
        if size < 0:
            return b"".join(iter(lambda: self.read(1 << 20), b""))
        if not self._rest:
            self._rest = memoryview(next(iter(self), b""))
        data = bytes(self._rest[:size])
        self._rest = self._rest[size:]
        return data

    def drain(self) -> None:
        """Read on to the end, so that everything is proved."""
        while self.read(1 << 20):
            pass

    @property
    def diff_id(self) -> Digest:
        """The digest of all uncompressed bytes; there once the end was reached."""
        return self._pump.diff_id

    @property
    def size(self) -> int:
        """Uncompressed bytes so far."""
        return self._pump.size
