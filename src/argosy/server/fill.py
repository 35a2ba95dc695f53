"""A blob while it comes in from elsewhere, and those who read it meanwhile."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator

from argosy.content.protocols import BlobReader
from argosy.errors import ArgosyError, StorageError
from argosy.server.settings import Settings
from argosy.server.storage import SegmentWriter
from argosy.spec.descriptor import Descriptor

__all__ = ["PIECE", "Fill", "roomy"]

PIECE = 1024 * 1024
"""Bytes moved at a time."""


def roomy(settings: Settings) -> str | None:
    """Where there is room for a blob: where blobs lie, as far as that is here; None if nowhere is known."""
    root = settings.storage.root if settings.storage.type == "filesystem" else None
    folder = root or settings.data
    return folder if folder and os.path.isdir(folder) else None


class Fill:
    """A blob that is coming in: a temporary file that grows, and everybody who reads it meanwhile.

    Args:
        desc: The blob.
        folder: Where the file is made, without a name; where temporary files are, if None.
    """

    def __init__(self, desc: Descriptor, folder: str | None = None) -> None:
        self.desc = desc
        try:
            self._file = tempfile.TemporaryFile(  # noqa: SIM115  # closed by the last to leave
                buffering=0, dir=folder
            )
        except OSError as exc:
            raise StorageError(f"temporary file: {exc.strerror}") from None
        self._users = 1
        self._there = 0
        self._is_open = self._is_done = False
        self._error: ArgosyError | None = None
        self._changed = asyncio.Event()

    def join(self) -> Fill:
        """One more reads."""
        self._users += 1
        return self

    def leave(self) -> None:
        """One less; the last one closes the file."""
        self._users -= 1
        if not self._users:
            self._file.close()

    def step(self, reader: BlobReader, writer: SegmentWriter | None) -> bytes:
        """Read a piece and write it where it belongs; on a thread."""
        data = reader.read(PIECE)
        if data:
            self._file.write(data)
            if writer is not None:
                writer.write(data)
        return data

    def open(self) -> None:
        """The upstream has the blob."""
        self._is_open = True
        self._wake()

    def arrived(self, size: int) -> None:
        """More bytes can be read."""
        self._there += size
        self._wake()

    def end(self, error: ArgosyError | None) -> None:
        """No more will come: all is there, or an error stands in its place."""
        self._is_done, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def opened(self) -> Fill:
        """Itself, once it is known whether the upstream has it.

        Raises:
            ArgosyError: it has not, or failed.
        """
        while not (self._is_open or self._is_done):
            await self._changed.wait()
        if self._error is not None and not self._there:
            self.leave()
            raise self._error
        return self

    async def stream(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes [start, stop), as they come.

        Raises:
            ArgosyError: the upstream failed, or what it sent is not what it should be; the blob's end was never handed
                out then. A part before the end was, perhaps, and was not proved.
        """
        at = start
        try:
            while True:
                while at < min(stop, self._there):
                    size = min(PIECE, stop - at, self._there - at)
                    data = await asyncio.to_thread(os.pread, self._file.fileno(), size, at)
                    at += len(data)
                    yield data
                if at == stop < self.desc.size:
                    return
                if self._error is not None:
                    raise self._error
                if self._is_done:
                    return
                await self._changed.wait()
        finally:
            self.leave()
