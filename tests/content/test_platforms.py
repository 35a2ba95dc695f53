"""Which image of an index is meant, however its indexes nest and whoever names the platforms."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.content import graph
from argosy.content.copy import chosen, copy
from argosy.content.graph import read_index, select, walk
from argosy.content.memory import MemoryStore
from argosy.errors import (
    LimitExceededError,
    ManifestUnknownError,
    PlatformUnknownError,
    UsageError,
)
from argosy.spec import mediatypes
from argosy.spec._value import replace
from argosy.spec.annotations import ATTESTS
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index
from argosy.spec.platform import Platform
from argosy.testing import random

KNOWN = tuple(
    Platform.parse(f"linux/{name}")
    for name in ("amd64", "arm64", "s390x", "arm/v5", "arm/v6", "arm/v7")
)
AMD, ARM, S390X, V5, V6, V7 = KNOWN
NONE = Platform(architecture="unknown", os="unknown")


class Counting(MemoryStore):
    """Remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def fetch(self, desc: Descriptor):  # type: ignore[no-untyped-def]
        self.read.append(desc.digest)
        return super().fetch(desc)


def image(store: MemoryStore, platform: Platform, *, named: bool = True) -> Descriptor:
    """An image for a platform, which its descriptor names or not."""
    seed = KNOWN.index(platform)
    desc = random.image(store, seed, platform=str(platform), layers=1)
    return replace(desc, platform=platform if named else None)


def index(store: MemoryStore, *entries: Descriptor, tag: str = "v1") -> Descriptor:
    return store.add(mediatypes.OCI_INDEX, Index(manifests=entries).encode(), tag)


def digests(store: MemoryStore, root: Descriptor) -> set[str]:
    return {node.descriptor.digest for node in walk(store, root)}


def test_one_platform_gives_that_image_alone() -> None:
    source, target = MemoryStore(), MemoryStore()
    root = random.index(source, 1, "v1")
    arm = Platform.parse("linux/arm64")
    got = copy(source, "v1", target, "v1", platforms=[arm])
    assert got.digest == select(source, root, arm).digest == target.resolve("v1").digest
    assert not target.exists(root)


def test_several_platforms_make_a_smaller_index() -> None:
    source, target = MemoryStore(), MemoryStore()
    platforms = ["linux/amd64", "linux/arm64", "linux/s390x"]
    root = random.index(source, 1, "v1", platforms=platforms)
    wanted = [Platform.parse(p) for p in ("linux/s390x", "linux/amd64")]
    got = copy(source, "v1", target, "v1", platforms=wanted)
    assert got.digest != root.digest
    assert [str(e.platform) for e in read_index(target, got).manifests] == [
        "linux/amd64",
        "linux/s390x",
    ]
    for node in walk(target, got):
        assert all(target.exists(child) for child in node.manifest.children())


def test_platforms_that_leave_nothing_out_keep_the_index() -> None:
    source, target = MemoryStore(), MemoryStore()
    root = random.index(source, 1)
    spaced = graph.read(source, root).replace(b"{", b"{ ", 1)
    root = source.add(root.media_type, spaced, "v1")
    platforms = [Platform.parse(p) for p in ("linux/arm64", "linux/amd64")]
    assert copy(source, "v1", target, "v1", platforms=platforms) == root
    assert target.fetch(root).read() == spaced


def test_a_sparse_copy_keeps_the_index_and_its_digest() -> None:
    source, target = MemoryStore(), MemoryStore()
    root = random.index(source, 1, "v1")
    arm = Platform.parse("linux/arm64")
    assert copy(source, "v1", target, "v1", platforms=[arm], sparse=True) == root
    assert target.exists(select(source, root, arm))
    assert not target.exists(select(source, root, Platform.parse("linux/amd64")))


