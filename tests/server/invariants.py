"""What must hold of every registry at every moment, asked of the database and the storage themselves."""

from __future__ import annotations

from argosy.server.metadata.postgresql import Postgresql
from argosy.spec.digest import Digest
from tests.server.client import Server


def check(server: Server) -> None:
    """No row without its objects, no link without its blob, no object that is nobody's for ever."""
    storage = server.registry.storage
    objects = set(storage.keys("b/"))
    blobs: dict[str, list[tuple[str, int]]] = {}
    for digest, size, key, length in server.rows(
        "SELECT b.digest, b.size, s.key, s.size FROM blob b"
        " LEFT JOIN blob_segment s ON s.digest = b.digest WHERE b.state = 'ok'"
        " ORDER BY b.digest, s.position"
    ):
        blobs.setdefault(digest, [])
        if key is None:
            assert size == 0, f"{digest} has no objects"
        else:
            blobs[digest].append((key, length))
    for digest, segments in blobs.items():
        assert {key for key, _ in segments} <= objects, f"{digest}: an object is missing"
        content = b"".join(b"".join(storage.read(key, 0, size)) for key, size in segments)
        assert Digest.of(content, Digest(digest).algorithm) == digest
    if not isinstance(server.registry.metadata, Postgresql):  # which never lets them be broken
        assert server.rows("PRAGMA foreign_key_check") == []
    for digest, content in server.rows("SELECT digest, content FROM manifest_body"):
        assert Digest.of(content, Digest(digest).algorithm) == digest
    unbodied = server.rows(
        "SELECT m.digest FROM manifest m LEFT JOIN manifest_body b"
        " ON b.repo_id = m.repo_id AND b.digest = m.digest WHERE b.digest IS NULL"
    )
    assert unbodied == []
    uploading = {row[0] for row in server.rows("SELECT key FROM upload_segment")}
    assert uploading <= objects, "a part of an upload is missing"


def nothing_left_over(server: Server) -> None:
    """After all graces and windows: an object is a blob's, and whatever is in a repository is referred to."""
    for _ in range(4):
        server.clock.now += 200_000  # type: ignore[attr-defined]
        server.run(server.upkeep.collect())
    known = {row[0] for row in server.rows("SELECT key FROM blob_segment")}
    assert set(server.registry.storage.keys("b/")) == known
    loose = server.rows(
        "SELECT l.digest FROM repo_blob l WHERE NOT EXISTS (SELECT 1 FROM manifest_ref f"
        " WHERE f.repo_id = l.repo_id AND f.blob = l.digest)"
    )
    assert loose == []
    unlinked = server.rows(
        "SELECT b.digest FROM blob b WHERE NOT EXISTS"
        " (SELECT 1 FROM repo_blob l WHERE l.digest = b.digest)"
    )
    assert unlinked == []
    for table in ("upload", "trash", "review"):
        assert server.rows(f"SELECT * FROM {table}") == []
