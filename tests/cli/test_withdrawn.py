"""Artifact manifests as image-spec 1.1.0-rc2 had them: registries still keep signatures and SBOMs so."""

from __future__ import annotations

import io
import json
import pathlib
from collections.abc import Iterator

import pytest

from argosy.content.protocols import Target
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.annotations import TITLE
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import ArtifactManifest
from tests.cli.conftest import Run
from tests.server.process import Process

KIND = "application/x.sbom"


def withdrawn(store: Target, subject: Descriptor | None = None, tag: str = "") -> Descriptor:
    """One file, `sbom.txt`, as such an artifact."""
    blob = Descriptor.of("text/plain", b"sbom", annotations={TITLE: "sbom.txt"})
    store.push(blob, io.BytesIO(b"sbom"))
    made = ArtifactManifest(artifact_type=KIND, blobs=(blob,), subject=subject).encode()
    desc = Descriptor.of(mediatypes.OCI_ARTIFACT_MANIFEST, made)
    store.push(desc, io.BytesIO(made), tags=[tag] if tag else [])
    return desc


@pytest.fixture
def signed(layout: pathlib.Path) -> Descriptor:
    """An artifact that refers to the layout's image `v1`, and has the tag `old`."""
    with LayoutStore.open(str(layout)) as store:
        return withdrawn(store, store.resolve("v1").bare(), "old")


@pytest.fixture
def registry(tmp_path: pathlib.Path) -> Iterator[str]:
    process = Process(str(tmp_path / "registry"))
    yield f"127.0.0.1:{process.port}"
    process.stop()


def listed(argosy: Run, place: object) -> list[tuple[str, str]]:
    found = argosy("discover", "--json", place).json["referrers"]
    return [(entry["digest"], entry["artifactType"]) for entry in found]


def test_it_goes_with_its_image_to_a_registry_and_on(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, signed: Descriptor, registry: str
) -> None:
    last = f"oci:{layout}:v1"
    for place in (f"{registry}/a:v1", f"{registry}/b:v1", f"oci:{tmp_path}/back:v1"):
        argosy("cp", "-q", "--referrers", last, place)
        assert (signed.digest, KIND) in listed(argosy, place)
        last = place
    assert argosy("digest", f"oci:{tmp_path}/back@{signed.digest}").out.strip() == signed.digest
    argosy("validate", f"oci:{tmp_path}/back:v1")


def test_its_files_are_pulled(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, signed: Descriptor
) -> None:
    argosy("artifact", "pull", f"oci:{layout}:old", "-o", tmp_path / "out")
    assert (tmp_path / "out/sbom.txt").read_text() == "sbom"


def test_what_it_is_is_shown(argosy: Run, layout: pathlib.Path, signed: Descriptor) -> None:
    facts = argosy("inspect", "--json", f"oci:{layout}:old").json
    assert (facts["ArtifactType"], facts["Size"]) == (KIND, 4)
    assert KIND in argosy("inspect", f"oci:{layout}:old").out
    assert f"artifact {KIND}" in argosy("graph", f"oci:{layout}:old").out
    checked = argosy("validate", f"oci:{layout}:old")
    assert "was withdrawn" in checked.out


def test_an_index_may_list_it(argosy: Run, layout: pathlib.Path, signed: Descriptor) -> None:
    argosy("index", "create", f"oci:{layout}:v1", f"oci:{layout}:old", "-t", f"oci:{layout}:both")
    listed = argosy("inspect", "--json", f"oci:{layout}:both").json["Manifests"]
    assert [entry["ArtifactType"] for entry in listed] == [None, KIND]
    assert listed[1]["Size"] == signed.size + 4
    argosy("validate", f"oci:{layout}:both")


def test_it_is_put_and_copied_by_itself(
    argosy: Run, layout: pathlib.Path, tmp_path: pathlib.Path, signed: Descriptor, registry: str
) -> None:
    raw = argosy("manifest", "get", f"oci:{layout}:old").out
    (tmp_path / "manifest.json").write_text(raw)
    for place in (
        f"{registry}/one:old",
        f"dir:{tmp_path}/dir",
        f"oci-archive:{tmp_path}/a.tar:old",
    ):
        argosy("cp", "-q", f"oci:{layout}:old", place)
        assert argosy("manifest", "get", place).out == raw
    put = argosy("manifest", "put", f"{registry}/one:new", tmp_path / "manifest.json").out.strip()
    assert put == signed.digest


def test_a_registry_wants_its_blobs_first(
    argosy: Run, tmp_path: pathlib.Path, registry: str
) -> None:
    made = ArtifactManifest(blobs=(Descriptor.of("text/plain", b"not there"),)).encode()
    (tmp_path / "manifest.json").write_bytes(made)
    told = argosy("manifest", "put", f"{registry}/a:v1", tmp_path / "manifest.json", code=2).err
    assert "MANIFEST_BLOB_UNKNOWN" in told or "unknown" in told


@pytest.mark.parametrize("words", [("config",), ("unpack",), ("mutate", "-e", "A=1"), ("history",)])
def test_what_only_an_image_has_is_refused_with_the_reason(
    argosy: Run,
    layout: pathlib.Path,
    tmp_path: pathlib.Path,
    signed: Descriptor,
    words: tuple[str, ...],
) -> None:
    verb, *options = words
    more = [str(tmp_path / "out")] if verb == "unpack" else []
    told = argosy(verb, *options, f"oci:{layout}:old", *more, code=1).err
    assert "is an artifact" in told
    assert json.loads(argosy("manifest", "get", f"oci:{layout}:old").out)["blobs"]
