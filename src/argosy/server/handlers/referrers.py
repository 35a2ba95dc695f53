"""Referrers (end-12)."""

from __future__ import annotations

from argosy.server.handlers import paging
from argosy.server.http import Request, Response
from argosy.server.metadata import manifests
from argosy.server.metadata.manifests import Referrer
from argosy.server.registry import Registry
from argosy.spec import _json, distribution, mediatypes
from argosy.spec.digest import Digest

_MOST_BYTES = 4 * 1024 * 1024


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
    found = await registry.metadata.read(
        lambda tx: manifests.referrers(tx, request.name, subject, artifact_type, last, size + 1)
    )
    entries: list[bytes] = []
    used = 0
    for referrer in found[:size]:
        entry = _json.dumps(_descriptor(referrer))
        used += len(entry) + 1
        if entries and used > _MOST_BYTES:
            break
        entries.append(entry)
    response = Response(200, [(b"content-type", mediatypes.OCI_INDEX.encode())])
    response.body = _HEAD + b",".join(entries) + b"]}"
    if artifact_type is not None:
        response.add(distribution.FILTERS_HEADER.lower().encode(), "artifactType")
    if entries and len(entries) < len(found):
        more: dict[str, str | int] = {"n": size, "last": found[len(entries) - 1].digest}
        if artifact_type is not None:
            more["artifactType"] = artifact_type
        path = distribution.referrers_path(request.name, subject)
        response.add(b"link", distribution.link(path, more))
    return response


_HEAD = b'{"schemaVersion":2,"mediaType":"%s","manifests":[' % mediatypes.OCI_INDEX.encode()


def _descriptor(referrer: Referrer) -> dict[str, object]:
    made: dict[str, object] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    }
    if referrer.artifact_type:
        made["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        made["annotations"] = referrer.annotations
    return made
