"""Conditional requests (RFC 9110, section 13). The entity tag of what is served is its digest, and a strong one."""

from __future__ import annotations

from argosy.errors import ConflictError
from argosy.server.http import Header, Request, Response

__all__ = ["allow", "etags", "is_same", "unchanged"]


def etags(value: str, *, strong: bool = False) -> frozenset[str]:
    """The entity tags of a list, without quotes and weakness; `*` stands for itself.

    Args:
        value: The list.
        strong: Leave out the weak ones, which match nothing where each byte has to be the same.

    >>> sorted(etags('"a", W/"b"')), sorted(etags('"a", W/"b"', strong=True))
    (['a', 'b'], ['a'])
    """
    listed = (part.strip() for part in value.split(","))
    if strong:
        listed = (part for part in listed if not part.startswith("W/"))
    return frozenset(part.removeprefix("W/").strip('"') for part in listed if part)


def allow(request: Request, digest: str | None) -> bool:
    """Whether `If-Match` and `If-None-Match` let a request change what has this digest now (None: nothing)."""
    return _is_matched(request, digest) and not _is_known(request, digest)


def unchanged(request: Request, digest: str, headers: list[Header]) -> Response | None:
    """What `GET` or `HEAD` is answered instead of content: 304 where the client has it; None where it gets it.

    Raises:
        ConflictError: `If-Match` wants something else.
    """
    if not _is_matched(request, digest):
        raise ConflictError(f"the precondition does not hold, it is {digest}")
    return Response(304, headers) if _is_known(request, digest) else None


def is_same(request: Request, digest: str) -> bool:
    """Whether a `Range` is one of this content: `If-Range` is not there, or names it. A date names nothing."""
    condition = request.header(b"if-range")
    return condition is None or digest in etags(condition, strong=True)


def _is_matched(request: Request, digest: str | None) -> bool:
    wanted = request.lines(b"if-match")
    return wanted is None or _is_in(digest, etags(wanted, strong=True))


def _is_known(request: Request, digest: str | None) -> bool:
    known = request.lines(b"if-none-match")
    return known is not None and _is_in(digest, etags(known))


def _is_in(digest: str | None, tags: frozenset[str]) -> bool:
    return digest is not None and ("*" in tags or digest in tags)
