"""The journal and the rebuild: a lost database is made again from the storage alone."""

from __future__ import annotations

import asyncio
import base64
import errno
import itertools
import json
import shutil
from typing import Any

import pytest

from argosy.errors import StorageError
from argosy.server import journal
from argosy.server.metadata.postgresql import Postgresql
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.settings import Content, Settings
from argosy.server.storage.filesystem import FileSystem
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server.client import EMPTY_CONFIG, Server, image, index, subject
from tests.server.services import PostgresqlCluster


def write(server: Server) -> None:
    while server.run(journal.write(server.registry.metadata, server.registry.storage)):
        pass


def everything(server: Server) -> dict[str, list[tuple[Any, ...]]]:
    """What a client can see, without database ids and times."""
    of = {
        "tags": "SELECT r.name, t.name, t.digest FROM tag t JOIN repository r ON r.id = t.repo_id",
        "manifests": "SELECT r.name, m.digest, m.media_type, m.size, m.subject, m.artifact_type,"
        " b.annotations, b.content FROM manifest m JOIN repository r ON r.id = m.repo_id"
        " JOIN manifest_body b ON b.repo_id = m.repo_id AND b.digest = m.digest",
        "links": "SELECT r.name, l.digest FROM repo_blob l JOIN repository r ON r.id = l.repo_id",
        "blobs": "SELECT b.digest, b.size, s.position, s.key, s.size FROM blob b"
        " LEFT JOIN blob_segment s ON s.digest = b.digest",
        "refs": "SELECT r.name, f.manifest, f.kind, f.target, f.blob, f.child"
        " FROM manifest_ref f JOIN repository r ON r.id = f.repo_id",
    }
    return {name: sorted(server.rows(sql), key=repr) for name, sql in of.items()}


def rebuilt(server: Server, root: Any, **more: Any) -> Server:
    second = Server(
        str(root), metadata=Sqlite(f"{root}/new.db"), storage=server.registry.storage, **more
    )
    registry = second.registry
    second.run(registry.metadata.write(lambda tx: tx.rows("DELETE FROM setting")))
    second.run(journal.rebuild(registry.metadata, registry.storage))
    return second


def test_a_rebuilt_registry_holds_what_the_lost_one_held(tmp_path: Any) -> None:
    settings = Settings(content=Content(sparse=True))
    with Server(str(tmp_path), settings=settings) as server:
        child = server.push_image("a/b", "one", b"layer one")
        server.push_manifest("a/b", index(child), "multi")
        server.push_manifest("a/b", image(subject=subject(child), annotations={"k": "v"}))
        server.push_image("c", "gone", b"layer two")
        write(server)
        server.push_image("c", "kept", b"layer three")
        server.ask("DELETE", "/v2/c/manifests/gone")
        server.ask("POST", f"/v2/d/blobs/uploads/?mount={Digest.of(b'layer one')}&from=a/b", b"")
        location = server.ask("POST", "/v2/d/blobs/uploads/", b"").location
        for part in (b"in ", b"pieces"):
            location = server.ask("PATCH", location, part).location
        server.ask("PUT", f"{location}?digest={Digest.of(b'in pieces')}", b"")
        server.push_blob("d", b"")
        server.run(server.upkeep.compact())
        removed = server.push_image("e", "x")
        server.ask("DELETE", f"/v2/e/manifests/{removed}")
        write(server)
        expected = everything(server)
        with rebuilt(server, tmp_path, settings=settings) as second:
            assert everything(second) == expected
            found = second.ask("GET", f"/v2/d/blobs/{Digest.of(b'in pieces')}")
            assert found.body == b"in pieces"
            second.push_image("f", "new", b"layer four")
            write(second)


def test_a_journal_in_which_a_manifest_changed_its_type_is_replayed(tmp_path: Any) -> None:
    """Older versions let the second push of the same bytes change it."""
    with Server(str(tmp_path)) as server:
        digest = server.push_image("a", "t")
        write(server)
        key = next(server.registry.storage.keys("j/"))
        lines = [
            json.loads(line) for line in b"".join(server.registry.storage.read(key)).splitlines()
        ]
        pushed = next(line for line in lines if line["kind"] == "manifest.pushed")
        document = json.loads(base64.b64decode(pushed["content"]))
        del document["mediaType"]
        raw = json.dumps(document).encode()
        other = Digest.of(raw)
        pushed |= {"digest": other, "content": base64.b64encode(raw).decode()}
        again = pushed | {"media_type": mediatypes.DOCKER_MANIFEST}
        tagged = next(line for line in lines if line["kind"] == "tag.set") | {"digest": other}
        entries = [line for line in lines if line["kind"] == "blob.pushed"]
        entries += [pushed, again, tagged]
        for number, entry in enumerate(entries, 1):
            entry["id"] = number
        server.registry.storage.delete([key])
        writer = server.registry.storage.create(key)
        writer.write("\n".join(map(json.dumps, entries)).encode())
        writer.commit()
        with rebuilt(server, tmp_path) as second:
            answer = second.ask("GET", "/v2/a/manifests/t")
            assert (answer.body, answer.header("content-type")) == (raw, mediatypes.OCI_MANIFEST)
        assert digest != other