def test_an_unknown_platform_is_named_with_those_there_are() -> None:
    source = MemoryStore()
    random.index(source, 1, "v1")
    with pytest.raises(PlatformUnknownError) as caught:
        copy(source, "v1", MemoryStore(), platforms=[Platform.parse("linux/riscv64")])
    assert "linux/amd64, linux/arm64" in str(caught.value)


def test_several_platforms_within_a_nested_index_are_all_copied() -> None:
    source, target = MemoryStore(), MemoryStore()
    amd, arm, other = (image(source, one) for one in (AMD, ARM, S390X))
    index(source, index(source, arm, amd, other, tag="inner"), tag="v1")
    got = copy(source, "v1", target, "v1", platforms=[AMD, ARM])
    assert read_index(target, got).manifests == (arm, amd)
    assert digests(target, got) == {got.digest, arm.digest, amd.digest}
    assert chosen(source, "v1", [AMD, ARM]) == got


def test_a_sparse_copy_of_nested_indexes_has_the_images_and_all_indexes_above_them() -> None:
    source, target = MemoryStore(), MemoryStore()
    amd, arm, other = (image(source, one) for one in (AMD, ARM, S390X))
    first = index(source, arm, other, tag="first")
    second, third = index(source, amd, tag="second"), index(source, other, tag="third")
    root = index(source, first, second, third)
    assert copy(source, "v1", target, "v1", platforms=[AMD, ARM], sparse=True) == root
    for desc in (root, first, second, amd, arm):
        assert target.exists(desc)
    for desc in (third, other):
        assert not target.exists(desc)
    for platform in (AMD, ARM):  # of what is sparse, the images that are there are found
        assert copy(target, "v1", MemoryStore(), platforms=[platform]).platform == platform
    with pytest.raises(ManifestUnknownError, match=third.digest):
        select(target, root, V7)


def test_nested_indexes_of_which_nothing_is_left_out_stay_as_they_are() -> None:
    source, target = MemoryStore(), MemoryStore()
    amd, arm = image(source, AMD), image(source, ARM)
    root = index(source, index(source, arm, tag="inner"), amd)
    assert copy(source, "v1", target, "v1", platforms=[AMD, ARM]) == root
    assert digests(target, root) == digests(source, root)


def attestation(store: MemoryStore, seed: int, about: Descriptor) -> Descriptor:
    """As BuildKit lists it."""
    desc = random.artifact(store, seed)
    return replace(desc, platform=NONE, annotations={ATTESTS: about.digest})


@pytest.mark.parametrize("nested", [False, True])
def test_a_smaller_index_has_the_attestations_of_its_images(nested: bool) -> None:
    source, target = MemoryStore(), MemoryStore()
    amd, arm, other = (image(source, one) for one in (AMD, ARM, S390X))
    mine, others = attestation(source, 11, amd), attestation(source, 12, other)
    entries = (amd, arm, other, mine, others)
    index(source, *((index(source, *entries, tag="inner"),) if nested else entries))
    got = copy(source, "v1", target, "v1", platforms=[AMD, ARM])
    assert read_index(target, got).manifests == (amd, arm, mine)
    assert digests(target, got) == {got.digest, amd.digest, arm.digest, mine.digest}
    assert copy(source, "v1", target, platforms=[AMD]) == amd


def test_an_index_of_which_all_images_are_meant_stays_as_it_is_with_its_attestations() -> None:
    source, target = MemoryStore(), MemoryStore()
    amd, arm = image(source, AMD), image(source, ARM)
    root = index(
        source, amd, arm, *(attestation(source, 11 + i, d) for i, d in enumerate((amd, arm)))
    )
    assert copy(source, "v1", target, "v1", platforms=[AMD, ARM]) == root


def test_an_attestation_that_is_not_there_is_left_out() -> None:
    """As where only images were pulled."""
    source, target = MemoryStore(), MemoryStore()
    amd, arm, other = (image(source, one) for one in (AMD, ARM, S390X))
    mine = attestation(source, 11, amd)
    index(source, amd, arm, other, mine)
    source.delete(mine)
    got = copy(source, "v1", target, "v1", platforms=[AMD, ARM])
    assert read_index(target, got).manifests == (amd, arm)


