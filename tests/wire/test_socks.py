"""SOCKS 5 proxies (RFC 1928, RFC 1929): what goes over the wire, and what they do wrong."""

# ruff: noqa: SIM117 - one block stands for the registry, one for the failure
from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from argosy.errors import InvalidConfigError, TransportError
from argosy.remote.config import Options
from argosy.remote.connection import TLS
from argosy.remote.registry import Registry
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from tests.interop.registries import Authority
from tests.wire import scripted as s
from tests.wire.test_network import authority, secure

__all__ = ["authority", "secure"]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
DESC = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
GOOD = s.manifest(RAW, Docker_Content_Digest=DESC.digest)
DONE = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50"


@dataclasses.dataclass
class Socks:
    """A proxy that connects everybody to one port of this machine, whatever they ask for."""

    to: int
    users: tuple[str, str] | None = None
    way: int | None = None
    reply: bytes = DONE
    said: list[bytes] = dataclasses.field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError, EOFError):
            if self._greeted(sock):
                _relay(sock, self.to)

    def _greeted(self, sock: socket.socket) -> bool:
        version, count = _exactly(sock, 2)
        assert version == 5
        ways = _exactly(sock, count)
        way = self.way if self.way is not None else 2 if self.users else 0
        _slowly(sock, bytes([5, way if way in ways or self.way is not None else 0xFF]))
        if way not in ways:
            return False
        if way == 2:
            assert _exactly(sock, 1) == b"\x01"
            given = tuple(_exactly(sock, _exactly(sock, 1)[0]).decode() for _ in range(2))
            _slowly(sock, b"\x01\x00" if given == self.users else b"\x01\x01")
            if given != self.users:
                return False
        asked = _exactly(sock, 4)
        length = {1: 4, 4: 16}.get(asked[3]) or _exactly(sock, 1)[0]
        self.said.append(asked[:4] + _exactly(sock, length + 2))
        _slowly(sock, self.reply)
        return self.reply[:2] == b"\x05\x00"


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        got = sock.recv(count - len(data))
        if not got:
            raise EOFError
        data += got
    return data


def _slowly(sock: socket.socket, data: bytes) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in data:
        sock.sendall(bytes([byte]))


def _relay(sock: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as upstream:

        def back() -> None:
            with contextlib.suppress(OSError):
                while data := upstream.recv(65536):
                    sock.sendall(data)

        thread = threading.Thread(target=back, daemon=True)
        thread.start()
        while data := sock.recv(65536):
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)
        thread.join(5)


Proxy = Callable[..., Socks]


@pytest.fixture
def proxy(scripted: s.Scripted) -> Iterator[Proxy]:
    scripted.on("HEAD", "/v2/app/manifests/v1", GOOD)
    with contextlib.ExitStack() as stack:

        def started(**more: object) -> Socks:
            made = Socks(scripted.port, **more)  # type: ignore[arg-type]
            stack.callback(made.close)
            return made

        yield started


def options(proxy: Socks, user: str = "", scheme: str = "socks5", **more: object) -> Options:
    url = f"{scheme}://{user}127.0.0.1:{proxy.port}"
    return Options(
        plain_http=True,
        proxies=dict.fromkeys(("http", "https"), url),
        retry_delay=0.001,
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_the_proxy_is_asked_for_the_name_and_http_is_spoken_as_to_the_registry(
    scripted: s.Scripted, proxy: Proxy, scheme: str
) -> None:
    made = proxy()
    with Registry("registry.test:5000", options(made, scheme=scheme)) as registry:
        assert registry.repository("app").resolve("v1") == DESC
        assert registry.repository("app").resolve("v1") == DESC
    name = b"registry.test"
    assert made.said == [b"\x05\x01\x00\x03" + name + (5000).to_bytes(2, "big")]
    assert [seen.target for seen in scripted.requests()] == ["/v2/app/manifests/v1"] * 2
    assert scripted.requests()[0].headers["host"] == "registry.test:5000"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("192.0.2.7:80", b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"),
        ("[2001:db8::1]:80", b"\x05\x01\x00\x04" + socket.inet_pton(socket.AF_INET6, "2001:db8::1") + b"\x00\x50"),
    ],
)  # fmt: skip
def test_an_address_is_passed_as_one(proxy: Proxy, name: str, address: bytes) -> None:
    made = proxy()
    with Registry(name, options(made)) as registry:
        assert registry.repository("app").resolve("v1") == DESC
    assert made.said == [address]


