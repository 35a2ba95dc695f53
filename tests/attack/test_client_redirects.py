"""Server-side request forgery and credentials on the wrong host: what a registry names is not where we go."""

# ruff: noqa: SIM117 - one block stands for the registry, one for the failure
from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.cli.serving import upstream_options
from argosy.errors import ArgosyError, BlobUnknownError, ManifestUnknownError, TransportError
from argosy.remote import network
from argosy.remote.auth import Authenticator, Token
from argosy.remote.challenges import parse_challenges
from argosy.remote.config import Options
from argosy.remote.connection import Network
from argosy.remote.credentials import Credential, CredentialStore
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from argosy.remote.transport import HTTPTransport
from argosy.remote.wire import Request, Response
from argosy.server.settings import Upstream
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from tests.wire import scripted as s

INNER = [
    "http://169.254.169.254/latest/meta-data/",
    "http://127.0.0.1:1/",
    "http://localhost:1/",
    "http://[::1]:1/",
    "http://[::ffff:127.0.0.1]:1/",
    "http://10.0.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://[fd00::1]/",
    "http://[fe80::1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://0.0.0.0:1/",
    "http://2130706433:1/",
    "http://0x7f.1:1/",
    "http://017700000001:1/",
]
BLOB = Descriptor.of(mediatypes.OCI_LAYER, b"layer")


@pytest.fixture
def scripted() -> Iterator[s.Scripted]:
    server = s.Scripted()
    yield server
    server.close()


class Public:
    """A public registry without a network: answers as told, and lets nothing else be reached unseen."""

    def __init__(self, **answers: Response) -> None:
        self.answers, self.sent = answers, list[Request]()

    def send(self, request: Request) -> Response:
        self.sent.append(request)
        if request.url.startswith(("https://registry.example/", "http://registry.example/")):
            response = self.answers[request.method]
            return Response(response.status, response.headers, data=response.data, peer="8.8.8.8")
        # what the real transport does with an address somebody else named
        _, host, _ = network.origin(request.url)
        kind = network.classify(host)
        assert request.named_by is not None
        if kind and not network.may_lead(request.named_by, kind):
            raise TransportError(f"refused {request.url}")
        return Response(200, data=b"layer")


def public(plain: bool = False, **answers: Response) -> tuple[Repository, Public]:
    transport = Public(**answers)
    credentials = CredentialStore(given={"": Credential(username="ada", password="secret")})
    options = Options(credentials=credentials, attempts=1, plain_http=plain, foreign=True)
    registry = Registry("registry.example", options, transport=transport)
    return registry.repository("app"), transport


@pytest.mark.parametrize("target", INNER)
def test_a_public_registry_leads_to_no_inner_address(target: str) -> None:
    repository, _ = public(plain=True, GET=Response(307, {"Location": target}))
    with pytest.raises(ArgosyError, match="refused"):
        repository.fetch(BLOB).read()


@pytest.mark.parametrize("target", INNER)
def test_the_transport_connects_to_no_inner_address_that_another_named(target: str) -> None:
    with pytest.raises(TransportError, match="may not lead"):
        HTTPTransport().send(Request(method="GET", url=target, named_by=network.PUBLIC))


@pytest.mark.parametrize("target", INNER)
def test_a_realm_leads_to_no_inner_address(target: str) -> None:
    """GHSA: a token realm pointed at a metadata service would get the user's password.

    CVE-2026-48978.
    """
    challenge = {"WWW-Authenticate": f'Bearer realm="{target}",service="x"'}
    repository, transport = public(plain=True, HEAD=Response(401, challenge))
    with pytest.raises(ArgosyError, match="refused"):
        repository.resolve("v1")
    assert all(
        "Authorization" not in r.headers for r in transport.sent if "registry.example" in r.url
    )


@pytest.mark.parametrize("target", INNER)
def test_an_upload_location_leads_to_no_inner_address(target: str) -> None:
    repository, _ = public(plain=True, HEAD=Response(404), POST=Response(202, {"Location": target}))
    with pytest.raises(ArgosyError, match="refused"):
        repository.push(BLOB, io.BytesIO(b"layer"))


class Hosts:
    """Hosts without a network, named by their addresses and held to `named_by` as the real transport holds them."""

    def __init__(self, answers: dict[str, Response]) -> None:
        self.answers, self.asked = answers, list[str]()

    def send(self, request: Request) -> Response:
        _, host, _ = network.origin(request.url)
        kind = network.classify(host)
        assert kind
        if request.named_by and not network.may_lead(request.named_by, kind):
            raise TransportError(f"a {request.named_by} host may not lead to {host}")
        self.asked.append(host)
        answer = self.answers[host]
        return Response(answer.status, answer.headers, data=answer.data, peer=host)


WORLD, INSIDE = "93.184.216.34", "10.0.0.9"


