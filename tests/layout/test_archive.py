"""OCI archives: whole or not there, the same for the same content, compressed or not, streamed or not."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.content.graph import read, read_image
from argosy.content.memory import MemoryStore
from argosy.errors import BlobUnknownError, ConflictError, InvalidLayoutError, NameUnknownError
from argosy.layout.archive import OCIArchive, sniff
from argosy.layout.directory import DirectoryStore
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index
from argosy.testing import random
from tests.layout.places import everything, layout_members, tar

KINDS = [OCIArchive, DockerArchive]
ROOT = pathlib.Path(__file__).parents[2]


def fail(_: object) -> None:
    raise KeyError


@pytest.mark.parametrize("kind", KINDS)
class TestWriting:
    def test_the_bytes_depend_on_the_content_alone(self, tmp_path: pathlib.Path, kind: Any) -> None:
        memory = MemoryStore()
        random.index(memory, 1, "v1", nested=True)
        written = []
        for jobs in (1, 4):
            path = tmp_path / f"{jobs}.tar"
            with kind.create(path) as archive:
                copy(memory, "v1", archive, "app:v1", jobs=jobs)
            written.append(path.read_bytes())
        assert written[0] == written[1]

    def test_members_have_no_times_and_no_owners(self, tmp_path: pathlib.Path, kind: Any) -> None:
        with kind.create(tmp_path / "a.tar") as archive:
            random.image(archive, 1, "app:v1")
        with tarfile.open(tmp_path / "a.tar") as members:
            found = members.getmembers()
        assert found[0].name == "oci-layout"
        assert {(m.mtime, m.uid, m.gid, m.uname) for m in found} == {(0, 0, 0, "")}

    def test_an_error_leaves_what_was_there(self, tmp_path: pathlib.Path, kind: Any) -> None:
        path = tmp_path / "a.tar"
        for before in (None, b"old"):
            if before is not None:
                with kind.create(path) as archive:
                    random.image(archive, 1, "app:v1")
                before = path.read_bytes()
            with pytest.raises(KeyError), kind.create(path) as archive:
                fail(random.image(archive, 2, "app:v2"))
            assert os.listdir(tmp_path) == ([] if before is None else ["a.tar"])
            assert before is None or path.read_bytes() == before

    def test_another_writer_is_told_to_wait(self, tmp_path: pathlib.Path, kind: Any) -> None:
        path = tmp_path / "a.tar"
        with kind.create(path) as archive:
            desc = random.image(archive, 1, "app:v1")
            with pytest.raises(ConflictError, match="another process writes it now"):
                kind.create(path)
        with kind.open(path) as archive:
            assert archive.resolve("app:v1") == desc

    def test_a_strangers_file_is_not_replaced(self, tmp_path: pathlib.Path, kind: Any) -> None:
        path = tmp_path / "letter.txt"
        path.write_text("dear " * 1000)
        with pytest.raises(InvalidLayoutError, match=r"letter\.txt: "):
            kind.create(path)
        assert path.read_text() == "dear " * 1000
        assert os.listdir(tmp_path) == ["letter.txt"]

    def test_an_empty_file_is_filled(self, tmp_path: pathlib.Path, kind: Any) -> None:
        path = tmp_path / "a.tar"
        path.touch()
        with kind.create(path) as archive:
            random.image(archive, 1, "app:v1")
        assert sniff(path) == "oci-archive"

    def test_a_missing_directory_is_not_made(self, tmp_path: pathlib.Path, kind: Any) -> None:
        with pytest.raises(NameUnknownError, match="no such directory"):
            kind.create(tmp_path / "nowhere" / "a.tar")

    def test_an_archive_of_its_own_is_copied_onto_itself(
        self, tmp_path: pathlib.Path, kind: Any
    ) -> None:
        path = tmp_path / "a.tar"
        with kind.create(path) as archive:
            desc = random.image(archive, 1, "app:v1")
        with kind.open(path) as source, kind.create(path) as target:
            copy(source, "app:v1", target, "app:v2")
        with kind.open(path) as archive:
            assert list(archive.tags()) == ["app:v1", "app:v2"]
            assert archive.resolve("app:v2") == desc

    def test_what_was_removed_is_not_read_from_the_old_archive(
        self, tmp_path: pathlib.Path, kind: Any
    ) -> None:
        path = tmp_path / "a.tar"
        with kind.create(path) as archive:
            desc = random.image(archive, 1, "app:v1", layers=1)
        with kind.create(path) as archive:
            (layer,) = read_image(archive, desc).layers
            content = read(archive, layer)
            archive.delete(layer)
            with pytest.raises(BlobUnknownError):
                archive.fetch(layer)
            archive.push(layer, io.BytesIO(content))
            assert read(archive, layer) == content

    def test_an_image_that_loses_its_last_tag_leaves_the_archive(
        self, tmp_path: pathlib.Path, kind: Any
    ) -> None:
        path = tmp_path / "a.tar"
        with kind.create(path) as archive:
            random.image(archive, 1, "app:v1")
        size = path.stat().st_size
        with kind.create(path) as archive:
            desc = random.image(archive, 1, "app:v1")
            archive.untag("app:v1")
            random.image(archive, 2, "app:v1", layers=1)
        assert path.stat().st_size < size
        with kind.open(path) as archive:
            assert not archive.exists(desc)

    def test_it_streams_from_stdin_to_stdout(self, tmp_path: pathlib.Path, kind: Any) -> None:
        path = tmp_path / "a.tar"
        with kind.create(path) as archive:
            desc = random.image(archive, 1, "app:v1")
            content = everything(archive, desc)
        script = (
            f"from {kind.__module__} import {kind.__name__} as A\n"
            "from argosy.content.copy import copy\n"
            "with A.open('-') as source, A.create('-') as target:\n"
            "    copy(source, 'app:v1', target, 'app:v2')\n"
        )
        for stdin in (path.read_bytes(), gzip.compress(path.read_bytes())):
            done = subprocess.run(
                [sys.executable, "-c", script], input=stdin, capture_output=True, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr
            (tmp_path / "b.tar").write_bytes(done.stdout)
            with kind.open(tmp_path / "b.tar") as archive:
                assert list(archive.tags()) == ["app:v2"]
                assert everything(archive, desc) == content

    def test_a_copy_that_fails_writes_nothing_to_stdout(self, kind: Any) -> None:
        script = (
            f"from {kind.__module__} import {kind.__name__} as A\n"
            "from argosy.testing import random\n"
            "with A.create('-') as target:\n"
            "    random.image(target, 1, 'app:v1')\n"
            "    raise SystemExit(9)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=ROOT)
        assert (done.returncode, done.stdout) == (9, b"")


@pytest.mark.parametrize(
    ("suffix", "magic"),
    [
        (".tar", b"oci-layout"),
        (".tar.gz", b"\x1f\x8b"),
        (".tgz", b"\x1f\x8b"),
        (".tar.zst", b"\x28\xb5\x2f\xfd"),
    ],
)
def test_the_name_says_how_an_archive_is_compressed(
    tmp_path: pathlib.Path, suffix: str, magic: bytes
) -> None:
    path = tmp_path / f"a{suffix}"
    with OCIArchive.create(path) as archive:
        desc = random.image(archive, 1, "v1")
    assert path.read_bytes().startswith(magic)
    with OCIArchive.open(path) as archive:
        assert archive.resolve("v1") == desc
        everything(archive, desc)
    assert sniff(path) == "oci-archive"


@pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
def test_xz_and_bzip2_are_read_too(
    tmp_path: pathlib.Path, compress: Callable[[bytes], bytes]
) -> None:
    with OCIArchive.create(tmp_path / "a.tar") as archive:
        desc = random.image(archive, 1, "v1")
    raw = compress((tmp_path / "a.tar").read_bytes())
    (tmp_path / "b").write_bytes(raw)
    with OCIArchive.open(tmp_path / "b") as archive:
        everything(archive, desc)
    (tmp_path / "b").write_bytes(raw[:-100])
    with pytest.raises(InvalidLayoutError, match="b: "):
        OCIArchive.open(tmp_path / "b")


def test_a_layout_directory_packed_by_tar_is_an_archive(tmp_path: pathlib.Path) -> None:
    store = LayoutStore.create(tmp_path / "l")
    desc = random.index(store, 1, "v1")
    for words in (
        [f"{tmp_path}/a.tar", "-C", f"{tmp_path}/l", "."],
        [
            f"{tmp_path}/a.tar",
            "--format=gnu",
            "-C",
            f"{tmp_path}/l",
            "oci-layout",
            "index.json",
            "blobs",
        ],
    ):
        subprocess.run(["tar", "-cf", *words], check=True)
        with OCIArchive.open(tmp_path / "a.tar") as archive:
            assert everything(archive, archive.resolve("v1")) == everything(store, desc)


def test_what_is_missing_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(NameUnknownError, match="nowhere: no such file"):
        OCIArchive.open(tmp_path / "nowhere")
    path = tar(tmp_path / "a.tar", layout_members([])[:1])
    with pytest.raises(InvalidLayoutError, match=r"a\.tar: no member index\.json"):
        OCIArchive.open(path)
    with pytest.raises(InvalidLayoutError, match="expected a regular file"):
        OCIArchive.open(tmp_path)
    assert sniff(path) is None
    assert sniff(tmp_path / "nowhere") is None


class TestDirectory:
    def test_it_holds_one_image_as_skopeo_lays_it_out(self, tmp_path: pathlib.Path) -> None:
        memory = MemoryStore()
        root = random.index(memory, 1, "v1")
        with DirectoryStore.create(tmp_path) as store:
            copy(memory, "v1", store)
        assert (tmp_path / "version").read_bytes() == b"Directory Transport Version: 1.1\n"
        with memory.fetch(root) as reader:
            assert (tmp_path / "manifest.json").read_bytes() == reader.read()
        names = sorted(os.listdir(tmp_path))
        assert sum(name.endswith(".manifest.json") for name in names) == 2
        assert len(names) == 2 + 2 + 2 * 3
        assert not any(root.digest.encoded in name for name in names)

    def test_another_image_takes_its_place_and_leaves_nothing_behind(
        self, tmp_path: pathlib.Path
    ) -> None:
        memory = MemoryStore()
        random.index(memory, 1, "v1")
        second = random.image(memory, 2, "v2", layers=1)
        for tag in ("v1", "v2"):
            with DirectoryStore.create(tmp_path) as store:
                copy(memory, tag, store)
        assert DirectoryStore.open(tmp_path).resolve("@0") == second
        assert len(os.listdir(tmp_path)) == 4

    def test_an_image_is_known_by_the_digest_it_came_by(self, tmp_path: pathlib.Path) -> None:
        """It was kept by its sha256 in place of the one before, and then was not found."""
        memory = MemoryStore()
        child = random.image(memory, 1, "v1")
        with memory.fetch(random.image(memory, 2)) as reader:
            raw = reader.readall()
        image = Descriptor.of(child.media_type, raw, algorithm="sha512")
        memory.push(image, io.BytesIO(raw), tags=["v512"])
        made = Index(manifests=(child, image)).encode()
        index = Descriptor.of(mediatypes.OCI_INDEX, made, algorithm="sha512")
        memory.push(index, io.BytesIO(made), tags=["index"])
        expected = {"v1": child, "v512": image, "index": index}
        for before, tag in itertools.permutations([*expected, "v512"], 2):
            for name in (before, tag):
                with DirectoryStore.create(tmp_path) as store:
                    copy(memory, name, store, "latest")
            found = DirectoryStore.open(tmp_path)
            assert found.resolve("@0") == expected[tag], (before, tag)
            assert copy(found, "@0", MemoryStore()) == expected[tag]
        with DirectoryStore.create(tmp_path) as store:
            copy(memory, "v1", store, "latest")
        assert len(os.listdir(tmp_path)) == 2 + 3

    def test_a_child_becomes_the_image_when_it_is_tagged(self, tmp_path: pathlib.Path) -> None:
        memory = MemoryStore()
        root = random.index(memory, 1, "v1")
        with DirectoryStore.create(tmp_path) as store:
            copy(memory, "v1", store)
            child = list(store.manifests())[1]
        with DirectoryStore.create(tmp_path) as store:
            copy(memory, child.digest, store, "latest")
        found = DirectoryStore.open(tmp_path)
        assert found.resolve("@0").digest == child.digest
        assert not found.exists(root)

    def test_foreign_files_stay(self, tmp_path: pathlib.Path) -> None:
        with DirectoryStore.create(tmp_path) as store:
            random.image(store, 1)
        (tmp_path / "signature-1").write_text("x")
        with DirectoryStore.create(tmp_path) as store:
            random.image(store, 2)
        assert (tmp_path / "signature-1").exists()

    def test_other_things_are_neither_opened_nor_filled(self, tmp_path: pathlib.Path) -> None:
        with pytest.raises(NameUnknownError):
            DirectoryStore.open(tmp_path / "nowhere")
        (tmp_path / "letter").write_text("dear")
        with pytest.raises(InvalidLayoutError, match=r"no manifest\.json"):
            DirectoryStore.open(tmp_path)
        with pytest.raises(InvalidLayoutError, match="found 'letter'"):
            DirectoryStore.create(tmp_path)
        shutil.rmtree(tmp_path)
        DirectoryStore.create(tmp_path)
        (tmp_path / "version").write_text("Directory Transport Version: 2.0\n")
        with pytest.raises(InvalidLayoutError, match="version: expected"):
            DirectoryStore.open(tmp_path)

    def test_a_broken_manifest_is_one_line_with_its_path(self, tmp_path: pathlib.Path) -> None:
        DirectoryStore.create(tmp_path)
        (tmp_path / "manifest.json").write_text("{")
        with pytest.raises(InvalidLayoutError, match=r"manifest\.json: not JSON"):
            DirectoryStore.open(tmp_path)


def test_an_image_directory_has_one_writer_at_a_time(tmp_path: pathlib.Path) -> None:
    """Else what tidies up after one image takes the layers of the other one away."""
    with DirectoryStore.create(tmp_path / "image") as store:
        desc = random.image(store, 1)
        with pytest.raises(ConflictError, match="image: another process writes it now"):
            DirectoryStore.create(tmp_path / "image")
    with DirectoryStore.create(tmp_path / "image") as store:
        assert store.resolve("@0") == desc


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_an_archive_that_is_changed_keeps_its_mode_and_owner(
    tmp_path: pathlib.Path, mode: int
) -> None:
    """A private archive became everybody's to read with its next tag."""
    file = tmp_path / "a.tar"
    with OCIArchive.create(file) as target:
        image = random.image(target, 1, "one")
    file.chmod(mode)
    owner = (5, 6) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(file, *owner)
    with OCIArchive.create(file) as target:
        target.tag(image, "two")
    now = file.stat()
    assert (stat.S_IMODE(now.st_mode), (now.st_uid, now.st_gid)) == (mode, owner)
    with OCIArchive.create(file, anew=True) as target:
        random.image(target, 2, "one")
    assert file.stat().st_uid == os.geteuid()
