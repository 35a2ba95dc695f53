"""A PostgreSQL that does not answer, or not in time: nobody waits for ever, and few wait long."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from typing import Any, TypeVar

import pytest

from argosy.errors import StorageError
from argosy.server import door as doors
from argosy.server.metadata import Transaction, Work, repositories
from argosy.server.metadata import postgresql as postgresql_
from argosy.server.metadata.postgresql import Postgresql
from argosy.server.storage import UnavailableError
from tests.server.client import Server
from tests.server.services import PostgresqlCluster

T = TypeVar("T")


@pytest.fixture
def dsn(postgresql: PostgresqlCluster) -> str:
    return postgresql.database()


def run(database: Postgresql, work: Work[T]) -> T:
    return asyncio.run(database.write(work))


def test_a_statement_that_takes_too_long_is_ended(dsn: str) -> None:
    database = Postgresql(dsn, statement_seconds=0.05)
    with pytest.raises(StorageError, match="statement timeout"):
        run(database, lambda tx: tx.row("SELECT pg_sleep(?)", (30,)))
    run(database, lambda tx: repositories.set_setting(tx, "a", "1"))
    database.close()


def test_a_server_that_says_nothing_at_all_is_given_up(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is stopped, or what is between here and there drops everything."""
    monkeypatch.setattr(postgresql_, "_SILENCE", 0.1)
    stopped: list[int] = []

    def work(tx: Transaction) -> None:
        if not stopped:
            found = tx.row("SELECT pg_backend_pid()")
            assert found is not None
            stopped.append(found[0])
            os.kill(found[0], signal.SIGSTOP)
        tx.row("SELECT 1")

    database = Postgresql(dsn, pool=1, statement_seconds=0.1)
    try:
        with pytest.raises(UnavailableError, match=r"no answer for 0\.2 s"):
            run(database, work)
        run(database, work)
    finally:
        os.kill(stopped[0], signal.SIGCONT)
        database.close()


def test_one_waits_for_a_server_that_says_nothing_and_the_others_are_told_at_once(
    postgresql: PostgresqlCluster, dsn: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_, "_SILENCE", 0.1)
    with Server(str(tmp_path), metadata=Postgresql(dsn, pool=1, statement_seconds=0.1)) as server:
        monkeypatch.setattr(doors, "_LONG", 0.1)
        with postgresql.silent():
            answer = server.ask("GET", "/v2/a/tags/list")
            assert (answer.status, answer.header("retry-after")) == (503, "5")
            with pytest.raises(
                UnavailableError, match=r"not asked again yet: .*no answer for 0\.2 s"
            ):
                server.rows("SELECT 1")
            for _ in range(20):
                assert server.ask("GET", "/v2/a/tags/list").status == 503
            assert server.ask("GET", "/readyz").status == 503
            assert server.ask("GET", "/livez").status == 200
        later = time.monotonic() + 60.0
        monkeypatch.setattr(server.registry.metadata._door, "_clock", lambda: later)  # type: ignore[attr-defined]
        assert server.ask("GET", "/v2/a/tags/list").status == 404
        assert server.rows("SELECT 1") == [(1,)]


def test_who_looks_whether_the_server_is_back_does_so_on_a_new_connection(dsn: str) -> None:
    """An old one may lead to where nobody is any more, after a failover that dropped packets."""

    def backend(tx: Transaction) -> object:
        return tx.row("SELECT pg_backend_pid()")

    database = Postgresql(dsn, pool=1)
    before = run(database, backend)
    assert run(database, backend) == before
    database._door._why = UnavailableError("no answer")
    assert run(database, backend) != before
    assert database._door.enter() is False
    database.close()


def test_a_statement_that_takes_too_long_is_an_answer_of_the_server(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Postgresql(dsn, statement_seconds=0.2)
    monkeypatch.setattr(doors, "_LONG", 0.1)
    with pytest.raises(UnavailableError, match="statement timeout"):
        run(database, lambda tx: tx.row("SELECT pg_sleep(?)", (30,)))
    run(database, lambda tx: tx.row("SELECT 1"))
    database.close()


def test_work_that_no_connection_was_free_for_is_not_begun_too_late(dsn: str) -> None:
    begun: list[str] = []

    async def both(database: Postgresql) -> tuple[Any, Any]:
        def long(tx: Transaction) -> None:
            del tx
            threading.Event().wait(0.6)

        after = database.read(lambda _tx: begun.append("late"))
        return await asyncio.gather(database.read(long), after, return_exceptions=True)

    database = Postgresql(dsn, pool=1, statement_seconds=0.5)
    first, late = asyncio.run(both(database))
    database.close()
    assert (first, begun) == (None, [])
    assert isinstance(late, UnavailableError)


def test_the_network_is_not_believed_for_hours_unless_the_connection_string_says_so(
    dsn: str,
) -> None:
    def told(dsn: str) -> dict[str, str]:
        with contextlib.closing(postgresql_._connect(dsn, 1.0)) as connection:
            return connection.info.get_parameters()

    ours = {name: str(value) for name, value in postgresql_._NETWORK.items()}
    assert ours.items() <= told(dsn).items()
    theirs = {"connect_timeout": "3", "tcp_user_timeout": "7000"}
    assert (ours | theirs).items() <= told(f"{dsn} connect_timeout=3 tcp_user_timeout=7000").items()
