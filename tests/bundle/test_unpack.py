from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import stat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.bundle.bundle import Bundle, Metadata, mtree_name
from argosy.bundle.mtree import mtree, read_mtree, unvis, vis
from argosy.bundle.repack import base_of, differences, refresh, repack
from argosy.bundle.unpack import unpack, unpack_rootfs
from argosy.bundle.validate import problems
from argosy.content.memory import MemoryStore
from argosy.errors import (
    ConflictError,
    DigestMismatchError,
    InvalidConfigError,
    InvalidLayerError,
    StorageError,
    UnsupportedError,
)
from argosy.image.configure import Changes
from argosy.image.derive import derive, mutate
from argosy.image.view import Image
from argosy.layer.diff import ChangeKind
from argosy.layer.entry import Entry, EntryType
from argosy.layer.idmap import IdMap
from argosy.layer.options import Options
from argosy.layer.snapshot import Inode, Snapshot
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ImageConfig, LayerStack
from argosy.spec.manifest import Manifest
from argosy.testing import random
from tests.image.kit import all_proved, file, folder, image_of, link, names, tar_of

ROOT = os.geteuid() == 0
OPTIONS = Options(rootless=not ROOT)
PASSWD = b"root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\n"
BASE = tar_of(
    folder("etc/"), file("etc/passwd", PASSWD), file("etc/group", b"log:x:4:www\n"),
    folder("data/"), file("data/x", b"1"), file("old", b"2"),
)  # fmt: skip
UPPER = tar_of(file(".wh.old"), file("new", b"3", mode=0o600), link("l", "/etc/passwd"))


@pytest.fixture
def image() -> Image:
    return image_of(BASE, UPPER, user="www", volumes=["/data"], cmd=["sh"])


def test_a_bundle_holds_root_file_system_and_configuration(
    tmp_path: pathlib.Path, image: Image
) -> None:
    bundle = unpack(image, str(tmp_path / "b"), OPTIONS)
    assert sorted(os.listdir(bundle.rootfs)) == ["data", "etc", "l", "new"]
    assert stat.S_IMODE(os.stat(bundle.path).st_mode) == 0o700
    config = bundle.config()
    assert config["root"]["path"] == "rootfs"
    if ROOT:
        assert config["process"]["user"] == {"uid": 33, "gid": 34, "additionalGids": [4]}
        assert "HOME=/srv" in config["process"]["env"]
    assert list(problems(bundle.path)) == []


def test_a_failed_unpack_removes_what_it_made(tmp_path: pathlib.Path, image: Image) -> None:
    stack = image.config.rootfs
    wrong = derive(
        image,
        config=dataclasses.replace(
            image.config,
            rootfs=dataclasses.replace(stack, diff_ids=(stack.diff_ids[0], Digest.of(b"x"))),
        ),
    )
    with pytest.raises(DigestMismatchError, match="layer 1"):
        unpack(wrong, str(tmp_path / "b"), OPTIONS)
    with pytest.raises(DigestMismatchError):
        unpack_rootfs(wrong, str(tmp_path / "r"), OPTIONS)
    with pytest.raises(InvalidConfigError):
        unpack(mutate(image, Changes(user="nobody-here")), str(tmp_path / "b"), OPTIONS)
    assert os.listdir(tmp_path) == []


def test_a_failed_unpack_leaves_a_directory_that_was_there(
    tmp_path: pathlib.Path, image: Image
) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(InvalidConfigError):
        unpack(mutate(image, Changes(user="nobody-here")), str(tmp_path), OPTIONS)
    assert os.listdir(tmp_path) == ["mine"]


def test_a_bundle_is_not_unpacked_over_another(tmp_path: pathlib.Path, image: Image) -> None:
    unpack(image, str(tmp_path / "b"), OPTIONS)
    with pytest.raises(StorageError, match="exists already"):
        unpack(image, str(tmp_path / "b"), OPTIONS)
    assert Bundle.open(str(tmp_path / "b")).metadata.manifest == image.descriptor


