"""A registry: a host that speaks the distribution-spec, and the repositories in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Self

from argosy.errors import NotFoundError, RegistryError, UnsupportedError
from argosy.remote import flows
from argosy.remote.config import Endpoint, Options
from argosy.remote.repository import Repository
from argosy.remote.session import Session
from argosy.remote.wire import Flow, Request, Response, Transport, run
from argosy.spec._value import replace
from argosy.spec.distribution import API_VERSION_HEADER
from argosy.spec.reference import parse_registry


class Registry:
    """A registry. Safe to use from several threads.

    Args:
        name: `host[:port]`, or `docker.io`.
        options: How to talk to it.
        transport: What sends its requests, where it is not sockets of its own.

    Raises:
        InvalidReferenceError: the name is no host.

    Example:
        >>> with Registry("Registry.example:5000") as registry:
        ...     str(registry)
        'registry.example:5000'
    """

    def __init__(
        self, name: str, options: Options | None = None, *, transport: Transport | None = None
    ) -> None:
        self.name = parse_registry(name)
        self.options = options or Options()
        self._transport = transport
        self._lock = threading.Lock()
        self._sessions: dict[tuple[str, bool, bool], Session] = {}

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def repository(self, name: str, *, mirrors: bool = True, ahead: bool = False) -> Repository:
        """A repository of this registry; whether it exists is not asked. `mirrors`, `ahead`: see `Repository`.

        Raises:
            InvalidNameError: the name breaks the specification's grammar.
        """
        return Repository(self, name, mirrors=mirrors, ahead=ahead)

    def ping(self, *, introduce: bool = False) -> Ping:
        """Ask whether a registry is there, with credentials if it wants some (end-1).

        Args:
            introduce: Whether to show credentials also where it wants none: some look at them all the same.

        Raises:
            UnauthorizedError: it wants credentials, and none or wrong ones are known.
            DeniedError: it knows who asks, and lets them do nothing.
            UnsupportedError: what is there is no registry.
        """
        session = self.session()
        if introduce:
            session.introduce(())
        started = time.perf_counter()
        response = run(_ping(), session)
        seconds = time.perf_counter() - started
        if response.status == 404:
            raise UnsupportedError(f"{self.name} answers, but is no registry: /v2/ is not there")
        return Ping(
            session.base,
            response.headers.get(API_VERSION_HEADER),
            seconds,
            dict(session.rate_limit),
        )

    def catalog(self) -> Iterator[str]:
        """The names of all repositories, each once, page by page as they are asked for.

        The specification has no such list; most registries have, many only for some users. Where there is a credential
        it is used, also where the list of what anybody may see could be had without.

        Raises:
            UnsupportedError: this one has not.
        """
        scopes = ("registry:catalog:*",)
        self.session().introduce(scopes)
        try:
            yield from self.listed("/v2/_catalog", "repositories", scopes)
        except NotFoundError:
            raise UnsupportedError(f"{self.name} has no list of its repositories") from None

    def authorization(self, *scopes: str) -> str:
        """The value of the `Authorization` header that the registry wants for `scopes`; empty if none.

        Raises:
            UnauthorizedError: no credentials that are known satisfy it.
        """
        return self.session().authorization(scopes)

    def close(self) -> None:
        """Close the connections nobody uses."""
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    # ------------------------------------------------------------------------------------------- for this room's use

    def session(self, place: Endpoint | None = None) -> Session:
        """The session of the registry itself, or of another place its content can be read from."""
        whole = Endpoint(self.name, "", self.options.registries.insecure(self.name))
        place = place or whole
        key = (place.registry, place.insecure, place.mirror)
        with self._lock:
            found = self._sessions.get(key)
            if found is None:
                options = self.options
                if place.mirror:  # there is another place to ask, which does not wait for long
                    options = replace(options, attempts=min(2, options.attempts), max_wait=0.0)
                found = self._sessions[key] = Session(
                    place.registry, options, insecure=place.insecure, transport=self._transport
                )
        return found

    def listed(
        self,
        path: str,
        member: str,
        scopes: Sequence[str],
        place: Endpoint | None = None,
    ) -> Iterator[str]:
        """The strings of a list that comes in pages, from the registry itself or where else it is.

        Raises:
            RegistryError: the pages have no end, or one is no list.
        """
        url, session = flows.first_page(path), self.session(place)
        seen: set[str] = set()
        visited: set[str] = set()
        while url and url not in visited:
            visited.add(url)
            value, page = run(flows.page(url, member, scopes), session)
            found = value.get(member)
            if not isinstance(found, list) and found is not None:
                raise RegistryError(f"{self.name}: {path}: {member}: expected an array")
            named = dict.fromkeys(item for item in found or () if isinstance(item, str))
            fresh = [item for item in named if item not in seen]
            seen.update(fresh)
            yield from fresh
            if not fresh and found:
                return  # a registry that ignores where we are would send this page for ever
            if len(visited) >= flows.MAX_PAGES:
                raise RegistryError(f"{self.name}: {path} has no end after {len(visited)} pages")
            url = session.next_page(page)


class Ping:
    """What a registry said when it was asked whether it is there: its URL, API version, seconds, and rate limits."""

    __slots__ = ("rate_limit", "seconds", "url", "version")

    def __init__(self, url: str, version: str, seconds: float, rate_limit: dict[str, str]) -> None:
        self.url, self.version, self.seconds, self.rate_limit = url, version, seconds, rate_limit


def _ping() -> Flow[Response]:
    return (yield Request(method="GET", url="/v2/", statuses=(404,)))
