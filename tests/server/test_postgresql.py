"""What is PostgreSQL's own: its schema, its transactions when two meet, and its connections when they break."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
import pytest

from argosy.errors import ManifestBlobUnknownError, StorageError, UnsupportedError
from argosy.server.metadata import (
    ForeignKeyError,
    Transaction,
    Work,
    blobs,
    collect,
    manifests,
    outbox,
    repositories,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.collect import Item
from argosy.server.metadata.manifests import New, Reference
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.postgresql import Postgresql, migrate, translate
from argosy.server.metadata.schema import VERSION
from tests.server.client import Server
from tests.server.services import PostgresqlCluster

T = TypeVar("T")

NOW = 1_800_000_000.0
CHANGE = Change(NOW, grace=100.0, trash=50.0)
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


@pytest.fixture
def dsn(postgresql: PostgresqlCluster) -> str:
    return postgresql.database()


@pytest.fixture
def database(dsn: str) -> Iterator[Postgresql]:
    made = Postgresql(dsn, pool=4)
    yield made
    made.close()


def run(database: Postgresql, work: Work[T]) -> T:
    return asyncio.run(database.write(work))


def manifest(digest: str, *targets: str, kind: str = "blob") -> New:
    references = tuple(Reference(kind, target) for target in targets)
    return New(
        digest, "application/vnd.oci.image.manifest.v1+json", b"{}", None, None, {}, references
    )


def repo(tx: Transaction, name: str = "r") -> tuple[int, str]:
    return repositories.ensure(tx, name, CHANGE), name


def push_blob(tx: Transaction, digest: str = A, key: str = "b/d/one-1", name: str = "r") -> None:
    blobs.commit(tx, CHANGE, repo(tx, name), digest, 3, [Segment(key, 3)])


# -- the schema ------------------------------------------------------------------------------------


def test_a_registry_does_not_make_the_schema_by_itself(postgresql: PostgresqlCluster) -> None:
    empty = postgresql.empty()
    with pytest.raises(
        StorageError, match=f"schema version none, this argosy needs {VERSION}"
    ) as caught:
        Postgresql(empty)
    assert caught.value.hint == "run argosy registry migrate"
    assert migrate(empty) == (None, VERSION)
    assert migrate(empty) == (VERSION, VERSION)
    Postgresql(empty).close()


def test_migrations_at_the_same_time_wait_for_each_other(postgresql: PostgresqlCluster) -> None:
    empty = postgresql.empty()
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(migrate(empty))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results, key=str) == [(VERSION, VERSION)] * 3 + [(None, VERSION)]


def test_a_newer_schema_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE schema_version SET version = %s", (VERSION + 1,))
    with pytest.raises(StorageError, match="reads up to"):
        Postgresql(dsn)
    with pytest.raises(StorageError, match="reads up to"):
        migrate(dsn)


def test_text_is_in_byte_order_whatever_the_locale(postgresql: PostgresqlCluster, dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
        ).fetchall()
    assert found == []


def test_a_dump_restored_elsewhere_gives_out_higher_numbers_still(dsn: str) -> None:
    database = Postgresql(dsn)
    run(database, push_blob)
    with psycopg.connect(dsn, autocommit=True) as connection:  # what a cluster of another age wrote
        connection.execute("UPDATE event SET id = id + (1::bigint << 60)")
    run(database, lambda tx: outbox.advance(tx, "webhook:ci", 1 << 60))
    assert asyncio.run(database.read(lambda tx: outbox.after(tx, 0, 10))) == []
    migrate(dsn)
    old = asyncio.run(database.read(lambda tx: outbox.after(tx, 0, 10)))
    run(database, lambda tx: push_blob(tx, B, "b/d/two-1"))
    position = asyncio.run(database.read(lambda tx: outbox.position(tx, "webhook:ci")))
    new = asyncio.run(database.read(lambda tx: outbox.after(tx, position, 10)))
    assert [event.digest for event in new] == [A, B]
    assert len(old) == 1
    database.close()


# -- when two meet ---------------------------------------------------------------------------------


class Meeting:
    """Two transactions, the first of which waits in its middle until it is told to go on."""

    def __init__(self, database: Postgresql) -> None:
        self.database = database
        self.arrived, self.go = threading.Event(), threading.Event()
        self.tries = 0
        self.result: Any = None

    def pause(self) -> None:
        self.tries += 1
        self.arrived.set()
        assert self.go.wait(20)

    def first(self, work: Callable[[Transaction], Any]) -> None:
        def body() -> None:
            try:
                self.result = run(self.database, work)
            except Exception as error:
                self.result = error

        self.thread = threading.Thread(target=body)
        self.thread.start()
        assert self.arrived.wait(20)

    def finish(self) -> Any:
        self.go.set()
        self.thread.join(20)
        return self.result


def test_a_push_that_was_first_keeps_the_collector_away(database: Postgresql) -> None:
    run(database, push_blob)
    meeting = Meeting(database)

    def put(tx: Transaction) -> None:
        manifests.put(tx, CHANGE, repo(tx), manifest(B, A), ["t"])
        meeting.pause()

    meeting.first(put)
    late = CHANGE._replace(now=NOW + 1000)
    repo_id = asyncio.run(database.read(lambda tx: repositories.find(tx, "r")))
    assert repo_id is not None
    collector = Meeting(database)

    def settle(tx: Transaction) -> collect.Outcome:
        collector.pause()
        return collect.settle(tx, late, Item(repo_id, "blob", A, 0), lambda _: False)

    collector.go.set()
    collector.first(settle)
    assert meeting.finish() is None
    outcome = collector.finish()
    assert isinstance(outcome, ForeignKeyError) or not outcome.collected
    assert asyncio.run(database.read(lambda tx: blobs.find(tx, "r", A))) is not None


def test_a_collector_that_was_first_makes_the_push_say_what_is_missing(
    database: Postgresql,
) -> None:
    run(database, push_blob)
    meeting = Meeting(database)
    late = CHANGE._replace(now=NOW + 1000)
    repo_id = asyncio.run(database.read(lambda tx: repositories.find(tx, "r")))
    assert repo_id is not None

    def settle(tx: Transaction) -> collect.Outcome:
        outcome = collect.settle(tx, late, Item(repo_id, "blob", A, 0), lambda _: False)
        meeting.pause()
        return outcome

    meeting.first(settle)
    push = Meeting(database)

    def put(tx: Transaction) -> None:
        present = manifest(B, A)
        push.pause()
        manifests.put(tx, CHANGE, repo(tx), present, ["t"])

    push.go.set()
    push.first(put)
    assert meeting.finish().collected
    assert isinstance(push.finish(), Exception)
    assert asyncio.run(database.read(lambda tx: manifests.find(tx, "r", "t"))) is None


def test_two_who_create_one_tag_are_judged_one_after_the_other(database: Postgresql) -> None:
    """Who may only create must not move: not even when the tag comes into being while they push."""
    run(database, lambda tx: repo(tx) and None)
    seen: list[tuple[str, str | None]] = []
    meeting = Meeting(database)

    looked = threading.Event()

    def put(digest: str, pause: Callable[[], None]) -> Callable[[Transaction], None]:
        def guard(_tag: str, old: str | None, _new: str | None) -> None:
            seen.append((digest, old))
            if digest == B:
                looked.set()

        def work(tx: Transaction) -> None:
            manifests.put(tx, CHANGE, repo(tx), manifest(digest), ["t"], guard=guard)
            pause()

        return work

    meeting.first(put(A, meeting.pause))
    other = threading.Thread(target=lambda: run(database, put(B, lambda: None)))
    other.start()
    assert looked.wait(20)
    meeting.finish()
    other.join(20)
    assert seen[:2] == [(A, None), (B, None)]
    assert seen[-1] == (B, A), "the second was let in by what it saw before the first was done"


def test_an_index_is_not_tagged_while_what_it_lists_is_deleted(database: Postgresql) -> None:
    """Nobody deletes what an immutable tag leads to: not even when that tag comes into being meanwhile."""
    listing = manifest(B, A, kind="manifest")
    for new in (manifest(A), listing):
        run(database, functools.partial(_put, new, []))
    meeting = Meeting(database)

    def precondition(_: str | None) -> bool:
        meeting.pause()
        return True

    def tag(tx: Transaction) -> None:
        manifests.put(tx, CHANGE, repo(tx), listing, ["v1"], precondition=precondition)

    meeting.first(tag)
    run(database, lambda tx: manifests.delete(tx, CHANGE, "r", A, lambda *_: None))
    assert isinstance(meeting.finish(), ManifestBlobUnknownError)
    assert meeting.tries == 2


def _put(new: New, tags: list[str], tx: Transaction) -> None:
    manifests.put(tx, CHANGE, repo(tx), new, tags)


@pytest.mark.parametrize(("kind", "status"), [("manifest", 202), ("blob", 405)])
def test_what_is_referred_to_while_it_is_deleted_is_looked_at_again(
    database: Postgresql, dsn: str, tmp_path: Any, kind: str, status: int
) -> None:
    run(database, push_blob)
    run(database, functools.partial(_put, manifest(A), []))
    meeting = Meeting(database)

    class Early(Postgresql):
        """Takes its view of the database before the other one has committed."""

        async def write(self, work: Work[T], **more: Any) -> T:
            def later(tx: Transaction) -> T:
                tx.row("SELECT 1 FROM review")
                if meeting.arrived.is_set() and not meeting.go.is_set():
                    assert meeting.finish() is None
                return work(tx)

            return await super().write(later, **more)

    def push(tx: Transaction) -> None:
        _put(manifest(B, A, kind=kind), ["t"], tx)
        meeting.pause()

    with Server(str(tmp_path), metadata=Early(dsn, pool=2)) as server:
        meeting.first(push)
        assert server.ask("DELETE", f"/v2/r/{kind}s/{A}").status == status


def test_a_review_that_is_asked_for_while_one_is_settled_is_not_lost(database: Postgresql) -> None:
    """Write skew: the collector looks with an old snapshot, sees a reference, and drops the item for good."""
    run(database, push_blob)
    run(database, lambda tx: push_blob(tx, A, "b/d/two-1", "other"))
    run(database, lambda tx: repositories.review(tx, 0, "content", A, NOW - 1))
    meeting = Meeting(database)
    late = CHANGE._replace(now=NOW + 1000)
    unlink_all = [lambda tx, n=name: blobs.unlink(tx, late, n, A) for name in ("r", "other")]

    def settle(tx: Transaction) -> collect.Outcome:
        tx.row("SELECT 1 FROM review")  # the snapshot is taken here
        if meeting.tries == 0:
            meeting.pause()
        return collect.settle(tx, late, Item(0, "content", A, 0), lambda _: False)

    meeting.first(settle)
    for work in unlink_all:
        run(database, work)
    outcome = meeting.finish()
    queued = asyncio.run(database.read(lambda tx: collect.due(tx, NOW + 2000, 10)))
    assert outcome.collected or any(item.kind == "content" for item in queued)


def test_a_reader_of_the_outbox_never_passes_an_event_that_comes_later(
    database: Postgresql,
) -> None:
    meeting = Meeting(database)

    def slow(tx: Transaction) -> None:
        push_blob(tx, A, "b/d/slow-1", "slow")
        meeting.pause()

    meeting.first(slow)
    run(database, lambda tx: push_blob(tx, B, "b/d/fast-1", "fast"))
    early = asyncio.run(database.read(lambda tx: outbox.after(tx, 0, 10)))
    last = early[-1].id if early else 0
    meeting.finish()
    later = asyncio.run(database.read(lambda tx: outbox.after(tx, last, 10)))
    assert {event.digest for event in early + later} == {A, B}


def test_many_pushes_of_the_same_content_all_succeed(dsn: str) -> None:
    """Ten clients, two replicas, one digest: what a benchmark does. Nobody deadlocks, nobody is refused."""
    replicas = [Postgresql(dsn, pool=5) for _ in range(2)]

    async def push(number: int) -> None:
        database = replicas[number % 2]
        for digest in (A, B) if number % 3 else (B, A):
            key = f"b/d/{number}-{digest[7]}"
            work = functools.partial(push_blob, digest=digest, key=key, name=f"r{number % 4}")
            await database.write(work)
        await database.write(
            lambda tx: manifests.put(
                tx, CHANGE, repo(tx, f"r{number % 4}"), manifest(C, A, B), [f"t{number}", "latest"]
            )
        )

    async def everybody() -> None:
        await asyncio.gather(*(push(number) for number in range(40)))

    asyncio.run(everybody())
    figures = asyncio.run(replicas[0].read(lambda tx: collect.figures(tx, NOW)))
    assert (figures["blobs"], figures["manifests"], figures["tags"]) == (2, 4, 44)
    assert figures["trash"] == 78
    for database in replicas:
        database.close()


def test_work_that_is_in_nobodys_way_but_its_own_is_given_up(
    database: Postgresql, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argosy.server.metadata import postgresql as engine

    monkeypatch.setattr(engine, "_LONGEST_PAUSE", 0.0)
    tries: list[int] = []

    def work(tx: Transaction) -> None:
        tries.append(1)
        tx.rows("INSERT INTO setting (name, value) VALUES (?, ?), (?, ?)", ("a", "1", "a", "2"))

    with pytest.raises(StorageError, match="duplicate key"):
        run(database, work)
    assert len(tries) == 20


# -- connections -----------------------------------------------------------------------------------


def test_a_connection_that_breaks_is_replaced_and_the_work_done(
    database: Postgresql, postgresql: PostgresqlCluster
) -> None:
    tries: list[int] = []

    def work(tx: Transaction) -> None:
        tries.append(1)
        if len(tries) == 1:
            pid = tx.row("SELECT pg_backend_pid()")
            assert pid is not None
            with postgresql.connect("postgres") as other:
                other.execute("SELECT pg_terminate_backend(%s)", pid)
        repositories.set_setting(tx, "a", "1")

    run(database, work)
    assert len(tries) == 2
    assert asyncio.run(database.read(lambda tx: repositories.setting(tx, "a"))) == "1"


def test_a_database_that_cannot_be_reached_is_said_in_one_line(tmp_path: Any) -> None:
    with pytest.raises(StorageError) as caught:
        Postgresql(f"host={tmp_path} dbname=x")
    assert str(caught.value).startswith("the database failed: ")
    assert "\n" not in str(caught.value)


def test_clients_of_a_registry_whose_database_is_away_learn_no_more_than_that(
    postgresql: PostgresqlCluster, dsn: str, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
    with Server(str(tmp_path), metadata=Postgresql(dsn)) as server:
        server.push_image("a", "t")
        with postgresql.connect("postgres") as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
        answer = server.ask("GET", "/v2/a/tags/list")
        assert (answer.status, answer.header("retry-after")) == (503, "5")
        assert str(name) not in answer.body.decode()
        assert str(name) in caplog.text
        assert server.ask("GET", "/readyz").status == 503
        with postgresql.connect("postgres") as other:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert server.ask("GET", "/v2/a/tags/list").status == 200


def test_a_nul_in_a_query_is_refused_before_the_database_sees_it(dsn: str, tmp_path: Any) -> None:
    with Server(str(tmp_path), metadata=Postgresql(dsn)) as server:
        digest = server.push_image("a", "t")
        for target in (
            "tags/list?last=%00",
            f"referrers/{digest}?artifactType=a%00b",
            "tags/list?n=1&%00",
        ):
            answer = server.ask("GET", f"/v2/a/{target}")
            assert (answer.status, answer.code) == (400, "UNSUPPORTED")
        assert server.ask("GET", "/v2/_catalog?last=%00").status == 400


def test_reading_writes_nothing(database: Postgresql) -> None:
    with pytest.raises(StorageError, match="read-only"):
        asyncio.run(database.read(lambda tx: repositories.set_setting(tx, "a", "1")))


def test_a_page_of_very_many_referrers_is_taken_out_of_the_index(
    database: Postgresql, dsn: str
) -> None:
    run(database, lambda tx: repositories.ensure(tx, "a", CHANGE))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO manifest SELECT r.id, 'sha256:' || n, 't', 2, 's' || n %% 2, 'x', 0, 0"
            " FROM repository r, generate_series(1, 20000) n WHERE %s",
            (True,),
        )
        connection.execute(
            "INSERT INTO manifest_body SELECT repo_id, digest, '', NULL FROM manifest"
        )
        connection.execute("VACUUM ANALYZE")

    def plan(tx: Transaction) -> str:
        class Explained:
            def rows(self, sql: str, parameters: tuple[object, ...]) -> list[tuple[object, ...]]:
                lines.extend(row[0] for row in tx.rows(f"EXPLAIN {sql}", parameters))
                return []

        lines: list[str] = []
        manifests.referrers(Explained(), "a", "s1", None, "sha256:5", 100)  # type: ignore[arg-type]
        return "\n".join(lines)

    assert "Sort" not in asyncio.run(database.read(plan))


def test_a_closed_database_says_so(dsn: str, tmp_path: Any) -> None:
    database = Postgresql(dsn)
    with pytest.raises(UnsupportedError):
        asyncio.run(database.backup(str(tmp_path / "x")))
    database.close()
    with pytest.raises(StorageError, match="closed"):
        asyncio.run(database.read(lambda tx: tx.row("SELECT 1")))


def test_what_is_for_postgresql_alone_is_uncovered() -> None:
    assert translate("SELECT 1 /*pg FOR UPDATE*/ LIMIT ?") == "SELECT 1 FOR UPDATE LIMIT %s"
