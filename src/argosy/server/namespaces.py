"""The `ns` parameter (distribution-spec, "Registry Proxying"): a client that uses this registry as a proxy for another
one says which, and asks for names as they are there.

The path is rewritten before anything reads it: to route, rules and cache it is the name below the upstream's prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

from argosy.server.http import Message, Receive, Scope, Send
from argosy.server.settings import Upstream
from argosy.spec.distribution import NAMESPACE_HEADER

__all__ = ["Namespaces"]

_HEADER = NAMESPACE_HEADER.lower().encode()
_START = b"/v2/"


class Namespaces:
    """An ASGI application that maps `?ns=` to prefixes.

    Args:
        app: What it stands in front of.
        upstreams: Whose names can be asked for.
    """

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Any], upstreams: Sequence[Upstream]
    ) -> None:
        self._app = app
        self._prefixes = {upstream.registry: upstream.prefix.encode() for upstream in upstreams}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, under its name here."""
        namespace = self._namespace(scope)
        if namespace is None:
            await self._app(scope, receive, send)
            return
        rest = scope["raw_path"][len(_START) :]
        scope["raw_path"] = _START + self._prefixes[namespace] + b"/" + rest

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                message["headers"] = [*message["headers"], (_HEADER, namespace.encode())]
            await send(message)

        await self._app(scope, receive, named)

    def _namespace(self, scope: Scope) -> str | None:
        """The upstream a pull names; None where it names none of ours, or is no pull of a repository."""
        if scope["type"] != "http" or scope["method"] not in {"GET", "HEAD"}:
            return None
        query: bytes = scope.get("query_string", b"")
        path: bytes = scope["raw_path"]
        if b"ns=" not in query or len(query) > 4096 or not path.startswith(_START):
            return None
        if path == _START or path.startswith(_START + b"_"):
            return None
        (named, *more) = parse_qs(query.decode("latin-1")).get("ns", [""])
        return named if not more and named in self._prefixes else None
