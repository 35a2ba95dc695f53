"""Whatever is copied between any two places on disk comes out byte for byte."""

from __future__ import annotations

import itertools
import pathlib
import tempfile
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import ArgosyError
from argosy.layout import names
from argosy.layout.archive import OCIArchive
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.gc import fsck
from argosy.layout.store import LayoutStore
from argosy.spec.descriptor import Descriptor
from argosy.testing import random
from tests.layout.places import TAG, TRANSPORTS, everything, reading, writing

PAIRS = list(itertools.product(TRANSPORTS, TRANSPORTS))


@st.composite
def sources(draw: st.DrawFn) -> tuple[MemoryStore, Descriptor]:
    """A place with an image, an index or an artifact, and perhaps referrers of it."""
    store, seed = MemoryStore(), draw(st.integers(0, 1 << 16))
    kind = draw(st.sampled_from(["image", "docker", "index", "nested", "artifact"]))
    if kind in ("image", "docker"):
        layers = draw(st.integers(0, 4))
        root = random.image(store, seed, "v1", layers=layers, docker=kind == "docker", size=300)
    elif kind == "artifact":
        root = random.artifact(store, seed, "v1")
    else:
        root = random.index(store, seed, "v1", nested=kind == "nested")
    for number in range(draw(st.integers(0, 2))):
        random.artifact(store, seed + number + 1, subject=root)
    return store, root


@pytest.mark.parametrize(("first", "second"), PAIRS)
@settings(max_examples=4, suppress_health_check=list(HealthCheck))
@given(made=sources())
def test_content_goes_through_two_places_unchanged(
    first: str, second: str, made: tuple[MemoryStore, Descriptor]
) -> None:
    source, root = made
    with tempfile.TemporaryDirectory() as folder:
        one, two = pathlib.Path(folder, "one"), pathlib.Path(folder, "two")
        with writing(first, one) as target:
            copy(source, "v1", target, TAG, referrers=True)
        with reading(first, one) as place, writing(second, two) as target:
            copy(place, "@0" if first == "dir" else TAG, target, TAG, referrers=True)
        with reading(second, two) as place:
            found = place.resolve("@0" if second == "dir" else TAG)
            assert (found.digest, found.media_type, found.size) == (
                root.digest,
                root.media_type,
                root.size,
            )
            assert everything(place, found) == everything(source, root)
            ours = {d.digest for d in source.referrers(root)}
            assert {d.digest for d in place.referrers(found)} == ours
        if second == "oci":
            assert list(fsck(LayoutStore.open(two))) == []


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_archive_is_an_error_of_ours_or_still_right(data: st.DataObject) -> None:
    """Any bytes changed, cut or doubled: never a traceback of another kind, never wrong content."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "a.tar")
        kind: Any = data.draw(st.sampled_from([OCIArchive, DockerArchive]))
        with kind.create(path) as archive:
            root = random.image(archive, 1, TAG, layers=1, size=100)
            content = everything(archive, root)
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(raw) - 1))
            match data.draw(st.sampled_from(["byte", "cut", "block"])):
                case "byte":
                    raw[at] = data.draw(st.integers(0, 255))
                case "cut":
                    del raw[at:]
                    raw += b"\0"
                case "block":
                    block = at - at % 512
                    raw[block:block] = raw[block : block + 512]
        path.write_bytes(raw)
        try:
            with kind.open(path) as archive:
                found = everything(archive, archive.resolve(TAG))
        except ArgosyError as exc:
            message = str(exc)
        else:
            message = ""
            assert found == content
        assert "\n" not in message


@given(st.text(max_size=40))
def test_every_name_is_taken_or_refused_and_then_found_again(text: str) -> None:
    try:
        tag = names.check_tag(text)
    except ArgosyError:
        return
    entry = names.named(Descriptor.of("a/b", b""), tag)
    assert list(names.tags_of([entry])) == [tag]
    assert names.meant([entry], tag) == [entry]
    assert names.unnamed(entry) == Descriptor.of("a/b", b"")
