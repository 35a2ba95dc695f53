"""What the registry knows, apart from the bytes: one schema, one set of queries, two engines.

An engine (`sqlite.Sqlite`, `postgresql.Postgresql`) is a `Metadata`: it runs pieces of work in transactions and nothing
else. What the work does is written once, in the modules beside this one (`repositories`, `blobs`, `manifests`,
`uploads`, `collect`, `outbox`), as plain functions whose first argument is a `Transaction`:

    found = await metadata.read(lambda tx: manifests.find(tx, name, "latest"))
    await metadata.write(lambda tx: manifests.put(tx, ...))

Rules of the queries, so that both engines can run them:

- SQL that SQLite and PostgreSQL both understand: `ON CONFLICT`, `RETURNING`, row values, no functions that only one
  has. Parameters are `?`; no other question mark or per cent sign stands in a query.
- What only PostgreSQL needs stands in a comment `/*pg ... */`, which its engine uncovers: row locks, for instance
  `SELECT ... LIMIT ? /*pg FOR UPDATE SKIP LOCKED*/`. SQLite has one writer and needs none.
- Times are seconds since the epoch, passed in: the database's clock is never asked.
- Work may be run twice (a deadlock, a serialisation failure), so it touches nothing but its transaction.
- The foreign keys decide between a push and the collector (`schema`): the loser gets `ForeignKeyError`,
  its transaction is undone, and the caller says what that means.
- Multi-row writes are sorted by key, so that two of them cannot wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from argosy.errors import StorageError

__all__ = ["ForeignKeyError", "Metadata", "Row", "Transaction", "Work"]

Row = tuple[Any, ...]
T = TypeVar("T")


class ForeignKeyError(StorageError):
    """A foreign key refused: something referred to has gone, or something to go is still referred to.

    Raised by `Transaction.row` and `rows`, or when the transaction ends. Everything the work did is undone.
    """


class Transaction(Protocol):
    """One transaction, as the queries see it. Used by one thread at a time."""

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        """The first row of a statement's answer, or None; the statement is run to its end.

        Raises:
            ForeignKeyError: a foreign key refused.
            StorageError: the database failed.
        """
        ...

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of a statement's answer; an empty list for a statement that has none.

        Raises:
            ForeignKeyError: a foreign key refused.
            StorageError: the database failed.
        """
        ...


Work = Callable[[Transaction], T]


class Metadata(Protocol):
    """A database with the schema in it.

    `read` and `write` are safe to call from any task of the loop the engine was first used on. Errors raised by the
    work itself come through as they are, after the transaction was undone.
    """

    async def read(self, work: Work[T], *, slow: bool = False) -> T:
        """Run work that writes nothing. It sees every write that was answered before it began.

        Args:
            work: What to ask.
            slow: Whether it takes more than a millisecond (it counts whole tables): nobody else is to wait for it.
        """
        ...

    async def write(
        self, work: Work[T], *, durable: bool = True, after: Future[Any] | None = None
    ) -> T:
        """Run work in a transaction of its own; when this returns, it is committed.

        Args:
            work: What to do; undone wholly if it raises.
            durable: Whether it must survive a power cut once this returns. Upload sessions need not: a lost one
                makes a client begin again. It survives a kill of the process in any case.
            after: What a thread has to have done first. Where it fails, nothing is written and its error is raised.
        """
        ...

    async def backup(self, path: str) -> None:
        """Write a consistent copy to a new file while the database is in use (SQLite only).

        Raises:
            UnsupportedError: the engine has better tools of its own (`pg_dump`, base backups).
        """
        ...

    def close(self) -> None:
        """Finish writes under way and let go of the database. Closing twice is no error."""
        ...
