"""Two replicas push, mount, move and delete the same things while both collect with hardly any grace.

What must hold afterwards: what was answered with 201 and not deleted can be pulled, all of it; what was deleted is
gone; and when everything is deleted and collected, no row and no object is left.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.server.gc import Upkeep
from argosy.server.metadata.postgresql import Postgresql
from argosy.server.settings import Collection, Settings
from argosy.server.storage import Storage
from argosy.server.storage.filesystem import FileSystem
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server.client import Answer, Clock, Server, image
from tests.server.services import PostgresqlCluster

WORKERS, ROUNDS, TRIES = 5, 20, 8
RULES = Collection(grace_seconds=0.01, trash_seconds=0.0, upload_seconds=3600.0, untagged=True)
KIND = {"content-type": mediatypes.OCI_MANIFEST}


class Replicas:
    """Two replicas on one loop, each with connections of its own."""

    def __init__(self, root: pathlib.Path, dsn: str) -> None:
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.storage: Storage = FileSystem(str(root / "blobs"), reserve=0)
        self.servers = [
            Server(
                str(root),
                settings=Settings(gc=RULES),
                metadata=Postgresql(dsn, pool=4),
                storage=self.storage,
                clock=self.clock,
                runner=self.runner,
            )
            for _ in range(2)
        ]
        self.refused = 0
        self.busy = True

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.runner.close()

    async def ask(self, dice: random.Random, *words: Any) -> Answer:
        return await dice.choice(self.servers).asking(*words)

    async def push_blob(self, dice: random.Random, name: str, content: bytes) -> bool:
        digest = Digest.of(content)
        begun = await self.ask(dice, "POST", f"/v2/{name}/blobs/uploads/?mount={digest}", b"")
        if begun.status == 201:
            return True
        done = await self.ask(dice, "PUT", f"{begun.location}?digest={digest}", content)
        assert done.status in {201, 404}, done  # 404: the session went with its empty repository
        return done.status == 201

    async def push(
        self, dice: random.Random, name: str, tag: str, raw: bytes, layers: list[bytes]
    ) -> bool:
        """Push an image; whoever hears that a blob was just collected pushes it again."""
        for _ in range(TRIES):
            self.clock.now += 0.001
            for content in (b"{}", *layers):
                await self.push_blob(dice, name, content)
            put = await self.ask(dice, "PUT", f"/v2/{name}/manifests/{tag}", raw, KIND)
            if put.status == 201:
                return True
            self.refused += 1
            assert (put.status, put.code) == (404, "MANIFEST_BLOB_UNKNOWN"), put
        return False

    async def work(self, number: int, alive: dict[tuple[str, str], bytes]) -> None:
        """Push images that share layers with everybody's; delete every third."""
        dice = random.Random(number)
        for turn in range(ROUNDS):
            name, tag = f"soak/r{dice.randrange(3)}", f"w{number}-{turn}"
            layers = [f"layer {dice.randrange(6)}".encode() for _ in range(2)]
            raw = image(*map(Digest.of, layers), annotations={"n": tag})
            if not await self.push(dice, name, tag, raw, layers):
                continue
            if turn % 3 == 0:
                gone = await self.ask(dice, "DELETE", f"/v2/{name}/manifests/{Digest.of(raw)}")
                assert gone.status == 202, gone
            else:
                alive[name, tag] = raw

    async def collect(self, server: Server) -> None:
        upkeep = Upkeep(server.registry.metadata, self.storage, RULES, self.clock)
        while self.busy:
            self.clock.now += 0.001
            report = await upkeep.collect()
            assert report.failed == 0 or report.reviewed
            await asyncio.sleep(0)

    async def soak(self) -> dict[tuple[str, str], bytes]:
        alive: dict[tuple[str, str], bytes] = {}
        collectors = [asyncio.create_task(self.collect(server)) for server in self.servers]
        try:
            await asyncio.gather(*(self.work(number, alive) for number in range(WORKERS)))
        finally:
            self.busy = False
            await asyncio.gather(*collectors)
        return alive


@pytest.fixture
def replicas(tmp_path: pathlib.Path, postgresql: PostgresqlCluster) -> Iterator[Replicas]:
    made = Replicas(tmp_path, postgresql.database())
    yield made
    made.close()


def test_no_acknowledged_push_is_lost_and_nothing_dead_survives(replicas: Replicas) -> None:
    alive = replicas.runner.run(replicas.soak())
    assert len(alive) > WORKERS * ROUNDS / 3
    one, two = replicas.servers
    for number, ((name, tag), raw) in enumerate(sorted(alive.items())):
        server = (one, two)[number % 2]
        assert server.ask("GET", f"/v2/{name}/manifests/{tag}").body == raw
        document = json.loads(raw)
        for part in (document["config"], *document["layers"]):
            answer = server.ask("GET", f"/v2/{name}/blobs/{part['digest']}")
            assert answer.status == 200, (name, tag, part)
            assert Digest.of(answer.body) == part["digest"]
    for (name, _), raw in alive.items():
        one.ask("DELETE", f"/v2/{name}/manifests/{Digest.of(raw)}")
    for _ in range(6):
        replicas.clock.now += 7200.0
        two.run(two.upkeep.collect())
    for table in (
        "manifest",
        "tag",
        "manifest_ref",
        "repo_blob",
        "blob",
        "blob_segment",
        "upload",
        "trash",
        "repository",
    ):
        assert two.rows(f"SELECT count(*) FROM {table}") == [(0,)], table
    assert list(replicas.storage.keys("b/")) == []
