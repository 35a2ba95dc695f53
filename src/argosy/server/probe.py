"""Whether what the registry stands on answers: the database, and the storage that belongs to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from argosy.errors import StorageError
from argosy.server import marker
from argosy.server.metadata import Metadata
from argosy.server.storage import Storage, UnavailableError

__all__ = ["Probe"]

log = logging.getLogger("argosy.server")

_FRESH_SECONDS = 5.0
_PATIENCE = 5.0
_SOON = 1.0


class Probe:
    """Asks both, once in a few seconds at most and never twice at a time, however often it is asked.

    Args:
        metadata: The database.
        storage: Where blobs lie.

    Example:
        >>> import tempfile
        >>> from argosy.server.metadata.sqlite import Sqlite
        >>> from argosy.server.storage.filesystem import FileSystem
        >>> root = tempfile.mkdtemp()
        >>> metadata = Sqlite(root + "/registry.db")
        >>> asyncio.run(Probe(metadata, FileSystem(root + "/blobs")).silent())
        >>> metadata.close()
    """

    def __init__(self, metadata: Metadata, storage: Storage) -> None:
        self._database = _Question("database", lambda: metadata.read(lambda tx: tx.row("SELECT 1")))
        self._storage = _Question("storage", lambda: _see(metadata, storage))

    async def silent(self) -> str | None:
        """Which of the two does not answer, `database` or `storage`; None where both did a moment ago."""
        for question in (self._database, self._storage):
            if not await question.asked(_PATIENCE) or question.failure is not None:
                return question.name
        return None

    async def require_storage(self) -> None:
        """Let nobody rely on a storage that is known to be another one than the database's.

        One that has not said so within a moment is believed to be what it was: nothing waits for it.

        Raises:
            UnavailableError: it is.
        """
        await self._storage.asked(_SOON)
        if self._storage.is_away:
            raise UnavailableError(f"the storage is away: {self._storage.failure}")


class _Question:
    """Something that is asked once in a few seconds at most, and never twice at a time."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self.failure: Exception | None = None
        self.is_away = False
        self._ask = ask
        self._at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    async def asked(self, patience: float) -> bool:
        """Whether there is an answer that is new enough, within so many seconds of the question."""
        now = asyncio.get_running_loop().time()
        if self._asking is None:
            if now - self._at < _FRESH_SECONDS:
                return True
            self._at = now
            self._asking = asyncio.create_task(self._run())
        if (left := self._at + patience - now) > 0:
            await asyncio.wait([self._asking], timeout=left)
        return self._asking is None

    async def _run(self) -> None:
        try:
            await self._ask()
            self.failure, self.is_away = None, False
        except Exception as exc:  # noqa: BLE001  # whatever it is: it does not answer
            self.failure = exc
            self.is_away = self.is_away or isinstance(exc, marker.StorageAwayError)
            log.warning("not ready: %s: %s", self.name, str(exc) or repr(exc))
        self._asking, self._at = None, asyncio.get_running_loop().time()


async def _see(metadata: Metadata, storage: Storage) -> None:
    """Find the storage's marker, or make it where there is none yet.

    Raises:
        StorageError: it is not there, and cannot be made.
    """
    if not await marker.check(metadata, storage):
        raise StorageError("the storage has no marker and takes none")
