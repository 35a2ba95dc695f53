"""Proxies, addresses, TLS, and which scheme is spoken."""

# ruff: noqa: SIM117 - one block stands for the registry, one for the failure
from __future__ import annotations

import contextlib
import io
import pathlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from argosy.errors import InvalidConfigError, RegistryError, TransportError
from argosy.remote import network
from argosy.remote.config import Options, Registries
from argosy.remote.connection import TLS
from argosy.remote.credentials import Credential, CredentialStore
from argosy.remote.registry import Registry
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from tests.interop.registries import Authority
from tests.wire import scripted as s

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
DESC = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
GOOD = s.manifest(RAW, Docker_Content_Digest=DESC.digest)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    pytest.importorskip("cryptography")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[s.Scripted]:
    cert, key = authority.issue("scripted")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    server = s.Scripted(context)
    server.on("HEAD", "/v2/app/manifests/v1", GOOD)
    yield server
    server.close()


def tunnel(seen: s.Seen, peer: s.Peer) -> bool:
    """What a proxy does at CONNECT: bytes in both directions."""
    _, _, port = seen.target.rpartition(":")
    with socket.create_connection(("127.0.0.1", int(port))) as upstream:
        peer.sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

        def back() -> None:
            with contextlib.suppress(OSError):  # a client that hangs up first
                while data := upstream.recv(65536):
                    peer.sock.sendall(data)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        while data := peer.sock.recv(65536):
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)
        thread.join(5)
    return False


def test_http_goes_through_a_proxy_as_an_absolute_url(scripted: s.Scripted) -> None:
    scripted.on("HEAD", "http://registry.test/v2/app/manifests/v1", GOOD)
    proxies = {"http": f"http://user:p%40ss@127.0.0.1:{scripted.port}"}
    with Registry("registry.test", Options(plain_http=True, proxies=proxies)) as registry:
        assert registry.repository("app").resolve("v1") == DESC
    (seen,) = scripted.requests()
    assert seen.headers["host"] == "registry.test"
    assert seen.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


def test_https_goes_through_a_tunnel_and_the_proxy_sees_no_credential(
    scripted: s.Scripted, secure: s.Scripted, authority: Authority
) -> None:
    scripted.on("CONNECT", ".*", tunnel)
    proxies = {"https": f"http://127.0.0.1:{scripted.port}"}
    ada = CredentialStore(given={"": Credential(username="ada", password="secret")})
    # not called localhost, which no proxy is asked for
    resolve = {("127.0.0.1", scripted.port): ("127.0.0.1", scripted.port)}
    options = Options(
        proxies=proxies, credentials=ada, resolve=resolve, tls=TLS(ca_files=(authority.ca_file,))
    )
    with Registry(f"registry.test:{secure.port}", options) as registry:
        with pytest.raises(TransportError, match="certificate not trusted"):
            registry.repository("app").resolve("v1")
    assert [r.target for r in scripted.requests("CONNECT")] == [f"registry.test:{secure.port}"]
    assert "authorization" not in scripted.requests()[0].headers


@pytest.fixture
def secure_proxy(authority: Authority) -> Iterator[s.Scripted]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("proxy"))
    server = s.Scripted(context)
    yield server
    server.close()


def test_a_proxy_can_be_spoken_to_in_tls_and_the_registry_within_it(
    secure_proxy: s.Scripted, secure: s.Scripted, authority: Authority
) -> None:
    blob = bytes(range(256)) * 4096
    desc = Descriptor.of(mediatypes.OCI_LAYER, blob)
    secure.on("GET", f"/v2/app/blobs/{desc.digest}", s.answer(200, {}, blob))
    secure_proxy.on("CONNECT", ".*", tunnel)
    proxies = {"https": f"https://user:pw@localhost:{secure_proxy.port}"}
    tls = TLS(ca_files=(authority.ca_file,))
    name = f"registry.test:{secure.port}"  # not called localhost, which no proxy is asked for
    options = Options(proxies=proxies, tls=tls, insecure=True)
    with Registry(name, options) as registry:
        assert registry.repository("app").resolve("v1") == DESC
        assert registry.repository("app").fetch(desc).read() == blob
    (seen, *_) = secure_proxy.requests()
    assert seen.method == "CONNECT"
    assert seen.headers["proxy-authorization"].startswith("Basic ")
    # CVE-2014-1830, CVE-2023-32681, CVE-2024-37891: the proxy's password is not for those behind it
    assert secure.requests()
    assert not [r for r in secure.requests() if "proxy-authorization" in r.headers]


def test_a_proxy_whose_certificate_nobody_vouches_for_is_sent_nothing(
    secure_proxy: s.Scripted,
) -> None:
    proxies = {"http": f"https://localhost:{secure_proxy.port}"}
    with Registry("registry.test", Options(plain_http=True, proxies=proxies)) as registry:
        with pytest.raises(TransportError, match=r"proxy .*: certificate not trusted"):
            registry.repository("app").resolve("v1")
    assert not secure_proxy.requests()


