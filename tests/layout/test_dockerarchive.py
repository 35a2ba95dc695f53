"""What `docker save` wrote over the years is read, and what `docker load` takes is written."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.content.graph import read, read_manifest
from argosy.content.memory import MemoryStore
from argosy.errors import InvalidLayoutError, InvalidTagError, ManifestUnknownError
from argosy.layout.archive import OCIArchive, sniff
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.tarindex import TarIndex
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ImageConfig
from argosy.spec.manifest import Manifest
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.layout.places import everything, link, tar

LAYERS = (b"\0" * 1024, b"\0" * 2048)


def config_of(layers: tuple[bytes, ...]) -> bytes:
    stack = {"type": "layers", "diff_ids": [Digest.of(layer) for layer in layers]}
    return json.dumps({"architecture": "amd64", "os": "linux", "rootfs": stack}).encode()


def read_image(archive: Any, tag: str) -> tuple[Manifest, list[bytes]]:
    manifest = read_manifest(archive, archive.resolve(tag))
    assert isinstance(manifest, Manifest)
    return manifest, [read(archive, layer) for layer in manifest.layers]


class TestOldForms:
    def test_layers_that_are_links_are_followed(self, tmp_path: pathlib.Path) -> None:
        config = config_of((LAYERS[0], LAYERS[1], LAYERS[0]))
        item = {
            "Config": "c.json",
            "RepoTags": ["app:v1"],
            "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
        }
        path = tar(
            tmp_path / "a.tar",
            [
                ("c.json", config),
                ("a/layer.tar", LAYERS[0]),
                ("b/layer.tar", LAYERS[1]),
                link("c/layer.tar", "../a/layer.tar"),
                ("manifest.json", json.dumps([item]).encode()),
            ],
        )
        with DockerArchive.open(path) as archive:
            manifest, layers = read_image(archive, "app:v1")
        assert layers == [LAYERS[0], LAYERS[1], LAYERS[0]]
        assert manifest.config.media_type == mediatypes.OCI_CONFIG
        assert {layer.media_type for layer in manifest.layers} == {mediatypes.OCI_LAYER}

    def test_gzip_layers_keep_their_bytes(self, tmp_path: pathlib.Path) -> None:
        packed = gzip.compress(LAYERS[0], mtime=0)
        item = {"Config": "c.json", "RepoTags": None, "Layers": ["x.tar.gz"]}
        path = tar(
            tmp_path / "a.tar",
            [
                ("c.json", config_of(LAYERS[:1])),
                ("x.tar.gz", packed),
                ("manifest.json", json.dumps([item]).encode()),
            ],
        )
        with DockerArchive.open(path) as archive:
            manifest, layers = read_image(archive, "@0")
        assert layers == [packed]
        assert manifest.layers[0].media_type == mediatypes.OCI_LAYER_GZIP
        assert manifest.layers[0].digest == Digest.of(packed)

    @pytest.mark.parametrize("oldest", [False, True])
    @pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
    def test_a_layer_in_xz_or_bzip2_is_unpacked(
        self, compress: Callable[[bytes], bytes], oldest: bool, tmp_path: pathlib.Path
    ) -> None:
        top, packed = "b" * 64, compress(LAYERS[0][:1000]) + compress(LAYERS[0][1000:]) + bytes(8)
        item = {"Config": "c.json", "RepoTags": ["app:v1"], "Layers": [f"{top}/layer.tar"] * 2}
        config = config_of((LAYERS[0], LAYERS[0]))
        names = [("c.json", config), ("manifest.json", json.dumps([item]).encode())]
        if oldest:
            raw = json.dumps({"id": top}).encode()
            repositories = json.dumps({"app": {"v1": top}}).encode()
            names = [("repositories", repositories), (f"{top}/json", raw)]
        path = tar(tmp_path / "a.tar", [*names, (f"{top}/layer.tar", packed)])
        with DockerArchive.open(path) as archive:
            manifest, layers = read_image(archive, "app:v1")
        assert set(layers) == {LAYERS[0]}
        assert manifest.layers[0].media_type == mediatypes.OCI_LAYER
        cut = tar(tmp_path / "b.tar", [*names, (f"{top}/layer.tar", packed[:-28])])
        with pytest.raises(InvalidLayoutError, match=r"b.tar: b*/layer.tar: .*cut off"):
            DockerArchive.open(cut)

    @pytest.mark.parametrize("top", [1, None, "../../etc", ""])
    def test_a_name_for_what_is_no_layer_is_refused(self, tmp_path: pathlib.Path, top: Any) -> None:
        repositories = json.dumps({"app": {"v1": top}}).encode()
        path = tar(tmp_path / "a.tar", [("repositories", repositories)])
        with pytest.raises(InvalidLayoutError, match="repositories: app:v1: no layer's id"):
            DockerArchive.open(path)

    def test_the_oldest_form_has_only_repositories(self, tmp_path: pathlib.Path) -> None:
        low, top = "a" * 64, "b" * 64
        below = {
            "id": low,
            "created": "2014-01-01T00:00:00Z",
            "container_config": {"Cmd": ["ADD", "x"]},
        }
        above = {
            "id": top,
            "parent": low,
            "created": "2014-01-02T00:00:00Z",
            "architecture": "arm",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
        }
        members = [
            (
                "repositories",
                json.dumps({"app": {"v1": top, "v2": top}, "base": {"latest": low}}).encode(),
            ),
            (f"{low}/VERSION", b"1.0"),
            (f"{low}/json", json.dumps(below).encode()),
            (f"{low}/layer.tar", LAYERS[0]),
            (f"{top}/VERSION", b"1.0"),
            (f"{top}/json", json.dumps(above).encode()),
            (f"{top}/layer.tar", LAYERS[1]),
        ]
        path = tar(tmp_path / "a.tar", members)
        assert sniff(path) == "docker-archive"
        with DockerArchive.open(path) as archive:
            assert list(archive.tags()) == ["app:v1", "app:v2", "base:latest"]
            manifest, layers = read_image(archive, "app:v2")
            config = ImageConfig.decode(read(archive, manifest.config))
            assert read_image(archive, "base")[1] == [LAYERS[0]]
        assert layers == list(LAYERS)
        assert config.architecture == "arm"
        assert config.execution.cmd == ("sh",)
        assert config.rootfs.diff_ids == tuple(Digest.of(layer) for layer in LAYERS)
        assert [entry.created_by for entry in config.history] == ["ADD x", ""]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"parent": "b" * 64}, "circle"),
            ({"parent": "c" * 64}, "no member c"),
            ({"parent": "../x"}, "circle"),
        ],
    )
    def test_parents_that_lead_nowhere_are_refused(
        self, tmp_path: pathlib.Path, change: dict[str, str], message: str
    ) -> None:
        top = "b" * 64
        members = [
            ("repositories", json.dumps({"app": {"v1": top}}).encode()),
            (f"{top}/json", json.dumps({"id": top, **change}).encode()),
            (f"{top}/layer.tar", LAYERS[0]),
        ]
        with pytest.raises(InvalidLayoutError, match=message):
            DockerArchive.open(tar(tmp_path / "a.tar", members))

    @pytest.mark.parametrize(
        ("item", "message"),
        [
            ({"Config": "c.json", "Layers": []}, "expected 1 layers as in its config, got 0"),
            ({"Config": "c.json", "Layers": ["missing"]}, r"\[0\].Layers: no member 'missing'"),
            ({"Config": "missing", "Layers": []}, r"\[0\].Config: no member 'missing'"),
            ({"Config": 7}, r"\[0\].Config: expected a string"),
            ({"Config": "c.json", "Layers": [1]}, r"\[0\].Layers: expected an array of strings"),
            (
                {"Config": "c.json", "RepoTags": "x"},
                r"\[0\].RepoTags: expected an array of strings",
            ),
            ("x", r"\[0\]: expected an object"),
            ({"Config": "bad.json", "Layers": []}, "config of an image without a name: not JSON"),
        ],
    )
    def test_a_broken_list_is_one_line_with_its_place(
        self, tmp_path: pathlib.Path, item: Any, message: str
    ) -> None:
        members = [
            ("c.json", config_of(LAYERS[:1])),
            ("bad.json", b"{"),
            ("manifest.json", json.dumps([item]).encode()),
        ]
        with pytest.raises(InvalidLayoutError, match=message):
            DockerArchive.open(tar(tmp_path / "a.tar", members))

    def test_several_images_are_told_apart_by_name_and_place(self, images: pathlib.Path) -> None:
        with DockerArchive.open(images / "bazel-two-images.tar") as archive:
            assert list(archive.tags()) == ["test_image_2", "test_image_1"]
            assert archive.resolve("test_image_1") == archive.resolve("@1")
            assert archive.resolve("docker.io/library/test_image_2:latest") == archive.resolve("@0")
            with pytest.raises(ManifestUnknownError) as caught:
                archive.resolve("test_image_3")
        assert caught.value.hint == "it has test_image_1, test_image_2"

    def test_the_same_archive_always_gives_the_same_manifest(self, images: pathlib.Path) -> None:
        found = set()
        for _ in range(2):
            with DockerArchive.open(images / "docker-save-14-layers.tar") as archive:
                found.add(read(archive, archive.resolve("dive-test")))
        assert len(found) == 1


class TestWriting:
    def test_it_is_an_oci_archive_and_a_docker_archive_in_one(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "a.tar"
        with DockerArchive.create(path) as archive:
            desc = random.image(archive, 1, "app", "registry.example:5000/team/app:v2")
            content = everything(archive, desc)
        with OCIArchive.open(path) as archive:
            assert list(archive.tags()) == ["latest", "v2"]
            assert archive.resolve("registry.example:5000/team/app:v2") == desc
            assert everything(archive, desc) == content
        index = TarIndex(path)
        (item,) = json.loads(index.small("manifest.json", 1 << 20) or b"")
        assert item["RepoTags"] == [
            "docker.io/library/app:latest",
            "registry.example:5000/team/app:v2",
        ]
        assert (
            hashlib.sha256(index.small(item["Config"], 1 << 20) or b"").hexdigest()
            in item["Config"]
        )
        assert all(index.find(layer) for layer in item["Layers"])
        index.close()

    def test_of_an_index_without_images_old_dockers_get_nothing(
        self, tmp_path: pathlib.Path
    ) -> None:
        memory, path = MemoryStore(), tmp_path / "a.tar"
        memory.add(mediatypes.OCI_INDEX, b'{"schemaVersion":2,"manifests":[]}', "v1")
        with DockerArchive.create(path) as archive:
            copy(memory, "v1", archive, "app:v1")
        index = TarIndex(path)
        assert json.loads(index.small("manifest.json", 1 << 20) or b"") == []
        index.close()

    def test_of_an_index_old_dockers_get_the_machines_image(self, tmp_path: pathlib.Path) -> None:
        memory, path = MemoryStore(), tmp_path / "a.tar"
        host = f"linux/{Platform.host().architecture}"
        root = random.index(memory, 1, "v1", platforms=("linux/s390x", host))
        with DockerArchive.create(path) as archive:
            copy(memory, "v1", archive, "app:v1")
        with DockerArchive.open(path) as archive:
            assert archive.resolve("app:v1").digest == root.digest
            index = TarIndex(path)
            (item,) = json.loads(index.small("manifest.json", 1 << 20) or b"")
            config = ImageConfig.decode(index.small(item["Config"], 1 << 20) or b"")
            index.close()
        assert config.architecture == Platform.host().architecture

    def test_an_image_without_a_name_is_listed_without_one(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "a.tar"
        with DockerArchive.create(path) as archive:
            random.image(archive, 1)
        index = TarIndex(path)
        (item,) = json.loads(index.small("manifest.json", 1 << 20) or b"")
        assert item["RepoTags"] is None
        assert all(index.find(layer) for layer in item["Layers"])
        index.close()

    def test_artifacts_are_kept_but_not_listed(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "a.tar"
        with DockerArchive.create(path) as archive:
            subject = random.image(archive, 1, "app:v1")
            artifact = random.artifact(archive, 2, subject=subject)
        with DockerArchive.open(path) as archive:
            assert [d.digest for d in archive.referrers(subject)] == [artifact.digest]
        index = TarIndex(path)
        assert len(json.loads(index.small("manifest.json", 1 << 20) or b"")) == 1
        index.close()

    @pytest.mark.parametrize("tag", ["App:v1", "a@sha256:" + "0" * 64, "-x", "a b"])
    def test_a_tag_that_is_no_name_of_an_image_is_refused(
        self, tmp_path: pathlib.Path, tag: str
    ) -> None:
        with pytest.raises(InvalidTagError), DockerArchive.create(tmp_path / "a.tar") as archive:
            archive.tag(random.image(archive, 1), tag)
        assert not (tmp_path / "a.tar").exists()

    def test_images_are_added_to_an_archive_of_the_old_form(
        self, images: pathlib.Path, tmp_path: pathlib.Path
    ) -> None:
        path = tmp_path / "a.tar"
        path.write_bytes((images / "kaniko-image.tar").read_bytes())
        with DockerArchive.create(path) as archive:
            random.image(archive, 1, "new:v1")
        with DockerArchive.open(path) as archive:
            assert list(archive.tags()) == ["dive-test:kaniko-latest", "new:v1"]
            everything(archive, archive.resolve("dive-test:kaniko-latest"))

    def test_content_without_a_name_is_kept(self, tmp_path: pathlib.Path) -> None:
        with DockerArchive.create(tmp_path / "a.tar") as archive:
            desc = random.image(archive, 1)
        with DockerArchive.open(tmp_path / "a.tar") as archive:
            assert archive.resolve("@0") == desc
            assert list(archive.tags()) == []