@pytest.mark.parametrize("registry", ["10.0.0.1:5000", "127.0.0.1:5000"])
@pytest.mark.parametrize(
    "named",
    [
        Response(302, {"Location": f"http://{INSIDE}/"}),
        Response(401, {"WWW-Authenticate": f'Bearer realm="http://{INSIDE}/token",service="x"'}),
        Response(202, {"Location": f"http://{INSIDE}/"}),
    ],
    ids=["a redirect", "a realm", "an upload"],
)
def test_a_public_host_that_an_inner_registry_led_to_leads_to_no_inner_address(
    registry: str, named: Response
) -> None:
    """What a host may name is judged by that host's own address, not by the registry's that led to it."""
    led = Response(307, {"Location": f"http://{WORLD}/x"})
    hosts = Hosts({network.origin(f"http://{registry}")[1]: led, WORLD: named})
    options = Options(attempts=1, plain_http=True)
    with Registry(registry, options, transport=hosts) as place:
        session = place.session()
        with pytest.raises(TransportError, match=r"may not lead|refused to upload"):
            session.send(Request(method="PATCH" if named.status == 202 else "GET", url="/v2/"))
    assert hosts.asked[-1] == WORLD


def test_an_inner_registry_leads_to_another_inner_host_and_out() -> None:
    answers = {"10.0.0.1": Response(307, {"Location": f"http://{INSIDE}/x"})}
    answers[INSIDE] = Response(307, {"Location": f"http://{WORLD}/x"})
    answers[WORLD] = Response(200, data=b"layer")
    options = Options(attempts=1, plain_http=True)
    with Registry("10.0.0.1", options, transport=Hosts(answers)) as place:
        assert place.session().send(Request(method="GET", url="/v2/")).data == b"layer"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "credential",
    [Credential(identity_token="SECRET"), Credential(username="ada", password="SECRET")],
    ids=["refresh token", "password"],
)
def test_a_secret_that_is_posted_goes_to_no_other_host(
    scripted: s.Scripted, credential: Credential, status: int
) -> None:
    """A token server that sends the request on, body and all, would hand the user's secret to a stranger."""
    other = s.Scripted()
    other.on("*", "/steal.*", s.answer(200, {}, b'{"token":"t"}'))
    scripted.on("GET", "/token.*", s.answer(405))
    scripted.on("POST", "/token", s.answer(status, {"Location": f"{other.url}/steal"}))
    challenge = {"WWW-Authenticate": f'Bearer realm="{scripted.url}/token"'}
    scripted.on("*", ".*", s.answer(401, challenge))
    options = Options(credentials=CredentialStore(given={"": credential}), attempts=1)
    with Registry(scripted.name, options) as registry:
        with pytest.raises(ArgosyError) as caught:
            registry.repository("app").resolve("v1")
    assert b"SECRET" in scripted.requests("POST")[0].body
    assert all(b"SECRET" not in seen.body for seen in other.requests())
    if status in {307, 308}:
        assert "refused to take a secret" in str(caught.value)
        assert not other.requests()
    other.close()


def test_a_secret_that_is_posted_may_move_within_its_host(scripted: s.Scripted) -> None:
    scripted.on("POST", "/token", s.answer(307, {"Location": "/v2/token"}))
    scripted.on("POST", "/v2/token", s.answer(200, {}, b'{"token":"t"}'))
    challenge = {"WWW-Authenticate": f'Bearer realm="{scripted.url}/token"'}
    scripted.on("HEAD", ".*", s.answer(401, challenge), s.answer(404))
    known = CredentialStore(given={"": Credential(identity_token="SECRET")})
    with Registry(scripted.name, Options(credentials=known, attempts=1)) as registry:
        with pytest.raises(ManifestUnknownError):
            registry.repository("app").resolve("v1")
    assert b"SECRET" in scripted.requests("POST", "/v2/token")[0].body


def test_https_leads_to_no_http() -> None:
    """CVE-2018-18074: the same host over http would have got the credential."""
    repository, transport = public(GET=Response(307, {"Location": "http://cdn.example/blob"}))
    with pytest.raises(ArgosyError, match="from https"):
        repository.fetch(BLOB).read()
    assert len(transport.sent) == 1


def test_https_leads_to_https() -> None:
    repository, transport = public(GET=Response(307, {"Location": "https://cdn.example/blob"}))
    answer = repository.registry.session().send(
        Request(method="GET", url=f"/v2/app/blobs/{BLOB.digest}")
    )
    assert answer.data == b"layer"
    assert "Authorization" not in transport.sent[-1].headers


