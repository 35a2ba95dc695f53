"""From settings to a registry: which engine, which storage, which rules, which tasks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from argosy.errors import InvalidConfigError, StorageError
from argosy.server import gc, journal
from argosy.server.access import Access, Anonymous
from argosy.server.app import App
from argosy.server.cache import Cache, SourceFor
from argosy.server.config import is_loopback, is_open
from argosy.server.connections import Connections, Peer
from argosy.server.front import Front, Limiter, Metered
from argosy.server.handlers.bodies import CHUNK
from argosy.server.http import Receive, Scope, Send
from argosy.server.loopback import Loopback
from argosy.server.metadata import Metadata
from argosy.server.metadata.sqlite import Sqlite, anew, fold
from argosy.server.namespaces import Namespaces
from argosy.server.readonly import ReadOnly
from argosy.server.registry import Registry
from argosy.server.routes import Route
from argosy.server.settings import Listen, Settings
from argosy.server.storage import Storage
from argosy.server.storage.breaker import Breaker
from argosy.server.storage.disk import Temporary
from argosy.server.storage.filesystem import FileSystem
from argosy.server.team import Seat
from argosy.server.telemetry import Telemetry

if TYPE_CHECKING:
    from argosy.server.auth.gate import Gate

Task = Callable[[Registry], Awaitable[None]]

_CHUNK_MIN_LENGTH = {"filesystem": CHUNK, "s3": 5 * 1024 * 1024}
"""Told to clients: each chunk becomes an object of its own."""


def build(
    settings: Settings, seat: Seat | None = None, *, source_for: SourceFor | None = None
) -> App:
    """The application a worker serves.

    Args:
        settings: What was configured.
        seat: The worker's place among the others; None where it is alone.
        source_for: Opens repositories of the upstreams of a pull-through cache.

    Raises:
        StorageError: the data directory, the database or the storage cannot be opened, or takes no temporary files.
        InvalidConfigError: a file of users, keys or rules is wrong, or there are upstreams and no way to them.
    """
    if settings.cache and source_for is None:
        raise InvalidConfigError("cache: nothing here can speak to another registry")
    gate = _gate(settings)
    metadata = open_metadata(settings)
    try:
        storage = open_storage(settings)
        Temporary.of(settings).check()
    except BaseException:
        metadata.close()
        raise
    cache = Cache(settings.cache, source_for) if settings.cache and source_for else None
    return _Fronted(settings, seat or Seat(), gate, metadata, storage, cache)


def _gate(settings: Settings) -> Gate | None:
    """What asks who somebody is; None where everybody may do everything.

    It is loaded only where it is used: cryptography and its like are a third of the time a registry needs to start.
    """
    if is_open(settings):
        return None
    from argosy.server.auth.gate import open_gate

    return open_gate(settings, settings.data or "")


def _everybody(listen: Listen) -> Access:
    return Loopback(listen.public_url) if is_loopback(listen.host) else Anonymous()


class _Fronted(App):
    """The application behind its front, with everything that is configured around the core."""

    def __init__(
        self,
        settings: Settings,
        seat: Seat,
        gate: Gate | None,
        metadata: Metadata,
        storage: Storage,
        cache: Cache | None,
    ) -> None:
        access: Access = gate or _everybody(settings.listen)
        telemetry = Telemetry(settings, gate, seat)
        limiter = Limiter(settings.limits, seat)
        trusted = settings.listen.trusted_proxies
        self._connections = Connections(settings.limits, trusted)
        if gate is not None:
            access = Metered(access, limiter)
        if cache is not None:
            access = ReadOnly(access, cache)
            if gate is not None:
                rules = gate.policy
                cache.is_immutable = lambda name, tag: rules().is_immutable(name, tag)
        registry = Registry(
            metadata,
            storage,
            settings=settings,
            access=access,
            mirror=cache,
            chunk_min_length=_CHUNK_MIN_LENGTH[settings.storage.type],
            tasks=[
                *(_once(seat, task) for task in _tasks(settings, gate)),
                telemetry.run,
                self._connections.run,
            ],
            on_exchange=telemetry.record,
        )
        if cache is not None:
            cache.attach(registry)
        super().__init__(registry, (*_token_routes(gate), *telemetry.routes()))
        inner = super().__call__
        app = Namespaces(inner, settings.cache) if cache is not None else inner
        self._front = Front(app, limiter, trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        peer: Peer | None = scope.get("client")
        if peer is None:
            return await self._front(scope, receive, send)
        self._connections.enter(peer)
        try:
            await self._front(scope, receive, send)
        finally:
            self._connections.leave(peer)


def _token_routes(gate: Gate | None) -> tuple[Route, ...]:
    if gate is None:
        return ()
    from argosy.server.auth.endpoint import token_routes

    return token_routes(gate)


def _tasks(settings: Settings, gate: Gate | None) -> list[Task]:
    tasks: list[Task] = [gc.run, journal.run]
    if settings.events.sinks:
        from argosy.server.webhooks import deliverer

        tasks += [deliverer(sink) for sink in settings.events.sinks]
    if gate is not None:
        from argosy.server.retention import janitor

        tasks.append(janitor(gate.policy))
    return tasks


def _once(seat: Seat, task: Task) -> Task:
    """A task that one worker of the server does."""

    async def run(registry: Registry) -> None:
        await seat.elected()
        await task(registry)

    return run


def open_metadata(settings: Settings) -> Metadata:
    """The database the settings name."""
    chosen = settings.metadata.postgresql
    if settings.metadata.type == "postgresql" and chosen is not None:
        from argosy.server.metadata.postgresql import Postgresql

        return Postgresql(chosen.dsn, pool=chosen.pool, statement_seconds=chosen.statement_seconds)
    return Sqlite(_database(settings))


@contextlib.contextmanager
def fresh_metadata(settings: Settings) -> Iterator[Metadata]:
    """The database the settings name, to be filled from nothing. SQLite's is there only when the block ended well.

    Raises:
        StorageError: it holds something, or somebody uses it.
    """
    if settings.metadata.type == "sqlite":
        with anew(_database(settings)) as made:
            yield made
    else:
        with contextlib.closing(open_metadata(settings)) as found:
            yield found


def _database(settings: Settings) -> str:
    return settings.metadata.path or os.path.join(data_directory(settings), "registry.db")


def fold_metadata(settings: Settings) -> None:
    """Leave one file of SQLite's, when nobody uses it any more; others have nothing to be folded."""
    if settings.metadata.type == "sqlite":
        fold(_database(settings))


