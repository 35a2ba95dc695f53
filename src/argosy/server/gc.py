"""Upkeep: the online collector, the scrub, and the compaction of blobs that came in pieces.

The collector never walks the store. It takes items from the review queue, each in a transaction of its own, and the
foreign keys decide between it and a push. Rows go first; objects go when their window in the trash is over, so every
crash leaves at most objects that no row knows, which the sweep of their day finds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import logging
from collections.abc import Callable, Iterable

from argosy.errors import ArgosyError, BlobUnknownError, StorageError
from argosy.server import marker
from argosy.server.handlers.blobs import read
from argosy.server.metadata import (
    ForeignKeyError,
    Metadata,
    Transaction,
    collect,
    deliveries,
    leases,
    outbox,
    repositories,
    uploads,
    upstreams,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.collect import Check, Item, Outcome, Policy
from argosy.server.metadata.outbox import Change
from argosy.server.registry import Registry
from argosy.server.settings import Collection, Events, Upstream
from argosy.server.storage import (
    InsufficientStorageError,
    ShortObjectError,
    Storage,
    UnavailableError,
)
from argosy.spec.digest import Digest, hasher

log = logging.getLogger("argosy.server")

_BATCH = 200
_PASS = 5000
_SCRUB_AFTER = 30 * 86400.0
_SCRUB_BYTES = 256 * 1024 * 1024
_MOST_UNREADABLE = 1000
_LEASES_AFTER = 86400.0


@dataclasses.dataclass(slots=True)
class Report:
    """What a pass did: counts, and bytes."""

    reviewed: int = 0
    collected: int = 0
    collected_bytes: int = 0
    failed: int = 0
    uploads_expired: int = 0
    objects_deleted: int = 0
    compacted: int = 0


@dataclasses.dataclass(slots=True)
class ScrubReport:
    """What a scrub found: blobs and bytes read, the digests of those that are damaged and of those that were and are
    good again, and how many could not be read, which says nothing about them."""

    blobs: int = 0
    bytes: int = 0
    damaged: list[str] = dataclasses.field(default_factory=list)
    healed: list[str] = dataclasses.field(default_factory=list)
    unreadable: int = 0


class _UndoneError(Exception):
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome


class Upkeep:
    """What keeps a registry's store small and right; works beside the registry, or without one.

    Args:
        metadata: The database.
        storage: Where blobs lie.
        rules: Grace, windows, and whether untagged manifests go.
        clock: Seconds since the epoch.
        untagged: Overrides `rules.untagged` by repository.
    """

    def __init__(
        self,
        metadata: Metadata,
        storage: Storage,
        rules: Collection,
        clock: Callable[[], float],
        untagged: Policy | None = None,
    ) -> None:
        self.metadata, self.storage, self.rules, self.clock = metadata, storage, rules, clock
        self.untagged: Policy = untagged or (lambda _name: rules.untagged)

    def change(self, who: str = "gc") -> Change:
        """What a write of the upkeep is told."""
        rules = self.rules
        return Change(self.clock(), rules.grace_seconds, who, "", rules.trash_seconds)

    # -- collecting -----------------------------------------------------------------------------

    async def collect(self, *, dry_run: bool = False) -> Report:
        """One pass: expired uploads, the review queue, the trash.

        Args:
            dry_run: Only count what the review queue would give up now; nothing changes.

        Raises:
            StorageError: the database does not answer, or has no room.
        """
        report = Report()
        if dry_run:
            for item in await self._due(_PASS):
                await self._settle(item, report, dry_run=True)
            return report
        await self._expire(report)
        while report.reviewed < _PASS:
            items = await self._due(_BATCH)
            if not items:
                break
            await asyncio.gather(*(self._settle(item, report) for item in items))
        try:
            await marker.check(self.metadata, self.storage)
        except (
            StorageError
        ) as exc:  # in another's there is nothing to delete, and here it would stay for ever
            log.warning("the trash is kept: %s", exc)
        else:
            await self._empty_trash(report)
            await self._sweep_days(report)
        return report

    async def _due(self, limit: int) -> list[Item]:
        now = self.clock()
        return await self.metadata.read(lambda tx: collect.due(tx, now, limit))

    async def _settle(self, item: Item, report: Report, *, dry_run: bool = False) -> None:
        change = self.change()

        def work(tx: Transaction) -> Outcome:
            outcome = collect.settle(tx, change, item, self.untagged)
            if dry_run:
                raise _UndoneError(outcome)
            return outcome

        report.reviewed += 1
        try:
            outcome = await self.metadata.write(work)
        except _UndoneError as undone:
            outcome = undone.outcome
        except ForeignKeyError:  # a push was quicker; the item is looked at again
            outcome = Outcome()
            await self._postpone(item)
        except (InsufficientStorageError, UnavailableError):  # not the item's fault: nothing goes
            raise
        except Exception:
            report.failed += 1
            outcome = Outcome()
            log.exception(
                "collecting %s %s failed; it is tried again later", item.kind, item.digest
            )
            await self._postpone(item)
        report.collected += outcome.collected
        report.collected_bytes += outcome.size

    async def _postpone(self, item: Item) -> None:
        change = self.change()
        await self.metadata.write(lambda tx: collect.postpone(tx, change, item))

    async def _expire(self, report: Report) -> None:
        change = self.change()

        def work(tx: Transaction) -> int:
            found = uploads.expired(tx, change.now, _BATCH)
            for upload in found:
                uploads.drop(tx, change, upload)
            return len(found)

        while (done := await self.metadata.write(work)) > 0:
            report.uploads_expired += done

    async def _empty_trash(self, report: Report) -> None:
        for _ in range(_PASS // _BATCH):
            now = self.clock()
            keys = await self.metadata.write(lambda tx, now=now: collect.doom(tx, now, _BATCH))  # type: ignore[misc]
            if not keys:
                return
            await self._delete(keys, report)

    async def _delete(self, keys: list[str], report: Report) -> None:
        """Delete doomed objects, then their rows; what cannot be deleted is tried again in ten minutes."""
        objects = [key for key in keys if not key.endswith(("-", "/"))]
        for prefix in set(keys) - set(objects):
            objects += await self._strays(prefix)
        try:
            await asyncio.to_thread(self.storage.delete, objects)
        except StorageError as exc:
            log.warning("%s; it is tried again", exc)
            until = self.clock() + 600.0
            await self.metadata.write(lambda tx: collect.delay(tx, keys, until))
            return
        await self.metadata.write(lambda tx: collect.forget(tx, keys))
        report.objects_deleted += len(objects)

    async def _strays(self, prefix: str) -> list[str]:
        """Objects below a prefix that no row knows and no session may still take in."""
        found = await asyncio.to_thread(lambda: list(self.storage.keys(prefix)))

        def work(tx: Transaction) -> list[str]:
            unknown = collect.unreferenced(tx, found)
            sessions = sorted({_session(key) for key in unknown})
            alive = collect.active(tx, sessions)
            return [key for key in unknown if _session(key) not in alive]

        return await self.metadata.read(work) if found else []

    async def _sweep_days(self, report: Report) -> None:
        """Once a day: objects of a day all of whose sessions are over, and that a power cut made nobody's."""
        age = self.rules.upload_seconds + 86400.0
        until = _day(self.clock() - age)
        swept = await self.metadata.read(lambda tx: repositories.setting(tx, "swept_through"))
        for day in _days(swept, until) if swept else []:
            strays = await self._strays(f"b/{day}/")
            try:
                await asyncio.to_thread(self.storage.delete, strays)
            except StorageError as exc:
                log.warning("sweeping %s: %s; it is tried again", day, exc)
                return
            report.objects_deleted += len(strays)
        if swept != until:  # the clock may have been put back, too
            await self.metadata.write(
                lambda tx: repositories.set_setting(tx, "swept_through", until)
            )

    async def undelete(self, name: str, digest: str) -> None:
        """Bring a collected blob back into a repository.

        Raises:
            BlobUnknownError: it is not in the trash any more.
        """
        change = self.change("undelete")
        await self.metadata.write(lambda tx: collect.undelete(tx, change, name, digest))

    # -- compaction -----------------------------------------------------------------------------

    async def compact(self, limit: int = 20) -> int:
        """Write blobs that lie in several objects as one, which is served faster; answers how many."""
        done = 0
        for check in await self.metadata.read(lambda tx: collect.segmented(tx, limit)):
            change = self.change()
            key = f"{uploads.prefix(uploads.new_id(change.now))}-0"
            try:
                await asyncio.to_thread(self._join, check, key)
            except ArgosyError as exc:
                log.warning("blob %s cannot be written as one object: %s", check.digest, exc)
                await self._scrub(check, ScrubReport())
                continue
            done += await self.metadata.write(
                lambda tx, check=check, key=key, change=change: collect.compact(  # type: ignore[misc]
                    tx, change, check, Segment(key, check.size)
                )
            )
        return done

    def _join(self, check: Check, key: str) -> None:
        writer = self.storage.create(key, size=check.size)
        try:
            actual = self._hash(check, writer.write)
            if actual != check.digest:
                raise StorageError(f"expected {check.digest}, got {actual}")
            writer.commit()
        except BaseException:
            writer.abort()
            raise

    def _hash(self, check: Check, sink: Callable[[bytes], None] = lambda _piece: None) -> Digest:
        algorithm = Digest(check.digest).algorithm
        made = hasher(algorithm)
        for piece in read(self.storage, check.segments, 0, check.size):
            made.update(piece)
            sink(piece)
        return Digest.done(algorithm, made)

    # -- scrub ----------------------------------------------------------------------------------

    async def scrub(
        self, *, older_than: float = _SCRUB_AFTER, most_bytes: int = _SCRUB_BYTES
    ) -> ScrubReport:
        """Read blobs again, those read longest ago first, mark what is damaged, and heal what is good again.

        A damaged blob is answered with 404, so that the next push of it heals it. Damaged are bytes that are wrong,
        and objects that are missing from a storage that is surely there; any other error is no fault of the blob, and
        it is tried again the next time.

        Args:
            older_than: Seconds since a blob was read last; 0 for all.
            most_bytes: Stop after as many bytes.

        Raises:
            StorageError: the storage is away, or does not answer.
        """
        report = ScrubReport()
        before = self.clock() - max(0.0, older_than)
        last = (-1.0, "")
        while report.bytes < most_bytes and report.unreadable < _MOST_UNREADABLE:
            checks = await self.metadata.read(
                lambda tx, last=last: collect.unverified(tx, before, 50, last)  # type: ignore[misc]
            )
            if not checks:
                break
            if not report.blobs:
                await marker.check(self.metadata, self.storage)
            for check in checks:
                await self._scrub(check, report)
            last = checks[-1].verified, checks[-1].digest
        if report.unreadable:
            log.warning("%d blobs cannot be read; they are tried again", report.unreadable)
        return report

    async def _scrub(self, check: Check, report: ScrubReport) -> None:
        report.blobs += 1
        try:
            problem = await self._problem(check)
        except StorageError as exc:
            if not report.unreadable:
                log.warning("blob %s cannot be read: %s", check.digest, exc)
            report.unreadable += 1
            return
        report.bytes += check.size
        if problem is None:
            await self._good(check, report)
        elif check.is_damaged or await self._damage(check, problem):
            report.damaged.append(check.digest)
        if check.is_damaged == (problem is not None):
            now = max(self.clock(), 0.0)
            await self.metadata.write(
                lambda tx: collect.proved(tx, check.digest, check.version, now), durable=False
            )

    async def _problem(self, check: Check) -> str | None:
        """What is wrong with a blob's bytes, or None.

        Raises:
            StorageError: nobody can say now.
        """
        try:
            actual = await asyncio.to_thread(self._hash, check)
        except ShortObjectError as exc:
            return str(exc)
        except BlobUnknownError as exc:
            if await marker.check(self.metadata, self.storage):
                return str(exc)
            raise StorageError(f"the storage is away: {exc}") from None
        return None if actual == check.digest else f"its bytes hash to {actual}"

    async def _good(self, check: Check, report: ScrubReport) -> None:
        if not check.is_damaged:
            return
        now = self.clock()
        if await self.metadata.write(lambda tx: collect.heal(tx, check.digest, check.version, now)):
            log.info("blob %s is good again", check.digest)
            report.healed.append(check.digest)

    async def _damage(self, check: Check, problem: str) -> bool:
        log.warning("blob %s is damaged: %s", check.digest, problem)
        change = self.change("scrub")
        return await self.metadata.write(
            lambda tx: collect.damage(tx, change, check.digest, check.version)
        )

    async def stats(self) -> dict[str, float]:
        """Figures of the whole registry: counts, bytes, and the age of the most overdue review."""
        now = self.clock()
        return await self.metadata.read(lambda tx: collect.figures(tx, now), slow=True)

    async def trim(self, events: Events) -> int:
        """Delete events that everybody who is configured is done with, once they are old, dead letters that are old or
        too many, and leases of the dead; answers how many events."""
        now, names = self.clock(), {sink.name for sink in events.sinks}

        def work(tx: Transaction) -> tuple[list[str], int, int]:
            gone = deliveries.forget(tx, names, now)
            leases.forget(tx, now - _LEASES_AFTER)
            letters = deliveries.trim(tx, now - events.dead_letter_seconds, events.dead_letters)
            return gone, letters, outbox.trim(tx, now - events.keep_seconds)

        gone, letters, trimmed = await self.metadata.write(work, durable=False)
        for consumer in gone:
            log.info("%s is not configured any more: it would begin anew", consumer)
        if letters:
            log.warning("%d dead letters were too old or too many, and are gone", letters)
        return trimmed

    async def forget(self, cache: Iterable[Upstream]) -> int:
        """Forget when references were compared with an upstream, once that makes none of them fresh or missing any
        more: whoever may pull can ask for any number of names. Answers how many."""
        now, done = self.clock(), 0
        before = now - max((upstream.fresh_seconds for upstream in cache), default=0.0)
        while found := await self.metadata.read(
            lambda tx: upstreams.stale(tx, before, now, _BATCH), slow=True
        ):
            await self.metadata.write(
                lambda tx, found=found: upstreams.forget(tx, found, before, now),  # type: ignore[misc]
                durable=False,
            )
            done += len(found)
        return done


