"""Bodies that are cut off: what had arrived stays, the session tells how far it is, and goes on from there at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from argosy.server.handlers import bodies
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.presence import Presence
from argosy.spec.digest import Digest
from tests.server import invariants
from tests.server.client import Server
from tests.server.faults import Fault, FaultyStorage
from tests.server.process import Process
from tests.server.replicas import Running, ask, running, shared
from tests.server.test_limits import interrupted

SIZE = 7_000_000
DATA = os.urandom(SIZE)
POINTS = (1, 70_000, 524_288, 3_000_001, 5_242_881, SIZE - 1)
HELD = "SELECT 1 FROM upload WHERE lease_until > 0"
CAME = 600_000
"""Bytes that `interrupted` sends."""


class Real:
    """A registry that runs: its address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def begin(self, name: str = "a") -> str:
        return ask(self.address, "POST", f"/v2/{name}/blobs/uploads/").headers["location"]

    def settled(self, location: str, expected: int) -> int:
        """What the session tells once the server has seen all that was sent, or something else if it never does."""
        pause = threading.Event()
        for _ in range(200):
            if self.received(location) == expected:
                break
            pause.wait(0.02)
        return self.received(location)

    def received(self, location: str) -> int:
        answer = ask(self.address, "GET", location)
        assert answer.status == 204
        end = int(answer.headers["range"].partition("-")[2])
        return end + 1 if end else 0

    def rest(self, location: str, start: int, data: bytes = DATA) -> int:
        """Send what is missing, as clients do that ask again when they are told 416, and close. What was sent."""
        for _ in range(20):
            headers = {"content-range": f"{start}-{len(data) - 1}"}
            status = 416
            with contextlib.suppress(OSError):  # refused before all of the body was sent
                status = ask(self.address, "PATCH", location, data[start:], headers).status
            if status == 202:
                break
            assert status == 416
            start = self.received(location)
        assert status == 202
        digest = Digest.of(data)
        assert ask(self.address, "PUT", f"{location}?digest={digest}").status == 201
        assert ask(self.address, "GET", f"/v2/a/blobs/{digest}").body == data
        return len(data) - start

    def body(self, method: str, location: str, point: int, *, chunked: bool) -> socket.socket:
        """Send the beginning of a body; the connection stays open."""
        host, _, port = self.address.rpartition(":")
        sock = socket.create_connection((host, int(port)))
        # of a digest that is known nothing would be kept
        query = f"?digest={Digest.of(DATA[:point])}" if method == "PUT" else ""
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
        head = f"{method} {location}{query} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n"
        size = f"{SIZE:x}\r\n" if chunked else ""
        sock.sendall((head + size).encode() + DATA[:point])
        return sock


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with Process(str(tmp_path_factory.mktemp("files"))) as server:
        yield Real(f"127.0.0.1:{server.port}")


@pytest.fixture(scope="module")
def shared_one(
    tmp_path_factory: pytest.TempPathFactory, postgresql: Any, objects: Any
) -> Iterator[Real]:
    with running(tmp_path_factory.mktemp("one"), shared(postgresql, objects)) as server:
        yield Real(server.address)


@pytest.fixture(params=["files", "shared_one"])
def real(request: pytest.FixtureRequest) -> Real:
    found: Real = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_client_that_was_cut_off_goes_on_where_it_was(
    real: Real, method: str, chunked: bool, reset: bool
) -> None:
    for point in POINTS:
        location = real.begin()
        sock = real.body(method, location, point, chunked=chunked)
        if reset:  # data the kernel still holds dies with the connection
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        kept = point if point > 1 else 0
        if not reset:
            assert real.settled(location, kept) == kept
        assert SIZE - kept <= real.rest(location, real.received(location)) <= SIZE


