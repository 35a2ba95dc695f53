"""Who may do what: the face the registry asks, and the one answer that says yes to everybody.

The app asks in this order, once a request: `authenticate` (who), `authorize` (may they, on this repository), and inside
the write transaction `guard` (may this very tag be created, moved, deleted). A route without a permission does not
exist: the table of `argosy.server.routes` names one for each.
"""

# ruff: noqa: ARG002
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

__all__ = ["Access", "Anonymous", "Principal", "TagGuard", "Verb"]

Verb = Literal["ping", "catalog", "list", "pull", "push", "delete", "admin", "open"]
"""What a route needs. `ping` and `catalog` have no repository; `open` routes (health, token) are for everybody. `list`
is no route's: it asks whether a repository may stand in the catalog, where a token for the catalog is enough."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks.

    Args:
        name: A stable name; empty for somebody who has not said who they are. Upload sessions are bound to it.
        groups: What they belong to, as said at this request.
        grants: What a token restricts them to, in whatever shape the `Access` that made it reads; None if nothing.
    """

    name: str = ""
    groups: frozenset[str] = frozenset()
    grants: object = None


TagGuard = Callable[[str, str | None, str | None], None]
"""Called inside the transaction with a tag, the digest it has now and the one it will have (None: no such tag);
raises `DeniedError` to refuse. It must be pure: the transaction may be run again."""


class Access(Protocol):
    """Authentication and authorisation."""

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who asks, from the request's headers (lower-case names; the last one of a name that came twice).

        Raises:
            UnauthorizedError: credentials came and are wrong. No credentials are no error here.
        """
        ...

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        """Return if they may.

        Args:
            principal: What `authenticate` returned.
            verb: What the route needs.
            repository: The repository, or None for routes of the whole registry.

        Raises:
            UnauthorizedError: nobody may this without saying who they are; the app adds the challenge.
            DeniedError: they may not.
        """
        ...

    def challenge(self, verb: Verb, repository: str | None) -> str:
        """The `WWW-Authenticate` header that goes with a 401."""
        ...

    def guard(self, principal: Principal, repository: str) -> TagGuard | None:
        """The rules of a repository's tags for this principal, or None where there are none."""
        ...


class Anonymous:
    """Everybody may do everything: the default, and only sensible on loopback.

    >>> Anonymous().authorize(Principal(), "delete", "a/b")
    """

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Nobody in particular."""
        return _NOBODY

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        """Yes."""

    def challenge(self, verb: Verb, repository: str | None) -> str:
        """Never sent, but a 401 without one is no HTTP."""
        return 'Basic realm="argosy"'

    def guard(self, principal: Principal, repository: str) -> TagGuard | None:
        """No rules."""
        return None


_NOBODY = Principal()
