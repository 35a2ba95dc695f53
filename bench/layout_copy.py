"""Copying an image between places on disk: argosy's library and skopeo, in turns, as a ratio.

Run as `python bench/layout_copy.py [megabytes] [rounds]`. It needs skopeo on the path.
"""

from __future__ import annotations

import functools
import io
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from argosy.content.copy import copy
from argosy.layout.archive import OCIArchive
from argosy.layout.directory import DirectoryStore
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ImageConfig, LayerStack
from argosy.spec.manifest import Manifest

PLACES = {
    "oci": LayoutStore,
    "oci-archive": OCIArchive,
    "docker-archive": DockerArchive,
    "dir": DirectoryStore,
}
NAME = "docker.io/library/app:v1"


def make(store: LayoutStore, megabytes: int) -> None:
    """An image with two layers of bytes that do not compress."""
    layers, diff_ids = [], []
    for _ in range(2):
        data = os.urandom(megabytes << 19)
        layers.append(Descriptor.of(mediatypes.OCI_LAYER, data))
        diff_ids.append(Digest.of(data))
        store.push(layers[-1], io.BytesIO(data))
    stack = LayerStack(type="layers", diff_ids=tuple(diff_ids))
    raw = ImageConfig(architecture="amd64", os="linux", rootfs=stack).encode()
    config = Descriptor.of(mediatypes.OCI_CONFIG, raw)
    store.push(config, io.BytesIO(raw))
    manifest = Manifest(config=config, layers=tuple(layers))
    desc = Descriptor.of(manifest.media_type, manifest.encode())
    store.push(desc, io.BytesIO(manifest.encode()), tags=["v1"])


def ours(source: pathlib.Path, transport: str, target: pathlib.Path) -> None:
    """The copy by argosy."""
    with PLACES[transport].create(target) as place:  # type: ignore[attr-defined]
        copy(LayoutStore.open(source), "v1", place, NAME)


def theirs(source: pathlib.Path, transport: str, target: pathlib.Path) -> None:
    """The copy by skopeo."""
    where = f"{transport}:{target}" + ("" if transport == "dir" else f":{NAME}")
    subprocess.run(["skopeo", "copy", "-q", f"oci:{source}:v1", where], check=True)


def timed(action: Callable[[pathlib.Path], None], target: pathlib.Path) -> float:
    """Seconds it takes, its target removed afterwards."""
    begin = time.perf_counter()
    action(target)
    taken = time.perf_counter() - begin
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    return taken


def main(megabytes: int, rounds: int) -> None:
    """Print the medians and their ratio for every transport."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "source")
        make(LayoutStore.create(source), megabytes)
        for transport in PLACES:
            taken: dict[str, list[float]] = {"argosy": [], "skopeo": []}
            for _ in range(rounds):
                for name, action in (("argosy", ours), ("skopeo", theirs)):
                    run = functools.partial(action, source, transport)
                    taken[name].append(timed(run, pathlib.Path(folder, "target")))
            mine, peer = (statistics.median(taken[name]) for name in ("argosy", "skopeo"))
            print(
                f"{transport:15} argosy {mine:.2f} s  skopeo {peer:.2f} s  ratio {mine / peer:.2f}"
            )


if __name__ == "__main__":
    main(*(int(word) for word in [*sys.argv[1:3], *("200", "3")[len(sys.argv) - 1 :]]))
