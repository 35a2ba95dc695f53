"""Whether the storage is the one the database speaks of, or an empty place where a volume should be mounted.

A missing object says nothing by itself: all of them are missing while the storage is away. So every storage holds an
object that is never deleted, the marker. It is made where the database has no blobs yet or one of them is there, never
where all of them are missing.
"""

from __future__ import annotations

import asyncio
import logging

from argosy.errors import BlobUnknownError, StorageError
from argosy.server.metadata import Metadata, collect
from argosy.server.metadata.blobs import Segment
from argosy.server.storage import Storage

__all__ = ["KEY", "StorageAwayError", "check", "is_marked", "require"]

log = logging.getLogger("argosy.server")

KEY = "m/registry"
"""The marker's key."""

_TEXT = b"The blobs of an argosy registry lie here. Without this file they count as missing: leave it.\n"
_SAMPLE = 100


class StorageAwayError(StorageError):
    """The storage answers, and holds nothing of what the database speaks of."""


def is_marked(storage: Storage) -> bool:
    """Whether the marker is there.

    Raises:
        StorageError: the storage does not say.
    """
    return _is_there(storage, KEY)


def require(metadata: Metadata, storage: Storage) -> None:
    """What `check` does, before there is a loop. A storage that does not answer may do so when it is needed.

    Raises:
        StorageAwayError: the storage is not the database's.
    """
    try:
        if not is_marked(storage):
            asyncio.run(check(metadata, storage))
    except StorageAwayError:
        raise
    except StorageError as exc:
        log.warning("nobody knows whether the storage is there: %s", exc)


async def check(metadata: Metadata, storage: Storage) -> None:
    """See that the storage is the database's, and mark it if it has no marker yet.

    Raises:
        StorageAwayError: it is not.
        StorageError: it does not say.
    """
    if await asyncio.to_thread(is_marked, storage):
        return
    sample = await metadata.read(lambda tx: collect.sample(tx, _SAMPLE))
    if sample and not await asyncio.to_thread(_any_there, storage, sample):
        raise StorageAwayError(
            "the database has blobs and the storage holds none of them: is it mounted?",
            hint=f"if they are lost for good, make the object {KEY} in the storage, and scrub",
        )
    await asyncio.to_thread(_mark, storage)


def _is_there(storage: Storage, key: str) -> bool:
    try:
        for _ in storage.read(key, 0, 1):
            break
    except BlobUnknownError:
        return False
    return True


def _any_there(storage: Storage, segments: list[Segment]) -> bool:
    failed: StorageError | None = None
    for segment in segments:
        try:
            if _is_there(storage, segment.key):
                return True
        except StorageError as exc:
            failed = exc
    if failed is not None:
        raise failed
    return False


def _mark(storage: Storage) -> None:
    writer = None
    try:
        writer = storage.create(KEY, size=len(_TEXT))
        writer.write(_TEXT)
        writer.commit()
    except StorageError as exc:  # somebody else makes it this moment, or the disk is full
        if writer is not None:
            writer.abort()
        log.warning("the storage was not marked: %s", exc)
