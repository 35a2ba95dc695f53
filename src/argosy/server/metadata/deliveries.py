"""How far each webhook has come, when it is tried again, and what was given up."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from argosy.server.metadata import Transaction, leases, outbox

__all__ = [
    "WEBHOOK",
    "DeadLetter",
    "Delivery",
    "bury",
    "dead_letters",
    "done",
    "failed",
    "forget",
    "give_up",
    "state",
    "trim",
]

WEBHOOK = "webhook:"
"""What the names of webhooks begin with among those who read the outbox, and of their leases."""


class Delivery(NamedTuple):
    """Where a webhook stands: the last event it is done with, tries of the next one, and when to try again."""

    position: int
    attempts: int
    not_before: float


class DeadLetter(NamedTuple):
    """An event that a webhook was never told: when it was given up (seconds since the epoch), why, and what it said."""

    consumer: str
    event: int
    at: float
    problem: str
    body: str


def state(tx: Transaction, consumer: str) -> Delivery:
    """Where a webhook stands. A new one begins with the next event, not with all the past."""
    found = tx.row("SELECT position FROM event_cursor WHERE consumer = ?", (consumer,))
    if found is None:
        last = tx.row("SELECT COALESCE(max(id), 0) FROM event")
        outbox.advance(tx, consumer, last[0] if last else 0)
        found = last
    tried = tx.row("SELECT attempts, not_before FROM delivery WHERE consumer = ?", (consumer,))
    return Delivery(found[0] if found else 0, *(tried or (0, 0.0)))


def done(tx: Transaction, consumer: str, event: int) -> None:
    """The webhook has been told an event."""
    outbox.advance(tx, consumer, event)
    tx.rows("DELETE FROM delivery WHERE consumer = ?", (consumer,))


def failed(tx: Transaction, consumer: str, attempts: int, not_before: float) -> None:
    """The webhook could not be told; try again at a time."""
    tx.rows(
        "INSERT INTO delivery (consumer, attempts, not_before) VALUES (?, ?, ?)"
        " ON CONFLICT (consumer) DO UPDATE SET attempts = excluded.attempts,"
        " not_before = excluded.not_before",
        (consumer, attempts, not_before),
    )


def give_up(tx: Transaction, letter: DeadLetter) -> None:
    """Put an event with the dead letters and go on with the next one."""
    tx.rows(
        "INSERT INTO dead_letter (consumer, event, at, problem, body) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (consumer, event) DO NOTHING",
        letter,
    )
    done(tx, letter.consumer, letter.event)


def dead_letters(tx: Transaction, limit: int) -> list[DeadLetter]:
    """The newest dead letters."""
    rows = tx.rows(
        "SELECT consumer, event, at, problem, body FROM dead_letter ORDER BY at DESC LIMIT ?",
        (limit,),
    )
    return [DeadLetter(*row) for row in rows]


def trim(tx: Transaction, before: float, most: int, limit: int = 5000) -> int:
    """Delete the dead letters given up before a moment, and of the others all but the newest; answers how many."""
    gone = tx.rows(
        "DELETE FROM dead_letter WHERE (consumer, event) IN (SELECT consumer, event FROM dead_letter"
        " WHERE at < ? ORDER BY at LIMIT ?) RETURNING event",
        (before, limit),
    )
    gone += tx.rows(
        "DELETE FROM dead_letter WHERE (consumer, event) IN (SELECT consumer, event FROM dead_letter"
        " ORDER BY at DESC, event DESC LIMIT ? OFFSET ?) RETURNING event",
        (limit, most),
    )
    return len(gone)


def bury(tx: Transaction, letter: DeadLetter) -> None:
    """Delete a dead letter."""
    tx.rows(
        "DELETE FROM dead_letter WHERE consumer = ? AND event = ?", (letter.consumer, letter.event)
    )


def forget(tx: Transaction, names: Collection[str], now: float) -> list[str]:
    """Let go of webhooks that are none of these and that nobody tells now: no event is kept for them any more.

    Another replica may have more of them than this one, for a moment: whom it tells, it holds the lease of.
    """
    gone = [
        consumer
        for (consumer,) in tx.rows("SELECT consumer FROM event_cursor ORDER BY consumer")
        if consumer.startswith(WEBHOOK)
        and consumer.removeprefix(WEBHOOK) not in names
        and not leases.is_held(tx, consumer, now)
    ]
    for consumer in gone:
        tx.rows("DELETE FROM event_cursor WHERE consumer = ?", (consumer,))
        tx.rows("DELETE FROM delivery WHERE consumer = ?", (consumer,))
    return gone
