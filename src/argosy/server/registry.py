"""What the handlers work with: the database, the storage, the rules, and the few things kept in memory.

Nothing kept here grants access: the manifest cache is asked only after the repository's link was found, and hash
states only under a session's id and the digest of what it has received.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from argosy.errors import ArgosyError
from argosy.server.access import Access, Anonymous
from argosy.server.http import Request, Response
from argosy.server.metadata import ForeignKeyError, Metadata, Work, repositories
from argosy.server.metadata.outbox import Change
from argosy.server.presence import Presence
from argosy.server.probe import Probe
from argosy.server.settings import Settings
from argosy.server.storage import Storage
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest, Hasher

T = TypeVar("T")
P = ParamSpec("P")
log = logging.getLogger("argosy.server")


@dataclasses.dataclass(slots=True)
class Exchange:
    """One request and its answer, for the log and the counters.

    Args:
        request: The request; `request.received` are the bytes of its body.
        route: The name of its route, or "" where none matched.
        status: The answer's status.
        sent: Bytes of the answer's body.
        seconds: From the request's headers to the answer's last byte.
    """

    request: Request
    route: str
    status: int
    sent: int
    seconds: float


class Mirror(Protocol):
    """A pull-through cache, asked before the registry says that something is missing."""

    def covers(self, name: str) -> bool:
        """Whether a repository comes from somewhere else."""
        ...

    async def manifest(self, request: Request) -> None:
        """Bring what the request's `name` and `argument` say into the registry, if it is there and not fresh.

        Raises:
            ArgosyError: the upstream's answer, where nothing stale can be served instead.
        """
        ...

    async def blob(self, request: Request) -> Response | None:
        """Answer with a blob the registry lacks, storing it meanwhile; None if the upstream has none either."""
        ...

    async def tags(self, name: str) -> Sequence[str] | None:
        """The tags the upstream has now, in byte order; None where it fails, and what is here must do.

        Raises:
            NotFoundError: it has no such repository.
            DeniedError: it refuses.
        """
        ...

    async def referrers(self, name: str, subject: Digest) -> Sequence[Descriptor] | None:
        """The manifests with a subject that the upstream has now, by digest; None where it fails.

        Raises:
            DeniedError: it refuses.
        """
        ...


class ManifestCache:
    """The bytes of manifests, by digest, within a limit of bytes. They never change, so they are never stale.

    >>> cache = ManifestCache(10)
    >>> cache.put("a", b"123456"); cache.put("b", b"123456")
    >>> cache.get("a"), cache.get("b")
    (None, b'123456')
    """

    def __init__(self, limit: int = 32 * 1024 * 1024) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None."""
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def put(self, digest: str, content: bytes) -> None:
        """Keep bytes; very large ones are not kept."""
        if len(content) > max(1024, self._limit // 8) or digest in self._kept:
            return
        self._kept[digest] = content
        self._size += len(content)
        while self._size > self._limit:
            self._size -= len(self._kept.popitem(last=False)[1])


class Registry:
    """Everything one worker has.

    Args:
        metadata: The database.
        storage: Where blobs lie.
        settings: What was configured.
        access: Who may do what.
        clock: Seconds since the epoch.
        mirror: The pull-through cache, if there is one.
        chunk_min_length: Told to clients as `OCI-Chunk-Min-Length`; 0 for none.
        tasks: What runs in the background while the registry does.
        on_exchange: Called after every request.
        sparse: Given a repository's name, whether manifests may refer to what is not there; None takes the setting.
    """

    def __init__(
        self,
        metadata: Metadata,
        storage: Storage,
        *,
        settings: Settings | None = None,
        access: Access | None = None,
        clock: Callable[[], float] = time.time,
        mirror: Mirror | None = None,
        chunk_min_length: int = 0,
        tasks: Sequence[Callable[[Registry], Awaitable[None]]] = (),
        on_exchange: Callable[[Exchange], None] | None = None,
        sparse: Callable[[str], bool] | None = None,
    ) -> None:
        self.metadata = metadata
        self.storage = storage
        self.settings = settings or Settings()
        self.access = access or Anonymous()
        self.clock = clock
        self.mirror = mirror
        self.chunk_min_length = chunk_min_length
        self.on_exchange = on_exchange
        self.sparse = sparse or (lambda _name: self.settings.content.sparse)
        self.manifests = ManifestCache()
        self.hashers: OrderedDict[tuple[str, str | None], Hasher] = OrderedDict()
        self.big = asyncio.Semaphore(2)
        self.ready = False
        self.presence = Presence()
        self.probe = Probe(metadata, storage)
        self.patience = 5.0
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="argosy-io")
        self._secret = b""

    async def start(self) -> None:
        """Learn the upload secret and begin the background tasks. Costs the same at any size."""
        secret = self.settings.secret or await self._stored_secret()
        self._secret = secret.encode()
        self.presence.begin(self.settings.data)
        self._running = [asyncio.create_task(self._task(task)) for task in self._tasks]
        self.ready = True

    async def stop(self) -> None:
        """End the background tasks, finish what is being written, and close the database."""
        self.ready = False
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._pool.shutdown(wait=True)
        self.metadata.close()
        self.presence.end()

    def change(self, request: Request) -> Change:
        """What a write on behalf of a request is told."""
        rules = self.settings.gc
        return Change(
            self.clock(),
            rules.grace_seconds,
            request.principal.name,
            request.id,
            rules.trash_seconds,
        )

    async def blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run something that blocks on the bounded pool."""
        assert not kwargs
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def begun(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin something that blocks on the bounded pool, for a write that comes after it."""
        return self._pool.submit(function, *args, **kwargs)

    async def write(
        self, work: Work[T], *, durable: bool = True, after: Future[Any] | None = None
    ) -> T:
        """A write in the database."""
        return await self.metadata.write(work, durable=durable, after=after)

    async def settled(
        self,
        work: Work[T],
        otherwise: ArgosyError,
        *,
        durable: bool = True,
        after: Future[Any] | None = None,
    ) -> T:
        """A write that a foreign key may refuse because of another one at this moment: once more, it sees that one.

        Raises:
            ArgosyError: `otherwise`, where it was refused again.
        """
        try:
            return await self.write(work, durable=durable, after=after)
        except ForeignKeyError:
            try:
                return await self.write(work, durable=durable)
            except ForeignKeyError as exc:
                raise otherwise from exc

    def sign(self, name: str, upload: str, principal: str) -> str:
        """What binds an upload's location to its repository and its principal."""
        text = f"{name}\0{upload}\0{principal}".encode()
        return hmac.new(self._secret, text, "sha256").hexdigest()[:32]

    def keep_hasher(self, upload: str, so_far: str, hasher: Hasher) -> None:
        """Remember a session's state of a digest so far: its next body can go on without reading all again."""
        self.hashers[upload, so_far] = hasher
        while len(self.hashers) > 512:
            self.hashers.popitem(last=False)

    async def _stored_secret(self) -> str:
        made = secrets.token_hex(32)
        found = await self.write(lambda tx: repositories.setting(tx, "upload_secret", made))
        assert found is not None
        return found

    async def _task(self, task: Callable[[Registry], Awaitable[None]]) -> None:
        """Run a background task for ever; one that fails is logged and begun again."""
        while True:
            try:
                await task(self)
            except asyncio.CancelledError:
                raise
            except Exception as exc:  # it is logged, whole where it is a bug
                told = None if isinstance(exc, ArgosyError) else exc
                log.error("background task failed; it begins again in 5 s: %s", exc, exc_info=told)
                await asyncio.sleep(5)
            else:
                return


async def prefetched(registry: Registry, source: Any) -> AsyncIterator[bytes]:
    """The pieces of a blocking iterator, the next one being read while the last is sent."""
    iterator = iter(source)
    coming = asyncio.ensure_future(registry.blocking(next, iterator, None))
    try:
        while (piece := await coming) is not None:
            coming = asyncio.ensure_future(registry.blocking(next, iterator, None))
            yield piece
    finally:
        if not coming.done():
            await asyncio.wait([coming])
        if hasattr(iterator, "close"):
            iterator.close()


async def begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces, once the first of them is there: what fails until then can still be told."""
    first = await anext(pieces, b"")
    return _behind(first, pieces)


async def _behind(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in pieces:
        yield piece
