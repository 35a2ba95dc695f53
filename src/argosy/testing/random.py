"""Images made from a seed: the same seed gives the same bytes, on every machine and every run."""

from __future__ import annotations

import gzip
import io
import json
import random as _random
import tarfile
from collections.abc import Sequence

from argosy.content.protocols import Target
from argosy.spec import mediatypes
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ExecutionParameters, History, ImageConfig, LayerStack
from argosy.spec.manifest import Index, Manifest
from argosy.spec.platform import Platform

_PLATFORMS = (
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/s390x",
    "linux/ppc64le",
    "linux/riscv64",
)


def layer_tar(seed: int, *, files: int = 3, size: int = 2000) -> bytes:
    """An uncompressed layer: a directory with some files of random bytes.

    Args:
        seed: What decides every byte.
        files: How many files.
        size: The most bytes a file has.
    """
    rng = _random.Random(seed)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo(f"dir{seed % 7}")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        for number in range(files):
            data = rng.randbytes(rng.randint(0, size))
            entry = tarfile.TarInfo(f"dir{seed % 7}/file{number}")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, rng.randint(0, 1 << 31)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def image(
    store: Target,
    seed: int,
    *tags: str,
    layers: int = 2,
    platform: str = "linux/amd64",
    subject: Descriptor | None = None,
    docker: bool = False,
    size: int = 2000,
) -> Descriptor:
    """Push an image with gzip layers.

    Args:
        store: Where it goes.
        seed: What decides every byte.
        tags: Its tags.
        layers: How many layers.
        platform: Its platform, as `Platform.parse` reads it.
        subject: What it refers to, if anything.
        docker: Use Docker's media types.
        size: The most bytes a file of a layer has.

    Returns:
        The manifest's descriptor.
    """
    name = mediatypes.to_docker if docker else (lambda media_type: media_type)
    where = Platform.parse(platform)
    stack, diff_ids = [], []
    for number in range(layers):
        plain = layer_tar(seed * 1000 + number, size=size)
        diff_ids.append(Digest.of(plain))
        stack.append(
            _push(store, name(mediatypes.OCI_LAYER_GZIP), gzip.compress(plain, 6, mtime=0))
        )
    config = ImageConfig(
        created="1970-01-01T00:00:00Z",
        architecture=where.architecture,
        os=where.os,
        variant=where.variant,
        config=ExecutionParameters(env=(f"SEED={seed}",), cmd=("/bin/true",)),
        rootfs=LayerStack(type="layers", diff_ids=tuple(diff_ids)),
        history=tuple(History(created_by=f"layer {n}") for n in range(layers)),
    )
    manifest = Manifest(
        media_type=name(mediatypes.OCI_MANIFEST),
        config=_push(store, name(mediatypes.OCI_CONFIG), config.encode()),
        layers=tuple(stack),
        subject=subject,
    )
    return _push(store, manifest.media_type, manifest.encode(), tags)


def index(
    store: Target,
    seed: int,
    *tags: str,
    platforms: Sequence[str] = _PLATFORMS[:2],
    nested: bool = False,
) -> Descriptor:
    """Push an index with an image a platform; `nested` puts one more index around it.

    Returns:
        The (outer) index's descriptor.
    """
    entries = []
    for number, platform in enumerate(platforms):
        desc = image(store, seed * 100 + number, platform=platform)
        entries.append(
            Descriptor(
                media_type=desc.media_type,
                digest=desc.digest,
                size=desc.size,
                platform=Platform.parse(platform),
            )
        )
    raw = Index(manifests=tuple(entries)).encode()
    if not nested:
        return _push(store, mediatypes.OCI_INDEX, raw, tags)
    inner = _push(store, mediatypes.OCI_INDEX, raw)
    return _push(store, mediatypes.OCI_INDEX, Index(manifests=(inner,)).encode(), tags)


def artifact(
    store: Target,
    seed: int,
    *tags: str,
    subject: Descriptor | None = None,
    kind: str = "application/x.example",
) -> Descriptor:
    """Push an artifact: an empty config and one small JSON layer.

    Returns:
        The manifest's descriptor.
    """
    _push(store, mediatypes.OCI_EMPTY, b"{}")
    layer = _push(store, f"{kind}+json", json.dumps({"seed": seed}).encode())
    manifest = Manifest(
        artifact_type=kind,
        config=EMPTY,
        layers=(layer,),
        subject=subject,
        annotations={"org.example.seed": str(seed)},
    )
    return _push(store, manifest.media_type, manifest.encode(), tags)


def _push(store: Target, media_type: str, data: bytes, tags: Sequence[str] = ()) -> Descriptor:
    desc = Descriptor.of(media_type, data)
    store.push(desc, io.BytesIO(data), tags=tags)
    return desc
