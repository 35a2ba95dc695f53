"""What the collector asks and does in the database: one item of the review queue at a time, each on its own.

Work is proportional to what changed: nothing here walks a table. An item that is still wanted costs a look and leaves
the queue; whoever takes the last reference away puts it in again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from argosy.errors import BlobUnknownError
from argosy.server.metadata import Transaction, blobs, manifests, outbox, repositories
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.repositories import review


class Item(NamedTuple):
    """One entry of the review queue."""

    repo_id: int
    kind: str
    digest: str
    attempts: int


class Outcome(NamedTuple):
    """What became of an item: `collected` says whether something was removed, `size` how many bytes it had."""

    collected: bool = False
    size: int = 0


Policy = Callable[[str], bool]
"""Given a repository's name, whether its untagged manifests are collected."""


def due(tx: Transaction, now: float, limit: int) -> list[Item]:
    """The oldest items whose time has come."""
    rows = tx.rows(
        "SELECT repo_id, kind, digest, attempts FROM review WHERE review_after <= ?"
        " ORDER BY review_after LIMIT ?",
        (now, limit),
    )
    return [Item(*row) for row in rows]


def settle(tx: Transaction, change: Change, item: Item, untagged: Policy) -> Outcome:
    """Look at one item: drop it from the queue, put it off, or collect it.

    Raises:
        ForeignKeyError: a push was quicker; the item stays in the queue.
    """
    claimed = tx.row(
        "SELECT review_after FROM review WHERE repo_id = ? AND kind = ? AND digest = ?"
        " AND review_after <= ? /*pg FOR UPDATE SKIP LOCKED*/",
        (item.repo_id, item.kind, item.digest, change.now),
    )
    if claimed is None:
        return Outcome()
    tx.rows(
        "DELETE FROM review WHERE repo_id = ? AND kind = ? AND digest = ?",
        (item.repo_id, item.kind, item.digest),
    )
    return _KINDS[item.kind](tx, change, item, untagged)


def postpone(tx: Transaction, change: Change, item: Item) -> None:
    """Put an item that failed off: a minute, two, four, at most a day. It never stops the others."""
    delay = min(86400.0, 60.0 * 2 ** min(item.attempts, 11))
    tx.rows(
        "UPDATE review SET attempts = attempts + 1, review_after = ?"
        " WHERE repo_id = ? AND kind = ? AND digest = ?",
        (change.now + delay, item.repo_id, item.kind, item.digest),
    )


def _blob(tx: Transaction, change: Change, item: Item, untagged: Policy) -> Outcome:
    """A link of a repository: it goes if no manifest refers to it and its lease is over."""
    del untagged
    found = tx.row(
        "SELECT protected_until FROM repo_blob WHERE repo_id = ? AND digest = ? /*pg FOR UPDATE*/",
        (item.repo_id, item.digest),
    )
    name = repositories.name_of(tx, item.repo_id)
    if found is None or name is None:
        return Outcome()
    # By target: a reference that was written while the blob arrived may not be resolved.
    used = tx.row(
        "SELECT 1 FROM manifest_ref WHERE repo_id = ? AND target = ? AND kind = 'blob' LIMIT 1",
        (item.repo_id, item.digest),
    )
    if used is not None:
        return Outcome()
    if found[0] > change.now:
        review(tx, item.repo_id, item.kind, item.digest, found[0])
        return Outcome()
    blobs.drop_link(tx, change, (item.repo_id, name), item.digest, outbox.BLOB_COLLECTED)
    return Outcome(collected=True)


def _content(tx: Transaction, change: Change, item: Item, untagged: Policy) -> Outcome:
    """A blob of the registry: its rows go if nobody holds it, its objects go later."""
    del untagged
    found = tx.row("SELECT size FROM blob WHERE digest = ? /*pg FOR UPDATE*/", (item.digest,))
    held = tx.row(
        "SELECT 1 FROM repo_blob WHERE digest = ? UNION ALL SELECT 1 FROM upload WHERE known = ?"
        " LIMIT 1",
        (item.digest, item.digest),
    )
    if found is None:
        return Outcome()
    if held is not None:
        uploading = tx.row("SELECT 1 FROM upload WHERE known = ?", (item.digest,))
        if uploading is not None:  # the upload may fail and leave it to nobody
            review(tx, 0, "content", item.digest, change.now + 3600.0)
        return Outcome()
    tx.rows(
        "INSERT INTO trash (key, digest, position, size, not_before)"
        " SELECT key, digest, position, size, ? FROM blob_segment WHERE digest = ?",
        (change.now + change.trash, item.digest),
    )
    tx.rows("DELETE FROM blob WHERE digest = ?", (item.digest,))
    outbox.add(tx, change, outbox.CONTENT_COLLECTED, "", digest=item.digest, size=found[0])
    return Outcome(collected=True, size=found[0])


