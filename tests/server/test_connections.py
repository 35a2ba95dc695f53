"""Clients that do not do what HTTP expects of them, over real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.server.process import Process


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with Process(str(tmp_path_factory.mktemp("data"))) as made:
        yield made


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
