"""Digests: valid or not there at all (image-spec, descriptor.md, "Digests")."""

from __future__ import annotations

import contextlib
import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from argosy.errors import InvalidDigestError
from argosy.spec.digest import ALGORITHMS, Digest, hasher

SHA256 = "6c3c624b58dbbcd3c0dd82b4c53f04194d1247c6eebdaab7c610cf7d66709b3b"


@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_the_digest_of_bytes_is_what_hashlib_says(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert (digest.algorithm, digest.encoded) == (
        algorithm,
        hashlib.new(algorithm, data).hexdigest(),
    )
    assert Digest(str(digest)) == digest


@pytest.mark.parametrize(
    "text",
    [
        f"sha256:{SHA256}",
        f"blake3:{SHA256}",
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    ],
)
def test_examples_of_the_specification_are_digests(text: str) -> None:
    assert Digest(text) == text


@given(
    st.from_regex(r"[a-z0-9]{1,4}([+._-][a-z0-9]{1,4}){0,3}:[a-zA-Z0-9=_-]{1,40}", fullmatch=True)
)
def test_whatever_fits_the_grammar_of_the_specification_is_a_digest(text: str) -> None:
    algorithm, _, encoded = text.partition(":")
    assume(algorithm not in ALGORITHMS)
    digest = Digest(text)
    assert (digest.algorithm, digest.encoded) == (algorithm, encoded)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "sha256:", f":{SHA256}", SHA256, f"sha256:{SHA256[:-1]}", f"sha256:{SHA256}0",
        f"sha256:{SHA256.upper()}", f"SHA256:{SHA256}", f"sha256:{SHA256[:-1]}g", f"sha256:{SHA256}\n",
        "sha256:../../../etc/passwd", f"sha256/{SHA256}", "sha256::x", "a..b:x", "+a:x", f"sha512:{SHA256}",
        "x:" + "a" * 2000, "sha256:\u0660" + SHA256[1:],
    ],
)  # fmt: skip
def test_what_breaks_the_grammar_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidDigestError) as caught:
        Digest(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=80))
def test_no_text_crashes(text: str) -> None:
    with contextlib.suppress(InvalidDigestError):
        assert Digest(text) == text


def test_an_unregistered_algorithm_exists_but_cannot_be_computed() -> None:
    digest = Digest("md5:d41d8cd98f00b204e9800998ecf8427e")
    assert not digest.registered
    with pytest.raises(InvalidDigestError) as caught:
        hasher(digest.algorithm)
    assert "sha256, sha512, blake3" in str(caught.value)


def test_blake3_is_computed_where_its_library_is_installed() -> None:
    blake3 = pytest.importorskip("blake3", reason="library blake3: not installed")
    assert Digest.of(b"x", "blake3").encoded == blake3.blake3(b"x").hexdigest()


def test_the_table_has_every_registered_algorithm() -> None:
    assert set(ALGORITHMS) == {"sha256", "sha512", "blake3"}