def _manifest(tx: Transaction, change: Change, item: Item, untagged: Policy) -> Outcome:
    """A manifest without a tag, a parent or a living subject, where the policy says that such ones go."""
    name = repositories.name_of(tx, item.repo_id)
    if name is None or not untagged(name):
        return Outcome()
    found = tx.row(
        "SELECT protected_until FROM manifest WHERE repo_id = ? AND digest = ? /*pg FOR UPDATE*/",
        (item.repo_id, item.digest),
    )
    if found is None or manifests.is_wanted(tx, item.repo_id, item.digest):
        return Outcome()
    if found[0] > change.now:
        review(tx, item.repo_id, item.kind, item.digest, found[0])
        return Outcome()
    manifests.remove(tx, change, (item.repo_id, name), item.digest)
    return Outcome(collected=True)


def _repository(tx: Transaction, change: Change, item: Item, untagged: Policy) -> Outcome:
    """A repository that has held nothing for the length of the grace."""
    del untagged
    found = tx.row("SELECT created FROM repository WHERE id = ? /*pg FOR UPDATE*/", (item.repo_id,))
    if found is None:
        return Outcome()
    for table in ("manifest", "repo_blob", "upload"):
        query = f"SELECT 1 FROM {table} WHERE repo_id = ? LIMIT 1"  # noqa: S608
        if tx.row(query, (item.repo_id,)) is not None:
            if table != "manifest":
                review(tx, item.repo_id, "repository", "", change.now + max(change.grace, 60.0))
            return Outcome()
    tx.rows("DELETE FROM review WHERE repo_id = ?", (item.repo_id,))
    tx.rows("DELETE FROM repository WHERE id = ?", (item.repo_id,))
    return Outcome(collected=True)


_KINDS: dict[str, Callable[[Transaction, Change, Item, Policy], Outcome]] = {
    "blob": _blob,
    "content": _content,
    "manifest": _manifest,
    "repository": _repository,
}


# -- trash ----------------------------------------------------------------------------------------


def doom(tx: Transaction, now: float, limit: int) -> list[str]:
    """Keys whose window is over; from here on nobody can undelete them."""
    rows = tx.rows(
        "SELECT key FROM trash WHERE not_before <= ? ORDER BY not_before LIMIT ?"
        " /*pg FOR UPDATE SKIP LOCKED*/",
        (now, limit),
    )
    for row in rows:
        tx.rows("UPDATE trash SET digest = NULL WHERE key = ?", row)
    return [row[0] for row in rows]


def forget(tx: Transaction, keys: Sequence[str]) -> None:
    """Objects that are deleted leave the trash."""
    for key in sorted(keys):
        tx.rows("DELETE FROM trash WHERE key = ?", (key,))


def delay(tx: Transaction, keys: Sequence[str], until: float) -> None:
    """Objects that could not be deleted are tried again later."""
    for key in sorted(keys):
        tx.rows("UPDATE trash SET not_before = ? WHERE key = ?", (until, key))


def unreferenced(tx: Transaction, keys: Sequence[str]) -> list[str]:
    """Those of some keys that no row knows."""
    known: set[str] = set()
    for at in range(0, len(keys), 500):
        batch = keys[at : at + 500]
        marks = ", ".join("?" * len(batch))
        for table in ("blob_segment", "upload_segment", "trash"):
            query = f"SELECT key FROM {table} WHERE key IN ({marks})"  # noqa: S608
            known.update(row[0] for row in tx.rows(query, batch))
    return [key for key in keys if key not in known]


def active(tx: Transaction, uploads: Sequence[str]) -> set[str]:
    """Those of some upload ids that are sessions now."""
    found: set[str] = set()
    for at in range(0, len(uploads), 500):
        batch = uploads[at : at + 500]
        marks = ", ".join("?" * len(batch))
        query = f"SELECT id FROM upload WHERE id IN ({marks})"  # noqa: S608
        found.update(row[0] for row in tx.rows(query, batch))
    return found


def undelete(tx: Transaction, change: Change, name: str, digest: str) -> None:
    """Bring a collected blob back into a repository while its bytes are still in the trash.

    Raises:
        BlobUnknownError: it is not in the trash, or its window is over.
    """
    rows = tx.rows(
        "SELECT key, size FROM trash WHERE digest = ? ORDER BY position /*pg FOR UPDATE*/",
        (digest,),
    )
    repo = (repositories.ensure(tx, name, change), name)
    if blobs.healthy(tx, digest):
        found = tx.row("SELECT size FROM blob WHERE digest = ?", (digest,))
        assert found is not None
        blobs.link(tx, change, repo, digest, found[0], outbox.BLOB_PUSHED)
        return
    if not rows:
        raise BlobUnknownError(f"blob {digest} is not in the trash")
    segments = [Segment(*row) for row in rows]
    forget(tx, [segment.key for segment in segments])
    blobs.commit(tx, change, repo, digest, sum(s.size for s in segments), segments)


# -- scrub ----------------------------------------------------------------------------------------


class Check(NamedTuple):
    """A blob to read again; `verified` is when that was done last."""

    digest: str
    size: int
    version: int
    segments: tuple[Segment, ...]
    verified: float = 0.0
    is_damaged: bool = False