def test_http_goes_through_a_proxy_in_tls(secure_proxy: s.Scripted, authority: Authority) -> None:
    secure_proxy.on("HEAD", "http://registry.test/v2/app/manifests/v1", GOOD)
    proxies = {"http": f"https://localhost:{secure_proxy.port}"}
    options = Options(plain_http=True, proxies=proxies, tls=TLS(ca_files=(authority.ca_file,)))
    with Registry("registry.test", options) as registry:
        assert registry.repository("app").resolve("v1") == DESC


def test_a_proxy_that_refuses_is_named(scripted: s.Scripted) -> None:
    scripted.on("CONNECT", ".*", s.answer(403))
    proxies = {"https": f"http://127.0.0.1:{scripted.port}"}
    with Registry("registry.test", Options(proxies=proxies, attempts=1)) as registry:
        refused = r"proxy .* refused: 403 to a connection to registry\.test:443"
        with pytest.raises(TransportError, match=refused):
            registry.ping()


@pytest.mark.parametrize("plain", [True, False])
def test_a_proxy_that_wants_a_password_is_told_from_a_registry(
    scripted: s.Scripted, plain: bool
) -> None:
    scripted.on("*", ".*", s.answer(407))
    proxies = dict.fromkeys(("http", "https"), f"http://127.0.0.1:{scripted.port}")
    with Registry("registry.test", Options(proxies=proxies, plain_http=plain, attempts=1)) as made:
        with pytest.raises(RegistryError, match="proxy") as caught:
            made.ping()
    assert "http://user:password@" in (caught.value.hint or "")


def test_a_proxy_that_is_not_there_is_named_as_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        name = f"127.0.0.1:{closed.getsockname()[1]}"
    options = Options(plain_http=True, proxies={"http": f"http://u:SECRET@{name}"}, attempts=1)
    with Registry("registry.test", options) as registry:
        with pytest.raises(TransportError, match=f"^proxy {name}: connection refused$"):
            registry.ping()


def test_a_file_of_authorities_that_is_none_is_named_with_the_reason(
    tmp_path: pathlib.Path,
) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for path, why in ((tmp_path / "none.pem", "no such file or directory"), (empty, "no .*found")):
        with pytest.raises(InvalidConfigError, match=f"^certificate {path}: {why}$"):
            TLS(ca_files=(str(path),)).context()


@pytest.mark.parametrize(
    "proxy",
    [
        "http://u:SECRET@h:999999",
        "http://u:SECRET@[::1",
        "http://u:SECRET@h:0",
        "socks4://u:SECRET@h",
        "http://u:pa/SECRET@127.0.0.1:9",
        "http://SECRET:1/SECRET@127.0.0.1:9",
        "http://u:SECRET#SECRET@127.0.0.1:9",
        "http://u:1?SECRET@127.0.0.1:9",
    ],
)
def test_a_proxy_that_is_none_is_named_without_its_password(proxy: str) -> None:
    with Registry("registry.test", Options(proxies={"https": proxy}, attempts=1)) as registry:
        with pytest.raises(InvalidConfigError, match=r"proxy .*: expected") as caught:
            registry.ping()
    assert "SECRET" not in str(caught.value)
    spoilt = any(mark in proxy.removeprefix("http://") for mark in "/?#" if "@h" not in proxy)
    assert ("percent-encoded" in (caught.value.hint or "")) == spoilt


@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_proxy_that_refuses_is_sent_the_password_once(scripted: s.Scripted, status: int) -> None:
    """Each time more is one nearer to a user who is locked out."""
    scripted.on("CONNECT", ".*", s.answer(status))
    proxies = {"https": f"http://u:p@127.0.0.1:{scripted.port}"}
    with Registry("registry.test", Options(proxies=proxies, retry_delay=0.001)) as registry:
        with pytest.raises(TransportError, match=f"refused: {status}"):
            registry.ping()
    assert len(scripted.requests()) == 1


