"""Layers other people's tools have made, applied by us and by umoci, must make one and the same tree."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.layer.compression import uncompressed
from argosy.layer.rootfs import RootFS
from argosy.layer.tarstream import TarReader
from argosy.layer.tree import MergedTree
from argosy.spec.digest import Digest
from tests.layer.making import gzip, listing, needs_root

KIND = "application/vnd.oci.image."
ARCHIVES = (
    "docker-save-14-layers.tar",
    "docker-save-v25-hello-world.tar",
    "bazel-two-images.tar",
    "kaniko-image.tar",
    "buildkit-oci-zstd.tar",
    "buildkit-oci-estargz.tar",
)
IMAGES = ("alpine-minirootfs-3.20.3-x86_64.tar.gz", "busybox", *ARCHIVES)


def images_in(path: Path) -> list[list[bytes]]:
    """The layers of every image in a file or folder, as they are stored."""
    if path.is_dir():
        return _layout(lambda name: (path / name).read_bytes())
    if path.name.endswith(".tar.gz"):
        return [[path.read_bytes()]]
    with tarfile.open(path) as archive:

        def read(name: str) -> bytes:
            member = archive.getmember(name)
            while member.issym():  # docker save links equal layers
                member = archive.getmember(str(Path(member.name).parent / member.linkname))
            found = archive.extractfile(member)
            assert found is not None
            return found.read()

        if "manifest.json" in archive.getnames():
            return [
                [read(layer) for layer in image["Layers"]]
                for image in json.loads(read("manifest.json"))
            ]
        return _layout(read)


def _layout(read: Callable[[str], bytes]) -> list[list[bytes]]:
    found: list[list[bytes]] = []
    pending = [json.loads(read("index.json"))]
    while pending:
        document = pending.pop()
        if "layers" in document:
            found.append(
                [read(_blob(layer)) for layer in document["layers"] if "tar" in layer["mediaType"]]
            )
        for manifest in document.get("manifests", ()):
            try:
                pending.append(json.loads(read(_blob(manifest))))
            except (KeyError, FileNotFoundError):
                continue  # an index may name what the archive leaves out
    return found


def _blob(descriptor: dict[str, str]) -> str:
    return "blobs/" + descriptor["digest"].replace(":", "/")


def make_layout(path: Path, layers: list[bytes]) -> None:
    """An OCI layout with the tag `it`, whose layers are gzip, as this umoci wants them."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def put(raw: bytes, media_type: str) -> dict[str, object]:
        (blobs / Digest.of(raw).encoded).write_bytes(raw)
        return {"mediaType": KIND + media_type, "digest": Digest.of(raw), "size": len(raw)}

    plain = [b"".join(uncompressed(io.BytesIO(layer))) for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer) for layer in plain]},
    }
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "config.v1+json"),
        "layers": [put(gzip(layer), "layer.v1.tar+gzip") for layer in plain],
    }
    tagged = put(json.dumps(manifest).encode(), "manifest.v1+json")
    tagged["annotations"] = {"org.opencontainers.image.ref.name": "it"}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [tagged]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@needs_root
@pytest.mark.peer
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_unpacks_as_umoci_unpacks_it(
    name: str, images: Path, peer: Callable[[str], str], tmp_path: Path
) -> None:
    umoci = peer("umoci")
    found = images_in(images / name)
    assert found
    for number, layers in enumerate(found):
        layout, theirs, ours = (
            tmp_path / f"{what}{number}" for what in ("layout", "theirs", "ours")
        )
        make_layout(layout, layers)
        subprocess.run(
            [umoci, "raw", "unpack", "--image", f"{layout}:it", theirs],
            check=True,
            capture_output=True,
        )
        with RootFS.create(ours) as root:
            for layer in layers:
                root.apply(io.BytesIO(layer))
        assert listing(ours) == listing(theirs)


@needs_root
@pytest.mark.parametrize("name", IMAGES)
def test_the_tree_in_memory_has_what_the_tree_on_disk_has(
    name: str, images: Path, tmp_path: Path
) -> None:
    for number, layers in enumerate(images_in(images / name)):
        tree = MergedTree()
        with RootFS.create(tmp_path / str(number)) as root:
            for layer in layers:
                root.apply(io.BytesIO(layer))
                tree.lay(TarReader(uncompressed(io.BytesIO(layer))))
        on_disk = listing(tmp_path / str(number))
        names = {path.decode(): node for path, node in tree.walk()}
        assert sorted(names) == sorted(set(on_disk) - {"."})
        for path, node in names.items():
            mode, uid, gid, *_, mtime = on_disk[path]
            entry = node.entry
            wanted = oct(entry.mode) if not path.startswith("l") else None
            if wanted and not (tmp_path / str(number) / path).is_symlink():
                assert int(str(mode), 8) & 0o7777 == entry.mode
            assert (uid, gid, mtime) == (entry.uid, entry.gid, entry.mtime // 10**9)


def test_a_whole_distribution_is_written_and_read_the_same(images: Path, tmp_path: Path) -> None:
    layer = (images / "alpine-minirootfs-3.20.3-x86_64.tar.gz").read_bytes()
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    if one.stat().st_uid:
        pytest.skip("needs root: the layer's owners")
    out = io.BytesIO()
    with RootFS(one) as root, RootFS(two) as other:
        root.apply(io.BytesIO(layer))
        root.write_layer(root.diff(), out)
        other.apply(io.BytesIO(out.getvalue()))
    assert listing(one) == listing(two)
