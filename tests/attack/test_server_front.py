"""Attacks by way of headers, logs, and the addresses the registry itself speaks to."""

from __future__ import annotations

import http.server
import json
import logging
import pathlib
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.errors import DeniedError, LimitExceededError, TransportError
from argosy.server import outbound
from argosy.server.app import App
from argosy.server.assemble import build
from argosy.server.front import Front, Limiter
from argosy.server.http import Request
from argosy.server.loopback import Loopback
from argosy.server.registry import Exchange
from argosy.server.settings import AccessSettings, Limits, Listen, Operations, Settings
from argosy.server.telemetry import Telemetry, access_line
from tests.server import client
from tests.server.certificates import certificate
from tests.server.client import Server
from tests.server.doors import PASSWORD, Door, basic, rule

registry = server = client.server


def test_olareg_a_made_up_forwarded_address_does_not_escape_the_limit(
    tmp_path: pathlib.Path,
) -> None:
    def refused(trusted: tuple[str, ...]) -> int:
        with Server(str(tmp_path)) as server:
            limits = Limits(requests_per_second=0.001, burst=1)
            server.app = Front(server.app, Limiter(limits), trusted)  # type: ignore[assignment]
            answers = [
                server.ask("GET", "/v2/", headers={"x-forwarded-for": f"9.9.9.{n}"}).status
                for n in range(5)
            ]
        return answers.count(429)

    assert refused(()) == 4
    assert refused(("10.0.0.0/8",)) == 4


# -- requests that two readers understand differently (RFC 9112, section 3.2) ----------------------------------------


@pytest.mark.parametrize("name", [b"host", b"origin", b"authorization"])
def test_two_hosts_origins_or_credentials_are_refused(server: Server, name: bytes) -> None:
    def status(*values: bytes) -> int:
        async def with_both(scope: Any, receive: Any, send: Any) -> None:
            fields = [(name, value) for value in values]
            await app({**scope, "headers": [*scope["headers"], *fields]}, receive, send)

        app, server.app = server.app, with_both  # type: ignore[assignment]
        try:
            return server.ask("GET", "/v2/").status
        finally:
            server.app = app

    assert status(b"one", b"two") == 400
    assert status(b"one", b"two", b"one") == 400
    assert status(b"one", b"one") == 200


# -- ollama CVE-2024-28224, DNS rebinding: a page of the web whose name leads to this machine ------------------------


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {}),
        (200, {"host": "localhost:5000"}),
        (200, {"host": "LOCALHOST.:5000"}),
        (200, {"host": "app.localhost:5000"}),
        (200, {"host": "127.0.0.1:5000"}),
        (200, {"host": "[::1]:5000"}),
        (200, {"host": "192.0.2.7"}),
        (200, {"host": "kind-registry:5000"}),
        (200, {"host": "host.docker.internal:5000"}),
        (200, {"host": "registry.example"}),
        (200, {"host": "localhost:5000", "origin": "http://localhost:3000"}),
        (200, {"host": "192.0.2.7:5000", "origin": "http://192.0.2.7:5000"}),
        (200, {"host": "localhost:5000", "origin": "https://registry.example"}),
        (403, {"host": "evil.example:5000"}),
        (403, {"host": "localhost.evil.example"}),
        (403, {"host": "internal.example"}),
        (403, {"host": "registry.example.evil.example"}),
        (403, {"host": "[::1"}),
        (403, {"host": "x" * 301}),
        (403, {"host": "localhost:5000", "origin": "http://localhost/" + "x" * 300}),
        (403, {"host": "evil.example", "origin": "http://evil.example"}),
        (403, {"host": "localhost:5000", "origin": "http://evil.example"}),
        (403, {"host": "localhost:5000", "origin": "http://192.0.2.7"}),
        (403, {"host": "localhost:5000", "origin": "http://intranet"}),
        (403, {"host": "localhost:5000", "origin": "null"}),
    ],
)
def test_cve_2024_28224_a_browser_that_was_led_to_an_open_registry_is_refused(
    tmp_path: pathlib.Path, status: int, fields: dict[str, str]
) -> None:
    with Server(str(tmp_path), access=Loopback("https://registry.example/")) as server:
        assert server.ask("GET", "/v2/", headers=fields).status == status
        assert server.ask("GET", "/livez", headers=fields).status == 200


