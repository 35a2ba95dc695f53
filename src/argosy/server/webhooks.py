"""Events told to webhooks: at least once, in order, as CloudEvents 1.0 in structured JSON.

One replica at a time tells a webhook (a lease), and remembers how far it has come in the database. What fails is tried
again, later each time; after the last try the event is put with the dead letters and the next one has its turn.
A receiver drops what it has seen by the event's `id`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hmac
import json
import random
import secrets
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from argosy.errors import ArgosyError, TransportError
from argosy.server import outbound
from argosy.server.metadata import Transaction, deliveries, leases, outbox
from argosy.server.metadata.deliveries import DeadLetter, Delivery
from argosy.server.metadata.outbox import Event
from argosy.server.registry import Registry, log
from argosy.server.settings import Sink

__all__ = ["SIGNATURE_HEADER", "cloud_event", "deliverer", "post", "signature"]

SIGNATURE_HEADER = "X-Argosy-Signature"
_LEASE_SECONDS = 60.0
_IDLE_SECONDS = 1.0
_LEAVE_SECONDS = 2.0
_BATCH = 100
_LONGEST_PAUSE = 3600.0
_INNER = frozenset({"blob.moved", "content.collected", "blob.damaged"})
"""Events that are about the store, not about a repository; only told to those who ask for them by name."""

Sleep = Callable[[float], Awaitable[object]]


def cloud_event(event: Event, source: str) -> dict[str, object]:
    """An event of the outbox as a CloudEvent.

    >>> e = Event(7, 0.0, "tag.set", "a/b", "sha256:1", "v1", None, None, "ann", "r1")
    >>> made = cloud_event(e, "/registry")
    >>> made["type"], made["id"], made["subject"], made["time"]
    ('argosy.registry.tag.set', '7', 'a/b:v1', '1970-01-01T00:00:00.000Z')
    """
    at = dt.datetime.fromtimestamp(event.at, tz=dt.UTC)
    fields = event._asdict() | {"user": event.principal}
    kept = ("repository", "digest", "tag", "media_type", "size", "user", "request_id")
    place = f":{event.tag}" if event.tag else f"@{event.digest}" if event.digest else ""
    return {
        "specversion": "1.0",
        "id": str(event.id),
        "source": source,
        "type": f"argosy.registry.{event.kind}",
        "subject": event.repository + place,
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {name: fields[name] for name in kept if fields[name] not in {None, ""}},
    }


def signature(secret: str, body: bytes) -> str:
    """The value of the signature header: HMAC-SHA256 of the body.

    >>> signature("k", b"{}")[:13]
    'sha256=add853'
    """
    return "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()


def deliverer(
    sink: Sink, *, sleep: Sleep = asyncio.sleep, once: bool = False
) -> Callable[[Registry], Awaitable[None]]:
    """The background task of one webhook.

    Args:
        sink: The webhook.
        sleep: Waits for a number of seconds.
        once: End when there is nothing to tell now, instead of waiting for more.
    """
    courier = _Courier(sink)

    async def run(registry: Registry) -> None:
        try:
            while True:
                told = await courier.round(registry)
                if not told and once:
                    return
                if not told:
                    await sleep(_IDLE_SECONDS)
        finally:
            await courier.leave(registry)

    return run


def post(sink: Sink, body: bytes) -> None:
    """Tell a webhook one event. Blocking.

    Raises:
        TransportError: it did not answer, or not with a status from 200 to 299.
        DeniedError: it is at an address that is not allowed.
        LimitExceededError: it answered with too much.
    """
    headers = {"Content-Type": "application/cloudevents+json"}
    if sink.secret is not None:
        headers[SIGNATURE_HEADER] = signature(sink.secret, body)
    answer = outbound.request(
        "POST",
        sink.url,
        headers=headers,
        body=body,
        timeout_seconds=sink.timeout_seconds,
        allow_private=sink.allow_private,
    )
    if not 200 <= answer.status < 300:
        raise TransportError(f"status {answer.status}")


class _Courier:
    """Tells one webhook, on a thread of its own: a receiver that is slow takes none that logins and the cache need."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._consumer = deliveries.WEBHOOK + sink.name
        self._holder = secrets.token_hex(8)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"webhook-{sink.name}")

    async def round(self, registry: Registry) -> bool:
        """Tell what can be told now; whether there may be more at once."""
        now = registry.clock()

        def look(tx: Transaction) -> tuple[Delivery, list[Event]] | None:
            if not leases.take(tx, self._consumer, self._holder, now, _LEASE_SECONDS):
                return None
            state = deliveries.state(tx, self._consumer)
            return state, outbox.after(tx, state.position, _BATCH)

        found = await registry.write(look, durable=False)
        if found is None or 0 < found[0].not_before - now <= _LONGEST_PAUSE:
            return False
        state, events = found
        skipped = state.position
        for event in events:
            if not self._wanted(event):
                skipped = event.id
                continue
            if not await self._tell(registry, event, state.attempts):
                return False
            state, skipped = state._replace(attempts=0), event.id
            if registry.clock() - now > _LEASE_SECONDS / 2:
                break
        await registry.write(lambda tx: outbox.advance(tx, self._consumer, skipped), durable=False)
        return len(events) == _BATCH

    async def leave(self, registry: Registry) -> None:
        """Let the next one begin at once."""
        with contextlib.suppress(ArgosyError, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await registry.write(
                    lambda tx: leases.drop(tx, self._consumer, self._holder), durable=False
                )

    def _wanted(self, event: Event) -> bool:
        types = self._sink.types
        return event.kind in types if types else event.kind not in _INNER

    async def _tell(self, registry: Registry, event: Event, attempts: int) -> bool:
        """Tell one event; whether the next one may follow."""
        source = registry.settings.listen.public_url or "/argosy"
        body = json.dumps(cloud_event(event, source), separators=(",", ":")).encode()
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, post, self._sink, body)
        except ArgosyError as error:
            return await self._failed(registry, event, attempts + 1, error, body)
        await registry.write(lambda tx: deliveries.done(tx, self._consumer, event.id))
        return True

    async def _failed(
        self, registry: Registry, event: Event, attempts: int, error: ArgosyError, body: bytes
    ) -> bool:
        now, most = registry.clock(), self._sink.attempts
        what = f"{self._consumer}: event {event.id}"
        if attempts < most:
            log.warning("%s: try %d of %d failed: %s", what, attempts, most, error)
            pause = min(_LONGEST_PAUSE, 2.0**attempts) * random.uniform(0.5, 1.0)  # noqa: S311
            await registry.write(
                lambda tx: deliveries.failed(tx, self._consumer, attempts, now + pause)
            )
            return False
        log.error("%s is given up and put with the dead letters: %s", what, error)
        letter = DeadLetter(self._consumer, event.id, now, str(error)[:1000], body.decode())
        await registry.write(lambda tx: deliveries.give_up(tx, letter))
        return True
