from __future__ import annotations

import dataclasses
import io
import pathlib

import pytest

from argosy.content.memory import MemoryStore
from argosy.content.verify import VerifyingReader
from argosy.image.convert import recompress
from argosy.image.derive import derive
from argosy.image.draft import draft
from argosy.image.indexes import annotate, create
from argosy.image.pack import pack
from argosy.image.validate import Known, validate
from argosy.image.view import Image, ImageIndex
from argosy.layer.compression import Compression
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.image.kit import file, image_of, tar_of

TAR = tar_of(file("a", b"1"))


def _found(what: Image | ImageIndex, *, fast: bool = False) -> list[str]:
    return [str(finding) for finding in validate(what, fast=fast)]


def test_sound_images_indexes_and_artifacts_have_no_findings() -> None:
    store = MemoryStore()
    assert _found(Image(source=store, descriptor=random.image(store, 1))) == []
    assert _found(ImageIndex(source=store, descriptor=random.index(store, 2, nested=True))) == []
    assert _found(Image(source=store, descriptor=random.artifact(store, 3))) == []


def test_a_diff_id_of_another_layer_is_found_only_by_reading() -> None:
    image = image_of(TAR)
    stack = dataclasses.replace(image.config.rootfs, diff_ids=(Digest.of(b"other"),))
    wrong = derive(image, config=dataclasses.replace(image.config, rootfs=stack))
    assert any("diff_id" in line for line in _found(wrong))
    assert _found(wrong, fast=True) == []


def test_a_missing_layer_is_found_even_fast() -> None:
    image = image_of(TAR)
    lost = Descriptor.of(mediatypes.OCI_LAYER_GZIP, b"lost")
    assert any("not there" in line for line in _found(derive(image, layers=[lost]), fast=True))


@pytest.mark.parametrize("fast", [False, True])
def test_a_layer_that_is_not_to_be_distributed_may_be_elsewhere(fast: bool) -> None:
    image = image_of(TAR)
    (layer,) = image.manifest.layers
    elsewhere = Descriptor(
        media_type=mediatypes.OCI_NONDISTRIBUTABLE_GZIP, digest=Digest.of(b"x"), size=layer.size
    )
    found = _found(derive(image, layers=[elsewhere]), fast=fast)
    assert not any(line.startswith("layer") for line in found), found


def test_data_that_is_not_the_content_of_its_descriptor_is_found() -> None:
    image = image_of(TAR)
    config, (layer,) = image.manifest.config, image.manifest.layers
    odd = [dataclasses.replace(desc, data=b"other") for desc in (config, layer)]
    wrong = derive(image, config_descriptor=odd[0], layers=odd[1:])
    for fast in (False, True):
        lines = _found(wrong, fast=fast)
        assert [line.split()[0] for line in lines] == ["config", "layer"]
        assert all("the data in its descriptor" in line for line in lines)
    index = create(image.source, image)
    (entry,) = index.manifests
    changed = dataclasses.replace(
        index.index, manifests=(dataclasses.replace(entry, data=b"other"),)
    )
    place = draft(index.source)
    told = ImageIndex(source=place, descriptor=place.put(changed.media_type, changed.encode()))
    assert [line.split()[0] for line in _found(told)] == ["manifest"]


def test_content_that_is_in_its_descriptor_only_is_there(tmp_path: pathlib.Path) -> None:
    with LayoutStore.create(str(tmp_path / "layout")) as place:
        made = pack(place, artifact_type="application/x.y")
        note = dataclasses.replace(Descriptor.of("text/plain", b"note"), data=b"note")
        made = derive(made, layers=[note])
        assert _found(made, fast=True) == _found(made) == []


def test_more_diff_ids_than_layers_are_found_and_the_layers_still_read() -> None:
    image = image_of(TAR, tar_of(file("b")))
    found = _found(derive(image, layers=image.manifest.layers[:1]))
    assert any("diff_ids: expected 1" in line for line in found)
    assert any("history" in line for line in found)


def test_a_history_of_too_few_layers_is_a_warning() -> None:
    image = image_of(TAR, TAR)
    config = dataclasses.replace(image.config, history=(History(created_by="x"),))
    (finding,) = validate(derive(image, config=config))
    assert finding.warning
    assert "history" in finding.rule


