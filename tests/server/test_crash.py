"""Crash points: every call to the storage and to the database fails, or is the last, before or after it took effect.

Then the registry is opened again over what is left, and everything that was acknowledged must be there, and nothing
may be kept for ever that is nobody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.errors import ArgosyError
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.storage.filesystem import FileSystem
from argosy.spec.digest import Digest
from tests.server import invariants
from tests.server.client import Answer, Clock, Server, image, subject
from tests.server.faults import Fault, FaultyMetadata, FaultyStorage, KilledError

LAYER, OTHER, SHARED = b"layer " * 50, b"other " * 50, b"shared"


@dataclasses.dataclass
class Promises:
    """What the registry has acknowledged; what is being changed is not sure until the answer."""

    blobs: dict[tuple[str, str], bytes] = dataclasses.field(default_factory=dict)
    manifests: dict[tuple[str, str], bytes] = dataclasses.field(default_factory=dict)
    gone: set[str] = dataclasses.field(default_factory=set)

    def hold(self, server: Server) -> None:
        for (name, digest), data in self.blobs.items():
            answer = server.ask("GET", f"/v2/{name}/blobs/{digest}")
            assert (answer.status, answer.body) == (200, data)
        for (name, reference), raw in self.manifests.items():
            answer = server.ask("GET", f"/v2/{name}/manifests/{reference}")
            assert (answer.status, answer.body) == (200, raw)
        for target in self.gone:
            assert server.ask("GET", target).status == 404


class Player:
    """Plays a bit of everything. An answer that is an error promises nothing."""

    def __init__(self, server: Server, promises: Promises) -> None:
        self.server, self.promises = server, promises

    def blob(self, name: str, data: bytes, answer: Answer) -> None:
        if answer.status == 201:
            self.promises.blobs[name, Digest.of(data)] = data

    def monolithic(self, name: str, data: bytes) -> None:
        begun = self.server.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        if begun.status == 202:
            target = f"{begun.location}?digest={Digest.of(data)}"
            self.blob(name, data, self.server.ask("PUT", target, data))

    def chunked(self, name: str, data: bytes, digest: Digest) -> None:
        begun = self.server.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        if begun.status != 202:
            return
        for start in (0, 100, 200):
            if not self.chunk(begun.location, start, data):
                return
        answer = self.server.ask("PUT", f"{begun.location}?digest={digest}", b"")
        if answer.status == 201:
            self.promises.blobs[name, digest] = data

    def chunk(self, location: str, start: int, data: bytes) -> bool:
        """As a client does after an error: ask where the session is, and go on from there."""
        part = data[start : start + 100] if start < 200 else data[start:]
        if self.server.ask("PATCH", location, part).status == 202:
            return True
        told = self.server.ask("GET", location)
        if told.header("range") == f"0-{start + len(part) - 1}":
            return True
        return self.server.ask("PATCH", location, part).status == 202

    def manifest(self, name: str, raw: bytes, tag: str) -> None:
        if self.server.put_manifest(name, raw, tag).status == 201:
            self.promises.manifests[name, tag] = raw
            self.promises.manifests[name, Digest.of(raw)] = raw

    def delete(self, name: str, reference: str) -> None:
        kept = self.promises.manifests
        had = kept.pop((name, reference), None)
        if ":" in reference:
            for key in [key for key, raw in kept.items() if raw == had and key[0] == name]:
                del kept[key]
        answer = self.server.ask("DELETE", f"/v2/{name}/manifests/{reference}")
        if answer.status == 202:
            self.promises.gone.add(f"/v2/{name}/manifests/{reference}")
        assert had is None or answer.status == 202 or answer.status >= 500


def scenario(server: Server, promises: Promises) -> None:
    """Every form of a push, a known digest, a mount, a cancelled upload, deletes, and the collector."""
    player = Player(server, promises)
    player.monolithic("a", b"{}")
    player.monolithic("a", LAYER)
    player.chunked("a", OTHER, Digest.of(OTHER, "sha512"))
    single = f"/v2/a/blobs/uploads/?digest={Digest.of(SHARED)}"
    player.blob("a", SHARED, server.ask("POST", single, [SHARED[:3], SHARED[3:]]))
    first = image(Digest.of(LAYER), Digest.of(SHARED))
    player.manifest("a", first, "one")
    player.manifest("a", image(subject=subject(Digest.of(first))), "signature")
    player.monolithic("b", LAYER)
    mount = f"/v2/b/blobs/uploads/?mount={Digest.of(SHARED)}&from=a"
    player.blob("b", SHARED, server.ask("POST", mount, b""))
    cancelled = server.ask("POST", "/v2/b/blobs/uploads/", b"")
    if cancelled.status == 202:
        server.ask("PATCH", cancelled.location, b"never finished")
        server.ask("DELETE", cancelled.location)
    player.delete("a", "signature")
    player.delete("a", Digest.of(first))
    collecting(server, promises)


def collecting(server: Server, promises: Promises) -> None:
    server.clock.now += 100_000  # type: ignore[attr-defined]
    promises.blobs = {}  # nothing refers to them any more: their grace is over
    for _ in range(2):
        try:
            server.run(server.upkeep.collect())
        except ArgosyError:
            continue


def play(root: Path, fault: Fault, clock: Clock) -> Promises:
    promises = Promises()
    runner = asyncio.Runner()
    metadata = Sqlite(f"{root}/registry.db")
    storage = FileSystem(f"{root}/blobs", reserve=0)
    try:
        server = Server(
            str(root),
            metadata=FaultyMetadata(metadata, fault),
            storage=FaultyStorage(storage, fault),
            clock=clock,
            runner=runner,
        )
        scenario(server, promises)
    except (KilledError, ArgosyError):
        pass  # killed, or failed while it started
    finally:
        metadata.close()
        runner.close()
    return promises


def count(root: Path) -> int:
    fault = Fault()
    play(root, fault, Clock())
    return fault.calls


@pytest.mark.parametrize("how", ["kill", "fail"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_every_call_fails_or_is_the_last(how: str, when: str) -> None:
    with in_memory() as root:
        calls = count(root)
    assert calls > 200
    for at in range(1, calls + 1):
        with in_memory() as root:
            clock, fault = Clock(), Fault(at=at, when=when, how=how)
            promises = play(root, fault, clock)
            _check(root, clock, promises, fault)


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """A directory where fsync costs nothing, if there is one: thousands of registries are made and thrown away."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as root:
        yield Path(root)


def _check(root: Path, clock: Clock, promises: Promises, fault: Any) -> None:
    with Server(str(root), clock=clock) as again:
        try:
            invariants.check(again)
            promises.hold(again)
            again.push_image("after", "works", b"after")
            invariants.nothing_left_over(again)
            invariants.check(again)
            assert again.ask("GET", "/v2/after/manifests/works").status == 200
        except BaseException as exc:
            exc.add_note(f"struck: {fault}")
            raise
