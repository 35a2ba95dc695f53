"""Flows, without a socket: what they ask for, given what they are told."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import ManifestUnknownError, TransportError
from argosy.remote import flows, network
from argosy.remote.auth import covers, fetch_token, merge_scopes
from argosy.remote.challenges import parse_challenges
from argosy.remote.credentials import Credential
from argosy.remote.wire import Request, Response, run
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest

DIGEST = Digest.of(b"x")


def test_a_flow_yields_requests_and_returns_what_it_learnt() -> None:
    flow = flows.resolve("app", "v1")
    first = next(flow)
    assert (first.method, first.url) == ("HEAD", "/v2/app/manifests/v1")
    assert first.scopes == ("repository:app:pull",)
    accepted = first.headers["Accept"].replace(" ", "").split(",")
    assert set(mediatypes.MANIFESTS | mediatypes.INDEXES) <= set(accepted)
    headers = {
        "Content-Type": mediatypes.OCI_MANIFEST, "Content-Length": "7", "Docker-Content-Digest": DIGEST,
    }  # fmt: skip
    with pytest.raises(StopIteration) as stop:
        flow.send(Response(200, headers))
    assert stop.value.value == Descriptor(media_type=mediatypes.OCI_MANIFEST, digest=DIGEST, size=7)


@pytest.mark.parametrize(
    ("base", "link", "leads"),
    [
        ("https://r.example/a", "http://r.example/b?n=1", "https://r.example/b?n=1"),
        ("https://r.example/a", "/b", "https://r.example/b"),
        ("https://r.example/a", "http://r.example.net/b", "http://r.example.net/b"),
        ("https://r.example/a", "http://r.example:8080/b", "http://r.example:8080/b"),
        ("http://r.example/a", "http://r.example/b", "http://r.example/b"),
    ],
)
def test_a_next_page_keeps_the_scheme_that_a_proxy_lost(base: str, link: str, leads: str) -> None:
    assert flows.next_of(Response(200, {"Link": f'<{link}>; rel="next"'}, url=base)) == leads


def test_an_error_is_thrown_into_the_flow() -> None:
    class Down:
        def send(self, request: Request) -> Response:
            raise TransportError("down")

    with pytest.raises(TransportError):
        run(flows.resolve("app", "v1"), Down())


def test_a_plain_404_takes_the_class_that_was_asked_for() -> None:
    flow = flows.resolve("app", "v1")
    next(flow)
    with pytest.raises(ManifestUnknownError):
        flow.send(Response(404))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            [
                (
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"},
                )
            ],
        ),
        (
            'Basic realm="a \\"b\\", c", Bearer realm=r',
            [("basic", {"realm": 'a "b", c'}), ("bearer", {"realm": "r"})],
        ),
        ("Negotiate, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (
            'Negotiate YIIabc==, Bearer  realm = "x" , service=y',
            [("negotiate", {}), ("bearer", {"realm": "x", "service": "y"})],
        ),
        ("Basic", [("basic", {})]),
        ("BEARER Realm=x", [("bearer", {"realm": "x"})]),
        ("", []),
        (",,,", []),
    ],
)
def test_challenges_are_all_read(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, dict(c.parameters)) for c in parse_challenges([header])] == expected


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_challenge_breaks_the_parser(values: list[str]) -> None:
    parse_challenges(values)


def test_a_long_hostile_challenge_is_read_in_no_time() -> None:
    started = time.perf_counter()
    parse_challenges(['Bearer a="' + "\\" * 100_000, "x " * 50_000, "a=" * 50_000, "," * 100_000])
    assert time.perf_counter() - started < 2


def test_scopes_are_merged_and_the_new_one_stays_first() -> None:
    assert merge_scopes(["repository:b:pull"], ["repository:a:push", "repository:b:push"]) == (
        "repository:b:pull,push", "repository:a:push",
    )  # fmt: skip
    assert covers(["repository:a:*"], ["repository:a:delete"])
    assert not covers(["repository:a:pull"], ["repository:a:pull,push"])


def test_a_token_request_repeats_the_scope_parameter() -> None:
    flow = fetch_token(
        "https://t/x?y=1", "svc", ["a:b:c", "d:e:f"], Credential(username="u", password="p")
    )
    request = next(flow)
    query = "service=svc&scope=a%3Ab%3Ac&scope=d%3Ae%3Af&account=u&client_id=argosy"
    assert request.url == f"https://t/x?y=1&{query}"
    with pytest.raises(StopIteration) as stop:
        flow.send(Response(200, data=b'{"access_token":"v","expires_in":5,"refresh_token":"r"}'))
    assert (stop.value.value.value, stop.value.value.life, stop.value.value.refresh) == (
        "v",
        60.0,
        "r",
    )


def test_a_cached_token_is_as_old_as_its_issue() -> None:
    flow = fetch_token("https://t/", "", [])
    next(flow)
    with pytest.raises(StopIteration) as stop:
        flow.send(
            Response(
                200,
                {"Date": "Sat, 21 Nov 2026 10:02:00 GMT"},
                data=b'{"token":"v","expires_in":300,"issued_at":"2026-11-21T10:00:00.123456789Z"}',
            )
        )
    assert 179 < stop.value.value.life < 181


@pytest.mark.parametrize(
    ("host", "rules", "exempt"),
    [
        ("a.example.com", "example.com", True),
        ("example.com", ".example.com", True),
        ("badexample.com", "example.com", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.9.9.9/8", True),
        ("a.example.com.", "", False),
        ("a.example.com", "other.example, ", False),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("x", "*", True),
        ("a.example.com", "example.com:8443", False),
        ("a.example.com", "*.example.com:443", True),
        ("localhost", "", True),
        ("127.0.0.1", "", True),
        ("fd00::1", "fd00::/8", True),
    ],
)
def test_no_proxy(host: str, rules: str, exempt: bool) -> None:
    assert network.no_proxy(host, 443, rules) is exempt


def test_who_may_lead_where() -> None:
    assert network.may_lead("public", "public")
    assert network.may_lead("private", "private")
    assert network.may_lead("loopback", "private")
    assert not network.may_lead("public", "private")
    assert not network.may_lead("private", "loopback")
    assert not network.may_lead("loopback", "link-local")
