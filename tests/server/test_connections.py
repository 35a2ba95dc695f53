"""Clients that do not do what HTTP expects of them, over real sockets."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.server import connections as module
from argosy.server.connections import STREAMS, Connections, capacity, make_room
from argosy.server.settings import Limits
from argosy.spec.digest import Digest
from tests.server.process import Process


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Process]:
    with Process(str(root)) as made:
        yield made


def push(server: Process, data: bytes) -> Digest:
    digest = Digest.of(data)
    assert server.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", data)[0] == 201
    return digest


def connected(server: Process, *, room: int = 0) -> socket.socket:
    """A connection, with so little room for what it is sent."""
    raw = socket.socket()
    raw.settimeout(30)
    if room:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    raw.connect(("127.0.0.1", server.port))
    return raw


def everything(raw: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    return b"".join(iter(lambda: raw.recv(1 << 16), b""))


# -- bodies that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("Transfer-Encoding: chunked", b"5\r\nhelloZZ\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n"),
        ("Content-Length: 50", b"hello"),
    ],
    ids=["malformed", "cut chunks", "too short"],
)
def test_a_body_that_breaks_off_is_answered_to_whoever_still_listens(
    server: Process, header: str, body: bytes
) -> None:
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"")[1]["location"]
    with connected(server) as raw:
        raw.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode() + body)
        raw.shutdown(socket.SHUT_WR)
        head, _, answer = everything(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"docker-distribution-api-version: registry/2.0" in head
    assert json.loads(answer)["errors"][0]["code"] == "SIZE_INVALID"
    assert server.ask("GET", location)[1]["range"] == "0-4"


# -- answers that break off -------------------------------------------------------------------------


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(
    server: Process, root: Path
) -> None:
    size = 40 << 20
    digest = push(server, bytes(size))
    before = {path for path in (root / "blobs/b").glob("*/*") if path.stat().st_size == size}
    with connected(server, room=4096) as raw:
        raw.sendall(
            f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\n".encode()
        )
        assert raw.recv(12) == b"HTTP/1.1 206"
        for path in before:
            os.truncate(path, size // 2)
        assert len(everything(raw)) < size


# -- requests that are turned away ------------------------------------------------------------------


def test_who_is_turned_away_while_sending_a_body_is_told_so(tmp_path: Path) -> None:
    with Process(str(tmp_path), limits={"requests_per_second": 0.1, "burst": 1}) as server:
        seen = [server.ask("PUT", "/v2/a/manifests/x", bytes(6 << 20)) for _ in range(5)]
    assert [answer[0] for answer in seen[1:]] == [429] * 4
    assert all(int(headers["retry-after"]) > 0 for _, headers, _ in seen[1:])


# -- connections that nothing goes through ----------------------------------------------------------

PATIENCE = 2.0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A registry that takes few requests and has little patience."""
    limits = {"concurrency": 4, "concurrency_per_client": 2, "body_idle_seconds": PATIENCE}
    with Process(str(tmp_path_factory.mktemp("data")), limits=limits) as made:
        yield made


def downloading(server: Process, digest: Digest) -> socket.socket:
    raw = connected(server, room=4096)
    raw.sendall(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert raw.recv(12) == b"HTTP/1.1 200"
    return raw


def test_downloads_that_stall_stop_nobody_and_end(small: Process) -> None:
    size = 8 << 20
    digest = push(small, bytes(size))
    with contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(downloading(small, digest)) for _ in range(8)]
        slow = stack.enter_context(downloading(small, digest))
        got = 0
        for _ in range(10):
            assert small.ask("GET", "/livez")[0] == 200
            time.sleep(PATIENCE / 4)
            got += len(slow.recv(4096))
        for raw in stalled:
            with pytest.raises(ConnectionResetError):
                assert len(everything(raw)) < size
        small.ask("GET", "/v2/")
        while got < size:
            got += len(slow.recv(1 << 20))


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    "said", [b"", b"GET /v2/ HTT", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", HTTP2],
    ids=["nothing", "half a request", "a request", "http2"],
)  # fmt: skip
def test_a_connection_on_which_nothing_happens_is_closed(small: Process, said: bytes) -> None:
    began = time.monotonic()
    with connected(small) as raw:
        raw.sendall(said)
        everything(raw)
    assert PATIENCE <= time.monotonic() - began < 20


def test_more_connections_than_requests_are_taken(small: Process) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(small))
        assert small.ask("GET", "/livez")[0] == 200


