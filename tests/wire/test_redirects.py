"""Where a registry leads elsewhere: what goes along, and what is shown of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from argosy.errors import ArgosyError, RegistryError, TransportError, UnauthorizedError
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from tests.wire import scripted as s
from tests.wire.logins import BASIC, logged_in

Client = Callable[..., Repository]


def basic(then: s.Answer) -> s.Answer:
    def send(seen: s.Seen, peer: s.Peer) -> bool:
        right = seen.headers.get("authorization") == BASIC
        return (then if right else s.answer(401, {"WWW-Authenticate": "Basic realm=x"}))(seen, peer)

    return send


BLOB = Descriptor.of(mediatypes.OCI_LAYER, b"layer")
PATH = f"/v2/app/blobs/{BLOB.digest}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_takes_no_credential_along(
    scripted: s.Scripted, another: s.Scripted, client: Client, status: int
) -> None:
    """GHSA-vh4v-2xq2-g5cg, CVE-2014-1829, CVE-2018-20060, CVE-2018-25091, CVE-2023-43804, CVE-2026-49349."""
    scripted.on("GET", PATH, basic(s.answer(status, {"Location": f"{another.url}/cdn?sig=1"})))
    another.on("GET", "/cdn.sig=1", s.answer(200, {}, b"layer"))
    with logged_in(client).fetch(BLOB) as reader:
        assert reader.read() == b"layer"
    (there,) = another.requests()
    assert "authorization" not in there.headers
    assert "x-wish" not in there.headers
    assert scripted.requests()[-1].headers["x-wish"] == "1"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/cdn?name=caf\xc3\xa9.tgz", "/cdn?name=caf%C3%A9.tgz"),
        ("/a b?c=d e", "/a%20b?c=d%20e"),
        ("/cdn?a=%2F+b#fragment", "/cdn?a=%2F+b"),
        ("http://user:password@HOST/cdn", "/cdn"),
    ],
)
def test_an_address_that_is_not_quite_one_is_followed(
    scripted: s.Scripted, client: Client, location: str, target: str
) -> None:
    where = {"Location": location.replace("HOST", scripted.name)}
    scripted.on("HEAD", ".*", s.answer(404))
    scripted.on("GET", "/v2/.*", s.answer(307, where))
    scripted.on("GET", ".*", s.answer(200, {}, b"layer"))
    scripted.on("POST", ".*", s.answer(202, where))
    scripted.on("PUT", ".*", s.answer(201))
    assert client().fetch(BLOB).read() == b"layer"
    assert scripted.requests("GET")[-1].target == target
    client().push(BLOB, io.BytesIO(b"layer"))
    (put,) = scripted.requests("PUT")
    assert put.target == f"{target}{'&' if '?' in target else '?'}digest={BLOB.digest}"


def test_the_host_a_redirect_leads_to_is_shown_a_token_for_nobody(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    """The other host asks anew: it gets what everybody gets, and nothing of the registry's credentials."""
    scripted.on("GET", PATH, basic(s.answer(307, {"Location": f"{another.url}/cdn"})))
    challenge = f'Bearer realm="{another.url}/token",service="cdn",scope="repository:x:pull"'

    def guarded(seen: s.Seen, peer: s.Peer) -> bool:
        if seen.headers.get("authorization") == "Bearer anybody":
            return s.answer(200, {}, b"layer")(seen, peer)
        return s.answer(401, {"WWW-Authenticate": challenge})(seen, peer)

    another.on("GET", "/cdn", guarded)
    another.on("GET", "/token.*", s.answer(200, {}, b'{"token":"anybody"}'))
    with logged_in(client).fetch(BLOB) as reader:
        assert reader.read() == b"layer"
    token = next(seen for seen in another.requests() if seen.target.startswith("/token"))
    assert "authorization" not in token.headers
    assert "account" not in token.target
    assert "scope=repository%3Ax%3Apull" in token.target


