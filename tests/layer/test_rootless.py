"""Layers put on roots, and taken back, by somebody who is not root."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from argosy.errors import InvalidLayerError, StorageError
from argosy.layer.entry import EntryType
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.rootless import (
    capability_to_disk,
    capability_to_layer,
    decode_owner,
    encode_owner,
)
from argosy.layer.tarstream import TarReader
from tests.layer.making import (
    NOBODY,
    as_nobody,
    block,
    char,
    fifo,
    file,
    folder,
    link,
    needs_root,
    put,
    symlink,
    take,
    tar,
)

V2 = bytes.fromhex("0100000200200000000000000000000000000000")
V3 = bytes.fromhex("0100000300200000000000000000000000000000") + (1000).to_bytes(4, "little")


@needs_root
@pytest.mark.parametrize("openat2", [True, False])
def test_a_root_that_is_closed_takes_the_next_layer_and_stays_closed(
    tmp_path: Path, openat2: bool
) -> None:
    (tmp_path / "root").mkdir()
    os.chown(tmp_path / "root", NOBODY, NOBODY)

    def work() -> None:
        with RootFS(tmp_path / "root", Options(rootless=True), openat2=openat2) as root:
            for layer in ([folder("./", mode=0), file("a")], [file("b"), folder("c"), file("c/d")]):
                root.apply(io.BytesIO(tar(*layer)))

    as_nobody(tmp_path, work)
    assert stat.S_IMODE((tmp_path / "root").stat().st_mode) == 0
    assert (tmp_path / "root/c/d").exists()


@needs_root
def test_a_root_that_is_closed_is_opened_again_and_has_an_entry_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "root"

    def work() -> None:
        path.mkdir(mode=0)
        for layer in ([folder("./", mode=0), file("a")], [folder("./", mode=0o100), file("b")]):
            with RootFS(path, Options(rootless=True)) as root:
                root.apply(io.BytesIO(tar(*layer)))
        with RootFS(path, Options(rootless=True)) as root:
            before = root.snapshot()
        path.chmod(0)
        with RootFS(path, Options(rootless=True)) as root:
            assert [change.path for change in root.diff(before)] == [b""]

    as_nobody(tmp_path, work)
    assert stat.S_IMODE(path.stat().st_mode) == 0
    assert sorted(os.listdir(path)) == ["a", "b"]


@needs_root
def test_a_root_that_was_closed_goes_where_the_next_layer_fails(tmp_path: Path) -> None:
    path = tmp_path / "root"

    def work() -> None:
        with RootFS.create(path, Options(rootless=True)) as root:
            root.apply(io.BytesIO(tar(folder("./", mode=0), file("a"))))
            root.apply(io.BytesIO(tar(file("."))))

    def fail() -> None:
        with pytest.raises(InvalidLayerError):
            work()

    as_nobody(tmp_path, fail)
    assert not path.exists()


LAYER = [
    folder("d", mode=0o555, uid=1, gid=1),
    file("d/f", b"x", mode=0o4755, uid=1000, gid=0),
    file("secret", b"y", mode=0, uid=0, gid=42),
    folder("closed", mode=0, uid=0, gid=0),
    file("closed/in", b"z", uid=0, gid=0),
    link("hard", "d/f"),
    symlink("soft", "d/f", uid=7, gid=7),
    fifo("pipe", uid=0, gid=0),
    char("null", device=(1, 3), uid=0, gid=0),
    block("loop", device=(7, 0), uid=0, gid=0),
    file(
        "cap", uid=0, gid=0, xattrs={b"security.capability": V2, b"user.rootlesscontainers": b"lie"}
    ),
]


@needs_root
def test_a_layer_of_many_owners_goes_on_and_comes_back(tmp_path: Path) -> None:
    # umoci: repack.bats [unpriv], TestUnmapRootless; [setcap] kept across the round trip
    def work() -> None:
        warnings = put(tmp_path, *LAYER, rootless=True)
        assert len(warnings) == 3
        assert (
            os.getxattr(tmp_path / "hard", "user.rootlesscontainers")
            == b"\x08\xe8\x07\x10\xff\xff\xff\xff\x0f"
        )
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o555
        assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0
        null = (tmp_path / "null").stat()
        assert (stat.S_ISREG(null.st_mode), stat.S_IMODE(null.st_mode), null.st_size) == (
            True,
            0,
            0,
        )
        with RootFS(tmp_path, Options(rootless=True)) as root:
            assert list(root.diff(root.snapshot())) == []
            # Without digests the ctime counts, and to look at "secret" or "null" is to change theirs.
            assert list(root.diff(root.snapshot(digests=False))) == []
        entries = {
            entry.name: entry for entry in TarReader(io.BytesIO(take(tmp_path, rootless=True)))
        }
        owners = {name: (entry.uid, entry.gid) for name, entry in entries.items()}
        assert owners[b"d/f"] == (1000, 0)
        assert owners[b"secret"] == (0, 42)
        assert owners[b"d/"] == (1, 1)
        assert entries[b"hard"].type is EntryType.HARDLINK
        assert entries[b"closed/"].mode == 0
        assert b"closed/in" in entries
        assert entries[b"cap"].xattrs == {b"security.capability": V2}
        assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0

    as_nobody(tmp_path, work)


@needs_root
def test_later_layers_reach_into_closed_directories(tmp_path: Path) -> None:
    def work() -> None:
        put(tmp_path, *LAYER, rootless=True)
        put(
            tmp_path,
            file("closed/more", b"1"),
            file("closed/.wh.in"),
            file("d/.wh.f"),
            file("d/e/f"),
            rootless=True,
        )
        assert stat.S_IMODE((tmp_path / "closed").stat().st_mode) == 0
        assert sorted(os.listdir(tmp_path / "d")) == ["e"]
        put(
            tmp_path, folder("d", mode=0o500), file("d/e/g"), folder("d", mode=0o755), rootless=True
        )
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o755
        put(tmp_path, file(".wh.closed"), file("d", b"now a file"), rootless=True)
        assert not (tmp_path / "closed").exists()
        assert (tmp_path / "d").read_bytes() == b"now a file"

    as_nobody(tmp_path, work)


@needs_root
def test_without_rootless_what_is_refused_is_told_with_advice(tmp_path: Path) -> None:
    def work() -> None:
        for member in (file("f", uid=0, gid=0), char("n", device=(1, 3), uid=NOBODY, gid=NOBODY)):
            try:
                put(tmp_path, member)
            except StorageError as error:
                assert "operation not permitted" in str(error)  # noqa: PT017
                assert error.hint  # noqa: PT017
            else:
                raise AssertionError(member)

    as_nobody(tmp_path, work)


@needs_root
def test_a_new_root_that_fails_is_removed_by_nobody_too(tmp_path: Path) -> None:
    def work() -> None:
        try:
            with RootFS.create(tmp_path / "root", Options(rootless=True)):
                put(tmp_path / "root", *LAYER, file("x/.wh."), rootless=True)
        except InvalidLayerError:
            pass
        assert not (tmp_path / "root").exists()

    as_nobody(tmp_path, work)


def test_owners_are_written_as_umoci_writes_them() -> None:
    assert encode_owner(0, 0) is None
    for owner in ((1000, 1000), (0, 5), (1 << 31, 0), (1, (1 << 32) - 2)):
        message = encode_owner(*owner)
        assert message is not None
        assert decode_owner(message) == owner
    assert decode_owner(b"\x10\x05") == (0, 5)
    assert decode_owner(b"\x08\x07\x18\x01") == (7, 0)


@pytest.mark.parametrize("message", [b"\x08", b"\x0a\x01x", b"\xff" * 12, b"\x08\x80"])
def test_messages_that_are_none_are_refused(message: bytes) -> None:
    with pytest.raises(InvalidLayerError, match=r"user\.rootlesscontainers"):
        decode_owner(message)


def test_capabilities_are_bound_to_the_root_of_a_mapped_tree() -> None:
    assert capability_to_disk(V2, 0) == V2
    assert capability_to_disk(V2, 1000) == V3
    assert capability_to_layer(V3, 1000) == V2
    assert capability_to_layer(V3, 2000) == V3
    assert capability_to_layer(V2, 1000) == V2
    assert capability_to_disk(b"odd", 1000) == b"odd"


@needs_root
def test_a_capability_survives_an_id_map(tmp_path: Path) -> None:
    from argosy.layer.idmap import IdMap

    ids = IdMap.parse("0:1000:10")
    os.chown(tmp_path, 1000, 1000)
    put(tmp_path, file("f", xattrs={b"security.capability": V2}), uids=ids, gids=ids)
    assert os.getxattr(tmp_path / "f", "security.capability") == V3
    entries = {e.name: e for e in TarReader(io.BytesIO(take(tmp_path, uids=ids, gids=ids)))}
    assert entries[b"f"].xattrs == {b"security.capability": V2}