def test_cve_2024_45336_a_credential_does_not_come_back_on_the_way(scripted: s.Scripted) -> None:
    """CVE-2023-45289, CVE-2025-4673: from the registry to another host, and on within that host."""
    other = s.Scripted()
    other.on("GET", "/first", s.answer(307, {"Location": "/second"}))
    other.on("GET", "/second", s.answer(200, {}, b"layer"))
    asked = s.answer(401, {"WWW-Authenticate": "Basic realm=x"})
    scripted.on("GET", ".*", asked, s.answer(307, {"Location": f"{other.url}/first"}))
    known = CredentialStore(given={"": Credential(username="ada", password="secret")})
    with Registry(scripted.name, Options(credentials=known, headers={"X-Wish": "1"})) as registry:
        assert registry.repository("app").fetch(BLOB).read() == b"layer"
    assert "authorization" in scripted.requests()[-1].headers
    assert [seen.target for seen in other.requests()] == ["/first", "/second"]
    assert not {"authorization", "x-wish"} & {name for r in other.requests() for name in r.headers}
    other.close()


class Named(Hosts):
    """As they are, but for one registry with a name, whose address only the connection tells, or a proxy knows."""

    def __init__(self, peer: str, realm: str) -> None:
        challenge = {"WWW-Authenticate": f'Bearer realm="{realm}/token"'}
        super().__init__({INSIDE: Response(200, data=b'{"token":"t"}')})
        self.peer, self.challenge = peer, Response(401, challenge)

    def send(self, request: Request) -> Response:
        if network.origin(request.url)[1] != "registry.example":
            return super().send(request)
        known = "Authorization" in request.headers
        answer = Response(200) if known else self.challenge
        return Response(answer.status, answer.headers, peer=self.peer)


@pytest.mark.parametrize(("peer", "led"), [("10.0.0.1", True), ("8.8.8.8", False), ("", False)])
def test_where_a_registry_may_lead_is_said_by_its_address_and_not_by_its_name(
    peer: str, led: bool
) -> None:
    """Behind a proxy nobody knows the address: it is taken for a public one."""
    hosts = Named(peer, f"http://{INSIDE}")
    options = Options(attempts=1, plain_http=True)
    with Registry("registry.example", options, transport=hosts) as place:
        if led:
            place.ping()
        else:
            with pytest.raises(TransportError, match="may not lead"):
                place.ping()
    assert hosts.asked == ([INSIDE] if led else [])


def test_an_https_registry_names_no_http_realm() -> None:
    """CVE-2026-48978: nor does it lead credentials off TLS."""
    challenge = {"WWW-Authenticate": 'Bearer realm="http://auth.example/token"'}
    repository, transport = public(HEAD=Response(401, challenge))
    with pytest.raises(ArgosyError, match="refused"):
        repository.resolve("v1")
    assert all("Authorization" not in r.headers for r in transport.sent)


def test_an_https_registry_behind_a_proxy_that_says_http_keeps_https() -> None:
    location = {"Location": "http://registry.example/up"}
    repository, transport = public(
        HEAD=Response(404), POST=Response(202, location), PUT=Response(201)
    )
    repository.push(BLOB, io.BytesIO(b"layer"))
    assert transport.sent[-1].url.startswith("https://registry.example/up?")


def test_a_name_that_resolves_inside_is_refused_at_the_socket(scripted: s.Scripted) -> None:
    """DNS rebinding: the check is made on the address that is connected to, not on the name."""
    net = Network(resolve={("innocent.example", 80): ("127.0.0.1", scripted.port)})
    transport = HTTPTransport(net)
    request = Request(method="GET", url="http://innocent.example/")
    with pytest.raises(TransportError, match="may not lead"):
        transport.send(request.replace(named_by=network.PUBLIC))
    assert not scripted.requests()
    transport.send(request).close()  # typed by the user it is fine
    assert scripted.requests()
    with pytest.raises(TransportError, match="may not lead"):
        transport.send(request.replace(named_by=network.PUBLIC))  # nor over the kept connection
    transport.close()


def test_cve_2020_15157_foreign_urls_get_no_credentials(scripted: s.Scripted) -> None:
    """CVE-2020-15157: a manifest's `urls` led the client to send the registry's password to a stranger."""
    other = s.Scripted()
    other.on("GET", "/foreign", s.answer(401, {"WWW-Authenticate": "Basic realm=x"}))
    challenge = {"WWW-Authenticate": "Basic realm=x"}

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        known = "authorization" in seen.headers
        return s.answer(404 if known else 401, {} if known else challenge)(seen, peer)

    scripted.on("GET", ".*", send)
    credentials = CredentialStore(given={"": Credential(username="ada", password="secret")})
    desc = Descriptor.of(mediatypes.OCI_NONDISTRIBUTABLE, b"layer", urls=(f"{other.url}/foreign",))
    with Registry(scripted.name, Options(credentials=credentials, foreign=True)) as registry:
        with pytest.raises(ArgosyError):
            registry.repository("app").fetch(desc).read()
    assert scripted.requests()[-1].headers["authorization"]
    assert [r for r in other.requests() if "authorization" in r.headers] == []
    assert len(other.requests()) == 1
    other.close()


