"""Copying does not hold content in memory: a layer of a gibibyte takes less than 80 MB."""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys
import textwrap

import pytest

from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from tests.layout.places import TAG, TRANSPORTS

GIBIBYTE = 1 << 30
LIMIT = 80_000  # KiB

COPY = """
    import sys
    from argosy.content.copy import copy
    from argosy.layout.store import LayoutStore
    from tests.layout.places import peak, reading, writing
    source, transport, path, tag = sys.argv[1:]
    with writing(transport, path) as target:
        root = copy(LayoutStore.open(source), "v1", target, tag)
    with reading(transport, path) as place:
        assert place.resolve("@0").digest == root.digest
    print(peak())
"""


@pytest.fixture(scope="module")
def gibibyte(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A layout with one layer of a gibibyte of zeros, which takes no room."""
    folder = tmp_path_factory.mktemp("gibibyte")
    store = LayoutStore.create(folder)
    made, piece = hashlib.sha256(), bytes(1 << 20)
    for _ in range(GIBIBYTE >> 20):
        made.update(piece)
    digest = Digest(f"sha256:{made.hexdigest()}")
    layer = Descriptor(media_type=mediatypes.OCI_LAYER, digest=digest, size=GIBIBYTE)
    for desc, data in ((layer, b""), (EMPTY, b"{}")):
        path = pathlib.Path(store.blobs.path_of(desc.digest))
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as out:
            out.write(data)
            out.truncate(desc.size)
    manifest = Manifest(artifact_type="application/x.example", config=EMPTY, layers=(layer,))
    raw = manifest.encode()
    path = folder / "manifest"
    path.write_bytes(raw)
    with path.open("rb") as content:
        store.push(Descriptor.of(manifest.media_type, raw), content, tags=["v1"])
    return folder


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_copying_a_gibibyte_stays_under_80_megabytes(
    gibibyte: pathlib.Path, tmp_path: pathlib.Path, transport: str
) -> None:
    target = tmp_path / "target"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COPY), str(gibibyte), transport, str(target), TAG],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
    )
    subprocess.run(["rm", "-rf", str(target)], check=True)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < LIMIT
