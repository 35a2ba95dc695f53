"""Hostile archives: what a stranger's tar file must not do to whoever reads it."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from argosy.content.copy import copy
from argosy.errors import (
    ArgosyError,
    DigestMismatchError,
    IntegrityError,
    InvalidDigestError,
    InvalidLayoutError,
    NotFoundError,
)
from argosy.layer.entry import Limits
from argosy.layout import tarindex
from argosy.layout.archive import OCIArchive
from argosy.layout.blobs import BlobDirectory
from argosy.layout.directory import DirectoryStore
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.testing import random
from tests.layout.places import layout_members, link, tar


def one_line(exc: BaseException) -> str:
    text = str(exc)
    assert "\n" not in text
    assert len(text) < 1000
    return text


def docker_image(layer: bytes = b"\0" * 1024, **more: Any) -> list[tuple[str, bytes]]:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer)]},
    }
    raw = json.dumps(config).encode()
    name = f"{hashlib.sha256(raw).hexdigest()}.json"
    item = {"Config": name, "RepoTags": ["app:v1"], "Layers": ["a/layer.tar"], **more}
    return [(name, raw), ("a/layer.tar", layer), ("manifest.json", json.dumps([item]).encode())]


class TestCVE20243727DigestInAPath:
    """CVE-2024-3727: a digest of a stranger's manifest is used as a path."""

    @pytest.mark.parametrize(
        "text",
        ["sha256:../../../../etc/passwd", "sha256:", "../x:abc", "sha256:/etc/passwd", "a:b/c"],
    )
    def test_a_digest_that_is_a_path_never_exists(self, tmp_path: pathlib.Path, text: str) -> None:
        with pytest.raises(InvalidDigestError):
            Digest(text)
        # Not even a string that was passed off as a digest becomes a path.
        fake = str.__new__(Digest, text)
        for blobs in (BlobDirectory(str(tmp_path)), DirectoryStore(tmp_path).blobs):
            with pytest.raises(ArgosyError):
                blobs.path_of(_unchecked(fake))

    def test_an_index_that_names_one_is_refused_with_its_place(
        self, tmp_path: pathlib.Path
    ) -> None:
        entry = {
            "mediaType": mediatypes.OCI_MANIFEST,
            "digest": "sha256:../../../../../../etc/passwd",
            "size": 10,
        }
        path = tar(tmp_path / "a.tar", layout_members([entry]))
        with pytest.raises(InvalidLayoutError, match=r"a.tar: index.json: manifests\[0\].digest"):
            OCIArchive.open(path)
        store = LayoutStore.create(tmp_path / "layout")
        raw = json.dumps({"schemaVersion": 2, "manifests": [entry]})
        (tmp_path / "layout" / "index.json").write_text(raw)
        with pytest.raises(InvalidLayoutError, match=r"index.json: manifests\[0\].digest"):
            store.resolve("v1")


def _unchecked(fake: str) -> Any:
    """A string as it is: `Digest` takes one of its own kind for checked."""
    return str(fake)


