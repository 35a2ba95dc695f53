from __future__ import annotations

import gzip
import io
import os
import pathlib
import threading

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.content.overlay import Union
from argosy.content.protocols import Target
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    BlobUnknownError,
    DigestMismatchError,
    InvalidLayerError,
    SizeMismatchError,
    StorageError,
    UsageError,
)
from argosy.image.draft import Draft, Spool, draft
from argosy.layer.compression import Compression
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.testing.contract import TargetContract
from tests.image.kit import file, image_of, tar_of

BIG = 1 << 20


class TestSpoolIsATarget(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return Spool(str(tmp_path))

    def reopen(self, place: Target) -> Target:
        return place


class TestDraftIsATarget(TargetContract):
    def make(self, tmp_path: pathlib.Path) -> Target:
        return Draft(MemoryStore())

    def reopen(self, place: Target) -> Target:
        return place


def test_large_blobs_go_to_a_file_that_has_no_name(tmp_path: pathlib.Path) -> None:
    spool = Spool(str(tmp_path))
    data = os.urandom(BIG)
    desc = Descriptor.of("application/x", data)
    spool.push(desc, io.BytesIO(data))
    assert list(tmp_path.iterdir()) == []
    assert spool.fetch(desc).readall() == data


def test_content_that_is_not_what_it_says_leaves_nothing_in_the_file(
    tmp_path: pathlib.Path,
) -> None:
    spool = Spool(str(tmp_path))
    data = os.urandom(BIG)
    wrong = Descriptor.of("application/x", data + b"!")
    with pytest.raises(SizeMismatchError):
        spool.push(wrong, io.BytesIO(data))
    assert not spool.exists(wrong)
    good = Descriptor.of("application/x", data)
    spool.push(good, io.BytesIO(data))
    assert spool.fetch(good).readall() == data


def test_a_layer_that_fails_half_way_leaves_nothing() -> None:
    spool = Spool()

    def failing() -> None:
        with spool.layer() as out:
            out.write(os.urandom(BIG))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        failing()
    with spool.layer(Compression.NONE) as out:
        out.write(b"x" * BIG)
    assert spool.fetch(out.layer.descriptor).readall() == b"x" * BIG


def test_many_readers_read_one_spooled_blob_at_once() -> None:
    spool = Spool()
    data = os.urandom(BIG)
    desc = Descriptor.of("application/x", data)
    spool.push(desc, io.BytesIO(data))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(spool.fetch(desc).readall())) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [data] * 8


@pytest.mark.parametrize("size", [1, 512, 3 << 20])
def test_padding_behind_a_compressed_layer_is_left_out(size: int) -> None:
    plain = tar_of(file("a", bytes(5 << 20)))
    for sound in (gzip.compress(plain, mtime=0), plain):
        padding = 0 if sound is plain else size
        spool = Spool()
        layer = spool.keep(io.BytesIO(sound + bytes(padding)))
        assert layer.diff_id == Digest.of(plain)
        with spool.fetch(layer.descriptor) as reader:
            assert reader.readall() == sound


def test_a_layer_that_is_no_tar_archive_is_refused() -> None:
    with pytest.raises(InvalidLayerError):
        Spool().keep(io.BytesIO(b"not a tar archive at all" * 100))


def test_a_referred_file_stays_where_it_is_and_is_verified(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"weights")
    spool = Spool()
    desc = spool.refer("application/x", str(path))
    with spool.fetch(desc) as reader:
        assert reader.readall() == b"weights"
    path.write_bytes(b"WEIGHTS")
    with spool.fetch(desc) as reader, pytest.raises(DigestMismatchError):
        reader.readall()


def test_a_device_or_fifo_cannot_be_referred_to(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", pathlib.Path("/dev/zero"), tmp_path):
        with pytest.raises(StorageError):
            Spool().refer("application/x", str(path))


def test_drafts_do_not_pile_up() -> None:
    image = image_of(tar_of(file("a")))
    assert isinstance(image.source, Draft)
    assert draft(image.source) is image.source


def test_a_draft_is_copied_as_if_it_lay_together() -> None:
    target = MemoryStore()
    image = image_of(tar_of(file("a", b"1")), tar_of(file("b", b"2")))
    root = copy(image.source, str(image.digest), target, "v1")
    assert root.digest == image.digest
    assert all(target.exists(layer.descriptor) for layer in image.layers)


class Lazy(MemoryStore):
    """As a repository is: that a blob is not there is said by the first `read`."""

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        if self.exists(desc):
            return super().fetch(desc)
        return VerifyingReader(_Missing(), desc)


class _Missing:
    def read(self, size: int = -1, /) -> bytes:
        raise BlobUnknownError("404")


def test_a_blob_comes_from_the_place_that_has_it_though_another_says_so_late() -> None:
    first, second = Lazy(), Lazy()
    desc = second.add("text/plain", b"here")
    assert Union(first, second).fetch(desc).read() == b"here"


def test_large_content_that_is_no_manifest_has_no_tags() -> None:
    data = bytes(300 * 1024)
    desc = Descriptor.of("application/octet-stream", data)
    with pytest.raises(UsageError, match="no manifest"):
        draft(MemoryStore()).upper.push(desc, io.BytesIO(data), tags=["v1"])
