"""Other tools read what we write on a disk, and we read what they write."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.content.graph import read_manifest
from argosy.content.memory import MemoryStore
from argosy.layout.gc import fsck
from argosy.layout.store import LayoutStore
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from argosy.spec.platform import Platform
from argosy.testing import random
from tests.layout.places import everything, reading, writing

Peer = Callable[[str], str]
NAME = "docker.io/library/app:v1"
HOST = f"linux/{Platform.host().architecture}"


def run(*words: object, **more: Any) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **more)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def tag_of(transport: str) -> str:
    return NAME if transport == "docker-archive" else "v1"


def where(transport: str, path: pathlib.Path) -> str:
    """A place as skopeo names it."""
    return (
        f"{transport}:{path}" if transport == "dir" else f"{transport}:{path}:{tag_of(transport)}"
    )


@pytest.fixture
def index() -> tuple[MemoryStore, Descriptor]:
    store = MemoryStore()
    return store, random.index(store, 7, "v1", platforms=(HOST, "linux/s390x"))


@pytest.fixture
def image() -> tuple[MemoryStore, Descriptor]:
    store = MemoryStore()
    return store, random.image(store, 7, "v1", platform=HOST)


class TestSkopeo:
    @pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
    def test_it_reads_our_indexes_whole(
        self,
        peer: Peer,
        tmp_path: pathlib.Path,
        index: tuple[MemoryStore, Descriptor],
        transport: str,
    ) -> None:
        source, root = index
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        with writing(transport, ours) as target:
            copy(source, "v1", target, tag_of(transport))
        run(
            peer("skopeo"),
            "copy",
            "--all",
            "--preserve-digests",
            where(transport, ours),
            f"oci:{theirs}:v1",
        )
        with reading("oci", theirs) as place:
            assert place.resolve("v1").digest == root.digest
            assert everything(place, root) == everything(source, root)

    def test_it_reads_our_docker_archives(
        self, peer: Peer, tmp_path: pathlib.Path, image: tuple[MemoryStore, Descriptor]
    ) -> None:
        source, root = image
        with writing("docker-archive", tmp_path / "a.tar") as target:
            copy(source, "v1", target, NAME)
        found = json.loads(
            run(peer("skopeo"), "inspect", where("docker-archive", tmp_path / "a.tar"))
        )
        manifest = read_manifest(source, root)
        assert isinstance(manifest, Manifest)
        assert found["Env"] == ["SEED=7"]
        assert len(found["Layers"]) == len(manifest.layers)
        run(
            peer("skopeo"), "copy", where("docker-archive", tmp_path / "a.tar"),
            f"oci:{tmp_path / 'theirs'}:v1",
        )  # fmt: skip
        with reading("oci", tmp_path / "theirs") as place:
            theirs = read_manifest(place, place.resolve("v1"))
            assert isinstance(theirs, Manifest)
            assert theirs.config.digest == manifest.config.digest

    @pytest.mark.parametrize("transport", ["oci", "oci-archive", "dir"])
    def test_we_read_its_indexes_whole(
        self,
        peer: Peer,
        tmp_path: pathlib.Path,
        index: tuple[MemoryStore, Descriptor],
        transport: str,
    ) -> None:
        source, root = index
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        with writing("oci", ours) as target:
            copy(source, "v1", target, "v1")
        run(
            peer("skopeo"),
            "copy",
            "--all",
            "--preserve-digests",
            f"oci:{ours}:v1",
            where(transport, theirs),
        )
        with reading(transport, theirs) as place:
            found = place.resolve("@0" if transport == "dir" else "v1")
            assert found.digest == root.digest
            assert everything(place, root) == everything(source, root)

    def test_we_read_its_docker_archives(
        self, peer: Peer, tmp_path: pathlib.Path, image: tuple[MemoryStore, Descriptor]
    ) -> None:
        source, root = image
        with writing("oci", tmp_path / "ours") as target:
            copy(source, "v1", target, "v1")
        run(
            peer("skopeo"), "copy", f"oci:{tmp_path / 'ours'}:v1",
            where("docker-archive", tmp_path / "theirs.tar"),
        )  # fmt: skip
        ours = read_manifest(source, root)
        assert isinstance(ours, Manifest)
        with reading("docker-archive", tmp_path / "theirs.tar") as place:
            assert list(place.tags()) == [NAME]
            manifest = read_manifest(place, place.resolve("app:v1"))
            assert isinstance(manifest, Manifest)
            assert manifest.config.digest == ours.config.digest
            everything(place, place.resolve("app:v1"))

    def test_it_adds_to_our_layout_and_we_to_its(self, peer: Peer, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "l")
        first = random.image(store, 1, "a", platform=HOST)
        run(peer("skopeo"), "copy", f"oci:{tmp_path / 'l'}:a", f"oci:{tmp_path / 'l'}:b")
        random.image(store, 2, "c", platform=HOST)
        assert list(store.tags()) == ["a", "b", "c"]
        assert store.resolve("b").digest == first.digest
        assert [p for p in fsck(store) if not p.harmless] == []

    def test_it_shares_blobs_with_us(self, peer: Peer, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "l", blobs=tmp_path / "shared")
        root = random.image(store, 1, "a", platform=HOST)
        run(
            peer("skopeo"), "copy", "--src-shared-blob-dir", tmp_path / "shared",
            f"oci:{tmp_path / 'l'}:a", f"dir:{tmp_path / 'd'}",
        )  # fmt: skip
        with reading("dir", tmp_path / "d") as place:
            assert place.resolve("@0").digest == root.digest


class TestUmoci:
    def test_it_lists_and_collects_our_layouts(self, peer: Peer, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "l")
        desc = random.image(store, 1, "v1", platform=HOST)
        assert run(peer("umoci"), "ls", "--layout", tmp_path / "l").split() == ["v1"]
        found = json.loads(run(peer("umoci"), "stat", "--image", f"{tmp_path / 'l'}:v1", "--json"))
        assert len(found["history"]) == 2
        run(peer("umoci"), "gc", "--layout", tmp_path / "l")
        assert store.resolve("v1").digest == desc.digest
        assert list(fsck(store)) == []

    def test_we_read_its_layouts_and_share_tags(self, peer: Peer, tmp_path: pathlib.Path) -> None:
        umoci, path = peer("umoci"), tmp_path / "l"
        run(umoci, "init", "--layout", path)
        run(umoci, "new", "--image", f"{path}:empty")
        store = LayoutStore.create(path)
        random.image(store, 1, "ours", platform=HOST)
        run(umoci, "tag", "--image", f"{path}:ours", "theirs")
        assert sorted(store.tags()) == ["empty", "ours", "theirs"]
        assert store.resolve("ours").digest == store.resolve("theirs").digest
        assert [p for p in fsck(store) if not p.harmless] == []


@pytest.fixture
def podman(peer: Peer, tmp_path: pathlib.Path) -> Iterator[list[str]]:
    """podman with a store of its own; its path must be short."""
    if os.geteuid() != 0:
        pytest.skip("podman: loading images into a store of its own needs root")
    program = peer("podman")
    with tempfile.TemporaryDirectory(prefix="p") as run_root:
        yield [
            program, "--root", str(tmp_path / "root"), "--runroot", run_root, "--storage-driver", "vfs",
        ]  # fmt: skip


class TestPodman:
    @pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir"])
    def test_it_loads_what_we_write(
        self,
        podman: list[str],
        tmp_path: pathlib.Path,
        image: tuple[MemoryStore, Descriptor],
        transport: str,
    ) -> None:
        source, root = image
        path = tmp_path / "place"
        with writing(transport, path) as target:
            copy(source, "v1", target, tag_of(transport))
        run(*podman, "pull", "--quiet", where(transport, path))
        manifest = read_manifest(source, root)
        assert isinstance(manifest, Manifest)
        found = run(*podman, "images", "--no-trunc", "--format", "{{.Id}} {{.Names}}")
        assert manifest.config.digest.encoded in found
        if transport == "docker-archive":
            assert NAME in found
            run(*podman, "load", "--quiet", "--input", path)

    def test_we_read_what_it_saves(
        self, podman: list[str], tmp_path: pathlib.Path, images: pathlib.Path
    ) -> None:
        run(*podman, "load", "--quiet", "--input", images / "docker-save-14-layers.tar")
        for form, transport in (
            ("docker-archive", "docker-archive"),
            ("oci-archive", "oci-archive"),
        ):
            path = tmp_path / f"{form}.tar"
            run(
                *podman,
                "save",
                "--quiet",
                "--format",
                form,
                "--output",
                path,
                "localhost/dive-test:latest",
            )
            with reading(transport, path) as place:
                everything(place, place.resolve("@0"))


class TestCrane:
    def test_it_finds_one_image_in_our_docker_archives(
        self, peer: Peer, tmp_path: pathlib.Path, image: tuple[MemoryStore, Descriptor]
    ) -> None:
        source, _ = image
        with writing("docker-archive", tmp_path / "a.tar") as target:
            copy(source, "v1", target, NAME)
        assert run(peer("crane"), "digest", "--tarball", tmp_path / "a.tar").startswith("sha256:")
