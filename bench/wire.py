"""A registry's client for benchmarks: bare sockets, as little Python as can be between two system calls.

It trusts what it is told, verifies nothing, and throws away what it downloads: it measures servers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: *(?:https?://[^/]+)?([^\r]+)", re.IGNORECASE)


class Wire:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 120)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = bytearray(1 << 18)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def ask(
        self, method: str, target: str, body: bytes | memoryview = b"", kind: str = ""
    ) -> tuple[int, bytes, int]:
        """Status, head, and length of the body, which is read and dropped."""
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {MANIFEST}\r\n"
            f"Content-Type: {kind or 'application/octet-stream'}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        if len(body) < 65536:
            self.sock.sendall(head.encode() + bytes(body))
        else:
            self.sock.sendall(head.encode())
            self.sock.sendall(body)
        return self.answer(bodiless=method == "HEAD")

    def answer(self, *, bodiless: bool) -> tuple[int, bytes, int]:
        """The next answer of the server."""
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            if not (more := self.sock.recv(65536)):
                raise SystemExit("a registry hung up")
            got += more
        head, rest = got[:end], len(got) - end - 4
        status = int(got[9:12])
        found = _LENGTH.search(head)
        if found is None and not bodiless and b"chunked" in head.lower():
            return status, head, self._chunked(got[end + 4 :])
        length = int(found[1]) if found and not bodiless else 0
        left = length - rest
        while left > 0:
            if not (count := self.sock.recv_into(self.buffer, min(left, len(self.buffer)))):
                raise SystemExit("a registry hung up")
            left -= count
        return status, head, length

    def _chunked(self, got: bytes) -> int:
        while not got.endswith(b"0\r\n\r\n"):
            got += self.sock.recv(65536)
        return len(got)

    def want(self, status: int, method: str, target: str, *body: bytes | memoryview | str) -> bytes:
        """The head of an answer that has to have this status."""
        got, head, _ = self.ask(method, target, *body)  # type: ignore[arg-type]
        if got != status:
            raise SystemExit(f"{method} {target}: {head.decode(errors='replace')}")
        return head

    def push(self, name: str, data: bytes | memoryview, digest: str) -> None:
        """A blob, as one PUT after a POST."""
        head = self.want(202, "POST", f"/v2/{name}/blobs/uploads/")
        found = _LOCATION.search(head)
        assert found is not None
        target = found[1].decode()
        joint = "&" if "?" in target else "?"
        self.want(201, "PUT", f"{target}{joint}digest={digest}", data)


@dataclasses.dataclass(frozen=True)
class Image:
    """An image of one layer, ready to be sent."""

    name: str
    layer: bytes
    digest: str
    config: bytes
    manifest: bytes

    @classmethod
    def of(cls, name: str, layer: bytes) -> Image:
        """The image whose layer has these bytes."""
        digest = sha256(layer)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"type": "layers", "diff_ids": [digest]},
            }
        ).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": LAYER, "digest": digest, "size": len(layer)}],
        }
        return cls(name, layer, digest, config, json.dumps(document).encode())

    def push(self, wire: Wire, tag: str = "v1") -> None:
        """Layer, config and manifest, as clients do."""
        wire.push(self.name, self.layer, self.digest)
        wire.push(self.name, self.config, sha256(self.config))
        wire.want(201, "PUT", f"/v2/{self.name}/manifests/{tag}", self.manifest, MANIFEST)

    def pull(self, wire: Wire, tag: str = "v1") -> None:
        """Manifest, config and layer, as clients do."""
        wire.want(200, "HEAD", f"/v2/{self.name}/manifests/{tag}")
        wire.want(200, "GET", f"/v2/{self.name}/manifests/{sha256(self.manifest)}")
        wire.want(200, "GET", f"/v2/{self.name}/blobs/{sha256(self.config)}")
        wire.want(200, "GET", f"/v2/{self.name}/blobs/{self.digest}")


def sha256(data: bytes | memoryview) -> str:
    """The digest string of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def distinct(size: int, number: int) -> bytes:
    """Bytes that are unlike those of every other number, and do not compress to nothing."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return seed + (seed * 32 + bytes(1024)) * (size // 2048) + bytes(size % 2048)


def _shared(work: Sequence[Callable[[Wire], None]], taken: Any) -> Iterator[Callable[[Wire], None]]:
    """What of a list nobody else has taken yet, whichever process it is in."""
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= len(work):
            return
        yield work[number]


def together(work: Sequence[Callable[[Wire], None]], port: int, clients: int) -> float:
    """Jobs a second when so many clients at a time share the work.

    Clients are threads of at most two processes; each keeps its connection, and takes the next job when it is done
    with one, so that all are busy to the end. The clock runs from the moment all are connected to the last answer.
    """
    context = multiprocessing.get_context("fork")
    processes = min(2, clients)
    barrier = context.Barrier(clients + 1)
    failed = context.Value("i", 0)
    taken = context.Value("i", 0)

    def client() -> None:
        try:
            wire = Wire(port)
            barrier.wait(60)
            for job in _shared(work, taken):
                job(wire)
            wire.close()
        except BaseException:
            failed.value = 1
            barrier.abort()
            raise

    def several(first: int) -> None:
        threads = [threading.Thread(target=client) for _ in range(first, clients, processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = [context.Process(target=several, args=(first,)) for first in range(processes)]
    for child in children:
        child.start()
    barrier.wait(60)
    began = time.perf_counter()
    for child in children:
        child.join(600)
    seconds = time.perf_counter() - began
    if failed.value or any(child.exitcode for child in children):
        raise SystemExit("a client of the load failed")
    return len(work) / seconds


def flood(port: int, request: bytes, connections: int, seconds: float) -> float:
    """Answers a second to a request without a body (HEAD) that so many connections repeat; all have to be 200."""
    poll = select.epoll()
    open_ = {}
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port), 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poll.register(sock, select.EPOLLIN)
        open_[sock.fileno()] = sock
        sock.sendall(request)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for fd, _ in poll.poll(30):
            got = open_[fd].recv(65536)
            if not got.startswith(b"HTTP/1.1 200") or not got.endswith(b"\r\n\r\n"):
                raise SystemExit(f"unexpected answer: {got!r}")
            open_[fd].sendall(request)
            count += 1
    for sock in open_.values():
        sock.close()
    return count / (time.perf_counter() - began)