def test_cve_2020_15157_foreign_urls_are_not_even_asked_unless_wanted(scripted: s.Scripted) -> None:
    desc = Descriptor.of(
        mediatypes.OCI_NONDISTRIBUTABLE, b"layer", urls=(f"{scripted.url}/foreign",)
    )
    with Registry(scripted.name, Options()) as registry, pytest.raises(BlobUnknownError):
        registry.repository("app").fetch(desc).read()
    assert not scripted.requests("GET", "/foreign")


def test_foreign_urls_are_verified_like_everything(scripted: s.Scripted) -> None:
    scripted.on("GET", "/foreign", s.answer(200, {}, b"lawyer"[:5]))
    desc = Descriptor.of(
        mediatypes.OCI_NONDISTRIBUTABLE, b"layer", urls=(f"{scripted.url}/foreign",)
    )
    with Registry(scripted.name, Options(foreign=True)) as registry:
        with pytest.raises(ArgosyError, match="does not match"):
            registry.repository("app").fetch(desc).read()


def led_by_its_upstream(scripted: s.Scripted, stranger: s.Scripted, **more: Any) -> str:
    """What went wrong where a cache asks an upstream that names a stranger's token service."""
    stranger.on("GET", "/token", s.answer(200, body=b'{"token": "t"}'))
    realm = f'Bearer realm="http://{stranger.name}/token",service="x"'
    ask = s.answer(401, {"WWW-Authenticate": realm})
    scripted.on("HEAD", ".*", ask, s.answer(404))
    scripted.on("GET", ".*", s.answer(404))
    upstream = Upstream(prefix="up", registry=scripted.name, plain_http=True, **more)
    with Registry(scripted.name, upstream_options({}, upstream)) as registry:
        with pytest.raises(ArgosyError) as caught:
            registry.repository("app").resolve("v1")
    return str(caught.value)


@pytest.fixture
def stranger() -> Iterator[s.Scripted]:
    server = s.Scripted()
    yield server
    server.close()


def test_a_cache_shows_its_credentials_to_no_token_server_that_its_upstream_names(
    scripted: s.Scripted, stranger: s.Scripted
) -> None:
    """CVE-2026-33540: those of the one who runs the cache would be had by whoever the upstream says."""
    told = led_by_its_upstream(scripted, stranger, username="ada", password="secret")
    assert "may not see the credentials" in told
    assert not stranger.requests()


def test_without_that_guard_it_does(scripted: s.Scripted, stranger: s.Scripted) -> None:
    more = {"username": "ada", "password": "secret", "token_hosts": (stranger.name,)}
    told = led_by_its_upstream(scripted, stranger, **more)
    assert "may not see" not in told
    assert stranger.requests()[0].headers["authorization"].startswith("Basic ")


def test_a_cache_without_credentials_follows_its_upstream(
    scripted: s.Scripted, stranger: s.Scripted
) -> None:
    led_by_its_upstream(scripted, stranger)
    assert "authorization" not in stranger.requests()[0].headers


@pytest.mark.parametrize(
    ("registry", "answers", "realm", "shown"),
    [
        ("docker.io", "https://registry-1.docker.io/v2/", "https://auth.docker.io/token", True),
        ("docker.io", "https://registry-1.docker.io/v2/", "https://auth.docker.io:8443/", False),
        ("docker.io", "https://registry-1.docker.io/v2/", "https://auth.docker.io.evil/", False),
        ("registry.gitlab.com", "https://registry.gitlab.com/v2/", "https://gitlab.com/jwt", True),
        ("ghcr.io", "https://ghcr.io/v2/", "https://ghcr.io:443/token", True),
        ("ghcr.io", "https://ghcr.io/v2/", "https://u@evil.example/token", False),
    ],
)
def test_a_cache_knows_the_token_servers_of_large_registries(
    registry: str, answers: str, realm: str, *, shown: bool
) -> None:
    upstream = Upstream(prefix="up", registry=registry, username="ada", password="secret")
    options = upstream_options({}, upstream)
    asked: list[object] = []

    def run(flow: object) -> Token:
        asked.append(flow)
        return Token(value="t", scopes=("repository:app:pull",))

    who = Authenticator(registry, options.credentials.lookup, run, token_hosts=options.token_hosts)
    challenge = parse_challenges([f'Bearer realm="{realm}",service="x"'])
    scopes = ["repository:app:pull"]
    with contextlib.nullcontext() if shown else pytest.raises(ArgosyError, match="may not see"):
        who.answer(challenge, scopes, refused="", url=answers, named_by=None)
    assert bool(asked) is shown