def test_a_layer_of_another_compression_than_its_media_type_is_a_warning() -> None:
    image = image_of(TAR)
    typed = dataclasses.replace(image.manifest.layers[0], media_type=mediatypes.OCI_LAYER_ZSTD)
    (finding,) = validate(derive(image, layers=[typed]))
    assert finding.warning
    assert "zstd" in finding.rule


def test_a_layer_that_is_no_tar_archive_is_found() -> None:
    image = image_of(TAR)
    junk = b"junk" * 1000
    desc = Descriptor.of(mediatypes.OCI_LAYER, junk)
    made = derive(image, layers=[desc])
    made.source.push(desc, io.BytesIO(junk))  # type: ignore[attr-defined]
    assert any("layer 0" in line for line in _found(made))


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.ZSTD])
def test_padding_behind_a_compressed_layer_is_a_warning(kind: Compression) -> None:
    image = recompress(image_of(TAR), kind, force=True)
    with image.layers[0].compressed() as reader:
        padded = reader.read(1 << 20) + bytes(512)
    store = draft(image.source)
    layer = store.put(image.manifest.layers[0].media_type, padded)
    found = derive(Image(source=store, descriptor=image.descriptor), layers=[layer])
    (finding,) = validate(found)
    assert finding.warning
    assert "512 NUL bytes follow the compressed stream" in finding.rule


def test_a_damaged_blob_is_found() -> None:
    class Damaging(MemoryStore):
        def fetch(self, desc):  # type: ignore[no-untyped-def]
            reader = super().fetch(desc)
            if desc.media_type == mediatypes.OCI_LAYER_GZIP:
                data = bytearray(reader.readall())
                data[-1] ^= 1
                reader = type(reader)(io.BytesIO(bytes(data)), desc)
            return reader

    store = Damaging()
    found = _found(Image(source=store, descriptor=random.image(store, 1)))
    assert len(found) == 2


def test_an_index_that_says_another_platform_than_the_configuration_is_found() -> None:
    store = MemoryStore()
    image = Image(source=store, descriptor=random.image(store, 1, platform="linux/amd64"))
    index = annotate(
        create(store, image), {}, digest=image.digest, platform=Platform.parse("linux/arm64")
    )
    assert any("linux/arm64" in line for line in _found(index))


def test_a_manifest_that_cannot_be_read_is_found_and_the_others_still_checked() -> None:
    store = MemoryStore()
    good = random.image(store, 1)
    bad = store.add(mediatypes.OCI_MANIFEST, b'{"schemaVersion": 2}')
    index = ImageIndex(
        source=store,
        descriptor=create(store, Image(source=store, descriptor=good)).descriptor,
    )
    raw = (
        b'{"schemaVersion":2,"manifests":['
        + b",".join(
            b'{"mediaType":"%s","digest":"%s","size":%d}'
            % (d.media_type.encode(), d.digest.encode(), d.size)
            for d in (bad, good)
        )
        + b"]}"
    )
    mixed = ImageIndex(source=store, descriptor=store.add(mediatypes.OCI_INDEX, raw))
    (line,) = _found(mixed)
    assert str(bad.digest) in line
    assert index.digest != mixed.digest


@pytest.mark.parametrize("fast", [False, True])
def test_a_layer_of_several_images_is_read_once_and_told_for_each(fast: bool) -> None:
    read: list[Digest] = []

    class Watched(MemoryStore):
        def fetch(self, desc: Descriptor) -> VerifyingReader:
            read.append(desc.digest)
            return super().fetch(desc)

    store = Watched()
    base = Image(source=store, descriptor=random.image(store, 1, layers=1))
    (shared,) = base.manifest.layers
    lost = Descriptor.of(mediatypes.OCI_LAYER_GZIP, b"lost")
    one, two = derive(base, layers=[lost]), derive(base, layers=[shared, lost])
    index = create(store, one, two)
    read.clear()
    known: Known = {}
    for what in (index, two):
        list(validate(what, fast=fast, known=known))
    assert read.count(shared.digest) == (0 if fast else 1)
    again = [f.where for f in validate(index, fast=fast, known=known) if "layer" in f.where]
    assert again == [f"layer {position} ({lost.digest})" for position in (0, 1)]