def test_a_layer_that_breaks_a_rule_is_named(tmp_path: pathlib.Path) -> None:
    bad = image_of(BASE, tar_of(Entry(name=b"x", type=EntryType.HARDLINK, linkname=b"absent")))
    with pytest.raises(InvalidLayerError, match=r"layer 1 .*'x'.*absent"):
        unpack(bad, str(tmp_path / "b"), OPTIONS)


def test_an_artifact_is_not_unpacked(tmp_path: pathlib.Path) -> None:
    store = MemoryStore()
    with pytest.raises(UnsupportedError):
        unpack(Image(source=store, descriptor=random.artifact(store, 1)), str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_metadata_reads_what_umoci_writes() -> None:
    raw = {
        "umoci_version": "2",
        "from_descriptor_path": {
            "descriptor_walk": [
                {"mediaType": mediatypes.OCI_MANIFEST, "digest": str(Digest.of(b"x")), "size": 1}
            ]
        },
        "map_options": {
            "uid_mappings": [{"hostID": 1000, "containerID": 0, "size": 1}],
            "gid_mappings": None,
            "rootless": True,
        },
        "whiteout_mode": 0,
    }
    found = Metadata.decode(json.dumps(raw).encode())
    assert found.uids == IdMap.parse("0:1000:1")
    assert found.rootless
    assert json.loads(found.encode()) == raw


@pytest.mark.parametrize(
    "raw",
    [b"{}", b"[]", b'{"umoci_version":"1"}', b'{"umoci_version":"2"}',
     b'{"umoci_version":"2","from_descriptor_path":{"descriptor_walk":[]},"map_options":{}}'],
)  # fmt: skip
def test_damaged_metadata_is_an_error(raw: bytes) -> None:
    with pytest.raises(InvalidConfigError):
        Metadata.decode(raw)


def _unpacked(tmp_path: pathlib.Path, image: Image) -> Bundle:
    return unpack(image, str(tmp_path / "b"), OPTIONS)


def test_repacking_an_unchanged_bundle_gives_the_same_image(
    tmp_path: pathlib.Path, image: Image
) -> None:
    assert repack(_unpacked(tmp_path, image), image).digest == image.digest


def test_what_changed_becomes_a_layer(tmp_path: pathlib.Path, image: Image) -> None:
    bundle = _unpacked(tmp_path, image)
    root = pathlib.Path(bundle.rootfs)
    (root / "etc/motd").write_text("hi")
    (root / "new").unlink()
    assert {(c.kind.value, c.path) for c in differences(bundle) if c.path} == {
        ("deleted", b"new"),
        ("modified", b"etc"),
        ("added", b"etc/motd"),
    }
    made = repack(bundle, image)
    assert {"etc/motd", ".wh.new"} <= set(names(made))
    assert not all_proved(made)
    again = unpack(made, str(tmp_path / "again"), OPTIONS)
    assert sorted(os.listdir(again.rootfs)) == ["data", "etc", "l"]


def test_volumes_and_masked_paths_are_left_out(tmp_path: pathlib.Path, image: Image) -> None:
    bundle = _unpacked(tmp_path, image)
    root = pathlib.Path(bundle.rootfs)
    (root / "data/y").write_text("volume")
    (root / "etc/secret").write_text("masked")
    (root / "seen").write_text("seen")
    made = names(repack(bundle, image, masks=["/etc"]))
    assert "seen" in made
    assert not [name for name in made if name.startswith(("data/", "etc/"))]
    assert "data/y" in names(repack(bundle, image, mask_volumes=False))


def test_a_refreshed_bundle_is_compared_with_what_it_holds_now(
    tmp_path: pathlib.Path, image: Image
) -> None:
    bundle = _unpacked(tmp_path, image)
    (pathlib.Path(bundle.rootfs) / "one").write_text("1")
    made = repack(bundle, image)
    bundle = refresh(bundle, made)
    assert Bundle.open(bundle.path).metadata.manifest.digest == made.digest
    assert repack(bundle, made).digest == made.digest
    (pathlib.Path(bundle.rootfs) / "two").write_text("2")
    assert "one" not in names(repack(bundle, made))


def test_a_bundle_of_another_image_is_refused(tmp_path: pathlib.Path, image: Image) -> None:
    bundle = _unpacked(tmp_path, image)
    with pytest.raises(ConflictError, match="unpacked from"):
        repack(bundle, mutate(image, Changes(user="33")))
    assert base_of(bundle, image.source).digest == image.digest


def test_a_repacked_layer_has_no_time_after_the_epoch(tmp_path: pathlib.Path, image: Image) -> None:
    bundle = _unpacked(tmp_path, image)
    (pathlib.Path(bundle.rootfs) / "one").write_text("1")
    one = repack(bundle, image, epoch=10)
    (pathlib.Path(bundle.rootfs) / "one").write_text("1")
    assert repack(bundle, image, epoch=10).digest == one.digest


def test_what_is_wrong_with_a_bundle_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "b").mkdir(mode=0o755)
    (tmp_path / "b/config.json").write_text('{"ociVersion": 1, "process": {"cwd": 2}}')
    (tmp_path / "b/umoci.json").write_text("{}")
    (tmp_path / "b/argosy.snapshot").write_text("nothing")
    found = "\n".join(problems(str(tmp_path / "b")))
    for word in ("0755", "ociVersion", "process.cwd", "umoci_version"):
        assert word in found
    assert "no such file" in "\n".join(problems(str(tmp_path / "absent")))