def test_tls_is_spoken_with_the_registry_through_the_proxy(
    secure: s.Scripted, authority: Authority
) -> None:
    with contextlib.closing(Socks(secure.port)) as made:
        proxies = {"https": f"socks5://127.0.0.1:{made.port}"}
        trusted = Options(proxies=proxies, tls=TLS(ca_files=(authority.ca_file,)), attempts=1)
        with Registry("localhost.registry.test", trusted) as registry:
            with pytest.raises(TransportError, match="certificate not trusted: Hostname mismatch"):
                registry.repository("app").resolve("v1")
        with Registry("registry.test", Options(proxies=proxies, insecure=True)) as registry:
            assert registry.repository("app").resolve("v1") == DESC


def test_user_and_password_are_given_where_they_are_wanted(proxy: Proxy) -> None:
    made = proxy(users=("ada", "p@ss"))
    with Registry("registry.test", options(made, "ada:p%40ss@")) as registry:
        assert registry.repository("app").resolve("v1") == DESC
    with Registry("registry.test", options(proxy(), "ada:p%40ss@")) as registry:
        assert registry.repository("app").resolve("v1") == DESC


@pytest.mark.parametrize(
    ("user", "told"),
    [("", "it wants to know who asks"), ("ada:SECRET@", "it knows no such user and password")],
)
def test_who_is_not_let_in_is_told_so_and_asks_once(proxy: Proxy, user: str, told: str) -> None:
    """Each time more is one nearer to a user who is locked out."""
    made = proxy(users=("ada", "right"))
    with Registry("registry.test", options(made, user)) as registry:
        with pytest.raises(TransportError, match=f"^proxy .*{made.port} refused: {told}") as caught:
            registry.ping()
    assert "SECRET" not in str(caught.value)
    assert "user:password@" in (caught.value.hint or "")
    assert made.connections == 1


@pytest.mark.parametrize(
    ("reply", "told", "times"),
    [
        (b"\x05\x02\x00\x01" + bytes(6), "its rules do not allow it, to a connection to", 1),
        (b"\x05\x05\x00\x01" + bytes(6), r"connection refused, .* registry\.test:80", 2),
        (b"\x05\x04\x00\x01" + bytes(6), "host unreachable", 2),
        (b"\x05\xee\x00\x01" + bytes(6), "error 238", 2),
        (b"\x05\x00", "closed", 2),
    ],
)
def test_what_it_answers_where_it_does_not_connect_is_told(
    proxy: Proxy, reply: bytes, told: str, times: int
) -> None:
    made = proxy(reply=reply)
    if reply == b"\x05\x00":
        made.to = 0  # it hangs up
    with Registry("registry.test", options(made, attempts=2)) as registry:
        with pytest.raises(TransportError, match=told):
            registry.ping()
    assert made.connections == times


@pytest.mark.parametrize(
    "reply", [b"\x05\x00\x00\x04" + bytes(18), b"\x05\x00\x00\x03\x05abcde\x00\x50"]
)
def test_where_it_connects_from_may_be_any_address(proxy: Proxy, reply: bytes) -> None:
    with Registry("registry.test", options(proxy(reply=reply))) as registry:
        assert registry.repository("app").resolve("v1") == DESC


def test_a_way_that_was_not_offered_is_refused(proxy: Proxy) -> None:
    with Registry("registry.test", options(proxy(way=2), attempts=1)) as registry:
        with pytest.raises(TransportError, match="it wants to know who asks"):
            registry.ping()


def test_what_is_no_socks_proxy_is_said_to_be_none() -> None:
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            sock, _ = server.accept()
            with sock:
                sock.recv(3)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                sock.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    proxies = {"http": f"socks5://127.0.0.1:{server.getsockname()[1]}"}
    with (
        server,
        Registry(
            "registry.test", Options(plain_http=True, proxies=proxies, attempts=1)
        ) as registry,
    ):
        with pytest.raises(TransportError, match="it does not speak SOCKS 5"):
            registry.ping()


def test_a_proxy_that_says_nothing_is_not_waited_for() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    proxies = {"http": f"socks5://127.0.0.1:{silent.getsockname()[1]}"}
    made = Options(plain_http=True, proxies=proxies, attempts=1, timeout=0.2, connect_timeout=0.2)
    with silent, Registry("registry.test", made) as registry:
        with pytest.raises(TransportError, match=r"proxy .*timed out"):
            registry.ping()


def test_a_password_that_no_socks_proxy_could_take_is_refused(proxy: Proxy) -> None:
    made = proxy(users=("ada", "x"))
    with Registry("registry.test", options(made, f"ada:{'x' * 256}@", attempts=1)) as registry:
        with pytest.raises(InvalidConfigError, match="255 bytes"):
            registry.ping()
