"""From settings to a registry: which engine, which storage, which rules, which tasks."""

from __future__ import annotations

import os

from argosy.errors import StorageError
from argosy.server.app import App
from argosy.server.metadata import Metadata
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.registry import Registry
from argosy.server.settings import Settings
from argosy.server.storage import Storage
from argosy.server.storage.filesystem import FileSystem


def build(settings: Settings) -> App:
    """The application a worker serves.

    Raises:
        StorageError: the data directory, the database or the storage cannot be opened.
    """
    metadata = open_metadata(settings)
    try:
        storage = open_storage(settings)
    except BaseException:
        metadata.close()
        raise
    return App(Registry(metadata, storage, settings=settings))


def open_metadata(settings: Settings) -> Metadata:
    """The database the settings name."""
    path = settings.metadata.path or os.path.join(data_directory(settings), "registry.db")
    return Sqlite(path)


def open_storage(settings: Settings) -> Storage:
    """The storage the settings name."""
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
