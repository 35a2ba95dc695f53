"""Pushing blobs (end-4 to end-6, end-11, end-13, end-14)."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

from argosy.errors import (
    AccessError,
    ArgosyError,
    BlobUnknownError,
    DigestMismatchError,
    InvalidDigestError,
    InvalidUploadError,
    LimitExceededError,
    TooManyRequestsError,
    UploadUnknownError,
)
from argosy.server.handlers import bodies
from argosy.server.handlers.blobs import read
from argosy.server.http import Request, Response
from argosy.server.metadata import ForeignKeyError, Transaction, Work, blobs, repositories, uploads
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.uploads import BusyError, Upload
from argosy.server.registry import Registry
from argosy.spec import distribution
from argosy.spec.digest import ALGORITHMS, Digest, hasher
from argosy.spec.reference import parse_name

T = TypeVar("T")

_PAUSE = 0.05
_CANDIDATES = 32
_ARGUMENT = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9a-f]{32})")


# -- beginning ------------------------------------------------------------------------------------


async def begin(registry: Registry, request: Request) -> Response:
    """`POST /v2/<name>/blobs/uploads/`: a session, a whole blob (`?digest=`), or a mount (`?mount=`).

    A mount that cannot be done becomes a session: 202, never 404.

    Raises:
        InvalidDigestError: a digest that breaks the grammar or is of an algorithm that is not supported.
        DigestMismatchError: a whole blob whose bytes hash to something else.
    """
    mount = request.parameter("mount")
    if mount is not None and await _mounted(registry, request, _supported(mount)):
        return _created(request, mount)
    digest = request.parameter("digest")
    if digest is not None:
        return await _whole(registry, request, _supported(digest))
    algorithm = request.parameter("digest-algorithm")
    if algorithm is None:
        algorithm = Digest(mount).algorithm if mount is not None else "sha256"
    if algorithm not in ALGORITHMS:
        raise InvalidDigestError(
            f"digest-algorithm {algorithm[:50]!r}: expected one of {', '.join(ALGORITHMS)}"
        )
    upload = await _session(registry, request, algorithm)
    await request.drain()
    response = _progress(registry, request, upload, 202)
    if registry.chunk_min_length:
        response.add(b"oci-chunk-min-length", str(registry.chunk_min_length))
    return response


def _supported(text: str) -> Digest:
    digest = Digest(text)
    hasher(digest.algorithm)
    return digest


async def _session(registry: Registry, request: Request, algorithm: str) -> Upload:
    change = registry.change(request)
    identity = uploads.new_id(change.now)
    expires = change.now + registry.settings.gc.upload_seconds

    def work(tx: Transaction) -> Upload:
        repo_id = repositories.ensure(tx, request.name, change)
        return uploads.create(tx, repo_id, identity, request.principal.name, algorithm, expires)

    return await _committed(registry, work, durable=False)


async def _mounted(registry: Registry, request: Request, digest: Digest) -> bool:
    source = request.parameter("from")
    if source is not None:
        sources: Iterable[str] = [parse_name(source)]
    else:
        sources = await registry.metadata.read(lambda tx: blobs.holders(tx, digest, _CANDIDATES))
    change = registry.change(request)
    for candidate in sources:
        try:
            registry.access.authorize(request.principal, "pull", candidate)
        except AccessError:
            continue
        if await _mount(registry, request, candidate, digest, change):
            return True
    return False


async def _mount(
    registry: Registry, request: Request, source: str, digest: Digest, change: Change
) -> bool:
    def work(tx: Transaction) -> bool:
        if blobs.look(tx, source, digest) is None:
            return False
        repo = (repositories.ensure(tx, request.name, change), request.name)
        return blobs.mount(tx, change, source, repo, digest)

    try:
        return await registry.write(work)
    except ForeignKeyError:  # collected between two statements: as if it had never been there
        return False


# -- locations and answers ------------------------------------------------------------------------


def _location(registry: Registry, request: Request, upload: str) -> str:
    signature = registry.sign(request.name, upload, request.principal.name)
    return f"{distribution.uploads_path(request.name)}{upload}.{signature}"


def _identity(registry: Registry, request: Request) -> str:
    """The session a path names, after its signature was found to be this repository's and principal's.

    Raises:
        UploadUnknownError: it is not.
    """
    match = _ARGUMENT.fullmatch(request.argument)
    if match is not None:
        expected = registry.sign(request.name, match[1], request.principal.name)
        if hmac.compare_digest(expected, match[2]):
            return match[1]
    raise UploadUnknownError(f"no such upload in {request.name}")


def _progress(registry: Registry, request: Request, upload: Upload, status: int) -> Response:
    response = Response(status)
    response.add(b"location", _location(registry, request, upload.id))
    response.add(b"range", f"0-{max(0, upload.received - 1)}")
    response.add(b"docker-upload-uuid", upload.id)
    return response


def _created(request: Request, digest: str) -> Response:
    response = Response(201)
    response.add(b"location", distribution.blob_path(request.name, Digest(digest)))
    response.add(b"docker-content-digest", digest)
    return response


# -- the lease -------------------------------------------------------------------------------------


async def _claim(registry: Registry, request: Request, upload: str, known: str | None) -> Upload:
    """Take the session's lease for this body, before any of it is read."""
    start = _start(request)
    known = known if registry.settings.content.reuse_known else None

    def work(tx: Transaction) -> Upload:
        now = registry.clock()
        return uploads.claim(
            tx,
            request.name,
            upload,
            request.principal.name,
            start=start,
            known=known,
            now=now,
            lease=bodies.LEASE,
            expires=now + registry.settings.gc.upload_seconds,
            holder=registry.presence.name,
            gone=gone,
        )

    gone: str | None = None
    until = time.monotonic() + registry.patience
    while True:
        try:
            return await registry.write(work, durable=False)
        except BusyError as exc:
            if start is None:  # behind what is there now, or not at all
                start = exc.received
            if gone is None and registry.presence.is_gone(exc.holder):
                gone = exc.holder
            elif time.monotonic() >= until:
                raise
            else:  # whoever was cut off comes back at once, while what had arrived is still being saved
                await asyncio.sleep(_PAUSE)


