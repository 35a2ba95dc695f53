"""Receiving the bodies of upload sessions: hashed and written while they come, kept when they are cut off."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from argosy.errors import (
    ArgosyError,
    DigestMismatchError,
    LimitExceededError,
    StorageError,
    TooManyRequestsError,
)
from argosy.server.handlers.blobs import read
from argosy.server.http import (
    PIECE,
    ClientGoneError,
    Limits,
    Request,
    RequestTimeoutError,
    StoppingError,
)
from argosy.server.metadata import uploads
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.uploads import Upload
from argosy.server.registry import Registry, log
from argosy.server.storage import SegmentWriter
from argosy.spec.digest import Digest, Hasher, hasher

LEASE = 30.0
"""Seconds a body holds its session without saying that it goes on."""

RENEW = LEASE / 3
"""Seconds after which it says so."""

SMALL = 2 * PIECE
"""Bytes of a body that is taken whole before anything is done with it: no more than a long one holds at a time."""

CHUNK = 256 * 1024
"""Bytes of a chunk on the average, at least, where a blob comes in more than a few. Each is an object and a row."""

_FEW = 1000

CUT = (ClientGoneError, RequestTimeoutError, StoppingError)
"""How a body ends that did not come to its end."""

_LEAST = 2


class Body:
    """One body being received: hashed, and written unless its digest is known already. Runs on the pool."""

    def __init__(
        self, registry: Registry, key: str, hashed: Hasher, *, keep: bool, size: int | None
    ) -> None:
        self._storage, self._key, self._expected = registry.storage, key, size
        self._keep = keep
        self._writer: SegmentWriter | None = None
        self.hashed = hashed
        self.size = 0

    def feed(self, parts: list[bytes]) -> None:
        """Hash and write one of many pieces."""
        for part in parts:
            self.hashed.update(part)
            self.size += len(part)
        if self._keep:
            if self._writer is None:
                self._writer = self._storage.create(self._key, size=self._expected)
            self._writer.write(*parts)

    def finish(
        self, piece: list[bytes] | None, algorithm: str, digest: str | None
    ) -> Segment | None:
        """The last piece, then the check, then the disk: one hop to the pool for all.

        Raises:
            DigestMismatchError: the bytes hash to something else than `digest`.
        """
        if piece is not None:
            self.feed(piece)
        if digest is not None and Digest.done(algorithm, self.hashed) != digest:
            raise DigestMismatchError(
                "blob", expected=digest, actual=Digest.done(algorithm, self.hashed)
            )
        if self._writer is None:
            return None
        self._writer.commit()
        return Segment(self._key, self.size)

    def whole(self, parts: list[bytes], digest: Digest) -> Segment | None:
        """`finish` with all there is; where that fails nothing is left, whether or not anybody still waits for it."""
        try:
            return self.finish(parts, digest.algorithm, digest)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Leave nothing behind."""
        if self._writer is not None:
            self._writer.abort()


def limited(registry: Registry, received: int) -> Limits:
    """What a body may take that comes behind so many bytes of its blob."""
    settings = registry.settings.limits
    limits = Limits(settings.body_idle_seconds, settings.body_seconds, 0)
    if settings.blob_bytes:  # 0 would be no limit: a byte too many is refused once it has come
        limits.size = max(1, settings.blob_bytes - received)
    return limits


def check_size(registry: Registry, size: int) -> None:
    """Refuse a blob of more bytes than are allowed, in however many bodies they came.

    Raises:
        LimitExceededError: it has.
    """
    most = registry.settings.limits.blob_bytes
    if most and size > most:
        raise LimitExceededError(f"blob of {size} bytes: expected at most {most}")


def check_chunks(upload: Upload) -> None:
    """Refuse one more chunk where there are very many small ones: to end them or to look at them would take seconds.

    Raises:
        LimitExceededError: there are.
    """
    if upload.version > _FEW + upload.received // CHUNK:
        raise LimitExceededError(
            f"upload {upload.id}: {upload.version} chunks for {upload.received} bytes: expected {CHUNK} bytes in each"
        )


async def receive(
    registry: Registry, request: Request, upload: Upload, digest: Digest | None
) -> tuple[Body, Segment | None]:
    """Receive a body under a session's lease. Hashing and writing a piece go on while the next one comes.

    What arrived of a body that is cut is kept, if it is the first or says where it begins.

    Args:
        digest: What the whole blob must hash to, where this is its last body and its algorithm is the session's.
    """
    async with Hold(registry, upload) as hold:
        return await _received(registry, request, upload, digest, hold)


class Hold:
    """Keeps the lease of a session for as long as it is entered: a slow client or a long hash loses nothing.

    A timer says it, not the body itself, which may have nothing to do for minutes; a quick one never hears of it.
    """

    def __init__(self, registry: Registry, upload: Upload) -> None:
        self._registry, self._upload = registry, upload
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._is_over = self._is_lost = False

    async def __aenter__(self) -> Self:
        self._wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        if (
            self._renewing is not None
        ):  # what comes next may give the lease back, and must be the last to speak
            await asyncio.wait([self._renewing])

    def check(self) -> None:
        """Go on only while the lease is ours.

        Raises:
            TooManyRequestsError: another body has it.
        """
        if self._is_lost:
            raise TooManyRequestsError(
                f"upload {self._upload.id}: another body took over", retry_after=1
            )

    def _wait(self) -> None:
        if not (self._is_over or self._is_lost):
            self._timer = asyncio.get_running_loop().call_later(RENEW, self._begin)

    def _begin(self) -> None:
        self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        upload, now = self._upload, self._registry.clock()
        expires = now + self._registry.settings.gc.upload_seconds
        try:
            kept = await self._registry.write(
                lambda tx: uploads.renew(tx, upload, now + LEASE, expires), durable=False
            )
            self._is_lost = not kept
        except (
            ArgosyError
        ) as exc:  # the next time may still be soon enough, and the last commit decides
            log.warning("upload %s: its lease was not renewed: %s", upload.id, exc)
        self._wait()


