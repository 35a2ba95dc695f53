"""Whether the storage is the one the database speaks of, or an empty place where a volume should be mounted.

A missing object says nothing by itself: all of them are missing while the storage is away. So every storage holds an
object that is never deleted, the marker. It is made where the database has no blobs yet or one of them is there, never
where all of them are missing. Beside it lies one that is named after the database, so that another registry's storage
is not taken for this one's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets

from argosy.errors import BlobUnknownError, StorageError
from argosy.server.metadata import Metadata, collect, repositories
from argosy.server.metadata.blobs import Segment
from argosy.server.storage import Storage

__all__ = ["KEY", "StorageAwayError", "check", "is_marked", "require"]

log = logging.getLogger("argosy.server")

KEY = "m/registry"
"""The marker's key."""

_TEXT = b"The blobs of an argosy registry lie here. Without this file they count as missing: leave it.\n"
_SAMPLE = 100
_SETTING = "storage"


class StorageAwayError(StorageError):
    """The storage answers, and holds nothing of what the database speaks of."""


def is_marked(storage: Storage) -> bool:
    """Whether the marker is there.

    Raises:
        StorageError: the storage does not say.
    """
    return _text(storage, KEY) is not None


def require(metadata: Metadata, storage: Storage) -> None:
    """What `check` does, before there is a loop. A storage that does not answer may do so when it is needed.

    Raises:
        StorageAwayError: the storage is not the database's.
    """
    try:
        asyncio.run(check(metadata, storage))
    except StorageAwayError:
        raise
    except StorageError as exc:
        log.warning("nobody knows whether the storage is there: %s", exc)


async def check(metadata: Metadata, storage: Storage) -> bool:
    """See that the storage is the database's, and mark it if it is not marked yet.

    Returns:
        Whether it has a marker now: one that is full takes none.

    Raises:
        StorageAwayError: it is not.
        StorageError: it does not say.
    """
    own = await metadata.read(lambda tx: repositories.setting(tx, _SETTING))
    if own is not None and await asyncio.to_thread(_text, storage, f"m/{own}") is not None:
        return await asyncio.to_thread(_marked, storage, KEY)
    sample = await metadata.read(lambda tx: collect.sample(tx, _SAMPLE))
    await asyncio.to_thread(_require_known, storage, sample, own)
    await _name(metadata, storage, own or secrets.token_hex(16))
    return await asyncio.to_thread(_marked, storage, KEY)


async def _name(metadata: Metadata, storage: Storage, name: str) -> None:
    """Name the storage after the database. The database knows a name only once it is in a storage."""
    if await asyncio.to_thread(_marked, storage, f"m/{name}"):
        first = await metadata.write(lambda tx: repositories.setting(tx, _SETTING, name))
        if first != name:  # another worker was quicker
            await asyncio.to_thread(_marked, storage, f"m/{first}")


def _require_known(storage: Storage, sample: list[Segment], own: str | None) -> None:
    """See that one of some blobs is there; or that somebody who knows that none is has written so; or that there are
    none, and nobody else has marked the storage.

    Raises:
        StorageAwayError: it is not.
        StorageError: the storage does not say.
    """
    if _any_there(storage, sample) or (text := _text(storage, KEY)) not in {None, _TEXT}:
        return
    if sample:
        raise StorageAwayError(
            "the database has blobs and the storage holds none of them: is it mounted?",
            hint=f"if they are lost for good, write `lost` into the object {KEY} of the storage, and scrub",
        )
    if own is not None and text is not None:
        raise StorageAwayError("the storage is another registry's: which one is mounted?")


def _text(storage: Storage, key: str) -> bytes | None:
    """What is in a marker, or None."""
    try:
        return b"".join(storage.read(key))
    except BlobUnknownError:
        return None


def _is_there(storage: Storage, segment: Segment) -> bool:
    try:
        for _ in storage.read(segment.key, 0, 1):
            break
    except BlobUnknownError:
        return False
    return True


def _any_there(storage: Storage, segments: list[Segment]) -> bool:
    failed: StorageError | None = None
    for segment in segments:
        try:
            if _is_there(storage, segment):
                return True
        except StorageError as exc:
            failed = exc
    if failed is not None:
        raise failed
    return False


def _marked(storage: Storage, key: str) -> bool:
    """Whether an object is there, made if it was not."""
    return _text(storage, key) is not None or _mark(storage, key)


def _mark(storage: Storage, key: str = KEY) -> bool:
    writer = None
    try:
        writer = storage.create(key, size=len(_TEXT))
        writer.write(_TEXT)
        writer.commit()
    except StorageError as exc:  # somebody else makes it this moment, or the disk is full
        if writer is not None:
            writer.abort()
        log.warning("the storage was not marked: %s", exc)
        return _text(storage, key) is not None
    return True
