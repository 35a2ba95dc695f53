"""What every `Metadata` engine promises, asked of each: transactions, repositories, events and figures."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from argosy.errors import (
    ManifestBlobUnknownError,
)
from argosy.server.metadata import (
    ForeignKeyError,
    Transaction,
    Work,
    collect,
    deliveries,
    manifests,
    outbox,
    repositories,
    upstreams,
)
from argosy.server.metadata.deliveries import DeadLetter
from argosy.server.metadata.upstreams import Seen
from tests.contracts.engines import CHANGE, NOW, A, B, C, Engine, boom

# -- transactions ---------------------------------------------------------------------------------


def test_a_write_is_seen_by_the_next_read(engine: Engine) -> None:
    engine.write(lambda tx: repositories.set_setting(tx, "a", "1"))
    assert engine.read(lambda tx: repositories.setting(tx, "a")) == "1"


def test_a_slow_read_sees_the_same(engine: Engine) -> None:
    engine.write(lambda tx: repositories.set_setting(tx, "a", "1"))
    work = functools.partial(repositories.setting, name="a")
    assert engine.runner.run(engine.metadata.read(work, slow=True)) == "1"


def test_work_that_raises_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(KeyError):
        engine.write(boom)
    assert engine.read(lambda tx: repositories.setting(tx, "x")) is None


def test_one_failure_of_many_at_once_takes_nobody_with_it(engine: Engine) -> None:
    async def all_at_once() -> list[Any]:
        def work(number: int) -> Work[None]:
            return lambda tx: repositories.set_setting(tx, f"k{number:02}", "v")

        jobs = [engine.metadata.write(boom if n % 7 == 3 else work(n)) for n in range(40)]
        return await asyncio.gather(*jobs, return_exceptions=True)

    results = engine.runner.run(all_at_once())
    failed = [n for n, result in enumerate(results) if isinstance(result, KeyError)]
    assert failed == [n for n in range(40) if n % 7 == 3]
    kept = engine.read(lambda tx: tx.rows("SELECT name FROM setting WHERE name LIKE 'k__'"))
    assert len(kept) == 40 - len(failed)


def test_a_write_that_need_not_be_durable_is_seen_too(engine: Engine) -> None:
    engine.write(lambda tx: repositories.set_setting(tx, "a", "1"), durable=False)
    assert engine.read(lambda tx: repositories.setting(tx, "a")) == "1"


def test_a_write_begins_once_what_it_comes_after_is_done(engine: Engine) -> None:
    done: list[str] = []
    before = threading.Barrier(2)

    def first() -> None:
        before.wait(30)
        done.append("first")

    async def ordered() -> None:
        with ThreadPoolExecutor(1) as pool:
            writing = asyncio.ensure_future(
                engine.metadata.write(lambda _tx: done.append("write"), after=pool.submit(first))
            )
            await asyncio.to_thread(before.wait, 30)
            await writing

    engine.runner.run(ordered())
    assert done == ["first", "write"]


def test_a_write_after_something_that_failed_is_not_begun(engine: Engine) -> None:
    failed: Future[None] = Future()
    failed.set_exception(LookupError("what came first"))
    with pytest.raises(LookupError, match="what came first"):
        engine.write(lambda tx: repositories.set_setting(tx, "a", "1"), after=failed)
    assert engine.read(lambda tx: repositories.setting(tx, "a")) is None


def test_a_foreign_key_refuses_with_its_own_error(engine: Engine) -> None:
    with pytest.raises(ForeignKeyError):
        engine.write(
            lambda tx: tx.rows(
                "INSERT INTO repo_blob (repo_id, digest, protected_until) VALUES (?, ?, ?)",
                (1, A, 0.0),
            )
        )


def test_row_runs_a_statement_to_its_end(engine: Engine) -> None:
    def work(tx: Transaction) -> object:
        tx.rows("INSERT INTO setting (name, value) VALUES (?, ?), (?, ?)", ("a", "1", "b", "1"))
        return tx.row("UPDATE setting SET value = '2' RETURNING name")

    assert engine.write(work) is not None
    rows = engine.read(lambda tx: tx.rows("SELECT value FROM setting WHERE name IN ('a', 'b')"))
    assert rows == [("2",), ("2",)]


def test_bytes_floats_and_null_come_back_as_they_were(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("t",))
    found = engine.read(lambda tx: manifests.find(tx, "r", "t"))
    assert engine.read(lambda tx: manifests.content(tx, found)) == B.encode()
    row = engine.read(lambda tx: tx.row("SELECT pushed, subject FROM manifest"))
    assert row == (NOW, None)
    assert isinstance(row[0], float)


# -- repositories ---------------------------------------------------------------------------------


def test_names_are_in_byte_order_and_none_is_skipped(engine: Engine) -> None:
    names = ["a", "a-b", "a.b", "a/b", "a_b", "ab", "b"]
    for name in reversed(names):
        engine.manifest(A, name=name)
    seen: list[str] = []
    last = ""
    while page := engine.read(functools.partial(repositories.page, last=last, limit=2)):
        seen += page
        last = page[-1]
    assert seen == sorted(names)


def test_a_repository_without_manifests_is_not_listed(engine: Engine) -> None:
    engine.repo("empty")
    assert engine.read(lambda tx: repositories.page(tx, "", 10)) == []


def test_tags_are_in_byte_order(engine: Engine) -> None:
    tags = ["Z", "a", "_", "1", "a.b", "a-b", "B"]
    engine.manifest(A, tags=tuple(tags))
    repo_id, _ = engine.repo()
    assert engine.read(lambda tx: repositories.tags(tx, repo_id, "", 10)) == sorted(tags)
    assert engine.read(lambda tx: repositories.tags(tx, repo_id, "a", 1)) == ["a-b"]


def test_a_setting_keeps_its_first_value(engine: Engine) -> None:
    assert engine.write(lambda tx: repositories.setting(tx, "s", "1")) == "1"
    assert engine.write(lambda tx: repositories.setting(tx, "s", "2")) == "1"


# -- the outbox -----------------------------------------------------------------------------------


def test_every_change_writes_its_event_in_order(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("t",))
    engine.write(lambda tx: manifests.delete_tag(tx, CHANGE, "r", "t"))
    engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", B))
    events = engine.read(lambda tx: outbox.after(tx, 0, 100))
    assert [event.kind for event in events] == [
        "blob.pushed",
        "manifest.pushed",
        "tag.set",
        "tag.deleted",
        "manifest.deleted",
    ]
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert events[2].tag == "t"


def test_a_refused_change_writes_no_event(engine: Engine) -> None:
    with pytest.raises(ManifestBlobUnknownError):
        engine.manifest(B, A)
    assert engine.read(lambda tx: outbox.after(tx, 0, 100)) == []


def test_events_are_trimmed_when_every_consumer_is_done(engine: Engine) -> None:
    for digest in (A, B, C):
        engine.blob(digest)
    ids = [event.id for event in engine.read(lambda tx: outbox.after(tx, 0, 100))]
    engine.write(lambda tx: outbox.advance(tx, "one", ids[1]))
    engine.write(lambda tx: outbox.advance(tx, "two", ids[0]))
    assert engine.write(lambda tx: outbox.trim(tx, NOW + 1)) == 1
    engine.write(lambda tx: outbox.advance(tx, "two", ids[2]))
    engine.write(lambda tx: outbox.advance(tx, "one", ids[2]))
    assert engine.write(lambda tx: outbox.trim(tx, NOW + 1)) == 1
    assert engine.read(lambda tx: outbox.position(tx, "two")) == ids[2]
    assert len(engine.read(lambda tx: outbox.after(tx, 0, 100))) == 1


def test_dead_letters_are_trimmed_by_age_and_number(engine: Engine) -> None:
    def lose(tx: Transaction) -> None:
        for event in range(1, 6):
            deliveries.give_up(tx, DeadLetter(f"webhook:{event % 2}", event, NOW + event, "", "{}"))

    engine.write(lose)
    assert engine.write(lambda tx: deliveries.trim(tx, NOW + 2, 9)) == 1
    assert engine.write(lambda tx: deliveries.trim(tx, NOW + 3, 2)) == 2
    found = engine.read(lambda tx: deliveries.dead_letters(tx, 9))
    assert [letter.event for letter in found] == [5, 4]


def test_figures_count_everything(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("t",))
    found = engine.read(lambda tx: collect.figures(tx, NOW + 1000))
    assert (found["blobs"], found["manifests"], found["tags"], found["blob_bytes"]) == (1, 1, 1, 3)
    assert found["overdue_seconds"] == 900


def test_what_was_compared_long_ago_and_is_not_missing_is_forgotten(engine: Engine) -> None:
    seen = {
        "old": Seen(NOW - 100, 0.0),
        "missing": Seen(NOW - 100, NOW + 5),
        "was-missing": Seen(NOW - 100, NOW - 70),
        "fresh": Seen(NOW - 10, 0.0),
    }
    for reference, said in seen.items():
        engine.write(
            functools.partial(upstreams.note, repository="r", reference=reference, seen=said)
        )

    def stale(limit: int = 10) -> list[tuple[str, str]]:
        return sorted(engine.read(lambda tx: upstreams.stale(tx, NOW - 60, NOW, limit)))

    found = stale()
    assert found == [("r", "old"), ("r", "was-missing")]
    assert len(stale(1)) == 1
    engine.write(lambda tx: upstreams.note(tx, "r", "old", Seen(NOW, 0.0)))
    engine.write(lambda tx: upstreams.forget(tx, found, NOW - 60, NOW))
    left = engine.read(lambda tx: tx.rows("SELECT reference FROM upstream ORDER BY reference"))
    assert [row[0] for row in left] == ["fresh", "missing", "old"], "one was compared meanwhile"