def test_cut_again_and_again(files: Real) -> None:
    location, received = files.begin(), 0
    for _ in range(5):
        received += 1_000_000
        host, _, port = files.address.rpartition(":")
        with socket.create_connection((host, int(port))) as sock:
            span = f"{received - 1_000_000}-{SIZE - 1}"
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Range: {span}\r\n"
            head += f"Content-Length: {SIZE - received + 1_000_000}\r\n\r\n"
            sock.sendall(head.encode() + DATA[received - 1_000_000 : received])
        assert files.settled(location, received) == received
    files.rest(location, received)


# -- the state of the hash ------------------------------------------------------------------------


def cut(server: Server, method: str, target: str) -> None:
    assert interrupted(server, method, target, "hang up")[0]["status"] == 400


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("forget", [False, True])
def test_the_hash_goes_on_from_memory_or_from_the_objects(
    server: Server, algorithm: str, method: str, forget: bool
) -> None:
    data = b"x" * CAME + b"rest"
    target = f"?digest={Digest.of(data, algorithm)}"
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    cut(server, method, location + target)
    if forget:
        server.registry.hashers.clear()
    assert server.ask("GET", location).header("range") == f"0-{CAME - 1}"
    assert server.ask("PATCH", location, b"rest").status == 202
    assert server.ask("PUT", location + target, b"").status == 201
    assert server.ask("GET", f"/v2/a/blobs/{Digest.of(data, algorithm)}").body == data
    invariants.check(server)


def test_a_stream_that_waited_for_another_body_is_not_put_behind_it(server: Server) -> None:
    """Or the late request of a client that died would be taken in twice."""
    server.registry.patience = 30.0
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location

    async def both() -> tuple[int, int]:
        going = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"first"
            await going.wait()
            yield b"second"

        one = asyncio.ensure_future(server.streaming("PATCH", location, slow()))
        while not await server.registry.metadata.read(lambda tx: tx.row(HELD)):
            await asyncio.sleep(0)
        two = asyncio.ensure_future(server.asking("PATCH", location, [b"first"]))
        await asyncio.sleep(0)
        going.set()
        return (await one).status, (await two).status

    assert server.run(both()) == (202, 416)
    digest = Digest.of(b"firstsecond")
    assert server.ask("PUT", f"{location}?digest={digest}", b"").status == 201


def test_an_algorithm_only_the_cut_body_named_can_be_given_up_again(server: Server) -> None:
    data = b"x" * CAME
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    cut(server, "PUT", f"{location}?digest={Digest.of(data + b'rest', 'sha512')}")
    assert server.ask("PUT", f"{location}?digest={Digest.of(data)}", b"").status == 201


def test_nothing_is_kept_of_a_blob_that_is_known(server: Server) -> None:
    digest = server.push_blob("a", b"x" * CAME)
    location = server.ask("POST", "/v2/b/blobs/uploads/", b"").location
    cut(server, "PUT", f"{location}?digest={digest}")
    assert server.ask("GET", location).header("range") == "0-0"
    assert server.ask("PUT", f"{location}?digest={digest}", b"x" * CAME).status == 201
    assert len(list(server.registry.storage.keys("b/"))) == 1


def test_a_storage_that_cannot_keep_it_leaves_the_session_where_it_was(tmp_path: Any) -> None:
    with Server(str(tmp_path)) as server:
        location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
        fault = Fault(at=3)  # create, write, commit
        server.registry.storage = FaultyStorage(server.registry.storage, fault)
        cut(server, "PATCH", location)
        assert fault.calls == 3
        assert server.ask("GET", location).header("range") == "0-0"
        digest = Digest.of(b"all of it")
        assert server.ask("PUT", f"{location}?digest={digest}", b"all of it").status == 201
        invariants.check(server)


# -- the worker dies ------------------------------------------------------------------------------


def held(root: pathlib.Path) -> threading.Event:
    """Set when another object than those of now is being written below a directory."""
    seen, done = threading.Event(), threading.Event()
    known = set(root.rglob("*"))

    def look() -> None:
        while not done.wait(0.01):
            new = set(root.rglob("*")) - known
            if any(path.stat().st_size for path in new if path.is_file()):
                seen.set()
                return

    threading.Thread(target=look, daemon=True).start()
    return seen


