"""Nothing unverified leaves a reader."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.content.protocols import Resumable
from argosy.content.verify import VerifyingReader, copy_verified, embedded
from argosy.errors import (
    DigestMismatchError,
    InvalidDigestError,
    LimitExceededError,
    SizeMismatchError,
)
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest


def described(data: bytes) -> Descriptor:
    return Descriptor.of("application/octet-stream", data)


class Late(io.BytesIO):
    """A stream that can begin later, and remembers where it was told to."""

    began = 0

    def start_at(self, offset: int, /) -> None:
        self.began = offset
        self.seek(offset)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_any_way_of_reading_gives_the_content_and_proves_it(data: bytes, sizes: list[int]) -> None:
    reader = VerifyingReader(io.BytesIO(data), described(data))
    out = b"".join(reader.read(size) for size in sizes) + reader.read()
    assert out == data
    assert reader.read(1) == b""
    assert reader.proved


@given(st.binary(min_size=1, max_size=50), st.binary(max_size=60))
def test_any_other_content_is_refused(data: bytes, other: bytes) -> None:
    reader = VerifyingReader(io.BytesIO(other), described(data))
    if other == data:
        assert reader.readall() == data
        return
    with pytest.raises(SizeMismatchError if len(other) != len(data) else DigestMismatchError):
        reader.readall()
    assert not reader.proved


class Unclosable:
    """A stream that has no `close`, as that of a download which is continued by itself."""

    def read(self, size: int = -1, /) -> bytes:
        return b"data"[:size]


def test_a_closed_reader_reads_nothing() -> None:
    for closed in (0, 2):
        reader = VerifyingReader(Unclosable(), described(b"data"))
        reader.read(closed)
        reader.close()
        with pytest.raises(ValueError, match="closed"):
            reader.read()
    reader.close()


def test_the_last_bytes_come_only_after_the_proof() -> None:
    reader = VerifyingReader(io.BytesIO(b"wrong"), described(b"right"))
    assert reader.read(4) == b"wron"
    with pytest.raises(DigestMismatchError):
        reader.read(1)


def test_a_byte_too_many_is_refused_without_reading_on() -> None:
    endless = io.BytesIO(b"abc" + b"x" * 1_000_000)
    with pytest.raises(SizeMismatchError):
        VerifyingReader(endless, described(b"abc")).readall()
    assert endless.tell() == 4


def test_a_limit_is_checked_before_anything_is_read() -> None:
    stream = io.BytesIO(b"abc")
    with pytest.raises(LimitExceededError):
        VerifyingReader(stream, described(b"abc")).readall(limit=2)
    assert stream.tell() == 0


def test_what_cannot_be_verified_is_not_read() -> None:
    desc = Descriptor(media_type="a/b", digest=Digest("md5:abc"), size=1)
    with pytest.raises(InvalidDigestError):
        VerifyingReader(io.BytesIO(b"x"), desc)


def test_closing_early_closes_the_stream_once() -> None:
    closed: list[int] = []
    reader = VerifyingReader(io.BytesIO(b"x"), described(b"x"), close=lambda: closed.append(1))
    with reader:
        pass
    reader.close()
    assert closed == [1]


@given(st.binary(min_size=1, max_size=100), st.integers(0, 120))
def test_a_front_part_is_taken_and_the_whole_still_proved(data: bytes, cut: int) -> None:
    stream = Late(data)
    assert isinstance(stream, Resumable)
    reader = VerifyingReader(stream, described(data))
    taken = reader.resume(io.BytesIO(data[:cut]))
    assert taken == min(cut, len(data))
    assert data[:taken] + reader.readall() == data
    assert stream.began in (0, taken)


def test_a_damaged_front_part_is_found_out() -> None:
    reader = VerifyingReader(Late(b"abcdef"), described(b"abcdef"))
    assert reader.resume(io.BytesIO(b"xbc")) == 3
    with pytest.raises(DigestMismatchError):
        reader.readall()


def test_a_damaged_front_part_is_read_anew() -> None:
    reader = VerifyingReader(Late(b"abcdef"), described(b"abcdef"))
    reader.resume(io.BytesIO(b"xbc"))
    with pytest.raises(DigestMismatchError) as caught:
        reader.readall()
    assert reader.elsewhere(caught.value)
    assert reader.readall() == b"abcdef"
    assert not reader.elsewhere(caught.value)  # now the stream itself would be wrong


def test_a_front_part_of_the_whole_size_that_is_wrong_is_not_taken() -> None:
    reader = VerifyingReader(Late(b"abc"), described(b"abc"))
    assert reader.resume(io.BytesIO(b"xyz")) == 0
    assert reader.readall() == b"abc"


def test_a_front_part_longer_than_the_content_is_not_taken() -> None:
    reader = VerifyingReader(Late(b"abc"), described(b"abc"))
    assert reader.resume(io.BytesIO(b"abcd")) == 0
    assert reader.readall() == b"abc"


def test_a_stream_that_cannot_begin_later_is_read_whole() -> None:
    reader = VerifyingReader(io.BytesIO(b"abc"), described(b"abc"))
    assert reader.resume(io.BytesIO(b"a")) == 0
    assert reader.readall() == b"abc"


def test_a_verifying_reader_is_not_verified_twice() -> None:
    out = io.BytesIO()
    moved: list[int] = []
    reader = VerifyingReader(io.BytesIO(b"abc"), described(b"abc"))
    copy_verified(reader, described(b"abc"), out, on_bytes=moved.append)
    assert (out.getvalue(), moved, reader.proved) == (b"abc", [3], True)


def test_a_reader_of_something_else_does_not_pass_for_this() -> None:
    reader = VerifyingReader(io.BytesIO(b"abd"), described(b"abd"))
    with pytest.raises(DigestMismatchError):
        copy_verified(reader, described(b"abc"), io.BytesIO())


@pytest.mark.parametrize("data", [b"abd", b"ab", b"abcd", None])
def test_embedded_data_that_is_not_the_content_does_not_count(data: bytes | None) -> None:
    desc = Descriptor(media_type="a/b", digest=Digest.of(b"abc"), size=3, data=data)
    assert embedded(desc) is None


def test_embedded_data_that_is_the_content_counts() -> None:
    assert embedded(Descriptor.of("a/b", b"abc", data=b"abc")) == b"abc"
    assert embedded(Descriptor(media_type="a/b", digest=Digest("md5:x"), size=1, data=b"x")) is None
