"""The embedded engine: SQLite in WAL mode, one writing thread, one reading connection.

Writes that wait at the same time share one transaction and one fsync (group commit). One that fails takes nobody with
it: the group is undone and run again, each write in a savepoint, which would cost too much where all go well. A group
in which nobody asked for durability is committed with `synchronous=NORMAL`: it survives a kill, and a power cut may
lose it without harming anything older.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import glob
import os
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar, cast

import apsw

from argosy.errors import StorageError
from argosy.layout.durable import sync_directory
from argosy.server.metadata import ForeignKeyError, Row, Work, schema
from argosy.server.metadata.ground import check_file_system, check_version
from argosy.server.storage import InsufficientStorageError, UnavailableError

T = TypeVar("T")

_GROUP = 128
_CHUNK = 1024 * 1024
"""Bytes the database grows by at a time: on a full disk there is room in it for what its log holds."""
_PATIENCE = 3400
"""How often to ask again: 0.1 ms apart at first, 10 ms in the end; half a minute in all."""
_STATISTICS: tuple[tuple[str, str, str], ...] = (
    ("blob", "blob", "5000000 1"),
    ("blob", "blob_verified", "5000000 2 1"),
    ("blob_segment", "blob_segment", "5000000 1 1"),
    ("blob_segment", "blob_segment_more", "1000 1"),
    ("manifest", "manifest", "1000000 1000 1"),
    ("manifest", "manifest_subject", "100000 100 2 1"),
    ("manifest_ref", "manifest_ref", "5000000 5000 5 5 1"),
    ("manifest_ref", "manifest_ref_target", "5000000 5000 2"),
    ("manifest_ref", "manifest_ref_blob", "5000000 5000 2"),
    ("manifest_ref", "manifest_ref_child", "1000000 1000 2"),
    ("repo_blob", "repo_blob", "5000000 5000 1"),
    ("repo_blob", "repo_blob_digest", "5000000 5 1"),
    ("repository", "sqlite_autoindex_repository_1", "10000 1"),
    ("review", "review", "100000 100 50 1"),
    ("review", "review_after", "100000 2"),
    ("tag", "tag", "1000000 1000 1"),
    ("tag", "tag_digest", "1000000 1000 2"),
    ("trash", "trash", "100000 1"),
    ("trash", "trash_digest", "100000 1"),
    ("trash", "trash_not_before", "100000 2"),
    ("upload", "upload", "1000 10 1"),
    ("upload", "upload_expires", "1000 2"),
    ("upload", "upload_known", "100 2"),
    ("upload_segment", "upload_segment", "10000 100 4 1"),
)
"""What the planner is told about a large registry (rows, then rows a prefix of the index has). Without it, it takes a
repository for ten rows and walks through all of it; with it, plans are the same at any size and on the first day."""

_AWAY = (apsw.BusyError, apsw.CantOpenError, apsw.IOError, apsw.ReadOnlyError)
"""What is no fault of the query: a disk that fails or that nobody may write to any more, another process."""

_BESIDE = ".rebuild-"
"""How the name of a database goes on that is being filled. No backup is called so."""


class _Job(NamedTuple):
    work: Work[Any]
    durable: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class _Connection:
    """A `Transaction` over an apsw connection; errors are translated here and nowhere else."""

    def __init__(self, path: str, *, readonly: bool) -> None:
        flags = apsw.SQLITE_OPEN_READONLY if readonly else apsw.SQLITE_OPEN_READWRITE
        create = 0 if readonly else apsw.SQLITE_OPEN_CREATE
        with translated():
            self.raw = apsw.Connection(path, flags=flags | create)
            self.raw.set_busy_handler(_wait)

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Row | None:
        with translated():
            found = self.raw.execute(sql, cast("Any", parameters)).fetchall()
        return found[0] if found else None

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        with translated():
            return self.raw.execute(sql, cast("Any", parameters)).fetchall()

    def pragma(self, name: str, value: str) -> None:
        self.rows(f"PRAGMA {name} = {value}")


def _wait(already: int) -> bool:
    """Wait for another process that writes; False after half a minute, and the write fails.

    SQLite's own handler sleeps for milliseconds, many times as long as a write takes.
    """
    time.sleep(min(0.01, 0.0001 * (1 + already // 8)))
    return already < _PATIENCE


class translated:  # noqa: N801
    """Turn SQLite's errors into ours. A class, because it stands around every query."""

    __slots__ = ()

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Translate."""
        if error is None or not isinstance(error, apsw.Error):
            return
        code = getattr(error, "extendedresult", 0)
        if code == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise ForeignKeyError("the content is referred to, or has gone") from error
        if isinstance(error, apsw.FullError):
            raise InsufficientStorageError("database: the disk is full") from error
        cls = UnavailableError if isinstance(error, _AWAY) else StorageError
        raise cls(f"database: {error}") from error


class Sqlite:
    """A `Metadata` in one file.

    Opening makes the file, or brings its schema up to date. It takes milliseconds at any size.

    Args:
        path: The database file. It must lie on a local file system.

    Raises:
        StorageError: a network file system, a SQLite with the WAL-reset bug, a newer schema, or a broken file.

    Example:
        >>> import asyncio, tempfile
        >>> async def count() -> int:
        ...     metadata = Sqlite(tempfile.mkdtemp() + "/registry.db")
        ...     found = await metadata.read(lambda tx: tx.row("SELECT count(*) FROM tag"))
        ...     metadata.close()
        ...     return found[0]
        >>> asyncio.run(count())
        0
    """

    def __init__(self, path: str) -> None:
        check_version(apsw.sqlite_lib_version())
        check_file_system(os.path.dirname(os.path.abspath(path)))
        self._path = path
        self._writer = _Connection(path, readonly=False)
        os.chmod(path, 0o600)
        self._prepare()
        self._reader = _Connection(path, readonly=True)
        self._reader.pragma("cache_size", "-16000")
        self._durable = True
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="argosy-sqlite", daemon=True)
        self._thread.start()

    async def read(self, work: Work[T], *, slow: bool = False) -> T:
        """Run a read on the loop's own thread: microseconds, less than handing it to another one.

        A slow one gets a thread and a connection of its own.
        """
        if slow:
            return await asyncio.to_thread(self._read_aside, work)
        return work(self._reader)

    async def write(
        self, work: Work[T], *, durable: bool = True, after: Future[Any] | None = None
    ) -> T:
        """Queue a write for the next group; what comes after something is queued by the thread that did that."""
        if not self._thread.is_alive():
            raise StorageError("the database is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = _Job(work, durable, loop, future)
        if after is None:
            self._jobs.put(job)
        else:
            after.add_done_callback(functools.partial(self._queue, job))
        return await future

    def _queue(self, job: _Job, before: Future[Any]) -> None:
        error = before.exception()
        if error is None:
            self._jobs.put(job)
        else:
            _tell(job.loop, [(job, error)])

    async def backup(self, path: str) -> None:
        """Copy the database into a new file, compacted, while it is in use."""
        if os.path.exists(path):
            raise StorageError(f"{path} exists: a backup is written to a new file")
        await asyncio.to_thread(self._backup, path)

    def close(self) -> None:
        """Finish what is queued, fold the log into the file, and close."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join()
            self._reader.raw.close()
            self._writer.raw.close()

    def _read_aside(self, work: Work[T]) -> T:
        connection = _Connection(self._path, readonly=True)
        try:
            return work(connection)
        finally:
            connection.raw.close()

    def _backup(self, path: str) -> None:
        made = f"{path}.{secrets.token_hex(4)}"
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            connection = _Connection(self._path, readonly=True)
            with contextlib.closing(connection.raw):
                connection.rows("VACUUM INTO ?", (made,))
            os.fsync(fd)
            os.rename(made, path)
        except BaseException:
            os.unlink(made)
            raise
        finally:
            os.close(fd)
        sync_directory(os.path.dirname(os.path.abspath(path)))

    def _prepare(self) -> None:
        tx = self._writer
        tx.pragma("journal_mode", "WAL")
        tx.pragma("synchronous", "FULL")
        tx.pragma("journal_size_limit", str(64 * 1024 * 1024))
        tx.pragma("wal_autocheckpoint", "4000")
        tx.pragma("cache_size", "-16000")
        tx.pragma("foreign_keys", "OFF")
        chunk = ctypes.c_int(_CHUNK)
        tx.raw.file_control("main", apsw.SQLITE_FCNTL_CHUNK_SIZE, ctypes.addressof(chunk))
        tx.rows("BEGIN IMMEDIATE")
        try:
            known = tx.row("SELECT 1 FROM sqlite_master WHERE name = ?", ("schema_version",))
            for statement in schema.statements(schema.current_version(tx) if known else None):
                tx.rows(statement)
            tx.rows("COMMIT")
        except BaseException:
            tx.rows("ROLLBACK")
            raise
        self._tell_planner()
        tx.pragma("foreign_keys", "ON")

    def _tell_planner(self) -> None:
        tx = self._writer
        tx.rows("ANALYZE sqlite_schema")
        tx.rows("BEGIN IMMEDIATE")
        if sorted(tx.rows("SELECT tbl, idx, stat FROM sqlite_stat1")) != sorted(_STATISTICS):
            tx.rows("DELETE FROM sqlite_stat1")
            tx.raw.executemany(
                "INSERT INTO sqlite_stat1 (tbl, idx, stat) VALUES (?, ?, ?)", _STATISTICS
            )
        tx.rows("COMMIT")
        tx.rows("ANALYZE sqlite_schema")

    # -- the writing thread ---------------------------------------------------------------------

    def _run(self) -> None:
        for group in iter(self._next_group, []):
            results = self._commit(group)
            by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Any]]] = {}
            for job, result in zip(group, results, strict=True):
                by_loop.setdefault(job.loop, []).append((job, result))
            for loop, answers in by_loop.items():
                _tell(loop, answers)

    def _next_group(self) -> list[_Job]:
        return list(self._waiting())

    def _waiting(self) -> Iterator[_Job]:
        job = self._jobs.get()
        for _ in range(_GROUP):
            if job is None:
                self._jobs.put(None)  # for the next round
                return
            yield job
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
        if job is not None:
            yield job
        else:
            self._jobs.put(None)

    def _commit(self, group: list[_Job]) -> list[Any]:
        """Run a group in one transaction; where a job of several fails, or the disk is full, once more, each in a
        savepoint."""
        try:
            return self._transaction(group, self._step)
        except _JobError as exc:
            if len(group) == 1:
                return [exc.__cause__]
        except InsufficientStorageError:
            self._fold()
        except BaseException as exc:  # noqa: BLE001
            return [exc] * len(group)
        try:
            return self._transaction(group, self._guarded)
        except BaseException as exc:  # noqa: BLE001
            return [exc] * len(group)

    def _transaction(self, group: list[_Job], step: Callable[[_Job], Any]) -> list[Any]:
        tx = self._writer
        try:
            self._set_durable(any(job.durable for job in group))
            tx.rows("BEGIN IMMEDIATE")
            results = [step(job) for job in group]
            tx.rows("COMMIT")
        except BaseException:
            if tx.raw.in_transaction:
                with contextlib.suppress(StorageError):
                    tx.rows("ROLLBACK")
            raise
        return results

    def _fold(self) -> None:
        """Fold the log into the database, so that it is written anew from its beginning and needs no more of the disk:
        who is to make room has to be able to delete."""
        with contextlib.suppress(StorageError):
            self._writer.rows("PRAGMA wal_checkpoint(PASSIVE)")

    def _step(self, job: _Job) -> Any:
        try:
            return job.work(self._writer)
        except Exception as exc:
            raise _JobError from exc

    def _guarded(self, job: _Job) -> Any:
        tx = self._writer
        tx.rows("SAVEPOINT job")
        try:
            result = job.work(tx)
        except Exception as exc:
            if (
                not tx.raw.in_transaction
            ):  # the disk is full or broken: SQLite gave up the whole group
                raise
            tx.rows("ROLLBACK TO job")
            result = _Failed(exc)
        tx.rows("RELEASE job")
        return result

    def _set_durable(self, durable: bool) -> None:
        if durable != self._durable:
            self._writer.pragma("synchronous", "FULL" if durable else "NORMAL")
            self._durable = durable


