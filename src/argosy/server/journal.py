"""The journal: what the outbox says, written into the storage itself, so that a lost database can be made again.

Objects `j/<generation>/<first>-<last>-<random>` hold one JSON line an event, with what the event alone does not say:
where a blob's bytes lie, and a manifest's bytes. They are written about a second after the change: what was pushed in
the last second before a database was lost for good is what a rebuild may lack. Back the database up as well.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    InvalidManifestError,
    ManifestUnknownError,
    NotFoundError,
    StorageError,
)
from argosy.server import marker
from argosy.server.handlers.manifests import parse
from argosy.server.metadata import (
    ForeignKeyError,
    Metadata,
    Transaction,
    blobs,
    collect,
    manifests,
    outbox,
    repositories,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.outbox import Change, Event
from argosy.server.registry import Registry, log
from argosy.server.storage import ShortObjectError, Storage
from argosy.spec.digest import Digest
from argosy.spec.reference import parse_name

_BATCH = 1000
_PAUSE = 1.0
_MERGE_PAUSE = 3600.0
_MERGED = 20_000
_NAME = re.compile(r"j/([0-9]{12,}-[0-9a-f]{8})/([0-9]{20})-([0-9]{20})-[0-9a-f]{8}")


@dataclasses.dataclass(slots=True)
class Rebuilt:
    """What a rebuild did.

    Args:
        entries: Entries replayed.
        skipped: Those of them that could not be: their content is not in the storage.
        damaged: Lines and objects of the journal that cannot be read, and are left out.
    """

    entries: int = 0
    skipped: int = 0
    damaged: int = 0


_Waiting = dict[str, dict[str, dict[str, Any]]]
"""Pushes whose objects are gone, by digest and repository: the blob may have been written anew since, elsewhere."""


# -- writing --------------------------------------------------------------------------------------


async def write(metadata: Metadata, storage: Storage) -> int:
    """Write what has happened since the last time into one object; answers how many events.

    Raises:
        StorageError: the storage is away, or takes none.
    """

    def gather(tx: Transaction) -> tuple[int, list[dict[str, Any]]]:
        position = outbox.position(tx, outbox.JOURNAL)
        return position, [_entry(tx, event) for event in outbox.after(tx, position, _BATCH)]

    position, entries = await metadata.read(gather)
    if not entries:
        return 0
    await marker.check(metadata, storage)
    generation = await _generation(metadata, entries[0]["at"])
    first, last = entries[0]["id"], entries[-1]["id"]
    key = _key(generation, first, last)
    await asyncio.to_thread(_put, storage, key, entries)

    def advance(tx: Transaction) -> bool:
        if outbox.position(tx, outbox.JOURNAL) != position:
            return False
        outbox.advance(tx, outbox.JOURNAL, last)
        return True

    if not await metadata.write(advance):  # another worker was quicker, and wrote the same
        await asyncio.to_thread(storage.delete, [key])
    return len(entries)


async def run(registry: Registry) -> None:
    """Write the journal, and merge its small objects, for as long as the registry runs."""
    await resume(registry.metadata, registry.storage)
    merged = registry.clock()
    while True:
        if await write(registry.metadata, registry.storage) < _BATCH:
            await asyncio.sleep(_PAUSE)
        if registry.clock() - merged > _MERGE_PAUSE:
            merged = registry.clock()
            await marker.check(registry.metadata, registry.storage)
            with contextlib.suppress(NotFoundError):  # another worker merges the same ones
                await asyncio.to_thread(merge, registry.storage)


def merge(storage: Storage, most: int = _MERGED) -> int:
    """Put many small objects together, `most` events at a time; answers how many objects fewer there are.

    The large one is durable before the small ones go; a rebuild skips what it has seen. Damaged ones stay as they are.
    A manifest that was pushed and deleted within one large object is in it without its bytes, as one is that went
    before it was written down: a rebuild needs neither.

    Raises:
        BlobUnknownError: somebody else is merging.
    """
    fewer, batch, events = 0, list[str](), 0
    for key in _objects(storage):
        generation, first, last = _span(key)
        count = outbox.count(first, last)
        if count > most // 2 or (batch and _span(batch[0])[0] != generation):
            batch, events = [], 0
            continue
        batch.append(key)
        events += count
        if events >= most:
            begin, end = _span(batch[0])[1], max(_span(one)[2] for one in batch)
            try:
                _put(storage, _key(generation, begin, end), _slim(storage, batch))
            except StorageError as exc:
                log.warning("objects of the journal stay apart: %s", exc)
            else:
                storage.delete(batch)
                fewer += len(batch) - 1
            batch, events = [], 0
    return fewer


def _key(generation: str, first: int, last: int) -> str:
    return f"j/{generation}/{first:020d}-{last:020d}-{secrets.token_hex(4)}"


def _span(key: str) -> tuple[str, int, int]:
    """The generation of a journal object, and its first and last event."""
    found = _NAME.fullmatch(key)
    assert found is not None
    return found[1], int(found[2]), int(found[3])


def _objects(storage: Storage) -> list[str]:
    """The keys of the journal, in order; not those that something else has put among them."""
    return sorted(key for key in storage.keys("j/") if _NAME.fullmatch(key))


Damaged = Callable[[str], None]
"""Told what cannot be read, and in which object."""


def _refuse(what: str) -> None:
    raise StorageError(what)


def _unique(storage: Storage, keys: Iterable[str], damaged: Damaged) -> Iterator[dict[str, Any]]:
    """The entries of journal objects of one generation, each once, in order."""
    seen = 0
    for key in keys:
        for entry in _load(storage, key, damaged):
            if entry["id"] > seen:
                seen = entry["id"]
                yield entry


def _slim(storage: Storage, keys: list[str]) -> Iterator[dict[str, Any]]:
    """The entries of some objects, without the bytes of manifests that the same objects say were deleted later."""
    deleted = {
        (entry.get("repository"), entry.get("digest")): entry["id"]
        for entry in _unique(storage, keys, _refuse)
        if entry["kind"] == outbox.MANIFEST_DELETED
    }
    for entry in _unique(storage, keys, _refuse):
        if entry["id"] < deleted.get((entry.get("repository"), entry.get("digest")), 0):
            entry.pop("content", None)
        yield entry


def _put(storage: Storage, key: str, entries: Iterable[dict[str, Any]]) -> None:
    writer = storage.create(key)
    try:
        for entry in entries:
            writer.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        writer.commit()
    except BaseException:
        writer.abort()
        raise


async def _generation(metadata: Metadata, began: float) -> str:
    """The name of this database's journal; a new one is after all that were there when its first event came."""
    found = await metadata.read(lambda tx: repositories.setting(tx, "journal"))
    if found is not None:
        return found
    name = f"{int(began):012d}-{secrets.token_hex(4)}"
    made = await metadata.write(lambda tx: repositories.setting(tx, "journal", name))
    assert made is not None
    return made


