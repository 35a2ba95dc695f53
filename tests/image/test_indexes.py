from __future__ import annotations

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import InvalidManifestError, ManifestUnknownError, PlatformUnknownError
from argosy.image import indexes
from argosy.image.view import Image, ImageIndex
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index
from argosy.spec.platform import Platform
from argosy.testing import random

ARM = Platform.parse("linux/arm64")
AMD = Platform.parse("linux/amd64")


def _images() -> tuple[Image, Image]:
    """Two images in two places."""
    places = MemoryStore(), MemoryStore()
    return (
        Image(source=places[0], descriptor=random.image(places[0], 1, platform="linux/amd64")),
        Image(source=places[1], descriptor=random.image(places[1], 2, platform="linux/arm64")),
    )


def test_an_index_of_images_of_two_places_names_their_platforms_and_can_be_copied() -> None:
    amd, arm = _images()
    index = indexes.create(amd.source, amd, arm, annotations={"a": "1"})
    assert [str(entry.platform) for entry in index.manifests] == ["linux/amd64", "linux/arm64"]
    assert index.index.annotations == {"a": "1"}
    target = MemoryStore()
    copy(index.source, str(index.digest), target, "v1")
    assert Image.open(target, "v1", ARM).digest == arm.digest


def test_an_empty_index_is_one() -> None:
    store = MemoryStore()
    assert indexes.create(store, docker=True).index.media_type == mediatypes.DOCKER_LIST
    assert indexes.create(store).manifests == ()
    for wrong in ("nonsense", "a/b;c=1"):
        with pytest.raises(InvalidManifestError, match="artifactType: "):
            indexes.create(store, artifact_type=wrong)


def test_adding_an_entry_twice_lists_it_once() -> None:
    amd, arm = _images()
    index = indexes.create(amd.source, amd)
    assert len(indexes.add(indexes.add(index, arm), arm).manifests) == 2
    assert (
        indexes.create(amd.source, amd, arm, amd).manifests
        == indexes.create(amd.source, amd, arm).manifests
    )


def test_an_index_is_listed_whole_or_by_its_images() -> None:
    store = MemoryStore()
    inner = ImageIndex(source=store, descriptor=random.index(store, 1))
    amd, _ = _images()
    assert len(indexes.create(store, inner, amd, flatten=True).manifests) == 3
    nested = indexes.create(store, inner, amd).manifests
    assert [entry.media_type for entry in nested] == [mediatypes.OCI_INDEX, mediatypes.OCI_MANIFEST]


def test_entries_are_removed_by_digest_and_by_platform() -> None:
    amd, arm = _images()
    index = indexes.create(amd.source, amd, arm)
    assert [e.platform for e in indexes.remove(index, digests=[amd.digest]).manifests] == [ARM]
    assert [e.platform for e in indexes.remove(index, platforms=[ARM]).manifests] == [AMD]


def test_removing_what_is_not_there_is_an_error() -> None:
    amd, arm = _images()
    index = indexes.create(amd.source, amd)
    with pytest.raises(ManifestUnknownError):
        indexes.remove(index, digests=[arm.digest])
    with pytest.raises(PlatformUnknownError):
        indexes.remove(index, platforms=[ARM])


def test_filtering_keeps_what_runs_on_the_platforms() -> None:
    store = MemoryStore()
    index = ImageIndex(
        source=store,
        descriptor=random.index(store, 1, platforms=("linux/amd64", "linux/arm64", "linux/arm/v7")),
    )
    kept = indexes.filtered(index, [AMD, Platform.parse("linux/arm/v7")])
    assert [str(e.platform) for e in kept.manifests] == ["linux/amd64", "linux/arm/v7"]
    with pytest.raises(PlatformUnknownError, match="riscv64"):
        indexes.filtered(index, [Platform.parse("linux/riscv64")])


def test_annotations_of_an_index_and_of_an_entry() -> None:
    amd, arm = _images()
    index = indexes.annotate(indexes.create(amd.source, amd, arm), {"x": "1"})
    assert index.index.annotations == {"x": "1"}
    entry = indexes.annotate(index, {"y": "2"}, digest=arm.digest).manifests[1]
    assert entry.annotations == {"y": "2"}
    windows = Platform.parse("windows/arm64")
    assert (
        indexes.annotate(index, {}, digest=arm.digest, platform=windows).manifests[1].platform
        == windows
    )
    with pytest.raises(ManifestUnknownError):
        indexes.annotate(index, {"y": "2"}, digest=Digest.of(b"nothing"))


def test_a_change_that_changes_nothing_keeps_the_digest() -> None:
    store = MemoryStore()
    index = ImageIndex(source=store, descriptor=random.index(store, 1))
    assert indexes.annotate(index, {"none": None}).digest == index.digest


def test_filtering_looks_into_nested_indexes_and_where_no_entry_names_the_platform() -> None:
    store = MemoryStore()
    one, two = (
        ImageIndex(source=store, descriptor=random.index(store, seed, platforms=platforms))
        for seed, platforms in (
            (1, ("linux/amd64", "linux/s390x")),
            (2, ("linux/arm64", "linux/arm64/v9")),
        )
    )
    nameless = [
        Image(source=store, descriptor=random.image(store, seed, platform=platform))
        for seed, platform in ((3, "linux/amd64"), (4, "linux/s390x"))
    ]
    raw = Index(
        manifests=(one.descriptor, two.descriptor, *(image.descriptor for image in nameless))
    ).encode()
    index = ImageIndex(source=store, descriptor=store.add(mediatypes.OCI_INDEX, raw))
    kept = indexes.filtered(index, [AMD, Platform.parse("linux/arm64/v9")])
    assert kept.manifests == (one.manifests[0], two.descriptor, nameless[0].descriptor)
    s390x = indexes.filtered(index, [Platform.parse("linux/s390x")])
    assert s390x.manifests == (one.manifests[1], nameless[1].descriptor)
    with pytest.raises(PlatformUnknownError, match="no entry for linux/riscv64"):
        indexes.filtered(index, [AMD, Platform.parse("linux/riscv64")])
