"""Blobs: which digest is which objects, and which repositories have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from argosy.errors import BlobUnknownError, UnsupportedError
from argosy.server.metadata import ForeignKeyError, Transaction, outbox
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.repositories import review


class Segment(NamedTuple):
    """One object of a blob: its key and size in bytes."""

    key: str
    size: int


class Blob(NamedTuple):
    """A blob of a repository: its size in bytes, the objects in order (none for an empty one, or where nobody asked),
    and its lease."""

    repo_id: int
    size: int
    segments: tuple[Segment, ...]
    protected_until: float


def find(tx: Transaction, name: str, digest: str) -> Blob | None:
    """A healthy blob of a repository. The only way to its bytes is through this link."""
    rows = tx.rows(
        "SELECT l.repo_id, b.size, l.protected_until, s.key, s.size FROM repo_blob l"
        " JOIN blob b ON b.digest = l.digest LEFT JOIN blob_segment s ON s.digest = b.digest"
        " WHERE l.repo_id = (SELECT id FROM repository WHERE name = ?) AND l.digest = ?"
        " AND b.state = 'ok' ORDER BY s.position",
        (name, digest),
    )
    if not rows:
        return None
    repo_id, size, protected = rows[0][:3]
    return Blob(repo_id, size, tuple(Segment(r[3], r[4]) for r in rows if r[3]), protected)


def look(tx: Transaction, name: str, digest: str) -> Blob | None:
    """`find` for those who do not need the objects, of which there may be thousands."""
    found = tx.row(
        "SELECT l.repo_id, b.size, l.protected_until FROM repo_blob l JOIN blob b ON b.digest = l.digest"
        " WHERE l.repo_id = (SELECT id FROM repository WHERE name = ?) AND l.digest = ?"
        " AND b.state = 'ok'",
        (name, digest),
    )
    return Blob(found[0], found[1], (), found[2]) if found else None


def healthy(tx: Transaction, digest: str) -> bool:
    """Whether the registry holds good bytes of this digest, for whichever repository."""
    return tx.row("SELECT 1 FROM blob WHERE digest = ? AND state = 'ok'", (digest,)) is not None


def commit(
    tx: Transaction,
    change: Change,
    repo: tuple[int, str],
    digest: str,
    size: int,
    segments: Sequence[Segment],
) -> None:
    """Take verified, durable objects in as a blob of a repository, and start its lease.

    Where the registry has the digest already, the new objects go to the trash; where it has it damaged, they heal it.

    Raises:
        ForeignKeyError: the collector was quicker; try again.
    """
    made = tx.row(
        "INSERT INTO blob (digest, size, created, verified) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (digest) DO NOTHING RETURNING digest",
        (digest, size, change.now, change.now),
    )
    if made is not None:
        _add_segments(tx, digest, segments)
    else:
        _merge(tx, change, digest, size, segments)
    link(tx, change, repo, digest, size, outbox.BLOB_PUSHED)


def _merge(
    tx: Transaction, change: Change, digest: str, size: int, segments: Sequence[Segment]
) -> None:
    found = tx.row("SELECT state FROM blob WHERE digest = ? /*pg FOR UPDATE*/", (digest,))
    if found is None:
        raise ForeignKeyError(f"blob {digest} was just collected")
    if found[0] == "ok":  # nobody has ever seen the new objects: they need not wait
        discard(tx, change._replace(trash=0.0), segments)
    elif segments or not size:
        replace(tx, change, digest, segments)
    else:
        raise ForeignKeyError(f"blob {digest} was just found damaged")


def _add_segments(tx: Transaction, digest: str, segments: Iterable[Segment]) -> None:
    for position, segment in enumerate(segments):
        tx.rows(
            "INSERT INTO blob_segment (digest, position, key, size) VALUES (?, ?, ?, ?)",
            (digest, position, segment.key, segment.size),
        )


def replace(tx: Transaction, change: Change, digest: str, segments: Sequence[Segment]) -> None:
    """Give a blob other objects with the right bytes; the old ones go to the trash."""
    rows = tx.rows("SELECT key, size FROM blob_segment WHERE digest = ?", (digest,))
    tx.rows("DELETE FROM blob_segment WHERE digest = ?", (digest,))
    discard(tx, change, [Segment(*row) for row in rows])
    _add_segments(tx, digest, segments)
    tx.rows(
        "UPDATE blob SET state = 'ok', version = version + 1, verified = ? WHERE digest = ?",
        (change.now, digest),
    )


def discard(tx: Transaction, change: Change, segments: Iterable[Segment]) -> None:
    """Put objects no row refers to into the trash: nobody needs them again, but they may still be being read."""
    for segment in sorted(segments):
        tx.rows(
            "INSERT INTO trash (key, size, not_before) VALUES (?, ?, ?)"
            " ON CONFLICT (key) DO NOTHING",
            (segment.key, segment.size, change.now + change.trash),
        )


def link(
    tx: Transaction, change: Change, repo: tuple[int, str], digest: str, size: int, event: str
) -> None:
    """Make a blob the registry has one of a repository, resolve what waited for it, and start the lease.

    Raises:
        ForeignKeyError: the blob has gone.
    """
    repo_id, name = repo
    until = change.now + change.grace
    tx.rows(
        "INSERT INTO repo_blob (repo_id, digest, protected_until) VALUES (?, ?, ?)"
        " ON CONFLICT (repo_id, digest) DO UPDATE SET protected_until = excluded.protected_until"
        " WHERE excluded.protected_until > repo_blob.protected_until",
        (repo_id, digest, until),
    )
    tx.rows(
        "UPDATE manifest_ref SET blob = target"
        " WHERE repo_id = ? AND target = ? AND kind = 'blob' AND blob IS NULL",
        (repo_id, digest),
    )
    review(tx, repo_id, "blob", digest, until)
    outbox.add(tx, change, event, name, digest=digest, size=size)


def mount(tx: Transaction, change: Change, source: str, repo: tuple[int, str], digest: str) -> bool:
    """Link a blob of another repository; False if it has no healthy one."""
    found = look(tx, source, digest)
    if found is None:
        return False
    link(tx, change, repo, digest, found.size, outbox.BLOB_MOUNTED)
    return True


def holders(tx: Transaction, digest: str, limit: int) -> list[str]:
    """Names of repositories that have a blob."""
    rows = tx.rows(
        "SELECT r.name FROM repo_blob l JOIN repository r ON r.id = l.repo_id"
        " WHERE l.digest = ? ORDER BY l.repo_id LIMIT ?",
        (digest, limit),
    )
    return [row[0] for row in rows]


def protect(tx: Transaction, change: Change, repo_id: int, digest: str) -> bool:
    """Start the lease of a blob again, twice as long, because a client is told that it is there; False if it is not.

    The collector may have taken it since it was found. Where a manifest refers to it, its lease does not matter.
    """
    kept = tx.row(
        "UPDATE repo_blob SET protected_until = ? WHERE repo_id = ? AND digest = ? RETURNING 1",
        (change.now + 2 * change.grace, repo_id, digest),
    )
    return kept is not None


def unlink(tx: Transaction, change: Change, name: str, digest: str) -> None:
    """Take a blob out of a repository.

    Raises:
        BlobUnknownError: it is not there.
        UnsupportedError: a manifest of the repository refers to it.
    """
    found = tx.row(
        "SELECT l.repo_id FROM repository r JOIN repo_blob l ON l.repo_id = r.id"
        " WHERE r.name = ? AND l.digest = ? /*pg FOR UPDATE OF l*/",
        (name, digest),
    )
    if found is None:
        raise BlobUnknownError(f"blob {digest} is not in {name}")
    used = tx.row(
        "SELECT manifest FROM manifest_ref WHERE repo_id = ? AND target = ? AND kind = 'blob' LIMIT 1",
        (found[0], digest),
    )
    if used is not None:
        raise UnsupportedError(
            f"blob {digest} is part of manifest {used[0]}: delete that manifest first"
        )
    drop_link(tx, change, (found[0], name), digest, outbox.BLOB_DELETED)


def drop_link(
    tx: Transaction, change: Change, repo: tuple[int, str], digest: str, event: str
) -> None:
    """Remove a link that nothing refers to, and have the content looked at.

    Raises:
        ForeignKeyError: a manifest refers to it.
    """
    tx.rows("DELETE FROM repo_blob WHERE repo_id = ? AND digest = ?", (repo[0], digest))
    review(tx, 0, "content", digest, change.now)
    outbox.add(tx, change, event, repo[1], digest=digest)
