"""Killed in the middle (SIGKILL) and run again: only the rest travels, measured at the server."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from tests.server.process import Process
from tests.wire import scripted as s
from tests.wire.uploads import Uploads

SIZE = 64 * 1024 * 1024
SLACK = 6 * 1024 * 1024
"""What may be on its way when a process dies: buffers of two sockets, and a piece that was not written yet."""

DATA = os.urandom(1 << 20) * (SIZE >> 20)
LAYER = Descriptor.of(mediatypes.OCI_LAYER, DATA)
CONFIG = Descriptor.of(mediatypes.OCI_CONFIG, b"{}")
RAW = Manifest(config=CONFIG, layers=(LAYER,)).encode()
DIGEST = Digest.of(RAW)


@pytest.fixture
def environ(tmp_path: pathlib.Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "PYTHONPATH": str(pathlib.Path(__file__).parents[2] / "src"),
    }


def argosy(environ: dict[str, str], *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "argosy", *argv, "--progress", "none"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def killed(process: subprocess.Popen[bytes], when: threading.Event) -> None:
    """Kill the process once the server says so."""
    assert when.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def finished(process: subprocess.Popen[bytes]) -> None:
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()


class Downloads:
    """A blob that stops coming half-way, the first time."""

    def __init__(self, server: s.Scripted, layout: pathlib.Path) -> None:
        self.layout = layout
        self.half, self.sent, self.ranges = threading.Event(), 0, list[str]()
        server.on("GET", f".*/blobs/{LAYER.digest}", self.stop, self.rest)
        server.on("GET", f".*/blobs/{CONFIG.digest}", s.answer(200, {}, b"{}"))
        server.on("*", ".*/manifests/.*", s.manifest(RAW, Docker_Content_Digest=DIGEST))

    def stop(self, seen: s.Seen, peer: s.Peer) -> bool:
        peer.sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode())
        for start in range(0, SIZE // 2, 1 << 20):
            peer.sock.sendall(DATA[start : start + (1 << 20)])
            self.sent += 1 << 20
        while self.written() < SIZE // 2 - (2 << 20):  # what is in no buffer any more
            peer.stop.wait(0.01)
        self.half.set()
        peer.stop.wait(60)
        return False

    def written(self) -> int:
        return max((f.stat().st_size for f in self.layout.rglob("*") if f.is_file()), default=0)

    def rest(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.ranges.append(seen.headers.get("range", ""))
        start = int(self.ranges[-1].removeprefix("bytes=").partition("-")[0] or 0)
        self.sent += SIZE - start
        return s.blob(DATA)(seen, peer)


@pytest.fixture
def downloads(scripted: s.Scripted, tmp_path: pathlib.Path) -> Downloads:
    return Downloads(scripted, tmp_path / "layout")


def test_a_pull_that_was_killed_fetches_only_the_rest(
    scripted: s.Scripted, downloads: Downloads, environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    # over one connection, also where this machine is slow: what is sent over it is what is counted
    command = ("cp", "--jobs", "1", f"{scripted.name}/app:v1", f"oci:{tmp_path}/layout:v1")
    killed(argosy(environ, *command), downloads.half)
    scripted.stop.set()  # let the first answer end
    scripted.stop = threading.Event()
    finished(argosy(environ, *command))
    assert len(downloads.ranges) == 1
    assert downloads.ranges[0].endswith(f"-{SIZE - 1}")
    assert SIZE <= downloads.sent <= SIZE + SLACK
    store = LayoutStore.open(str(tmp_path / "layout"))
    assert store.resolve("v1").digest == DIGEST
    with store.fetch(LAYER) as reader:
        while reader.read(1 << 20):
            pass


def test_a_push_that_was_killed_sends_only_the_rest(
    scripted: s.Scripted, environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    memory = MemoryStore()
    memory.add(mediatypes.OCI_CONFIG, b"{}")
    memory.add(mediatypes.OCI_LAYER, DATA)
    memory.add(mediatypes.OCI_MANIFEST, RAW, "v1")
    copy(memory, "v1", LayoutStore.create(str(tmp_path / "layout")), "v1")
    scripted.on("HEAD", f".*/blobs/{CONFIG.digest}", s.answer(200))
    scripted.on("PUT", ".*/manifests/v1", s.answer(201))
    uploads = Uploads(scripted)
    half, taken = threading.Event(), uploads.take

    def take(seen: s.Seen, peer: s.Peer) -> bool:
        if half.is_set():
            return taken(seen, peer)
        while len(uploads.data) < SIZE and (got := peer.file.read1(1 << 20)):
            uploads.data += got
            uploads.received += len(got)
            if len(uploads.data) > SIZE // 2:
                half.set()
        return False

    uploads.take = take  # type: ignore[method-assign]
    command = ("cp", f"oci:{tmp_path}/layout:v1", f"{scripted.name}/app:v1")
    process = argosy(environ, *command)
    killed(process, half)
    finished(argosy(environ, *command))
    assert uploads.stored == DATA
    assert uploads.sessions == 1
    assert SIZE <= uploads.received <= SIZE + SLACK
    assert list((tmp_path / "state" / "argosy" / "uploads").iterdir()) == []


class Counting:
    """A door to a server that counts what comes through, and says when so much has come."""

    def __init__(self, port: int, half: int) -> None:
        self._target, self._server = port, socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.received, self.half, self._limit = 0, threading.Event(), half
        self._sockets = [self._server]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._server.accept()
                other = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [one, other]
                for way in ((one, other, True), (other, one, False)):
                    self._threads.append(threading.Thread(target=self._pump, args=way))
                    self._threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                self.received += len(data) if up else 0
                if self.received > self._limit and not self.half.is_set():
                    self.half.set()
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()


def test_a_push_to_our_own_registry_that_was_killed_sends_only_the_rest(
    environ: dict[str, str], tmp_path: pathlib.Path
) -> None:
    memory = MemoryStore()
    memory.add(mediatypes.OCI_CONFIG, b"{}")
    memory.add(mediatypes.OCI_LAYER, DATA)
    memory.add(mediatypes.OCI_MANIFEST, RAW, "v1")
    copy(memory, "v1", LayoutStore.create(str(tmp_path / "layout")), "v1")
    with Process(str(tmp_path / "data")) as server:
        door = Counting(server.port, SIZE // 2)
        try:
            command = ("cp", f"oci:{tmp_path}/layout:v1", f"localhost:{door.port}/app:v1")
            killed(argosy(environ, *command), door.half)
            before = door.received
            finished(argosy(environ, *command))
        finally:
            door.close()
        assert SIZE // 2 < before < SIZE
        assert SIZE <= door.received <= SIZE + SLACK
        assert server.ask("GET", "/v2/app/manifests/v1")[2] == RAW
        assert Digest.of(server.ask("GET", f"/v2/app/blobs/{LAYER.digest}")[2]) == LAYER.digest
