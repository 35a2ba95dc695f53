"""Referrers (end-12): what fits on a page is chosen by its size, before any annotations are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argosy.errors import LimitExceededError
from argosy.server.handlers import paging
from argosy.server.http import Request, Response
from argosy.server.metadata import manifests
from argosy.server.metadata.manifests import New, Referrer
from argosy.server.registry import Registry
from argosy.spec import _json, distribution, mediatypes
from argosy.spec.digest import Digest

_MOST_BYTES = 4 * 1024 * 1024
"""Of a page, and of the annotations of one manifest: no client needs to take a larger index."""

_MUCH = 64 * 1024
_NOTED = b',"annotations":'


async def listing(registry: Registry, request: Request) -> Response:
    """`GET /v2/<name>/referrers/<digest>`: an index of the manifests with this subject, which need not exist.

    Raises:
        InvalidDigestError: the digest breaks the grammar.
        InvalidPageError: `n` is no number.
    """
    subject = Digest(request.argument)
    size = paging.size(request, registry.settings.limits.page)
    artifact_type = request.parameter("artifactType")
    last = request.parameter("last") or ""
    found, notes = await _elsewhere(registry, request.name, subject, artifact_type, last) or (
        await registry.metadata.read(
            lambda tx: manifests.referrers(tx, request.name, subject, artifact_type, last, size + 1)
        ),
        None,
    )
    page = _fitting(found[:size])
    entries = await _entries(registry, request.name, page, notes)
    response = Response(200, [(b"content-type", mediatypes.OCI_INDEX.encode())])
    response.body = _HEAD + b",".join(entries) + b"]}"
    if artifact_type is not None:
        response.add(distribution.FILTERS_HEADER.lower().encode(), "artifactType")
    if page and len(page) < len(found):
        more: dict[str, str | int] = {"n": size, "last": page[-1].digest}
        if artifact_type is not None:
            more["artifactType"] = artifact_type
        path = distribution.referrers_path(request.name, subject)
        response.add(b"link", distribution.link(path, more))
    return response


_HEAD = b'{"schemaVersion":2,"mediaType":"%s","manifests":[' % mediatypes.OCI_INDEX.encode()


def check(new: New) -> None:
    """Refuse a manifest that no page of referrers could show with all its annotations, as it must.

    Raises:
        LimitExceededError: its annotations are too large.
    """
    if new.subject is not None and len(new.content) > _MOST_BYTES:
        size = len(_json.dumps(new.annotations))
        if size > _MOST_BYTES:
            raise LimitExceededError(
                f"annotations of {size} bytes: expected at most {_MOST_BYTES} beside a subject"
            )


def _fitting(found: Sequence[Referrer]) -> list[Referrer]:
    """As many as fit on a page, one at least."""
    page: list[Referrer] = []
    used = 0
    for referrer in found:
        used += len(_entry(referrer)) + _noted(referrer)
        if page and used > _MOST_BYTES:
            break
        page.append(referrer)
    return page


def _noted(referrer: Referrer) -> int:
    """Bytes of the annotations that are shown: none where they are more than a page (older versions took such)."""
    return referrer.noted + len(_NOTED) if 0 < referrer.noted <= _MOST_BYTES else 0


async def _elsewhere(
    registry: Registry, name: str, subject: Digest, artifact_type: str | None, last: str
) -> tuple[list[Referrer], Mapping[str, bytes]] | None:
    """What the upstream of a cached repository lists after `last`, and its annotations; None: look at what is here."""
    mirror = registry.mirror
    if mirror is None or not mirror.covers(name):
        return None
    listed = await mirror.referrers(name, subject)
    if listed is None:
        return None
    found: list[Referrer] = []
    notes: dict[str, bytes] = {}
    for desc in listed:
        if desc.digest > last and artifact_type in {None, desc.artifact_type}:
            if desc.annotations:
                notes[desc.digest] = _json.dumps(dict(desc.annotations))
            noted = len(notes.get(desc.digest, b""))
            found.append(
                Referrer(desc.digest, desc.media_type, desc.size, desc.artifact_type, noted)
            )
    return found, notes


async def _entries(
    registry: Registry, name: str, page: Sequence[Referrer], notes: Mapping[str, bytes] | None
) -> list[bytes]:
    """The descriptors of a page. A manifest that went while its annotations were looked for is left out."""
    wanted = [referrer.digest for referrer in page if _noted(referrer)]
    if notes is None:
        slow = sum(map(_noted, page)) > _MUCH
        notes = await _annotations(registry, name, wanted, slow=slow) if wanted else {}
    gone = set(wanted) - notes.keys()
    return [_entry(one, notes.get(one.digest)) for one in page if one.digest not in gone]


async def _annotations(
    registry: Registry, name: str, digests: Sequence[str], *, slow: bool
) -> dict[str, bytes]:
    return await registry.metadata.read(
        lambda tx: manifests.annotations_of(tx, name, digests), slow=slow
    )


def _entry(referrer: Referrer, annotations: bytes | None = None) -> bytes:
    made: dict[str, object] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    }
    if referrer.artifact_type:
        made["artifactType"] = referrer.artifact_type
    entry = _json.dumps(made)
    return entry[:-1] + _NOTED + annotations + b"}" if annotations is not None else entry
