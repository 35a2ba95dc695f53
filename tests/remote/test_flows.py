"""Flows, without a socket: what they ask for, given what they are told."""

from __future__ import annotations

import email.utils
import io
import pathlib
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import (
    DeniedError,
    InvalidConfigError,
    LimitExceededError,
    ManifestUnknownError,
    NotFoundError,
    ResponseError,
    TooManyRequestsError,
    TransportError,
    UsageError,
)
from argosy.remote import flows, network, referrers
from argosy.remote.auth import covers, fetch_token, merge_scopes, parse_challenges
from argosy.remote.config import Options, Registries
from argosy.remote.credentials import Credential
from argosy.remote.session import Gate, Session
from argosy.remote.wire import (
    Headers,
    Request,
    Response,
    SettledError,
    error_of,
    redact_headers,
    redact_url,
    retry_after,
    run,
)
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.distribution import MAX_ERROR_BODY
from argosy.spec.manifest import Index

DIGEST = Digest.of(b"x")


def test_a_flow_yields_requests_and_returns_what_it_learnt() -> None:
    flow = flows.resolve("app", "v1")
    first = next(flow)
    assert (first.method, first.url) == ("HEAD", "/v2/app/manifests/v1")
    assert first.scopes == ("repository:app:pull",)
    assert mediatypes.OCI_INDEX in first.headers["Accept"]
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
    fields = {"Link": f'<{link}>; rel="next"', "Content-Type": mediatypes.OCI_INDEX}
    flow = flows.page("app", "/v2/app/tags/list", "tags")
    next(flow)
    with pytest.raises(StopIteration) as stop:
        flow.send(Response(200, fields, url=base, data=b"{}"))
    assert stop.value.value == ({}, leads)
    listing = referrers.listed("app", "/v2/app/referrers/x")
    next(listing)
    with pytest.raises(StopIteration) as stop:
        listing.send(Response(200, fields, url=base, data=Index().encode()))
    assert stop.value.value.following == leads


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
    assert request.url == "https://t/x?y=1&service=svc&scope=a%3Ab%3Ac&scope=d%3Ae%3Af&account=u"
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


# -------------------------------------------------------------------------------------------------------- waiting


class Clock:
    def __init__(self) -> None:
        self.now, self.slept = 0.0, list[float]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Says:
    """A transport that gives one answer after the other, the last one for ever."""

    def __init__(self, *answers: Response | Exception) -> None:
        self.answers, self.sent = list(answers), list[Request]()

    def send(self, request: Request) -> Response:
        self.sent.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def session(*answers: Response | Exception, **options: object) -> tuple[Session, Says, Clock]:
    clock, says = Clock(), Says(*answers)
    gate = Gate(float(options.pop("rate", 0.0)), clock=clock, sleep=clock.sleep)  # type: ignore[arg-type]
    made = Session("registry.example", Options(**options), transport=says, gate=gate)  # type: ignore[arg-type]
    return made, says, clock


GET = Request(method="GET", url="/v2/x")


def test_the_wait_is_what_the_registry_asks_for() -> None:
    one, _, clock = session(Response(429, {"Retry-After": "20"}), Response(200))
    one.send(GET)
    assert 20 <= clock.now < 20.2


def test_the_wait_is_shared_by_all_requests_to_the_host() -> None:
    clock = Clock()
    gate = Gate(clock=clock, sleep=clock.sleep)
    gate.pause(5)
    gate.pause(3)
    gate.enter()
    assert clock.now == 5


def test_the_rate_is_kept() -> None:
    one, _, clock = session(Response(200), rate=4.0)
    for _ in range(9):
        one.send(GET)
    assert clock.now == pytest.approx(2.0)


def test_a_rate_of_next_to_nothing_waits_a_time_that_can_be_waited() -> None:
    one, _, clock = session(Response(200), rate=1e-320)
    for _ in range(2):
        one.send(GET)
    assert clock.slept == [1e6]