@pytest.mark.skipif(not ROOT, reason="root: needs root to give files away")
def test_id_maps_decide_whose_files_they_are_and_come_back(tmp_path: pathlib.Path) -> None:
    image = image_of(tar_of(folder("home/", uid=1, gid=2), file("home/a", b"x", uid=1, gid=2)))
    options = Options(uids=IdMap.parse("0:5000:10"), gids=IdMap.parse("0:6000:10"))
    bundle = unpack(image, str(tmp_path / "b"), options)
    status = os.stat(os.path.join(bundle.rootfs, "home/a"))
    assert (status.st_uid, status.st_gid) == (5001, 6002)
    assert bundle.config()["linux"]["uidMappings"] == [
        {"containerID": 0, "hostID": 5000, "size": 10}
    ]
    assert repack(bundle, image).digest == image.digest


def test_a_bundle_of_umoci_is_packed_by_its_mtree(tmp_path: pathlib.Path, image: Image) -> None:
    bundle = unpack(image, str(tmp_path / "b"), OPTIONS, for_umoci=True)
    os.unlink(tmp_path / "b/argosy.snapshot")
    assert repack(bundle, image).digest == image.digest
    (tmp_path / "b/rootfs/new").write_bytes(b"4")
    os.utime(tmp_path / "b/rootfs/new", (0, 0))
    assert {c.path for c in differences(bundle)} == {b"new"}
    with open(tmp_path / "b" / mtree_name(image.descriptor), "ab") as out:
        out.write(b"broken type=what\n")
    with pytest.raises(InvalidConfigError, match="line"):
        list(differences(bundle))


def test_a_bundle_that_umoci_refreshed_is_packed_by_the_new_mtree(
    tmp_path: pathlib.Path, image: Image
) -> None:
    bundle = unpack(image, str(tmp_path / "b"), OPTIONS, for_umoci=True)
    (tmp_path / "b/rootfs/x").write_bytes(b"x")
    made = repack(bundle, image)
    with bundle.root() as root:  # what umoci repack --refresh-bundle leaves
        now = mtree(root.snapshot(digests=True))
    (tmp_path / "b" / mtree_name(made.descriptor)).write_bytes(now)
    metadata = dataclasses.replace(bundle.metadata, walk=(made.descriptor,))
    (tmp_path / "b/umoci.json").write_bytes(metadata.encode())
    before = os.stat(tmp_path / "b/rootfs").st_mtime_ns
    os.unlink(tmp_path / "b/rootfs/x")
    os.utime(tmp_path / "b/rootfs", ns=(before, before))  # or another second may have begun
    refreshed = Bundle.open(str(tmp_path / "b"))
    assert [(c.path, c.kind) for c in differences(refreshed)] == [(b"x", ChangeKind.DELETED)]
    assert names(repack(refreshed, made))[-1] == ".wh.x"
    os.unlink(tmp_path / "b" / mtree_name(made.descriptor))
    with pytest.raises(ConflictError, match=f"is of {image.digest}, and the bundle of"):
        repack(refreshed, made)


