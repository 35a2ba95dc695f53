"""`argosy artifact` and `argosy discover`."""

from __future__ import annotations

import pathlib

from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.cli.conftest import Run


def test_only_artifacts_of_the_type_are_shown_at_every_depth(
    argosy: Run, layout: pathlib.Path
) -> None:
    with LayoutStore.open(str(layout)) as store:
        image = store.resolve("v1")
        wanted = random.artifact(store, 4, subject=image, kind="application/x.sbom")
        random.artifact(store, 5, subject=wanted)
        inner = random.artifact(store, 6, subject=wanted, kind="application/x.sbom")
    words = ("discover", "--json", f"oci:{layout}:v1")
    assert len(argosy(*words).json["referrers"]) == 2
    (found,) = argosy(*words, "--artifact-type", "application/x.sbom").json["referrers"]
    assert found["digest"] == wanted.digest
    assert [entry["digest"] for entry in found["referrers"]] == [inner.digest]