def fold(path: str) -> None:
    """Fold the log into the file where those who were ended in the middle of things left it beside.

    It would be folded when the database is opened the next time; until then the file alone is not the whole of it.
    Who still uses it keeps the log.
    """
    if os.path.exists(f"{path}-wal"):
        with contextlib.suppress(StorageError):
            connection = _Connection(path, readonly=False)
            try:
                connection.row("SELECT 1 FROM sqlite_master")
            finally:
                connection.raw.close()


@contextlib.contextmanager
def anew(path: str) -> Iterator[Sqlite]:
    """A database that is filled beside its place, and gets there when the block has ended well.

    Raises:
        StorageError: in its place is one that holds something, or that somebody uses.
    """
    _require_free(path)
    _clear(path)
    made = f"{path}{_BESIDE}{secrets.token_hex(4)}"
    try:
        with contextlib.closing(Sqlite(made)) as metadata:
            yield metadata
        _require_free(path)
        os.replace(made, path)
        sync_directory(os.path.dirname(os.path.abspath(path)))
    finally:
        _remove(made)


def _clear(path: str) -> None:
    """Remove what those left beside a database who were killed while they filled one, and nobody has open."""
    for found in glob.glob(f"{glob.escape(path)}{_BESIDE}????????"):
        connection = _Connection(found, readonly=False)
        try:
            connection.raw.set_busy_timeout(0)
            with contextlib.suppress(StorageError):  # only who is alone with it may change the mode
                was = connection.row("PRAGMA journal_mode")  # another one may just be begun
                if was == ("wal",) and connection.row("PRAGMA journal_mode = DELETE") == (
                    "delete",
                ):
                    _remove(found)
        finally:
            connection.raw.close()


