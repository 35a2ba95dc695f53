"""Every engine of metadata, and making what the contract is about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.server.metadata import (
    Metadata,
    Transaction,
    Work,
    blobs,
    manifests,
    repositories,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.manifests import New, Reference
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.postgresql import Postgresql
from argosy.server.metadata.sqlite import Sqlite

ENGINES: dict[str, Callable[[Path, pytest.FixtureRequest], Metadata]] = {
    "sqlite": lambda root, _: Sqlite(str(root / "registry.db")),
    "postgresql": lambda _, request: Postgresql(request.getfixturevalue("postgresql").database()),
}
NOW = 1_800_000_000.0
CHANGE = Change(NOW, grace=100.0, trash=50.0)
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


class Engine:
    """An engine, asked one thing after the other."""

    def __init__(self, runner: asyncio.Runner, metadata: Metadata) -> None:
        self.runner, self.metadata = runner, metadata

    def read(self, work: Work[Any]) -> Any:
        return self.runner.run(self.metadata.read(work))

    def write(self, work: Work[Any], **more: Any) -> Any:
        return self.runner.run(self.metadata.write(work, **more))

    def repo(self, name: str = "r") -> tuple[int, str]:
        return self.write(lambda tx: repositories.ensure(tx, name, CHANGE)), name

    def blob(self, digest: str, name: str = "r", key: str | None = None, size: int = 3) -> None:
        repo = self.repo(name)
        segment = Segment(key or f"b/d/{digest[7:12]}-1", size)
        self.write(lambda tx: blobs.commit(tx, CHANGE, repo, digest, size, [segment]))

    def manifest(self, digest: str, *targets: str, tags: tuple[str, ...] = (), **more: Any) -> None:
        repo = self.repo(more.pop("name", "r"))
        new = make(digest, *targets, **{k: more.pop(k) for k in list(more) if k in FIELDS})
        self.write(lambda tx: manifests.put(tx, CHANGE, repo, new, tags, **more))


FIELDS = {"subject", "artifact_type", "annotations", "kind", "optional"}


def make(digest: str, *targets: str, **more: Any) -> New:
    kind, optional = more.pop("kind", "blob"), more.pop("optional", False)
    return New(
        digest,
        "application/vnd.oci.image.manifest.v1+json",
        digest.encode(),
        more.get("subject"),
        more.get("artifact_type"),
        more.get("annotations", {}),
        tuple(Reference(kind, target, optional) for target in targets),
    )


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with asyncio.Runner() as runner:
        metadata = ENGINES[request.param](tmp_path, request)
        yield Engine(runner, metadata)
        metadata.close()
        metadata.close()


def boom(tx: Transaction) -> None:
    tx.rows("INSERT INTO setting (name, value) VALUES (?, ?)", ("x", "y"))
    raise KeyError("boom")
