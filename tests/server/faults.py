"""A storage and a database that fail, or stop for ever, at the n-th call: before it took effect or after."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from argosy.errors import StorageError
from argosy.server.metadata import Metadata, Work
from argosy.server.storage import Place, SegmentWriter, Storage

T = TypeVar("T")


class KilledError(BaseException):
    """The process is gone. Nothing catches this but the test."""


@dataclasses.dataclass
class Fault:
    """Counts calls, and strikes at one of them.

    Args:
        at: The call that is struck, from 1; 0 for none.
        when: `before` it takes effect or `after`.
        how: `fail` raises an error once; `kill` ends everything from there on.
    """

    at: int = 0
    when: str = "before"
    how: str = "fail"
    calls: int = 0
    dead: bool = False

    def before(self) -> bool:
        """Count a call; whether it is the one that is struck after it took effect."""
        if self.dead:
            raise KilledError
        self.calls += 1
        if self.calls == self.at and self.when == "before":
            self.strike()
        return self.calls == self.at and self.when == "after"

    def strike(self) -> None:
        if self.how == "kill":
            self.dead = True
            raise KilledError
        raise StorageError("struck by the test")


class FaultyWriter:
    def __init__(self, writer: SegmentWriter, fault: Fault) -> None:
        self._writer, self._fault = writer, fault

    def write(self, *data: Any) -> None:
        after = self._fault.before()
        self._writer.write(*data)
        if after:
            self._fault.strike()

    def commit(self) -> None:
        after = self._fault.before()
        self._writer.commit()
        if after:
            self._fault.strike()

    def abort(self) -> None:
        if not self._fault.dead:  # the dead clean nothing up
            self._writer.abort()


class FaultyStorage:
    def __init__(self, storage: Storage, fault: Fault) -> None:
        self._storage, self._fault = storage, fault

    def create(self, key: str, *, size: int | None = None) -> FaultyWriter:
        after = self._fault.before()
        writer = self._storage.create(key, size=size)
        if after:
            self._fault.strike()
        return FaultyWriter(writer, self._fault)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self._fault.before()
        return self._storage.read(key, start, stop)

    def locate(self, key: str, *, media_type: str | None = None) -> Place:
        return self._storage.locate(key, media_type=media_type)

    def delete(self, keys: Sequence[str]) -> None:
        after = self._fault.before()
        self._storage.delete(keys)
        if after:
            self._fault.strike()

    def keys(self, prefix: str) -> Iterator[str]:
        self._fault.before()
        return self._storage.keys(prefix)


class FaultyMetadata:
    """Every transaction is a call, and every statement in one: struck there, it is undone."""

    def __init__(self, metadata: Metadata, fault: Fault) -> None:
        self._metadata, self._fault = metadata, fault

    async def read(self, work: Work[T], *, slow: bool = False) -> T:
        if self._fault.dead:
            raise KilledError
        return await self._metadata.read(work, slow=slow)

    async def write(
        self, work: Work[T], *, durable: bool = True, after: Future[Any] | None = None
    ) -> T:
        if after is not None:  # calls are counted one by one
            await asyncio.wrap_future(after)
        struck_after = self._fault.before()

        def struck(tx: Any) -> T:
            return work(_FaultyTransaction(tx, self._fault))

        result = await self._metadata.write(struck, durable=durable)
        if struck_after:
            self._fault.strike()
        return result

    async def backup(self, path: str) -> None:
        await self._metadata.backup(path)

    def close(self) -> None:
        self._metadata.close()


class _FaultyTransaction:
    def __init__(self, tx: Any, fault: Fault) -> None:
        self._tx, self._fault = tx, fault

    def row(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        after = self._fault.before()
        found = self._tx.row(sql, parameters)
        if after:
            self._fault.strike()
        return found

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        after = self._fault.before()
        found = self._tx.rows(sql, parameters)
        if after:
            self._fault.strike()
        return found
