"""The official suite of the distribution-spec against a real `argosy serve`: nothing failed, skipped or disabled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.process import Process

PLACES = os.pathsep.join(filter(None, [os.environ.get("ARGOSY_PEERS"), os.environ.get("PATH")]))
SUITE = os.environ.get("ARGOSY_OCI_CONFORMANCE") or shutil.which("oci-conformance", path=PLACES)

pytestmark = pytest.mark.skipif(
    SUITE is None,
    reason="oci-conformance (opencontainers/distribution-spec, folder conformance) is not on PATH",
)


def run_suite(registry: str, results: Path, version: str, **more: str) -> dict[str, int]:
    """The suite's summary: how many tests passed, failed, were skipped, or were switched off."""
    environment = {
        "PATH": os.environ["PATH"],
        "OCI_REGISTRY": registry,
        "OCI_TLS": "disabled",
        "OCI_REPO1": "conformance/one",
        "OCI_REPO2": "conformance/two",
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(results),
        **more,
    }
    assert SUITE is not None
    done = subprocess.run(
        [SUITE], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    found = re.search(r"OCI Conformance Result: (\w+)\n((?:  [\w ]+\.*:\s+\d+\n)+)", done.stdout)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return {
        name.rstrip("."): int(count) for name, count in re.findall(r"  (\w+)\.*:\s+(\d+)", found[2])
    }


@pytest.mark.peer
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("version", "more"), [("dev", {"OCI_DATA_SPARSE": "true"}), ("1.1", {}), ("1.0", {})]
)
def test_the_suite_passes_to_the_last_case(
    tmp_path: Path,
    version: str,
    more: dict[str, str],
    workers: int,
    record_property: Callable[[str, object], None],
) -> None:
    with Process(str(tmp_path / "data"), sparse=bool(more), workers=workers) as server:
        summary = run_suite(f"localhost:{server.port}", tmp_path / "results", version, **more)
    record_property("summary", summary)
    assert summary["Pass"] > 100
    assert summary["FAIL"] == summary["Error"] == summary["Skip"] == 0
    if version == "dev":
        assert summary["Disabled"] == 0
