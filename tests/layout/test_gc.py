"""Cleaning a layout keeps what is needed and what is young; checking it finds everything that is wrong."""

from __future__ import annotations

import io
import json
import os
import pathlib

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import InvalidLayoutError, UnsupportedError
from argosy.layout.blobs import GRACE
from argosy.layout.gc import fsck, gc
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from argosy.testing import random
from tests.layout.places import everything


def blobs_of(store: LayoutStore) -> set[str]:
    return {str(f.digest) for f in store.blobs.files() if not f.partial}


def age(store: LayoutStore) -> None:
    """Make everything in a layout old."""
    for folder, _, files in os.walk(store.path):
        for name in files:
            os.utime(os.path.join(folder, name), (0, 0))


class TestGC:
    def store(self, tmp_path: pathlib.Path) -> tuple[LayoutStore, Descriptor, Descriptor]:
        store = LayoutStore.create(tmp_path / "l")
        stays, goes = random.image(store, 1, "stays"), random.image(store, 2, "goes")
        store.delete(goes)
        age(store)
        return store, stays, goes

    def test_only_what_nothing_leads_to_is_removed(self, tmp_path: pathlib.Path) -> None:
        store, stays, _ = self.store(tmp_path)
        needed = set(everything(store, stays))
        done = gc(store)
        assert blobs_of(store) == needed
        assert len(done.blobs) == 3
        assert done.size > 0
        assert list(fsck(store)) == []
        assert gc(store).blobs == ()

    def test_a_manifest_that_is_a_layer_stays(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "l")
        inner = random.image(store, 1)
        config = Descriptor.of(mediatypes.OCI_CONFIG, b"{}")
        store.push(config, io.BytesIO(b"{}"))
        raw = Manifest(config=config, layers=(inner, inner)).encode()
        outer = Descriptor.of(mediatypes.OCI_MANIFEST, raw)
        store.push(outer, io.BytesIO(raw), tags=("v1",))
        age(store)
        before = blobs_of(store)
        assert gc(store, untagged=True).blobs == ()
        assert blobs_of(store) == before
        assert inner.digest in before

    def test_a_dry_run_removes_nothing(self, tmp_path: pathlib.Path) -> None:
        store, _, _ = self.store(tmp_path)
        before = blobs_of(store)
        assert gc(store, dry_run=True).blobs == gc(store, dry_run=True).blobs != ()
        assert blobs_of(store) == before

    def test_young_content_is_spared(self, tmp_path: pathlib.Path) -> None:
        store, _, _ = self.store(tmp_path)
        young = Descriptor.of("text/plain", b"young")
        store.push(young, io.BytesIO(b"young"))
        gc(store)
        assert store.exists(young)
        gc(store, grace=-10)
        assert not store.exists(young)

    def test_content_a_copy_has_found_is_spared(self, tmp_path: pathlib.Path) -> None:
        store, _, goes = self.store(tmp_path)
        memory = MemoryStore()
        assert random.image(memory, 2, "goes") == goes
        layers = [
            Descriptor(media_type="a/b", digest=f.digest, size=os.stat(f.path).st_size)
            for f in store.blobs.files()
            if f.digest is not None
        ]
        assert all(store.exists(layer) for layer in layers)
        assert gc(store).blobs == ()
        copy(memory, "goes", store, "again")
        assert list(fsck(store)) == []

    def test_a_partial_blob_goes_when_it_is_old_and_nobody_writes_it(
        self, tmp_path: pathlib.Path
    ) -> None:
        store, stays, _ = self.store(tmp_path)
        partial = pathlib.Path(store.blobs.path, "sha256", f".{'0' * 64}.partial")
        partial.write_bytes(b"front")
        (tmp_path / "l/.index.json.tmp").write_bytes(b"{")
        assert gc(store).files == ()
        age(store)
        done = gc(store)
        assert done.files == (str(partial), str(tmp_path / "l/.index.json.tmp"))
        assert sorted(os.listdir(tmp_path / "l")) == ["blobs", "index.json", "oci-layout"]
        assert store.resolve("stays") == stays

    def test_files_that_are_not_the_layouts_stay(self, tmp_path: pathlib.Path) -> None:
        store, _, _ = self.store(tmp_path)
        top = pathlib.Path(store.path)
        foreign = [top / "blobs/sha256/README", top / ".hidden", top / "a.tmp", top / ".lock"]
        foreign += [
            top / "blobs/sha256" / name for name in (f".{'a' * 64}.another", f"x{'a' * 64}.partial")
        ]
        for path in foreign:
            path.write_text("mine")
            os.utime(path, (0, 0))
        gc(store)
        assert [path for path in foreign if not path.exists()] == []

    def test_nested_indexes_and_referrers_stay(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        memory = MemoryStore()
        root = random.index(memory, 1, "v1", nested=True)
        random.artifact(memory, 2, subject=root)
        copy(memory, "v1", store, "v1", referrers=True)
        age(store)
        before = blobs_of(store)
        assert gc(store, untagged=True).blobs == ()
        assert blobs_of(store) == before
        assert len(list(store.referrers(root))) == 1

    def test_untagged_manifests_stay_unless_they_are_to_go(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        desc = random.image(store, 1, "v1")
        random.artifact(store, 2, subject=desc)
        store.untag("v1")
        age(store)
        assert gc(store).blobs == ()
        assert len(gc(store, untagged=True, dry_run=True).entries) == 2
        assert len(store.index().manifests) == 2
        gc(store, untagged=True)
        assert blobs_of(store) == set()
        assert store.index().manifests == ()

    def test_shared_blobs_are_removed_only_when_no_layout_needs_them(
        self, tmp_path: pathlib.Path
    ) -> None:
        one = LayoutStore.create(tmp_path / "one", blobs=tmp_path / "shared")
        other = LayoutStore.create(tmp_path / "other", blobs=tmp_path / "shared")
        random.image(one, 1, "v1")
        desc = random.image(other, 2, "v1")
        with pytest.raises(UnsupportedError, match="shared"):
            gc(one)
        one.delete(one.resolve("v1"))
        gc(one, sharers=[other, one], grace=-10)
        assert blobs_of(other) == set(everything(other, desc))

    def test_nothing_goes_where_a_manifest_cannot_be_read(self, tmp_path: pathlib.Path) -> None:
        store, stays, _ = self.store(tmp_path)
        path = pathlib.Path(store.blobs.path_of(stays.digest))
        path.write_bytes(b"x" * stays.size)
        age(store)
        before = blobs_of(store)
        with pytest.raises(InvalidLayoutError, match="cannot be read"):
            gc(LayoutStore.open(store.path))
        assert blobs_of(store) == before

    def test_the_grace_time_is_an_hour(self) -> None:
        assert GRACE == 3600


class TestFsck:
    def kinds(self, store: LayoutStore) -> list[str]:
        return [problem.kind for problem in fsck(LayoutStore(store.path))]

    def test_a_whole_layout_has_no_problems(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        random.index(store, 1, "v1", nested=True)
        assert self.kinds(store) == []

    def test_every_damage_is_found_and_named(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        desc = random.image(store, 1, "v1", layers=3)
        facts = store.catalog.facts(desc)
        assert facts is not None
        _config, flipped, short, gone = facts.children
        path = pathlib.Path(store.blobs.path_of(flipped.digest))
        path.write_bytes(b"x" + path.read_bytes()[1:])
        pathlib.Path(store.blobs.path_of(short.digest)).write_bytes(b"x")
        store.blobs.remove(gone.digest)
        (tmp_path / "blobs/sha256/notes.txt").write_text("x")
        (tmp_path / "blobs/md5").mkdir()
        (tmp_path / "blobs/md5/abc").write_text("x")
        (tmp_path / "extra").write_text("x")
        found = {(p.kind, p.where) for p in fsck(LayoutStore(store.path))}
        assert found == {
            ("digest", store.blobs.path_of(flipped.digest)),
            ("digest", store.blobs.path_of(short.digest)),
            ("size", short.digest),
            ("missing", gone.digest),
            ("foreign", str(tmp_path / "blobs/sha256/notes.txt")),
            ("foreign", str(tmp_path / "extra")),
            ("algorithm", str(tmp_path / "blobs/md5/abc")),
        }
        assert all("\n" not in str(p) for p in fsck(store))

    def test_a_pipe_in_the_place_of_a_blob_is_found_and_not_waited_for(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        path = store.blobs.path_of(random.image(store, 1, "v1").digest)
        os.unlink(path)
        os.mkfifo(path)
        found = [(p.kind, str(p)) for p in fsck(store)]
        assert found[0] == ("digest", f"{path}: expected a regular file")
        assert {kind for kind, _ in found[1:]} == {"missing"}

    def test_documents_that_are_not_what_their_media_type_says_are_found(
        self, tmp_path: pathlib.Path
    ) -> None:
        store = LayoutStore.create(tmp_path)
        raw = b'{"schemaVersion":2,"manifests":[]}'
        desc = Descriptor.of(mediatypes.OCI_MANIFEST, raw)
        store.push(desc, io.BytesIO(raw), tags=["v1"])
        assert self.kinds(store) == ["manifest"]

    def test_a_broken_index_and_header_are_found(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        (tmp_path / "index.json").write_text("{")
        (tmp_path / "oci-layout").write_text("{}")
        assert self.kinds(store) == ["header", "index"]

    def test_data_in_a_descriptor_is_checked(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path)
        desc = random.image(store, 1)
        entry = {**desc.encode(), "data": "bm8="}
        (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        assert self.kinds(store) == ["data"]