def test_what_was_deleted_after_it_was_written_is_not_rebuilt(
    server: Server, tmp_path: Any
) -> None:
    manifest = server.push_image("a", "t", b"layer")
    blob = server.push_blob("a", b"alone")
    write(server)
    for target in (f"manifests/{manifest}", f"blobs/{blob}"):
        assert server.ask("DELETE", f"/v2/a/{target}").status == 202
    write(server)
    with rebuilt(server, tmp_path) as second:
        for target in ("manifests/t", f"manifests/{manifest}", f"blobs/{blob}"):
            assert second.ask("GET", f"/v2/a/{target}").status == 404
        assert second.ask("GET", f"/v2/a/blobs/{Digest.of(b'layer')}").body == b"layer"


def test_a_rebuild_survives_collected_content(server: Server, tmp_path: Any) -> None:
    server.push_image("a", "t", b"layer")
    server.push_blob("a", b"stray")
    write(server)
    for _ in range(3):
        server.clock.now += 90_000  # type: ignore[attr-defined]
        server.run(server.upkeep.collect())
    write(server)
    with rebuilt(server, tmp_path) as second:
        assert everything(second) == everything(server)


def push_pieces(server: Server, name: str, *parts: bytes) -> Digest:
    location = server.ask("POST", f"/v2/{name}/blobs/uploads/", b"").location
    for part in parts:
        location = server.ask("PATCH", location, part).location
    digest = Digest.of(b"".join(parts))
    assert server.ask("PUT", f"{location}?digest={digest}", b"").status == 201
    return digest


def test_a_blob_that_was_written_anew_since_is_rebuilt(server: Server, tmp_path: Any) -> None:
    digest = push_pieces(server, "a", b"in ", b"pieces")
    server.ask("POST", f"/v2/b/blobs/uploads/?mount={digest}&from=a", b"")
    server.ask("POST", f"/v2/c/blobs/uploads/?mount={digest}&from=a", b"")
    server.push_image("a", "t", b"in pieces")
    write(server)
    server.ask("DELETE", f"/v2/c/blobs/{digest}")
    assert server.run(server.upkeep.compact()) == 1
    write(server)
    server.clock.now += 90_000  # type: ignore[attr-defined]
    assert server.run(server.upkeep.collect()).objects_deleted == 2
    write(server)
    with rebuilt(server, tmp_path) as second:
        assert everything(second) == everything(server)
        assert second.ask("GET", f"/v2/a/blobs/{digest}").body == b"in pieces"


def test_a_blob_that_was_healed_from_elsewhere_is_rebuilt(server: Server, tmp_path: Any) -> None:
    digest = server.push_blob("a", b"blob")
    write(server)
    server.registry.storage.delete([server.rows("SELECT key FROM blob_segment")[0][0]])
    server.push_blob("a", b"another")
    server.clock.now += 1  # type: ignore[attr-defined]
    assert server.run(server.upkeep.scrub(older_than=0)).damaged == [digest]
    server.push_blob("b", b"blob")
    write(server)
    with rebuilt(server, tmp_path) as second:
        assert everything(second) == everything(server)


def test_a_rebuild_leaves_out_what_the_storage_has_lost(server: Server, tmp_path: Any) -> None:
    server.push_image("a", "t", b"layer")
    write(server)
    key = server.rows("SELECT key FROM blob_segment WHERE size = 5")[0][0]
    server.registry.storage.delete([key])
    with rebuilt(server, tmp_path) as second:
        assert second.ask("HEAD", f"/v2/a/blobs/{Digest.of(b'layer')}").status == 404
        assert second.ask("HEAD", "/v2/a/manifests/t").status == 200
        second.push_blob("a", b"layer")
        assert second.ask("GET", f"/v2/a/blobs/{Digest.of(b'layer')}").body == b"layer"


def put(server: Server, key: str, *lines: bytes) -> None:
    writer = server.registry.storage.create(key)
    writer.write(b"\n".join(lines))
    writer.commit()


