"""The schema, in SQLite's words; the PostgreSQL engine translates types and identity columns.

Who refers to whom is written as foreign keys, and they are what makes collection safe while pushes go on:

    tag ──> manifest <── manifest_ref ──> repo_blob ──> blob <── blob_segment
                 └─────────^ (child)          upload ──────^ (known)

- `manifest_ref.blob` and `manifest_ref.child` are set where the content is in the repository, NULL where it is not
  (foreign layers, sparse indexes); `target` always holds the digest. A reference resolves when the content arrives.
- A blob that a manifest refers to cannot leave its repository; a blob that a repository or a running upload holds
  cannot leave the registry. Whoever comes second, push or collector, is refused by the key and starts again.
- `repo_blob.protected_until` is the lease of a blob no manifest refers to yet.
- `trash` holds what no row refers to any more, until nobody can still be reading it: rows go first, objects later.
"""

from __future__ import annotations

from argosy.errors import StorageError
from argosy.server.metadata import Transaction

VERSION = 3
"""The schema version this code writes."""

_STEP = "UPDATE schema_version SET version = version + 1"

TABLES: tuple[str, ...] = (
    "CREATE TABLE schema_version (version INTEGER NOT NULL)",
    """CREATE TABLE repository (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created REAL NOT NULL)""",
    # state: 'ok', or 'damaged' when the scrub found other bytes than the digest says.
    """CREATE TABLE blob (
        digest TEXT NOT NULL PRIMARY KEY,
        size INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'ok',
        version INTEGER NOT NULL DEFAULT 1,
        created REAL NOT NULL,
        verified REAL NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX blob_verified ON blob (verified, digest)",
    """CREATE TABLE blob_segment (
        digest TEXT NOT NULL REFERENCES blob (digest) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        key TEXT NOT NULL UNIQUE,
        size INTEGER NOT NULL,
        PRIMARY KEY (digest, position)) WITHOUT ROWID""",
    # Blobs that lie in several objects, for compaction.
    "CREATE INDEX blob_segment_more ON blob_segment (digest) WHERE position = 1",
    """CREATE TABLE repo_blob (
        repo_id INTEGER NOT NULL REFERENCES repository (id),
        digest TEXT NOT NULL REFERENCES blob (digest),
        protected_until REAL NOT NULL,
        PRIMARY KEY (repo_id, digest)) WITHOUT ROWID""",
    "CREATE INDEX repo_blob_digest ON repo_blob (digest, repo_id)",
    """CREATE TABLE manifest (
        repo_id INTEGER NOT NULL REFERENCES repository (id),
        digest TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        subject TEXT,
        artifact_type TEXT,
        pushed REAL NOT NULL,
        protected_until REAL NOT NULL,
        PRIMARY KEY (repo_id, digest)) WITHOUT ROWID""",
    """CREATE INDEX manifest_subject ON manifest (repo_id, subject, digest)
        WHERE subject IS NOT NULL""",
    # All that may be long: who looks for a row of a table WITHOUT ROWID reads whole rows on the way. Annotations are
    # JSON.
    """CREATE TABLE manifest_body (
        repo_id INTEGER NOT NULL,
        digest TEXT NOT NULL,
        content BLOB NOT NULL,
        annotations TEXT,
        PRIMARY KEY (repo_id, digest),
        FOREIGN KEY (repo_id, digest) REFERENCES manifest (repo_id, digest) ON DELETE CASCADE)""",
    """CREATE TABLE manifest_ref (
        repo_id INTEGER NOT NULL,
        manifest TEXT NOT NULL,
        kind TEXT NOT NULL,
        target TEXT NOT NULL,
        blob TEXT,
        child TEXT,
        PRIMARY KEY (repo_id, manifest, kind, target),
        FOREIGN KEY (repo_id, manifest) REFERENCES manifest (repo_id, digest) ON DELETE CASCADE,
        FOREIGN KEY (repo_id, blob) REFERENCES repo_blob (repo_id, digest),
        FOREIGN KEY (repo_id, child) REFERENCES manifest (repo_id, digest)) WITHOUT ROWID""",
    "CREATE INDEX manifest_ref_target ON manifest_ref (repo_id, target)",
    "CREATE INDEX manifest_ref_blob ON manifest_ref (repo_id, blob) WHERE blob IS NOT NULL",
    "CREATE INDEX manifest_ref_child ON manifest_ref (repo_id, child) WHERE child IS NOT NULL",
    """CREATE TABLE tag (
        repo_id INTEGER NOT NULL,
        name TEXT NOT NULL,
        digest TEXT NOT NULL,
        updated REAL NOT NULL,
        PRIMARY KEY (repo_id, name),
        FOREIGN KEY (repo_id, digest) REFERENCES manifest (repo_id, digest)) WITHOUT ROWID""",
    "CREATE INDEX tag_digest ON tag (repo_id, digest)",
    # A body under way holds `lease_until`; `version` counts the bodies begun and names their objects.
    """CREATE TABLE upload (
        repo_id INTEGER NOT NULL REFERENCES repository (id),
        id TEXT NOT NULL,
        principal TEXT NOT NULL,
        algorithm TEXT NOT NULL,
        received INTEGER NOT NULL,
        version INTEGER NOT NULL,
        lease_until REAL NOT NULL,
        so_far TEXT,
        known TEXT REFERENCES blob (digest),
        expires REAL NOT NULL,
        holder TEXT,
        PRIMARY KEY (repo_id, id)) WITHOUT ROWID""",
    "CREATE INDEX upload_expires ON upload (expires)",
    "CREATE INDEX upload_known ON upload (known) WHERE known IS NOT NULL",
    """CREATE TABLE upload_segment (
        repo_id INTEGER NOT NULL,
        upload TEXT NOT NULL,
        position INTEGER NOT NULL,
        key TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (repo_id, upload, position),
        FOREIGN KEY (repo_id, upload) REFERENCES upload (repo_id, id) ON DELETE CASCADE)
        WITHOUT ROWID""",
    # What the collector must look at again: kind 'blob' (a link of a repository), 'manifest', 'content' (a blob of
    # the registry, repo_id 0) or 'repository' (digest '').
    """CREATE TABLE review (
        repo_id INTEGER NOT NULL,
        kind TEXT NOT NULL,
        digest TEXT NOT NULL,
        review_after REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (repo_id, kind, digest)) WITHOUT ROWID""",
    "CREATE INDEX review_after ON review (review_after)",
    # key ending in '-' or '/': everything below that prefix which no segment refers to.
    """CREATE TABLE trash (
        key TEXT NOT NULL PRIMARY KEY,
        digest TEXT,
        position INTEGER NOT NULL DEFAULT 0,
        size INTEGER NOT NULL DEFAULT 0,
        not_before REAL NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX trash_not_before ON trash (not_before)",
    "CREATE INDEX trash_digest ON trash (digest) WHERE digest IS NOT NULL",
    # The outbox: one row a change, written in the transaction of the change. Columns that do not apply are NULL.
    """CREATE TABLE event (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        repository TEXT NOT NULL,
        digest TEXT,
        tag TEXT,
        media_type TEXT,
        size INTEGER,
        principal TEXT NOT NULL,
        request_id TEXT NOT NULL)""",
    # How far each reader of the outbox has come: 'journal', and one a webhook.
    """CREATE TABLE event_cursor (
        consumer TEXT NOT NULL PRIMARY KEY,
        position INTEGER NOT NULL) WITHOUT ROWID""",
    # Small facts of this registry: the upload secret, the day swept last.
    "CREATE TABLE setting (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # Work only one replica does at a time: webhooks, retention, the first pull of a cached blob.
    """CREATE TABLE lease (
        name TEXT NOT NULL PRIMARY KEY,
        holder TEXT NOT NULL,
        lease_until REAL NOT NULL) WITHOUT ROWID""",
    # Webhooks: tries of the next event, and events that were given up.
    """CREATE TABLE delivery (
        consumer TEXT NOT NULL PRIMARY KEY,
        attempts INTEGER NOT NULL,
        not_before REAL NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE dead_letter (
        consumer TEXT NOT NULL,
        event INTEGER NOT NULL,
        at REAL NOT NULL,
        problem TEXT NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (consumer, event)) WITHOUT ROWID""",
    # Pull-through cache: when a reference was last compared with the upstream, and until when it counts as missing.
    """CREATE TABLE upstream (
        repository TEXT NOT NULL,
        reference TEXT NOT NULL,
        checked REAL NOT NULL,
        missing_until REAL NOT NULL,
        PRIMARY KEY (repository, reference)) WITHOUT ROWID""",
    f"INSERT INTO schema_version (version) VALUES ({VERSION})",  # noqa: S608
)

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: ("ALTER TABLE upload ADD COLUMN holder TEXT",),
    2: (
        "ALTER TABLE manifest_body ADD COLUMN annotations TEXT",
        (
            "UPDATE manifest_body SET annotations = (SELECT m.annotations FROM manifest m"
            " WHERE m.repo_id = manifest_body.repo_id AND m.digest = manifest_body.digest)"
            " WHERE (repo_id, digest) IN"
            " (SELECT m.repo_id, m.digest FROM manifest m WHERE m.annotations IS NOT NULL)"
        ),
        "ALTER TABLE manifest DROP COLUMN annotations",
    ),
}
"""From a version to the next one: statements in the same words."""


def statements(current: int | None) -> tuple[str, ...]:
    """What brings a database from a schema version (None: an empty database) to `VERSION`.

    Raises:
        StorageError: the database was written by a newer argosy.
    """
    if current is None:
        return TABLES
    if current > VERSION:
        raise StorageError(
            f"the database has schema version {current}, this argosy reads up to {VERSION}",
            hint="run the newer argosy that wrote it, or restore a backup",
        )
    return tuple(s for step in range(current, VERSION) for s in (*MIGRATIONS[step], _STEP))


def current_version(tx: Transaction) -> int | None:
    """The schema version of a database that has the table for it."""
    found = tx.row("SELECT max(version) FROM schema_version")
    return found[0] if found else None
