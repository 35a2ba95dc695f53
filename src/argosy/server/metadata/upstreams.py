"""What is known about references of other registries: when each was last compared, and which are missing there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from argosy.server.metadata import Transaction

__all__ = ["Seen", "forget", "look", "note", "stale"]


class Seen(NamedTuple):
    """When a reference was last compared with its upstream, and until when it counts as missing there (seconds)."""

    checked: float
    missing_until: float

    def is_missing(self, now: float) -> bool:
        """Whether it counts as missing; not where it was looked for by a clock that has been put back since."""
        return self.checked <= now < self.missing_until


def look(tx: Transaction, repository: str, reference: str) -> Seen:
    """What is known of a reference; long ago and not missing for one nobody asked for yet."""
    found = tx.row(
        "SELECT checked, missing_until FROM upstream WHERE repository = ? AND reference = ?",
        (repository, reference),
    )
    return Seen(*found) if found else Seen(float("-inf"), float("-inf"))


def note(tx: Transaction, repository: str, reference: str, seen: Seen) -> None:
    """Remember what the upstream said."""
    tx.rows(
        "INSERT INTO upstream (repository, reference, checked, missing_until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (repository, reference) DO UPDATE SET checked = excluded.checked,"
        " missing_until = excluded.missing_until",
        (repository, reference, *seen),
    )


def stale(tx: Transaction, before: float, now: float, limit: int) -> list[tuple[str, str]]:
    """Repositories and references of which nothing is known any more: compared before a moment, and not missing now."""
    rows = tx.rows(
        "SELECT repository, reference FROM upstream WHERE checked < ? AND missing_until < ? LIMIT ?",
        (before, now, limit),
    )
    return [(row[0], row[1]) for row in rows]


def forget(tx: Transaction, found: Iterable[tuple[str, str]], before: float, now: float) -> None:
    """Let those of them go that were not compared meanwhile."""
    for repository, reference in sorted(found):
        tx.rows(
            "DELETE FROM upstream WHERE repository = ? AND reference = ? AND checked < ?"
            " AND missing_until < ?",
            (repository, reference, before, now),
        )
