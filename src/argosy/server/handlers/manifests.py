"""Manifests (end-3, end-7, end-9)."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

from argosy.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidManifestError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
    TooManyRequestsError,
    UnsupportedError,
)
from argosy.server.access import TagGuard
from argosy.server.conditions import allow, unchanged
from argosy.server.handlers import referrers
from argosy.server.http import Header, Limits, Request, Response, TooLongError
from argosy.server.metadata import Transaction, manifests, repositories
from argosy.server.metadata.manifests import New, Reference, Stored
from argosy.server.registry import Registry
from argosy.spec import distribution, mediatypes
from argosy.spec import manifest as spec_manifest
from argosy.spec.digest import Digest
from argosy.spec.manifest import AnyManifest, Index, decode_manifest
from argosy.spec.reference import parse_tag

_BIG = 256 * 1024
_HEADER_BYTES = 4096
_MOST_WARNINGS = 20


async def get(registry: Registry, request: Request) -> Response:
    """`GET` and `HEAD /v2/<name>/manifests/<tag-or-digest>`: the exact bytes that were pushed, under their type.

    Raises:
        InvalidDigestError: a digest that breaks the grammar.
        InvalidTagError: a tag that breaks it.
        ManifestUnknownError: not in this repository.
        ConflictError: `If-Match` wants something else.
    """
    reference = request.argument
    mirror = registry.mirror
    if mirror is not None and mirror.covers(request.name):
        await mirror.manifest(request)
    found = await registry.metadata.read(lambda tx: manifests.find(tx, request.name, reference))
    head = request.method == "HEAD"
    if found is None or (head and not await _protected(registry, request, found)):
        _checked(reference)
        raise ManifestUnknownError(f"manifest {reference} is not in {request.name}")
    headers = _headers(found)
    told = unchanged(request, found.digest, headers)
    if told is not None:
        return told
    if head:
        return Response(200, headers, length=found.size)
    content = registry.manifests.get(found.digest)
    if content is None:
        content = await registry.metadata.read(lambda tx: manifests.content(tx, found))
        if content is None:
            raise ManifestUnknownError(f"manifest {reference} is not in {request.name}")
        registry.manifests.put(found.digest, content)
    return Response(200, headers, content)


async def _protected(registry: Registry, request: Request, found: Stored) -> bool:
    """Whoever hears that a manifest without a tag is there has the whole grace to refer to it, as for blobs; False
    where it was collected meanwhile. Nothing is asked where such manifests stay for ever, or a tag holds this one."""
    rules = registry.settings.gc
    if not rules.untagged or ":" not in request.argument:
        return True
    change = registry.change(request)

    def is_safe(tx: Transaction) -> bool:
        until = manifests.lease(tx, found)
        return until is not None and (
            until - change.now >= change.grace
            or manifests.is_wanted(tx, found.repo_id, found.digest)
        )

    if await registry.metadata.read(is_safe):
        return True
    return await registry.write(lambda tx: manifests.protect(tx, change, found))


def _headers(found: Stored) -> list[Header]:
    digest = found.digest.encode()
    return [
        (b"content-type", found.media_type.encode()),
        (b"docker-content-digest", digest),
        (b"etag", b'"%s"' % digest),
    ]


def _checked(reference: str) -> Digest | None:
    """The digest a reference is, or None where it is a tag; either is checked."""
    if ":" in reference:
        return Digest(reference)
    parse_tag(reference)
    return None


async def put(registry: Registry, request: Request) -> Response:
    """`PUT /v2/<name>/manifests/<tag-or-digest>[?tag=…]`: stored as received, with its tags, or not at all.

    `If-Match` and `If-None-Match` compare with what each of the tags is at this moment, inside the transaction; where
    there is none, with the manifest itself.

    Raises:
        InvalidManifestError: the document breaks the specification, can be taken for two things, or is here as another.
        DigestMismatchError: the bytes hash to another digest than the one in the path.
        ManifestBlobUnknownError: it refers to what the repository does not hold.
        LimitExceededError: it or its annotations are too large (413), or more tags than are taken (414).
        ConflictError: the precondition does not hold.
        DeniedError: one of the tags may not be set.
    """
    given = _checked(request.argument)
    tags = _tags(registry, request, given)
    settings = registry.settings.limits
    limits = Limits(settings.body_idle_seconds, settings.body_seconds, settings.manifest_bytes)
    raw = await request.read(limits)
    new = await _parsed(registry, raw, request.header(b"content-type"), given)
    await _store(registry, request, new, tags)
    registry.manifests.put(new.digest, raw)
    response = Response(201)
    response.add(b"location", distribution.manifest_path(request.name, new.digest))
    response.add(b"docker-content-digest", new.digest)
    response.add(b"etag", f'"{new.digest}"')
    if new.subject is not None:
        response.add(b"oci-subject", new.subject)
    if given is not None or len(tags) > 1:  # one alone is the path's own
        _add_tags(response, tags)
    _add_warnings(response, new.problems)
    return response


def _tags(registry: Registry, request: Request, given: Digest | None) -> list[str]:
    named = [parse_tag(tag) for tag in request.parameters("tag")]
    most = registry.settings.limits.tags_per_push
    if len(named) > most:
        raise TooLongError(f"{len(named)} tags: expected at most {most}")
    if given is None:
        named.insert(0, request.argument)
    return list(dict.fromkeys(named))


def _add_tags(response: Response, tags: list[str]) -> None:
    """One `OCI-Tag` header for as many tags as fit into a line of sane length."""
    line = ""
    for tag in tags:
        if line and len(line) + len(tag) > _HEADER_BYTES:
            response.add(b"oci-tag", line)
            line = ""
        line = f"{line}, {tag}" if line else tag
    if line:
        response.add(b"oci-tag", line)


def _add_warnings(response: Response, problems: Iterable[str]) -> None:
    """One `Warning` header a problem, as long as all of them stay within what the specification allows."""
    left = distribution.MAX_WARNING
    for problem in problems:
        value = distribution.warning(problem)
        left -= len(value)
        if left < 0:
            return
        response.add(b"warning", value)


async def _parsed(
    registry: Registry, raw: bytes, content_type: str | None, given: Digest | None
) -> New:
    work = functools.partial(_pushed, raw, content_type, given)
    if len(raw) < _BIG:
        return work()
    async with registry.big:  # a few large documents at a time: each costs many times its bytes
        return await registry.blocking(work)


def _pushed(raw: bytes, content_type: str | None, given: Digest | None) -> New:
    new = parse(raw, content_type, given, strict=True)
    referrers.check(new)
    return new


def parse(
    raw: bytes, content_type: str | None, given: Digest | None = None, *, strict: bool = False
) -> New:
    """A manifest out of received bytes, checked; strictly where it is new, not where others have taken it in before.

    Raises:
        InvalidManifestError: it breaks the specification or is of a type the registry does not take.
        DigestMismatchError: it hashes to another digest than `given`.
    """
    digest = Digest.of(raw, given.algorithm if given else "sha256")
    if given is not None and digest != given:
        raise DigestMismatchError("manifest", expected=given, actual=digest)
    try:
        parsed = decode_manifest(raw, content_type, limit=max(len(raw), 1), strict=strict)
    except UnsupportedError as exc:
        raise InvalidManifestError(str(exc)) from exc
    return New(
        digest,
        parsed.media_type,
        raw,
        parsed.subject.digest if parsed.subject else None,
        parsed.kind,
        dict(parsed.annotations),
        _references(parsed),
        tuple(itertools.islice(spec_manifest.problems(parsed), _MOST_WARNINGS)),
    )


def _references(parsed: AnyManifest) -> tuple[Reference, ...]:
    if isinstance(parsed, Index):
        return tuple(
            Reference("manifest" if entry.is_manifest() else "blob", entry.digest)
            for entry in parsed.manifests
        )
    return tuple(
        Reference("blob", d.digest, bool(d.urls) or d.media_type in mediatypes.NONDISTRIBUTABLE)
        for d in parsed.children()
    )


async def _store(registry: Registry, request: Request, new: New, tags: list[str]) -> None:
    change = registry.change(request)
    precondition = functools.partial(allow, request) if _is_conditional(request) else None
    guard = registry.access.guard(request.principal, request.name)
    sparse = registry.sparse(request.name)

    def work(tx: Transaction) -> None:
        repo = (repositories.ensure(tx, request.name, change), request.name)
        manifests.put(
            tx, change, repo, new, tags, sparse=sparse, guard=guard, precondition=precondition
        )

    gone = f"manifest {new.digest} refers to a blob that was just collected: push it again"
    await registry.settled(work, ManifestBlobUnknownError(gone))


def _is_conditional(request: Request) -> bool:
    return b"if-match" in request.headers or b"if-none-match" in request.headers


def _seen(request: Request, guard: TagGuard | None, tag: str, old: str | None, _: None) -> None:
    """Let a tag go that is where the client saw it.

    Raises:
        ConflictError: it is not.
        DeniedError: the guard refuses.
    """
    if not allow(request, old):
        raise manifests.not_as_seen(tag, is_there=True)
    if guard is not None:
        guard(tag, old, None)


async def delete(registry: Registry, request: Request) -> Response:
    """`DELETE /v2/<name>/manifests/<tag-or-digest>`: a tag alone, or a manifest with all its tags.

    Raises:
        ManifestUnknownError: not in this repository.
        ConflictError: `If-Match` or `If-None-Match` does not hold, for a tag inside the transaction.
        DeniedError: a tag that would go may not.
        TooManyRequestsError: pushes of what lists it are always quicker.
    """
    digest = _checked(request.argument)
    change = registry.change(request)
    guard = registry.access.guard(request.principal, request.name)
    if digest is None:
        if _is_conditional(request):
            guard = functools.partial(_seen, request, guard)
        await registry.write(
            lambda tx: manifests.delete_tag(tx, change, request.name, request.argument, guard)
        )
    elif not allow(request, digest):
        raise ConflictError(f"the precondition does not hold, it is {digest}")
    else:
        busy = TooManyRequestsError(f"manifest {digest} is just being referred to", retry_after=1)
        await registry.settled(
            lambda tx: manifests.delete(tx, change, request.name, digest, guard), busy
        )
    return Response(202)
