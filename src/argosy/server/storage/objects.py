"""Objects in an S3-compatible store: what several registries share.

Each body becomes an object of its own, never touched again. The store answers a PUT, or the end of a multipart upload,
when the object is durable, and checks the SHA-256 of every part, which is in the request's signature. The end of a
multipart upload is not believed but looked at: asked a second time, because it died over the first, a store may say
that all is done where nothing is.

Memory is bounded: a body is held in parts of 5 MiB, at most three at a time, taken from one budget for all bodies.
Bodies beyond the budget go through a temporary file without a name on the local disk and are sent at their commit:
slower, but nobody waits for anybody, so nothing can lock up.

An upload that is broken off is aborted in the store. Only a process that dies leaves parts behind, which no listing
shows: give the bucket a lifecycle rule (`AbortIncompleteMultipartUpload`, one day).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, Protocol

import obstore
from obstore import exceptions as obstore_errors
from obstore.store import S3Store

from argosy.errors import BlobUnknownError, StorageError
from argosy.server.storage import (
    PIECE,
    Place,
    SegmentWriter,
    ShortObjectError,
    UnavailableError,
    checked_key,
    disk,
)
from argosy.server.storage.disk import Temporary

__all__ = ["Objects", "s3"]

PART = 5 * 1024 * 1024
"""The smallest part S3 takes."""
_PARTS = 9000
_HELD = 3
_TRIES = 4
_PATIENCE = 30.0
"""Seconds without a byte after which a read is not tried again: a store that is silent takes longer for each."""
_BULK = 1000


def s3(
    bucket: str,
    *,
    endpoint: str | None = None,
    region: str = "us-east-1",
    prefix: str = "",
    access_key: str | None = None,
    secret_key: str | None = None,
    path_style: bool = True,
    timeout_seconds: float = 60.0,
) -> S3Store:
    """A handle on a bucket.

    Args:
        bucket: Its name.
        endpoint: The service's URL; AWS if None. Plain http only where the URL says so.
        region: The region that is signed for.
        prefix: Put before every key.
        access_key: The key id; the environment's or the machine's own credentials if None.
        secret_key: The secret that goes with it.
        path_style: Whether the bucket stands in the path rather than in the host name.
        timeout_seconds: How long the store may send nothing.
    """
    config: dict[str, Any] = {"region": region, "virtual_hosted_style_request": not path_style}
    given = {
        "endpoint": endpoint,
        "access_key_id": access_key,
        "secret_access_key": secret_key,
    }
    config |= {name: value for name, value in given.items() if value is not None}
    wait = dt.timedelta(seconds=timeout_seconds)
    return S3Store(
        bucket,
        prefix=prefix or None,
        config=config,  # type: ignore[arg-type]
        client_options={
            "allow_http": (endpoint or "").startswith("http://"),
            "read_timeout": wait,
            "timeout": dt.timedelta(days=1),
        },
        retry_config={"max_retries": 5, "retry_timeout": wait},
    )


class Objects:
    """A bucket as a `Storage`.

    Args:
        store: The bucket (`s3` makes one).
        redirect_seconds: How long a presigned URL lives; None sends every byte through the registry.
        memory_bytes: The budget of all bodies under way together.
        temporary: Where those go that it does not reach for.
    """

    def __init__(
        self,
        store: S3Store,
        *,
        redirect_seconds: int | None = None,
        memory_bytes: int = 256 * 1024 * 1024,
        temporary: Temporary | None = None,
    ) -> None:
        self._store = store
        self._redirect = redirect_seconds
        self._budget = _Budget(memory_bytes)
        self._temporary = temporary or Temporary()

    def create(self, key: str, *, size: int | None = None) -> SegmentWriter:
        """Begin a new object: in memory while it is small or the budget allows, else in a temporary file."""
        checked_key(key)
        part = PART if size is None else max(PART, -(-size // _PARTS))
        need = _HELD * part if size is None or size > part else max(size, 1)
        if self._budget.take(need):
            return _Writer(_Parts(self._store, key, part), lambda: self._budget.give(need))
        file = self._temporary.file(size or 0)
        return _Writer(_Spool(self._store, key, part, file), lambda: None)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes of a range; a connection that breaks is taken up again where it broke."""
        if stop is not None and stop <= start:
            return
        failures, until = 0, time.monotonic() + _PATIENCE
        while True:
            try:
                for piece in self._stream(key, start, stop):
                    yield piece
                    start += len(piece)
                    failures, until = 0, time.monotonic() + _PATIENCE
                break
            except FileNotFoundError:
                raise BlobUnknownError(f"object {key} is not there") from None
            except obstore_errors.BaseError as error:
                failures += 1
                if failures >= _TRIES or time.monotonic() > until:
                    raise _failed("read", key, error) from None
        if stop is not None and start < stop:
            raise ShortObjectError(f"object {key} ends at byte {start}, expected {stop}")

    def _stream(self, key: str, start: int, stop: int | None) -> Iterator[bytes]:
        if stop is not None:
            options: Any = {"range": (start, stop)}
        else:
            options = {"range": {"offset": start}} if start else None
        for data in obstore.get(self._store, key, options=options).stream(min_chunk_size=PIECE):
            view = memoryview(data)
            for at in range(0, len(view), PIECE):
                yield bytes(view[at : at + PIECE])

    def locate(self, key: str, *, media_type: str | None = None) -> Place:  # noqa: ARG002
        """A presigned URL, where redirects were asked for."""
        if self._redirect is None:
            return Place()
        lives = dt.timedelta(seconds=self._redirect)
        return Place(url=obstore.sign(self._store, "GET", key, lives))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete in bulk, up to 1000 keys a request."""
        for at in range(0, len(keys), _BULK):
            batch = list(keys[at : at + _BULK])
            try:
                obstore.delete(self._store, batch)
            except FileNotFoundError:
                self._delete_each(batch)
            except obstore_errors.BaseError as error:
                raise _failed("delete", f"{batch[0]} …", error) from None

    def _delete_each(self, keys: Sequence[str]) -> None:
        """For stores that count a missing object as an error."""
        for key in keys:
            try:
                with contextlib.suppress(FileNotFoundError):
                    obstore.delete(self._store, key)
            except obstore_errors.BaseError as error:
                raise _failed("delete", key, error) from None

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix. The store lists in byte order, so nothing before or behind it is asked for."""
        parent = prefix.rpartition("/")[0]
        offset = prefix[:-1] if prefix and not prefix.endswith("/") else None
        try:
            for batch in obstore.list(self._store, parent or None, offset=offset, chunk_size=_BULK):
                for meta in batch:
                    key = str(meta["path"])
                    if key.startswith(prefix):
                        yield key
                    elif key > prefix:
                        return
        except obstore_errors.BaseError as error:
            raise _failed("list", prefix, error) from None


