"""What the registry does when something from outside is too slow, too big, or gone: client, disk, database."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from argosy.errors import StorageError
from argosy.server.assemble import build
from argosy.server.handlers import bodies
from argosy.server.metadata import schema
from argosy.server.metadata.ground import check_file_system, check_version
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.registry import Exchange
from argosy.server.settings import Limits, Settings
from argosy.server.storage import InsufficientStorageError
from argosy.server.storage.filesystem import FileSystem
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server import invariants
from tests.server.client import Server, image, index

# -- clients --------------------------------------------------------------------------------------


def test_little_is_held_for_a_client_that_takes_nothing(server: Server) -> None:
    """The HTTP server holds some ten messages, whatever their size; a thousand clients do the rest."""
    digest = server.push_blob("a", bytes(3_000_000))
    handed_out: list[int] = []
    read = server.registry.storage.read

    def counted(key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        for piece in read(key, start, stop):
            handed_out.append(len(piece))
            yield piece

    server.registry.storage.read = counted  # type: ignore[method-assign]
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": f"/v2/a/blobs/{digest}".encode(),
        "headers": [(b"range", b"bytes=1-")],
    }
    sizes: list[int] = []

    async def receive() -> Any:
        await asyncio.sleep(3600)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sizes.append(len(message["body"]))
            await asyncio.sleep(0.05)
            raise OSError("gone")

    server.run(server.app(scope, receive, send))
    assert sizes[0] <= 64 * 1024
    assert sum(handed_out) <= 512 * 1024


def interrupted(server: Server, method: str, target: str, then: str) -> list[Any]:
    """A request whose body begins, and then the client hangs up or says nothing more."""
    sent: list[Any] = []
    begun = False

    async def receive() -> dict[str, Any]:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"x" * 600_000, "more_body": True}
        if then == "silence":
            await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"content-length", b"2000000")],
    }
    server.run(server.app(scope, receive, send))
    return sent


@pytest.mark.parametrize("then", ["silence", "hang up"])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_body_that_stops_and_did_not_say_where_it_begins_leaves_the_session_as_it_was(
    tmp_path: Path, method: str, then: str
) -> None:
    settings = Settings(limits=Limits(body_idle_seconds=0.05))
    with Server(str(tmp_path), settings=settings) as server:
        location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
        location = server.ask("PATCH", location, b"first").location
        whole = f"{location}?digest={Digest.of(b'firstlast')}"
        sent = interrupted(server, method, whole if method == "PUT" else location, then)
        assert sent[0]["status"] == (408 if then == "silence" else 400)
        assert server.ask("GET", location).header("range") == "0-4"
        assert server.ask("PUT", whole, b"last").status == 201
        invariants.check(server)


def test_very_many_small_chunks_are_refused_and_the_upload_can_still_end(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_FEW", 3)
    data = b"abcdefgh"
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    sent = [server.ask("PATCH", location, data[at : at + 2]) for at in (0, 2, 4, 6)]
    assert [answer.status for answer in sent] == [202, 202, 202, 413]
    assert sent[-1].code == "SIZE_INVALID"
    assert server.ask("GET", location).header("range") == "0-5"
    digest = Digest.of(data)
    assert server.ask("PUT", f"{location}?digest={digest}", b"gh").status == 201
    assert server.ask("HEAD", f"/v2/a/blobs/{digest}").header("content-length") == "8"
    assert server.ask("GET", f"/v2/a/blobs/{digest}").body == data


def test_clients_are_told_the_size_of_chunks(tmp_path: Path) -> None:
    registry = build(Settings(data=str(tmp_path))).registry
    (tmp_path / "other").mkdir()
    with contextlib.closing(registry.metadata), Server(str(tmp_path / "other")) as server:
        server.registry.chunk_min_length = registry.chunk_min_length
        answer = server.ask("POST", "/v2/a/blobs/uploads/", b"")
    assert answer.header("oci-chunk-min-length") == str(bodies.CHUNK)


def test_chunks_of_a_fair_size_may_be_many(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_FEW", 1)
    monkeypatch.setattr(bodies, "CHUNK", 2)
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    sent = [server.ask("PATCH", location, b"ab").status for _ in range(9)]
    assert sent == [202] * 9


def test_a_length_that_is_no_number_is_400(server: Server) -> None:
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    assert server.ask("PATCH", location, b"x", {"content-length": "-1"}).status == 400


def test_a_path_or_query_too_long_to_mean_something_is_414(server: Server) -> None:
    assert server.ask("GET", f"/v2/{'a' * 3000}/tags/list").status == 414
    many = "&".join(f"tag=t{number}" for number in range(1100))
    assert server.ask("PUT", f"/v2/a/manifests/{Digest.of(b'x')}?{many}", b"{}").status == 414


def test_a_websocket_is_refused(server: Server) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    server.run(server.app({"type": "websocket"}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def asked(server: Server, target: str, send: Any, **headers: str) -> list[Exchange]:
    """A GET whose answer goes to `send`; what the log and the counters are told of it."""
    seen: list[Exchange] = []
    server.registry.on_exchange = seen.append
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": target.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    server.run(server.app(scope, None, send))  # type: ignore[arg-type]
    return seen


def test_a_client_that_stops_reading_is_left_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taken: list[Any] = []

    async def send(message: Any) -> None:
        if len(taken) == 3:
            await asyncio.sleep(3600)
        taken.append(message)

    settings = Settings(limits=Limits(body_idle_seconds=0.05))
    with Server(str(tmp_path), settings=settings) as server:
        digest = server.push_blob("a", os.urandom(5 << 20))
        (seen,) = asked(server, f"/v2/a/blobs/{digest}", send, range="bytes=1-")
    assert (seen.route, seen.status, seen.sent) == ("blob", 206, 2 << 16)
    assert "the answer broke off" in caplog.text


# -- the disk -------------------------------------------------------------------------------------


def emptied(path: str) -> None:
    os.truncate(path, 0)


def test_a_full_disk_refuses_pushes_and_goes_on_serving(tmp_path: Path) -> None:
    with Server(str(tmp_path)) as server:
        digest = server.push_image("a", "t", b"layer")
        storage = FileSystem(f"{tmp_path}/blobs", reserve=1 << 60)
        server.registry.storage = storage
        location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
        answer = server.ask("PUT", f"{location}?digest={Digest.of(b'more')}", b"more")
        assert (answer.status, answer.code, answer.header("retry-after")) == (507, "DENIED", "60")
        assert b"storage is full" in answer.body
        assert server.ask("GET", f"/v2/a/manifests/{digest}").status == 200
        assert server.ask("GET", f"/v2/a/blobs/{Digest.of(b'layer')}").body == b"layer"


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=0-3"}], ids=["whole", "range"])
@pytest.mark.parametrize(
    ("harm", "status", "code"), [(os.unlink, 404, "BLOB_UNKNOWN"), (emptied, 500, "UNKNOWN")]
)
def test_a_blob_whose_object_is_lost_is_an_error_clients_understand(
    server: Server, headers: dict[str, str], harm: Any, status: int, code: str
) -> None:
    digest = server.push_blob("a", b"hello")
    (key,) = server.registry.storage.keys("b/")
    harm(server.registry.storage.locate(key).path)
    seen: list[Exchange] = []
    server.registry.on_exchange = seen.append
    answer = server.ask("GET", f"/v2/a/blobs/{digest}", headers=headers)
    assert (answer.status, answer.code) == (status, code)
    assert answer.header("docker-distribution-api-version") == "registry/2.0"
    assert [exchange.status for exchange in seen] == [status]


def test_room_for_the_whole_body_is_asked_for_before_it_is_read(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = found.f_bavail * found.f_frsize
    storage = FileSystem(f"{tmp_path}/blobs", reserve=1)
    storage.create("b/x-1", size=10).abort()
    with pytest.raises(InsufficientStorageError):
        storage.create("b/x-2", size=free * 2)


def test_objects_belong_to_the_registry_alone(tmp_path: Path) -> None:
    with Server(str(tmp_path)) as server:
        server.push_blob("a", b"x")
        for folder, _, files in os.walk(tmp_path / "blobs"):
            assert os.stat(folder).st_mode & 0o077 == 0
            for file in files:
                assert os.stat(os.path.join(folder, file)).st_mode & 0o177 == 0
        assert os.stat(tmp_path / "registry.db").st_mode & 0o177 == 0


def test_a_directory_that_disappears_is_made_again(tmp_path: Path) -> None:
    storage = FileSystem(f"{tmp_path}/blobs", reserve=0)
    for number in range(2):
        writer = storage.create(f"b/20270101/x-{number}")
        writer.write(b"x")
        writer.commit()
        storage.delete([f"b/20270101/x-{number}"])
        os.rmdir(tmp_path / "blobs/b/20270101")
        os.rmdir(tmp_path / "blobs/b")


# -- the database ---------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["3.40.1", "3.44.5", "3.50.6", "3.51.2", "3.7.0", "3.45.0"])
def test_a_sqlite_that_can_lose_commits_is_refused(version: str) -> None:
    with pytest.raises(StorageError, match=version):
        check_version(version)


@pytest.mark.parametrize("version", ["3.44.6", "3.50.7", "3.51.3", "3.52.0", "4.0.0"])
def test_a_sqlite_with_the_fix_is_taken(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize(
    ("kind", "refused"),
    [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("9p", True), ("ext4", False),
     ("xfs", False), ("overlay", False), ("tmpfs", False), ("fuseblk", False)],
)  # fmt: skip
def test_a_network_file_system_is_refused(tmp_path: Path, kind: str, refused: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:5 / /data\\040dir rw shared:1 - {kind} server:/x rw\n"
    )
    check_file_system("/elsewhere", str(mounts))
    if refused:
        with pytest.raises(StorageError, match="local"):
            check_file_system("/data dir/registry", str(mounts))
    else:
        check_file_system("/data dir/registry", str(mounts))


def test_a_database_of_a_newer_argosy_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "registry.db")
    Sqlite(path).close()
    with contextlib.closing(apsw.Connection(path)) as connection:
        connection.execute("UPDATE schema_version SET version = 999")
    with pytest.raises(StorageError, match="999"):
        Sqlite(path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"this is no database at all" * 1000)
    with pytest.raises(StorageError):
        Sqlite(str(path))
    with pytest.raises(StorageError):
        Sqlite(str(tmp_path / "no/such/folder/registry.db"))


def test_migrations_run_one_version_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "VERSION", 3)
    monkeypatch.setattr(schema, "MIGRATIONS", {1: ("one",), 2: ("two", "three")})
    step = "UPDATE schema_version SET version = version + 1"
    assert schema.statements(1) == ("one", step, "two", "three", step)
    assert schema.statements(3) == ()


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    metadata = Sqlite(str(tmp_path / "registry.db"))
    metadata.close()
    with asyncio.Runner() as runner, pytest.raises(StorageError, match="closed"):
        runner.run(metadata.write(lambda tx: tx.rows("SELECT 1")))


QUERIES = (
    "UPDATE manifest_ref SET blob = target WHERE repo_id = 1 AND target = 'a' AND kind = 'blob'",
    "UPDATE manifest_ref SET child = NULL WHERE repo_id = 1 AND child = 'a'",
    "SELECT 1 FROM manifest_ref WHERE repo_id = 1 AND target = 'a' AND kind = 'blob' LIMIT 1",
    "SELECT digest FROM manifest WHERE repo_id = 1 AND subject = 'a' AND digest > 'b' LIMIT 9",
    "SELECT 1 FROM tag WHERE repo_id = 1 AND digest = 'a' LIMIT 1",
    "DELETE FROM tag WHERE repo_id = 1 AND digest = 'a'",
    "DELETE FROM repo_blob WHERE repo_id = 1 AND digest = 'x'",
    "DELETE FROM manifest WHERE repo_id = 1 AND digest = 'x'",
    "DELETE FROM blob WHERE digest = 'x'",
    "SELECT repo_id FROM review WHERE review_after <= 1 ORDER BY review_after LIMIT 9",
    "SELECT key FROM trash WHERE not_before <= 1 ORDER BY not_before LIMIT 9",
    "SELECT id FROM upload WHERE expires < 1 AND lease_until < 1 ORDER BY expires LIMIT 9",
)


@pytest.mark.parametrize("query", QUERIES)
def test_no_query_walks_through_a_repository(server: Server, query: str) -> None:
    """Foreign keys are looked up by the same planner, and stand in these plans too."""
    for row in server.rows(f"EXPLAIN QUERY PLAN {query}"):
        assert not row[3].startswith("SCAN"), row[3]
        assert not row[3].endswith("(repo_id=?)"), row[3]


# -- headers --------------------------------------------------------------------------------------


def test_a_push_against_the_advice_of_the_specification_is_warned_of(server: Server) -> None:
    server.push_blob("a", b"{}")
    answer = server.put_manifest("a", image(), "t")
    assert answer.status == 201
    assert answer.all("warning") == ['299 - "layers: should have at least one entry"']
    children = [server.push_image("a", None, b"%d" % number) for number in range(3)]
    document = index(*children).replace(mediatypes.OCI_MANIFEST.encode(), b"text/plain")
    server.registry.sparse = lambda _name: True
    answer = server.put_manifest("a", document, "many")
    assert len(answer.all("warning")) == 3
    assert sum(map(len, answer.all("warning"))) <= 4096