def test_a_damaged_journal_gives_what_is_left_of_it(server: Server, tmp_path: Any) -> None:
    server.push_image("a", "t", b"layer")
    write(server)
    storage = server.registry.storage
    (key,) = storage.keys("j/")
    lines = b"".join(storage.read(key)).splitlines()
    entry = json.loads(lines[0])
    broken = [
        lines[0][:20],
        b"[" * 100_000,
        b"7",
        b'{"id": "1"}',
        json.dumps(entry | {"id": 101, "digest": "sha256:1"}).encode(),
        json.dumps(entry | {"id": 102, "segments": 7}).encode(),
        json.dumps(entry | {"id": 103, "repository": "NO!"}).encode(),
    ]
    storage.delete([key])
    put(server, key, *lines, *broken)
    put(server, "j/stray", b"x")
    put(server, f"j/{key.split('/')[1]}/stray", b"x")
    second = Server(str(tmp_path), metadata=Sqlite(f"{tmp_path}/new.db"), storage=storage)
    second.run(second.registry.metadata.write(lambda tx: tx.rows("DELETE FROM setting")))
    report = second.run(journal.rebuild(second.registry.metadata, storage))
    with second:
        assert report.damaged == len(broken)
        assert everything(second) == everything(server)


def test_a_damaged_object_of_the_journal_is_not_merged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(12):
        server.push_image("a", f"t{number}", b"layer %d" % number)
        write(server)
    storage = server.registry.storage
    victim = min(storage.keys("j/"))
    storage.delete([victim])
    put(server, victim, b"{")
    put(server, "j/stray", b"x")
    assert journal.merge(storage, most=20) > 0
    assert victim in set(storage.keys("j/"))
    assert "stay apart" in caplog.text


class Away(FileSystem):
    """A storage that goes away after its journal was listed."""

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Any:
        raise StorageError(f"no answer for {key}")


def test_a_rebuild_fails_where_the_storage_is_away(server: Server, tmp_path: Any) -> None:
    server.push_image("a", "t")
    write(server)
    metadata = Sqlite(f"{tmp_path}/new.db")
    with pytest.raises(StorageError, match="no answer for m/registry"):
        server.run(journal.rebuild(metadata, Away(f"{tmp_path}/blobs", reserve=0)))
    with pytest.raises(StorageError, match="neither a journal nor the marker"):
        server.run(journal.rebuild(metadata, FileSystem(f"{tmp_path}/empty", reserve=0)))
    metadata.close()


def test_a_rebuild_refuses_a_database_that_holds_something(server: Server) -> None:
    server.push_image("a", "t")
    with pytest.raises(StorageError, match="not empty"):
        server.run(journal.rebuild(server.registry.metadata, server.registry.storage))


