"""The crash points once more, over PostgreSQL and an object store: a few of them each time, spread over all."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from argosy.errors import ArgosyError
from argosy.server.metadata.postgresql import Postgresql
from argosy.server.storage import Storage
from argosy.server.storage.objects import Objects
from tests.server import invariants
from tests.server.client import Clock, Server
from tests.server.faults import Fault, FaultyMetadata, FaultyStorage, KilledError
from tests.server.services import PostgresqlCluster, S3Server
from tests.server.test_crash import Promises, scenario

POINTS = 8


class Shared:
    """A new database and a new bucket."""

    def __init__(self, postgresql: PostgresqlCluster, objects: S3Server, root: Path) -> None:
        self.dsn = postgresql.database()
        self.storage: Storage = Objects(objects.store(objects.bucket()))
        self.root = str(root)
        self.clock = Clock()

    def play(self, fault: Fault) -> Promises:
        promises, runner = Promises(), asyncio.Runner()
        metadata = Postgresql(self.dsn, pool=2)
        with contextlib.suppress(KilledError, ArgosyError):
            server = Server(
                self.root,
                metadata=FaultyMetadata(metadata, fault),
                storage=FaultyStorage(self.storage, fault),
                clock=self.clock,
                runner=runner,
            )
            scenario(server, promises)
        metadata.close()
        runner.close()
        return promises

    def check(self, promises: Promises) -> None:
        metadata = Postgresql(self.dsn, pool=2)
        with Server(self.root, metadata=metadata, storage=self.storage, clock=self.clock) as again:
            invariants.check(again)
            promises.hold(again)
            again.push_image("after", "works", b"after")
            invariants.nothing_left_over(again)
            invariants.check(again)
            assert again.ask("GET", "/v2/after/manifests/works").status == 200


@pytest.mark.parametrize("how", ["kill", "fail"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_calls_fail_or_are_the_last_over_shared_services(
    how: str, when: str, postgresql: PostgresqlCluster, objects: S3Server, tmp_path: Path
) -> None:
    counting = Fault()
    Shared(postgresql, objects, tmp_path).play(counting)
    assert counting.calls > 100
    offset = ["kill before", "kill after", "fail before", "fail after"].index(f"{how} {when}")
    for number in range(POINTS):
        at = 1 + (counting.calls * (4 * number + offset)) // (4 * POINTS)
        fault = Fault(at=at, when=when, how=how)
        shared = Shared(postgresql, objects, tmp_path)
        promises = shared.play(fault)
        try:
            shared.check(promises)
        except BaseException as exc:
            exc.add_note(f"struck: {fault}")
            raise
