"""Uploads and downloads that are cut, by a proxy between the client and a real registry: only the rest travels."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import socket
import threading
from collections.abc import Iterator

import pytest

from argosy.remote.config import Options
from argosy.remote.registry import Registry
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from tests.interop.registries import KINDS, Running, running

SIZE = 24 * 1024 * 1024
SLACK = 8 * 1024 * 1024
DATA = os.urandom(SIZE)
LAYER = Descriptor.of(mediatypes.OCI_LAYER, DATA)


class Cutter:
    """A TCP proxy that resets the first connection over which so many bytes went in one direction."""

    def __init__(self, port: int, *, up: int = 1 << 60, down: int = 1 << 60) -> None:
        self._target, self._server = port, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._limits, self.sent = {"up": up, "down": down}, {"up": 0, "down": 0}
        self._lock, self.cuts = threading.Lock(), 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as upstream:
            back = threading.Thread(target=self._pump, args=("down", upstream, client), daemon=True)
            back.start()
            self._pump("up", client, upstream)
            back.join(10)

    def _pump(self, way: str, one: socket.socket, other: socket.socket) -> None:
        moved = 0
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
                moved += len(data)
                with self._lock:
                    self.sent[way] += len(data)
                    cut = moved > self._limits[way] and not self.cuts
                    self.cuts += cut
                if cut:
                    break
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(5)


FORGETS = {"docker-registry", "zot"}
"""These keep nothing of a request that broke, or forget the session: the blob is sent anew, in chunks."""


@pytest.fixture(scope="module", params=KINDS)
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    with running(request.param, tmp_path_factory.mktemp(request.param)) as found:
        yield found


def port_of(real: Running) -> int:
    return int(real.name.rpartition(":")[2])


def test_a_cut_upload_sends_only_the_rest(real: Running, tmp_path: pathlib.Path) -> None:
    cutter = Cutter(port_of(real), up=SIZE // 2)
    options = Options(state_dir=str(tmp_path), retry_delay=0.05)
    with Registry(f"localhost:{cutter.port}", options) as registry:
        repository = registry.repository("cut/up")
        repository.push(LAYER, io.BytesIO(DATA))
        assert cutter.cuts == 1
        lost = SIZE // 2 if real.kind in FORGETS else 0
        assert cutter.sent["up"] < SIZE + SLACK + lost
        assert repository.fetch(LAYER).read() == DATA
    cutter.close()


def test_a_cut_download_fetches_only_the_rest(real: Running) -> None:
    with Registry(real.name) as registry:
        registry.repository("cut/down").push(LAYER, io.BytesIO(DATA))
    cutter = Cutter(port_of(real), down=SIZE // 2)
    with Registry(f"localhost:{cutter.port}", Options(retry_delay=0.05)) as registry:
        assert registry.repository("cut/down").fetch(LAYER).read() == DATA
        assert cutter.cuts == 1
        assert cutter.sent["down"] < SIZE + SLACK
    cutter.close()
