"""Repositories and what lists them: the catalog and the tags. Byte order throughout, keyset paging."""

from __future__ import annotations

from argosy.server.metadata import Transaction
from argosy.server.metadata.outbox import Change


def find(tx: Transaction, name: str) -> int | None:
    """A repository's id."""
    found = tx.row("SELECT id FROM repository WHERE name = ?", (name,))
    return int(found[0]) if found else None


def name_of(tx: Transaction, repo_id: int) -> str | None:
    """The name of the repository with an id."""
    found = tx.row("SELECT name FROM repository WHERE id = ?", (repo_id,))
    return str(found[0]) if found else None


def ensure(tx: Transaction, name: str, change: Change) -> int:
    """A repository's id; the repository is made if it is not there. An empty one goes after the grace."""
    repo_id = find(tx, name)
    if repo_id is not None:
        return repo_id
    made = tx.row(
        "INSERT INTO repository (name, created) VALUES (?, ?) ON CONFLICT (name) DO NOTHING"
        " RETURNING id",
        (name, change.now),
    )
    if made is None:
        made = tx.row("SELECT id FROM repository WHERE name = ?", (name,))
    assert made is not None
    review(tx, int(made[0]), "repository", "", change.now + change.grace)
    return int(made[0])


def page(tx: Transaction, last: str, limit: int) -> list[str]:
    """Names after `last` of repositories that hold a manifest."""
    rows = tx.rows(
        "SELECT r.name FROM repository r WHERE r.name > ?"
        " AND EXISTS (SELECT 1 FROM manifest m WHERE m.repo_id = r.id) ORDER BY r.name LIMIT ?",
        (last, limit),
    )
    return [row[0] for row in rows]


def tags(tx: Transaction, repo_id: int, last: str, limit: int) -> list[str]:
    """Tags after `last`."""
    rows = tx.rows(
        "SELECT name FROM tag WHERE repo_id = ? AND name > ? ORDER BY name LIMIT ?",
        (repo_id, last, limit),
    )
    return [row[0] for row in rows]


def review(tx: Transaction, repo_id: int, kind: str, digest: str, when: float) -> None:
    """Let the collector look at something at a time; the earlier one wins where it is queued already.

    The row is written in any case: a collector that looks at it this moment, with an older view, must begin again.
    """
    tx.rows(
        "INSERT INTO review (repo_id, kind, digest, review_after) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (repo_id, kind, digest) DO UPDATE SET review_after ="
        " CASE WHEN excluded.review_after < review.review_after THEN excluded.review_after"
        " ELSE review.review_after END",
        (repo_id, kind, digest, when),
    )


def setting(tx: Transaction, name: str, value: str | None = None) -> str | None:
    """A small fact of this registry; with a value, the one that was stored first."""
    if value is not None:
        tx.rows(
            "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
            (name, value),
        )
    found = tx.row("SELECT value FROM setting WHERE name = ?", (name,))
    return str(found[0]) if found else None


def set_setting(tx: Transaction, name: str, value: str) -> None:
    """Store a small fact of this registry, whatever it was."""
    tx.rows(
        "INSERT INTO setting (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )
