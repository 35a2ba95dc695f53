"""Manifests that are kept for a while: by digest, by tag, and not without end."""

from __future__ import annotations

from argosy.remote.known import Known
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor


def manifest(text: str) -> tuple[Descriptor, bytes]:
    return Descriptor.of(mediatypes.OCI_MANIFEST, text.encode()), text.encode()


def test_a_manifest_is_known_by_what_it_was_asked_by_and_by_its_digest() -> None:
    known, one = Known(100), manifest("{}")
    known.put("v1", *one)
    assert known.get("v1") == known.get(one[0].digest) == one
    assert known.get("v2") is None


def test_a_tag_that_is_forgotten_leaves_its_manifest() -> None:
    known, one = Known(100), manifest("{}")
    known.put("v1", *one)
    known.forget("v1", "v2")
    assert known.get("v1") is None
    assert known.get(one[0].digest) == one


def test_a_manifest_that_is_forgotten_is_not_known_by_its_tags() -> None:
    known, one = Known(100), manifest("{}")
    known.put("v1", *one)
    known.forget(one[0].digest)
    assert known.get("v1") is None


def test_the_oldest_are_forgotten_where_there_is_no_room() -> None:
    known, many = Known(100), [manifest(f'{{"n":{n}}}' + " " * 30) for n in range(5)]
    for number, one in enumerate(many):
        known.put(f"v{number}", *one)
    assert [known.get(f"v{n}") == many[n] for n in range(5)] == [False, False, False, True, True]


def test_without_room_nothing_is_kept() -> None:
    known, one = Known(0), manifest("{}")
    known.put("v1", *one)
    assert known.get("v1") is None