@pytest.mark.parametrize("wrong", ["nan", "inf", "-1"])
@pytest.mark.parametrize("name", ["timeout", "connect_timeout", "retry_delay", "max_wait", "rate"])
def test_a_number_without_sense_is_refused(name: str, wrong: str) -> None:
    """NaN is neither more nor less than any wait: as a limit it would be none."""
    with pytest.raises(UsageError, match=f"{name.replace('_', ' ')}: expected"):
        Options(**{name: float(wrong)})  # type: ignore[arg-type]


def test_the_delay_doubles_and_has_an_end() -> None:
    one, says, clock = session(TransportError("x"), attempts=12, retry_delay=1.0)
    with pytest.raises(TransportError):
        one.send(GET)
    assert len(says.sent) == 12
    assert all(delay <= 36 for delay in clock.slept)
    assert clock.slept[3] > clock.slept[0]


def test_more_than_the_most_wait_is_not_waited() -> None:
    one, says, _ = session(Response(429, {"Retry-After": "300"}), max_wait=60.0)
    with pytest.raises(TooManyRequestsError):
        one.send(GET)
    assert len(says.sent) == 1


def test_a_streamed_body_is_not_sent_twice() -> None:
    class Once:
        length = 1

        def open(self) -> None: ...

    one, says, _ = session(Response(503))
    with pytest.raises(ResponseError):
        one.send(Request(method="PUT", url="/v2/x", body=Once()))  # type: ignore[arg-type]
    assert len(says.sent) == 1


# ---------------------------------------------------------------------------------------------------------- errors


def test_a_500_that_says_blob_unknown_is_a_500() -> None:
    body = b'{"errors":[{"code":"BLOB_UNKNOWN"}]}'
    assert type(error_of(Response(500, data=body), GET)) is ResponseError
    assert isinstance(error_of(Response(404, data=body), GET), NotFoundError)


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "Sat, 99 Nov 2026"])
def test_a_retry_after_that_is_none_is_none(text: str) -> None:
    assert retry_after(Headers([("Retry-After", text)]), now=0) is None


@pytest.mark.parametrize("text", ["1000000000", "99999999999", "9" * 5000])
def test_a_retry_after_of_many_digits_is_very_long(text: str) -> None:
    assert retry_after(Headers([("Retry-After", text)])) == 1e9


def test_a_retry_after_with_a_date_is_reckoned_from_the_clock_here_where_the_answer_has_none() -> (
    None
):
    until = email.utils.formatdate(time.time() + 3600, usegmt=True)
    wait = retry_after(Headers([("Retry-After", until)]))
    assert wait is not None
    assert 3500 < wait <= 3600
    assert retry_after(Headers([("Retry-After", until), ("Date", until)])) == 0


def test_nothing_secret_is_shown() -> None:
    shown = redact_url("https://u:secret@h/p?X-Amz-Signature=secret&digest=sha256:a#secret")
    assert "secret" not in shown
    assert "digest=sha256:a" in shown
    fields = redact_headers(
        [
            ("Authorization", "Bearer secret"),
            ("Cookie", "secret"),
            ("Location", "/x?sig=secret"),
            ("Accept", "a"),
        ]
    )
    assert "secret" not in repr(fields)
    assert ("Accept", "a") in fields


