"""The registry as a process: Granian, sockets, signals."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from argosy.errors import StorageError, UsageError
from argosy.server import http as asgi
from argosy.server import marker
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.serve import _reserved, serve
from argosy.server.settings import Listen, Settings
from argosy.server.storage.filesystem import FileSystem
from argosy.spec.digest import Digest
from tests.server.client import image
from tests.server.process import Process, children
from tests.server.replicas import ask, running

DATA = os.urandom(3_000_000)
DIGEST = Digest.of(DATA)


def push(server: Process, name: str, data: bytes) -> Digest:
    digest = Digest.of(data)
    status, headers, _ = server.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
    assert status == 202
    status, headers, body = server.ask("PUT", f"{headers['location']}?digest={digest}", data)
    assert status == 201, body
    return digest


def test_a_push_and_a_pull_over_a_socket(tmp_path: Path) -> None:
    with Process(str(tmp_path)) as server:
        assert push(server, "a", DATA) == DIGEST
        assert server.ask("GET", f"/v2/a/blobs/{DIGEST}")[2] == DATA
        status, headers, body = server.ask("GET", f"/v2/a/blobs/{DIGEST}", Range="bytes=10-2000009")
        assert (status, body) == (206, DATA[10:2_000_010])
        status, headers, body = server.ask("HEAD", f"/v2/a/blobs/{DIGEST}")
        assert (status, headers["content-length"], body) == (200, "3000000", b"")
        push(server, "a", b"{}")
        raw = image(DIGEST)
        kind = "application/vnd.oci.image.manifest.v1+json"
        assert server.ask("PUT", "/v2/a/manifests/t", raw, Content_Type=kind)[0] == 201
        assert server.ask("GET", "/v2/a/manifests/t")[2] == raw
        assert server.stop() == 0
    with Process(str(tmp_path)) as server:
        assert server.ask("GET", "/v2/a/manifests/t")[2] == raw


def test_several_workers_share_one_registry(tmp_path: Path) -> None:
    with Process(str(tmp_path), workers=2) as server:
        for number in range(12):
            status, headers, _ = server.ask("POST", "/v2/a/blobs/uploads/", b"")
            location = headers["location"]
            for part in (b"one", b"two", b"%d" % number):
                status, headers, _ = server.ask("PATCH", location, part)
                assert status == 202
                location = headers["location"]
            digest = Digest.of(b"onetwo%d" % number)
            assert server.ask("PUT", f"{location}?digest={digest}", b"")[0] == 201
            assert server.ask("GET", f"/v2/a/blobs/{digest}")[2] == b"onetwo%d" % number
        assert server.stop() == 0


def test_the_first_line_is_the_url_and_a_stop_is_heard_while_other_workers_begin(
    tmp_path: Path,
) -> None:
    many = 2 * (os.cpu_count() or 1)  # of which the HTTP server warns
    for workers in (2, many):
        with Process(str(tmp_path), workers=workers) as server:
            assert server.url.startswith("http://127.0.0.1:")
            assert server.stop() == 0


def test_a_stop_in_the_moment_in_which_a_worker_dies_is_heard_and_no_failure(
    tmp_path: Path,
) -> None:
    for dead in (1, 2):
        with Process(str(tmp_path), workers=2) as server:
            workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
            os.kill(server.pid, signal.SIGSTOP)  # so that it learns of both at once
            for worker in workers[:dead]:
                os.kill(int(worker), signal.SIGKILL)
            os.kill(server.pid, signal.SIGTERM)
            os.kill(server.pid, signal.SIGCONT)
            assert server.stop() == 0
        assert not [*tmp_path.glob("registry.db-*")]


def test_an_error_before_the_body_does_not_confuse_the_next_request(tmp_path: Path) -> None:
    with Process(str(tmp_path)) as server:
        connection = server.connect()
        for _ in range(3):
            connection.request(
                "PATCH", "/v2/a/blobs/uploads/none", b"GET /v2/ HTTP/1.1\r\n\r\n" * 100
            )
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404
            with contextlib.suppress(http.client.HTTPException, OSError):
                connection.request("GET", "/v2/")
                assert connection.getresponse().read() == b"{}"
        connection.close()


def test_a_large_body_that_is_refused_gets_its_answer_and_not_a_reset_connection(
    tmp_path: Path,
) -> None:
    with Process(str(tmp_path)) as server:
        piece = bytes(1 << 20)
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(
                    b"PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\n"
                    b"Content-Length: %d\r\n\r\n" % (64 * len(piece))
                )
                for _ in range(64):
                    raw.sendall(piece)
                assert raw.recv(100).startswith(b"HTTP/1.1 404")


def test_who_asks_before_sending_a_body_is_refused_at_once(tmp_path: Path) -> None:
    with (
        Process(str(tmp_path)) as server,
        socket.create_connection(("127.0.0.1", server.port)) as raw,
    ):
        raw.sendall(
            b"PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\n"
            b"Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("piece", [b"x", None], ids=["endless", "stalled"])
def test_a_refused_body_is_not_read_for_ever(
    piece: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "_LINGER", 0.05)
    monkeypatch.setattr(asgi, "_STALLED", 0.01)

    async def receive() -> asgi.Message:
        if piece is None:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": piece, "more_body": True}

    scope = {"method": "PATCH", "headers": [(b"transfer-encoding", b"chunked")]}
    request = asgi.Request(scope, receive, "id")
    asyncio.run(request.drain())
    assert not request.ended


def test_a_stop_lets_a_body_under_way_finish(tmp_path: Path) -> None:
    with Process(str(tmp_path)) as server:
        _, headers, _ = server.ask("POST", "/v2/a/blobs/uploads/", b"")
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(
                f"PUT {headers['location']}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\n"
                f"Content-Length: {len(DATA)}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert raw.recv(100).startswith(b"HTTP/1.1 100")  # the body is waited for
            raw.sendall(DATA[:1_000_000])
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            raw.sendall(DATA[1_000_000:])
            assert raw.recv(100).startswith(b"HTTP/1.1 201")
            raw.close()
            stopping.join()
    with Process(str(tmp_path)) as server:
        assert server.ask("HEAD", f"/v2/a/blobs/{DIGEST}")[0] == 200


def test_a_worker_that_is_told_to_stop_again_lets_a_body_under_way_finish(tmp_path: Path) -> None:
    """As where systemd or a terminal tells the whole group, and the main process its workers."""
    with Process(str(tmp_path)) as server:
        (worker,) = children(server.pid)
        _, headers, _ = server.ask("POST", "/v2/a/blobs/uploads/", b"")
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(
                f"PUT {headers['location']}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\n"
                f"Content-Length: {len(DATA)}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert raw.recv(100).startswith(b"HTTP/1.1 100")
            os.kill(worker, signal.SIGINT)
            while listens(server.port):
                pass
            os.kill(worker, signal.SIGTERM)
            os.kill(worker, signal.SIGINT)
            raw.sendall(DATA)
            assert raw.recv(100).startswith(b"HTTP/1.1 201")


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != errno.ECONNREFUSED


def test_an_address_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = Settings(data=str(tmp_path), listen=Listen(port=taken.getsockname()[1]))
        with pytest.raises(StorageError, match=r"cannot listen on 127\.0\.0\.1"):
            serve(settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_of_two_registries_that_begin_at_the_same_time_one_gets_the_address(host: str) -> None:
    """Before either listens; or each would get half of the requests, and know nothing of the other's uploads."""
    with contextlib.closing(_reserved(host, 0)) as held:
        port = held.getsockname()[1]
        with pytest.raises(StorageError, match=f"cannot listen on {host}:{port}"):
            _reserved(host, port)
        for _ in range(2):
            with socket.socket(held.family) as worker:
                worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                worker.bind(held.getsockname())
                worker.listen()
                socket.create_connection(worker.getsockname()[:2]).close()
                worker.accept()[0].close()
    _reserved(host, port).close()