def _start(request: Request) -> int | None:
    value = request.header(b"content-range")
    if value is None:
        return None
    start, end = distribution.parse_content_range(value)
    length = request.content_length
    if length is not None and length != end - start + 1:
        raise InvalidUploadError(
            f"Content-Range {value}: expected {end - start + 1} bytes, got {length}"
        )
    request.expected = end - start + 1  # a chunked body is counted as it comes
    return start


async def _release(registry: Registry, upload: Upload) -> None:
    await registry.write(lambda tx: uploads.release(tx, upload), durable=False)


# -- chunks ---------------------------------------------------------------------------------------


async def append(registry: Registry, request: Request) -> Response:
    """`PATCH <location>`: a chunk (`Content-Range`) or a stream; what was answered 202 survives.

    Raises:
        UploadUnknownError: no such session for this repository and principal.
        RangeNotSatisfiableError: out of order; said before the body is read, and the session goes on.
        SizeMismatchError: a chunk of another length than its range; nothing of it is kept, and the session goes on.
        LimitExceededError: the session has too many small chunks, or its blob is too large.
        TooManyRequestsError: another body of the session is under way.
    """
    upload = await _claim(registry, request, _identity(registry, request), None)
    try:
        bodies.check_chunks(upload)
        body, segment = await bodies.receive(registry, request, upload, None)
    except BaseException:
        await _release(registry, upload)
        raise
    try:
        grown = await bodies.extend(registry, upload, body, segment or Segment("", 0))
    except TooManyRequestsError:
        await registry.blocking(body.abort)
        raise
    return _progress(registry, request, grown, 202)


