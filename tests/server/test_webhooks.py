"""Webhooks: every event, in order, at least once, signed; what cannot be told is tried again and then put aside."""

from __future__ import annotations

import asyncio
import functools
import json
import pathlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from argosy.server import gc, webhooks
from argosy.server.metadata import Transaction, deliveries, leases, outbox
from argosy.server.metadata.deliveries import DeadLetter
from argosy.server.settings import Collection, Events, Settings, Sink
from argosy.server.webhooks import SIGNATURE_HEADER, deliverer, signature
from tests.server.client import Clock, Server
from tests.server.receivers import Receiver


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Server]:
    with Server(str(tmp_path)) as made:
        yield made


def sink(receiver: Receiver, **more: Any) -> Sink:
    made: dict[str, Any] = {"name": "ci", "url": receiver.url, "allow_private": True}
    return Sink(**(made | more))


def deliver(server: Server, one: Sink) -> None:
    """One replica tells what there is, and gives its lease back."""
    server.run(deliverer(one, once=True)(server.registry))


def test_events_are_told_in_order_and_once(server: Server, receiver: Receiver) -> None:
    one = sink(receiver, secret="key")
    deliver(server, one)
    digest = server.push_image("team/app", "v1", b"layer")
    deliver(server, one)
    deliver(server, one)
    kinds = [event["type"].removeprefix("argosy.registry.") for event in receiver.told]
    assert kinds == ["blob.pushed", "blob.pushed", "manifest.pushed", "tag.set"]
    last = receiver.told[-1]
    assert last["specversion"] == "1.0"
    assert last["subject"] == "team/app:v1"
    assert last["data"]["digest"] == digest
    assert receiver.headers[0]["content-type"] == "application/cloudevents+json"
    assert receiver.headers[0][SIGNATURE_HEADER] == signature("key", receiver.bodies[0])
    assert len({event["id"] for event in receiver.told}) == 4


def test_a_new_webhook_is_not_told_the_past(server: Server, receiver: Receiver) -> None:
    server.push_image("a", "v1")
    deliver(server, sink(receiver))
    assert receiver.told == []
    server.push_image("a", "v2")
    deliver(server, sink(receiver))
    assert receiver.told[-1]["subject"] == "a:v2"


def test_only_the_kinds_that_were_asked_for_are_told(server: Server, receiver: Receiver) -> None:
    one = sink(receiver, types=("tag.set",))
    deliver(server, one)
    server.push_image("a", "v1", b"x")
    deliver(server, one)
    assert [event["type"] for event in receiver.told] == ["argosy.registry.tag.set"]


def test_what_fails_is_told_again_later_and_nothing_overtakes_it(
    server: Server, receiver: Receiver
) -> None:
    one = sink(receiver, types=("tag.set",))
    deliver(server, one)
    server.push_image("a", "v1")
    server.push_image("a", "v2")
    receiver.statuses = [500, 503]
    deliver(server, one)
    assert receiver.told == []
    deliver(server, one)
    assert receiver.statuses == [503], "it was tried again at once"
    assert isinstance(server.clock, Clock)
    server.clock.now += 5
    deliver(server, one)
    server.clock.now += 10
    deliver(server, one)
    assert [event["subject"] for event in receiver.told] == ["a:v1", "a:v2"]


def test_what_was_told_before_one_that_fails_is_not_told_again(
    server: Server, receiver: Receiver
) -> None:
    one = sink(receiver, types=("tag.set",))
    deliver(server, one)
    server.push_image("a", "v1")
    server.push_image("a", "v2")
    receiver.statuses = [204, 500]
    deliver(server, one)
    assert isinstance(server.clock, Clock)
    server.clock.now += 10
    deliver(server, one)
    assert [event["subject"] for event in receiver.told] == ["a:v1", "a:v2"]


def test_many_that_nobody_asked_for_do_not_keep_the_next_one_back(
    server: Server, receiver: Receiver
) -> None:
    one = sink(receiver, types=("tag.set",))
    deliver(server, one)
    change = server.upkeep.change("ann")

    def many(tx: Transaction) -> None:
        for kind in (*[outbox.BLOB_PUSHED] * 101, outbox.TAG_SET):
            outbox.add(tx, change, kind, "a", tag="v1")

    server.run(server.registry.metadata.write(many))
    courier = deliverer(one, once=True)
    server.run(asyncio.wait_for(courier(server.registry), 60))
    assert [event["subject"] for event in receiver.told] == ["a:v1"]