def test_a_host_a_redirect_leads_to_that_is_never_content_is_left(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    scripted.on("GET", PATH, basic(s.answer(307, {"Location": f"{another.url}/cdn"})))
    challenge = {"WWW-Authenticate": f'Bearer realm="{another.url}/token"'}
    another.on("GET", "/cdn", s.answer(401, challenge))
    another.on("GET", "/token.*", s.answer(200, {}, b'{"token":"anybody"}'))
    with pytest.raises(UnauthorizedError), logged_in(client).fetch(BLOB) as reader:
        reader.read()
    assert len(another.requests()) == 3


def test_a_redirect_within_the_host_keeps_the_credential(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", PATH, basic(s.answer(307, {"Location": "/elsewhere"})))
    scripted.on("GET", "/elsewhere", basic(s.answer(200, {}, b"layer")))
    with logged_in(client).fetch(BLOB) as reader:
        assert reader.read() == b"layer"


def test_redirects_in_a_circle_end(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", PATH, s.answer(307, {"Location": PATH}))
    with pytest.raises(RegistryError, match="redirects"), client().fetch(BLOB) as reader:
        reader.read()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "gopher://x/", "http://a b/"])
def test_a_redirect_to_what_is_no_http_is_refused(
    scripted: s.Scripted, client: Client, target: str
) -> None:
    scripted.on("GET", PATH, s.answer(307, {"Location": target}))
    with pytest.raises(TransportError), client().fetch(BLOB) as reader:
        reader.read()
    assert len(scripted.requests()) == 1


def test_a_resumed_download_asks_the_registry_again_not_the_redirects_end(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    data = bytes(range(256)) * 8000
    desc = Descriptor.of(mediatypes.OCI_LAYER, data)
    path = f"/v2/app/blobs/{desc.digest}"
    count = iter(range(1, 100))

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        return s.answer(307, {"Location": f"{another.url}/once/{next(count)}"})(seen, peer)

    scripted.on("GET", path, send)
    another.on("GET", "/once/1", s.cut(data, 1_500_000))
    another.on("GET", "/once/2", s.blob(data))
    with client().fetch(desc) as reader:
        assert reader.read() == data
    assert another.requests()[1].headers["range"].endswith(f"-{len(data) - 1}")


def test_an_upload_at_another_host_gets_no_credential(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    """CVE-2026-50151: what a Location names gets the bytes and no credential."""
    scripted.on("HEAD", ".*", basic(s.answer(404)))
    scripted.on("POST", ".*", basic(s.answer(202, {"Location": f"{another.url}/up?sig=a"})))
    another.on("PUT", r"/up\?sig=a&digest=.*", s.answer(201))
    logged_in(client).push(BLOB, io.BytesIO(b"layer"))
    (put,) = another.requests()
    assert put.body == b"layer"
    assert "authorization" not in put.headers


def test_the_trace_shows_every_exchange_and_no_secret(
    scripted: s.Scripted, another: s.Scripted, client: Client
) -> None:
    seen: list[Any] = []
    scripted.on(
        "GET",
        PATH,
        basic(s.answer(307, {"Location": f"{another.url}/cdn?sig=hidden", "Set-Cookie": "hidden"})),
    )
    another.on("GET", "/cdn.*", s.answer(200, {}, b"layer"))
    with logged_in(client, observe=seen.append).fetch(BLOB) as reader:
        reader.read()
    assert [(e.method, e.status) for e in seen] == [("GET", 401), ("GET", 307), ("GET", 200)]
    text = repr(seen)
    assert "hidden" not in text
    assert BASIC not in text
    assert "Basic REDACTED" in text


@pytest.mark.parametrize("status", [401, 403])
def test_nobody_is_told_to_log_in_where_a_redirect_led(
    scripted: s.Scripted, another: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("GET", ".*", s.answer(307, {"Location": f"{another.url}/blob"}))
    another.on("GET", "/blob", s.answer(status))
    with pytest.raises(ArgosyError, match=str(status)) as caught:
        client().fetch(BLOB).read()
    assert caught.value.hint is None