async def resume(metadata: Metadata, storage: Storage) -> None:
    """Begin a new generation where the journal is ahead of the database: that is an older one which was put back, and
    gives the same numbers to other events."""
    generation = await metadata.read(lambda tx: repositories.setting(tx, "journal"))
    if generation is None:
        return
    spans = [_span(key) for key in await asyncio.to_thread(_objects, storage)]
    written = max((last for name, _, last in spans if name == generation), default=0)

    if await metadata.read(lambda tx: outbox.position(tx, outbox.JOURNAL)) < written:
        forget = "DELETE FROM setting WHERE name = 'journal' AND value = ?"
        await metadata.write(lambda tx: tx.rows(forget, (generation,)))


def _entry(tx: Transaction, event: Event) -> dict[str, Any]:
    entry = {key: value for key, value in event._asdict().items() if value not in {None, ""}}
    digest = event.digest or ""
    if event.kind in {outbox.BLOB_PUSHED, outbox.BLOB_MOUNTED, outbox.BLOB_MOVED}:
        entry["segments"] = [list(segment) for segment in collect.segments_of(tx, digest)]
    if event.kind == outbox.MANIFEST_PUSHED:
        found = manifests.find(tx, event.repository, digest)
        content = manifests.content(tx, found) if found else None
        if content is not None:
            entry["content"] = base64.b64encode(content).decode()
    return entry


# -- reading --------------------------------------------------------------------------------------


async def rebuild(metadata: Metadata, storage: Storage) -> Rebuilt:
    """Fill an empty database from the journal in the storage.

    Raises:
        StorageError: the database is not empty, or the storage is no registry's, or is away.
    """
    if await metadata.read(lambda tx: tx.row("SELECT 1 FROM repository LIMIT 1")):
        raise StorageError(
            "the database is not empty",
            hint="move it away first, also what a rebuild left that broke off: it begins with nothing",
        )
    keys = await asyncio.to_thread(_objects, storage)
    if not keys and not await asyncio.to_thread(marker.is_marked, storage):
        raise StorageError(
            "the storage has neither a journal nor the marker of a registry", hint="is it mounted?"
        )
    report = Rebuilt()

    def damaged(what: str) -> None:
        log.warning("%s", what)
        report.damaged += 1

    waiting: _Waiting = {}
    for _, group in itertools.groupby(keys, lambda key: _span(key)[0]):
        entries = _unique(storage, group, damaged)
        while (entry := await asyncio.to_thread(next, entries, None)) is not None:
            report.entries += 1
            for one in await asyncio.to_thread(_ripe, storage, entry, waiting):
                await _replay(metadata, one, report, damaged)
    report.skipped += sum(map(len, waiting.values()))
    await metadata.write(lambda tx: tx.rows("DELETE FROM event"))
    return report


