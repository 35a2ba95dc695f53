"""Strict JSON: what two parsers could take for different things is refused, and everything has a limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import InvalidError, LimitExceededError
from argosy.spec import _json

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_read(value: object) -> None:
    assert _json.loads(_json.dumps(value)) == value
    assert _json.loads(_json.dumps(value, indent=2)) == value


def test_a_lone_surrogate_leaves_as_the_escape_it_came_in_as() -> None:
    assert _json.dumps(_json.loads(rb'"\ud800"')) == rb'"\ud800"'


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'{"a":1,"a":2}', "duplicate property 'a'"),
        (b'{"x":{"b":1,"b":1}}', "duplicate property 'b'"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'{"a":1} x', "not JSON at byte 8: extra data"),
        (b"", "not JSON at byte 0"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "not JSON at byte 0"),
        ("{'ä': 1}".encode(), "not JSON at byte 1"),
        ('["ä" x]'.encode(), "not JSON at byte 6"),
    ],
)
def test_what_is_ambiguous_or_damaged_is_refused_with_its_place(raw: bytes, told: str) -> None:
    with pytest.raises(InvalidError) as caught:
        _json.loads(raw)
    assert told in str(caught.value)


@pytest.mark.parametrize("depth", [129, 1000, 1_000_000])
@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_a_document_nested_too_deep_is_refused(depth: int, left: bytes, right: bytes) -> None:
    raw = left * depth + b"1" + right * depth
    with pytest.raises(InvalidError) as caught:
        _json.loads(raw, limit=len(raw))
    assert "deeper than 128" in str(caught.value)


def test_a_document_as_deep_as_allowed_is_read() -> None:
    assert _json.loads(b"[" * 128 + b"]" * 128)


def test_a_document_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(LimitExceededError) as caught:
        _json.loads(b" " * 11, limit=10)
    assert "11 bytes" in str(caught.value)


def test_a_document_that_is_no_object_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        _json.loads_object(b"[]")
    assert "got an array" in str(caught.value)


def test_a_huge_integer_is_an_error_and_not_a_crash() -> None:
    with pytest.raises(InvalidError):
        _json.loads(b"1" * 10_000)


@pytest.mark.parametrize("number", ["1e999", "-1E+400", "9" * 400 + ".5"])
def test_a_number_that_would_become_infinite_is_refused(number: str) -> None:
    with pytest.raises(InvalidError, match=r"^the number -?[0-9]\S* is too large$"):
        _json.loads(b'{"x":[%s]}' % number.encode())
    assert _json.loads(b"[1e308, 1e-999]") == [1e308, 0.0]