@pytest.mark.parametrize("crash", [False, True])
def test_small_objects_of_the_journal_are_merged(
    server: Server, tmp_path: Any, crash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        server.push_image("a", f"t{number}", b"layer %d" % number)
        server.ask("DELETE", f"/v2/a/manifests/t{number // 2}")
        write(server)
    storage = server.registry.storage
    before = set(storage.keys("j/"))
    if crash:  # the small ones are still there
        monkeypatch.setattr(storage, "delete", lambda _keys: None)
    assert journal.merge(storage, most=20) > 5
    assert (before < set(storage.keys("j/"))) == crash
    with rebuilt(server, tmp_path) as second:
        assert everything(second) == everything(server)


def test_what_is_merged_holds_no_manifest_that_was_deleted(server: Server, tmp_path: Any) -> None:
    storage = server.registry.storage
    held = [image(annotations={"n": str(number)}) for number in range(6)]
    digests = [Digest.of(raw) for raw in held]
    server.push_blob("a", EMPTY_CONFIG)
    for number, raw in enumerate(held):
        server.push_manifest("a", raw, f"t{number}")
        write(server)
    server.push_image("b", "t", annotations={"n": "0"})
    server.push_manifest("a", index(digests[1]), "multi")
    server.push_manifest("a", held[4], "moves")
    server.push_manifest("a", held[3], "moves")
    for digest in digests[:4]:
        assert server.ask("DELETE", f"/v2/a/manifests/{digest}").status == 202
        write(server)
    server.push_manifest("a", held[0], "again")
    write(server)
    assert journal.merge(storage, most=server.rows("SELECT count(*) FROM event")[0][0]) == 10
    (key,) = storage.keys("j/")
    entries = [json.loads(line) for line in b"".join(storage.read(key)).splitlines()]
    kept = [e["digest"] for e in entries if "content" in e and e["repository"] == "a"]
    assert set(kept) == {*digests[4:], Digest.of(index(digests[1])), digests[0]}
    assert kept.count(digests[0]) == 1, "of the push after it was deleted"
    with rebuilt(server, tmp_path) as second:
        assert everything(second) == everything(server)


def test_small_objects_are_merged_whose_events_are_counted_by_postgresql(
    postgresql: PostgresqlCluster, tmp_path: Any
) -> None:
    with Server(str(tmp_path), metadata=Postgresql(postgresql.database())) as server:
        for number in range(12):
            server.push_image("a", f"t{number}", b"layer %d" % number)
            write(server)
        storage = server.registry.storage
        assert len(list(storage.keys("j/"))) == 12
        assert journal.merge(storage, most=20) > 5
        merged = set(storage.keys("j/"))
        assert journal.merge(storage, most=20) == 0, "what was merged is merged again"
        assert set(storage.keys("j/")) == merged
        with rebuilt(server, tmp_path) as second:
            assert everything(second) == everything(server)


def test_two_writers_of_the_journal_keep_one_copy(server: Server) -> None:
    import asyncio

    server.push_image("a", "t", b"layer")

    async def both() -> list[int]:
        registry = server.registry
        once = [journal.write(registry.metadata, registry.storage) for _ in range(2)]
        return await asyncio.gather(*once)

    server.run(both())
    assert len(list(server.registry.storage.keys("j/"))) == 1


def test_what_follows_a_restored_backup_is_rebuilt_beside_what_it_lacked(tmp_path: Any) -> None:
    """Both have events of the same numbers."""
    with Server(str(tmp_path)) as server:
        server.push_image("a", "kept", b"layer")
        write(server)
        server.run(server.registry.metadata.backup(f"{tmp_path}/restored.db"))
        server.clock.now += 10  # type: ignore[attr-defined]
        for number in range(5):
            server.push_image("a", f"lost{number}", b"layer %d" % number)
        server.ask("DELETE", "/v2/a/manifests/kept")
        write(server)
        storage, now = server.registry.storage, server.clock.now  # type: ignore[attr-defined]
    with Server(
        str(tmp_path), metadata=Sqlite(f"{tmp_path}/restored.db"), storage=storage
    ) as server:
        server.clock.now = now + 10  # type: ignore[attr-defined]
        server.run(journal.resume(server.registry.metadata, storage))
        for number in range(5):
            server.push_image("b", f"new{number}", b"new layer %d" % number)
            write(server)
        with rebuilt(server, tmp_path) as second:
            missing = set(everything(server)["links"]) - set(everything(second)["links"])
            assert missing == set()
            tags = {name for _, name, _ in everything(second)["tags"]}
            assert {f"new{number}" for number in range(5)} <= tags
        names = set(storage.keys("j/"))
        server.run(journal.resume(server.registry.metadata, storage))
        server.push_image("b", "more")
        write(server)
        assert {key.split("/")[1] for key in storage.keys("j/")} == {
            key.split("/")[1] for key in names
        }


def test_a_backup_is_a_whole_registry(server: Server, tmp_path: Any) -> None:
    server.push_image("a", "t", b"layer")
    path = f"{tmp_path}/backup.db"
    server.run(server.registry.metadata.backup(path))
    shutil.copytree(f"{tmp_path}/blobs", f"{tmp_path}/second/blobs")
    shutil.move(path, f"{tmp_path}/second/registry.db")
    with Server(f"{tmp_path}/second") as second:
        assert everything(second) == everything(server)
    with pytest.raises(StorageError, match="exists"):
        server.run(server.registry.metadata.backup(f"{tmp_path}/registry.db"))


def test_a_backup_that_breaks_off_is_not_there(
    server: Server, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "backups").mkdir()
    monkeypatch.setattr("argosy.server.metadata.sqlite.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        server.run(server.registry.metadata.backup(f"{tmp_path}/backups/registry.db"))
    assert list((tmp_path / "backups").iterdir()) == []


def test_small_objects_are_merged_now_and_then(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MergingError(Exception):
        pass

    def merge(_: object) -> None:
        raise MergingError

    monkeypatch.setattr(journal, "merge", merge)
    monkeypatch.setattr(journal, "_PAUSE", 0.0)
    server.registry.clock = itertools.count(0.0, 600.0).__next__
    with pytest.raises(MergingError):
        server.run(asyncio.wait_for(journal.run(server.registry), 60))
