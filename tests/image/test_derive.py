from __future__ import annotations

import dataclasses
import gzip
import io
import re

import pytest

from argosy.content.memory import MemoryStore
from argosy.errors import InvalidLayerError, InvalidManifestError, NotFoundError, UnsupportedError
from argosy.image.configure import Changes
from argosy.image.derive import (
    append_layer,
    based_on,
    derive,
    is_based_on,
    mutate,
    rebase,
    remove_layers,
)
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.tarstream import TarReader
from argosy.spec import mediatypes
from argosy.spec.annotations import BASE_DIGEST, BASE_NAME
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.image.kit import all_proved, contents, file, folder, image_of, names, tar_of

TAR = tar_of(file("hello", b"world"))


@pytest.mark.parametrize("compression", list(Compression))
def test_a_plain_changeset_is_compressed_as_asked(compression: Compression) -> None:
    image = append_layer(image_of(), io.BytesIO(TAR), compression=compression)
    assert image.layers[0].descriptor.media_type == mediatypes.layer_media_type(compression.value)
    assert image.config.rootfs.diff_ids == (Digest.of(TAR),)
    assert contents(image) == {"hello": b"world"}
    assert not all_proved(image)


def test_a_compressed_changeset_keeps_its_bytes() -> None:
    packed = gzip.compress(TAR, mtime=0)
    image = append_layer(image_of(), io.BytesIO(packed))
    assert image.manifest.layers[0].digest == Digest.of(packed)
    assert image.config.rootfs.diff_ids == (Digest.of(TAR),)


def test_a_compressed_changeset_is_compressed_anew_where_asked() -> None:
    image = append_layer(image_of(), io.BytesIO(gzip.compress(TAR)), compression=Compression.ZSTD)
    assert image.manifest.layers[0].media_type == mediatypes.OCI_LAYER_ZSTD
    assert image.config.rootfs.diff_ids == (Digest.of(TAR),)


def test_the_same_changeset_gives_the_same_image() -> None:
    one, other = (append_layer(image_of(), io.BytesIO(TAR)) for _ in range(2))
    assert one.digest == other.digest


def test_what_is_no_tar_archive_is_refused() -> None:
    with pytest.raises(InvalidLayerError):
        append_layer(image_of(), io.BytesIO(b"\x7fELF" + bytes(4000)))
    with pytest.raises(InvalidLayerError, match="cut off"):
        append_layer(image_of(), io.BytesIO(gzip.compress(TAR)[:-20]))


def test_a_layer_on_an_image_without_history_stands_at_its_place_in_the_history() -> None:
    image = image_of(TAR)
    bare = derive(image, config=dataclasses.replace(image.config, history=()))
    made = append_layer(bare, io.BytesIO(TAR), history=History(created_by="mine"))
    assert [(s.created_by, layer and layer.position) for s, layer in made.histories()] == [
        ("", 0),
        ("mine", 1),
    ]


def test_docker_media_types_stay_docker() -> None:
    image = append_layer(image_of(docker=True), io.BytesIO(TAR))
    assert image.manifest.media_type == mediatypes.DOCKER_MANIFEST
    assert image.manifest.layers[0].media_type == mediatypes.DOCKER_LAYER_GZIP


def test_an_artifact_takes_no_layer_and_no_configuration_but_annotations() -> None:
    store = MemoryStore()
    artifact = Image(source=store, descriptor=random.artifact(store, 1))
    with pytest.raises(UnsupportedError):
        append_layer(artifact, io.BytesIO(TAR))
    with pytest.raises(UnsupportedError):
        mutate(artifact, Changes(user="x"))
    noted = mutate(artifact, Changes(annotations={"a": "1"}))
    assert noted.manifest.annotations["a"] == "1"
    assert noted.manifest.config == artifact.manifest.config


def test_a_change_that_changes_nothing_keeps_the_digest() -> None:
    store = MemoryStore()
    image = Image(source=store, descriptor=random.image(store, 3))
    assert mutate(image, Changes()).digest == image.digest


def test_a_changed_annotation_leaves_the_configuration_as_it_was_received() -> None:
    store = MemoryStore()
    image = Image(source=store, descriptor=random.image(store, 3))
    made = mutate(image, Changes(annotations={"a": "1"}))
    assert made.raw_config == image.raw_config
    assert made.digest != image.digest


def test_annotations_are_cleared_before_they_are_set() -> None:
    image = mutate(image_of(), Changes(annotations={"a": "1"}))
    made = mutate(image, Changes(annotations={"b": "2"}, clear=frozenset({"manifest.annotations"})))
    assert made.manifest.annotations == {"b": "2"}


def test_the_step_of_a_mere_configuration_makes_no_layer() -> None:
    image = mutate(image_of(TAR), Changes(user="x"), history=History(created_by="me"))
    assert image.config.history[-1].empty_layer
    assert len(image.layers) == 1
    assert not all_proved(image)


