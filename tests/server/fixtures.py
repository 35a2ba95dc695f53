"""The services as fixtures, one of each a run; a `conftest.py` imports what its folder needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.server import services


@pytest.fixture(scope="session")
def postgresql() -> Iterator[services.PostgresqlCluster]:
    """A private PostgreSQL; skipped by name where it is not installed."""
    with services.postgresql_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def objects() -> Iterator[services.S3Server]:
    """A private S3 server; skipped by name where it is not installed."""
    with services.s3_server() as server:
        yield server