class TestPathsThatEscape:
    @pytest.mark.parametrize("name", ["../evil", "/etc/evil", "blobs/../../evil", "a/../b"])
    @pytest.mark.parametrize("opened", [OCIArchive, DockerArchive])
    def test_a_member_with_such_a_name_is_refused(
        self, tmp_path: pathlib.Path, opened: Any, name: str
    ) -> None:
        members = [*layout_members([]), *docker_image(), (name, b"evil")]
        path = tar(tmp_path / "a.tar", members)
        with pytest.raises(InvalidLayoutError, match="leads out of the archive") as caught:
            opened.open(path)
        assert "a.tar: at byte " in one_line(caught.value)
        assert name.rsplit("/", 1)[-1] in str(caught.value)

    @pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "../.."])
    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
    def test_a_layer_that_links_out_of_the_archive_is_refused(
        self, tmp_path: pathlib.Path, target: str, kind: bytes
    ) -> None:
        members = [m for m in docker_image() if m[0] != "a/layer.tar"]
        path = tar(tmp_path / "a.tar", [*members, link("a/layer.tar", target, kind)])
        with pytest.raises(InvalidLayoutError, match=r"out of the archive|no member"):
            DockerArchive.open(path)

    def test_a_layer_that_links_in_a_circle_is_refused(self, tmp_path: pathlib.Path) -> None:
        members = [m for m in docker_image() if m[0] != "a/layer.tar"]
        loop = [link("a/layer.tar", "../b"), link("b", "a/layer.tar")]
        with pytest.raises(InvalidLayoutError, match="circle"):
            DockerArchive.open(tar(tmp_path / "a.tar", [*members, *loop]))

    def test_a_directory_that_links_in_a_circle_is_refused(self, tmp_path: pathlib.Path) -> None:
        members = [m for m in docker_image() if m[0] != "a/layer.tar"]
        with pytest.raises(InvalidLayoutError, match="circle"):
            DockerArchive.open(tar(tmp_path / "a.tar", [*members, link("a", "a/a")]))

    @pytest.mark.parametrize(
        "name", ["../../etc/passwd", "/etc/passwd", "//etc/passwd", "/", "..", "", "a/" * 2_000_000]
    )
    def test_a_config_outside_the_archive_is_no_member(
        self, tmp_path: pathlib.Path, name: str
    ) -> None:
        item: dict[str, object] = {"Config": name, "RepoTags": None, "Layers": []}
        path = tar(tmp_path / "a.tar", [("manifest.json", json.dumps([item]).encode())])
        with pytest.raises(
            InvalidLayoutError, match=r"manifest.json: \[0\].Config: no member"
        ) as caught:
            DockerArchive.open(path)
        one_line(caught.value)

    def test_a_pipe_in_the_place_of_a_blob_is_not_waited_for(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "layout")
        desc = Descriptor.of("application/octet-stream", b"content")
        path = store.blobs.path_of(desc.digest)
        os.makedirs(os.path.dirname(path))
        os.mkfifo(path)
        assert not store.exists(desc)
        with pytest.raises(InvalidLayoutError, match="expected a regular file"):
            store.fetch(desc)

    def test_a_partial_file_that_is_a_link_is_not_followed(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "layout")
        victim = tmp_path / "victim"
        victim.write_bytes(b"precious")
        raw = b"content"
        desc = Descriptor.of("application/octet-stream", raw)
        folder, name = os.path.split(store.blobs.path_of(desc.digest))
        os.makedirs(folder)
        os.symlink(victim, os.path.join(folder, f".{name}.partial"))
        with pytest.raises(ArgosyError):
            store.push(desc, io.BytesIO(raw))
        assert victim.read_bytes() == b"precious"


