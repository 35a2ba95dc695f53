"""The client against real registries: the contract of every `Target`, passwords, tokens, TLS."""

# ruff: noqa: SIM117 - one block stands for the registry, one for the failure
from __future__ import annotations

import http.server
import io
import json
import pathlib
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from argosy.content.copy import copy
from argosy.content.events import Copied, Event, Mounted
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Target
from argosy.errors import TransportError, UnauthorizedError, UnsupportedError
from argosy.remote.config import Options
from argosy.remote.connection import TLS
from argosy.remote.credentials import Credential, CredentialStore
from argosy.remote.registry import Registry
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.testing import random
from argosy.testing.contract import TargetContract
from tests.interop.registries import KINDS, Authority, Running, running


@pytest.fixture(scope="module", params=KINDS)
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


@pytest.fixture
def registry(real: Running) -> Iterator[Registry]:
    with Registry(real.name, Options(retry_delay=0.01)) as made:
        yield made


class TestContract(TargetContract):
    """What every place promises, kept by a repository of each registry."""

    @pytest.fixture(autouse=True)
    def _registry(self, registry: Registry) -> None:
        self.registry = registry

    def make(self, tmp_path: pathlib.Path) -> Target:
        return self.registry.repository(f"contract/{uuid.uuid4().hex}")

    def reopen(self, place: Target) -> Target:
        return self.registry.repository(place.name)  # type: ignore[attr-defined]


def test_a_copy_to_another_repository_moves_no_bytes(registry: Registry) -> None:
    one, two = (
        registry.repository(f"a/{uuid.uuid4().hex}"),
        registry.repository(f"b/{uuid.uuid4().hex}"),
    )
    root = random.image(one, 1, "v1")
    events: list[Event] = []
    assert copy(one, "v1", two, "v1", on_event=events.append) == root
    moved = [e for e in events if isinstance(e, Copied) and not e.descriptor.is_manifest()]
    assert moved == []


def test_chunks_arrive_whole(real: Running) -> None:
    data = bytes(range(256)) * 20_000
    desc = Descriptor.of(mediatypes.OCI_LAYER, data)
    with Registry(real.name, Options(chunk_size=1_000_000)) as registry:
        repository = registry.repository(f"chunks/{uuid.uuid4().hex}")
        repository.push(desc, io.BytesIO(data))
        assert repository.fetch(desc).read() == data


def test_ranges_are_understood(registry: Registry) -> None:
    data = bytes(range(256)) * 20_000
    desc = Descriptor.of(mediatypes.OCI_LAYER, data)
    repository = registry.repository(f"ranges/{uuid.uuid4().hex}")
    repository.push(desc, io.BytesIO(data))
    reader = repository.fetch(desc)
    assert reader.resume(io.BytesIO(data[:4_000_000])) == 4_000_000  # type: ignore[attr-defined]
    assert reader.read() == data[4_000_000:]


def test_many_tags_and_pages(real: Running, registry: Registry) -> None:
    repository = registry.repository(f"tags/{uuid.uuid4().hex}")
    tags = [f"t{n:03}" for n in range(30)]
    random.image(repository, 1, *tags)
    assert sorted(repository.tags()) == tags
    if real.kind == "olareg":
        with pytest.raises(UnsupportedError, match="no list"):
            list(registry.catalog())
    else:
        assert repository.name in set(registry.catalog())


# ------------------------------------------------------------------------------------------------------- passwords


