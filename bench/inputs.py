"""What benchmarks work on: made from numbers, the same on every machine, without a network."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from harness import Stage, once

from argosy.layer.compressor import Compressor
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarwriter import TarWriter
from argosy.layout.store import LayoutStore
from argosy.spec.digest import Digest
from argosy.testing import random as content

OCI = "application/vnd.oci.image."
TREES = (("usr0", 7_000, 300 << 20), ("usr1", 59_000, 800 << 20))
"""Two layers, each with its top directory, its entries and its bytes: one as debootstrap makes, one of small files."""


def trees(stage: Stage) -> Path:
    """A directory with a layout `image` (tag `latest`) and its layers uncompressed, `layer0.tar` and `layer1.tar`."""
    return once(stage.work / "trees", lambda path: _trees(path, stage.size(1, 20)))


def opaque(stage: Stage) -> Path:
    """A layout of an image `v1` with two layers, 370 MB in all, that do not compress."""
    return once(
        stage.work / "opaque", lambda path: _opaque(path, stage.size(370_000_000, 40_000_000), 2)
    )


def huge(stage: Stage) -> Path:
    """A layout of an image `v1` with one layer of a gigabyte."""
    return once(stage.work / "huge", lambda path: _opaque(path, stage.size(10**9, 10**8), 1))


def small(stage: Stage) -> Path:
    """A layout of many small things: an index of ten images (`index`), and twenty images of three layers."""
    return once(stage.work / "small", _small)


def _small(path: Path) -> None:
    images = LayoutStore.create(path)
    platforms = [
        f"linux/{name}" for name in ("amd64", "arm64", "386", "s390x", "ppc64le", "riscv64")
    ]
    platforms += [f"linux/arm/v{number}" for number in (5, 6, 7, 8)]
    content.index(images, 1, "index", platforms=platforms)
    for number in range(20):
        content.image(images, 100 + number, f"v{number}", layers=3)


def pool(rng: random.Random) -> bytes:
    """Sixteen megabytes that compress about as well as programs and their texts do."""
    words = [bytes(rng.choices(b"etaoinshrdlucmfw_", k=rng.randint(2, 9))) for _ in range(4000)]
    parts = []
    for _ in range(256):
        parts.append(b" ".join(rng.choices(words, k=6_000))[:40_000])
        parts.append(rng.randbytes(8_000) + bytes(4_000) + bytes(rng.choices(range(64), k=13_000)))
    return b"".join(parts)


def entries(
    rng: random.Random, top: str, count: int, total: int, data: bytes
) -> Iterator[tuple[Entry, bytes]]:
    """Directories of about nine files each; sizes as a log-normal, scaled to the total."""
    sizes = [rng.lognormvariate(7.5, 2.0) for _ in range(count * 8 // 10)]
    scale = total / sum(sizes)
    made, library, folder = 0, b"", b""
    for number in range(count):
        kind = number % 10
        if number % 400 == 0:
            library = f"{top}/lib{number // 400}".encode()
            yield _directory(library), b""
        if kind == 0:
            folder = library + b"/package-%d" % (number // 10)
            yield _directory(folder), b""
        elif kind == 1:
            yield _link(folder + b"/link-%d" % number, b"file-%d" % (number + 1)), b""
        else:
            body = _body(rng, data, min(int(sizes[made % len(sizes)] * scale), 40 << 20))
            made += 1
            name = folder + b"/file-%d" % number
            yield Entry(name=name, size=len(body), mode=0o644, mtime=10**18), body


def _directory(name: bytes) -> Entry:
    return Entry(name=name + b"/", type=EntryType.DIRECTORY, mode=0o755, mtime=10**18)


def _link(name: bytes, target: bytes) -> Entry:
    return Entry(name=name, type=EntryType.SYMLINK, mode=0o777, linkname=target, mtime=10**18)


def _body(rng: random.Random, data: bytes, size: int) -> bytes:
    start = rng.randrange(len(data))
    body = data[start : start + size]
    while len(body) < size:
        body += data[: size - len(body)]
    return body


def _trees(work: Path, shrink: int) -> None:
    layout = Layout(work / "image")
    rng = random.Random(20)
    data = pool(rng)
    for number, (top, count, total) in enumerate(TREES):
        blob = work / "blob"
        with (
            blob.open("wb") as out,
            Compressor(out) as packed,
            (work / f"layer{number}.tar").open("wb") as plain,
            TarWriter(packed) as tar,
            TarWriter(plain) as twin,
        ):
            for entry, body in entries(rng, top, count // shrink, total // shrink, data):
                tar.add(entry, [body])
                twin.add(entry, [body])
        written = packed.written
        layout.layer(blob, written.digest, written.size, written.diff_id, "+gzip")
    layout.close("latest")


def _opaque(work: Path, size: int, count: int) -> None:
    layout = Layout(work)
    rng = random.Random(21)
    for share in ((1.0,), (0.3, 0.7))[count - 1]:
        blob = work / "blob"
        _fill(blob, rng, int(size * share))
        with blob.open("rb") as file:
            digest = Digest("sha256:" + _sha256(file.fileno()))
        layout.layer(blob, digest, blob.stat().st_size, digest, "")
    layout.close("v1")


def _sha256(fd: int) -> str:
    import hashlib

    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Layout:
    """An OCI image layout with one image, written by hand: no tool that is measured makes another's input."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layers: list[dict[str, object]] = []
        self.diff_ids: list[str] = []
        (path / "blobs/sha256").mkdir(parents=True)

    def layer(self, file: Path, digest: Digest, size: int, diff_id: Digest, suffix: str) -> None:
        """Take a file as the next layer."""
        os.rename(file, self.path / "blobs/sha256" / digest.encoded)
        kind = f"{OCI}layer.v1.tar{suffix}"
        self.layers.append({"mediaType": kind, "digest": str(digest), "size": size})
        self.diff_ids.append(str(diff_id))

    def put(self, kind: str, document: object) -> dict[str, object]:
        """Store a document, and describe it."""
        raw = json.dumps(document).encode()
        digest = Digest.of(raw)
        (self.path / "blobs/sha256" / digest.encoded).write_bytes(raw)
        return {"mediaType": f"{OCI}{kind}.v1+json", "digest": str(digest), "size": len(raw)}

    def close(self, tag: str) -> None:
        """Write configuration, manifest and index."""
        stack = {"type": "layers", "diff_ids": self.diff_ids}
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": stack}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}manifest.v1+json",
            "config": self.put("config", config),
            "layers": self.layers,
        }
        entry = self.put("manifest", manifest)
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        index = {"schemaVersion": 2, "manifests": [entry]}
        (self.path / "index.json").write_text(json.dumps(index))
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def layers(layout: Path) -> list[str]:
    """The paths of an image's layers, lowest first."""
    blobs = layout / "blobs/sha256"
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    return [str(blobs / layer["digest"][7:]) for layer in manifest["layers"]]


def _fill(path: Path, rng: random.Random, size: int) -> None:
    """Random bytes, a piece at a time: `randbytes` has a limit, and memory too."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(rng.randbytes(min(size, 1 << 24)))
