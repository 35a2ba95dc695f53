"""From settings to a registry: which engine, which storage, which rules, which tasks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from argosy.errors import StorageError
from argosy.server import retention, webhooks
from argosy.server.access import Access
from argosy.server.app import App
from argosy.server.auth.endpoint import token_routes
from argosy.server.auth.gate import Gate, open_gate
from argosy.server.front import Front, Limiter, Metered
from argosy.server.http import Receive, Scope, Send
from argosy.server.metadata import Metadata
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.registry import Registry
from argosy.server.settings import Settings
from argosy.server.storage import Storage
from argosy.server.storage.filesystem import FileSystem
from argosy.server.telemetry import Telemetry

Task = Callable[[Registry], Awaitable[None]]

_CHUNK_MIN_LENGTH = 5 * 1024 * 1024
"""Told to clients of a registry over an object store: each chunk becomes an object of its own."""


def build(settings: Settings) -> App:
    """The application a worker serves.

    Raises:
        StorageError: the data directory, the database or the storage cannot be opened.
        InvalidConfigError: a file of users, keys or rules is wrong.
    """
    access = open_gate(settings, settings.data or "")
    metadata = open_metadata(settings)
    try:
        storage = open_storage(settings)
    except BaseException:
        metadata.close()
        raise
    return _Fronted(settings, access, metadata, storage)


class _Fronted(App):
    """The application behind its front, with everything that is configured around the core."""

    def __init__(
        self, settings: Settings, access: Access, metadata: Metadata, storage: Storage
    ) -> None:
        gate = access if isinstance(access, Gate) else None
        telemetry = Telemetry(settings, gate)
        limiter = Limiter(settings.limits)
        registry = Registry(
            metadata,
            storage,
            settings=settings,
            access=Metered(access, limiter) if gate else access,
            chunk_min_length=_CHUNK_MIN_LENGTH if settings.storage.type == "s3" else 0,
            tasks=_tasks(settings, gate),
            on_exchange=telemetry.record,
        )
        tokens = token_routes(gate) if gate else ()
        super().__init__(registry, (*tokens, *telemetry.routes()))
        self._front = Front(super().__call__, limiter, settings.listen.trusted_proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)


def _tasks(settings: Settings, gate: Gate | None) -> list[Task]:
    tasks = [webhooks.deliverer(sink) for sink in settings.events.sinks]
    if gate is not None:
        tasks.append(retention.janitor(gate.policy))
    return tasks


def open_metadata(settings: Settings) -> Metadata:
    """The database the settings name."""
    chosen = settings.metadata.postgresql
    if settings.metadata.type == "postgresql" and chosen is not None:
        from argosy.server.metadata.postgresql import Postgresql

        return Postgresql(chosen.dsn, pool=chosen.pool, statement_seconds=chosen.statement_seconds)
    path = settings.metadata.path or os.path.join(data_directory(settings), "registry.db")
    return Sqlite(path)


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
        return Objects(
            store,
            redirect_seconds=chosen.redirect_seconds if chosen.redirect else None,
            memory_bytes=chosen.memory_bytes,
        )
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
