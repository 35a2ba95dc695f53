"""What is asked of a token server, and what it hands out to be asked with the next time."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from argosy.errors import ArgosyError, ManifestUnknownError, RegistryError, UnauthorizedError
from argosy.remote.repository import Repository
from argosy.spec.descriptor import Descriptor
from tests.wire import scripted as s
from tests.wire.logins import ADA, given

Client = Callable[..., Repository]

TAG = "/v2/app/manifests/v1"
BLOB = Descriptor.of("a/b", b"blob")
CHALLENGE = s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token",service="svc"'})


def bearer(token: str, then: s.Answer) -> s.Answer:
    """A registry that takes this token and no other."""

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        right = seen.headers.get("authorization") == f"Bearer {token}"
        return (then if right else CHALLENGE)(seen, peer)

    return send


def read_then_deleted(scripted: s.Scripted, repository: Repository) -> None:
    scripted.on("HEAD", ".*", bearer("first", s.answer(404)))
    scripted.on("DELETE", ".*", bearer("second", s.answer(202)))
    with pytest.raises(ManifestUnknownError):
        repository.resolve("v1")
    repository.delete(BLOB)


def test_a_refresh_token_takes_the_place_of_the_password(
    scripted: s.Scripted, client: Client
) -> None:
    first = b'{"token":"first","refresh_token":"again"}'
    scripted.on("GET", "/token.*", s.answer(200, {}, first))
    scripted.on("POST", "/token", s.answer(200, {}, b'{"access_token":"second"}'))
    read_then_deleted(scripted, client(credentials=given(**ADA)))
    (asked,) = scripted.requests("POST", "/token")
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == ["again"]
    assert form["scope"] == ["repository:app:delete,pull,push"]
    assert b"secret" not in asked.body
    assert "authorization" not in asked.headers


def test_where_a_refresh_token_is_over_the_password_is_sent_again(
    scripted: s.Scripted, client: Client
) -> None:
    answers = [b'{"token":"first","refresh_token":"again"}', b'{"token":"second"}']
    scripted.on("GET", "/token.*", *(s.answer(200, {}, body) for body in answers))
    scripted.on("POST", "/token", s.answer(401))
    read_then_deleted(scripted, client(credentials=given(**ADA)))
    asked = scripted.requests("", "/token.*")
    assert [seen.method for seen in asked] == ["GET", "POST", "GET"]
    assert asked[0].headers["authorization"] == asked[2].headers["authorization"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda repository: repository.resolve("v1"),
        lambda repository: [*repository.tags()],
    ],
    ids=["a manifest", "a list"],
)
def test_a_token_is_for_what_is_done_though_the_challenge_does_not_say_so(
    scripted: s.Scripted, client: Client, ask: Callable[[Repository], object]
) -> None:
    scripted.on("GET", "/token.*", s.answer(200, {}, b'{"token":"first"}'))
    scripted.on("*", ".*", bearer("first", s.answer(404)))
    with pytest.raises(ArgosyError):
        ask(client())
    (asked,) = scripted.requests("", "/token.*")
    query = parse_qs(urlsplit(asked.target).query)
    assert query == {"service": ["svc"], "scope": ["repository:app:pull"], "client_id": ["argosy"]}


@pytest.mark.parametrize("challenge", ["Basic realm=x", 'Bearer service="x"'])
def test_a_host_a_redirect_leads_to_that_names_no_token_server_is_asked_once(
    scripted: s.Scripted, another: s.Scripted, client: Client, challenge: str
) -> None:
    scripted.on("HEAD", ".*", s.answer(307, {"Location": f"{another.url}/cdn"}))
    another.on("*", ".*", s.answer(401, {"WWW-Authenticate": challenge}))
    with pytest.raises(UnauthorizedError):
        client(credentials=given(**ADA)).resolve("v1")
    assert [seen.method for seen in another.requests()] == ["HEAD"]
    assert "authorization" not in another.requests()[0].headers


@pytest.mark.parametrize(
    "reply",
    [
        s.answer(200, {"Content-Type": "text/html"}, b"<html>welcome</html>"),
        s.answer(200, {}, b"{}"),
        s.answer(200, {}, b'{"token": 5}'),
        s.answer(200, {}, b'{"token": ""}'),
        s.answer(200, {}, b'{"token": "a\\r\\nX-Evil: 1"}'),
        s.answer(200, {}, b'{"token": "\\ud800"}'),
        s.answer(200, {}, b"[]"),
    ],
    ids=[
        "HTML",
        "empty",
        "a number",
        "an empty string",
        "a header injection",
        "half a letter",
        "a list",
    ],
)
def test_a_token_server_that_lies_is_an_error(
    scripted: s.Scripted, client: Client, reply: s.Answer
) -> None:
    scripted.on("GET", "/token.*", reply)
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'}))
    with pytest.raises(RegistryError, match="sent no token"):
        client().resolve("v1")


def test_a_refresh_token_that_is_none_is_not_kept(scripted: s.Scripted, client: Client) -> None:
    answers = [b'{"token":"t%d","refresh_token":"\\ud800"}' % count for count in range(2)]
    scripted.on("GET", "/token.*", *(s.answer(200, {}, body) for body in answers))
    challenge = s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'})
    scripted.on("*", ".*", challenge, s.answer(404), challenge, s.answer(404))
    repository = client(credentials=given(**ADA))
    for _ in range(2):  # the second time it would be sent, in the place of the password
        with pytest.raises(ManifestUnknownError):
            repository.resolve("v1")
    assert not scripted.requests("POST")
