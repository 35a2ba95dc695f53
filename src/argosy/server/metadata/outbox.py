"""The outbox: one row for each change, in the transaction of the change, so that no event is lost or invented.

Readers keep a cursor each: the journal for rebuilding, and the webhooks. Identifiers grow with the order of
transactions; in PostgreSQL a lower one may become visible after a higher one, so readers there stop before the
oldest transaction that still runs (see `postgresql`).
"""

from __future__ import annotations

from typing import NamedTuple

from argosy.server.metadata import Transaction

BLOB_PUSHED = "blob.pushed"
BLOB_MOUNTED = "blob.mounted"
BLOB_DELETED = "blob.deleted"
BLOB_COLLECTED = "blob.collected"
BLOB_DAMAGED = "blob.damaged"
BLOB_MOVED = "blob.moved"
CONTENT_COLLECTED = "content.collected"
MANIFEST_PUSHED = "manifest.pushed"
MANIFEST_DELETED = "manifest.deleted"
TAG_SET = "tag.set"
TAG_DELETED = "tag.deleted"

JOURNAL = "journal"
"""The cursor of the journal."""

COUNTER_BITS = 20
"""The lower bits of an identifier, in which every engine counts events."""


class Change(NamedTuple):
    """What every write is told: when it happens, for whom, and what the collector promises.

    Args:
        now: Seconds since the epoch.
        grace: Seconds that content nobody refers to is kept.
        principal: Who asked; empty for anonymous, `gc` for the collector.
        request_id: The request's id, for the log.
        trash: Seconds that the bytes of collected content are kept.
    """

    now: float
    grace: float = 86400.0
    principal: str = ""
    request_id: str = ""
    trash: float = 86400.0


class Event(NamedTuple):
    """A row of the outbox."""

    id: int
    at: float
    kind: str
    repository: str
    digest: str | None
    tag: str | None
    media_type: str | None
    size: int | None
    principal: str
    request_id: str


def add(
    tx: Transaction,
    change: Change,
    kind: str,
    repository: str,
    *,
    digest: str | None = None,
    tag: str | None = None,
    media_type: str | None = None,
    size: int | None = None,
) -> None:
    """Write an event down."""
    tx.rows(
        "INSERT INTO event (at, kind, repository, digest, tag, media_type, size, principal, request_id)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            change.now,
            kind,
            repository,
            digest,
            tag,
            media_type,
            size,
            change.principal,
            change.request_id,
        ),
    )


def position(tx: Transaction, consumer: str) -> int:
    """The last event a consumer is done with; 0 for a new one, which is registered by `advance`."""
    found = tx.row("SELECT position FROM event_cursor WHERE consumer = ?", (consumer,))
    return int(found[0]) if found else 0


def after(tx: Transaction, last: int, limit: int) -> list[Event]:
    """The next events after an identifier."""
    rows = tx.rows(
        "SELECT id, at, kind, repository, digest, tag, media_type, size, principal, request_id"
        " FROM event WHERE id > ? /*pg AND id < (pg_snapshot_xmin(pg_current_snapshot())"
        "::text::bigint << 20)*/ ORDER BY id LIMIT ?",
        (last, limit),
    )
    return [Event(*row) for row in rows]


def count(first: int, last: int) -> int:
    """How many events there are from one identifier to another of one reading: exactly where they follow one another,
    about as many where PostgreSQL has transactions above the bits that all engines count in.

    >>> count(7, 9), count((5 << 20) + 7, (90 << 20) + 9), count((5 << 20) + 9, (6 << 20) + 7)
    (3, 3, 1)
    """
    counted = (last - first) & ((1 << COUNTER_BITS) - 1)
    return counted + 1 if counted >> (COUNTER_BITS - 1) == 0 else 1


def advance(tx: Transaction, consumer: str, last: int) -> None:
    """Remember that a consumer is done with all events up to `last`."""
    tx.rows(
        "INSERT INTO event_cursor (consumer, position) VALUES (?, ?)"
        " ON CONFLICT (consumer) DO UPDATE SET position = excluded.position",
        (consumer, last),
    )


def trim(tx: Transaction, before: float, limit: int = 5000) -> int:
    """Delete events older than `before` that every consumer is done with; answers how many.

    The newest one stays, so that identifiers go on growing.
    """
    done = tx.rows(
        "DELETE FROM event WHERE id IN (SELECT id FROM event WHERE at < ?"
        " AND id <= (SELECT COALESCE(min(position), 0) FROM event_cursor)"
        " AND id < (SELECT max(id) FROM event) ORDER BY id LIMIT ?)"
        " RETURNING id",
        (before, limit),
    )
    return len(done)
