"""Indexes that hold the same again and again, or nest without end: few bytes that stand for no end of work."""

from __future__ import annotations

import dataclasses

import pytest

from argosy.content.memory import MemoryStore
from argosy.errors import LimitExceededError
from argosy.image.convert import each
from argosy.image.validate import validate
from argosy.image.view import ImageIndex
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index
from argosy.testing import random


def nested(store: MemoryStore, inner: Descriptor, *, levels: int, width: int) -> ImageIndex:
    """An index of `width` entries that are all the same index, and so on; `inner` is at the bottom."""
    for _ in range(levels):
        same = [dataclasses.replace(inner, annotations={"n": str(n)}) for n in range(width)]
        inner = store.add(mediatypes.OCI_INDEX, Index(manifests=tuple(same)).encode())
    return ImageIndex(source=store, descriptor=inner)


def test_what_is_held_many_times_is_checked_once() -> None:
    store = MemoryStore()
    index = nested(store, random.image(store, 1), levels=5, width=200)
    assert list(validate(index, fast=True)) == []


@pytest.mark.parametrize("empty", [True, False])
def test_no_end_of_images_is_refused(empty: bool) -> None:
    store = MemoryStore()
    bottom = store.add(mediatypes.OCI_INDEX, Index().encode())
    index = nested(store, bottom if empty else random.image(store, 1), levels=5, width=200)
    for walk in (lambda: list(index.leaves()), lambda: each(index, lambda image: image)):
        with pytest.raises(LimitExceededError, match="more than 10000 manifests"):
            walk()


def test_what_nests_too_deep_is_not_changed_and_no_sound_index() -> None:
    store = MemoryStore()
    deep = nested(store, random.image(store, 1), levels=2000, width=1)
    with pytest.raises(LimitExceededError, match="nested deeper than 16"):
        each(deep, lambda image: image)
    (finding,) = validate(deep)
    assert finding.rule == "indexes are nested deeper than 16"
    assert list(validate(nested(store, random.image(store, 1), levels=16, width=1))) == []
