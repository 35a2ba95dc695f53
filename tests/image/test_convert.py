from __future__ import annotations

import dataclasses
import io
import itertools
import pathlib

import pytest

from argosy.content.memory import MemoryStore
from argosy.errors import DigestMismatchError, UnsupportedError
from argosy.image import indexes
from argosy.image.configure import Changes
from argosy.image.contents import Contents
from argosy.image.convert import each, recompress, retyped, to_docker, to_oci
from argosy.image.derive import append_layer, derive, mutate
from argosy.image.differences import file_differences
from argosy.image.draft import draft
from argosy.image.pack import File, pack
from argosy.image.reproducible import reproducible
from argosy.image.view import Image, ImageIndex
from argosy.layer.compression import Compression
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarstream import TarReader
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.image.kit import all_proved, contents, file, folder, image_of, link, names, tar_of

TAR = tar_of(folder("etc/"), file("etc/hosts", b"::1 me\n"))


def test_to_docker_and_back_keeps_config_and_layers_to_the_byte() -> None:
    image = image_of(TAR)
    docker = to_docker(image)
    assert docker.manifest.media_type == mediatypes.DOCKER_MANIFEST
    assert docker.manifest.config.media_type == mediatypes.DOCKER_CONFIG
    assert [la.media_type for la in docker.manifest.layers] == [mediatypes.DOCKER_LAYER_GZIP]
    assert docker.raw_config == image.raw_config
    assert docker.digest != image.digest
    assert to_oci(docker).digest == image.digest
    assert to_oci(image).digest == image.digest
    assert not all_proved(docker)


def test_to_docker_drops_annotations_and_refuses_what_docker_has_no_word_for() -> None:
    image = mutate(image_of(TAR), Changes(annotations={"a": "1"}))
    assert to_docker(image).manifest.annotations == {}
    with pytest.raises(UnsupportedError, match="subjects"):
        to_docker(derive(image, subject=Descriptor.of(mediatypes.OCI_MANIFEST, b"{}")))
    store = MemoryStore()
    with pytest.raises(UnsupportedError):
        to_docker(Image(source=store, descriptor=random.artifact(store, 1)))
    odd = dataclasses.replace(image.manifest.layers[0], media_type="application/x.odd")
    with pytest.raises(UnsupportedError, match=r"x\.odd"):
        to_docker(derive(image, layers=[odd]))


def test_what_has_its_media_types_already_keeps_its_digest() -> None:
    artifact = pack(MemoryStore(), artifact_type="application/x.y")
    assert artifact.manifest.config.data is not None
    noted = dataclasses.replace(artifact.descriptor, data=artifact.raw, annotations={"a": "1"})
    index = indexes.add(indexes.create(artifact.source, artifact), image_of(TAR))
    changed = dataclasses.replace(index.index, manifests=(noted, *index.manifests[1:]))
    place = draft(index.source)
    spaced = changed.encode() + b"\n"
    index = ImageIndex(source=place, descriptor=place.put(changed.media_type, spaced))
    assert to_oci(artifact).digest == artifact.digest
    assert retyped(index, docker=False).digest == index.digest


def test_an_index_is_converted_with_all_its_images() -> None:
    store = MemoryStore()
    index = ImageIndex(source=store, descriptor=random.index(store, 1))
    docker = retyped(index, docker=True)
    assert isinstance(docker, ImageIndex)
    assert docker.index.media_type == mediatypes.DOCKER_LIST
    assert {entry.media_type for entry in docker.manifests} == {mediatypes.DOCKER_MANIFEST}
    assert all(image.manifest.media_type == mediatypes.DOCKER_MANIFEST for image in docker.images())
    assert retyped(docker, docker=False).digest == index.digest


def _attested(store: MemoryStore, *, algorithm: str = "sha256") -> ImageIndex:
    """As BuildKit makes it: an image, and an attestation that refers to it."""
    image = dataclasses.replace(random.image(store, 1), platform=Platform.parse("linux/amd64"))
    about = dataclasses.replace(
        random.artifact(store, 1),
        platform=Platform(architecture="unknown", os="unknown"),
        annotations={"vnd.docker.reference.digest": str(image.digest)},
    )
    raw = Index(manifests=(image, about)).encode()
    place = draft(store)
    return ImageIndex(source=place, descriptor=place.put(mediatypes.OCI_INDEX, raw, algorithm))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_attestations_stay_what_they_are_when_their_image_is_converted(algorithm: str) -> None:
    index = _attested(MemoryStore(), algorithm=algorithm)
    docker = retyped(index, docker=True)
    assert isinstance(docker, ImageIndex)
    assert docker.digest.algorithm == algorithm
    image, about = docker.manifests
    assert image.media_type == mediatypes.DOCKER_MANIFEST
    assert about.bare() == index.manifests[1].bare()
    assert about.annotations["vnd.docker.reference.digest"] == image.digest
    assert len([one.manifest for one in docker.images()]) == 2
    assert retyped(docker, docker=False).digest == index.digest