async def status(registry: Registry, request: Request) -> Response:
    """`GET <location>`: how far the session is. `0-0` stands for nothing yet, too: the specification has no better.

    While a body is under way this waits for its end for a moment: it may be one that was cut, and is being saved.

    Raises:
        UploadUnknownError: no such session for this repository and principal.
    """
    until = time.monotonic() + registry.patience
    while True:
        upload = await _find(registry, request)
        idle = upload.lease_until < registry.clock() or registry.presence.is_gone(upload.holder)
        if idle or time.monotonic() >= until:
            break
        await asyncio.sleep(_PAUSE)
    return _progress(registry, request, upload, 204)


async def cancel(registry: Registry, request: Request) -> Response:
    """`DELETE <location>`: the session and its bytes go.

    Raises:
        UploadUnknownError: no such session for this repository and principal.
    """
    upload = await _find(registry, request)
    change = registry.change(request)
    await registry.write(lambda tx: uploads.drop(tx, change, upload))
    return Response(204)


async def _find(registry: Registry, request: Request) -> Upload:
    identity = _identity(registry, request)
    return await registry.metadata.read(
        lambda tx: uploads.find(tx, request.name, identity, request.principal.name)
    )


# -- closing --------------------------------------------------------------------------------------


async def complete(registry: Registry, request: Request) -> Response:
    """`PUT <location>?digest=<digest>`: the last bytes, if any, and the blob is there, durable.

    Raises:
        InvalidDigestError: no digest, or one that breaks the grammar or is not supported.
        DigestMismatchError: the bytes hash to something else; the session is over and nothing is kept.
        UploadUnknownError: no such session for this repository and principal.
        RangeNotSatisfiableError: out of order; said before the body is read, and the session goes on.
    """
    digest = _supported(request.parameter("digest") or "")
    upload = await _find(registry, request)
    idle = upload.lease_until < registry.clock()
    if idle and upload.received and upload.algorithm == digest.algorithm and _is_empty(request):
        await _close(registry, request, upload, digest)
    elif idle and not upload.received:
        await _only_body(registry, request, upload, digest)
    else:
        claimed = await _claim(registry, request, upload.id, digest)
        await _last_body(registry, request, claimed, digest)
    return _created(request, digest)


def _is_empty(request: Request) -> bool:
    has_range = b"content-range" in request.headers
    return request.headers.get(b"content-length") == b"0" and not has_range


async def _close(registry: Registry, request: Request, upload: Upload, digest: Digest) -> None:
    """The usual end: everything was received and hashed before, so two strings are compared."""
    change = registry.change(request)
    try:
        bodies.check_size(registry, upload.received)
        if upload.so_far != digest:
            raise DigestMismatchError("blob", expected=digest, actual=upload.so_far)
    except (DigestMismatchError, LimitExceededError):
        await registry.write(lambda tx: uploads.drop(tx, change, upload))
        raise
    await _committed(
        registry,
        lambda tx: uploads.finish(tx, change, upload, request.name, digest, upload.received, None),
    )
    registry.hashers.pop((upload.id, upload.so_far), None)


async def _whole(registry: Registry, request: Request, digest: Digest) -> Response:
    """A blob in one POST: a session nobody but this request knows."""
    upload = await _session(registry, request, digest.algorithm)
    await _only_body(registry, request, upload, digest)
    return _created(request, digest)


async def _only_body(registry: Registry, request: Request, upload: Upload, digest: Digest) -> None:
    """The first body of a session, which is to be its last."""
    if await _is_small(registry, request, digest):
        await _small_body(registry, request, upload, digest)
    else:
        claimed = await _claim(registry, request, upload.id, digest)
        await _last_body(registry, request, claimed, digest)