class TestAmbiguousArchives:
    def test_two_members_of_one_name_with_different_content_are_refused(
        self, tmp_path: pathlib.Path
    ) -> None:
        path = tar(tmp_path / "a.tar", [*docker_image(), ("manifest.json", b"[]")])
        with pytest.raises(InvalidLayoutError, match="there twice, with different content"):
            DockerArchive.open(path)

    def test_two_members_of_one_name_and_content_are_one(self, tmp_path: pathlib.Path) -> None:
        members = docker_image()
        with DockerArchive.open(tar(tmp_path / "a.tar", [*members, members[1]])) as archive:
            assert list(archive.tags()) == ["app:v1"]

    def test_names_that_only_look_different_are_one_name(self, tmp_path: pathlib.Path) -> None:
        path = tar(tmp_path / "a.tar", [*docker_image(), ("./manifest.json", b"[]")])
        with pytest.raises(InvalidLayoutError, match="there twice"):
            DockerArchive.open(path)

    def test_a_config_of_another_digest_than_its_name_is_refused(
        self, tmp_path: pathlib.Path
    ) -> None:
        (name, raw), *rest = docker_image()
        path = tar(tmp_path / "a.tar", [(name, raw + b" "), *rest])
        with pytest.raises(InvalidLayoutError, match="has another digest"):
            DockerArchive.open(path)

    def test_an_index_that_is_a_manifest_too_is_refused(self, tmp_path: pathlib.Path) -> None:
        """CVE-2021-41190."""
        raw = b'{"schemaVersion":2,"manifests":[],"layers":[]}'
        members = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", raw)]
        with pytest.raises(InvalidLayoutError, match=r"index.json: "):
            OCIArchive.open(tar(tmp_path / "a.tar", members))

    def test_a_tag_that_looks_like_a_digest_does_not_stand_for_another_image(
        self, tmp_path: pathlib.Path
    ) -> None:
        """GHSA-qv35-3gw6-8q4j: a pinned digest must not be taken for a name."""
        store = LayoutStore.create(tmp_path / "layout")
        good, evil = random.image(store, 1), random.image(store, 2)
        store.delete(good)
        index = json.loads((tmp_path / "layout" / "index.json").read_text())
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": good.digest}
        (tmp_path / "layout" / "index.json").write_text(json.dumps(index))
        with pytest.raises(NotFoundError):
            store.resolve(good.digest)
        assert store.resolve(evil.digest) == evil


