"""The front: where requests come from, and how many of them one client may have."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from argosy.errors import TooManyRequestsError
from argosy.server import front
from argosy.server.front import Front, Limiter, Metered, origin
from argosy.server.settings import Limits, Settings
from argosy.server.telemetry import Telemetry
from argosy.server.visit import VISIT, Visit
from tests.server.client import Answer, Server
from tests.server.doors import Door, basic, rule

NETS = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "told", "expected"),
    [
        ("1.2.3.4", b"9.9.9.9", "1.2.3.4"),
        ("10.0.0.1", b"9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", b"6.6.6.6, 9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", b"6.6.6.6, 9.9.9.9, 10.0.0.2", "9.9.9.9"),
        ("10.0.0.1", b"10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", b"nonsense, 9.9.9.9, garbage", "10.0.0.1"),
        ("10.0.0.1", b"", "10.0.0.1"),
        ("::ffff:10.0.0.1", b"9.9.9.9", "9.9.9.9"),
        ("fd00::1", b"2001:db8::1", "2001:db8::1"),
        ("", b"9.9.9.9", ""),
    ],
)
def test_a_client_is_whom_the_last_trusted_proxy_saw(peer: str, told: bytes, expected: str) -> None:
    assert origin(peer, {b"x-forwarded-for": told}, NETS, "http")[0] == expected


@pytest.mark.parametrize(
    "lines", [[b"9.9.9.9, 10.0.0.2"], [b"9.9.9.9", b"10.0.0.2"], [b"6.6.6.6", b"9.9.9.9", b"10.0.0.2"]]
)  # fmt: skip
def test_proxies_may_each_add_a_line_of_their_own(lines: list[bytes]) -> None:
    seen: list[str] = []

    async def app(*_: object) -> None:
        visit = VISIT.get()
        assert visit is not None
        seen.append(visit.address)

    async def nothing(*_: object) -> Any: ...

    headers = [(b"x-forwarded-for", line) for line in lines]
    scope = {"type": "http", "raw_path": b"/v2/", "client": ("10.0.0.1", 1), "headers": headers}
    asyncio.run(Front(app, Limiter(Limits()), ["10.0.0.0/8"])(scope, nothing, nothing))
    assert seen == ["9.9.9.9"]


def test_the_scheme_is_believed_from_a_trusted_proxy_alone() -> None:
    headers = {b"x-forwarded-proto": b"HTTPS"}
    assert origin("10.0.0.1", headers, NETS, "http")[1] == "https"
    assert origin("1.2.3.4", headers, NETS, "http")[1] == "http"
    assert origin("10.0.0.1", {b"x-forwarded-proto": b"gopher"}, NETS, "http")[1] == "http"


def test_requests_under_way_are_counted_for_each_client_and_together() -> None:
    limiter = Limiter(Limits(concurrency=3, concurrency_per_client=2))
    visits = [Visit(client="a"), Visit(client="a"), Visit(client="b")]
    for visit in visits:
        limiter.enter(visit) if visit is not visits[2] else None
    with pytest.raises(TooManyRequestsError, match="too many requests under way"):
        limiter.enter(Visit(client="a"))
    limiter.enter(visits[2])
    with pytest.raises(TooManyRequestsError, match="busy"):
        limiter.enter(Visit(client="c"))
    limiter.leave(visits[0])
    limiter.enter(Visit(client="a"))


def test_a_rate_lets_a_burst_through_and_then_says_when_to_come_again() -> None:
    now = [0.0]
    limiter = Limiter(Limits(requests_per_second=2.0, burst=3), clock=lambda: now[0])
    for _ in range(3):
        visit = Visit(client="a")
        limiter.enter(visit)
        limiter.leave(visit)
    with pytest.raises(TooManyRequestsError) as caught:
        limiter.enter(Visit(client="a"))
    assert caught.value.retry_after == 0.5
    limiter.enter(Visit(client="b"))
    now[0] += 0.5
    limiter.enter(Visit(client="a"))


def test_a_user_is_counted_wherever_they_come_from(tmp_path: pathlib.Path) -> None:
    with Door(tmp_path, {"rules": [rule(["pull"], "ann", "bob")]}) as door:
        limiter = Limiter(Limits(concurrency_per_client=1))
        metered = Metered(door.gate, limiter)

        async def come(address: str, user: str) -> str:
            visit = Visit(address, "http", address)
            VISIT.set(visit)
            limiter.enter(visit)
            headers = {k.encode(): v.encode() for k, v in basic(user).items()}
            await metered.authenticate(headers)
            return visit.client

        assert door.server.run(come("1.1.1.1", "ann")) == "user ann"
        assert door.server.run(come("1.1.1.1", "bob")) == "user bob"
        with pytest.raises(TooManyRequestsError):
            door.server.run(come("2.2.2.2", "ann"))


class Fronted(Server):
    """A registry behind its front, with a client of our choice."""

    def __init__(self, root: str, limits: Limits, *trusted: str) -> None:
        super().__init__(root)
        self.telemetry = Telemetry(Settings())
        self.registry.on_exchange = self.telemetry.record
        self.app = Front(self.app, Limiter(limits), trusted)  # type: ignore[assignment]


def test_a_host_of_ipv6_does_not_escape_the_limit_by_its_many_addresses(
    tmp_path: pathlib.Path,
) -> None:
    def refused(*addresses: str) -> int:
        with Fronted(str(tmp_path), Limits(requests_per_second=0.001, burst=1)) as server:
            front: Any = server.app
            peers = iter(addresses)

            async def coming(scope: Any, receive: Any, send: Any) -> None:
                await front({**scope, "client": (next(peers), 1)}, receive, send)

            server.app = coming  # type: ignore[assignment]
            return [server.ask("GET", "/v2/").status for _ in addresses].count(429)

    assert refused(*(f"2001:db8::{n}:1" for n in range(5))) == 4
    assert refused(*(f"2001:db8:0:{n}::1" for n in range(5))) == 0
    assert refused(*(f"::ffff:192.0.2.{n}" for n in range(5))) == 0


def test_turning_away_is_an_error_clients_understand(tmp_path: pathlib.Path) -> None:
    with Fronted(str(tmp_path), Limits(requests_per_second=0.5, burst=1)) as server:
        assert server.ask("GET", "/v2/").status == 200
        answer: Answer = server.ask("GET", "/v2/")
        assert (answer.status, answer.code) == (429, "TOOMANYREQUESTS")
        assert (answer.header("retry-after"), answer.header("connection")) == ("2", "close")
        assert server.ask("GET", "/livez").status == 200
        assert server.ask("GET", "/readyz").status == 200


def test_who_is_turned_away_is_in_the_log_and_in_the_figures(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with Fronted(str(tmp_path), Limits(requests_per_second=0.001, burst=1)) as server:
        server.ask("GET", "/v2/")
        identity = server.ask("GET", "/v2/a/tags/list").header("x-request-id")
        server.telemetry._lines.flush()  # type: ignore[union-attr]
        assert server.telemetry._counters.requests["", "GET", 429] == 1
    lines = [json.loads(line) for line in caplog.messages[-1].splitlines()]
    assert [(line["status"], line["path"]) for line in lines if line["request_id"] == identity] == [
        (429, "/v2/a/tags/list")
    ]


def test_a_body_that_is_turned_away_is_read_so_that_the_answer_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        for number in range(5):
            read.append(number)
            yield bytes(1000)

    limits = Limits(requests_per_second=0.001, burst=1)
    with Fronted(str(tmp_path), limits) as server:
        assert server.ask("GET", "/v2/").status == 200
        answer = server.run(server.streaming("PUT", "/v2/a/manifests/t", body()))
        assert (answer.status, answer.code, len(read)) == (429, "TOOMANYREQUESTS", 5)
        monkeypatch.setattr(front, "_DRAINED", 0)
        answer = server.run(server.streaming("PUT", "/v2/a/manifests/t", body()))
        assert (answer.status, len(read)) == (429, 5)


def test_a_body_that_is_turned_away_takes_nobodys_place(tmp_path: pathlib.Path) -> None:
    async def go(server: Fronted) -> list[int]:
        loop = asyncio.get_running_loop()
        until = {name: loop.create_future() for name in ("first", "second")}

        async def body(name: str) -> AsyncIterator[bytes]:
            yield b"x"
            await until[name]

        asks = [
            asyncio.ensure_future(server.streaming("PUT", "/v2/a/manifests/t", body(name)))
            for name in until
        ]
        await asyncio.sleep(0.05)
        until["first"].set_result(None)
        answers = [(await asks[0]).status, (await server.asking("GET", "/v2/")).status]
        until["second"].set_result(None)
        return [*answers, (await asks[1]).status]

    with Fronted(str(tmp_path), Limits(concurrency_per_client=1)) as server:
        assert server.run(go(server)) == [400, 200, 429]


def test_a_request_that_fails_is_counted_out(tmp_path: pathlib.Path) -> None:
    with Fronted(str(tmp_path), Limits(concurrency_per_client=1)) as server:

        async def broken(*_: Any) -> None:
            raise KeyError("boom")

        front: Any = server.app
        inner, front._app = front._app, broken
        for _ in range(3):
            with pytest.raises(KeyError):
                server.ask("GET", "/v2/")
        front._app = inner
        assert server.ask("GET", "/v2/").status == 200


def test_the_lifespan_passes_through(tmp_path: pathlib.Path) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {}

    asyncio.run(Front(app, Limiter(Limits()))({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