@pytest.mark.parametrize(("error", "times"), [("EAI_NONAME", 1), ("EAI_AGAIN", 3)])
def test_a_name_that_is_none_is_looked_for_once(
    monkeypatch: pytest.MonkeyPatch, error: str, times: int
) -> None:
    asked: list[object] = []

    def resolved(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(getattr(socket, error), "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    with Registry("registry.test", Options(attempts=3, retry_delay=0.001)) as registry:
        with pytest.raises(TransportError, match=r"registry\.test:443: no such name"):
            registry.ping()
    assert len(asked) == times


def test_no_proxy_is_asked_for_this_machine(scripted: s.Scripted, another: s.Scripted) -> None:
    scripted.on("HEAD", "/v2/app/manifests/v1", GOOD)
    with Registry(scripted.name, Options(proxies={"http": another.url})) as registry:
        registry.repository("app").resolve("v1")
    assert not another.requests()


def test_a_name_can_be_given_another_address(scripted: s.Scripted) -> None:
    scripted.on("HEAD", "/v2/app/manifests/v1", GOOD)
    resolve = {("registry.test", 80): ("127.0.0.1", scripted.port)}
    with Registry("registry.test", Options(plain_http=True, resolve=resolve)) as registry:
        assert registry.repository("app").resolve("v1") == DESC
    assert scripted.requests()[0].headers["host"] == "registry.test"


def test_loopback_speaks_tls_where_the_other_side_does(
    secure: s.Scripted, authority: Authority
) -> None:
    with Registry(secure.name, Options(tls=TLS(ca_files=(authority.ca_file,)))) as registry:
        assert registry.repository("app").resolve("v1") == DESC


def test_what_is_trusted_does_not_depend_on_the_version_of_python() -> None:
    flags = TLS().context().verify_flags
    assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert not flags & ssl.VERIFY_X509_STRICT


def test_no_credential_is_looked_up_before_the_scheme_is_settled(scripted: s.Scripted) -> None:
    """Another host than this machine is asked by https alone: nothing is ever sent in the clear."""
    ada = CredentialStore(given={"": Credential(username="ada", password="secret")})
    resolve = {("registry.test", 443): ("127.0.0.1", scripted.port)}
    with Registry(
        "registry.test", Options(credentials=ada, resolve=resolve, attempts=1)
    ) as registry:
        with pytest.raises(TransportError) as caught:
            registry.ping()
    assert "--plain-http" in (caught.value.hint or "")
    assert not scripted.requests()


def test_insecure_means_no_questions_and_http_where_there_is_no_tls(
    scripted: s.Scripted, secure: s.Scripted
) -> None:
    scripted.on("HEAD", "/v2/app/manifests/v1", GOOD)
    for server in (scripted, secure):
        resolve = {("registry.test", 5000): ("127.0.0.1", server.port)}
        with Registry("registry.test:5000", Options(insecure=True, resolve=resolve)) as registry:
            assert registry.repository("app").resolve("v1") == DESC


def test_a_namespace_that_is_insecure_is_so_for_reading_and_for_writing(secure: s.Scripted) -> None:
    secure.on("HEAD", "/v2/(team|strict)/.*", GOOD)
    secure.on("PUT", "/v2/.*", s.answer(201))
    table = {"location": f"{secure.name}/team", "insecure": True}
    with Registry(secure.name, Options(registries=Registries([table]))) as registry:
        for mirrors in (True, False):
            repository = registry.repository("team/app", mirrors=mirrors)
            assert repository.resolve("v1") == DESC
            assert repository.exists(DESC)
            repository.push(DESC, io.BytesIO(RAW), tags=["v1"])
        with pytest.raises(TransportError, match="not trusted"):
            registry.repository("strict/app").resolve("v1")


def test_the_longest_prefix_decides_what_is_insecure(secure: s.Scripted) -> None:
    secure.on("*", "/v2/(team|strict)/.*", GOOD)
    tables: list[dict[str, object]] = [
        {"location": secure.name, "insecure": True},
        {"location": f"{secure.name}/strict"},
    ]
    with Registry(secure.name, Options(registries=Registries(tables))) as registry:
        assert registry.repository("team/app").resolve("v1") == DESC
        strict = registry.repository("strict/app")
        for ask in (lambda: strict.resolve("v1"), lambda: strict.exists(DESC)):
            with pytest.raises(TransportError, match="not trusted"):
                ask()


@pytest.mark.parametrize("family", ["ipv6"])
def test_an_address_of_version_6_is_a_registry_too(family: str) -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("IPv6: this machine has no ::1")
    port = server.getsockname()[1]

    def serve() -> None:
        for _ in range(2):  # the first is a question whether TLS is spoken
            sock, _ = server.accept()
            with sock:
                data = sock.recv(65536)
                if data.startswith(b"GET /v2/ "):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with Registry(f"[::1]:{port}") as registry:
        assert registry.ping().url == f"http://[::1]:{port}"
    thread.join(5)
    server.close()


@pytest.mark.parametrize(
    ("rule", "host", "exempt"),
    [
        ("[fd00:0:0::1]", "fd00::1", True),
        ("[fd00:0:0::1]:443", "fd00::1", True),
        ("[fd00:0:0::1]:80", "fd00::1", False),
        ("fd00:0:0::1", "fd00::1", True),
        ("[fd00::2]", "fd00::1", False),
        ("r.example.", "r.example", True),
        (".example", "r.example.", True),
        ("r.example", "other.example", False),
        (".", "r.example", False),
    ],
)
def test_who_needs_no_proxy_is_known_however_it_is_written(
    rule: str, host: str, exempt: bool
) -> None:
    assert network.no_proxy(host, 443, rule) is exempt
