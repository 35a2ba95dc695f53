"""Where blobs lie as objects: random keys, written once, never changed.

A key is chosen by the registry for each body it receives, never made from the digest: two pushes of the same digest
cannot meet, nothing is copied or renamed when an upload is committed, and deleting an old object can never hit a new
one. Which object holds which digest is known to the metadata alone. All methods block: the registry calls them on a
bounded pool of threads.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from argosy.errors import StorageError

__all__ = [
    "PIECE",
    "InsufficientStorageError",
    "Place",
    "SegmentWriter",
    "ShortObjectError",
    "Storage",
    "UnavailableError",
    "checked_key",
]

PIECE = 256 * 1024
"""The most bytes handed out at a time. Whoever sends them holds two for each client, however slowly it takes them."""

_KEY = re.compile(r"[a-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)+", re.ASCII)


def checked_key(key: str) -> str:
    """A key that is one: plain parts, none of which leads elsewhere.

    Raises:
        StorageError: it is none.
    """
    if not _KEY.fullmatch(key) or ".." in key:
        raise StorageError(f"object key {key[:200]!r} is malformed")
    return key


class InsufficientStorageError(StorageError):
    """No room for more: the reserve that keeps the registry working would be touched."""

    code = "DENIED"
    status = 507


class UnavailableError(StorageError):
    """The database or the object store does not answer, or refuses for now."""

    status = 503


class ShortObjectError(StorageError):
    """An object ends before it should: the rest is lost, and reading it again does not bring it back."""


class Place(NamedTuple):
    """A quicker way to an object than through `Storage.read`: a local path, or a URL to redirect to; or neither."""

    path: str | None = None
    url: str | None = None


class SegmentWriter(Protocol):
    """One object being written. Nobody can see it before `commit` returned."""

    def write(self, *data: bytes | bytearray | memoryview) -> None:
        """Append, one after the other; the caller may change `data` afterwards.

        Raises:
            StorageError: it could not be written. The writer is to be aborted.
        """
        ...

    def commit(self) -> None:
        """Make it durable: when this returns, the object survives a power cut.

        Raises:
            StorageError: it could not be made durable; nobody will ever see it.
        """
        ...

    def abort(self) -> None:
        """Leave nothing behind. Never raises; harmless after `commit` and when called twice."""
        ...


class Storage(Protocol):
    """A place for objects. Safe to use from several threads.

    Keys are ASCII, with `/` between parts: `b/<yyyymmdd>/<uuid>-<n>` for blobs, `j/…` for the journal.
    """

    def create(self, key: str, *, size: int | None = None) -> SegmentWriter:
        """Begin a new object.

        Args:
            key: A key never used before.
            size: How many bytes will be written, where that is known.

        Raises:
            InsufficientStorageError: there is no room for it (a reserve is kept free).
            StorageError: it cannot be made.
        """
        ...

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to (not including) `stop`, or the end, in pieces of at most `PIECE`.

        Raises:
            BlobUnknownError: no such object.
            ShortObjectError: it ends too soon.
            StorageError: it cannot be read now.
        """
        ...

    def locate(self, key: str, *, media_type: str | None = None) -> Place:
        """Where the bytes can be had without this process copying them. Touches nothing, costs microseconds."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; one that is not there is no error.

        Raises:
            StorageError: at least one could not be deleted. Others may have been.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys that begin with `prefix` (up to any character, not only a whole part), in no special order."""
        ...
