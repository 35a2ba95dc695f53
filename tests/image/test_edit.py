from __future__ import annotations

import json

import pytest

from argosy.content.memory import MemoryStore
from argosy.errors import InvalidConfigError, InvalidManifestError
from argosy.image.edit import with_config, with_manifest
from argosy.image.view import Image, ImageIndex
from argosy.testing import random
from tests.image.kit import file, image_of, tar_of


def test_an_edited_configuration_is_kept_to_the_byte() -> None:
    image = image_of(tar_of(file("a")))
    raw = json.dumps({**json.loads(image.raw_config), "author": "me"}, indent=3).encode()
    assert with_config(image, raw).raw_config == raw


def test_an_unchanged_document_changes_nothing() -> None:
    image = image_of()
    assert with_config(image, image.raw_config) is image
    assert with_manifest(image, image.raw) is image


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"rootfs": {"type": "layers", "diff_ids": []}}, "diff_ids"),
        ({"os": 1}, "os"),
        ({"rootfs": None}, "rootfs"),
    ],
)
def test_a_configuration_that_is_not_valid_is_refused_by_property(
    change: dict[str, object], named: str
) -> None:
    image = image_of(tar_of(file("a")))
    with pytest.raises(InvalidConfigError, match=named):
        with_config(image, json.dumps({**json.loads(image.raw_config), **change}).encode())


def test_an_edited_manifest_is_kept_to_the_byte() -> None:
    image = image_of(tar_of(file("a")))
    raw = json.dumps({**json.loads(image.raw), "annotations": {"a": "1"}}, indent=1).encode()
    made = with_manifest(image, raw)
    assert made.raw == raw
    assert isinstance(made, Image)


def test_a_manifest_that_refers_to_what_is_not_there_is_refused() -> None:
    image = image_of(tar_of(file("a")))
    document = json.loads(image.raw)
    document["layers"][0]["digest"] = "sha256:" + "0" * 64
    with pytest.raises(InvalidManifestError, match="0000"):
        with_manifest(image, json.dumps(document).encode())


def test_a_manifest_cannot_become_two_things_at_once() -> None:
    image = image_of(tar_of(file("a")))
    document = {**json.loads(image.raw), "manifests": []}
    with pytest.raises(InvalidManifestError):
        with_manifest(image, json.dumps(document).encode())


def test_an_index_is_edited_too() -> None:
    store = MemoryStore()
    index = ImageIndex(source=store, descriptor=random.index(store, 1))
    document = json.loads(index.raw)
    document["manifests"].pop()
    made = with_manifest(index, json.dumps(document).encode())
    assert isinstance(made, ImageIndex)
    assert len(made.manifests) == 1
