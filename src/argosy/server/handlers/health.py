"""The version check (end-1), and whether this worker lives and is ready."""

from __future__ import annotations

from argosy.server.http import Request, Response
from argosy.server.registry import Registry

_JSON = (b"content-type", b"application/json")


async def ping(registry: Registry, request: Request) -> Response:
    """`GET /v2/`: this is a registry, and whoever asks is who they say."""
    del registry, request
    return Response(200, [_JSON], b"{}")


async def live(registry: Registry, request: Request) -> Response:
    """`GET /livez`: the process answers."""
    del registry, request
    return Response(200, [_JSON], b'{"status":"ok"}')


async def is_ready(registry: Registry, request: Request) -> Response:
    """`GET /readyz`: database and storage answer, and nobody has asked to stop."""
    del request
    if not registry.ready:
        return _unready("stopping")
    silent = await registry.probe.silent()
    if silent is not None:
        return _unready(f"the {silent} does not answer")
    return Response(200, [_JSON], b'{"status":"ok"}')


def _unready(status: str) -> Response:
    return Response(503, [_JSON, (b"retry-after", b"1")], b'{"status":"%s"}' % status.encode())
