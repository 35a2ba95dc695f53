"""Keyset paging, the same for every list: `n`, `last`, and a relative Link to the next page."""

from __future__ import annotations

from argosy.errors import UsageError
from argosy.server.http import Request


class InvalidPageError(UsageError):
    """A page nobody can make."""

    code = "UNSUPPORTED"


def size(request: Request, most: int) -> int:
    """How many entries a page has: `n`, or as many as are allowed.

    Raises:
        InvalidPageError: `n` is no number.
    """
    wanted = request.parameter("n")
    if wanted is None:
        return most
    if not (wanted.isascii() and wanted.isdigit()) or len(wanted) > 40:
        raise InvalidPageError(f"n: expected a number, got {wanted[:50]!r}")
    return min(int(wanted), most)