def htpasswd(folder: pathlib.Path) -> str:
    bcrypt = pytest.importorskip("bcrypt")
    path = folder / "htpasswd"
    path.write_bytes(b"ada:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    return f"auth: {{htpasswd: {{realm: test, path: '{path}'}}}}\n"


ADA = Credential(username="ada", password="secret")


def ada(**more: object) -> Options:
    store = CredentialStore(given={"": ADA})
    return Options(credentials=store, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_password_opens_a_registry_and_nothing_else_does(
    kind: str, tmp_path: pathlib.Path
) -> None:
    with running(kind, tmp_path, extra=htpasswd(tmp_path)) as real:
        with Registry(real.name, ada()) as registry:
            random.image(registry.repository("app"), 1, "v1")
            assert registry.ping().version == "registry/2.0"
        with Registry(real.name) as registry, pytest.raises(UnauthorizedError, match="who you are"):
            registry.repository("app").resolve("v1")
        wrong = CredentialStore(given={"": Credential(username="ada", password="wrong")})
        with Registry(real.name, Options(credentials=wrong)) as registry:
            with pytest.raises(UnauthorizedError, match="refused the credentials"):
                registry.ping()


# ---------------------------------------------------------------------------------------------------------- tokens


class TokenServer:
    """A token server as Docker's specification has it; it trusts one password, and signs."""

    def __init__(self, folder: pathlib.Path) -> None:
        import jwt
        from cryptography.hazmat.primitives import serialization

        authority = Authority(folder)
        self.bundle, key_file = authority.issue("token")
        key = serialization.load_pem_private_key(pathlib.Path(key_file).read_bytes(), None)
        chain = [self._der(self.bundle)]
        self.bundle = authority.ca_file
        self.scopes: list[list[str]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                outer.scopes.append(query.get("scope", []))
                access = []
                for scope in query.get("scope", []):
                    kind, name, actions = scope.split(":")
                    wanted = actions.split(",")
                    known = self.headers.get("Authorization") == ADA.basic()
                    allowed = wanted if known else [a for a in wanted if a == "pull"]
                    access.append({"type": kind, "name": name, "actions": allowed})
                now = int(time.time())
                claims = {
                    "iss": "test", "sub": "ada", "aud": "svc", "iat": now, "nbf": now - 5, "exp": now + 300,
                    "jti": str(now), "access": access,
                }  # fmt: skip
                token = jwt.encode(claims, key, "ES256", headers={"x5c": chain})  # type: ignore[arg-type]
                body = json.dumps({"token": token, "expires_in": 300}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://localhost:{self.server.server_port}/token"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @staticmethod
    def _der(path: str) -> str:
        text = pathlib.Path(path).read_text()
        return "".join(line for line in text.splitlines() if not line.startswith("-----"))

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_tokens_open_a_registry_with_just_the_scopes_that_are_needed(
    kind: str, tmp_path: pathlib.Path
) -> None:
    tokens = TokenServer(tmp_path)
    extra = f"auth: {{token: {{realm: '{tokens.realm}', service: svc, issuer: test, rootcertbundle: '{tokens.bundle}'}}}}\n"
    try:
        with running(kind, tmp_path, extra=extra) as real:
            with Registry(real.name, ada()) as registry:
                one, two = registry.repository("one"), registry.repository("two")
                random.image(one, 1, "v1")
                events: list[Event] = []
                copy(one, "v1", two, "v1", on_event=events.append)
                assert any(isinstance(e, Mounted) for e in events)
            with Registry(real.name) as registry:
                assert copy(registry.repository("two"), "v1", MemoryStore(), "x")
                with pytest.raises(UnauthorizedError):
                    random.image(registry.repository("two"), 2, "v2")
    finally:
        tokens.close()
    flat = {s for scopes in tokens.scopes for s in scopes}
    assert "repository:one:pull,push" in flat
    assert not any("delete" in s or "*" in s for s in flat)


# ------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    pytest.importorskip("cryptography")
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.parametrize("kind", KINDS[:2])
def test_tls_with_an_authority_of_ones_own(
    kind: str, tmp_path: pathlib.Path, authority: Authority
) -> None:
    cert, key = authority.issue("server")
    http_options = f", tls: {{certificate: '{cert}', key: '{key}'}}"
    with running(kind, tmp_path / "r", http=http_options) as real:
        with Registry(real.name, Options(tls=TLS(ca_files=(authority.ca_file,)))) as registry:
            assert registry.ping().url.startswith("https://")
            random.image(registry.repository("app"), 1, "v1")
        certs = tmp_path / "certs.d" / real.name
        certs.mkdir(parents=True)
        (certs / "ca.crt").write_bytes(pathlib.Path(authority.ca_file).read_bytes())
        with Registry(real.name, Options(cert_dirs=(str(tmp_path / "certs.d"),))) as registry:
            assert list(registry.repository("app").tags()) == ["v1"]
        with Registry(real.name, Options(insecure=True)) as registry:
            assert list(registry.repository("app").tags()) == ["v1"]
        with Registry(real.name, Options()) as registry:
            with pytest.raises(TransportError, match="certificate not trusted") as caught:
                registry.ping()
            assert "--ca-file" in (caught.value.hint or "")
        with Registry(real.name, Options(plain_http=True)) as registry:
            with pytest.raises(Exception, match=r"400|not HTTP|closed"):
                registry.ping()


@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_clients_certificate_is_shown_where_it_is_wanted(
    kind: str, tmp_path: pathlib.Path, authority: Authority
) -> None:
    cert, key = authority.issue("server")
    mine, my_key = authority.issue("client")
    http_options = (
        f", tls: {{certificate: '{cert}', key: '{key}', clientcas: ['{authority.ca_file}']}}"
    )
    with running(kind, tmp_path, http=http_options) as real:
        tls = TLS(ca_files=(authority.ca_file,), cert_file=mine, key_file=my_key)
        with Registry(real.name, Options(tls=tls)) as registry:
            assert registry.ping().url.startswith("https://")
        with Registry(
            real.name, Options(tls=TLS(ca_files=(authority.ca_file,)), attempts=1)
        ) as registry:
            with pytest.raises(TransportError):
                registry.ping()


def test_a_missing_certificate_file_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Exception, match=r"nowhere\.pem"):
        TLS(ca_files=(str(tmp_path / "nowhere.pem"),)).context()
    assert ssl.OPENSSL_VERSION
