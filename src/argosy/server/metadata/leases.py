"""Work that only one replica does at a time: whoever holds the lease does it, and a dead holder's lease runs out.

A lease that would last for more than twice its time was taken by a clock that was wrong, and is nobody's: clocks are
put back, and the holder of an hour that never comes may be dead.
"""

from __future__ import annotations

from argosy.server.metadata import Transaction

__all__ = ["drop", "forget", "is_held", "take"]


def take(tx: Transaction, name: str, holder: str, now: float, seconds: float) -> bool:
    """Take a lease, or hold on to one that is ours; False if somebody else has it.

    Args:
        name: What is leased.
        holder: Who asks: one name a worker.
        now: Seconds since the epoch.
        seconds: How long it lasts.
    """
    taken = tx.row(
        "INSERT INTO lease (name, holder, lease_until) VALUES (?, ?, ?) ON CONFLICT (name)"
        " DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until"
        " WHERE lease.holder = excluded.holder OR lease.lease_until < ? OR lease.lease_until > ?"
        " RETURNING 1",
        (name, holder, now + seconds, now, now + 2 * seconds),
    )
    return taken is not None


def is_held(tx: Transaction, name: str, now: float) -> bool:
    """Whether somebody has a lease."""
    sql = "SELECT 1 FROM lease WHERE name = ? AND lease_until > ?"
    return tx.row(sql, (name, now)) is not None


def drop(tx: Transaction, name: str, holder: str) -> None:
    """Give a lease back."""
    tx.rows("DELETE FROM lease WHERE name = ? AND holder = ?", (name, holder))


def forget(tx: Transaction, before: float) -> None:
    """Delete leases that ran out before a time: those of the dead, for the living drop or renew theirs."""
    tx.rows("DELETE FROM lease WHERE lease_until < ?", (before,))
