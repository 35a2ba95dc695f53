"""The pull-through cache: repositories below a prefix that come from another registry.

- A tag is compared with the upstream when it has not been for a while; where the upstream fails, is silent or limits
  the rate, what is here is served, however old. What it says is missing is missing, and not asked for again for a
  moment. An immutable tag stays what it was when it came in, whatever the upstream has now; it is still asked, for what
  it refuses is refused.
- A blob goes to the client while it comes in and is stored. One fill serves all who ask for it meanwhile; another
  replica waits for it. The reader it comes from proves it, and holds back its end until it has: what is not proved is
  never committed, and no client gets all of it.
- Only blobs that a manifest of the repository names are fetched, and always from the upstream, even if another
  repository here has them: a manifest is no proof that its author may read what it names.
- A range brings the whole blob in, once: bytes that are not proved are not kept, and half a blob proves nothing. It is
  answered as soon as its bytes are there; one that reaches the blob's end has waited for the proof, others have not.
- Lists of tags and of referrers are the upstream's; where it fails, they name what is here.

Where the content comes from is given from above (`SourceFor`): this room speaks to no registry.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argosy.content.protocols import BlobReader, Source
from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    ManifestUnknownError,
    NotFoundError,
    RegistryError,
    TransportError,
)
from argosy.server.fill import PIECE, Fill
from argosy.server.handlers.blobs import get as serve_blob
from argosy.server.handlers.blobs import wanted_range
from argosy.server.handlers.manifests import parse
from argosy.server.http import Header, Request, Response, Stream
from argosy.server.line import THREADS, WRONG, Line
from argosy.server.lists import Kept, Lists
from argosy.server.metadata import (
    Transaction,
    blobs,
    leases,
    manifests,
    repositories,
    uploads,
    upstreams,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.manifests import New, Stored
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.uploads import Upload
from argosy.server.metadata.upstreams import Seen
from argosy.server.registry import Registry, log
from argosy.server.settings import Upstream
from argosy.server.storage import SegmentWriter
from argosy.server.storage.disk import Temporary
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import decode_manifest
from argosy.spec.reference import parse_tag

__all__ = ["Cache", "SourceFor"]

T = TypeVar("T")

Key = tuple[str, str]
Refresh = Callable[[], Awaitable[None]]
SourceFor = Callable[[Upstream, str], Source]
"""Given an upstream and a repository's name there, the repository as a place to read from."""

_LEASE = 60.0
_UPLOAD_LEASE = 6 * 3600.0
_WAIT, _LOOK_AGAIN = 30.0, 0.1
_CANDIDATES, _FILLS = 20, 128


