"""TLS: whose certificates are trusted, which one is shown to whom, and what is said where that fails."""

# ruff: noqa: SIM117 - one block stands for the registry, one for the failure
from __future__ import annotations

import pathlib
import shutil
import ssl
from collections.abc import Iterator

import pytest

from argosy.errors import InvalidConfigError, TransportError
from argosy.remote.config import Options, certificates
from argosy.remote.connection import TLS, failed
from argosy.remote.registry import Registry
from argosy.remote.wire import Request
from tests.interop.registries import Authority
from tests.wire import scripted as s


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    pytest.importorskip("cryptography")
    return Authority(tmp_path_factory.mktemp("authority"))


def served(cert: str, key: str, clients: str | None = None) -> s.Scripted:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    server = s.Scripted(context)
    server.on("GET", "/v2/", s.answer(200))
    return server


@pytest.fixture
def guarded(authority: Authority) -> Iterator[s.Scripted]:
    """A registry that wants to see a certificate."""
    server = served(*authority.issue("server"), authority.ca_file)
    yield server
    server.close()


@pytest.mark.parametrize("name", ["[::1]:{}", "localhost:443", "localhost", "localhost:{}"])
@pytest.mark.parametrize("by", ["certs.d", "options"])
def test_the_certificate_is_shown_whatever_the_registry_is_called(
    guarded: s.Scripted, authority: Authority, tmp_path: pathlib.Path, name: str, by: str
) -> None:
    registry = name.format(guarded.port)
    cert, key = authority.issue("client")
    folder = tmp_path / registry
    folder.mkdir()
    for file, to in ((cert, "c.cert"), (key, "c.key"), (authority.ca_file, "ca.crt")):
        shutil.copy(file, folder / to)
    resolve = {
        (host, port): ("127.0.0.1", guarded.port)
        for host in ("::1", "localhost")
        for port in (443, guarded.port)
    }
    tls = TLS(ca_files=(authority.ca_file,), cert_file=cert, key_file=key)
    told = Options(tls=tls, resolve=resolve)
    found = Options(cert_dirs=(str(tmp_path),), resolve=resolve)
    with Registry(registry, told if by == "options" else found) as made:
        assert made.ping().url == f"https://{registry}"


def test_the_users_certificate_is_shown_to_the_registry_alone(tmp_path: pathlib.Path) -> None:
    """A host that a redirect leads to gets what certs.d has for that host."""
    (tmp_path / "cdn.example").mkdir()
    for name in ("c.cert", "c.key"):
        (tmp_path / "cdn.example" / name).touch()
    mine = TLS(ca_files=("ca",), cert_file="cert", key_file="key")
    options = Options(tls=mine, cert_dirs=(str(tmp_path),))
    assert options.tls_of("r.example", own=True, insecure=False) == mine
    other = options.tls_of("other.example", own=False, insecure=False)
    assert other == TLS(ca_files=("ca",))
    found = options.tls_of("cdn.example", own=False, insecure=False)
    assert found.cert_file == str(tmp_path / "cdn.example" / "c.cert")


def test_who_shows_no_certificate_is_told_how() -> None:
    """As OpenSSL says it, where the alert comes before the end of the connection: by chance."""
    wanted = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")
    wanted.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
    error = failed(Request(method="GET", url="https://r.example/v2/"), wanted)
    assert str(error).endswith("certificate required")
    assert "--cert-file" in (error.hint or "")


@pytest.mark.parametrize(
    ("days", "name", "hint"),
    [
        (-5, "localhost", "new certificate"),
        (1, "registry.test", "by a name that is in its certificate"),
        (1, "127.0.0.2", "by a name that is in its certificate"),
    ],
)
def test_the_advice_is_about_what_is_wrong(
    authority: Authority, days: int, name: str, hint: str
) -> None:
    server = served(*authority.issue("other", days))
    resolve = {(name, server.port): ("127.0.0.1", server.port)}
    options = Options(tls=TLS(ca_files=(authority.ca_file,)), resolve=resolve)
    with Registry(f"{name}:{server.port}", options) as registry:
        with pytest.raises(TransportError, match="not trusted") as caught:
            registry.ping()
    server.close()
    assert hint in (caught.value.hint or "")


def test_a_certificate_without_its_key_is_named(
    authority: Authority, tmp_path: pathlib.Path
) -> None:
    cert, key = authority.issue("one")
    for wrong in (TLS(cert_file=cert), TLS(cert_file=key), TLS(cert_file=cert, key_file=cert)):
        with pytest.raises(
            InvalidConfigError, match=r"one\..*: expected a certificate and its key"
        ):
            wrong.context()
    with pytest.raises(InvalidConfigError, match=r"one\.crt with nowhere: no such file"):
        TLS(cert_file=cert, key_file="nowhere").context()


@pytest.mark.parametrize(("there", "missing"), [("c.cert", "c.key"), ("c.key", "c.cert")])
def test_certs_d_has_certificates_with_their_keys(
    tmp_path: pathlib.Path, there: str, missing: str
) -> None:
    (tmp_path / there).touch()
    (tmp_path / "ca.crt").touch()
    with pytest.raises(InvalidConfigError, match=f"{there}: there is no {missing} beside it"):
        certificates([str(tmp_path.parent)], tmp_path.name)
