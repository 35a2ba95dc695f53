"""The one table: method and pattern, what it needs, who answers. What is not in it does not exist.

A route is found from `scope["raw_path"]`, once, and nobody reads the path again. Percent-encoding is undone where it
stands for a character that means nothing in a path (`:` of a digest); everything else that is encoded is refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from argosy.errors import UnsupportedError
from argosy.server.access import Verb
from argosy.server.handlers import (
    blobs,
    catalog,
    extensions,
    health,
    manifests,
    referrers,
    tags,
    uploads,
)
from argosy.server.http import MisdirectedError, Request, Response, TooLongError
from argosy.spec.reference import parse_name

if TYPE_CHECKING:
    from argosy.server.registry import Registry

Handler = Callable[["Registry", Request], Awaitable[Response]]

MAX_PATH = 2048
"""Longest path in bytes: 255 for a name, 1024 for a digest of an unknown algorithm, and the fixed parts."""


class Route(NamedTuple):
    """One line of the table.

    Args:
        methods: The methods it answers.
        pattern: The path; `{name}` is a repository's name, `{argument}` one part that is not empty.
        verb: What whoever asks must be allowed to do. There is no route without one.
        handler: Who answers.
        label: What the log and the counters call it.
        stored: Whether it is worth nothing without the storage the database speaks of.
    """

    methods: tuple[str, ...]
    pattern: str
    verb: Verb
    handler: Handler
    label: str
    stored: bool = False


ROUTES: tuple[Route, ...] = (
    Route(("GET", "HEAD"), "/v2/", "ping", health.ping, "ping"),
    Route(("GET", "HEAD"), "/v2", "ping", health.ping, "ping"),
    Route(("GET", "HEAD"), "/livez", "open", health.live, "livez"),
    Route(("GET", "HEAD"), "/readyz", "open", health.is_ready, "readyz"),
    Route(("GET", "HEAD"), "/v2/_catalog", "catalog", catalog.listing, "catalog"),
    Route(("GET", "HEAD"), "/v2/_oci/ext/discover", "ping", extensions.discover, "discover"),
    Route(("GET", "HEAD"), "/v2/{name}/_oci/ext/discover", "pull", extensions.discover, "discover"),
    Route(("GET", "HEAD"), "/v2/{name}/tags/list", "pull", tags.listing, "tags"),
    Route(("GET", "HEAD"), "/v2/{name}/manifests/{argument}", "pull", manifests.get, "manifest"),
    Route(
        ("PUT",), "/v2/{name}/manifests/{argument}", "push", manifests.put, "manifest", stored=True
    ),
    Route(("DELETE",), "/v2/{name}/manifests/{argument}", "delete", manifests.delete, "manifest"),
    Route(
        ("GET", "HEAD"), "/v2/{name}/referrers/{argument}", "pull", referrers.listing, "referrers"
    ),
    Route(("POST",), "/v2/{name}/blobs/uploads/", "push", uploads.begin, "uploads", stored=True),
    Route(("POST",), "/v2/{name}/blobs/uploads", "push", uploads.begin, "uploads", stored=True),
    Route(
        ("PATCH",),
        "/v2/{name}/blobs/uploads/{argument}",
        "push",
        uploads.append,
        "upload",
        stored=True,
    ),
    Route(
        ("PUT",),
        "/v2/{name}/blobs/uploads/{argument}",
        "push",
        uploads.complete,
        "upload",
        stored=True,
    ),
    Route(("GET",), "/v2/{name}/blobs/uploads/{argument}", "push", uploads.status, "upload"),
    Route(("DELETE",), "/v2/{name}/blobs/uploads/{argument}", "push", uploads.cancel, "upload"),
    Route(("GET", "HEAD"), "/v2/{name}/blobs/{argument}", "pull", blobs.get, "blob", stored=True),
    Route(("DELETE",), "/v2/{name}/blobs/{argument}", "delete", blobs.delete, "blob"),
)


class WrongMethodError(UnsupportedError):
    """There is such a path, but not with this method."""

    def __init__(self, method: str, allowed: Sequence[str]) -> None:
        super().__init__(f"{method[:20]}: expected {' or '.join(allowed)}")
        self.allowed = ", ".join(allowed)


class Match(NamedTuple):
    """Where a request goes."""

    route: Route
    name: str
    argument: str


class Table:
    """The table, compiled: one regular expression a pattern, answers remembered by method and path.

    >>> Table(ROUTES).match("GET", b"/v2/a/b/tags/list").name
    'a/b'
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._patterns: list[tuple[re.Pattern[bytes], dict[str, Route]]] = []
        by_pattern: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods = by_pattern.setdefault(route.pattern, {})
            for method in route.methods:
                assert method not in methods, f"{method} {route.pattern} stands twice"
                methods[method] = route
        for pattern, methods in by_pattern.items():
            text = re.escape(pattern).replace(r"\{name\}", "(?P<name>.+)")
            text = text.replace(r"\{argument\}", "(?P<argument>[^/]+)")
            self._patterns.append((re.compile(text.encode(), re.DOTALL), methods))
        self.match = functools.lru_cache(4096)(self._match)

    def _match(self, method: str, raw_path: bytes) -> Match:
        """Where a request goes.

        Raises:
            MisdirectedError: nowhere.
            WrongMethodError: there, but not with this method.
            InvalidNameError: the repository's name breaks the grammar.
            TooLongError: the path is longer than any that means something.
        """
        if len(raw_path) > MAX_PATH:
            raise TooLongError(f"path of {len(raw_path)} bytes: expected at most {MAX_PATH}")
        raw_path = _decoded(raw_path)
        for pattern, methods in self._patterns:
            found = pattern.fullmatch(raw_path)
            if found is None:
                continue
            parts = found.groupdict()
            name, argument = parts.get("name") or b"", parts.get("argument") or b""
            route = methods.get(method)
            if name:
                parse_name(name.decode("ascii"))
            if route is None:
                raise WrongMethodError(method, sorted(methods))
            return Match(route, name.decode("ascii"), argument.decode("ascii"))
        raise MisdirectedError("no such route")


_PLAIN = re.compile(rb"/[A-Za-z0-9/._:@=+~-]*")
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
_HARMLESS = re.compile(rb"[A-Za-z0-9._:@=+~-]")


def _decoded(raw_path: bytes) -> bytes:
    """The path with what clients encode out of caution (`sha256%3A...`) decoded, once.

    Raises:
        MisdirectedError: an encoded slash, dot segments, empty segments, or anything no path of ours has.
    """
    path = _ENCODED.sub(_unescape, raw_path) if b"%" in raw_path else raw_path
    if not _PLAIN.fullmatch(path) or b"//" in path or b"/../" in path + b"/":
        raise MisdirectedError("path: expected plain characters, no encoded '/', no '//' or '..'")
    return path


def _unescape(match: re.Match[bytes]) -> bytes:
    character = bytes.fromhex(match[1].decode())
    return character if _HARMLESS.fullmatch(character) else match[0]
