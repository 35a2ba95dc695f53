"""The image layout directory: names, locks, partial blobs, and what it keeps of others' layouts."""

from __future__ import annotations

import io
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.content.graph import read
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Resumable
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    DeniedError,
    DigestMismatchError,
    InvalidLayoutError,
    InvalidTagError,
    ManifestUnknownError,
    NameUnknownError,
    StorageError,
    TransportError,
)
from argosy.layout import names
from argosy.layout.gc import fsck
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.annotations import CONTAINERD_IMAGE_NAME, REF_NAME
from argosy.spec.descriptor import Descriptor
from argosy.spec.platform import Platform
from argosy.testing import random


def index_of(store: LayoutStore) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((pathlib.Path(store.path) / "index.json").read_text())
    return value


def write_index(store: LayoutStore, index: dict[str, Any]) -> None:
    (pathlib.Path(store.path) / "index.json").write_text(json.dumps(index))


def names_of(store: LayoutStore) -> list[tuple[str | None, str]]:
    return [
        (e.get("annotations", {}).get(REF_NAME), e["digest"]) for e in index_of(store)["manifests"]
    ]


LONG_NAME = names.long_name


class TestOpening:
    def test_a_new_layout_has_the_three_parts_of_the_specification(
        self, tmp_path: pathlib.Path
    ) -> None:
        LayoutStore.create(tmp_path / "a" / "b")
        assert sorted(os.listdir(tmp_path / "a" / "b")) == ["blobs", "index.json", "oci-layout"]
        assert (tmp_path / "a/b/oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'

    def test_creating_again_changes_nothing(self, tmp_path: pathlib.Path) -> None:
        desc = random.image(LayoutStore.create(tmp_path / "l"), 1, "v1")
        assert LayoutStore.create(tmp_path / "l").resolve("v1") == desc

    def test_what_is_not_there_is_not_found(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(NameUnknownError, match="nowhere: no such directory"):
            LayoutStore.open(tmp_path / "nowhere")

    def test_a_directory_of_other_things_is_neither_opened_nor_filled(
        self, tmp_path: pathlib.Path
    ) -> None:
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(InvalidLayoutError, match="oci-layout: no such file"):
            LayoutStore.open(tmp_path)
        with pytest.raises(InvalidLayoutError, match=r"found 'letter.txt'"):
            LayoutStore.create(tmp_path)
        assert os.listdir(tmp_path) == ["letter.txt"]

    @pytest.mark.parametrize(
        "raw", ["", "[]", "{", '{"schemaVersion":2,"manifests":{}}', '{"a":1,"a":2}']
    )
    def test_a_broken_index_is_one_line_with_its_path(
        self, tmp_path: pathlib.Path, raw: str
    ) -> None:
        LayoutStore.create(tmp_path)
        (tmp_path / "index.json").write_text(raw)
        with pytest.raises(InvalidLayoutError, match=r"index\.json: ") as caught:
            LayoutStore.open(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["oci-layout", "index.json"])
    def test_a_layout_without_one_of_its_files_is_none(
        self, tmp_path: pathlib.Path, name: str
    ) -> None:
        LayoutStore.create(tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(InvalidLayoutError, match=f"{name}: no such file"):
            LayoutStore.open(tmp_path)

    def test_a_directory_that_may_not_be_written_is_denied(self, tmp_path: pathlib.Path) -> None:
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        tmp_path.chmod(0o500)
        with pytest.raises(DeniedError):
            LayoutStore.create(tmp_path / "l")


class TestNames:
    def two(self, tmp_path: pathlib.Path) -> tuple[LayoutStore, Descriptor, Descriptor]:
        store = LayoutStore.create(tmp_path / "l")
        one = random.image(store, 1, platform="linux/arm64")
        other = random.image(store, 2, platform=str(Platform.host()))
        return store, one, other

    def entry(
        self, desc: Descriptor, name: str, platform: str | None, whole: str | None = None
    ) -> Any:
        annotations = {REF_NAME: name} | ({CONTAINERD_IMAGE_NAME: whole} if whole else {})
        value: dict[str, Any] = {**desc.encode(), "annotations": annotations}
        if platform:
            wanted = Platform.parse(platform)
            value["platform"] = {"os": wanted.os, "architecture": wanted.architecture}
        return value

    def test_of_several_entries_with_one_name_the_machines_platform_is_chosen(
        self, tmp_path: pathlib.Path
    ) -> None:
        store, one, other = self.two(tmp_path)
        entries = [
            self.entry(one, "v1", "linux/riscv64"),
            self.entry(other, "v1", str(Platform.host())),
        ]
        write_index(store, {"schemaVersion": 2, "manifests": entries})
        assert store.resolve("v1").digest == other.digest
        assert list(store.tags()) == ["v1"]

    def test_of_several_entries_without_platform_the_first_is_chosen_and_all_are_kept(
        self, tmp_path: pathlib.Path
    ) -> None:
        store, one, other = self.two(tmp_path)
        entries = [self.entry(one, "v1", None), self.entry(other, "v1", None)]
        write_index(store, {"schemaVersion": 2, "manifests": entries})
        assert store.resolve("v1").digest == one.digest
        random.image(store, 3, "v3")
        assert names_of(store)[:2] == [("v1", one.digest), ("v1", other.digest)]

    def test_a_tag_that_is_set_replaces_all_entries_of_its_name(
        self, tmp_path: pathlib.Path
    ) -> None:
        store, one, other = self.two(tmp_path)
        entries = [self.entry(one, "v1", None), self.entry(other, "v1", None)]
        write_index(store, {"schemaVersion": 2, "manifests": entries})
        store.tag(other, "v1")
        assert store.resolve("v1").digest == other.digest
        assert set(names_of(store)) == {(None, one.digest), ("v1", other.digest)}

    def test_whole_names_of_buildkit_and_docker_are_found(self, tmp_path: pathlib.Path) -> None:
        store, one, _ = self.two(tmp_path)
        whole = "docker.io/library/app:v1"
        write_index(store, {"schemaVersion": 2, "manifests": [self.entry(one, "v1", None, whole)]})
        for name in ("v1", whole, "app:v1", "library/app:v1"):
            assert store.resolve(name).digest == one.digest
        assert list(store.tags()) == ["v1"]
        with pytest.raises(ManifestUnknownError):
            store.resolve("app:v2")

    def test_one_tag_of_two_images_means_neither(self, tmp_path: pathlib.Path) -> None:
        store, one, other = self.two(tmp_path)
        wholes = ["docker.io/library/app:latest", "docker.io/library/db:latest"]
        entries = [
            self.entry(one, "latest", None, wholes[0]),
            self.entry(other, "latest", None, wholes[1]),
        ]
        write_index(store, {"schemaVersion": 2, "manifests": entries})
        assert list(store.tags()) == wholes
        assert store.resolve("db").digest == other.digest
        with pytest.raises(
            ManifestUnknownError, match=r"several images: docker\.io/library/app:latest, "
        ):
            store.resolve("latest")

    def test_a_name_by_digest_is_no_other_name(self, tmp_path: pathlib.Path) -> None:
        store, one, other = self.two(tmp_path)
        called = [f"docker.io/library/app@{desc.digest}" for desc in (one, other)]
        store.tag(one, called[0])
        with pytest.raises(ManifestUnknownError):
            store.resolve("docker.io/library/app:latest")
        store.tag(other, called[1])
        assert [*store.tags()] == called
        assert store.resolve(f"app@{one.digest}").digest == one.digest

    def test_few_names_are_read_to_find_one_among_many(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, one, _ = self.two(tmp_path)
        read: set[str] = set()

        def long_name(text: str) -> str | None:
            read.add(text)
            return LONG_NAME(text)

        monkeypatch.setattr(names, "long_name", long_name)
        for number in range(20):
            store.tag(one, f"registry.example/app{number}:latest")
        assert store.resolve("registry.example/app7").digest == one.digest
        assert read == {"registry.example/app7", "registry.example/app7:latest"}

    def test_an_entry_is_found_by_its_place(self, tmp_path: pathlib.Path) -> None:
        store, one, other = self.two(tmp_path)
        assert [store.resolve(f"@{n}").digest for n in (0, 1)] == [one.digest, other.digest]
        with pytest.raises(ManifestUnknownError):
            store.resolve("@2")

    @pytest.mark.parametrize(
        "tag", ["", " ", "a b", "../x", "/x", "x\n", "sha256:" + "0" * 64, "x" * 2000]
    )
    def test_a_name_outside_the_grammar_is_refused(self, tmp_path: pathlib.Path, tag: str) -> None:
        store, one, _ = self.two(tmp_path)
        with pytest.raises(InvalidTagError):
            store.tag(one, tag)
        with pytest.raises(InvalidTagError):
            random.image(store, 9, tag)
        assert list(store.tags()) == []

    def test_a_name_says_what_there_is_when_it_is_not_there(self, tmp_path: pathlib.Path) -> None:
        store, one, _ = self.two(tmp_path)
        store.tag(one, "v1")
        with pytest.raises(ManifestUnknownError, match="'v2' is not in oci:") as caught:
            store.resolve("v2")
        assert caught.value.hint == "it has v1"


class TestKeeping:
    def test_unknown_properties_files_and_media_types_stay(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        (tmp_path / "manifest.json").write_text("[]")
        strange = {
            "mediaType": "application/xml",
            "digest": "sha256:" + "1" * 64,
            "size": 7143,
            "x.example": {"a": [1]},
        }
        write_index(
            store,
            {
                "schemaVersion": 2,
                "x.example": {"deep": [1, None]},
                "manifests": [strange],
                "annotations": {"com.example.index.revision": "r124356"},
            },
        )
        random.image(store, 1, "v1")
        index = index_of(store)
        assert index["x.example"] == {"deep": [1, None]}
        assert index["annotations"] == {"com.example.index.revision": "r124356"}
        assert index["manifests"][0] == strange
        assert (tmp_path / "manifest.json").read_text() == "[]"

    def test_children_of_an_index_need_no_entry_of_their_own(self, tmp_path: pathlib.Path) -> None:
        memory, store = MemoryStore(), LayoutStore.create(tmp_path)
        root = random.index(memory, 1, "v1", nested=True)
        copy(memory, "v1", store, "v1")
        assert names_of(store) == [("v1", root.digest)]

    def test_a_tagged_child_keeps_its_entry(self, tmp_path: pathlib.Path) -> None:
        memory, store = MemoryStore(), LayoutStore.create(tmp_path)
        root = random.index(memory, 1, "v1")
        copy(memory, "v1", store, "v1")
        child = store.resolve(next(iter(store.manifests())).digest)
        assert child == root
        one = list(store.manifests())[1]
        store.tag(one, "amd64")
        copy(memory, "v1", store, "v2")
        assert list(store.tags()) == ["v1", "amd64", "v2"]

    def test_missing_blobs_are_allowed(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        memory = MemoryStore()
        desc = random.image(memory, 1)
        with memory.fetch(desc) as reader:
            store.push(desc, reader, tags=["v1"])
        assert LayoutStore.open(tmp_path).resolve("v1") == desc
        assert {p.kind for p in fsck(store)} == {"missing"}

    def test_untagging_keeps_the_manifest_to_be_found_by_digest(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        desc = random.image(store, 1, "v1")
        store.untag("v1")
        assert names_of(store) == [(None, desc.digest)]
        assert store.resolve(desc.digest) == desc

    def test_several_names_go_at_once_and_those_that_are_gone_are_no_hindrance(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path / "l")
        made = [random.image(store, n, f"v{n}") for n in range(3)]
        store.untag("v9", "v0", "v2", "v0")
        assert names_of(store) == [
            ("v1", made[1].digest),
            (None, made[0].digest),
            (None, made[2].digest),
        ]
        with pytest.raises(ManifestUnknownError, match="'v0' is not in oci:"):
            store.untag("v0", "v2")

    def test_a_manifest_no_index_leads_to_is_still_resolved_by_digest(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        desc = random.image(store, 1, docker=True)
        write_index(store, {"schemaVersion": 2, "manifests": []})
        assert store.resolve(desc.digest) == desc
        assert not store.exists(desc), "so that a copy enters it again"

    def test_other_digest_algorithms_have_directories_of_their_own(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        desc = Descriptor.of("text/plain", b"hello", algorithm="sha512")
        store.push(desc, io.BytesIO(b"hello"))
        assert (tmp_path / "blobs/sha512" / desc.digest.encoded).read_bytes() == b"hello"
        assert read(store, desc) == b"hello"

    def test_embedded_data_stands_in_for_a_missing_blob(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        desc = Descriptor.of(mediatypes.OCI_EMPTY, b"{}", data=b"{}")
        assert not store.exists(desc)
        assert read(store, desc) == b"{}"

    def test_a_blob_of_the_wrong_size_is_written_anew(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        desc = Descriptor.of("text/plain", b"hello")
        path = pathlib.Path(store.blobs.path_of(desc.digest))
        path.parent.mkdir()
        path.write_bytes(b"hel")
        assert not store.exists(desc)
        store.push(desc, io.BytesIO(b"hello"))
        assert path.read_bytes() == b"hello"

    def test_shared_blobs_are_seen_by_every_layout(self, tmp_path: pathlib.Path) -> None:
        one = LayoutStore.create(tmp_path / "one", blobs=tmp_path / "shared")
        other = LayoutStore.create(tmp_path / "other", blobs=tmp_path / "shared")
        desc = random.image(one, 1, "v1")
        assert list(other.tags()) == []
        other.tag(desc, "v2")
        assert other.resolve("v2") == desc
        assert not (tmp_path / "one/blobs").exists()


class Slow:
    """A stream that breaks off, and that can begin later."""

    def __init__(self, data: bytes, until: int | None = None) -> None:
        self.data, self.until, self.at, self.begun = data, until, 0, 0

    def start_at(self, offset: int, /) -> None:
        self.at = self.begun = offset

    def read(self, size: int = -1, /) -> bytes:
        if self.until is not None and self.at >= self.until:
            raise TransportError("connection lost")
        end = min(self.at + min(size, 1000), self.until or len(self.data))
        data, self.at = self.data[self.at : end], end
        return data


class TestPartialBlobs:
    data = bytes(range(256)) * 100
    desc = Descriptor.of("application/octet-stream", data)

    def broken(self, store: LayoutStore) -> pathlib.Path:
        with pytest.raises(TransportError):
            store.push(self.desc, Slow(self.data, until=10_000))
        path = pathlib.Path(store.blobs.path_of(self.desc.digest))
        partial = path.with_name(f".{path.name}.partial")
        assert partial.read_bytes() == self.data[:10_000]
        assert not store.exists(self.desc)
        return partial

    def test_a_blob_is_gone_on_with_behind_what_is_there(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        partial = self.broken(store)
        stream = Slow(self.data)
        assert isinstance(stream, Resumable)
        store.push(self.desc, VerifyingReader(stream, self.desc))
        assert stream.begun == 10_000
        assert read(store, self.desc) == self.data
        assert not partial.exists()

    def test_a_stream_that_cannot_begin_later_begins_anew(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        self.broken(store)
        store.push(self.desc, io.BytesIO(self.data))
        assert read(store, self.desc) == self.data

    def test_a_partial_file_with_other_bytes_is_found_out_and_dropped(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        partial = self.broken(store)
        partial.write_bytes(b"x" * 10_000)
        with pytest.raises(DigestMismatchError) as caught:
            store.push(self.desc, Slow(self.data))
        assert caught.value.hint is not None
        assert not partial.exists()
        store.push(self.desc, Slow(self.data))

    def test_a_partial_file_that_is_already_whole_needs_no_more(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        self.broken(store).write_bytes(self.data)
        store.push(self.desc, Slow(b""))
        assert store.exists(self.desc)

    def test_content_goes_on_from_one_layout_to_another(self, tmp_path: pathlib.Path) -> None:
        source = LayoutStore.create(tmp_path / "source")
        source.push(self.desc, io.BytesIO(self.data))
        store = LayoutStore.create(tmp_path / "target")
        self.broken(store)
        with source.fetch(self.desc) as reader:
            assert reader.read(0) == b""
            store.push(self.desc, reader)
        assert read(store, self.desc) == self.data

    def test_two_that_push_the_same_blob_wait_for_each_other(self, tmp_path: pathlib.Path) -> None:
        store, begun, go = LayoutStore.create(tmp_path), threading.Event(), threading.Event()

        class Gated:
            def __init__(self, inner: Slow) -> None:
                self.inner = inner

            def read(self, size: int = -1, /) -> bytes:
                begun.set()
                assert go.wait(30)
                return self.inner.read(size)

        class Unread:
            def read(self, size: int = -1, /) -> bytes:
                raise AssertionError("content that is already here is not read")

        first = threading.Thread(target=store.push, args=(self.desc, Gated(Slow(self.data))))
        second = threading.Thread(target=store.push, args=(self.desc, Unread()))
        first.start()
        assert begun.wait(30)
        second.start()
        go.set()
        first.join()
        second.join()
        assert read(store, self.desc) == self.data

    def test_a_full_disk_is_one_line_and_leaves_the_layout_valid(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = LayoutStore.create(tmp_path)

        def full(fd: int, data: Any) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(StorageError, match="no space left on device"):
                store.push(self.desc, io.BytesIO(self.data))
        assert list(fsck(store)) == []


class TestLocks:
    def test_many_processes_and_threads_lose_no_tag(self, tmp_path: pathlib.Path) -> None:
        LayoutStore.create(tmp_path / "l")
        script = """
            import sys
            from concurrent.futures import ThreadPoolExecutor
            from argosy.layout.store import LayoutStore
            from argosy.testing import random
            store = LayoutStore.open(sys.argv[1])
            base = int(sys.argv[2])
            with ThreadPoolExecutor(4) as pool:
                jobs = [pool.submit(random.image, store, base + n % 3, f"t{base + n}", layers=1) for n in range(8)]
                [job.result() for job in jobs]
        """
        made = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "l"), str(base)]
            )
            for base in (0, 100, 200)
        ]
        assert [process.wait() for process in made] == [0, 0, 0]
        store = LayoutStore.open(tmp_path / "l")
        assert len(list(store.tags())) == 24
        assert list(fsck(store)) == []
