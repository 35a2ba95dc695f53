"""A registry that answers as it is told, over real sockets: also what no HTTP server would send."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclasses.dataclass
class Seen:
    """A request as it came: `body` is what was read of it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    length: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Peer:
    """The other end of one connection."""

    def __init__(self, sock: socket.socket, stop: threading.Event) -> None:
        self.sock, self.stop = sock, stop
        self.file: io.BufferedReader = sock.makefile("rb")

    def request(self) -> Seen | None:
        line = self.file.readline(65536)
        if not line.endswith(b"\r\n") or line.count(b" ") < 2:
            return None
        method, target, _ = line.decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while (field := self.file.readline(65536)) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Seen(method, target, headers, length=int(headers.get("content-length", "0")))

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Answer = Callable[[Seen, Peer], bool]
"""Answers one request; False ends the connection."""


def answer(
    status: int,
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    body: bytes = b"",
    *,
    close: bool = False,
) -> Answer:
    """An ordinary answer."""
    fields = list(headers.items()) if isinstance(headers, Mapping) else list(headers or [])
    if not any(name.lower() == "content-length" for name, _ in fields):
        fields.append(("Content-Length", str(len(body))))

    def send(seen: Seen, peer: Peer) -> bool:
        if seen.length:
            seen.body = peer.file.read(seen.length)
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        peer.sock.sendall(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode("latin-1"))
        if seen.method != "HEAD":
            peer.sock.sendall(body)
        return not close

    return send


def manifest(raw: bytes, media_type: str = MANIFEST, **headers: str) -> Answer:
    """A manifest, with whatever headers are given (`_` stands for `-`)."""
    fields = {"Content-Type": media_type}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return answer(200, fields, raw)


def cut(body: bytes, after: int, *, status: int = 200, **headers: str) -> Answer:
    """The right length, fewer bytes, and then a reset."""

    def send(seen: Seen, peer: Peer) -> bool:
        extra = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        peer.sock.sendall(head.encode() + body[:after])
        return False

    return send


def blob(body: bytes) -> Answer:
    """A blob, whole or the range that is asked for."""

    def send(seen: Seen, peer: Peer) -> bool:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers.get("range", ""))
        if not match:
            return answer(200, {}, body)(seen, peer)
        start, end = int(match[1]), int(match[2])
        fields = {"Content-Range": f"bytes {start}-{end}/{len(body)}"}
        return answer(206, fields, body[start : end + 1])(seen, peer)

    return send


def raw(data: bytes) -> Answer:
    """Any bytes, then the end."""

    def send(seen: Seen, peer: Peer) -> bool:
        peer.sock.sendall(data)
        return False

    return send


def reset(after: int = 0) -> Answer:
    """A reset, after some bytes of the request's body were read."""

    def send(seen: Seen, peer: Peer) -> bool:
        seen.body = peer.file.read(min(after, seen.length))
        peer.reset()
        return False

    return send


def early(status: int, body: bytes = b"", **headers: str) -> Answer:
    """An answer before the request's body was read."""

    def send(seen: Seen, peer: Peer) -> bool:
        extra = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in headers.items())
        peer.sock.sendall(
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body
        )
        peer.sock.shutdown(socket.SHUT_WR)
        while peer.sock.recv(1 << 20):
            pass
        return False

    return send


def silence(seen: Seen, peer: Peer) -> bool:
    """Nothing at all, until the test ends."""
    peer.stop.wait()
    return False


def trickle(head: bytes, one: bytes) -> Answer:
    """A head, and then one byte after the other for ever."""

    def send(seen: Seen, peer: Peer) -> bool:
        peer.sock.sendall(head)
        while not peer.stop.wait(0.02):
            peer.sock.sendall(one)
        return False

    return send


class Scripted:
    """The registry. Routes are tried in the order they were given, the last answer of a route stays."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.name = f"localhost:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.name}"
        self.seen: list[Seen] = []
        self.stop = threading.Event()
        self._tls = tls
        self._routes: list[tuple[str, re.Pattern[str], list[Answer]]] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._start(self._accept)

    def on(self, method: str, pattern: str, *answers: Answer) -> None:
        """What to answer to a method and a target that matches, whole."""
        with self._lock:
            self._routes.append((method, re.compile(pattern), list(answers)))

    def requests(self, method: str = "", pattern: str = ".*") -> list[Seen]:
        """The requests so far, of one method and target."""
        with self._lock:
            return [
                s for s in self.seen if method in {"", s.method} and re.fullmatch(pattern, s.target)
            ]

    def close(self) -> None:
        """End every connection."""
        if self.stop.is_set():
            return
        self.stop.set()
        self._server.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        self._server.close()

    def _start(self, run: Callable[[], None]) -> None:
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stop.is_set():
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            self._start(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        peer: Peer | None = None
        try:
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with self._lock:
                self._open.add(sock)
            peer = Peer(sock, self.stop)
            while (seen := peer.request()) and self._answered(seen, peer):
                pass
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            if peer:
                peer.file.close()
            sock.close()

    def _answered(self, seen: Seen, peer: Peer) -> bool:
        with self._lock:
            self.seen.append(seen)
            chosen: Answer = answer(404, {}, b'{"errors":[]}')
            for method, pattern, answers in self._routes:
                if method in {"*", seen.method} and pattern.fullmatch(seen.target):
                    chosen = answers.pop(0) if len(answers) > 1 else answers[0]
                    break
        return chosen(seen, peer)
