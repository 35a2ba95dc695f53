"""The catalog, which the distribution-spec leaves to Docker's legacy and every tool knows."""

from __future__ import annotations

from argosy.errors import AccessError
from argosy.server.handlers import paging
from argosy.server.http import Request, Response
from argosy.server.metadata import repositories
from argosy.server.registry import Registry
from argosy.spec import _json, distribution

_BUDGET = 10_000


async def listing(registry: Registry, request: Request) -> Response:
    """`GET /v2/_catalog`: repositories that hold something and that whoever asks may read, in byte order.

    A page may be short where many may not be read: the Link says that there is more.

    Raises:
        InvalidPageError: `n` is no number.
    """
    size = paging.size(request, registry.settings.limits.page)
    last = request.parameter("last") or ""
    names: list[str] = []
    looked, more = 0, size > 0
    while more and len(names) < size and looked < _BUDGET:
        wanted = max(size - len(names), 100)
        after = last
        batch = await registry.metadata.read(
            lambda tx, after=after, wanted=wanted: repositories.page(tx, after, wanted + 1)  # type: ignore[misc]
        )
        more = len(batch) > wanted
        for name in batch[:wanted]:
            if len(names) == size:
                more = True
                break
            looked, last = looked + 1, name
            if _readable(registry, request, name):
                names.append(name)
    response = Response(200, [(b"content-type", b"application/json")])
    response.body = _json.dumps({"repositories": names})
    if more:
        response.add(b"link", distribution.link("/v2/_catalog", {"n": size, "last": last}))
    return response


def _readable(registry: Registry, request: Request, name: str) -> bool:
    try:
        registry.access.authorize(request.principal, "list", name)
    except AccessError:
        return False
    return True
