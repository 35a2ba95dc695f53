"""The header of an image layout, and where its blobs lie (image-spec, image-layout.md)."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidLayoutError, LimitExceededError
from argosy.spec.digest import Digest
from argosy.spec.imagelayout import blob_path, check_header, header


@pytest.mark.parametrize(
    "raw", [header(), b'{"imageLayoutVersion": "1.1.0", "x.example": [1, {"deep": null}]}\n']
)
def test_headers_of_the_first_version_are_taken_with_what_else_they_say(raw: bytes) -> None:
    check_header(raw)


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not JSON"),
        (b"[]", "expected a JSON object, got an array"),
        (b"{}", "imageLayoutVersion: this property is required"),
        (b'{"imageLayoutVersion":1}', "imageLayoutVersion: expected a string, got a number"),
        (b'{"imageLayoutVersion":"2.0.0"}', "imageLayoutVersion: expected 1.0.0, got '2.0.0'"),
        (b'{"imageLayoutVersion":"10.0"}', "imageLayoutVersion: expected 1.0.0, got '10.0'"),
    ],
)
def test_what_is_no_header_is_refused_with_its_property(raw: bytes, told: str) -> None:
    with pytest.raises(InvalidLayoutError) as caught:
        check_header(raw)
    assert told in str(caught.value)


def test_a_header_over_the_limit_is_refused() -> None:
    with pytest.raises(LimitExceededError):
        check_header(b" " * (64 * 1024 + 1))


def test_blobs_lie_below_their_algorithm() -> None:
    digest = Digest.of(b"x", "sha512")
    assert blob_path(digest) == f"blobs/sha512/{digest.encoded}"
