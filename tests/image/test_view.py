from __future__ import annotations

import dataclasses
import io
import threading

import pytest

from argosy.content import graph
from argosy.content.memory import MemoryStore
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    DigestMismatchError,
    InvalidConfigError,
    InvalidManifestError,
    NotFoundError,
    PlatformUnknownError,
    UnsupportedError,
)
from argosy.image.derive import derive
from argosy.image.view import Image, ImageIndex, view
from argosy.layer.compression import Compression
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.image.kit import AMD64, file, image_of, tar_of


def test_an_image_of_an_index_is_the_one_for_the_platform() -> None:
    store = MemoryStore()
    random.index(store, 1, "v1", platforms=("linux/amd64", "linux/arm64"))
    assert str(Image.open(store, "v1", Platform.parse("linux/arm64")).platform) == "linux/arm64"


def test_an_image_is_found_in_a_nested_index() -> None:
    store = MemoryStore()
    random.index(store, 1, "v1", platforms=("linux/amd64", "linux/s390x"), nested=True)
    assert str(Image.open(store, "v1", Platform.parse("linux/s390x")).platform) == "linux/s390x"


def test_a_platform_nobody_has_is_an_error_that_names_those_there_are() -> None:
    store = MemoryStore()
    random.index(store, 1, "v1", platforms=("linux/amd64", "linux/arm64"))
    with pytest.raises(PlatformUnknownError, match="linux/arm64"):
        Image.open(store, "v1", Platform.parse("linux/riscv64"))


def test_the_platform_of_a_lone_image_is_not_silently_ignored() -> None:
    store = MemoryStore()
    random.image(store, 1, "v1", platform="linux/amd64")
    with pytest.raises(PlatformUnknownError, match="linux/arm64"):
        Image.open(store, "v1", Platform.parse("linux/arm64"))


def test_an_artifact_suits_every_platform() -> None:
    store = MemoryStore()
    artifact = random.artifact(store, 1)
    wanted = Platform.parse("plan9/mips")
    assert Image.select(store, artifact, wanted).descriptor == artifact


def test_raw_bytes_are_those_that_were_stored() -> None:
    raw = b'{ "schemaVersion": 2,  "manifests": [] }'
    store = MemoryStore()
    store.add("application/vnd.oci.image.index.v1+json", raw, "v1")
    found = view(store, "v1")
    assert isinstance(found, ImageIndex)
    assert found.raw == raw


def test_an_uncompressed_layer_that_is_another_than_its_diff_id_is_refused_at_its_end() -> None:
    image = image_of(tar_of(file("a", b"1")))
    stack = dataclasses.replace(image.config.rootfs, diff_ids=(Digest.of(b"another"),))
    wrong = derive(image, config=dataclasses.replace(image.config, rootfs=stack))
    with (
        wrong.layers[0].uncompressed() as stream,
        pytest.raises(DigestMismatchError, match="layer 0"),
    ):
        stream.drain()
    with wrong.layers[0].uncompressed() as stream:
        for _ in range(2):  # who goes on after the error is not told that this is the end
            with pytest.raises(DigestMismatchError, match="layer 0"):
                stream.drain()


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.GZIP])
def test_a_layer_that_is_to_be_applied_is_proved_as_any_other(compression: Compression) -> None:
    layer = image_of(tar_of(file("a", b"1")), compression=compression).layers[0]
    with layer.changeset() as blob, layer.compressed() as stored:
        assert graph.readall(blob) == graph.readall(stored)
        assert isinstance(blob, VerifyingReader)
        assert blob.proved


def test_a_layer_reads_in_pieces_of_any_size() -> None:
    plain = tar_of(file("a", b"x" * 100_000))
    image = image_of(plain)
    with image.layers[0].uncompressed() as stream:
        assert b"".join(iter(lambda: stream.read(777), b"")) == plain


def test_a_layer_is_read_without_a_with_block_too() -> None:
    before = threading.active_count()
    plain = tar_of(file("a", b"x" * 100_000))
    layer = image_of(plain).layers[0]
    stream = layer.uncompressed()
    assert stream.read() == plain
    assert stream.read() == b"".join(stream) == b""
    stream.close()
    unread = layer.uncompressed()
    unread.close()
    with pytest.raises(ValueError, match="closed"):
        unread.read()
    assert threading.active_count() == before


def test_more_diff_ids_than_layers_are_refused() -> None:
    image = image_of(tar_of(file("a")), tar_of(file("b")))
    broken = derive(image, layers=image.manifest.layers[:1])
    with pytest.raises(InvalidConfigError, match="expected 1"):
        _ = broken.layers


def test_an_artifact_has_layers_but_no_configuration() -> None:
    store = MemoryStore()
    random.artifact(store, 1, "v1")
    image = Image.open(store, "v1")
    assert len(image.layers) == 1
    with pytest.raises(UnsupportedError, match="no image configuration"):
        _ = image.config


def test_an_index_is_no_image_and_an_image_no_index() -> None:
    store = MemoryStore()
    desc = random.image(store, 1, "v1")
    with pytest.raises(InvalidManifestError):
        ImageIndex.open(store, "v1")
    index = random.index(store, 2)
    with pytest.raises(InvalidManifestError):
        _ = Image(source=store, descriptor=index).manifest
    assert Image(source=store, descriptor=desc).digest == desc.digest


def test_history_steps_stand_at_their_layers() -> None:
    image = image_of(tar_of(file("a")), tar_of(file("b")), env={"A": "1"})
    config = image.config
    told = [History(created_by="FROM", empty_layer=True), config.history[0]]
    told += [History(created_by="ENV", empty_layer=True)]
    image = derive(image, config=dataclasses.replace(config, history=tuple(told)))
    assert [
        (step.created_by, layer.position if layer else None) for step, layer in image.histories()
    ] == [("FROM", None), ("layer 0", 0), ("ENV", None), ("", 1)]


def test_a_layer_is_read_only_when_it_is_asked_for() -> None:
    class Counting(MemoryStore):
        fetched = 0

        def fetch(self, desc):  # type: ignore[no-untyped-def]
            self.fetched += 1
            return super().fetch(desc)

    store = Counting()
    random.image(store, 1, "v1")
    image = Image.open(store, "v1")
    assert store.fetched == 0
    assert image.config.os == "linux"
    assert store.fetched == 2
    assert image.config.os == "linux"
    assert store.fetched == 2


def test_what_was_read_of_an_image_is_not_read_again_elsewhere() -> None:
    store = MemoryStore()
    image = Image(source=store, descriptor=random.image(store, 1))
    assert image.layers
    moved = image.within(MemoryStore())
    assert (moved.raw, moved.config) == (image.raw, image.config)
    assert moved.layers[0].source is moved.source
    with pytest.raises(NotFoundError):
        _ = Image(source=store, descriptor=random.image(store, 2)).within(MemoryStore()).raw


def test_views_are_frozen() -> None:
    image = image_of(platform=AMD64)
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.descriptor = image.descriptor  # type: ignore[misc]
    assert io.BytesIO(image.raw).read()