@pytest.mark.parametrize(
    "url",
    [
        "https://h/p?SECRET",
        "https://h/p?digest=a;sig=SECRET",
        "https://h/p#SECRET",
        "http://[::1?sig=SECRET",
        "http://u:SECRET@[x/",
        "http:u:SECRET@h/",
        "//u:SECRET@h/",
        "https://u:SECRET@h\uff0fx/",
    ],
)
def test_no_secret_of_a_url_is_shown_not_even_of_a_broken_one(url: str) -> None:
    assert "SECRET" not in redact_url(url)
    with pytest.raises(SettledError) as caught:
        network.split(url + " ")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("X-JFrog-Art-Api", "SECRET", "REDACTED"),
        ("PRIVATE-TOKEN", "SECRET", "REDACTED"),
        ("X-Auth-Token", "SECRET", "REDACTED"),
        ("X-Api-Key", "SECRET", "REDACTED"),
        ("Link", "</v2/x?token=SECRET&n=1>; rel=next", "</v2/x?token=REDACTED&n=1>; rel=next"),
        ("Link", "</v2/x?token=SECRET", "</v2/x?token=REDACTED"),
        ("Content-Location", "/x?sig=SECRET", "/x?sig=REDACTED"),
        ("Refresh", "0; url=http://u:SECRET@h/", "0; url=http://h/"),
        (
            "WWW-Authenticate",
            'Bearer realm="https://t/?sig=SECRET",service="s"',
            'Bearer realm="https://t/?sig=REDACTED",service="s"',
        ),
        ("Accept", "a/b; q=1", "a/b; q=1"),
        ("Docker-Content-Digest", "sha256:0", "sha256:0"),
    ],
)
def test_a_trace_shows_no_header_that_may_hold_a_secret(name: str, value: str, shown: str) -> None:
    assert redact_headers([(name, value)], own=["x-jfrog-art-api"]) == ((name, shown),)


@given(st.text(max_size=100))
def test_any_url_can_be_redacted(text: str) -> None:
    redact_url(text)
    redact_url(f"https://h/{text}")
    redact_headers([("Link", text), ("Location", text), ("X", text)])


# --------------------------------------------------------------------------------------------------------- network


