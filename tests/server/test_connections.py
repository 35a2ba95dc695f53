"""Clients that do not do what HTTP expects of them, over real sockets."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

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
