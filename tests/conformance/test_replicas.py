"""The official suite against two registries over one PostgreSQL and one object store, each request to the other one."""

from __future__ import annotations

import collections
import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.server.replicas import round_robin, two_replicas
from tests.server.services import PostgresqlCluster, S3Server


@pytest.mark.peer
@pytest.mark.parametrize("version", ["dev", "1.1"])
def test_two_replicas_pass_the_official_suite(
    tmp_path: pathlib.Path,
    postgresql: PostgresqlCluster,
    objects: S3Server,
    peer: Callable[[str], str],
    version: str,
    record_property: Callable[[str, object], None],
) -> None:
    suite = peer("oci-conformance")
    with (
        two_replicas(tmp_path, postgresql, objects, content={"sparse": True}) as replicas,
        round_robin([replica.address for replica in replicas]) as front,
    ):
        done = subprocess.run(
            [suite],
            env={
                **os.environ,
                "OCI_REGISTRY": front.address,
                "OCI_TLS": "disabled",
                "OCI_REPO1": "conformance/one",
                "OCI_REPO2": "conformance/two",
                "OCI_VERSION": version,
                "OCI_DATA_SPARSE": "true",
                "OCI_RESULTS_DIR": str(tmp_path),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        served = list(front.served.values())
    assert sum(served) > 1000
    assert abs(served[0] - served[1]) <= 1
    verdicts = collections.Counter(
        line.rpartition(":")[2].strip()
        for line in done.stdout.splitlines()
        if line.strip().startswith("OCI Conformance Test")
    )
    record_property("summary", dict(verdicts))
    expected = {"Pass"} if version == "dev" else {"Pass", "Disabled"}
    assert set(verdicts) == expected