@pytest.mark.parametrize(
    ("metrics", "host", "with_users", "called", "status"),
    [
        ("loopback", "127.0.0.1", False, "localhost:5000", 200),
        ("loopback", "127.0.0.1", False, "registry.example", 200),
        ("loopback", "127.0.0.1", False, "evil.example:5000", 403),
        ("loopback", "0.0.0.0", True, "evil.example:5000", 403),
        ("all", "127.0.0.1", False, "evil.example:5000", 403),
        ("all", "0.0.0.0", True, "prometheus-sees.example", 200),
    ],
)
def test_cve_2024_28224_a_browser_that_was_led_here_reads_no_figures_of_this_machine(
    tmp_path: pathlib.Path, metrics: str, host: str, with_users: bool, called: str, status: int
) -> None:
    listen = Listen(host=host, public_url="https://registry.example")
    settings = Settings(listen=listen, operations=Operations(metrics=metrics))  # type: ignore[arg-type]
    with Door(tmp_path) as door:
        telemetry = Telemetry(settings, door.gate if with_users else None)
        app = App(door.server.registry, telemetry.routes())
        front = Front(app, Limiter(Limits()))

        async def from_here(scope: Any, receive: Any, send: Any) -> None:
            await front({**scope, "client": ("127.0.0.1", 1)}, receive, send)

        door.server.app = from_here  # type: ignore[assignment]
        assert door.ask("GET", "/metrics", headers={"host": called}).status == status


@pytest.mark.parametrize(
    ("host", "guarded"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False)]
)
def test_only_where_nobody_else_should_reach_it_are_names_asked_for(
    tmp_path: pathlib.Path, host: str, guarded: bool
) -> None:
    rights = AccessSettings(anonymous="all")
    settings = Settings(data=str(tmp_path), listen=Listen(host=host), access=rights)
    registry = build(settings).registry
    registry.metadata.close()
    assert isinstance(registry.access, Loopback) == guarded


# -- zot CVE-2025-48374: secrets in logs -----------------------------------------------------------


def test_cve_2025_48374_no_secret_reaches_the_log(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with Door(tmp_path, {"rules": [rule(["pull", "push"], "ann")]}) as door:
        telemetry = Telemetry(Settings(), door.gate)
        door.server.registry.on_exchange = telemetry.record
        token = door.token("ann", "repository:a:pull,push")
        location = door.ask("POST", "/v2/a/blobs/uploads/", b"", basic("ann")).location
        door.ask("PATCH", location, b"x", basic("ann"))
        for path in (location, f"{location}/", location.replace(".", "%2E")):
            assert door.ask("POST", path, b"", basic("ann")).status in {404, 405}
        door.ask("GET", "/v2/a/tags/list", headers={"authorization": f"Bearer {token}"})
        door.ask("GET", "/v2/a/tags/list?access_token=tok-secret&n=5", headers=basic("ann"))
        door.ask("GET", "/v2/", headers=basic("ann", "wrong-secret"))
        door.ask("POST", "/token", b"grant_type=password&username=ann&password=form-secret")
        telemetry._lines.flush()  # type: ignore[union-attr]
    text = caplog.text
    assert '"route":"upload"' in text
    assert '"query":"n=5"' in text
    signature = location.rpartition(".")[2]
    for secret in (
        PASSWORD,
        token,
        token.rpartition(".")[2],
        signature,
        "tok-secret",
        "wrong-secret",
        "form-secret",
        basic("ann")["authorization"].partition(" ")[2],
    ):
        assert secret not in text


def test_a_line_of_the_log_is_one_line_whatever_the_client_sends() -> None:
    scope = {
        "type": "http", "method": "GE\nT", "raw_path": b'/v2/\n{"fake":1}\x1b[31m', "query_string": b"n=%0a%0d",
        "headers": [(b"user-agent", b"x\r\n{}\x00")],
    }  # fmt: skip

    async def receive() -> dict[str, object]:
        return {}

    request = Request(scope, receive, "id")
    line = access_line(Exchange(request, "", 404, 0, 0.1), None, 1_800_000_000.5)
    assert line.isprintable()
    assert json.loads(line)["time"] == "2027-01-15T08:00:00.500Z"


def test_no_request_keeps_itself_out_of_the_log_by_two_credentials(
    registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    telemetry = Telemetry(Settings())
    registry.registry.on_exchange = telemetry.record
    app = registry.app

    async def with_another(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"authorization", b"Basic 1"), (b"authorization", b"Basic 2")]
        await app({**scope, "headers": fields}, receive, send)

    registry.app = with_another  # type: ignore[assignment]
    assert registry.ask("GET", "/v2/_catalog?n=1").status == 400
    telemetry._lines.flush()  # type: ignore[union-attr]
    assert [json.loads(text)["status"] for text in caplog.messages] == [400]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_no_request_keeps_itself_out_of_the_log_by_many_parameters(
    registry: Server, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    caplog.set_level(logging.INFO)
    telemetry = Telemetry(Settings())
    registry.registry.on_exchange = telemetry.record
    digest = registry.push_image("a", "t")
    answer = registry.ask(method, "/v2/a/manifests/t?" + "a&" * 1001)
    assert (answer.status, answer.code) == (414, "SIZE_INVALID")
    assert registry.ask("GET", f"/v2/a/manifests/{digest}").status == 200
    telemetry._lines.flush()  # type: ignore[union-attr]
    lines = [json.loads(line) for line in caplog.messages[-1].splitlines()]
    refused = [line for line in lines if line["status"] == 414]
    assert [(line["method"], line["query"]) for line in refused] == [(method, "")]
    assert telemetry._counters.requests["", method, 414] == 1


def test_what_a_client_does_wrong_is_no_error_of_the_registry(
    registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    app = registry.app

    async def in_gzip(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"host", b"x"), (b"transfer-encoding", b"gzip, chunked")]
        await app({**scope, "http_version": "1.1", "headers": fields}, receive, send)

    registry.app = in_gzip  # type: ignore[assignment]
    assert registry.ask("PUT", "/v2/a/manifests/t", b"{}").status == 501
    assert caplog.messages == []


def test_what_fails_after_the_answer_is_logged_and_harms_nobody(
    registry: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Exchange) -> None:
        raise KeyError("boom")

    registry.registry.on_exchange = broken
    assert registry.ask("GET", "/v2/").status == 200
    assert "is not in the access log" in caplog.text


# -- Quay CVE-2026-2376 and others: requests to the inside -----------------------------------------


class Answering(http.server.BaseHTTPRequestHandler):
    """Redirects, or answers too much."""

    def do_GET(self) -> None:
        seen.append(self.path)
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("Location", "/inside")
            self.end_headers()
        elif self.path == "/large":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * (outbound.MAX_BODY + 2))
        else:
            self.send_response(200)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        return


seen: list[str] = []


@pytest.fixture
def inside() -> Iterator[str]:
    seen.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "224.0.0.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
     "2002:7f00:1::", "ff02::1"],
)  # fmt: skip
def test_cve_2026_2376_an_inner_address_is_not_spoken_to(address: str) -> None:
    assert not outbound.allowed(address)
    with pytest.raises(DeniedError, match="inner address"):
        outbound.request("GET", "http://evil.example/", resolve=lambda *_: [address])


