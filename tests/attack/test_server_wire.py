"""Requests that two readers could take for different ones: what follows them on a connection is never answered."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.server.process import Process

NEXT = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPLOAD = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = UPLOAD + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with Process(str(tmp_path_factory.mktemp("wire"))) as process:
        yield process
        assert process.ask("GET", "/livez")[0] == 200, "it lives after all of this"


def answers(registry: Process, raw: bytes) -> list[int]:
    """The statuses of all that is answered on one connection to a request and the one behind it."""
    with socket.create_connection(("127.0.0.1", registry.port), timeout=30) as connection:
        received = b""
        try:
            connection.sendall(raw + NEXT)
            while more := connection.recv(1 << 16):
                received += more
        except ConnectionError:
            pass
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]


def test_two_requests_have_two_answers(registry: Process) -> None:
    assert answers(registry, LIVE + b"\r\n") == [200, 200]
    body = b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT
    assert answers(registry, LIVE + body) == [200, 200]
    assert answers(registry, UPLOAD + body) == [202, 200]


@pytest.mark.parametrize(
    "raw",
    [
        UPLOAD + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        UPLOAD + b"Content-Length: 0, 44\r\n\r\n",
        UPLOAD + b"Content-Length: +0\r\n\r\n",
        UPLOAD + b"Content-Length: 4_4\r\n\r\n",
        UPLOAD + b"Content-Length : 44\r\n\r\n",
        UPLOAD + b"Transfer-Encoding: xchunked\r\n\r\n",
        UPLOAD + b"Transfer-Encoding: chunked, identity\r\n\r\n",
        UPLOAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        UPLOAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        UPLOAD.replace(b"/1.1", b"/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        LIVE + b"X: a\r\n b\r\n\r\n",
        LIVE + b"X: a\rTransfer-Encoding: chunked\r\n\r\n",
        LIVE + b"X: a\0b\r\n\r\n",
    ],
)
def test_cve_2019_16276_a_head_that_is_not_one_is_refused(registry: Process, raw: bytes) -> None:
    """CVE-2019-16786, CVE-2019-16789, CVE-2019-16792, CVE-2021-21299, CVE-2021-32715, CVE-2022-1705, CVE-2023-37276,
    CVE-2023-47627: spaces, folded lines, several lengths, unknown codings. The guard is the HTTP server's."""
    assert answers(registry, raw) == [400]


@pytest.mark.parametrize(
    "raw",
    [
        UPLOAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
        CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
        CHUNKED + b"-1\r\na\r\n0\r\n\r\n",
        CHUNKED + b"10000000000000001\r\na\r\n0\r\n\r\n",
        CHUNKED + b"1\na\r\n0\r\n\r\n",
        CHUNKED + b"1\r\naXX0\r\n\r\n",
        CHUNKED + b"1;a\nb\r\na\r\n0\r\n\r\n",
        CHUNKED + b"1;" + b"x" * 200_000 + b"\r\na\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n" + b"x: y\r\n" * 50_000 + b"\r\n",
    ],
    ids=["two lengths", "0x", "+", "-", "overflow", "LF", "no end", "LF in extension", "extension", "trailers"],
)  # fmt: skip
def test_cve_2025_22871_nothing_follows_chunks_that_are_none(registry: Process, raw: bytes) -> None:
    """CVE-2015-5741, CVE-2021-32714, CVE-2022-24761, CVE-2023-39326, CVE-2023-47641; the server's guard, too."""
    assert answers(registry, raw)[1:] == []


def test_cve_2026_42544_another_protocol_is_not_spoken(registry: Process) -> None:
    """Granian before 2.7.4, which the dependency excludes; and WebSockets are off."""
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: caf\xe9\xff\r\n\r\n"
    )
    assert answers(registry, LIVE + upgrade) == [200, 200]


def test_cve_2023_24534_fields_without_number_are_refused(registry: Process) -> None:
    assert answers(registry, LIVE + b"x: y\r\n" * 5000 + b"\r\n") == [431]