class Cache:
    """A `Mirror` over other registries.

    Args:
        upstreams: Which, and below which prefixes.
        source_for: Opens a repository of one of them.
        patience: Seconds that a client waits for what is perhaps newer than what is here.

    `is_immutable` says whether a tag of a repository must stay as it is once it is here.
    """

    def __init__(
        self, upstreams: Sequence[Upstream], source_for: SourceFor, *, patience: float = 10.0
    ) -> None:
        self.is_immutable: Callable[[str, str], bool] = lambda _name, _tag: False
        self._upstreams = sorted(upstreams, key=lambda u: -len(u.prefix))
        self._source_for, self._patience = source_for, patience
        self._registry: Registry | None = None
        self._holder = secrets.token_hex(8)
        self._under_way: dict[Key, asyncio.Task[None]] = {}
        self._fills: dict[Key, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lists = Lists()
        self._room = asyncio.Semaphore(_FILLS)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="argosy-upstream")
        self._lines: dict[str, Line] = {}

    def attach(self, registry: Registry) -> None:
        """Say which registry this is the cache of."""
        self._registry = registry
        for one in self._upstreams:
            self._lines[one.prefix] = Line(one.registry, self._pool, clock=registry.clock)

    @property
    def registry(self) -> Registry:
        """The registry this is the cache of."""
        assert self._registry is not None
        return self._registry

    def covers(self, name: str) -> bool:
        """Whether a repository comes from an upstream."""
        return self._upstream(name) is not None

    def _upstream(self, name: str) -> Upstream | None:
        return next((u for u in self._upstreams if name.startswith(f"{u.prefix}/")), None)

    def _open(self, name: str) -> tuple[Upstream, Source]:
        upstream = self._upstream(name)
        assert upstream is not None
        return upstream, self._source_for(upstream, name[len(upstream.prefix) + 1 :])

    async def _blocking(self, call: Callable[[], T]) -> T:
        """Run what waits for an upstream where nothing else waits for a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def _ask(self, upstream: Upstream, call: Callable[[], T]) -> T:
        return await self._lines[upstream.prefix].ask(call)

    # -- manifests ---------------------------------------------------------------------------------------------

    async def manifest(self, request: Request) -> None:
        """See that what a request wants is here and fresh, if the upstream has it.

        Raises:
            ManifestUnknownError: the upstream has not.
            ArgosyError: the upstream failed, and nothing is here to serve instead.
        """
        name, reference = request.name, request.argument
        is_digest = ":" in reference
        if is_digest:
            Digest(reference)
        else:
            parse_tag(reference)
        upstream, source = self._open(name)
        now = self.registry.clock()
        found, seen = await self.registry.metadata.read(
            lambda tx: (manifests.find(tx, name, reference), upstreams.look(tx, name, reference))
        )
        if found is not None and (is_digest or 0 <= now - seen.checked < upstream.fresh_seconds):
            return
        if seen.is_missing(now):
            raise ManifestUnknownError(f"manifest {reference} is not in {name}")
        error = await self._compare(
            upstream,
            (name, reference),
            lambda: self._refresh(upstream, source, name, reference, found),
            here=found is not None,
        )
        if error is not None and found is None:
            raise error

    async def _compare(
        self, upstream: Upstream, key: Key, work: Refresh, *, here: bool
    ) -> RegistryError | None:
        """Have something compared with the upstream; where it is `here`, nobody waits for that for long.

        Returns:
            Why it was not, or not yet.
        """
        once = self._once(key, work)
        try:
            if here:
                await self._lines[upstream.prefix].wait(once, self._patience)
            else:
                await asyncio.shield(once)
        except RegistryError as error:
            log.warning("%s: %s as it was: %s", *key, error)
            return error
        return None

    def _once(self, key: Key, work: Refresh) -> asyncio.Task[None]:
        """Run work that is not under way already."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.create_task(_awaited(work()))
            self._under_way[key] = task
            task.add_done_callback(lambda _task: self._under_way.pop(key, None))
        return task

    async def _refresh(
        self, upstream: Upstream, source: Source, name: str, reference: str, found: Stored | None
    ) -> None:
        now = self.registry.clock()
        stays = found is not None and self.is_immutable(name, reference)
        there = None
        try:
            desc = await self._ask(upstream, lambda: source.resolve(reference))
            there = desc.digest
            if found is None or not (stays or found.digest == there):
                await self._take(upstream, source, name, reference, desc)
        except NotFoundError:
            if not stays:
                await self._note(name, reference, Seen(now, now + upstream.missing_seconds))
                raise ManifestUnknownError(f"manifest {reference} is not in {name}") from None
        if found is not None and stays and found.digest != there:
            has = there or "none any more"
            log.warning("tag %s of %s is immutable: its upstream has %s", reference, name, has)
        await self._note(name, reference, Seen(now, 0.0))

    async def _note(self, name: str, reference: str, seen: Seen) -> None:
        await self.registry.write(
            lambda tx: upstreams.note(tx, name, reference, seen), durable=False
        )

    async def _take(
        self, upstream: Upstream, source: Source, name: str, reference: str, desc: Descriptor
    ) -> None:
        """Fetch a manifest, proved, and store it under its tag."""
        limit = self.registry.settings.limits.manifest_bytes
        if desc.size > limit:
            raise RegistryError(f"{name}: manifest of {desc.size} bytes, over {limit}")

        def fetch() -> New:
            with source.fetch(desc) as reader:
                raw = b"".join(iter(lambda: reader.read(PIECE), b""))
            return parse(raw, desc.media_type, desc.digest)

        new = await self._ask(upstream, fetch)
        change = self._change()
        tags = [] if ":" in reference else [reference]
        stays = self.is_immutable(name, reference)

        def work(tx: Transaction) -> None:
            if stays and manifests.find(tx, name, reference):
                return  # somebody was quicker
            repo = (repositories.ensure(tx, name, change), name)
            manifests.put(tx, change, repo, new, tags, sparse=True)

        await self.registry.write(work)

    def _change(self) -> Change:
        rules = self.registry.settings.gc
        return Change(self.registry.clock(), rules.grace_seconds, "cache", "", rules.trash_seconds)

    # -- lists -------------------------------------------------------------------------------------------------

    async def tags(self, name: str) -> Sequence[str] | None:
        """See `Mirror.tags`."""
        return await self._listed(name, "tags", lambda source: sorted(source.tags()))

    async def referrers(self, name: str, subject: Digest) -> Sequence[Descriptor] | None:
        """See `Mirror.referrers`."""
        desc = Descriptor(media_type=mediatypes.OCI_MANIFEST, digest=subject, size=0)
        try:
            return await self._listed(
                name, subject, lambda source: sorted(source.referrers(desc), key=lambda d: d.digest)
            )
        except NotFoundError:
            return ()

    async def _listed(
        self, name: str, what: str, ask: Callable[[Source], Sequence[T]]
    ) -> Sequence[T] | None:
        """A list of the upstream's, as old as a tag may be, or older where it fails; None if there is none at all."""
        upstream, source = self._open(name)
        key = (name, f"list of {what}")

        async def refresh() -> None:
            found = await self._ask(upstream, lambda: ask(source))
            self._lists.put(key, Kept(found, self.registry.clock()))

        held = self._lists.get(key)
        if held is None or not held.is_fresh(self.registry.clock(), upstream.fresh_seconds):
            await self._compare(upstream, key, refresh, here=held is not None)
        held = self._lists.get(key)
        return held.entries if held else None

    # -- blobs -------------------------------------------------------------------------------------------------

    async def blob(self, request: Request) -> Response | None:
        """Answer with a blob that is not here: as it comes in, or a range of it, or only that it is there."""
        name, digest = request.name, Digest(request.argument)
        desc = await self._described(name, digest)
        seen = await self.registry.metadata.read(lambda tx: upstreams.look(tx, name, digest))
        if desc is None or seen.is_missing(self.registry.clock()):
            return None
        upstream, source = self._open(name)
        try:
            return await self._answer(request, upstream, source, desc)
        except NotFoundError:
            now = self.registry.clock()
            await self._note(name, digest, Seen(now, now + upstream.missing_seconds))
            return None

    async def _described(self, name: str, digest: Digest) -> Descriptor | None:
        """The descriptor some manifest of the repository has of a blob: it says how many bytes there must be."""

        def work(tx: Transaction) -> list[tuple[str, bytes]]:
            rows = tx.rows(
                "SELECT m.media_type, b.content FROM repository r"
                " JOIN manifest_ref f ON f.repo_id = r.id AND f.target = ? AND f.kind = 'blob'"
                " JOIN manifest m ON m.repo_id = r.id AND m.digest = f.manifest"
                " JOIN manifest_body b ON b.repo_id = r.id AND b.digest = f.manifest"
                " WHERE r.name = ? ORDER BY f.manifest LIMIT ?",
                (digest, name, _CANDIDATES),
            )
            return [(row[0], bytes(row[1])) for row in rows]

        for media_type, content in await self.registry.metadata.read(work):
            parsed = decode_manifest(content, media_type, limit=len(content))
            for desc in parsed.children():
                if desc.digest == digest:
                    return desc.bare()
        return None

    async def _answer(
        self, request: Request, upstream: Upstream, source: Source, desc: Descriptor
    ) -> Response | None:
        headers = _headers(desc)
        if request.method == "HEAD":
            if not await self._ask(upstream, lambda: source.exists(desc)):
                raise BlobUnknownError(f"blob {desc.digest} is not in {request.name}")
            return Response(200, headers, length=desc.size)
        part = wanted_range(request, desc.digest, desc.size)
        fill = await self._fill(request.name, upstream, source, desc)
        if fill is None:
            return await self._stored(request, desc)
        if part is None:
            return Response(200, headers, Stream(fill.stream(0, desc.size), desc.size))
        start, stop = part
        headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, desc.size)))
        return Response(206, headers, Stream(fill.stream(start, stop), stop - start))

    async def _stored(self, request: Request, desc: Descriptor) -> Response | None:
        """Another replica has stored it meanwhile."""
        found = await self.registry.metadata.read(
            lambda tx: blobs.find(tx, request.name, desc.digest)
        )
        return await serve_blob(self.registry, request) if found is not None else None

    async def _fill(
        self, name: str, upstream: Upstream, source: Source, desc: Descriptor
    ) -> Fill | None:
        """The fill of a blob, begun if nobody has; None if another replica has finished one."""
        key = (name, desc.digest)
        if key in self._fills:
            return await self._fills[key].join().opened()
        lease = f"cache:{name}@{desc.digest}"
        is_leader = await self._lead(name, lease, desc)
        if key in self._fills:
            return await self._fills[key].join().opened()
        if is_leader is None:
            return None
        fill = self._fills[key] = Fill(desc)
        task = asyncio.create_task(
            self._run(fill, key, lease if is_leader else None, upstream, source)
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await fill.join().opened()

    async def _lead(self, name: str, lease: str, desc: Descriptor) -> bool | None:
        """Whether this replica fills; None if another one has finished while we waited, False if it takes too long."""
        clock, began = self.registry.clock, self.registry.clock()

        def work(tx: Transaction) -> bool:
            return leases.take(tx, lease, self._holder, clock(), _LEASE)

        while clock() - began < _WAIT:
            if await self.registry.write(work, durable=False):
                return True
            await asyncio.sleep(_LOOK_AGAIN)
            found = await self.registry.metadata.read(lambda tx: blobs.look(tx, name, desc.digest))
            if found is not None:
                return None
        return False

    async def _run(
        self, fill: Fill, key: Key, lease: str | None, upstream: Upstream, source: Source
    ) -> None:
        """Bring a blob in; store it if the lease is ours. Whatever happens is told to those who read."""
        name = key[0]
        upload: Upload | None = None
        try:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(self._room)
                fill.begin(Temporary.of(self.registry.settings))
                reader = await self._ask(upstream, lambda: source.fetch(fill.desc))
                stack.callback(reader.close)
                writer: SegmentWriter | None = None
                if lease is not None:
                    upload = await self.registry.write(
                        functools.partial(_begin, self._change(), name, fill.desc), durable=False
                    )
                    last = Segment(uploads.new_key(upload), fill.desc.size)
                    writer = await self.registry.blocking(
                        functools.partial(self.registry.storage.create, last.key, size=last.size)
                    )
                    stack.callback(writer.abort)
                fill.open()
                await self._pump(fill, reader, writer, lease)
                if writer is not None and upload is not None:
                    await self.registry.blocking(writer.commit)
                    await self.registry.write(
                        functools.partial(_finish, self._change(), name, fill.desc, upload, last)
                    )
                    upload = None
            fill.end(None)
        except Exception as exc:  # noqa: BLE001  # told to whoever reads
            told = exc if isinstance(exc, ArgosyError) else TransportError(str(exc))
            fill.end(TransportError(str(exc)) if isinstance(exc, WRONG) else told)
            if not isinstance(exc, ArgosyError):
                log.exception("filling %s of %s failed", fill.desc.digest, name)
        finally:
            await self._after(fill, key, lease, upload)

    async def _after(self, fill: Fill, key: Key, lease: str | None, upload: Upload | None) -> None:
        self._fills.pop(key, None)
        fill.leave()

        def work(tx: Transaction) -> None:
            if upload is not None:
                uploads.drop(tx, self._change(), upload)
            if lease is not None:
                leases.drop(tx, lease, self._holder)

        if lease is not None:
            await self.registry.write(work, durable=False)

    async def _pump(
        self, fill: Fill, reader: BlobReader, writer: SegmentWriter | None, lease: str | None
    ) -> None:
        """Move the bytes; the last of them arrive only after all were proved."""
        renewed = self.registry.clock()
        while data := await self._blocking(functools.partial(fill.step, reader, writer)):
            fill.arrived(len(data))
            now = self.registry.clock()
            if lease is not None and now - renewed > _LEASE / 3:
                renewed = now
                await self.registry.write(
                    functools.partial(_renew, lease, self._holder, now), durable=False
                )


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _headers(desc: Descriptor) -> list[Header]:
    digest = desc.digest.encode()
    return [
        (b"content-type", b"application/octet-stream"),
        (b"accept-ranges", b"bytes"),
        (b"docker-content-digest", digest),
        (b"etag", b'"%s"' % digest),
    ]


def _begin(change: Change, name: str, desc: Descriptor, tx: Transaction) -> Upload:
    """A session like a client's, so that a fill that dies is cleaned up like one of theirs."""
    repo_id = repositories.ensure(tx, name, change)
    identity = uploads.new_id(change.now)
    expires = change.now + _UPLOAD_LEASE
    uploads.create(tx, repo_id, identity, "cache", desc.digest.algorithm, expires)
    return uploads.claim(
        tx,
        name,
        identity,
        "cache",
        start=0,
        known=None,
        now=change.now,
        lease=_UPLOAD_LEASE,
        expires=expires,
    )


def _finish(
    change: Change, name: str, desc: Descriptor, upload: Upload, last: Segment, tx: Transaction
) -> None:
    uploads.finish(tx, change, upload, name, desc.digest, desc.size, last)


def _renew(lease: str, holder: str, now: float, tx: Transaction) -> bool:
    return leases.take(tx, lease, holder, now, _LEASE)