def _remove(path: str) -> None:
    for end in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)


def _require_free(path: str) -> None:
    if not os.path.exists(path):
        if os.path.exists(f"{path}-wal"):  # SQLite would take it for the new one's
            raise StorageError(f"{path}-wal is left of another database", hint="move it away first")
        return
    found = _Connection(path, readonly=False)
    try:
        found.raw.set_busy_timeout(0)
        named = found.row("SELECT 1 FROM sqlite_master WHERE name = 'repository'")
        if named and found.row("SELECT 1 FROM repository LIMIT 1"):
            raise StorageError(f"{path}: the database is not empty", hint="move it away first")
        with contextlib.suppress(StorageError):  # only who is alone with it may change the mode
            if found.row("PRAGMA journal_mode = DELETE") == ("delete",):
                return
        raise StorageError(f"{path} is in use", hint="stop the registry first")
    finally:
        found.raw.close()


class _JobError(Exception):
    """A job of a group failed, not the group; its cause says why."""


class _Failed(NamedTuple):
    error: Exception


def _tell(loop: asyncio.AbstractEventLoop, answers: list[tuple[_Job, Any]]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits
        loop.call_soon_threadsafe(_answer, answers)


def _answer(answers: list[tuple[_Job, Any]]) -> None:
    for job, result in answers:
        if job.future.cancelled():
            continue
        if isinstance(result, _Failed):
            job.future.set_exception(result.error)
        elif isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
