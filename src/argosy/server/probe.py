"""Whether what the registry stands on answers: the database, and the storage that belongs to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from argosy.server import marker
from argosy.server.metadata import Metadata
from argosy.server.storage import Storage

__all__ = ["Probe"]

log = logging.getLogger("argosy.server")

_FRESH_SECONDS = 5.0
_PATIENCE = 5.0


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
        self._asks: dict[str, Callable[[], Awaitable[object]]] = {
            "database": lambda: metadata.read(lambda tx: tx.row("SELECT 1")),
            "storage": lambda: _see(metadata, storage),
        }
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._silent: str | None = None
        self._waits_for: str | None = None

    async def silent(self) -> str | None:
        """Which of the two does not answer, `database` or `storage`; None where both did a moment ago."""
        if self._asking is None:
            if asyncio.get_running_loop().time() - self._asked_at < _FRESH_SECONDS:
                return self._silent
            self._asking = asyncio.create_task(self._ask())
        await asyncio.wait([self._asking], timeout=_PATIENCE)
        return self._silent if self._asking is None else self._waits_for

    async def _ask(self) -> None:
        silent = None
        try:
            for name, ask in self._asks.items():
                self._waits_for = name
                await ask()
        except Exception as exc:  # noqa: BLE001  # whatever it is: it does not answer
            silent = self._waits_for
            log.warning("not ready: %s: %s", silent, str(exc) or repr(exc))
        self._silent, self._asking = silent, None
        self._asked_at = asyncio.get_running_loop().time()


async def _see(metadata: Metadata, storage: Storage) -> None:
    """Find the storage's marker, or make it where there is none yet.

    Raises:
        StorageError: it is not there, and cannot be made.
    """
    if await asyncio.to_thread(marker.is_marked, storage):
        return
    await marker.check(metadata, storage)
    if not await asyncio.to_thread(marker.is_marked, storage):
        raise marker.StorageAwayError("the storage has no marker and takes none")