def unverified(
    tx: Transaction, before: float, limit: int, after: tuple[float, str] = (-1.0, "")
) -> list[Check]:
    """Blobs that were last read before a time, the oldest first; the damaged ones too, for they may be good again.

    Args:
        after: Time and digest of the last one that was looked at.
    """
    rows = tx.rows(
        "SELECT digest, size, version, verified, state FROM blob"
        " WHERE verified < ? AND (verified, digest) > (?, ?) ORDER BY verified, digest LIMIT ?",
        (before, *after, limit),
    )
    return [
        Check(digest, size, version, tuple(segments_of(tx, digest)), verified, state != "ok")
        for digest, size, version, verified, state in rows
    ]


def sample(tx: Transaction, limit: int) -> list[Segment]:
    """Some objects of blobs, whichever come first."""
    rows = tx.rows("SELECT key, size FROM blob_segment WHERE size > 0 LIMIT ?", (limit,))
    return [Segment(*row) for row in rows]


def segmented(tx: Transaction, limit: int) -> list[Check]:
    """Blobs that lie in several objects."""
    rows = tx.rows(
        "SELECT b.digest, b.size, b.version FROM blob b WHERE b.state = 'ok' AND b.digest IN"
        " (SELECT digest FROM blob_segment WHERE position = 1 LIMIT ?)",
        (limit,),
    )
    return [Check(d, size, v, tuple(segments_of(tx, d))) for d, size, v in rows]


def segments_of(tx: Transaction, digest: str) -> list[Segment]:
    """The objects of a blob, in order."""
    rows = tx.rows(
        "SELECT key, size FROM blob_segment WHERE digest = ? ORDER BY position", (digest,)
    )
    return [Segment(*row) for row in rows]


def proved(tx: Transaction, digest: str, version: int, now: float) -> None:
    """Remember that a blob was read, and found as it was before: right, or damaged."""
    tx.rows("UPDATE blob SET verified = ? WHERE digest = ? AND version = ?", (now, digest, version))


def damage(tx: Transaction, change: Change, digest: str, version: int) -> bool:
    """Mark a blob whose bytes are wrong or gone: it is not there for anybody until it is pushed again."""
    marked = tx.row(
        "UPDATE blob SET state = 'damaged', version = version + 1, verified = ?"
        " WHERE digest = ? AND version = ? RETURNING 1",
        (change.now, digest, version),
    )
    if marked is not None:
        outbox.add(tx, change, outbox.BLOB_DAMAGED, "", digest=digest)
    return marked is not None


def heal(tx: Transaction, digest: str, version: int, now: float) -> bool:
    """Serve a blob again whose bytes were found right after all; False if it changed meanwhile."""
    healed = tx.row(
        "UPDATE blob SET state = 'ok', version = version + 1, verified = ?"
        " WHERE digest = ? AND version = ? AND state = 'damaged' RETURNING 1",
        (now, digest, version),
    )
    return healed is not None


def compact(tx: Transaction, change: Change, check: Check, segment: Segment) -> bool:
    """Put one object in the place of several; False if the blob changed meanwhile."""
    found = tx.row(
        "SELECT version FROM blob WHERE digest = ? AND state = 'ok' /*pg FOR UPDATE*/",
        (check.digest,),
    )
    if found is None or found[0] != check.version:
        blobs.discard(tx, change._replace(trash=0.0), [segment])
        return False
    blobs.replace(tx, change, check.digest, [segment])
    outbox.add(tx, change, outbox.BLOB_MOVED, "", digest=check.digest, size=check.size)
    return True


# -- figures --------------------------------------------------------------------------------------

_FIGURES = {
    "repositories": "SELECT count(*) FROM repository",
    "tags": "SELECT count(*) FROM tag",
    "manifests": "SELECT count(*) FROM manifest",
    "manifest_bytes": "SELECT COALESCE(sum(size), 0) FROM manifest",
    "blobs": "SELECT count(*) FROM blob",
    "blob_bytes": "SELECT COALESCE(sum(size), 0) FROM blob",
    "linked_bytes": "SELECT COALESCE(sum(b.size), 0) FROM repo_blob l JOIN blob b ON b.digest = l.digest",
    "damaged": "SELECT count(*) FROM blob WHERE state = 'damaged'",
    "uploads": "SELECT count(*) FROM upload",
    "review": "SELECT count(*) FROM review",
    "trash": "SELECT count(*) FROM trash",
    "trash_bytes": "SELECT COALESCE(sum(size), 0) FROM trash",
    "events": "SELECT count(*) FROM event",
    "failing_webhooks": "SELECT count(*) FROM delivery",
    "dead_letters": "SELECT count(*) FROM dead_letter",
}


def figures(tx: Transaction, now: float) -> dict[str, float]:
    """How much of everything there is, and the age in seconds of the most overdue review (0: none)."""
    found = {}
    for name, query in _FIGURES.items():
        row = tx.row(query)
        found[name] = row[0] if row else 0
    oldest = tx.row("SELECT min(review_after) FROM review WHERE review_after <= ?", (now,))
    found["overdue_seconds"] = now - oldest[0] if oldest and oldest[0] is not None else 0.0
    return found
