"""Answers as HTTP/1.1 has them, and those that two readers could take for different things."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.remote.http1 import (
    MAX_INTERIM,
    MAX_LINE,
    Answer,
    BrokenOffError,
    ClosedError,
    HeadError,
    ProtocolError,
    head,
)

OK = b"HTTP/1.1 200 OK\r\n"


def answer(raw: bytes, method: str = "GET") -> Answer:
    return Answer(io.BytesIO(raw), method)


def body(raw: bytes, method: str = "GET", piece: int = 7) -> bytes:
    found, got = answer(raw, method), b""
    while not found.done and (data := found.read(piece)):
        got += data
    return got


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@given(st.binary(max_size=200), st.binary(max_size=20), st.integers(1, 50))
def test_a_body_ends_where_its_head_says(data: bytes, rest: bytes, piece: int) -> None:
    fields = b"Content-Length: %d\r\n\r\n" % len(data)
    assert body(OK + fields + data + rest, piece=piece) == data
    found = answer(OK + fields + data + rest)
    while not found.done:
        found.read(piece)
    assert found.taken == len(OK + fields + data)
    assert body(OK + b"\r\n" + data, piece=piece) == data


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(1, 50))
def test_chunks_are_joined(parts: list[bytes], piece: int) -> None:
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*parts)
    assert body(raw, piece=piece) == b"".join(parts)
    for end in range(len(OK), len(raw) - 1):
        with pytest.raises((BrokenOffError, ClosedError)):
            body(raw[:end])


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        OK + b"no field\r\n\r\n",
        OK + b"Name : x\r\n\r\n",
        OK + b" folded: first\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: +1\r\n\r\na",
        OK + b"Content-Length: 1_0\r\n\r\n",
        OK + b"Content-Length: \xb2\r\n\r\nab",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        OK + b"A: " + b"a" * MAX_LINE + b"\r\n\r\n",
        OK + b"A: a\r\n" * 100_000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INTERIM + 1) + OK + b"\r\n",
    ],
)
def test_what_is_not_http_or_says_two_things_is_refused(raw: bytes) -> None:
    with pytest.raises(ProtocolError):
        body(raw)


def test_endless_trailers_are_refused() -> None:
    raw = OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: a\r\n" * 100_000
    with pytest.raises(ProtocolError, match="trailers"):
        body(raw)


def test_two_lengths_that_agree_are_one() -> None:
    assert body(OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na") == b"a"


def test_a_connection_is_not_used_again_after_an_answer_that_could_be_read_in_two_ways() -> None:
    both = OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a")
    assert answer(both).closes
    assert body(both) == b"a"
    assert answer(both).fields == [("Transfer-Encoding", "chunked")]
    assert answer(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").closes
    assert answer(OK + b"Connection: Close\r\nContent-Length: 0\r\n\r\n").closes
    last = OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"a")
    assert answer(last).closes
    assert not answer(OK + b"Content-Length: 0\r\n\r\n").closes


def test_some_answers_have_no_body_whatever_they_say() -> None:
    fields = b"Content-Length: 5\r\n\r\n"
    assert answer(OK + fields, "HEAD").done
    assert answer(b"HTTP/1.1 304 x\r\n" + fields).done
    assert answer(b"HTTP/1.1 204\r\n" + fields).done
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na"
    assert body(interim) == b"a"
    assert answer(interim).fields == [("Content-Length", "1")]


def test_a_folded_field_is_one_line() -> None:
    assert answer(OK + b"Link: a\r\n  b\r\n\r\n").fields == [("Link", "a b")]


def test_an_end_before_the_answer_is_told_from_one_within() -> None:
    with pytest.raises(ClosedError):
        answer(b"")
    with pytest.raises(BrokenOffError):
        answer(b"HTTP/1.1 2")
    with pytest.raises(BrokenOffError) as caught:
        body(OK + b"Content-Length: 9\r\n\r\nabc")
    assert caught.value.left == 6


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/a\r\nX: y", []),
        ("/a b", []),
        ("/", [("X", "a\r\nY: b")]),
        ("/", [("X\r\nY", "b")]),
        ("/", [("X:", "b")]),
        ("/", [("X", "a\0b")]),
        ("/", [("X", "\u2603")]),
        ("/\u2603", []),
    ],
)
def test_nothing_smuggles_a_line_into_a_request(target: str, fields: list[tuple[str, str]]) -> None:
    """CVE-2019-11236: what a URL has of them would end its line."""
    with pytest.raises(HeadError, match=r"header's name|control characters|the header X has"):
        head("GET", target, fields)
