"""Blobs (end-2, end-10)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from argosy.errors import BlobUnknownError, TooManyRequestsError
from argosy.server.conditions import is_same, unchanged
from argosy.server.http import File, Header, OutsideError, Pieces, Request, Response
from argosy.server.metadata import Transaction, blobs
from argosy.server.metadata.blobs import Blob, Segment
from argosy.server.registry import Registry
from argosy.server.storage import Storage
from argosy.spec.digest import Digest

_RANGE = re.compile(r"bytes=(?:(\d{1,99})-(\d{0,99})|-(\d{1,99}))", re.ASCII | re.IGNORECASE)
_TYPE: Header = (b"content-type", b"application/octet-stream")
_ACCEPT: Header = (b"accept-ranges", b"bytes")
_CACHE: Header = (b"cache-control", b"private, max-age=31536000, immutable")


async def get(registry: Registry, request: Request) -> Response:
    """`GET` and `HEAD /v2/<name>/blobs/<digest>`: whole, or one range of it.

    Raises:
        InvalidDigestError: the digest breaks the grammar.
        BlobUnknownError: it is not in the repository, or its bytes were found damaged.
        ConflictError: `If-Match` wants something else.
        OutsideError: the range lies outside it.
    """
    digest = Digest(request.argument)
    head = request.method == "HEAD"
    look = blobs.look if head else blobs.find
    found = await registry.metadata.read(lambda tx: look(tx, request.name, digest))
    if found is None or (head and not await _protected(registry, request, digest, found)):
        return await _elsewhere(registry, request, digest)
    encoded = digest.encode()
    headers = [
        _TYPE,
        _ACCEPT,
        _CACHE,
        (b"docker-content-digest", encoded),
        (b"etag", b'"%s"' % encoded),
    ]
    told = unchanged(request, digest, headers)
    if told is not None:
        return told
    if head:
        return Response(200, headers, length=found.size)
    part = wanted_range(request, digest, found.size)
    return _serve(registry.storage, found, headers, part)


async def _elsewhere(registry: Registry, request: Request, digest: Digest) -> Response:
    mirror = registry.mirror
    if mirror is not None and mirror.covers(request.name):
        response = await mirror.blob(request)
        if response is not None:
            return response
    raise BlobUnknownError(f"blob {digest} is not in {request.name}")


async def _protected(registry: Registry, request: Request, digest: str, found: Blob) -> bool:
    """Whoever hears that a blob is there has the whole grace to refer to it; False where it was collected meanwhile.

    The lease is made twice as long, so that many who ask cost one write a grace, and none where a manifest refers to
    the blob.
    """
    grace = registry.settings.gc.grace_seconds
    if found.protected_until - registry.clock() >= grace:
        return True

    def used(tx: Transaction) -> bool:
        return (
            tx.row(
                "SELECT 1 FROM manifest_ref WHERE repo_id = ? AND blob = ? LIMIT 1",
                (found.repo_id, digest),
            )
            is not None
        )

    if await registry.metadata.read(used):
        return True
    change = registry.change(request)
    return await registry.write(lambda tx: blobs.protect(tx, change, found.repo_id, digest))


def wanted_range(request: Request, digest: str, size: int) -> tuple[int, int] | None:
    """The range that is asked for, [start, stop), or None for everything.

    Raises:
        OutsideError: nothing of it is there, or it ends before it begins.
    """
    value = request.header(b"range")
    return parse_range(value, size) if value is not None and is_same(request, digest) else None


def parse_range(value: str, size: int) -> tuple[int, int] | None:
    """A `Range` header over `size` bytes as [start, stop); None where it is to be ignored (several, other units).

    Raises:
        OutsideError: nothing of it is there, or it ends before it begins.

    >>> parse_range("bytes=500-", 2048), parse_range("bytes=-500", 2048)
    ((500, 2048), (1548, 2048))
    """
    match = _RANGE.fullmatch(value.strip())
    if match is None:
        return None
    if match[3] is not None:
        start, stop = max(0, size - int(match[3])), size
    else:
        start = int(match[1])
        stop = min(size, int(match[2]) + 1) if match[2] else size
    if start >= stop:
        raise OutsideError(f"range {value}: the blob has {size} bytes", size)
    return start, stop


def _serve(
    storage: Storage, found: Blob, headers: list[Header], part: tuple[int, int] | None
) -> Response:
    status = 200
    start, stop = part or (0, found.size)
    if part is not None:
        status = 206
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, found.size)))
    if len(found.segments) == 1:
        key = found.segments[0].key
        place = storage.locate(key, media_type="application/octet-stream")
        if place.url is not None:
            return Response(307, [(b"location", place.url.encode("ascii"))])
        if place.path is not None and stop - start == found.size:
            return Response(status, headers, File(place.path, found.size))
    if stop == start:
        return Response(status, headers)
    return Response(
        status, headers, Pieces(read(storage, found.segments, start, stop), stop - start)
    )


def read(storage: Storage, segments: tuple[Segment, ...], start: int, stop: int) -> Iterator[bytes]:
    """The bytes [start, stop) of some objects laid end to end; nothing is opened before the first is asked for.

    Raises:
        BlobUnknownError: an object is not there.
        StorageError: an object cannot be read, or is shorter than it should be.
    """
    ends = itertools.accumulate(segment.size for segment in segments)
    for segment, end in zip(segments, ends, strict=True):
        begin = end - segment.size
        low, high = max(start, begin) - begin, min(stop, end) - begin
        if low < high:
            yield from storage.read(segment.key, low, high)


async def delete(registry: Registry, request: Request) -> Response:
    """`DELETE /v2/<name>/blobs/<digest>`: out of this repository, at once.

    Raises:
        InvalidDigestError: the digest breaks the grammar.
        BlobUnknownError: it is not there.
        UnsupportedError: a manifest of the repository refers to it.
        TooManyRequestsError: pushes of manifests that refer to it are always quicker.
    """
    digest = Digest(request.argument)
    change = registry.change(request)
    busy = TooManyRequestsError(f"blob {digest} is just being referred to", retry_after=1)
    await registry.settled(lambda tx: blobs.unlink(tx, change, request.name, digest), busy)
    return Response(202)
