"""A blob while it comes in from elsewhere, and those who read it meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import IO

from argosy.content.protocols import BlobReader
from argosy.errors import ArgosyError
from argosy.server.storage import SegmentWriter, disk
from argosy.server.storage.disk import Temporary
from argosy.spec.descriptor import Descriptor

__all__ = ["PIECE", "Fill"]

PIECE = 1024 * 1024
"""Bytes moved at a time."""


class Fill:
    """A blob that is coming in: a temporary file that grows, and everybody who reads it meanwhile.

    Args:
        desc: The blob.
    """

    def __init__(self, desc: Descriptor) -> None:
        self.desc = desc
        self._file: IO[bytes] | None = None
        self._users = 1
        self._there = 0
        self._is_open = self._is_done = False
        self._error: ArgosyError | None = None
        self._changed = asyncio.Event()

    def begin(self, temporary: Temporary) -> None:
        """Make the file, which the last to leave closes.

        Raises:
            StorageError: it cannot be made, or there is no room for it.
        """
        self._file = temporary.file(self.desc.size)

    @property
    def _begun(self) -> IO[bytes]:
        assert self._file is not None
        return self._file

    def join(self) -> Fill:
        """One more reads."""
        self._users += 1
        return self

    def leave(self) -> None:
        """One less; the last one closes the file."""
        self._users -= 1
        if not self._users and self._file is not None:
            self._file.close()

    def step(self, reader: BlobReader, writer: SegmentWriter | None) -> bytes:
        """Read a piece and write it where it belongs; on a thread."""
        data = reader.read(PIECE)
        if data:
            disk.write(self._begun, data)
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
                    data = await asyncio.to_thread(os.pread, self._begun.fileno(), size, at)
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