class _Budget:
    """Bytes of memory that bodies take and give back."""

    def __init__(self, total: int) -> None:
        self._left = total
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is that much left; it is taken then."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._left += size


class _Body(Protocol):
    """Where a body goes: parts in memory, or a file."""

    def write(self, data: bytes | bytearray | memoryview, /) -> object:
        """Take in more."""
        ...

    def finish(self) -> None:
        """Send what is left and make the object."""
        ...

    def drop(self) -> None:
        """Make no object."""
        ...


class _Writer:
    """One object being written."""

    def __init__(self, body: _Body, release: Any) -> None:
        self._body: _Body | None = body
        self._release = release

    def write(self, *data: bytes | bytearray | memoryview) -> None:
        """Append."""
        if self._body is None:
            raise StorageError("the object was finished before")
        for one in data:
            self._body.write(one)

    def commit(self) -> None:
        """Make the object."""
        body, self._body = self._body, None
        if body is None:
            raise StorageError("the object was finished before")
        try:
            body.finish()
        finally:
            self._release()

    def abort(self) -> None:
        """Make no object."""
        body, self._body = self._body, None
        if body is not None:
            try:
                body.drop()
            finally:
                self._release()


class _Parts:
    """A body in memory: one PUT if it stays small, else a multipart upload that a thread of its own feeds."""

    def __init__(self, store: S3Store, key: str, part: int) -> None:
        self._store = store
        self._key = key
        self._part = part
        self._buffer = bytearray()
        self._queue: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._dropped = False
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        view = memoryview(data)
        self._size += len(view)
        while view:
            room = self._part - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
            if view:
                self._send()

    def _send(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._upload, name="s3-upload", daemon=True)
            self._thread.start()
        buffer, self._buffer = self._buffer, bytearray()
        self._hand_over(bytes(buffer))

    def _hand_over(self, part: bytes | None) -> None:
        """Give a part to the uploading thread, or learn that it has failed."""
        while self._error is None:
            try:
                self._queue.put(part, timeout=0.5)
            except queue.Full:
                continue
            return
        raise _failed("write", self._key, self._error)

    def _upload(self) -> None:
        try:
            obstore.put(
                self._store, self._key, self._arrive(), chunk_size=self._part, max_concurrency=1
            )
        except BaseException as error:  # noqa: BLE001  # told to the writer's thread
            self._error = error

    def _arrive(self) -> Iterator[bytes]:
        while (part := self._queue.get()) is not None:
            yield part
        if self._dropped:
            raise _DroppedError

    def finish(self) -> None:
        if self._thread is None:
            _put(self._store, self._key, bytes(self._buffer), self._part)
            return
        self._hand_over(bytes(self._buffer))
        self._hand_over(None)
        self._thread.join()
        if self._error is not None:
            raise _failed("write", self._key, self._error)
        _look(self._store, self._key, self._size)

    def drop(self) -> None:
        if self._thread is None:
            return
        self._dropped = True
        with contextlib.suppress(StorageError):
            self._hand_over(None)
        self._thread.join()


class _DroppedError(Exception):
    """Ends a multipart upload that nobody wants any more; the store is told to forget its parts."""


class _Spool:
    """A body in a temporary file."""

    def __init__(self, store: S3Store, key: str, part: int, file: IO[bytes]) -> None:
        self._store = store
        self._key = key
        self._part = part
        self._file = file

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        disk.write(self._file, data)

    def finish(self) -> None:
        with self._file as file:
            size = file.tell()
            file.seek(0)
            _put(self._store, self._key, file, self._part)
        if size > self._part:
            _look(self._store, self._key, size)

    def drop(self) -> None:
        self._file.close()


def _put(store: S3Store, key: str, content: bytes | IO[bytes], part: int) -> None:
    try:
        obstore.put(store, key, content, chunk_size=part, max_concurrency=1)
    except (obstore_errors.BaseError, OSError) as error:
        raise _failed("write", key, error) from None


def _look(store: S3Store, key: str, size: int) -> None:
    """See that an object is there which was sent in parts."""
    try:
        found = obstore.head(store, key)["size"]
    except (obstore_errors.BaseError, OSError) as error:
        raise _failed("write", key, error) from None
    if found != size:
        raise UnavailableError(f"object store: {key} has {found} bytes, expected {size}")


def _failed(what: str, key: str, error: BaseException) -> UnavailableError:
    """One line of what the store said, without the request's signature in it."""
    said = str(error).strip().partition("\n")[0].partition("?")[0]
    return UnavailableError(f"object store: cannot {what} {key}: {said[:300]}")
