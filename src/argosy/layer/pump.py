"""A layer uncompressed and hashed ahead, in a thread, while its reader works on the file system.

Decompression and hashing let go of the interpreter's lock, so they take a core of their own. The queue between is
short: memory stays bounded, and the thread waits for a slow reader.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from argosy.layer.compression import Compression, uncompressed
from argosy.layer.entry import Limits
from argosy.layer.meter import Meter
from argosy.layer.tarstream import SupportsRead
from argosy.spec.digest import Digest, hasher

__all__ = ["Pump"]

_AHEAD: Final = 16


class Pump:
    r"""The uncompressed pieces of one layer, made ahead. Use it in a `with` block, or close it: that ends the thread.

    Args:
        stream: The layer as it is stored.
        compression: What it is compressed with; None looks at its first bytes.
        limits: How much may come out.
        where: What to call the layer in messages.
        algorithm: The diff_id's algorithm.
        known: The diff_id, where reading `stream` to its end proves it anyway: then nothing is hashed here.

    >>> import io
    >>> with Pump(io.BytesIO(b"not compressed")) as pump:
    ...     b"".join(pump), pump.size, pump.diff_id == Digest.of(b"not compressed")
    (b'not compressed', 14, True)
    """

    def __init__(
        self,
        stream: SupportsRead,
        compression: Compression | None = None,
        *,
        limits: Limits | None = None,
        where: str = "",
        algorithm: str = "sha256",
        known: Digest | None = None,
    ) -> None:
        self._known = known
        self.meter = Meter(limits or Limits())
        self._pieces = uncompressed(stream, compression, where=where, meter=self.meter)
        self._algorithm = algorithm
        self._hash = hasher(algorithm)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._failure: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="layer", daemon=True)
        self._finished = False
        self.size = 0
        """Uncompressed bytes so far; all of them once iteration has ended."""

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, wherever it is."""
        self._stopped = True
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                self._thread.join(0)

    def __iter__(self) -> Iterator[bytes]:
        """The pieces in order; what the thread met is raised here.

        Raises:
            InvalidLayerError: See `uncompressed`.
            ValueError: it is closed.
        """
        while (piece := self._next()) is not None:
            yield piece
        self._queue.put(None)  # the end, also for who asks again
        if self._failure is not None:
            raise self._failure
        self._finished = True

    @property
    def diff_id(self) -> Digest:
        """The digest over all uncompressed bytes; only there once iteration has ended."""
        if not self._finished:
            raise ValueError("the diff_id is not known before the layer has been read to its end")
        return self._known or Digest.done(self._algorithm, self._hash)

    def _begin(self) -> None:
        if self._thread.ident is None:
            self._thread.start()

    def _next(self) -> bytes | None:
        if self._stopped:
            raise ValueError("read of a closed layer")
        self._begin()
        return self._queue.get()

    def _run(self) -> None:
        try:
            for piece in self._pieces:
                if self._stopped:
                    return
                if self._known is None:
                    self._hash.update(piece)
                self.size += len(piece)
                self._queue.put(piece)
        except BaseException as error:  # noqa: BLE001 - handed to the reader, whatever it is
            self._failure = error
        finally:
            self._queue.put(None)
