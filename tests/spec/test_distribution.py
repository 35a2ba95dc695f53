"""The words of the wire: headers, ranges, links, warnings, error bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy import errors
from argosy.errors import ArgosyError, BlobUnknownError, InvalidUploadError
from argosy.spec import distribution as d
from argosy.spec.digest import Digest


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_ranges_of_chunks_are_read(start: int, length: int) -> None:
    assert d.parse_content_range(f"{start}-{start + length}") == (start, start + length)
    assert d.parse_upload_range(f"0-{length}") == length + 1


@pytest.mark.parametrize(
    "text", ["", "-", "5-4", "bytes 0-1", "0-1/2", "a-b", "0-", "-1", "0-99999999999999999999"]
)
def test_what_is_no_range_of_a_chunk_is_refused(text: str) -> None:
    with pytest.raises(InvalidUploadError):
        d.parse_content_range(text)


@pytest.mark.parametrize("text", ["", "1-2", "x", "bytes=-1"])
def test_what_is_no_range_of_an_upload_is_refused(text: str) -> None:
    with pytest.raises(InvalidUploadError):
        d.parse_upload_range(text)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (['</x?n=1>; rel="next"'], "/x?n=1"),
        (["</x>; rel=next"], "/x"),
        (['</a>; rel="prev", </b>; rel="next"'], "/b"),
        (['</a>; title="x, y; z"; rel="prev next"'], "/a"),
        (["</a>", "</b>; rel=NEXT"], "/b"),
        (['</a>; rel="nextish"'], None),
        (["garbage", ""], None),
        ([], None),
    ],
)
def test_the_next_page_is_found(values: list[str], found: str | None) -> None:
    assert d.next_link(values) == found


@given(st.text(max_size=100))
def test_no_link_header_crashes_or_hangs(text: str) -> None:
    d.next_link([text])
    list(d.parse_warnings(text))
    d.decode_errors(text.encode("utf-8", "surrogatepass"))


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=200))
def test_warnings_are_written_and_read(text: str) -> None:
    assert list(d.parse_warnings(d.warning(text))) == [text]
    joined = f'{d.warning(text)}, 199 - "299 - \\"no\\"",{d.warning("b")}'
    assert list(d.parse_warnings(joined)) == [text, "b"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ('299 registry.example "a" "Sat, 21 Nov 2026 10:02:00 GMT" , 299 - "b, c"', ["a", "b, c"]),
        ('299 - "a" b, 299 - "c"', []),
        ('299 - "a", what, 299 - "c"', ["a"]),
        ('299 - "' + "x" * 5000 + '"', []),
        ("299 - plain", []),
        ("", []),
    ],
)
def test_every_warning_of_a_field_is_read(value: str, told: list[str]) -> None:
    assert list(d.parse_warnings(value)) == told


def test_a_warning_stays_below_the_limit_and_in_ascii() -> None:
    value = d.warning("ä\r\nSet-Cookie: x" + "y" * 9000)
    assert len(value) <= d.MAX_WARNING
    assert value.isascii()
    assert value.isprintable()


@pytest.mark.parametrize("before", ["", "x"])
@pytest.mark.parametrize("char", ['"', "\\"])
def test_a_warning_is_not_cut_in_the_middle_of_an_escape(before: str, char: str) -> None:
    (told,) = d.parse_warnings(d.warning(before + char * 5000))
    assert (before + char * 5000).startswith(told)
    assert len(told) > 2000


def test_the_referrers_tag_is_cut_as_the_specification_says() -> None:
    assert len(d.referrers_tag(Digest.of(b"x", "sha512"))) == len("sha512-") + 64
    odd = Digest("a" * 40 + "+b:" + "c=d" * 40)
    assert d.referrers_tag(odd) == "a" * 32 + "-" + ("c-d" * 40)[:64]


@pytest.mark.parametrize(
    "error",
    [
        e
        for e in vars(errors).values()
        if isinstance(e, type) and issubclass(e, ArgosyError) and e.code
    ],
)
def test_an_error_goes_over_the_wire_and_comes_back_as_its_class(error: type[ArgosyError]) -> None:
    entry = d.decode_errors(d.encode_errors(error("what happened")))[0]
    assert (entry.code, entry.message) == (error.code, "what happened")
    assert errors.error_class(entry.code) is not None


def test_details_are_kept() -> None:
    body = d.encode_errors(BlobUnknownError("x"), {"digest": "y"})
    assert d.decode_errors(body)[0].detail == {"digest": "y"}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"errors":{}}', b'{"errors":["x"]}', b"<html>", b"\xff", b"x" * 70_000],
)
def test_what_is_no_error_body_has_no_entries(body: bytes) -> None:
    assert d.decode_errors(body) == ()
