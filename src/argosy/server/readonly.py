"""Nobody pushes into the repositories of a pull-through cache."""

from __future__ import annotations

from collections.abc import Mapping

from argosy.errors import UnsupportedError
from argosy.server.access import Access, Principal, TagGuard, Verb
from argosy.server.registry import Mirror

__all__ = ["ReadOnly"]


class ReadOnly:
    """An `Access` that lets nobody push where the content comes from somewhere else; deleting clears the cache."""

    def __init__(self, access: Access, cache: Mirror) -> None:
        self._access = access
        self._cache = cache

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who asks."""
        return await self._access.authenticate(headers)

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        """Return if they may.

        Raises:
            UnsupportedError: a push below an upstream's prefix.
        """
        self._access.authorize(principal, verb, repository)
        if verb == "push" and repository is not None and self._cache.covers(repository):
            raise UnsupportedError(f"{repository} is a copy: push to its upstream")

    def challenge(self, verb: Verb, repository: str | None) -> str:
        """The inner one's."""
        return self._access.challenge(verb, repository)

    def guard(self, principal: Principal, repository: str) -> TagGuard | None:
        """The inner one's."""
        return self._access.guard(principal, repository)