async def _received(
    registry: Registry, request: Request, upload: Upload, digest: Digest | None, hold: Hold
) -> tuple[Body, Segment | None]:
    limits = limited(registry, upload.received)
    hashed = await _hasher(registry, upload)
    body = Body(
        registry,
        uploads.new_key(upload),
        hashed,
        keep=upload.known is None,
        size=request.content_length,
    )
    feeding = _Feeding(registry, body)
    try:
        last, cut = await _pieces(request, limits, feeding, hold)
        check_size(registry, upload.received + request.received)
        if cut is None:
            segment = await registry.blocking(body.finish, last, upload.algorithm, digest)
            return body, segment
    except BaseException:
        await feeding.settle()
        await registry.blocking(body.abort)
        raise
    if upload.received and b"content-range" not in request.headers:
        await registry.blocking(body.abort)  # nobody knows where it was meant to begin
    else:
        await keep(registry, upload, body, None)
    raise cut


async def _pieces(
    request: Request, limits: Limits, feeding: _Feeding, hold: Hold
) -> tuple[list[bytes] | None, ArgosyError | None]:
    """Feed a body but for its end, which is answered; or what cut it off, after everything that came was fed.

    Raises:
        ArgosyError: any other reason why the body cannot be taken.
    """
    last: list[bytes] | None = None
    cut: ArgosyError | None = None
    try:
        async for piece in request.pieces(limits):
            if request.ended:
                last = piece
            else:
                await feeding.begin(piece)
            hold.check()
    except CUT as exc:
        cut = exc
    await feeding.end()
    return last, cut


class _Feeding:
    """A body's pieces on their way through the pool, one at a time, while the next one comes."""

    def __init__(self, registry: Registry, body: Body) -> None:
        self._registry, self._body = registry, body
        self._under_way: asyncio.Future[None] | None = None

    async def begin(self, piece: list[bytes]) -> None:
        """Hash and write a piece as soon as the one before is done, and do not wait for it.

        Raises:
            StorageError: the one before could not be written.
        """
        await self.end()
        self._under_way = asyncio.ensure_future(self._registry.blocking(self._body.feed, piece))

    async def end(self) -> None:
        """Wait for the piece under way.

        Raises:
            StorageError: it could not be written.
        """
        if self._under_way is not None:
            await asyncio.wait([self._under_way])
            done, self._under_way = self._under_way, None
            done.result()

    async def settle(self) -> None:
        """Wait until no thread is at the body, whatever became of its last piece."""
        with contextlib.suppress(StorageError):
            await self.end()


async def keep(registry: Registry, upload: Upload, body: Body, last: list[bytes] | None) -> None:
    """What arrived of a body that was cut becomes a part of the session, so that the client can go on behind it.

    A storage that cannot make an object of it loses it, and the session tells where it was before. A single byte is
    nothing: `Range: 0-0` would tell it like none.
    """
    if upload.received + body.size + sum(map(len, last or ())) < _LEAST:
        return await registry.blocking(body.abort)
    try:
        segment = await registry.blocking(body.finish, last, upload.algorithm, None)
        if segment is not None:
            await extend(registry, upload, body, segment)
    except ArgosyError as exc:
        log.warning("upload %s: nothing kept of a body that was cut: %s", upload.id, exc)
        await registry.blocking(body.abort)


async def extend(registry: Registry, upload: Upload, body: Body, segment: Segment) -> Upload:
    """Take a durable object in as the session's next part, and remember the state of its hash.

    Raises:
        TooManyRequestsError: the lease was lost; the object is nobody's.
    """
    so_far = Digest.done(upload.algorithm, body.hashed)
    grown = await registry.write(
        lambda tx: uploads.extend(tx, upload, segment, so_far), durable=False
    )
    registry.keep_hasher(upload.id, so_far, body.hashed)
    return grown


async def _hasher(registry: Registry, upload: Upload) -> Hasher:
    """The state of the hash over everything received: remembered, or made again from the objects."""
    if not upload.received:
        return hasher(upload.algorithm)
    kept = registry.hashers.pop((upload.id, upload.so_far), None)
    if kept is not None:
        return kept
    return await _rehash(registry, upload, upload.algorithm)


async def _rehash(registry: Registry, upload: Upload, algorithm: str) -> Hasher:
    parts = await registry.metadata.read(lambda tx: uploads.segments(tx, upload))

    def work() -> Hasher:
        made = hasher(algorithm)
        for piece in read(registry.storage, tuple(parts), 0, upload.received):
            made.update(piece)
        return made

    return await registry.blocking(work)