def test_several_platforms_with_one_image_for_them_all_give_an_index_of_it() -> None:
    source, target = MemoryStore(), MemoryStore()
    amd, arm = image(source, AMD), image(source, ARM)
    index(source, amd, arm)
    wanted = [AMD, Platform.parse("linux/amd64/v3")]
    assert read_index(target, copy(source, "v1", target, platforms=wanted)).manifests == (amd,)
    assert copy(source, "v1", target, platforms=[AMD, AMD]) == amd


def test_a_smaller_index_has_a_digest_of_the_same_algorithm() -> None:
    source = MemoryStore()
    raw = Index(manifests=(image(source, AMD), image(source, ARM), image(source, V7))).encode()
    desc = Descriptor.of(mediatypes.OCI_INDEX, raw, algorithm="sha512")
    source.push(desc, io.BytesIO(raw), tags=["v1"])
    assert chosen(source, "v1", [AMD, ARM]).digest.algorithm == "sha512"


def test_all_nested_indexes_are_searched() -> None:
    source = MemoryStore()
    amd, arm = image(source, AMD), image(source, ARM)
    first, second = index(source, arm, tag="a"), index(source, amd, tag="b")
    root = index(source, first, second)
    assert select(source, root, ARM) == arm
    assert select(source, root, AMD) == amd


def test_the_nearest_variant_of_all_nested_indexes_wins_and_the_first_of_equals() -> None:
    source = MemoryStore()
    v5, v6, v7 = (image(source, one) for one in (V5, V6, V7))
    again = replace(v7, annotations={"again": "yes"})
    below = [index(source, one, tag=one.digest.encoded[:9]) for one in (v5, v7, again)]
    root = index(source, *below, v6)
    assert select(source, root, V7) == v7
    assert select(source, root, V6) == v6


def test_what_there_is_is_told_of_all_levels_but_not_of_attestations() -> None:
    source = MemoryStore()
    about = replace(random.artifact(source, 1), platform=NONE)
    inner = index(source, image(source, S390X), about, tag="inner")
    other = replace(index(source, image(source, V7), tag="other"), platform=V7)
    root = index(source, inner, about, other, image(source, ARM, named=False))
    with pytest.raises(PlatformUnknownError) as caught:
        select(source, root, AMD)
    told = str(caught.value).partition(": it has ")[2].split(", ")
    assert sorted(told) == ["linux/arm/v7", "linux/arm64", "linux/s390x"]


def test_an_image_has_the_platform_of_the_index_above_it() -> None:
    source = MemoryStore()
    amd, arm = (image(source, one, named=False) for one in (AMD, ARM))
    inner = replace(index(source, arm, tag="inner"), platform=ARM)
    root = index(source, inner, amd, image(source, S390X))
    assert select(source, root, ARM) == replace(arm, platform=ARM)
    with pytest.raises(PlatformUnknownError):
        select(source, inner, S390X)


def test_where_no_entry_names_the_platform_the_configurations_do() -> None:
    source, target = MemoryStore(), MemoryStore()
    images = [image(source, one, named=False) for one in (ARM, AMD, S390X)]
    root = index(source, *images)
    assert select(source, root, AMD) == replace(images[1], platform=AMD)
    got = copy(source, "v1", target, "v1", platforms=[S390X, AMD])
    assert [entry.platform for entry in read_index(target, got).manifests] == [AMD, S390X]
    with pytest.raises(PlatformUnknownError, match="linux/arm64, linux/amd64, linux/s390x"):
        select(source, root, V7)