class TestDamagedArchives:
    def cut(self, path: pathlib.Path, size: int) -> pathlib.Path:
        out = path.with_suffix(".cut")
        out.write_bytes(path.read_bytes()[:size])
        return out

    @pytest.mark.parametrize("opened", [OCIArchive, DockerArchive])
    def test_a_truncated_archive_is_one_line_wherever_it_ends(
        self, tmp_path: pathlib.Path, opened: Any
    ) -> None:
        path = tmp_path / "a.tar"
        with opened.create(path) as archive:
            random.image(archive, 1, "app:v1")
        size = path.stat().st_size
        for end in range(1, size - 1024 - 512, 311):  # the end is zeros and padding
            target = LayoutStore.create(tmp_path / "target")
            with pytest.raises(ArgosyError) as caught, opened.open(self.cut(path, end)) as archive:
                copy(archive, "app:v1", target, "v1")
            assert "a.cut" in one_line(caught.value)
            assert list(target.tags()) == []

    def test_a_truncated_compressed_archive_is_one_line(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "a.tar.gz"
        with OCIArchive.create(path) as archive:
            random.image(archive, 1, "v1")
        with pytest.raises(InvalidLayoutError, match=r"a.tar.cut: .*cut off"):
            OCIArchive.open(self.cut(path, path.stat().st_size - 20))

    def test_a_layer_with_a_wrong_digest_is_not_copied(self, tmp_path: pathlib.Path) -> None:
        members = [(n, b"\1" * 1024 if n == "a/layer.tar" else d) for n, d in docker_image()]
        target = LayoutStore.create(tmp_path / "target")
        with (
            DockerArchive.open(tar(tmp_path / "a.tar", members)) as archive,
            pytest.raises(DigestMismatchError),
        ):
            copy(archive, "app:v1", target, "v1")
        assert list(target.tags()) == []
        assert not any(file.partial for file in target.blobs.files())

    def test_a_damaged_archive_leaves_no_archive_at_the_target(
        self, tmp_path: pathlib.Path
    ) -> None:
        members = [(n, b"\1" * 1024 if n == "a/layer.tar" else d) for n, d in docker_image()]
        out = tmp_path / "out"
        out.mkdir()
        for kind in (OCIArchive, DockerArchive):
            with (
                DockerArchive.open(tar(tmp_path / "a.tar", members)) as archive,
                pytest.raises(IntegrityError),
                kind.create(out / "b.tar") as target,
            ):
                copy(archive, "app:v1", target, "app:v1")
        assert os.listdir(out) == []

    @pytest.mark.parametrize("data", [b"", b"\0" * 10240, b"x" * 2000, b"\x1f\x8b\x08", b"PK\3\4"])
    @pytest.mark.parametrize("opened", [OCIArchive, DockerArchive])
    def test_what_is_no_archive_is_one_line(
        self, tmp_path: pathlib.Path, opened: Any, data: bytes
    ) -> None:
        path = tmp_path / "a.tar"
        path.write_bytes(data)
        with pytest.raises(InvalidLayoutError) as caught:
            opened.open(path)
        assert "a.tar" in one_line(caught.value)


class TestCVE202325153Memory:
    """CVE-2023-25153: importing an archive reads whole members into memory."""

    def huge(self, name: str, size: int) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.size = size
        return info

    def sparse(self, path: pathlib.Path, name: str, size: int) -> pathlib.Path:
        """An archive with a huge member of zeros that takes no room on the disk."""
        with path.open("wb") as out:
            out.write(self.huge(name, size).tobuf(tarfile.GNU_FORMAT))
            out.truncate(512 + size + 1024)
        return path

    @pytest.mark.parametrize("name", ["index.json", "oci-layout"])
    def test_a_huge_document_of_a_layout_is_not_read(
        self, tmp_path: pathlib.Path, name: str
    ) -> None:
        path = self.sparse(tmp_path / "a.tar", name, 8 << 30)
        with pytest.raises(
            InvalidLayoutError, match=f"{name}: 8589934592 bytes are over the limit"
        ):
            OCIArchive.open(path)

    @pytest.mark.parametrize("name", ["manifest.json", "repositories"])
    def test_a_huge_document_of_docker_is_not_read(self, tmp_path: pathlib.Path, name: str) -> None:
        path = self.sparse(tmp_path / "a.tar", name, 8 << 30)
        with pytest.raises(
            InvalidLayoutError, match=f"{name}: 8589934592 bytes are over the limit"
        ):
            DockerArchive.open(path)

    def test_a_huge_size_that_is_not_there_is_refused(self, tmp_path: pathlib.Path) -> None:
        path = tmp_path / "a.tar"
        path.write_bytes(self.huge("blobs/sha256/" + "0" * 64, 1 << 39).tobuf(tarfile.GNU_FORMAT))
        with pytest.raises(InvalidLayoutError, match="549755813888 bytes ends behind the end"):
            OCIArchive.open(path)

    def test_members_without_end_are_refused(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tarindex, "MAX_MEMBERS", 100)
        path = tar(tmp_path / "a.tar", [(f"file{n}", b"") for n in range(101)])
        with pytest.raises(InvalidLayoutError, match="more than 100 members"):
            OCIArchive.open(path)

    def test_a_document_nested_a_million_deep_is_one_line(self, tmp_path: pathlib.Path) -> None:
        deep = b"[" * 1_000_000 + b"]" * 1_000_000
        members = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", deep)]
        with pytest.raises(InvalidLayoutError, match=r"index.json: ") as caught:
            OCIArchive.open(tar(tmp_path / "a.tar", members))
        one_line(caught.value)
        with pytest.raises(InvalidLayoutError, match=r"manifest.json: ") as caught:
            DockerArchive.open(tar(tmp_path / "b.tar", [("manifest.json", deep)]))
        one_line(caught.value)

    def test_a_decompression_bomb_is_refused(
        self, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """CVE-2017-14992, for the archive itself."""
        monkeypatch.setattr(tarindex, "MAX_SIZE", 1 << 20)
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(b"\0" * (4 << 20)))
        with pytest.raises(InvalidLayoutError, match="more than 1048576 bytes uncompressed"):
            OCIArchive.open(path)

    @pytest.mark.parametrize("compress", [lzma.compress, bz2.compress])
    def test_layers_that_are_bombs_are_refused_together(
        self,
        tmp_path: pathlib.Path,
        monkeypatch: pytest.MonkeyPatch,
        compress: Callable[[bytes], bytes],
    ) -> None:
        """CVE-2017-14992: many small ones are a large one."""
        monkeypatch.setattr(tarindex, "Limits", lambda **_: Limits(grace=1 << 20))
        bomb, names = compress(bytes(600 << 10)), ["0.tar", "1.tar"]
        item = {"Config": "c.json", "Layers": names}
        members = [("c.json", b"{}"), ("manifest.json", json.dumps([item]).encode())]
        members += [(name, bomb + bytes(int(name[0]) * 4)) for name in names]
        with pytest.raises(InvalidLayoutError, match=r"a.tar: 1.tar: .* is a bomb"):
            DockerArchive.open(tar(tmp_path / "a.tar", members))

    def test_a_config_of_a_gigabyte_takes_no_memory(self, tmp_path: pathlib.Path) -> None:
        item: dict[str, object] = {"Config": "c.json", "RepoTags": ["app:v1"], "Layers": []}
        raw = json.dumps([item]).encode()
        path = tmp_path / "a.tar"
        with path.open("wb") as out:
            out.write(self.huge("manifest.json", len(raw)).tobuf() + raw)
            out.write(b"\0" * (-len(raw) % 512))
            out.write(self.huge("c.json", 1 << 30).tobuf(tarfile.GNU_FORMAT))
            out.truncate(out.tell() + (1 << 30) + 1024)
        script = f"""
            from argosy.errors import InvalidLayoutError
            from argosy.layout.dockerarchive import DockerArchive
            from tests.layout.places import peak
            try:
                DockerArchive.open({str(path)!r})
            except InvalidLayoutError as exc:
                assert "over the limit" in str(exc), exc
                print(peak())
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            capture_output=True,
            text=True,
            check=True,
            cwd=pathlib.Path(__file__).parents[2],
        )
        assert 0 < int(done.stdout) < 80 * 1024


class TestHostileLayouts:
    def test_indexes_that_nest_without_end_are_refused(self, tmp_path: pathlib.Path) -> None:
        store = LayoutStore.create(tmp_path / "layout")
        desc = random.index(store, 1)
        for _ in range(20):
            entry = desc.encode()
            raw = json.dumps(
                {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": [entry]}
            ).encode()
            desc = Descriptor.of(mediatypes.OCI_INDEX, raw)
            path = store.blobs.path_of(desc.digest)
            pathlib.Path(path).write_bytes(raw)
        index = {"schemaVersion": 2, "manifests": [desc.encode()]}
        (tmp_path / "layout" / "index.json").write_text(json.dumps(index))
        with pytest.raises(ArgosyError, match="nest deeper than 16"):
            list(store.referrers(desc))

    def test_a_header_of_another_version_is_refused(self, tmp_path: pathlib.Path) -> None:
        LayoutStore.create(tmp_path)
        (tmp_path / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}')
        with pytest.raises(
            InvalidLayoutError, match=r"oci-layout: imageLayoutVersion: expected 1.0.0"
        ):
            LayoutStore.open(tmp_path)

    def test_a_huge_index_is_not_read(self, tmp_path: pathlib.Path) -> None:
        LayoutStore.create(tmp_path)
        with (tmp_path / "index.json").open("wb") as out:
            out.truncate(8 << 30)
        with pytest.raises(InvalidLayoutError, match=r"index.json: more than 67108864 bytes"):
            LayoutStore.open(tmp_path)

    def test_an_index_that_is_a_pipe_is_not_waited_for(self, tmp_path: pathlib.Path) -> None:
        LayoutStore.create(tmp_path)
        (tmp_path / "index.json").unlink()
        os.mkfifo(tmp_path / "index.json")
        with pytest.raises(InvalidLayoutError, match="expected a regular file"):
            LayoutStore.open(tmp_path)