def _rebased() -> tuple[Image, Image, Image]:
    store = MemoryStore()
    old = image_of(TAR, tar_of(file("old")), store=store, env={"BASE": "old"})
    new = image_of(tar_of(file("new")), store=MemoryStore(), env={"BASE": "new"})
    app = append_layer(old, io.BytesIO(tar_of(file("app"))), history=History(created_by="app"))
    return mutate(app, Changes(env={"APP": "1"}), history=History(created_by="env")), old, new


def test_rebase_puts_the_new_base_below_and_keeps_the_rest() -> None:
    app, old, new = _rebased()
    made = rebase(app, old, new, new_name="registry.example/base:2")
    assert made.config.rootfs.diff_ids == (
        *new.config.rootfs.diff_ids,
        app.config.rootfs.diff_ids[-1],
    )
    assert made.config.execution.env == ("BASE=old", "APP=1")
    assert [step.created_by for step in made.config.history] == ["layer 0", "app", "env"]
    assert made.manifest.annotations[BASE_NAME] == "registry.example/base:2"
    assert made.manifest.annotations[BASE_DIGEST] == new.digest
    assert not all_proved(made)


def test_rebase_of_what_stands_on_another_base_is_refused() -> None:
    app, _, new = _rebased()
    with pytest.raises(InvalidManifestError, match="not based on"):
        rebase(app, image_of(tar_of(file("other"))), new)


def test_rebase_does_not_mix_platforms_or_kinds_of_media_types() -> None:
    app, old, new = _rebased()
    other = mutate(new, Changes(properties={"architecture": "arm64"}))
    with pytest.raises(InvalidManifestError, match="linux/arm64"):
        rebase(app, old, other)
    with pytest.raises(InvalidManifestError, match="mixed"):
        rebase(app, old, image_of(tar_of(file("new")), docker=True))


def test_an_image_is_based_on_its_base() -> None:
    app, old, new = _rebased()
    assert is_based_on(app, old)
    assert not is_based_on(app, new)
    assert based_on(app, None, old.digest).manifest.annotations == {BASE_DIGEST: old.digest}


def test_a_layer_for_windows_lies_below_files_and_can_be_run() -> None:
    windows = image_of(platform=Platform.parse("windows/amd64"))
    image = append_layer(windows, io.BytesIO(tar_of(folder("app/"), file("app/x.exe", b"MZ"))))
    with image.layers[0].uncompressed() as stream:
        reader = TarReader(stream)
        found = {entry.name.decode(): entry.records for entry in reader}
        reader.drain()
    assert list(found) == ["Files/", "Hives/", "Files/app/", "Files/app/x.exe"]
    # What every tool of the field writes for BUILTIN/Users.
    expected = b"AQAAgBQAAAAkAAAAAAAAAAAAAAABAgAAAAAABSAAAAAhAgAAAQIAAAAAAAUgAAAAIQIAAA=="
    assert {records[b"MSWINDOWS.rawsd"] for records in found.values()} == {expected}
    again = append_layer(windows, io.BytesIO(tar_of(folder("Files/"), file("Files/a"))))
    assert names(again) == ["Files/", "Files/a"]


def test_a_layer_goes_with_its_diff_id_and_its_step_in_the_history() -> None:
    image = image_of(*(tar_of(file(name)) for name in "abc"))
    image = mutate(image, Changes(user="7"), history=History(created_by="layer of a user"))
    left = remove_layers(image, [1])
    assert [names(left, n) for n in range(2)] == [["a"], ["c"]]
    assert [step.created_by for step in left.config.history] == [
        "layer 0",
        "layer 2",
        "layer of a user",
    ]
    assert left.config.execution.user == "7"
    assert not all_proved(left)
    assert (
        remove_layers(image, made_by=[re.compile("r [02]$")]).manifest.layers
        == image.manifest.layers[1:2]
    )
    assert (
        remove_layers(image, [2], [re.compile("r 0$")]).manifest.layers
        == image.manifest.layers[1:2]
    )
    assert not all_proved(remove_layers(image, range(3)))


def test_a_layer_that_the_history_does_not_mention_can_go() -> None:
    image = image_of(*(tar_of(file(name)) for name in "abc"))
    short = dataclasses.replace(image.config, history=image.config.history[:1])
    image = derive(image, config=short)
    left = remove_layers(image, [2])
    assert left.config.history == short.history
    assert [names(left, n) for n in range(2)] == [["a"], ["b"]]
    assert remove_layers(image, [0]).config.history == ()


@pytest.mark.parametrize(("positions", "made_by"), [([3], ""), ([], "of a user"), ([0], "nobody")])
def test_a_layer_that_is_not_there_cannot_go(positions: list[int], made_by: str) -> None:
    image = image_of(*(tar_of(file(name)) for name in "abc"))
    image = mutate(image, Changes(user="7"), history=History(created_by="layer of a user"))
    with pytest.raises(NotFoundError, match="no layer"):
        remove_layers(image, positions, [re.compile(made_by)] if made_by else [])


def test_an_artifact_has_no_layers_to_take_away() -> None:
    store = MemoryStore()
    random.artifact(store, 1, "x")
    with pytest.raises(UnsupportedError):
        remove_layers(Image.open(store, "x"), [0])
