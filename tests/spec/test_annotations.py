"""The grammar of reference names (image-spec, annotations.md)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.spec.annotations import is_ref_name

ALPHANUM = r"[A-Za-z0-9]{1,5}"
COMPONENT = rf"{ALPHANUM}(([-._:@+]|--){ALPHANUM}){{0,3}}"


@given(st.from_regex(rf"{COMPONENT}(/{COMPONENT}){{0,3}}", fullmatch=True))
def test_whatever_fits_the_grammar_of_the_specification_is_a_name(text: str) -> None:
    assert is_ref_name(text)
    assert not is_ref_name(f"{text}/")
    assert not is_ref_name(f"-{text}")


@pytest.mark.parametrize(
    "text", ["", "a b", "a..b", "a---b", "a//b", "/a", "a\n", "\u00e4", "a" * 1025]
)
def test_what_does_not_is_none(text: str) -> None:
    assert not is_ref_name(text)
