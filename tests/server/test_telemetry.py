"""Figures and the doors to them; keys of issuers behind a URL."""

from __future__ import annotations

import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from argosy.errors import InvalidConfigError, UnauthorizedError
from argosy.server.app import App
from argosy.server.auth.issuers import Issuers
from argosy.server.front import Front, Limiter
from argosy.server.settings import Issuer, Limits, Operations, Settings
from argosy.server.telemetry import Telemetry
from tests.server.client import Answer
from tests.server.doors import Door, basic, rule

NOW = 1_800_000_000


class Watched:
    """A registry with figures, asked from an address of our choice."""

    def __init__(self, directory: pathlib.Path, door: str) -> None:
        self.door = Door(directory, {"rules": [rule(["admin"], "admin"), rule(["pull"], "ann")]})
        settings = Settings(operations=Operations(metrics=door))  # type: ignore[arg-type]
        telemetry = Telemetry(settings, self.door.gate)
        self.door.server.registry.on_exchange = telemetry.record
        self.app = App(self.door.server.registry, telemetry.routes())

    def ask(self, address: str, user: str = "", target: str = "/metrics") -> Answer:
        front = Front(self.app, Limiter(Limits()))

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["client"] = (address, 1)
            await front(scope, receive, send)

        self.door.server.app = app  # type: ignore[assignment]
        return self.door.server.ask("GET", target, headers=basic(user) if user else {})


@pytest.mark.parametrize(
    ("door", "address", "user", "status"),
    [
        ("loopback", "127.0.0.1", "", 200),
        ("loopback", "::1", "", 200),
        ("loopback", "192.0.2.1", "", 404),
        ("loopback", "192.0.2.1", "admin", 404),
        ("all", "192.0.2.1", "", 200),
        ("none", "127.0.0.1", "admin", 404),
        ("admin", "192.0.2.1", "admin", 200),
        ("admin", "127.0.0.1", "ann", 403),
        ("admin", "127.0.0.1", "", 401),
    ],
)
def test_figures_are_for_whom_they_are_configured(
    tmp_path: pathlib.Path, door: str, address: str, user: str, status: int
) -> None:
    watched = Watched(tmp_path, door)
    assert watched.ask(address, user).status == status
    watched.door.close()


def test_figures_count_requests_bytes_and_what_the_database_holds(tmp_path: pathlib.Path) -> None:
    watched = Watched(tmp_path, "all")
    watched.ask("127.0.0.1", "ann", "/v2/")
    watched.ask("127.0.0.1", "ann", "/v2/a/manifests/none")
    watched.ask("127.0.0.1", "", "/nowhere")
    text = watched.ask("127.0.0.1").body.decode()
    for line in (
        'argosy_requests_total{method="GET",route="ping",status="200"} 1.0',
        'argosy_requests_total{method="GET",route="manifest",status="404"} 1.0',
        'argosy_requests_total{method="GET",route="",status="404"} 1.0',
        'argosy_request_seconds_count{method="GET",route="ping"} 1.0',
        'argosy_request_seconds_bucket{le="+Inf",method="GET",route="ping"} 1.0',
        "argosy_sent_bytes_total",
        "argosy_review 0.0",
    ):
        assert line in text
    watched.door.close()


def test_a_route_is_a_label_and_a_path_never_is(tmp_path: pathlib.Path) -> None:
    watched = Watched(tmp_path, "all")
    for number in range(50):
        watched.ask("127.0.0.1", "ann", f"/v2/repository{number}/tags/list")
    text = watched.ask("127.0.0.1").body.decode()
    assert "repository1" not in text
    assert 'route="tags",status="404"} 50.0' in text
    watched.door.close()


# -- keys behind a URL -----------------------------------------------------------------------------


class KeyServer:
    """Serves a key set, and counts how often it is asked."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.asked = 0
        self.status = 200
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked += 1
                body = json.dumps({"keys": served.keys}).encode()
                self.send_response(served.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def add(self, kid: str) -> ed25519.Ed25519PrivateKey:
        key = ed25519.Ed25519PrivateKey.generate()
        self.keys.append(OKPAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid})
        return key


@pytest.fixture
def served() -> Iterator[KeyServer]:
    made = KeyServer()
    yield made
    made.server.shutdown()
    made.thread.join()
    made.server.server_close()


def token(key: Any, kid: str, now: float, user: str = "job") -> str:
    claims = {"iss": "https://ci.example", "aud": "registry", "sub": user, "exp": now + 60}
    return jwt.encode(claims, key, "EdDSA", headers={"kid": kid})


def test_keys_are_fetched_kept_and_fetched_again_for_a_new_one(served: KeyServer) -> None:
    now = [float(NOW)]
    one = Issuer(issuer="https://ci.example", audience="registry", jwks=served.url)
    known = Issuers([one], lambda: now[0])
    first = served.add("first")
    for _ in range(5):
        assert known.verify(token(first, "first", now[0])).user == "job"
    assert served.asked == 1
    second = served.add("second")
    for _ in range(5):  # somebody who makes up key ids does not make us ask each time
        with pytest.raises(UnauthorizedError):
            known.verify(token(second, "made-up", now[0]))
    assert served.asked == 1
    now[0] += 11
    assert known.verify(token(second, "second", now[0])).user == "job"
    assert served.asked == 2
    served.status = 500
    now[0] += 400
    assert known.verify(token(first, "first", now[0])).user == "job"


def test_keys_that_cannot_be_had_let_nobody_in(served: KeyServer) -> None:
    key = served.add("one")
    served.status = 500
    one = Issuer(issuer="https://ci.example", audience="registry", jwks=served.url)
    with pytest.raises(UnauthorizedError, match="not to be had"):
        Issuers([one], lambda: NOW).verify(token(key, "one", NOW))


@pytest.mark.parametrize("user", ["", "a\0b", "a\nb", "\ud800"])
def test_a_token_for_a_name_that_nobody_can_write_down_is_refused(
    served: KeyServer, user: str
) -> None:
    key = served.add("one")
    one = Issuer(issuer="https://ci.example", audience="registry", jwks=served.url)
    with pytest.raises(UnauthorizedError, match="names no user"):
        Issuers([one], lambda: NOW).verify(token(key, "one", NOW, user))


def test_keys_come_over_https_from_anywhere_but_this_machine() -> None:
    with pytest.raises(InvalidConfigError, match="expected https"):
        Issuers([Issuer(issuer="x", audience="y", jwks="http://idp.example/jwks")])