def test_what_says_nowhere_what_it_runs_on_suits_any_platform() -> None:
    source = MemoryStore()
    thing = random.artifact(source, 1)
    lost = Descriptor.of(mediatypes.OCI_MANIFEST, b"gone")
    arm = image(source, ARM, named=False)
    assert select(source, index(source, arm, lost, thing), AMD) == thing
    with pytest.raises(ManifestUnknownError, match=lost.digest):
        select(source, index(source, arm, lost), AMD)


def test_no_configuration_is_read_where_an_index_names_the_platform() -> None:
    source = Counting()
    root = index(source, image(source, AMD, named=False), image(source, ARM))
    source.read.clear()
    select(source, root, ARM)
    assert source.read == [root.digest]


def test_an_index_that_is_listed_without_end_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Counting()
    root = index(source, image(source, ARM))
    for _ in range(10):
        root = index(source, *[root] * 50)
    source.read.clear()
    with pytest.raises(PlatformUnknownError):
        select(source, root, AMD)
    assert len(source.read) == 11
    monkeypatch.setattr(graph, "MAX_NODES", 100)
    with pytest.raises(LimitExceededError):
        select(source, root, AMD)


def test_indexes_that_nest_too_deep_are_refused() -> None:
    source = MemoryStore()
    amd = root = image(source, AMD)
    for _ in range(graph.MAX_DEPTH):
        root = index(source, root)
    assert select(source, root, AMD) == amd
    with pytest.raises(LimitExceededError, match="deeper than 16"):
        select(source, index(source, root), AMD)


Tree = list["Tree"] | Platform
TREES = st.recursive(
    st.sampled_from(KNOWN), lambda below: st.lists(below, min_size=1, max_size=3), max_leaves=8
)


def _planted(store: MemoryStore, tree: Tree, *, named: bool) -> Descriptor:
    if isinstance(tree, Platform):
        return image(store, tree, named=named)
    below = [_planted(store, one, named=named) for one in tree]
    return index(store, *below, tag="v1")


def _platforms(tree: Tree) -> set[Platform]:
    return {tree} if isinstance(tree, Platform) else set().union(*map(_platforms, tree))


@settings(deadline=None)
@given(tree=st.lists(TREES, min_size=1, max_size=3), named=st.booleans(), data=st.data())
def test_of_any_tree_just_the_images_that_are_asked_for_are_copied(
    tree: list[Tree], named: bool, data: st.DataObject
) -> None:
    source, small, sparse = MemoryStore(), MemoryStore(), MemoryStore()
    root = _planted(source, tree, named=named)
    there = sorted(_platforms(tree), key=str)
    wanted = data.draw(st.lists(st.sampled_from(there), min_size=1, unique=True))
    images = {select(source, root, one).digest for one in wanted}
    assert images == {image(MemoryStore(), one).digest for one in wanted}
    got = copy(source, root.digest, small, platforms=wanted)
    assert copy(source, root.digest, sparse, platforms=wanted, sparse=True) == root
    assert images == {desc.digest for desc in _images(small)}
    assert images == {desc.digest for desc in _images(sparse)}
    for one in wanted:
        assert select(small, got, one).digest == select(sparse, root, one).digest


def _images(store: MemoryStore) -> list[Descriptor]:
    held = [desc for desc, _ in store._content.values()]
    return [desc for desc in held if desc.media_type == mediatypes.OCI_MANIFEST]


@pytest.mark.parametrize("given", ["linux/amd64", ["linux/amd64"], AMD, [AMD, None]])
@pytest.mark.parametrize("alone", [True, False], ids=["image", "index"])
def test_what_is_no_list_of_platforms_is_refused_also_where_there_is_nothing_to_choose(
    given: object, alone: bool
) -> None:
    source, target = MemoryStore(), MemoryStore()
    made = image(source, AMD)
    root = made if alone else index(source, made, image(source, ARM))
    with pytest.raises(UsageError, match="expected a list of Platform, got"):
        copy(source, root.digest, target, "v1", platforms=given)  # type: ignore[arg-type]
    assert not list(target.tags())
