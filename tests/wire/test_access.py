"""Challenges, tokens and redirects: who gets to see a credential, and what happens when a token server lies."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from argosy.errors import (
    ArgosyError,
    DeniedError,
    TransportError,
    UnauthorizedError,
)
from argosy.remote.credentials import Credential
from argosy.remote.repository import Repository
from argosy.remote.wire import Exchange
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s
from tests.wire.logins import ADA, BASIC, given, logged_in

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
DIGEST = Digest.of(RAW)
GOOD = s.manifest(RAW, Docker_Content_Digest=DIGEST)
TAG = "/v2/app/manifests/v1"


class Tokens:
    """A token server and a registry that wants its tokens."""

    def __init__(self, server: s.Scripted, realm: str = "/token", *, life: int = 300) -> None:
        self.asked: list[s.Seen] = []
        self.valid: dict[str, set[str]] = {}
        self.life, self.realm = life, realm
        server.on("*", "/token.*", self.token)

    def token(self, seen: s.Seen, peer: s.Peer) -> bool:
        from urllib.parse import parse_qs

        seen.body = peer.file.read(seen.length)
        seen.length = 0
        query = parse_qs(seen.target.partition("?")[2] or seen.body.decode())
        self.asked.append(seen)
        value = f"t{len(self.asked)}"
        scopes = [p for scope in query.get("scope", []) for p in scope.split(" ")]
        self.valid[value] = set(scopes)
        body = {"token": value, "expires_in": self.life}
        return s.answer(200, {}, json.dumps(body).encode())(seen, peer)

    def wants(self, scope: str, then: s.Answer) -> s.Answer:
        def send(seen: s.Seen, peer: s.Peer) -> bool:
            value = seen.headers.get("authorization", "").removeprefix("Bearer ")
            name, _, action = scope.rpartition(":")
            held = {
                a
                for x in self.valid.get(value, ())
                if x.startswith(name + ":")
                for a in x.rpartition(":")[2].split(",")
            }
            if set(action.split(",")) <= held:
                return then(seen, peer)
            challenge = f'Bearer realm="{self.realm}",service="svc",scope="{scope}"'
            return s.answer(401, {"WWW-Authenticate": challenge})(seen, peer)

        return send


def test_public_content_needs_only_an_anonymous_token(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    repository = client()
    assert repository.resolve("v1").digest == DIGEST
    repository.resolve("v1")
    (asked,) = tokens.asked
    assert asked.target == "/token?service=svc&scope=repository%3Aapp%3Apull&client_id=argosy"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "challenge",
    [
        'Negotiate TlRMTVNTUAAB==, Basic realm="a, \\"b\\"", Bearer realm="/token",scope="repository:app:pull"',
        'Bearer service="without", bearer Realm=/token , service = "with"',
        'Bearer realm="/token#here",service="a fragment"',
        'Bearer realm="/token/caf\xc3\xa9 au lait",service="not ascii"',
    ],
)
def test_a_token_is_had_from_a_challenge_that_is_hard_to_read(
    scripted: s.Scripted, client: Client, challenge: str
) -> None:
    tokens = Tokens(scripted)
    wants = tokens.wants("repository:app:pull", GOOD)

    def guarded(seen: s.Seen, peer: s.Peer) -> bool:
        if "authorization" in seen.headers:
            return wants(seen, peer)
        return s.answer(401, {"WWW-Authenticate": challenge})(seen, peer)

    scripted.on("*", TAG, guarded)
    assert client().resolve("v1").digest == DIGEST
    assert len(tokens.asked) == 1


def test_a_challenge_nobody_can_answer_is_told_as_it_is(
    scripted: s.Scripted, client: Client
) -> None:
    unknown = 'Digest realm="x", nonce=1, Bearer service="x"'
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": unknown}))
    with pytest.raises(UnauthorizedError, match=r"asks for bearer, digest: .* with a realm"):
        client().resolve("v1")


def test_a_password_goes_to_the_token_server_alone(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    client(credentials=given(**ADA)).resolve("v1")
    assert tokens.asked[0].headers["authorization"] == BASIC
    assert "account=ada" in tokens.asked[0].target
    sent = [r.headers.get("authorization") for r in scripted.requests("HEAD")]
    assert sent == [None, "Bearer t1"]


def test_an_identity_token_is_posted(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    client(credentials=given(identity_token="idt")).resolve("v1")
    assert tokens.asked[0].method == "POST"
    assert b"grant_type=refresh_token" in tokens.asked[0].body
    assert b"refresh_token=idt" in tokens.asked[0].body


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize(
    ("known", "user", "password"),
    [
        ({"identity_token": "idt"}, "<token>", "idt"),
        ({"identity_token": "idt", "username": "ada"}, "ada", "idt"),
        ({"identity_token": "idt", **ADA}, "ada", ADA["password"]),
    ],
)
def test_a_token_server_without_post_is_asked_by_get(
    scripted: s.Scripted,
    client: Client,
    status: int,
    known: dict[str, str],
    user: str,
    password: str,
) -> None:
    scripted.on("POST", "/token.*", s.answer(status))
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    client(credentials=given(**known)).resolve("v1")
    assert [r.method for r in scripted.requests("", "/token.*")] == ["POST", "GET"]
    basic = Credential(username=user, password=password).basic()
    assert tokens.asked[0].headers["authorization"] == basic


def test_a_token_server_that_knows_neither_way_is_asked_once_by_each(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("*", "/token.*", s.answer(404))
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    with pytest.raises(UnauthorizedError):
        client(credentials=given(identity_token="idt", **ADA)).resolve("v1")
    assert [r.method for r in scripted.requests("", "/token.*")] == ["POST", "GET"]


@pytest.mark.parametrize("status", [404, 405])
def test_a_token_server_without_get_is_posted_the_password(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("GET", "/token.*", s.answer(status))
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    client(credentials=given(**ADA)).resolve("v1")
    assert b"grant_type=password" in tokens.asked[0].body


def test_a_registry_token_is_sent_as_it_is(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    tokens.valid["ready"] = {"repository:app:pull"}
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    repository = client(credentials=given(registry_token="ready"))
    repository.resolve("v1")
    repository.resolve("v1")
    assert not tokens.asked
    assert len(scripted.requests("HEAD")) == 3


def test_a_wider_scope_is_asked_for_when_it_is_needed(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    scripted.on("PUT", ".*", tokens.wants("repository:app:pull,push", s.answer(201)))
    repository = client()
    repository.resolve("v1")
    repository.push(Descriptor.of(mediatypes.OCI_MANIFEST, RAW), io.BytesIO(RAW), tags=["v1"])
    assert [set(v) for v in tokens.valid.values()] == [
        {"repository:app:pull"},
        {"repository:app:pull,push"},
    ]


def test_who_is_going_to_write_asks_for_one_token(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    scripted.on("PUT", ".*", tokens.wants("repository:app:pull,push", s.answer(201)))
    repository = client().registry.repository("app", mirrors=False)
    repository.resolve("v1")
    repository.push(Descriptor.of(mediatypes.OCI_MANIFEST, RAW), io.BytesIO(RAW), tags=["v1"])
    assert list(tokens.valid.values()) == [{"repository:app:pull,push"}]
    assert [seen.method for seen in scripted.requests()] == ["HEAD", "GET", "HEAD", "PUT"]


@pytest.mark.parametrize("status", [400, 403])
def test_who_may_only_read_reads_where_a_token_to_write_is_refused(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("GET", "/token.*push.*", s.answer(status))
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    repository = client().registry.repository("app", mirrors=False)
    assert repository.resolve("v1").digest == DIGEST
    assert list(tokens.valid.values()) == [{"repository:app:pull"}]


def test_a_wrong_password_is_tried_once_by_who_is_going_to_write(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", "/token.*", s.answer(401))
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    with pytest.raises(UnauthorizedError):
        logged_in(client).registry.repository("app", mirrors=False).resolve("v1")
    assert len(scripted.requests("GET", "/token.*")) == 1


def test_insufficient_scope_as_403_is_answered_with_more(
    scripted: s.Scripted, client: Client
) -> None:
    tokens = Tokens(scripted)
    challenge = 'Bearer realm="/token",service="svc",scope="repository:app:pull,extra",error="insufficient_scope"'
    more = tokens.wants("repository:app:pull,extra", GOOD)

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        if seen.headers.get("authorization") == "Bearer t1":
            return s.answer(403, {"WWW-Authenticate": challenge})(seen, peer)
        return (
            more(seen, peer)
            if "authorization" in seen.headers
            else tokens.wants("repository:app:pull", GOOD)(seen, peer)
        )

    scripted.on("HEAD", TAG, send)
    assert client().resolve("v1").digest == DIGEST
    assert len(tokens.asked) == 2


def test_an_expired_token_is_replaced(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    repository = client()
    repository.resolve("v1")
    tokens.valid.clear()
    repository.resolve("v1")
    assert len(tokens.asked) == 2


def test_many_threads_fetch_one_token(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    repository = client()
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(repository.resolve("v1"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(tokens.asked) == 1


def test_a_registry_that_leaves_out_the_challenge_is_pinged_for_it(
    scripted: s.Scripted, client: Client
) -> None:
    tokens = Tokens(scripted)
    wants = tokens.wants("repository:app:pull", GOOD)

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        return (wants if "authorization" in seen.headers else s.answer(401))(seen, peer)

    scripted.on("HEAD", TAG, send)
    scripted.on(
        "GET", "/v2/", s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token",service="svc"'})
    )
    assert client().resolve("v1").digest == DIGEST


def test_a_token_that_is_never_accepted_ends_in_an_error(
    scripted: s.Scripted, client: Client
) -> None:
    Tokens(scripted)
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'}))
    with pytest.raises(UnauthorizedError):
        client(credentials=given(**ADA)).resolve("v1")
    assert len(scripted.requests()) < 10


def test_a_token_without_end_is_cut_off(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", "/token.*", s.raw(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 500_000))
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'}))
    with pytest.raises(ArgosyError, match="over"):
        client().resolve("v1")


def test_a_token_server_that_does_not_answer_is_not_waited_for_twice_over(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", "/token.*", s.silence)
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'}))
    started = time.monotonic()
    with pytest.raises(TransportError, match="asking for a token"):
        client(timeout=0.1).resolve("v1")
    assert len(scripted.requests("GET", "/token.*")) == 4
    assert time.monotonic() - started < 5


def test_a_token_server_that_is_not_there_is_asked_once(
    scripted: s.Scripted, client: Client
) -> None:
    tried: list[Exchange] = []
    with socket.socket() as nobody:  # it has the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        realm = f"http://127.0.0.1:{nobody.getsockname()[1]}/token"
        scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}))
        with pytest.raises(TransportError, match="connection refused") as caught:
            client(observe=tried.append).resolve("v1")
    assert caught.value.__notes__ == ["while asking for a token"]
    assert len([one for one in tried if one.url.startswith(realm)]) == 1


def test_a_429_of_the_token_server_is_waited_out(scripted: s.Scripted, client: Client) -> None:
    scripted.on(
        "GET", "/token.*", s.answer(429, {"Retry-After": "0"}), s.answer(200, {}, b'{"token":"t1"}')
    )
    tokens = Tokens(scripted)
    tokens.valid["t1"] = {"repository:app:pull"}
    scripted.on("HEAD", TAG, tokens.wants("repository:app:pull", GOOD))
    assert client().resolve("v1").digest == DIGEST


def test_refused_credentials_are_named_with_their_place(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", "/token.*", s.answer(401))
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'}))
    with pytest.raises(UnauthorizedError) as caught:
        client(credentials=given(**ADA)).resolve("v1")
    notes = " ".join(caught.value.__notes__)
    assert "ada" in notes
    assert "the command line" in notes
    assert "secret" not in str(caught.value) + notes


def test_a_refusal_is_told_as_the_answer_to_what_was_asked(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("POST", "/token", s.answer(400, {}, b'{"error":"invalid_grant"}'))
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'}))
    with pytest.raises(UnauthorizedError, match=r"refused: POST .*/token: 400 .*invalid_grant"):
        client(credentials=given(identity_token="old")).resolve("v1")


def test_basic_is_answered_and_then_sent_at_once(scripted: s.Scripted, client: Client) -> None:
    def send(seen: s.Seen, peer: s.Peer) -> bool:
        right = seen.headers.get("authorization") == BASIC
        challenge = {"WWW-Authenticate": 'Basic realm="a, \\"b\\""'}
        return (GOOD if right else s.answer(401, challenge))(seen, peer)

    scripted.on("HEAD", TAG, send)
    repository = client(credentials=given(**ADA))
    repository.resolve("v1")
    repository.resolve("v1")
    assert len(scripted.requests()) == 3


def test_basic_without_a_credential_says_what_to_do(scripted: s.Scripted, client: Client) -> None:
    scripted.on("*", TAG, s.answer(401, {"WWW-Authenticate": "Basic realm=x"}))
    with pytest.raises(UnauthorizedError) as caught:
        client().resolve("v1")
    assert "argosy login" in (caught.value.hint or "")


@pytest.mark.parametrize("challenge", ["Bearer", "Basic", ""])
def test_a_list_that_anybody_may_see_is_asked_for_with_the_credential(
    scripted: s.Scripted, client: Client, challenge: str
) -> None:
    tokens = Tokens(scripted)
    kinds = {"Bearer": f'Bearer realm="{scripted.url}/token"', "Basic": "Basic realm=x"}

    def ping(seen: s.Seen, peer: s.Peer) -> bool:
        if challenge and "authorization" not in seen.headers:
            return s.answer(401, {"WWW-Authenticate": kinds[challenge]})(seen, peer)
        return s.answer(200)(seen, peer)

    def catalog(seen: s.Seen, peer: s.Peer) -> bool:
        sent = seen.headers.get("authorization", "")
        known = sent == BASIC or sent.removeprefix("Bearer ") in tokens.valid
        names = ["public", "private"] if known else ["public"]
        return s.answer(200, {}, json.dumps({"repositories": names}).encode())(seen, peer)

    scripted.on("GET", "/v2/", ping)
    scripted.on("GET", "/v2/_catalog.*", catalog)
    assert list(client().registry.catalog()) == ["public"]
    assert len(scripted.requests()) == 1
    assert list(logged_in(client).registry.catalog()) == ["public", "private"]


def test_a_registry_token_shows_a_list_that_anybody_may_see(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", "/v2/", s.answer(200))
    scripted.on("GET", "/v2/_catalog.*", s.answer(200, {}, b'{"repositories":["a"]}'))
    list(client(credentials=given(registry_token="mine")).registry.catalog())
    assert scripted.requests("GET", ".*catalog.*")[0].headers["authorization"] == "Bearer mine"


def test_bearer_is_preferred_to_basic(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    both = [
        ("WWW-Authenticate", "Basic realm=x"),
        ("WWW-Authenticate", 'Bearer realm="/token",scope="repository:app:pull"'),
    ]
    wants = tokens.wants("repository:app:pull", GOOD)

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        return (wants if "authorization" in seen.headers else s.answer(401, both))(seen, peer)

    scripted.on("HEAD", TAG, send)
    client(credentials=given(**ADA)).resolve("v1")
    assert len(tokens.asked) == 1


def test_denied_is_denied(scripted: s.Scripted, client: Client) -> None:
    scripted.on("*", TAG, s.answer(403, {}, b'{"errors":[{"code":"DENIED","message":"no"}]}'))
    with pytest.raises(DeniedError):
        client(credentials=given(**ADA)).resolve("v1")


def test_a_token_outlived_by_an_upload_is_renewed(scripted: s.Scripted, client: Client) -> None:
    tokens = Tokens(scripted)
    data = b"x" * 3_000_000
    desc = Descriptor.of(mediatypes.OCI_LAYER, data)
    scope = "repository:app:pull,push"
    scripted.on("HEAD", ".*", tokens.wants("repository:app:pull", s.answer(404)))
    scripted.on("POST", ".*", tokens.wants(scope, s.answer(202, {"Location": "/up"})))
    kept: list[bytes] = []

    def put(seen: s.Seen, peer: s.Peer) -> bool:
        seen.body = peer.file.read(seen.length)
        seen.length = 0
        if not kept:
            tokens.valid.clear()
        kept.append(seen.body)
        return tokens.wants(scope, s.answer(201))(seen, peer)

    scripted.on("PUT", "/up.*", put)
    client().push(desc, io.BytesIO(data))
    assert kept[-1] == data


@pytest.mark.parametrize("user", ["", "ada"], ids=["nobody", "somebody"])
def test_who_may_not_is_told_who_asked(scripted: s.Scripted, client: Client, user: str) -> None:
    def deny(seen: s.Seen, peer: s.Peer) -> bool:
        known = "authorization" in seen.headers or not user
        return s.answer(403 if known else 401, {"WWW-Authenticate": "Basic realm=x"})(seen, peer)

    scripted.on("*", ".*", deny)
    with pytest.raises(DeniedError) as caught:
        (logged_in(client) if user else client()).resolve("v1")
    notes = getattr(caught.value, "__notes__", [])
    if user:
        assert notes == [f"with the credentials of {user!r} from the command line"]
        assert caught.value.hint is None
    else:
        assert notes == []
        assert f"`argosy login {scripted.name}`" in (caught.value.hint or "")