async def run(registry: Registry) -> None:
    """Collect, compact and scrub in the background, a little at a time, for as long as the registry runs; of what is
    told to webhooks nothing is kept for ever, collected or not."""
    settings = registry.settings
    upkeep = Upkeep(registry.metadata, registry.storage, settings.gc, registry.clock)
    while True:
        await asyncio.sleep(settings.gc.interval_seconds)
        if settings.gc.enabled:
            await _pass(upkeep)
        await upkeep.trim(settings.events)
        await upkeep.forget(settings.cache)


async def _pass(upkeep: Upkeep) -> None:
    report = await upkeep.collect()
    report.compacted = await upkeep.compact()
    try:
        await upkeep.scrub()
    except StorageError as exc:
        log.warning("the scrub is put off: %s", exc)
    if report.collected or report.objects_deleted or report.failed:
        log.info("collected: %s", report)


def _session(key: str) -> str:
    """The session an object's key was made for."""
    return key.rpartition("/")[2].rpartition("-")[0]


def _day(moment: float) -> str:
    return dt.datetime.fromtimestamp(moment, tz=dt.UTC).strftime("%Y%m%d")


def _days(after: str, until: str) -> Iterable[str]:
    """The days after one and up to another, at most a year of them."""
    day = dt.datetime.strptime(after, "%Y%m%d").replace(tzinfo=dt.UTC)
    for _ in range(366):
        day += dt.timedelta(days=1)
        name = day.strftime("%Y%m%d")
        if name > until:
            return
        yield name