def test_a_name_is_looked_up_once_and_served(tmp_path: Path) -> None:
    with running(tmp_path, {"listen": {"host": "localhost", "port": 0}}) as server:
        assert server.url.startswith("http://localhost:")
        assert ask(server.address, "GET", "/v2/").status == 200
    with pytest.raises(UsageError, match=r"a\.\.b: it has no address"):
        serve(Settings(data=str(tmp_path / "data"), listen=Listen(host="a..b", port=0)))


def test_a_storage_that_is_not_mounted_is_one_clear_line(tmp_path: Path) -> None:
    with Process(str(tmp_path)) as server:
        push(server, "a", DATA)
        server.stop()
    marked = tmp_path / "blobs" / marker.KEY
    assert marked.is_file()
    os.rename(tmp_path / "blobs", tmp_path / "elsewhere")
    settings = Settings(data=str(tmp_path), listen=Listen(port=0))
    with pytest.raises(StorageError, match="is it mounted"):
        serve(settings)
    shutil.rmtree(tmp_path / "blobs")
    os.rename(tmp_path / "elsewhere", tmp_path / "blobs")
    marked.unlink()  # as an older version left it
    with Process(str(tmp_path)) as server:
        assert server.ask("HEAD", f"/v2/a/blobs/{DIGEST}")[0] == 200
    assert marked.is_file()


