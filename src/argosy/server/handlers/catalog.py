"""The catalog, which the distribution-spec leaves to Docker's legacy and every tool knows."""

from __future__ import annotations

import asyncio
import hmac
import re

from argosy.errors import AccessError
from argosy.server.handlers import paging
from argosy.server.http import Request, Response
from argosy.server.metadata import repositories
from argosy.server.registry import Registry
from argosy.spec import _json, distribution

_PATH = "/v2/_catalog"
_BUDGET = 10_000
_PLACE = re.compile(r"([0-9]{1,18})\.([0-9a-f]{32})")


async def listing(registry: Registry, request: Request) -> Response:
    """`GET /v2/_catalog`: repositories that hold something and that whoever asks may read, in byte order.

    A page may be short where many may not be read: the Link says that there is more, and no name of theirs.

    Raises:
        InvalidPageError: `n` is no number.
    """
    size = paging.size(request, registry.settings.limits.page)
    last = request.parameter("last") or ""
    at = await _resumed(registry, request) or last
    names: list[str] = []
    looked, more = 0, size > 0
    while more and len(names) < size and looked < _BUDGET:
        wanted = max(size - len(names), 100)
        after = at
        batch = await registry.metadata.read(
            lambda tx, after=after, wanted=wanted: repositories.page(tx, after, wanted + 1)  # type: ignore[misc]
        )
        more = len(batch) > wanted
        for name in batch[:wanted]:
            if len(names) == size:
                more = True
                break
            looked, at = looked + 1, name
            if _readable(registry, request, name):
                names.append(name)
        await asyncio.sleep(0)  # to look at so many takes long enough for others to wait for it
    response = Response(200, [(b"content-type", b"application/json")])
    response.body = _json.dumps({"repositories": names})
    if more:
        shown = names[-1] if names else last
        parameters: dict[str, str | int] = {"n": size, "last": shown}
        if at != shown:
            parameters["at"] = await _place(registry, request, at)
        response.add(b"link", distribution.link(_PATH, parameters))
    return response


async def _place(registry: Registry, request: Request, name: str) -> str:
    """Where a page has stopped, at a repository that may be none of theirs: its number says nothing, and nobody can
    make up another one to learn between which names it stands."""
    number = await registry.metadata.read(lambda tx: repositories.find(tx, name))
    return f"{number or 0}.{_signed(registry, request, str(number or 0))}"


async def _resumed(registry: Registry, request: Request) -> str | None:
    """The repository a page is to begin behind; None where no place is named, or it is there no more."""
    found = _PLACE.fullmatch(request.parameter("at") or "")
    if found is None or not hmac.compare_digest(_signed(registry, request, found[1]), found[2]):
        return None
    number = int(found[1])
    return await registry.metadata.read(lambda tx: repositories.name_of(tx, number))


def _signed(registry: Registry, request: Request, number: str) -> str:
    return registry.sign("_catalog", number, request.principal.name)


def _readable(registry: Registry, request: Request, name: str) -> bool:
    try:
        registry.access.authorize(request.principal, "list", name)
    except AccessError:
        return False
    return True