def test_a_snapshot_that_does_not_say_whose_it_is_is_the_bundles(
    tmp_path: pathlib.Path, image: Image
) -> None:
    bundle = _unpacked(tmp_path, image)
    kept = tmp_path / "b/argosy.snapshot"
    kept.write_bytes(kept.read_bytes().partition(b"\n")[2])
    assert repack(bundle, image).digest == image.digest


@given(st.binary(max_size=40))
def test_names_survive_mtree(name: bytes) -> None:
    assert unvis(vis(name).encode()) == name


def _inode(mode: int, number: int, **more: Any) -> Inode:
    return Inode(mode, 0, 0, 0, 0, 0, 1, number, 1, 0, **more)


def test_an_mtree_says_what_umoci_says() -> None:
    empty = hashlib.sha256().digest()
    held = {
        b"": _inode(stat.S_IFDIR | 0o755, 1),
        b"closed": _inode(stat.S_IFREG, 2, digest=empty, xattrs={b"user.a": b"1"}),
        b"link": _inode(stat.S_IFLNK | 0o777, 3, target=b"x", xattrs={b"trusted.a": b"1"}),
    }
    raw = mtree(Snapshot(held))
    assert b" mode=0 " in raw  # not 00: umoci compares the text
    assert b"xattr.user.a=" in raw
    assert b"trusted" not in raw  # umoci looks at those of files and directories only
    assert read_mtree(raw, Snapshot(held)).inodes[b"link"].xattrs == {b"trusted.a": b"1"}
    assert unvis(rb"back\\slash\\040") == rb"back\slash\040"


@given(st.binary(max_size=200))
def test_a_damaged_mtree_is_an_error_or_read(raw: bytes) -> None:
    with contextlib.suppress(InvalidConfigError):
        read_mtree(raw, Snapshot({}))


def _uncompressed(store: MemoryStore, blob: bytes, said: Digest) -> Image:
    """An image of one layer whose blob is stored under `said`, which is its diff_id too."""
    layer = Descriptor(media_type=mediatypes.OCI_LAYER, digest=said, size=len(blob))
    store._content[said] = (layer, blob)
    stack = LayerStack(type="layers", diff_ids=(said,))
    config = store.add(
        mediatypes.OCI_CONFIG, ImageConfig(architecture="amd64", os="linux", rootfs=stack).encode()
    )
    manifest = Manifest(config=config, layers=(layer,))
    return Image(source=store, descriptor=store.add(mediatypes.OCI_MANIFEST, manifest.encode()))


def test_an_uncompressed_layer_is_hashed_once_and_still_proved(tmp_path: pathlib.Path) -> None:
    data = random.layer_tar(3)
    unpack_rootfs(
        _uncompressed(MemoryStore(), data, Digest.of(data)), str(tmp_path / "good"), OPTIONS
    )
    assert list((tmp_path / "good").iterdir())
    damaged = bytearray(data)
    damaged[600] ^= 1
    image = _uncompressed(MemoryStore(), bytes(damaged), Digest.of(data))
    with pytest.raises((DigestMismatchError, InvalidLayerError)):
        unpack_rootfs(image, str(tmp_path / "bad"), OPTIONS)
    assert not (tmp_path / "bad").exists()


def test_a_compressed_layer_cannot_pass_for_its_own_diff_id(tmp_path: pathlib.Path) -> None:
    data = gzip.compress(random.layer_tar(3))
    image = _uncompressed(MemoryStore(), data, Digest.of(data))
    with pytest.raises(InvalidLayerError):
        unpack_rootfs(image, str(tmp_path / "bad"), OPTIONS)
    assert not (tmp_path / "bad").exists()