def test_cve_2026_2376_one_inner_address_among_good_ones_is_enough_to_refuse() -> None:
    with pytest.raises(DeniedError):
        outbound.request(
            "GET", "http://evil.example/", resolve=lambda *_: ["93.184.215.14", "10.0.0.1"]
        )


def test_the_inner_server_is_reached_without_the_guard(inside: str) -> None:
    assert outbound.request("GET", f"{inside}/x", allow_private=True).status == 200
    assert seen == ["/x"]


def test_the_name_is_resolved_once_so_that_it_cannot_change_its_mind(inside: str) -> None:
    port = int(inside.rpartition(":")[2])
    answers = iter([["127.0.0.1"]])
    answer = outbound.request(
        "GET",
        f"http://rebind.example:{port}/x",
        allow_private=True,
        resolve=lambda *_: next(answers),
    )
    assert answer.status == 200


def test_where_the_first_address_takes_no_connection_the_next_one_is_tried(inside: str) -> None:
    answer = outbound.request(
        "GET",
        f"http://localhost:{inside.rpartition(':')[2]}/x",
        allow_private=True,
        resolve=lambda *_: ["127.0.0.2", "127.0.0.1"],
    )
    assert (answer.status, seen) == (200, ["/x"])


def test_a_redirect_is_not_followed(inside: str) -> None:
    assert outbound.request("GET", f"{inside}/redirect", allow_private=True).status == 302
    assert seen == ["/redirect"]


def test_an_answer_without_end_is_cut_off(inside: str) -> None:
    with pytest.raises(LimitExceededError):
        outbound.request("GET", f"{inside}/large", allow_private=True)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://x/", "http://", "//x/", "ftp://x/"]
)
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(DeniedError):
        outbound.request("GET", url, allow_private=True)


def test_what_is_said_of_a_url_has_no_secret_in_it() -> None:
    def nowhere(*_: object) -> list[str]:
        raise TransportError("nowhere")

    url = "http://user:hush@x.example:81/hooks/hush?token=hush"
    with pytest.raises(TransportError):
        outbound.request("GET", url, resolve=nowhere)
    with pytest.raises(DeniedError) as caught:
        outbound.request("GET", url, resolve=lambda *_: ["::1"])
    assert str(caught.value) == "http://x.example:81: leads to an inner address"
    with pytest.raises(TransportError) as failed:
        outbound.request("GET", "http://127.0.0.1:1/hooks/hush", allow_private=True)
    assert "hush" not in str(failed.value)


@pytest.mark.parametrize("authority", [None, "Authority that is not asked for"])
def test_a_pinned_address_must_still_prove_the_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, authority: str | None
) -> None:
    """With the same policy as the client's: what is trusted need not lead to an authority that signed itself."""
    files = certificate(tmp_path, "good.example", authority=authority)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["certificate"], files["key"])
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def ask(host: str) -> int:
        url = f"https://{host}:{server.server_port}/x"
        return outbound.request(
            "GET", url, allow_private=True, resolve=lambda *_: ["127.0.0.1"]
        ).status

    try:
        with pytest.raises(TransportError):
            ask("good.example")
        monkeypatch.setenv("SSL_CERT_FILE", files["certificate"])
        assert ask("good.example") == 200
        with pytest.raises(TransportError):
            ask("evil.example")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
