"""Where one blob can be read from: mirrors, the registry itself, and at last the blob's own `urls`.

A download goes through them in that order and never back: a place that failed is not asked again, and the next one
goes on where it stopped.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote

from argosy.content.protocols import SupportsRead
from argosy.errors import (
    ArgosyError,
    IntegrityError,
    RegistryError,
    ResponseError,
    TooManyRequestsError,
    TransportError,
)
from argosy.remote import flows
from argosy.remote.download import Download
from argosy.remote.session import Session
from argosy.remote.wire import Request, Response, Transport, run
from argosy.spec import mediatypes
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor


class Mirror:
    """A mirror as flows see it: told whose content is wanted (distribution-spec, "Registry Proxying").

    One that does not answer, fails or limits the rate is not asked for a while: it is there to be quick.

    Args:
        session: How it is asked.
        registry: The registry it stands for; empty where it knows by the names it is asked for.
    """

    def __init__(self, session: Session, registry: str) -> None:
        self._session = session
        self._namespace = f"ns={quote(registry, safe='')}" if registry else ""

    def send(self, request: Request) -> Response:
        """As the session, whose path gets a query more."""
        if self._namespace:
            joint = "&" if "?" in request.url else "?"
            request = request.replace(url=f"{request.url}{joint}{self._namespace}")
        try:
            return self._session.send(request)
        except RegistryError as exc:
            down = isinstance(exc, (TransportError, TooManyRequestsError))
            if down or (isinstance(exc, ResponseError) and exc.http_status >= 500):
                self._session.pass_over(exc)
            raise


def lied(name: str, failure: ArgosyError) -> str:
    """What to say of a place that sent something wrong, where another one is asked instead."""
    return f"{name} sent something else, and another place is asked: {failure}"


def ask(session: Transport, name: str, desc: Descriptor, start: int, stop: int | None) -> Response:
    """A registry's answer to who wants a blob of a repository from `start` up to `stop`; it streams."""
    return run(flows.open_blob(name, desc, start, stop), session)


def ask_elsewhere(session: Session, url: str, start: int, stop: int | None) -> Response:
    """The answer of one of a layer's own `urls`: no credentials, no inner addresses (CVE-2020-15157)."""
    headers = flows.range_of(start, stop)
    return session.send_elsewhere(
        Request(method="GET", url=url, headers=headers, stream=True, statuses=(416,))
    )


LARGE = 16 * 1024 * 1024
"""Bytes from which on a blob may come in parts."""


class Place(Value, kw_only=True):
    """One place.

    Args:
        name: What to call it.
        ask: Asks it for the bytes from an offset up to another, or without a range; the answer streams.
        session: What it is asked by.
        spared: The failures that leave it to the next place.
        trusted: Whether what it sends is the blob, whatever it says that it is.
    """

    name: str
    ask: Callable[[int, int | None], Response]
    session: Session
    spared: type[ArgosyError] = ArgosyError
    trusted: bool = False


class Places:
    """The places of one download, and where it is.

    Args:
        desc: The blob.
        places: At least one.
        warn: Told of a place that sent something else, where there is another to ask.
    """

    def __init__(
        self, desc: Descriptor, places: Iterable[Place], warn: Callable[[str], object]
    ) -> None:
        self._desc, self._left, self._warn = desc, list(places), warn
        self._began: Place | None = None

    def part(self, start: int, stop: int | None) -> Response:
        """Some bytes, from the place that is asked now."""
        return self._asked(self._left[0], start, stop)

    def open(self, start: int, stop: int | None) -> Response:
        """The bytes from `start` on, or all of them, from the first place that gives them.

        Raises:
            ArgosyError: what the last place that could be asked said.
        """
        while True:
            try:
                response = self._asked(self._left[0], start, stop)
                if not start:
                    self._began = self._left[0]
                return response
            except ArgosyError as exc:
                if not self.leave(exc):
                    raise

    def leave(self, failure: ArgosyError) -> bool:
        """Turn to the next place, if there is one and the failure is not this place's last word."""
        if len(self._left) < 2 or not isinstance(failure, self._left[0].spared):
            return False
        if isinstance(failure, IntegrityError):
            self._warn(lied(self._left[0].name, failure))
        del self._left[0]
        return True

    def elsewhere(self, failure: ArgosyError) -> bool:
        """Turn to another place for all of it, if there is one: what was read is not the blob.

        Where the place that is asked now gave only the end, it may well be right, and is asked for the front too.
        """
        if self._began is self._left[0]:
            return self.leave(failure)
        if self._began is not None:
            self._warn(lied(self._began.name, failure))
        return True

    def rest(self, failures: int) -> None:
        """Leave the place alone for a while, the longer the more often it failed."""
        self._left[0].session.rest(failures)

    def _asked(self, place: Place, start: int, stop: int | None) -> Response:
        response = place.ask(start, stop)
        kind = mediatypes.essence(response.headers.get("Content-Type"))
        if kind == "text/html" != self._desc.media_type and not place.trusted:
            # a portal's page: if its bytes were taken for the blob's first ones, no other place could help
            response.close()
            raise RegistryError(f"{self._desc.digest}: {place.session} sent a page instead")
        return response


def opened(desc: Descriptor, places: Places, attempts: int) -> SupportsRead:
    """A blob's bytes from the places that have it; nothing is asked for before the first `read`."""
    whole = Download(
        desc,
        places.open,
        attempts=attempts,
        pause=places.rest,
        leave=places.leave,
        elsewhere=places.elsewhere,
    )
    if desc.size < LARGE:
        return whole
    room: Any = importlib.import_module("argosy.remote.parts")  # most blobs are small
    made: SupportsRead = room.parted(whole, desc, places)
    return made
