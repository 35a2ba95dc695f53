"""Extension discovery (`_oci/ext/discover`)."""

from __future__ import annotations

from argosy.server.http import Request, Response
from argosy.server.registry import Registry
from argosy.spec import _json

_EXTENSIONS = [
    {
        "name": "_catalog",
        "description": "Docker's list of repositories",
        "url": "https://distribution.github.io/distribution/spec/api/#catalog",
        "endpoints": ["/v2/_catalog"],
    },
    {
        "name": "_oci",
        "description": "extension discovery",
        "url": "https://github.com/opencontainers/distribution-spec/blob/main/extensions/_oci.md",
        "endpoints": ["/v2/_oci/ext/discover", "/v2/{name}/_oci/ext/discover"],
    },
]
_BODY = _json.dumps({"extensions": _EXTENSIONS})


async def discover(registry: Registry, request: Request) -> Response:
    """`GET /v2/_oci/ext/discover` and `GET /v2/<name>/_oci/ext/discover`."""
    del registry, request
    return Response(200, [(b"content-type", b"application/json")], _BODY)