def test_nested_indexes_are_converted_too() -> None:
    store = MemoryStore()
    place = draft(store)
    entries = (_attested(store), ImageIndex(source=store, descriptor=random.index(store, 2)))
    below = [place.put(entry.index.media_type, entry.raw) for entry in entries]
    raw = Index(manifests=tuple(below)).encode()
    index = ImageIndex(source=place, descriptor=place.put(mediatypes.OCI_INDEX, raw))
    docker = retyped(index, docker=True)
    assert isinstance(docker, ImageIndex)
    assert {entry.media_type for entry in docker.manifests} == {mediatypes.DOCKER_LIST}
    kinds = [image.manifest.media_type for image in docker.images()]
    assert kinds.count(mediatypes.DOCKER_MANIFEST) == 3
    assert retyped(docker, docker=True).digest == docker.digest
    assert retyped(docker, docker=False).digest == index.digest


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(Compression, 2)))
def test_recompressing_keeps_the_image_id(old: Compression, new: Compression) -> None:
    image = image_of(TAR, compression=old)
    made = recompress(image, new)
    assert made.raw_config == image.raw_config
    assert made.manifest.layers[0].media_type == mediatypes.layer_media_type(new.value)
    assert contents(made)["etc/hosts"] == b"::1 me\n"
    assert not all_proved(made)


def test_recompressing_to_what_it_is_changes_nothing_unless_forced() -> None:
    image = image_of(TAR)
    assert recompress(image, Compression.GZIP).digest == image.digest
    assert recompress(image, Compression.GZIP, level=0, force=True).digest != image.digest


def test_recompressing_drops_annotations_about_the_compressed_bytes() -> None:
    image = image_of(TAR)
    notes = {"containerd.io/snapshot/stargz/toc.digest": "x", "org.example": "1"}
    layer = dataclasses.replace(image.manifest.layers[0], annotations=notes)
    made = recompress(derive(image, layers=[layer]), Compression.ZSTD)
    assert made.manifest.layers[0].annotations == {"org.example": "1"}


def test_recompressing_a_layer_that_is_not_its_diff_id_fails() -> None:
    image = image_of(TAR)
    stack = dataclasses.replace(image.config.rootfs, diff_ids=(Digest.of(b"x"),))
    with pytest.raises(DigestMismatchError):
        recompress(
            derive(image, config=dataclasses.replace(image.config, rootfs=stack)), Compression.ZSTD
        )


def test_foreign_layers_are_left_alone() -> None:
    image = image_of(TAR)
    foreign = dataclasses.replace(
        image.manifest.layers[0], media_type=mediatypes.OCI_NONDISTRIBUTABLE_GZIP
    )
    made = recompress(derive(image, layers=[foreign]), Compression.ZSTD)
    assert made.manifest.layers == (foreign,)


def test_the_files_of_an_artifact_are_not_compressed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hi")
    image = image_of(TAR)
    artifact = pack(image.source, [File(path=str(tmp_path / "a.txt"), title="a.txt")])
    assert artifact.manifest.layers[0].media_type in mediatypes.LAYERS
    for kind in Compression:
        assert recompress(artifact, kind, force=True).descriptor == artifact.descriptor
    index = indexes.add(indexes.create(image.source, image), artifact)
    packed, kept = each(index, lambda one: recompress(one, Compression.ZSTD)).manifests
    assert (packed.digest != image.digest, kept.digest) == (True, artifact.digest)


def test_each_changes_all_images_of_nested_indexes_and_what_refers_to_them() -> None:
    store = MemoryStore()
    nested = ImageIndex(source=store, descriptor=random.index(store, 1, nested=True))
    made = each(nested, lambda image: mutate(image, Changes(user="me")))
    assert {image.config.execution.user for image in made.images()} == {"me"}

    image = Image(source=store, descriptor=random.image(store, 9))
    attestation = Image(source=store, descriptor=random.artifact(store, 1))
    index = indexes.create(store, image)
    noted = indexes.add(
        index,
        attestation,
        platform=Platform(architecture="unknown", os="unknown"),
        entry_annotations={"vnd.docker.reference.digest": str(image.digest)},
    )
    changed = each(noted, lambda image: mutate(image, Changes(user="me")))
    entry, about = changed.manifests
    assert about.annotations["vnd.docker.reference.digest"] == entry.digest != image.digest