async def _last_body(registry: Registry, request: Request, upload: Upload, digest: Digest) -> None:
    """Receive the closing body under the lease, check the whole, and commit."""
    change = registry.change(request)
    same = upload.algorithm == digest.algorithm
    if not same and not upload.received:
        upload, same = upload._replace(algorithm=digest.algorithm), True
    try:
        body, segment = await bodies.receive(registry, request, upload, digest if same else None)
        if not same:
            async with bodies.Hold(registry, upload):
                await _check(registry, upload, segment, digest)
    except (DigestMismatchError, LimitExceededError):
        await registry.write(lambda tx: uploads.drop(tx, change, upload))
        raise
    except BaseException:
        await _release(registry, upload)
        raise
    size = upload.received + body.size
    try:
        await _committed(
            registry,
            lambda tx: uploads.finish(tx, change, upload, request.name, digest, size, segment),
        )
    except TooManyRequestsError:
        await registry.blocking(body.abort)
        raise


# -- small bodies ---------------------------------------------------------------------------------

# A body that fits into memory is received whole, checked and written in one go, and committed. Nothing is held while
# it comes: the session is taken by the transaction that ends it, if it still is as it was found.


async def _is_small(registry: Registry, request: Request, digest: Digest) -> bool:
    """Whether a first body is short, is all there is, and brings what the registry does not have."""
    length = request.content_length
    if length is None or not 0 < length <= bodies.SMALL or _start(request):
        return False
    if not registry.settings.content.reuse_known:
        return True
    return not await registry.metadata.read(lambda tx: blobs.healthy(tx, digest))


async def _small_body(registry: Registry, request: Request, upload: Upload, digest: Digest) -> None:
    """The only body of a session, which ends it. The thread that wrote it hands it to the database."""
    change = registry.change(request)
    parts: list[bytes] = []
    try:
        async for piece in request.pieces(bodies.limited(registry, 0), bodies.SMALL):
            parts += piece
    except bodies.CUT:
        await _save(registry, request, upload._replace(algorithm=digest.algorithm), parts)
        raise
    except LimitExceededError:
        await registry.write(lambda tx: uploads.drop(tx, change, upload))
        raise
    key, size = uploads.new_key(upload), request.content_length
    body = bodies.Body(registry, key, hasher(digest.algorithm), keep=True, size=size)
    written = registry.begun(body.whole, parts, digest)

    def work(tx: Transaction) -> None:
        uploads.finish(tx, change, upload, request.name, digest, body.size, written.result())

    try:
        await _committed(registry, work, after=written)
    except TooManyRequestsError:  # somebody else has ended the session, or goes on with it
        await registry.blocking(registry.storage.delete, [key])
        raise
    except DigestMismatchError:
        await registry.write(lambda tx: uploads.drop(tx, change, upload))
        raise


async def _save(registry: Registry, request: Request, upload: Upload, parts: list[bytes]) -> None:
    """Keep what arrived of a small body that was cut, unless the session has gone on meanwhile."""
    try:
        claimed = await _claim(registry, request, upload.id, None)
    except ArgosyError:
        return
    try:
        if not claimed.received:
            claimed = claimed._replace(algorithm=upload.algorithm)
            body = bodies.Body(
                registry, uploads.new_key(claimed), hasher(claimed.algorithm), keep=True, size=None
            )
            await bodies.keep(registry, claimed, body, parts)
    finally:
        await _release(registry, claimed)


async def _check(registry: Registry, upload: Upload, last: Segment | None, digest: Digest) -> None:
    """Read everything again under an algorithm that was only named at the end."""
    parts = await registry.metadata.read(lambda tx: uploads.segments(tx, upload))
    if last is not None:
        parts.append(last)

    def work() -> Digest:
        made = hasher(digest.algorithm)
        for piece in read(registry.storage, tuple(parts), 0, sum(part.size for part in parts)):
            made.update(piece)
        return Digest.done(digest.algorithm, made)

    actual = await registry.blocking(work)
    if actual != digest:
        raise DigestMismatchError("blob", expected=digest, actual=actual)


async def _committed(
    registry: Registry, work: Work[T], *, durable: bool = True, after: Future[Any] | None = None
) -> T:
    """Commit, once more where the collector removed what it builds on this moment."""
    gone = BlobUnknownError("the blob was just collected: push it again")
    return await registry.settled(work, gone, durable=durable, after=after)
