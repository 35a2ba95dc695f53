"""Real images made by others go through every pair of transports and stay what they are, byte for byte."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.layer.compression import uncompressed
from argosy.layout.gc import fsck
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.digest import Digest, hasher
from argosy.spec.imageconfig import ImageConfig
from argosy.spec.manifest import Index, Manifest, decode_manifest
from tests.layout.places import TAG, TRANSPORTS, everything, reading, writing

REAL = {
    "busybox": ("oci", "latest", "sha256:382f539da9ce4771703f4cb5d0f8a9ae20df1ad89a363653f8b8cd498d0ae2c8"),
    "buildkit-oci-zstd.tar": (
        "oci-archive", "@0", "sha256:f5e3515f39a16543547c03d03ec34faf9276742e6ce7c7dd6e467a14e90b29fc",
    ),
    "buildkit-oci-estargz.tar": (
        "oci-archive", "@0", "sha256:2e75eb783d1a845ce3846d1a7da4453f825886aab5b3ad03afcec7730a208c4d",
    ),
    "docker-save-v25-hello-world.tar": (
        "docker-archive", "@0", "sha256:411caf340c828657e915a83ed561a79d2b8150dabad4dc079d881cbfe6f86afe",
    ),
    # Of these three the archive holds no manifest: the digest is that of the one argosy makes, always the same.
    "docker-save-14-layers.tar": (
        "docker-archive", "dive-test:latest",
        "sha256:0651f945ea3db70baea029067f8102c190e7b851eedc238ac04901d063682550",
    ),
    "kaniko-image.tar": (
        "docker-archive", "dive-test:kaniko-latest",
        "sha256:0668c34167ad42d2b1a701043161c3a306e97d6b39959ad7cba5bea3f88824d2",
    ),
    "bazel-two-images.tar": (
        "docker-archive", "test_image_2",
        "sha256:146100660997bf87e085767f2ef0d9bbd726185cfbeea5f9f8686bd7499cf1d5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_a_real_image_is_what_it_says(images: pathlib.Path, name: str) -> None:
    transport, tag, digest = REAL[name]
    with reading(transport, images / name) as place:
        root = place.resolve(tag)
        assert root.digest == digest
        content = everything(place, root)
    for expected, data in content.items():
        assert Digest.of(data) == expected
    check_image(content, root.digest)


def check_image(content: dict[str, bytes], digest: str) -> None:
    """Layers unpack to the DiffIDs of the config."""
    manifest = decode_manifest(content[digest])
    if isinstance(manifest, Index):
        assert manifest.manifests
        for child in manifest.manifests:
            check_image(content, child.digest)
        return
    assert isinstance(manifest, Manifest)
    assert all(layer.media_type in mediatypes.LAYERS for layer in manifest.layers)
    config = ImageConfig.decode(content[manifest.config.digest])
    found = []
    for layer in manifest.layers:
        made = hasher()
        for piece in uncompressed([content[layer.digest]]):
            made.update(piece)
        found.append(Digest.done("sha256", made))
    assert tuple(found) == config.rootfs.diff_ids


@pytest.mark.parametrize(("first", "second"), list(itertools.product(TRANSPORTS, TRANSPORTS)))
def test_every_real_image_goes_through_every_pair_of_transports(
    images: pathlib.Path, tmp_path: pathlib.Path, first: str, second: str
) -> None:
    for name, (transport, tag, digest) in REAL.items():
        here, there = tmp_path / f"{name}-1", tmp_path / f"{name}-2"
        with reading(transport, images / name) as source, writing(first, here) as target:
            root = copy(source, tag, target, TAG)
            content = everything(source, root)
        with reading(first, here) as source, writing(second, there) as target:
            copied = copy(source, "@0" if first == "dir" else TAG, target, TAG)
        assert copied.digest == root.digest == digest
        with reading(second, there) as place:
            assert everything(place, place.resolve("@0" if second == "dir" else TAG)) == content


def test_several_images_fit_in_one_place(images: pathlib.Path, tmp_path: pathlib.Path) -> None:
    places: list[tuple[str, Any]] = [
        ("oci", tmp_path / "l"),
        ("oci-archive", tmp_path / "a.tar.gz"),
        ("docker-archive", tmp_path / "d.tar"),
    ]
    for kind, path in places:
        for number, (name, (transport, tag, _)) in enumerate(REAL.items()):
            with reading(transport, images / name) as source, writing(kind, path) as target:
                copy(source, tag, target, f"app{number}:v1")
        with reading(kind, path) as place:
            assert list(place.tags()) == [f"app{n}:v1" for n in range(len(REAL))]
            for number, (_, _, digest) in enumerate(REAL.values()):
                assert place.resolve(f"app{number}:v1").digest == digest
    assert list(fsck(LayoutStore.open(tmp_path / "l"))) == []