def test_two_builds_of_one_tree_become_one_image() -> None:
    def build(first: int, when: int) -> Image:
        pair = [
            file("b", b"2", mtime=when * 10**9),
            file("a", b"1", mtime=when * 10**9 + 5),
        ]
        hard = Entry(name=b"c", type=EntryType.HARDLINK, linkname=b"b")
        plain = tar_of(pair[first], pair[1 - first], hard, link("l", "a"))
        return mutate(image_of(plain), Changes(created=f"20{first}0-01-01T00:00:00Z"))

    one = reproducible(build(0, 1_700_000_000), 1_000)
    two = reproducible(build(1, 1_600_000_000), 1_000)
    assert one.digest == two.digest
    assert names(one) == ["a", "b", "l", "c"]
    assert one.config.created == "1970-01-01T00:16:40Z"
    assert contents(one)["b"] == b"2"
    assert not all_proved(one)


def test_times_before_the_epoch_stay() -> None:
    made = reproducible(image_of(tar_of(file("a", mtime=5 * 10**9))), 1_000)
    with made.layers[0].uncompressed() as stream:
        reader = TarReader(stream)
        assert [entry.mtime for entry in reader] == [5 * 10**9]
        reader.drain()


def test_a_path_that_comes_twice_keeps_its_order() -> None:
    made = reproducible(image_of(tar_of(file("b", b"1"), file("a", b"1"), file("b", b"2"))), 0)
    assert names(made) == ["b", "a", "b"]


def hard(name: str, target: str) -> Entry:
    return Entry(name=name.encode(), type=EntryType.HARDLINK, linkname=target.encode())


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (tar_of(file("cur", b"old")), tar_of(hard("old", "cur"), file("cur", b"new"))),
        (
            tar_of(file("conf", b"1")),
            tar_of(hard("conf.bak", "conf"), folder("conf/"), file("conf/x", b"2")),
        ),
        (tar_of(), tar_of(file("a"), hard("c", "a"), hard("b", "c"))),
        (
            tar_of(folder("usr/"), link("lib", "usr")),
            tar_of(file("usr/x", b"1"), file("lib/x", b"2")),
        ),
        (tar_of(link("a", "b")), tar_of(file("a/x"), folder("a/"))),
        (tar_of(folder("a/", 0o700)), tar_of(file("a/x"), file(".wh.a"))),
        (
            tar_of(folder("a/"), folder("a/b/", 0o700)),
            tar_of(file("a/b/x"), file("a/.wh..wh..opq")),
        ),
        (tar_of(), tar_of(file("a/b", b"1"), file("a", b"2"))),
    ],
)
def test_an_order_that_means_something_is_kept(lower: bytes, upper: bytes) -> None:
    image = image_of(lower, upper)
    made = reproducible(image, 0)
    assert not all_proved(made)
    assert names(made) == names(image)
    assert list(file_differences(Contents(image), Contents(made))) == []


def test_a_layer_that_cannot_be_unpacked_keeps_its_order() -> None:
    lost = tar_of(hard("b", "gone"), file("a"))
    made = reproducible(image_of(lost, tar_of(file("d"), file("c"))), 0)
    assert [names(made, 0), names(made, 1)] == [["b", "a"], ["d", "c"]]


def test_a_sparse_file_is_written_whole() -> None:
    gnu = _gnu_sparse(b"x" * 512, at=1024, size=2048)
    made = reproducible(append_layer(image_of(), io.BytesIO(gnu)), 0)
    assert contents(made)["s"] == bytes(1024) + b"x" * 512 + bytes(512)


def _gnu_sparse(data: bytes, *, at: int, size: int) -> bytes:
    block = bytearray(512)

    def put(where: int, text: bytes) -> None:
        block[where : where + len(text)] = text

    put(0, b"s")
    put(100, b"0000644\0")
    put(108, b"0000000\0")
    put(116, b"0000000\0")
    put(124, b"%011o\0" % len(data))
    put(136, b"00000000000\0")
    put(156, b"S")
    put(257, b"ustar  \0")
    put(386, b"%011o\0" % at)
    put(398, b"%011o\0" % len(data))
    put(483, b"%011o\0" % size)
    put(148, b" " * 8)
    put(148, b"%06o\0 " % sum(block))
    return bytes(block) + data + bytes(-len(data) % 512) + bytes(1024)
