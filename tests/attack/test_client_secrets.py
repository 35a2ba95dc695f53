"""Secrets in what is shown: error messages end up in tickets, traces in build logs."""

# ruff: noqa: SIM117 - one block stands for the registry, one for the failure
from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.errors import ArgosyError, UsageError
from argosy.remote.config import Options
from argosy.remote.credentials import Credential, CredentialStore
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from argosy.remote.wire import Exchange
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from tests.wire import scripted as s

BLOB = Descriptor.of(mediatypes.OCI_LAYER, b"layer")
INDEX = {"Content-Type": mediatypes.OCI_INDEX}
Act = Callable[[Repository], Any]


@pytest.fixture
def scripted() -> Iterator[s.Scripted]:
    server = s.Scripted()
    yield server
    server.close()


def tags(repository: Repository) -> None:
    list(repository.tags())


def referrers(repository: Repository) -> None:
    list(repository.referrers(BLOB))


def pull(repository: Repository) -> None:
    repository.fetch(BLOB).read()


def push(repository: Repository) -> None:
    repository.push(BLOB, io.BytesIO(b"layer"))


def told(scripted: s.Scripted, act: Act, **options: Any) -> str:
    """The error of something that fails, with its hint and its notes."""
    with Registry(scripted.name, Options(attempts=1, **options)) as registry:
        with pytest.raises(ArgosyError) as caught:
            act(registry.repository("app"))
    error = caught.value
    return "\n".join([repr(error), str(error.hint), *getattr(error, "__notes__", ())])


SIGNED = "/real?X-Amz-Signature=SECRET"


@pytest.mark.parametrize(
    ("method", "act", "end"),
    [
        ("GET", tags, s.answer(200, {}, b"<html>")),
        ("GET", tags, s.answer(200, {"Link": '<ftp://u:SECRET@h/?t=SECRET>; rel="next"'}, b"{}")),
        ("GET", tags, s.answer(200, {"Link": '<http://h/x?token=SECRET>; rel="next"'}, b"{}")),
        ("GET", referrers, s.answer(200, INDEX, b"{}")),
        ("GET", pull, s.answer(403, {}, b"no")),
        ("GET", pull, s.answer(307, {"Location": "ftp://u:SECRET@h/x?sig=SECRET"})),
        ("GET", pull, s.answer(307, {"Location": "http://u:SECRET@h:99999/x?sig=SECRET"})),
        ("GET", pull, s.answer(307, {"Location": "http://u:SECRET@[h/x?sig=SECRET"})),
        ("POST", push, s.answer(202)),
        ("POST", push, s.answer(202, {"Location": "ftp://u:SECRET@h/x?sig=SECRET"})),
        ("POST", push, s.answer(301, {"Location": "/x?sig=SECRET"})),
    ],
)
def test_no_message_shows_what_a_url_signs(
    scripted: s.Scripted, method: str, act: Act, end: s.Answer
) -> None:
    scripted.on(method, "/real.*", end)
    scripted.on(method, ".*", s.answer(307, {"Location": SIGNED}))
    assert "SECRET" not in told(scripted, act)


@pytest.mark.parametrize(
    "realm", ["ftp://u:SECRET@h/?t=SECRET", "u:SECRET@h", "http://u:SECRET@[h/?t=SECRET"]
)
def test_no_message_shows_what_a_realm_holds(scripted: s.Scripted, realm: str) -> None:
    scripted.on("*", ".*", s.answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}))
    assert "SECRET" not in told(scripted, pull)


def test_a_trace_shows_neither_the_users_headers_nor_a_registrys_tokens(
    scripted: s.Scripted,
) -> None:
    seen: list[Exchange] = []
    fields = {
        "X-Auth-Token": "SECRET",
        "Link": '</v2/app/tags/list?token=SECRET>; rel="next"',
        "Location": "http://u:SECRET@[h/?sig=SECRET",
    }
    scripted.on("GET", r".*\?n=1000", s.answer(200, fields, b'{"tags":["a"]}'))
    scripted.on("GET", ".*", s.answer(200, {}, b'{"tags":["b"]}'))
    wishes = {"X-JFrog-Art-Api": "SECRET", "Private-Token": "SECRET", "X-Wish": "SECRET"}
    with Registry(scripted.name, Options(headers=wishes, observe=seen.append)) as registry:
        assert list(registry.repository("app").tags()) == ["a", "b"]
    assert scripted.requests()[0].headers["x-wish"] == "SECRET"
    assert len(seen) == 2
    assert "SECRET" not in repr(seen)
    assert ("X-Wish", "REDACTED") in seen[0].request_headers


def test_no_message_shows_a_secret_that_cannot_be_sent(scripted: s.Scripted) -> None:
    """A token with a character that no header can have was told whole, as what could not be encoded."""
    scripted.on("*", ".*", s.answer(401, {"WWW-Authenticate": "Basic realm=x"}))
    seen: list[Exchange] = []
    known = CredentialStore(given={"": Credential(registry_token="SECRET\u2603")})
    message = told(scripted, pull, credentials=known, observe=seen.append)
    assert "the header Authorization has" in message
    assert "SECRET" not in message + repr(seen)
    with pytest.raises(UsageError, match="the header X-Wish has") as caught:
        Options(headers={"X-Wish": "SECRET\n"})
    assert "SECRET" not in str(caught.value)
