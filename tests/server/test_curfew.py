"""A stop that does not wait for ever: what has come of a body until then is kept, and the next process goes on."""

from __future__ import annotations

import asyncio
import pathlib
import signal
import socket
from collections.abc import AsyncIterator

import pytest

from argosy.server import http
from argosy.server.curfew import Curfew
from argosy.spec.digest import Digest
from tests.server.client import Server
from tests.server.replicas import ask, running

DATA = b"0123456789" * 400


@pytest.fixture
def curfew(monkeypatch: pytest.MonkeyPatch) -> Curfew:
    made = Curfew()
    monkeypatch.setattr(http, "CURFEW", made)
    return made


@pytest.mark.parametrize("comes", ["more", "nothing more"])
def test_what_came_of_a_body_until_the_curfew_is_kept_and_its_client_told(
    server: Server, curfew: Curfew, comes: str
) -> None:
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location

    async def body() -> AsyncIterator[bytes]:
        yield DATA
        if comes == "more":
            curfew.begin()
            yield DATA
        asyncio.get_running_loop().call_soon(curfew.begin)
        await asyncio.sleep(3600)

    answer = server.run(server.streaming("PATCH", location, body()))
    assert (answer.status, answer.header("retry-after")) == (503, "5")
    kept = DATA * (2 if comes == "more" else 1)
    assert server.ask("GET", location).header("range") == f"0-{len(kept) - 1}"
    curfew.has_begun = False  # as in the next process
    assert server.ask("PUT", f"{location}?digest={Digest.of(kept)}").status == 201


def test_after_the_curfew_no_body_is_taken_that_has_not_come(
    server: Server, curfew: Curfew
) -> None:
    curfew.begin()
    assert server.ask("PUT", "/v2/a/manifests/t", b"{}").status == 503
    assert server.ask("POST", "/v2/a/blobs/uploads/", b"").status == 202


def test_a_registry_that_is_stopped_keeps_what_came_of_a_body_that_takes_longer(
    tmp_path: pathlib.Path,
) -> None:
    document: dict[str, object] = {"listen": {"port": 0, "workers": 1, "shutdown_seconds": 1}}
    with running(tmp_path, document) as one:
        location = ask(one.address, "POST", "/v2/a/blobs/uploads/").headers["location"]
        host, _, port = one.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as client:
            head = f"PATCH {location} HTTP/1.1\r\nHost: {one.address}\r\nExpect: 100-continue\r\n"
            client.sendall(f"{head}Content-Length: 10000000\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
            client.sendall(DATA)
            one.process.send_signal(signal.SIGTERM)
            assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert one.process.wait(30) == 0
    with running(tmp_path, document) as two:
        assert ask(two.address, "GET", location).headers["range"] == f"0-{len(DATA) - 1}"
        done = ask(two.address, "PUT", f"{location}?digest={Digest.of(DATA * 2)}", DATA)
        assert done.status == 201