def open_storage(settings: Settings) -> Storage:
    """The storage the settings name."""
    chosen = settings.storage.s3
    if settings.storage.type == "s3" and chosen is not None:
        from argosy.server.storage.objects import Objects, s3

        store = s3(
            chosen.bucket,
            endpoint=chosen.endpoint,
            region=chosen.region,
            prefix=chosen.prefix,
            access_key=chosen.access_key,
            secret_key=chosen.secret_key,
            path_style=chosen.path_style,
            timeout_seconds=chosen.timeout_seconds,
        )
        objects = Objects(
            store,
            redirect_seconds=chosen.redirect_seconds if chosen.redirect else None,
            memory_bytes=chosen.memory_bytes,
            temporary=Temporary.of(settings),
        )
        return Breaker(objects, timeout_seconds=chosen.timeout_seconds)
    root = settings.storage.root or os.path.join(data_directory(settings), "blobs")
    return FileSystem(root, reserve=settings.storage.reserve_bytes)


def data_directory(settings: Settings) -> str:
    """Where everything lies, made if it is not there (mode 0700).

    Raises:
        StorageError: no directory was given, or it cannot be made.
    """
    if settings.data is None:
        raise StorageError("no data directory", hint="name one with --data")
    try:
        os.makedirs(settings.data, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise StorageError(f"data directory {settings.data}: {exc.strerror}") from exc
    return settings.data