def test_a_storage_that_does_not_answer_does_not_keep_a_registry_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "m").write_text("a file where a folder should be")
    metadata = Sqlite(str(tmp_path / "registry.db"))
    marker.require(metadata, FileSystem(str(tmp_path / "blobs"), reserve=0))
    metadata.close()
    assert "nobody knows" in caplog.text


def test_tls_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")

    def renew(serial: int) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=localhost",
             "-set_serial", str(serial)],
            check=True, capture_output=True,
        )  # fmt: skip

    renew(7)
    with Process(str(tmp_path / "data"), certificate=(certificate, key)) as server:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
        connection.request("GET", "/v2/")
        assert connection.getresponse().status == 200
        connection.close()
        before = ssl.get_server_certificate(("127.0.0.1", server.port))
        renew(8)
        deadline = time.monotonic() + 30
        while ssl.get_server_certificate(("127.0.0.1", server.port)) == before:
            assert time.monotonic() < deadline, "the new certificate is not served"


def test_a_large_registry_starts_at_once(tmp_path: Path) -> None:
    async def fill() -> None:
        metadata = Sqlite(str(tmp_path / "registry.db"))
        await metadata.write(_fill)
        metadata.close()

    asyncio.run(fill())
    with Process(str(tmp_path)) as server:
        assert server.ask("GET", "/v2/r/tags/list?n=1")[0] == 200
        assert server.seconds_to_ready < 20


def _fill(tx: object) -> None:
    rows = tx.rows  # type: ignore[attr-defined]
    rows("INSERT INTO repository (id, name, created) VALUES (1, 'r', 0)")
    rows(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        " INSERT INTO manifest (repo_id, digest, media_type, size, pushed, protected_until)"
        " SELECT 1, 'sha256:' || printf('%064d', i), 'x/y', 1, 0, 0 FROM n"
    )


LOADED = """
import sys
from argosy.cli.serve import command
from argosy.server.assemble import build
from argosy.server.settings import Settings
build(Settings(data=sys.argv[1])).registry.metadata.close()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_an_open_registry_loads_no_library_it_does_not_use(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    unused = {
        "bcrypt",
        "cryptography",
        "jsonschema",
        "jwt",
        "obstore",
        "prometheus_client",
        "psycopg",
    }
    assert not unused & set(done.stdout.split())