def test_after_kill_nine_the_next_start_takes_the_session_over_at_once(
    tmp_path: pathlib.Path,
) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Process(str(tmp_path)))
        real = Real(f"127.0.0.1:{first.port}")
        location = real.begin()
        ask(real.address, "PATCH", location, DATA[:1000])
        seen = held(tmp_path / "blobs")
        with real.body("PATCH", location, 3_000_000, chunked=True):
            assert seen.wait(30)
            first.kill()
        second = stack.enter_context(Process(str(tmp_path)))
        real = Real(f"127.0.0.1:{second.port}")
        assert real.received(location) == 1000
        real.rest(location, 1000)


def test_after_kill_nine_of_a_replica_so_does_its_successor(
    tmp_path: pathlib.Path, postgresql: Any, objects: Any
) -> None:
    document = shared(postgresql, objects)
    first = Running(tmp_path / "one", document)
    try:
        real = Real(first.address)
        location = real.begin()
        with real.body("PATCH", location, 3_000_000, chunked=True):
            begun(document, location)
            children = pathlib.Path(f"/proc/{first.process.pid}/task/{first.process.pid}/children")
            for pid in [*map(int, children.read_text().split()), first.process.pid]:
                os.kill(pid, 9)
            first.process.wait(30)
    finally:
        first.stop()
    with running(tmp_path / "one", document) as second:
        real = Real(second.address)
        assert real.received(location) == 0
        real.rest(location, 0)


def begun(document: Any, location: str) -> None:
    """Wait until a body is under way."""
    dsn = document["metadata"]["postgresql"]["dsn"]
    pause = threading.Event()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(500):
            if connection.execute("SELECT 1 FROM upload WHERE lease_until > 0").fetchall():
                return
            pause.wait(0.02)
    raise AssertionError(f"{location}: no body is under way")


def test_a_worker_that_lives_or_is_not_known_is_not_gone(tmp_path: pathlib.Path) -> None:
    one, two = Presence(), Presence()
    one.begin(str(tmp_path))
    two.begin(str(tmp_path))
    assert not two.is_gone(one.name)
    assert not two.is_gone("0" * 32)
    assert not two.is_gone("../registry.db")
    assert not two.is_gone(None)
    (tmp_path / "workers" / ("1" * 32)).touch()  # nobody holds it
    assert two.is_gone("1" * 32)
    one.end()
    two.end()
    assert [path.name for path in (tmp_path / "workers").iterdir()] == ["1" * 32]


def test_nobody_waits_for_the_body_of_a_worker_that_died(server: Server) -> None:
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    sql = "UPDATE upload SET holder = 'dead', lease_until = ?"
    until = server.clock() + bodies.LEASE
    server.run(server.registry.metadata.write(lambda tx: tx.rows(sql, (until,))))
    asked: list[str | None] = []

    class Knowing(Presence):
        def is_gone(self, name: str | None) -> bool:
            asked.append(name)
            return True

    server.registry.presence = Knowing()
    server.registry.patience = 0.0
    assert server.ask("GET", location).status == 204
    assert asked == ["dead"]


def test_the_files_of_the_long_dead_go(tmp_path: pathlib.Path) -> None:
    (tmp_path / "workers").mkdir()
    old = tmp_path / "workers" / ("1" * 32)
    old.touch()
    os.utime(old, (0, 0))
    one = Presence()
    one.begin(str(tmp_path))
    assert not old.exists()
    one.end()


def test_a_database_of_the_first_version_is_brought_up_to_date(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "registry.db")
    metadata = Sqlite(path)
    metadata._writer.rows("ALTER TABLE upload DROP COLUMN holder")
    metadata._writer.rows("ALTER TABLE manifest ADD COLUMN annotations TEXT")
    metadata._writer.rows("ALTER TABLE manifest_body DROP COLUMN annotations")
    metadata._writer.rows("UPDATE schema_version SET version = 1")
    metadata.close()
    with Server(str(tmp_path)) as server:
        assert server.push_blob("a", b"x")
