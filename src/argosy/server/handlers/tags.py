"""Tags (end-8)."""

from __future__ import annotations

from argosy.errors import NameUnknownError
from argosy.server.handlers import paging
from argosy.server.http import Request, Response
from argosy.server.metadata import Transaction, repositories
from argosy.server.registry import Registry
from argosy.spec import _json, distribution


async def listing(registry: Registry, request: Request) -> Response:
    """`GET /v2/<name>/tags/list`: in byte order, `n` at most, after `last`.

    Raises:
        NameUnknownError: no such repository.
        InvalidPageError: `n` is no number.
    """
    size = paging.size(request, registry.settings.limits.page)
    last = request.parameter("last") or ""

    found = await _elsewhere(registry, request.name, last, size + 1)
    if found is None:
        found = await _here(registry, request.name, last, size + 1)
    if found is None:
        raise NameUnknownError(f"repository {request.name} is not known")
    page = found[:size]
    response = Response(200, [(b"content-type", b"application/json")])
    response.body = _json.dumps({"name": request.name, "tags": page})
    if page and len(found) > size:
        path = distribution.tags_path(request.name)
        response.add(b"link", distribution.link(path, {"n": size, "last": page[-1]}))
    return response


async def _elsewhere(registry: Registry, name: str, last: str, most: int) -> list[str] | None:
    mirror = registry.mirror
    if mirror is None or not mirror.covers(name):
        return None
    tags = await mirror.tags(name)
    return None if tags is None else [tag for tag in tags if tag > last][:most]


async def _here(registry: Registry, name: str, last: str, most: int) -> list[str] | None:
    def work(tx: Transaction) -> list[str] | None:
        repo_id = repositories.find(tx, name)
        return None if repo_id is None else repositories.tags(tx, repo_id, last, most)

    return await registry.metadata.read(work)