@pytest.mark.parametrize(
    ("host", "rules", "exempt"),
    [
        ("a.example.com", "example.com", True),
        ("example.com", ".example.com", True),
        ("badexample.com", "example.com", False),
        ("10.1.2.3", "10.0.0.0/8", True),
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


# ------------------------------------------------------------------------------------------------- registries.conf


def test_the_longest_prefix_decides_and_rewrites() -> None:
    rules = Registries(
        [
            {"prefix": "r.example", "location": "all.example"},
            {
                "prefix": "r.example/team",
                "location": "team.example/x",
                "mirror": [
                    {"location": "m.example", "pull-from-mirror": "digest-only", "insecure": True}
                ],
            },
            {"prefix": "*.wild.example", "location": ""},
            {"location": "bad.example", "blocked": True},
        ]
    )
    shown = [
        (e.registry, e.name, e.insecure, e.mirror) for e in rules.endpoints("r.example", "team/app")
    ]
    assert shown == [("m.example", "app", True, True), ("team.example", "x/app", False, False)]
    assert [e.registry for e in rules.endpoints("r.example", "teams/app")] == ["all.example"]
    assert [e.registry for e in rules.endpoints("other.example", "app")] == ["other.example"]
    mirror = rules.endpoints("r.example", "team/app")[0]
    assert mirror.serves(by_digest=True)
    assert not mirror.serves(by_digest=False)
    with pytest.raises(Exception, match="blocked"):
        rules.endpoints("bad.example", "app")


def test_of_wildcards_too_the_longest_decides() -> None:
    table: list[dict[str, Any]] = [
        {"prefix": "*.example", "mirror": [{"location": "m.example"}]},
        {"prefix": "*.bad.example", "blocked": True},
        {"prefix": "*.moved.example", "location": "new.example/x", "insecure": True},
        {"prefix": "a.moved.example/own", "location": "a.moved.example/own"},
    ]
    for rules in (Registries(table), Registries(table[::-1])):
        with pytest.raises(DeniedError):
            rules.endpoints("a.bad.example", "app")
        shown = [(e.registry, e.name, e.insecure) for e in rules.endpoints("b.example", "app")]
        assert shown == [("m.example", "app", False), ("b.example", "app", False)]
        shown = [(e.registry, e.name, e.insecure) for e in rules.endpoints("a.moved.example", "t")]
        assert shown == [("new.example", "x/t", True)]
        assert [e.name for e in rules.endpoints("a.moved.example", "own/app")] == ["own/app"]


@pytest.mark.parametrize("rule", [{"location": "bad.example"}, {"prefix": "*.example"}])
def test_a_blocked_host_is_blocked_on_every_port(rule: dict[str, str]) -> None:
    rules = Registries([{**rule, "blocked": True}, {"location": "bad.example:5001"}])
    for registry in ("bad.example", "bad.example:5000"):
        with pytest.raises(DeniedError):
            rules.endpoints(registry, "app")
    assert len(rules.endpoints("bad.example:5001", "app")) == 1
    assert len(rules.endpoints("verybad.test", "bad.example")) == 1


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('unqualified-search-registries = ["docker.io"]\n# [[registry]]\n', 1),
        ('[[registry]]\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "m.example"\n', 2),
        ('registry = [{location = "quay.io", mirror = [{location = "m.example"}]}]\n', 2),
        ('  [[ "registry" ]]\nlocation = "quay.io"\nmirror = [{location = "m.example"}]\n', 2),
    ],
)
def test_registries_conf_is_read(tmp_path: pathlib.Path, text: str, count: int) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    rules = Registries.read([str(path)])
    assert len(rules.endpoints("quay.io", "app")) == count


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]\n",
        "[registries.search]\nregistries = []\n",
        "registry = 5\n",
        "[[registry]]\ninsecure = true\n",
        '[[registry]]\nprefix = "*.example/team"\nblocked = true\n',
        '[[registry]]\nlocation = "*.example"\nblocked = true\n',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\n',
        '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "x"\n',
    ],
)
def test_a_registries_conf_that_is_none_is_named(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    with pytest.raises(InvalidConfigError, match=r"registries\.conf"):
        Registries.read([str(path)])


@pytest.mark.parametrize(
    "wrong",
    [
        'insecure = "false"',
        "insecure = 0",
        'blocked = "no"',
        'mirror-by-digest-only = ""',
        "prefix = 5",
    ],
)
@pytest.mark.parametrize("table", ["", '[[registry.mirror]]\nlocation = "b"\n'])
def test_a_property_of_another_kind_is_named_and_not_taken_for_true(
    tmp_path: pathlib.Path, table: str, wrong: str
) -> None:
    """`insecure = "false"` would switch the check of certificates off."""
    path = tmp_path / "registries.conf"
    path.write_text(f'[[registry]]\nlocation = "a"\n{table}{wrong}\n')
    with pytest.raises(
        InvalidConfigError, match=rf"registries\.conf: {wrong.partition(' ')[0]}: expected"
    ):
        Registries.read([str(path)])


class Endless:
    """A body that never ends, which counts what is taken of it."""

    def __init__(self) -> None:
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        assert size > 0
        self.taken += size
        assert self.taken < 1 << 24, "it would never have ended"
        return b" " * size


@pytest.mark.parametrize("limit", [0, 1, 100_000, 8 * 1024 * 1024])
def test_no_more_than_the_limit_of_an_answer_is_taken_into_memory(limit: int) -> None:
    body, closed = Endless(), []
    response = Response(200, url="http://x/", body=body, close=lambda: closed.append(True))
    with pytest.raises(LimitExceededError, match=f"over {limit} bytes"):
        response.load(limit)
    assert body.taken == limit + 1
    assert closed == [True]
    assert response.data == b""


def test_of_an_error_no_more_is_read_than_it_takes_to_tell_it() -> None:
    body = Endless()
    response = Response(500, url="http://x/", body=body).load_error()
    assert len(response.data) == body.taken == MAX_ERROR_BODY


def test_an_answer_as_long_as_the_limit_is_read_whole() -> None:
    response = Response(200, url="http://x/", body=io.BytesIO(b"12345"))
    assert response.load(5).data == b"12345"
