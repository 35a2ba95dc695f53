"""A storage that is not the database's: nothing is taken in, and nobody is told that something is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.server import journal, marker, probe
from argosy.server.storage import Storage
from argosy.server.storage.filesystem import FileSystem
from argosy.server.storage.objects import Objects
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server.client import Clock, Server
from tests.server.fixtures import objects as s3_server
from tests.server.services import S3Server

Open = Callable[[str], Storage]
objects = s3_server
INDEX = b'{"schemaVersion":2,"manifests":[]}'


@pytest.fixture(params=["files", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens storages by name; `missing` of S3 is a bucket that is not there."""
    if request.param == "files":
        return lambda name: FileSystem(str(tmp_path / name), reserve=0)
    services: S3Server = request.getfixturevalue("objects")
    buckets = {"missing": "no-such-bucket"}

    def bucket(name: str) -> Storage:
        chosen = buckets.get(name) or buckets.setdefault(name, services.bucket())
        return Objects(services.store(chosen))

    return bucket


@pytest.fixture(autouse=True)
def _always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_FRESH_SECONDS", 0.0)


def _filled(root: Path, storage: Storage, content: bytes) -> str:
    root.mkdir()
    with Server(str(root), storage=storage) as server:
        digest = server.push_blob("a", content)
        server.run(journal.write(server.registry.metadata, storage))
    return digest


@pytest.mark.parametrize("place", ["missing", "empty", "another"])
def test_nothing_is_acknowledged_while_the_storage_is_not_the_databases(
    tmp_path: Path, opened: Open, place: str
) -> None:
    own = opened("own")
    digest = _filled(tmp_path / "one", own, b"hello")
    _filled(tmp_path / "two", opened("another"), b"other")
    strange = opened(place)
    before = [] if place == "missing" else sorted(strange.keys("b/"))
    with Server(str(tmp_path / "one"), storage=strange) as server:
        url = f"/v2/a/blobs/{digest}"
        asked = [
            server.ask("GET", "/readyz"),
            server.ask("HEAD", url),
            server.ask("GET", url),
            server.ask("POST", "/v2/a/blobs/uploads/"),
            server.ask("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a"),
            server.ask("POST", f"/v2/b/blobs/uploads/?digest={digest}", b"hello"),
            server.ask("POST", f"/v2/b/blobs/uploads/?digest={Digest.of(b'new')}", b"new"),
            server.ask("PUT", "/v2/a/manifests/t", INDEX, {"content-type": mediatypes.OCI_INDEX}),
        ]
        assert [answer.status for answer in asked] == [503] * len(asked)
        assert all(answer.header("retry-after") for answer in asked)
    assert place == "missing" or sorted(strange.keys("b/")) == before
    with Server(str(tmp_path / "one"), storage=own) as server:
        assert server.ask("HEAD", url).status == 200
        assert server.ask("PUT", "/v2/a/manifests/t", INDEX).status == 201


def test_a_storage_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with Server(str(tmp_path)) as server:
        digest = server.push_blob("a", b"hello")
        (tmp_path / "blobs").rename(tmp_path / "elsewhere")
        assert server.ask("HEAD", f"/v2/a/blobs/{digest}").status == 503
        (tmp_path / "elsewhere").rename(tmp_path / "blobs")
        assert server.ask("HEAD", f"/v2/a/blobs/{digest}").status == 200
        server.push_blob("a", b"more")


def test_the_collector_and_the_journal_leave_anothers_storage_alone(
    tmp_path: Path, opened: Open
) -> None:
    own, another = opened("own"), opened("another")
    clock = Clock()
    (tmp_path / "one").mkdir()
    with Server(str(tmp_path / "one"), storage=own, clock=clock) as server:
        kept, digest = server.push_blob("a", b"kept"), server.push_blob("a", b"hello")
        server.push_image("a", "t", b"kept")
        server.ask("DELETE", f"/v2/a/blobs/{digest}")
        key = server.rows("SELECT key FROM blob_segment WHERE digest = ?", (digest,))[0][0]
    _filled(tmp_path / "two", another, b"other")
    before = sorted(another.keys(""))
    with Server(str(tmp_path / "one"), storage=another, clock=clock) as server:
        for _ in range(3):
            clock.now += 200_000
            server.run(server.upkeep.collect())
        with pytest.raises(marker.StorageAwayError):
            server.run(journal.write(server.registry.metadata, another))
        with pytest.raises(marker.StorageAwayError):
            server.run(server.upkeep.scrub(older_than=0.0))
        assert sorted(another.keys("")) == before
    assert key in own.keys("b/")
    with Server(str(tmp_path / "one"), storage=own, clock=clock) as server:
        server.run(server.upkeep.collect())
        assert key not in own.keys("b/")
        assert server.ask("HEAD", f"/v2/a/blobs/{kept}").status == 200


def test_a_database_without_blobs_takes_a_new_place_and_no_other_registrys(tmp_path: Path) -> None:
    def place(name: str) -> FileSystem:
        return FileSystem(str(tmp_path / name), reserve=0)

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with Server(str(tmp_path / name), storage=place(name + "-blobs")) as server:
            assert server.ask("GET", "/readyz").status == 200
    with Server(str(tmp_path / "one"), storage=place("new")) as server:
        assert server.ask("GET", "/readyz").status == 200
        with pytest.raises(marker.StorageAwayError, match="another registry's"):
            server.run(marker.check(server.registry.metadata, place("two-blobs")))


def test_a_marker_of_an_older_version_will_do_and_gets_a_name(tmp_path: Path) -> None:
    storage = FileSystem(str(tmp_path / "blobs"), reserve=0)
    with Server(str(tmp_path), storage=storage) as server:
        server.push_blob("a", b"hello")
        named = [key for key in storage.keys("m/") if key != marker.KEY]
        assert len(named) == 1
        storage.delete(named)
        server.run(server.registry.metadata.write(lambda tx: tx.rows("DELETE FROM setting")))
        server.push_blob("a", b"more")
        assert len(list(storage.keys("m/"))) == 2


def test_who_knows_that_all_blobs_are_lost_may_write_so(tmp_path: Path) -> None:
    with Server(str(tmp_path)) as server:
        digest = server.push_blob("a", b"hello")
    (tmp_path / "blobs").rename(tmp_path / "lost")
    (tmp_path / "blobs" / "m").mkdir(parents=True)
    (tmp_path / "blobs" / marker.KEY).write_text("lost\n")
    with Server(str(tmp_path)) as server:
        assert server.ask("GET", "/readyz").status == 200
        server.clock.now += 1  # type: ignore[attr-defined]
        assert server.run(server.upkeep.scrub(older_than=0.0)).damaged == [digest]
        assert server.push_blob("a", b"hello") == digest
        assert server.ask("GET", f"/v2/a/blobs/{digest}").status == 200