def _load(storage: Storage, key: str, damaged: Damaged) -> Iterator[dict[str, Any]]:
    try:
        text = b"".join(storage.read(key))
    except StorageError as exc:
        marker.is_marked(storage)  # raises where it is the storage that is away
        return damaged(str(exc))
    for number, line in enumerate(text.splitlines(), 1):
        entry = _parsed(line)
        if entry is None:
            damaged(f"object {key}, line {number}: expected an entry of the journal")
        else:
            yield entry


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The entry a line holds; None if it holds none."""
    try:
        entry = json.loads(line)
        good = all(isinstance(entry[name], kind) for name, kind in _FIELDS.items())
        for key, size in entry.get("segments", ()):
            good = good and isinstance(key, str) and isinstance(size, int)
        Digest(entry.get("digest", _ANY))
        parse_name(entry.get("repository", "any"))
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return None
    return entry if good else None


_FIELDS: dict[str, Any] = {"id": int, "at": float | int, "kind": str}
_ANY = Digest.of(b"")


def _ripe(storage: Storage, entry: dict[str, Any], waiting: _Waiting) -> list[dict[str, Any]]:
    """The entries to replay at this one: itself, if what it speaks of is in the storage, and the pushes that waited
    for such bytes, before it."""
    if "segments" not in entry:
        if entry["kind"] in {outbox.BLOB_DELETED, outbox.BLOB_COLLECTED}:
            waiting.get(entry.get("digest", ""), {}).pop(entry.get("repository", ""), None)
        return [entry]
    digest, name = entry.get("digest", ""), entry.get("repository", "")
    if _there(storage, entry) and (entry["segments"] or not entry.get("size")):
        pushes = waiting.pop(digest, {}).values()
        return [*({**push, "segments": entry["segments"]} for push in pushes), entry]
    if name:
        waiting.setdefault(digest, {})[name] = entry
    return []


async def _replay(
    metadata: Metadata, entry: dict[str, Any], report: Rebuilt, damaged: Damaged
) -> None:
    replay = _REPLAY.get(entry["kind"])
    if replay is None:
        return
    change = Change(entry["at"], principal=entry.get("principal", ""))

    def work(tx: Transaction) -> None:
        repo = (0, "")
        if "repository" in entry:
            repo = (repositories.ensure(tx, entry["repository"], change), entry["repository"])
        replay(tx, change, repo, entry)

    try:
        await metadata.write(work, durable=False)
    except (NotFoundError, ForeignKeyError):  # what it speaks of came and went within one batch
        report.skipped += 1
    except (KeyError, TypeError, ValueError) as exc:
        damaged(f"entry {entry['id']} ({entry['kind']}): {exc!r}")
    except ArgosyError as exc:
        exc.add_note(f"journal entry {entry['id']} ({entry['kind']})")
        raise


def _there(storage: Storage, entry: dict[str, Any]) -> bool:
    """Whether all bytes of a blob's entry are in the storage, to the last one."""
    try:
        for key, size in entry["segments"]:
            for _ in storage.read(key, size - 1, size):
                pass
    except (BlobUnknownError, ShortObjectError):
        return False
    except StorageError:
        marker.is_marked(storage)  # raises where it is the storage that is away
        return False
    return True


_Repo = tuple[int, str]


def _pushed(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    segments = [Segment(*pair) for pair in entry["segments"]]
    if not segments and entry["size"]:
        raise BlobUnknownError(entry["digest"])
    if blobs.healthy(tx, entry["digest"]):
        blobs.link(tx, change, repo, entry["digest"], entry["size"], entry["kind"])
    else:
        blobs.commit(tx, change, repo, entry["digest"], entry["size"], segments)


def _moved(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    del repo
    if blobs.healthy(tx, entry["digest"]):
        segments = [Segment(*pair) for pair in entry["segments"]]
        if segments and collect.segments_of(tx, entry["digest"]) != segments:
            blobs.replace(tx, change, entry["digest"], segments)


def _unlinked(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    blobs.drop_link(tx, change, repo, entry["digest"], entry["kind"])


def _manifest(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    if "content" not in entry:
        raise ManifestUnknownError(entry["digest"])
    raw = base64.b64decode(entry["content"])
    new = parse(raw, entry["media_type"], Digest(entry["digest"]))
    with contextlib.suppress(
        InvalidManifestError
    ):  # older versions let the type change: the first one stays
        manifests.put(tx, change, repo, new, (), sparse=True)


def _manifest_deleted(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    manifests.delete(tx, change, repo[1], entry["digest"])


def _tagged(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    manifests.set_tag(tx, change, repo, entry["tag"], entry["digest"], None)


def _untagged(tx: Transaction, change: Change, repo: _Repo, entry: dict[str, Any]) -> None:
    manifests.delete_tag(tx, change, repo[1], entry["tag"])


_REPLAY = {
    outbox.BLOB_PUSHED: _pushed,
    outbox.BLOB_MOUNTED: _pushed,
    outbox.BLOB_MOVED: _moved,
    outbox.BLOB_DELETED: _unlinked,
    outbox.BLOB_COLLECTED: _unlinked,
    outbox.MANIFEST_PUSHED: _manifest,
    outbox.MANIFEST_DELETED: _manifest_deleted,
    outbox.TAG_SET: _tagged,
    outbox.TAG_DELETED: _untagged,
}
