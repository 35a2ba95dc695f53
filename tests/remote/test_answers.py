"""Answers: their errors, their limits, and what is shown of them."""

from __future__ import annotations

import email.utils
import io
import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import LimitExceededError, NotFoundError, ResponseError, UsageError
from argosy.remote import network
from argosy.remote.config import Options
from argosy.remote.connection import Network
from argosy.remote.refusals import error_of, http_date, retry_after
from argosy.remote.wire import Headers, Request, Response, SettledError, redact_headers, redact_url
from argosy.spec.distribution import MAX_ERROR_BODY

GET = Request(method="GET", url="/v2/x")


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


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_every_form_of_a_date_is_the_same_moment_wherever_it_is_read(text: str) -> None:
    """RFC 9110, section 5.6.7."""
    assert http_date(text) == 784111777
    assert retry_after(Headers([("Retry-After", text)]), now=784111770) == 7


def test_an_error_without_a_code_is_told_by_its_message() -> None:
    body = b'{"errors":[{"code":null,"message":"not today"},{"code":"DENIED","message":null}]}'
    assert str(error_of(Response(403, data=body), GET)).endswith("/v2/x: 403 not today; DENIED")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"detail": "invalid URL  on\nlayer"}, "UNKNOWN: oops (invalid URL on layer)"),
        ({"detail": "a\x1b[2J"}, "UNKNOWN: oops (a?[2J)"),
        ({"detail": {"digest": "sha256:0"}}, 'UNKNOWN: oops ({"digest":"sha256:0"})'),
        ({"detail": {"method": "GET", "path": "/v2/x"}}, "UNKNOWN: oops"),
        ({"detail": "oops"}, "UNKNOWN: oops"),
        ({"detail": "b" * 300}, f"UNKNOWN: oops ({'b' * 200}...)"),
        ({"detail": ["b" * 300]}, "UNKNOWN: oops"),
        ({"detail": {}}, "UNKNOWN: oops"),
        ({"detail": None}, "UNKNOWN: oops"),
        ({"detail": "https://h/?sig=SECRET"}, "UNKNOWN: oops (https://h/?sig=REDACTED)"),
    ],
)
def test_the_detail_of_an_error_is_told_where_it_says_more(
    entry: dict[str, object], told: str
) -> None:
    body = json.dumps({"errors": [{"code": "UNKNOWN", "message": "oops", **entry}]}).encode()
    assert str(error_of(Response(400, data=body), GET)) == f"GET /v2/x: 400 {told}"


def test_the_same_error_many_times_is_told_once() -> None:
    entry, other = {"code": "UNKNOWN", "message": "oops"}, {"code": "DENIED"}
    body = json.dumps({"errors": [entry] * 5 + [other]}).encode()
    assert str(error_of(Response(400, data=body), GET)).endswith(": 400 UNKNOWN: oops; DENIED")


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


def test_options_and_requests_show_no_secret() -> None:
    secret = {"Authorization": "Bearer hidden"}
    shown = (
        Options(headers=secret, proxies={"http": "http://u:hidden@proxy.example"}),
        Network(proxies={"http": "http://u:hidden@proxy.example"}),
        Request(method="POST", url="http://x/", headers=secret, body=b"password=hidden"),
    )
    assert "hidden" not in repr(shown)


def test_a_chunk_of_less_than_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="chunk size: expected bytes, got -1"):
        Options(chunk_size=-1)