class Door:
    """A listening socket of this process, and the connections it took."""

    def __init__(self, stack: contextlib.ExitStack, count: int) -> None:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        place = listening.getsockname()
        self.clients: list[socket.socket] = []
        self._taken: list[socket.socket] = []
        for _ in range(count):
            self.clients.append(stack.enter_context(socket.create_connection(place)))
            self._taken.append(stack.enter_context(listening.accept()[0]))
        self.peers = [(host, str(port)) for host, port in (c.getsockname() for c in self.clients)]

    def say(self, number: int) -> None:
        self._taken[number].sendall(b"x")
        assert self.clients[number].recv(1) == b"x"

    def left(self) -> list[int]:
        """The connections that have not been ended."""
        return [n for n, taken in enumerate(self._taken) if not _is_over(taken)]


def _is_over(taken: socket.socket) -> bool:
    try:
        return taken.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def test_only_a_connection_that_is_idle_and_asks_nothing_is_ended() -> None:
    now = [0.0]
    connections = Connections(Limits(body_idle_seconds=10), clock=lambda: now[0])
    with contextlib.ExitStack() as stack:
        door = Door(stack, 3)
        connections.enter(door.peers[1])
        connections.enter(door.peers[1])
        for at in (0, 5, 9):
            now[0] = at
            door.say(2)
            connections.look()
        assert door.left() == [0, 1, 2]
        connections.leave(door.peers[1])
        now[0] = 10
        connections.look()
        assert door.left() == [1, 2]
        connections.leave(door.peers[1])
        connections.look()
        assert door.left() == [2]
        now[0] = 20
        connections.look()
        assert door.left() == []


def test_no_address_takes_more_than_half_of_the_connections_but_a_proxy(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MOST", 8)
    monkeypatch.setattr(module, "_LEAST", 8)
    limits, now = Limits(concurrency=1), [0.0]
    with contextlib.ExitStack() as stack:
        door = Door(stack, 7)
        Connections(limits, ["127.0.0.0/8"]).look()
        assert len(door.left()) == 7
        assert caplog.text == ""
        connections = Connections(limits, clock=lambda: now[0])
        connections._share = 7
        connections.look()
        now[0], connections._share = 1.0, 4
        connections.enter(door.peers[0])
        door.say(3)
        connections.look()
        assert len(left := door.left()) == 4
        assert {0, 3} < set(left)
        assert "127.0.0.1 has 7 connections: 3 of them are ended" in caplog.text


# -- HTTP/2 -----------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def literal(name: str, value: str) -> bytes:
    """A header for nobody's memory, neither indexed nor compressed."""
    return b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in (name, value))


def told(raw: socket.socket) -> Iterator[int]:
    """The kinds of the frames that come."""
    with raw.makefile("rb") as file:
        while head := file.read(9):
            file.read(int.from_bytes(head[:3]))
            yield head[3]


def files(server: Process, root: Path) -> int:
    """How many blobs the registry's workers have open."""
    found = 0
    for worker in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split():
        for link in Path(f"/proc/{worker}/fd").iterdir():
            with contextlib.suppress(OSError):
                path = os.readlink(link)
                found += path.startswith(f"{root}/blobs/") and os.path.isfile(path)
    return found


def test_an_http2_connection_holds_few_files_open_however_much_it_asks_for(
    server: Process, root: Path
) -> None:
    digest = push(server, os.urandom(100_000))
    asked = {":method": "GET", ":scheme": "http", ":authority": "x"}
    asked[":path"] = f"/v2/a/blobs/{digest}"
    block = b"".join(literal(*header) for header in asked.items())
    many, headers, reset = 50, 1, 3
    with connected(server) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        raw.sendall(frame(4, 0, 0, b"\0\x04\0\0\0\0"))  # nothing may be sent on a stream
        raw.sendall(b"".join(frame(1, 5, 1 + 2 * n, block) for n in range(many)))
        answers = (kind for kind in told(raw) if kind in {headers, reset})
        kinds = list(itertools.islice(answers, many))
        assert (kinds.count(headers), kinds.count(reset)) == (STREAMS, many - STREAMS)
        assert files(server, root) <= STREAMS


def test_few_headers_that_stand_for_many_are_refused(server: Process) -> None:
    remembered = b"\x40\x01x" + b"\x7f\x81\x07" + b"v" * 1024
    with connected(server) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        raw.sendall(frame(1, 5, 1, literal(":method", "GET") + remembered + b"\xbe" * 10_000))
        assert 7 in told(raw), "the connection goes on"


def test_there_are_descriptors_for_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit[0])
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limit.__setitem__(0, both))
    assert capacity(Limits()) == 45
    make_room(Limits())
    assert (limit[0], capacity(Limits())) == ((4096, 4096), 225)
    limit[0] = (1024, 524288)
    make_room(Limits())
    assert (limit[0], capacity(Limits())) == ((17664, 524288), 1024)
    make_room(Limits(concurrency=1000))
    assert (limit[0], capacity(Limits(concurrency=1000))) == ((68256, 524288), 4000)
    limit[0] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    make_room(Limits(concurrency=1000))
    assert capacity(Limits(concurrency=1000)) == 4000
    limit[0] = (64, 64)
    assert capacity(Limits()) == 16