def test_a_clock_that_was_wrong_puts_no_try_off_for_years(
    server: Server, receiver: Receiver
) -> None:
    assert isinstance(server.clock, Clock)
    one = sink(receiver, types=("tag.set",))
    deliver(server, one)
    server.push_image("a", "v1")
    receiver.statuses = [500]
    server.clock.now += 1e9
    deliver(server, one)
    server.clock.now -= 1e9
    deliver(server, one)
    assert [event["subject"] for event in receiver.told] == ["a:v1"]


def test_after_the_last_try_an_event_is_put_aside_and_the_next_is_told(
    server: Server, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    one = sink(receiver, types=("tag.set",), attempts=2)
    deliver(server, one)
    server.push_image("a", "v1")
    server.push_image("a", "v2")
    receiver.statuses = [500, 410]
    deliver(server, one)
    assert isinstance(server.clock, Clock)
    server.clock.now += 10
    deliver(server, one)
    assert [event["subject"] for event in receiver.told] == ["a:v2"]
    said = [record.getMessage() for record in caplog.records if record.name == "argosy.server"]
    assert [line.partition(" event ")[2] for line in said] == [
        "3: try 1 of 2 failed: status 500",
        "3 is given up and put with the dead letters: status 410",
    ]
    assert server.run(server.upkeep.stats())["dead_letters"] == 1
    (letter,) = server.run(server.registry.metadata.read(lambda tx: deliveries.dead_letters(tx, 9)))
    assert (letter.consumer, letter.problem) == ("webhook:ci", "status 410")
    assert json.loads(letter.body)["subject"] == "a:v1"


def test_a_receiver_that_is_gone_stops_nobody_else(server: Server, receiver: Receiver) -> None:
    gone = Sink(name="gone", url="http://127.0.0.1:1/", allow_private=True)
    here = sink(receiver, types=("tag.set",))
    for one in (gone, here):
        deliver(server, one)
    server.push_image("a", "v1")
    for one in (gone, here):
        deliver(server, one)
    assert len(receiver.told) == 1


def test_receivers_that_are_slow_take_no_thread_that_others_need(
    server: Server, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, answered, told = threading.Event(), threading.Event(), webhooks.post

    def post(one: Sink, body: bytes) -> None:
        begun.set()
        answered.wait(60)
        told(one, body)

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        slow = asyncio.ensure_future(deliverer(sink(receiver), once=True)(server.registry))
        with ThreadPoolExecutor(1) as another:
            await loop.run_in_executor(another, begun.wait)
        async with asyncio.timeout(30):
            await asyncio.to_thread(answered.set)
        await slow

    deliver(server, sink(receiver))
    server.push_blob("a", b"blob")
    monkeypatch.setattr(webhooks, "post", post)
    server.run(work())
    assert len(receiver.told) == 1


def test_one_replica_tells_a_webhook_and_another_takes_over_when_it_is_gone(
    server: Server, receiver: Receiver
) -> None:
    one = sink(receiver, types=("tag.set",))
    deliver(server, one)
    server.push_image("a", "v1")
    now = server.clock()
    server.run(
        server.registry.metadata.write(lambda tx: leases.take(tx, "webhook:ci", "other", now, 60.0))
    )
    deliver(server, one)  # the other's lease is not over: nothing
    assert receiver.told == []
    assert isinstance(server.clock, Clock)
    server.clock.now += 61
    deliver(server, one)
    assert len(receiver.told) == 1
    assert server.rows("SELECT * FROM lease") == []


def test_leases_are_taken_kept_and_given_back(server: Server) -> None:
    metadata = server.registry.metadata

    def take(holder: str, now: float) -> bool:
        return bool(server.run(metadata.write(lambda tx: leases.take(tx, "x", holder, now, 10.0))))

    assert take("one", 0.0)
    assert take("one", 5.0)
    assert not take("two", 14.9)
    server.run(metadata.write(lambda tx: leases.drop(tx, "x", "two")))
    assert not take("two", 14.9)
    server.run(metadata.write(lambda tx: leases.drop(tx, "x", "one")))
    assert take("two", 14.9)
    assert not take("one", 15.0)
    assert take("one", 30.0)


def test_a_lease_of_the_dead_is_forgotten_a_day_later(server: Server) -> None:
    metadata = server.registry.metadata
    for name, age in (("dead", 90_000.0), ("ended", 60.0)):
        at = server.clock() - age
        server.run(metadata.write(functools.partial(_lease, name, at)))
    server.run(server.upkeep.trim(Events()))
    assert server.rows("SELECT name FROM lease") == [("ended",)]


def _lease(name: str, at: float, tx: Transaction) -> None:
    leases.take(tx, name, "one", at, 10.0)


def test_the_outbox_is_trimmed_only_behind_the_webhook(server: Server, receiver: Receiver) -> None:
    one = sink(receiver)
    deliver(server, one)
    server.push_image("a", "v1")
    late = server.clock() + 1
    trimmed = server.run(server.registry.metadata.write(lambda tx: outbox.trim(tx, late)))
    assert trimmed == 0
    deliver(server, one)
    assert server.run(server.registry.metadata.write(lambda tx: outbox.trim(tx, late))) > 0


def test_no_event_is_kept_for_a_webhook_that_is_not_configured_any_more(
    server: Server, receiver: Receiver
) -> None:
    here, gone, elsewhere = (sink(receiver, name=name) for name in ("here", "gone", "elsewhere"))
    for one in (here, gone, elsewhere):
        deliver(server, one)
    now = server.clock()
    server.run(
        server.registry.metadata.write(
            lambda tx: leases.take(tx, "webhook:elsewhere", "another replica", now, 60.0)
        )
    )
    server.push_image("a", "v1")
    events = Events(sinks=(here,), keep_seconds=0.0)
    server.run(server.upkeep.trim(events))
    assert server.rows("SELECT consumer FROM event_cursor ORDER BY consumer") == [
        ("webhook:elsewhere",),
        ("webhook:here",),
    ]
    assert isinstance(server.clock, Clock)
    server.clock.now += 61
    deliver(server, here)
    assert server.run(server.upkeep.trim(events)) > 0


def test_a_deliverer_waits_and_can_be_cancelled(server: Server, receiver: Receiver) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 2:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        server.run(deliverer(sink(receiver), sleep=sleep)(server.registry))
    assert slept == [1.0, 1.0, 1.0]


def test_dead_letters_that_are_old_or_too_many_are_let_go_and_the_log_says_so(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    now = server.clock()
    letters = [DeadLetter("webhook:ci", n, now - 10 * n, "status 500", "{}") for n in range(1, 6)]
    for letter in letters:
        server.run(server.registry.metadata.write(functools.partial(_give_up, letter)))
    server.run(server.upkeep.trim(Events(dead_letters=3, dead_letter_seconds=45.0)))
    assert server.rows("SELECT event FROM dead_letter ORDER BY event") == [(1,), (2,), (3,)]
    said = [record.getMessage() for record in caplog.records]
    assert "2 dead letters were too old or too many, and are gone" in said


def _give_up(letter: DeadLetter, tx: Transaction) -> None:
    deliveries.give_up(tx, letter)


def test_what_is_told_is_trimmed_where_nothing_is_collected(server: Server) -> None:
    server.push_image("a", "v1")
    server.push_image("a", "v2")
    server.clock.now += 10  # type: ignore[attr-defined]
    server.registry.settings = Settings(
        gc=Collection(enabled=False, interval_seconds=0.01), events=Events(keep_seconds=0.0)
    )

    async def trimmed() -> None:
        async with asyncio.timeout(30):
            while await server.registry.metadata.read(_many):
                await asyncio.sleep(0.01)

    async def beside() -> None:
        upkeep = asyncio.create_task(gc.run(server.registry))
        try:
            await trimmed()
        finally:
            upkeep.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upkeep

    server.run(server.registry.metadata.write(lambda tx: outbox.advance(tx, "journal", 10**6)))
    server.run(beside())


def _many(tx: Transaction) -> bool:
    found = tx.row("SELECT count(*) FROM event")
    return found is not None and found[0] > 1
