"""The workers of one server, and what each has to know of the others.

Limits and figures are the server's, whichever worker is asked, and upkeep is done by one of them. Each worker has a
seat in a directory that all share, below `<data>/workers`: a lock, which the kernel lets go when the worker dies; a
table of the requests it has under way, which the others read in their own memory; and its figures, written once a
second. Only its holder writes what belongs to a seat, so nobody waits for anybody. The next holder of a seat goes on
with its figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import mmap
import os
import secrets
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator

from argosy.errors import StorageError

__all__ = ["Rates", "Seat", "Team", "assembled"]

_SLOTS = 16384
_TABLE_BYTES = _SLOTS * 4
_ENTRY = struct.Struct("=Qd")
_RATES_BYTES = 65536 * _ENTRY.size
_ELECTION_SECONDS = 1.0
_PREFIX = "server-"
_ROUNDING = 1e-6
_OLD = 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Team:
    """Several workers, as the main process tells each of them.

    Args:
        folder: The directory they share.
        size: How many workers.
        key: Random bytes that keep clients from choosing whom they are counted with.
    """

    folder: str
    size: int
    key: bytes

    @property
    def seats(self) -> int:
        """More than workers, because a new one begins before an old one has finished."""
        return 2 * self.size


@contextlib.contextmanager
def assembled(data: str | None, size: int) -> Iterator[Team | None]:
    """A team for as long as the server runs; None for a single worker, which needs none.

    Args:
        data: The data directory; the directory of temporary files where it cannot be written to.
        size: How many workers.

    Raises:
        StorageError: the workers have no directory to share.
    """
    if size == 1:
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            team = _settled(data, size)
            stack.callback(shutil.rmtree, team.folder, ignore_errors=True)
            # Forked workers inherit the lock: it says that one of them lives, even where the main process was killed.
            stack.callback(os.close, _lock(team.folder, wait=True))
        except OSError as exc:
            raise StorageError(
                f"{exc.filename or tempfile.gettempdir()}: {exc.strerror}",
                hint="several workers share a directory; listen.workers: 1 needs none",
            ) from exc
        yield team


def _settled(data: str | None, size: int) -> Team:
    if data is not None:
        with contextlib.suppress(OSError):
            place = os.path.join(data, "workers")
            os.makedirs(place, mode=0o700, exist_ok=True)
            _sweep(place)
            return _furnished(tempfile.mkdtemp(prefix=_PREFIX, dir=place), size)
    return _furnished(tempfile.mkdtemp(prefix=f"argosy-{_PREFIX}"), size)


def _furnished(folder: str, size: int) -> Team:
    team = Team(folder, size, secrets.token_bytes(16))
    try:
        _furnish(team)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return team


def _furnish(team: Team) -> None:
    """Put tables and locks into a team's directory. On a full disk the kernel ends who writes into a hole of one."""
    tables = {str(number): _TABLE_BYTES for number in range(team.seats)}
    for name, size_bytes in {**tables, "rates": _RATES_BYTES, "lead": 0, "door": 0}.items():
        with open(os.path.join(team.folder, name), "xb") as file:
            file.write(bytes(size_bytes))


def _sweep(place: str) -> None:
    """Remove what servers left behind that were killed."""
    before = time.time() - _OLD
    for entry in os.scandir(place):
        old = entry.name.startswith(_PREFIX) and entry.stat().st_mtime < before
        if old and not any(map(_is_held, (entry.path, *_files(entry.path)))):
            shutil.rmtree(entry.path, ignore_errors=True)


def _files(folder: str) -> Iterator[str]:
    return (entry.path for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False))


def _is_held(path: str) -> bool:
    try:
        os.close(_lock(path))
    except BlockingIOError:
        return True
    return False


def _path(team: Team, number: int) -> str:
    return os.path.join(team.folder, str(number))


def _lock(path: str, *, wait: bool = False) -> int:
    """A descriptor that holds the lock of a file or directory.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(fd)
        raise
    return fd


class Seat:
    """A worker's place in its team; without a team, that of a worker that is alone.

    Args:
        team: The team; a free seat of it is taken, until this process ends.

    Raises:
        StorageError: no seat is free.

    Example:
        >>> with assembled(None, 2) as team:
        ...     one, two = Seat(team), Seat(team)
        ...     one.add("a", 1)
        ...     one.elsewhere("a"), two.elsewhere("a")
        (0, 1)
    """

    def __init__(self, team: Team | None = None) -> None:
        self._team = team
        self._number = -1
        self._lead = -1
        self._others: list[memoryview] = []
        if team is not None:
            self._number, self._held = _take(team)
            tables = [_mapped(_path(team, number), _TABLE_BYTES) for number in range(team.seats)]
            self._own = memoryview(tables.pop(self._number)).cast("I")
            self._others = [memoryview(table).cast("I") for table in tables]
            key = team.key
            self._slot = functools.lru_cache(4096)(lambda who: _hash(key, who) % _SLOTS)

    @property
    def place(self) -> int:
        """Which of the workers' places this is, from 0; two are at the same one only while one takes over."""
        return self._number % self._team.size if self._team is not None else 0

    # -- requests under way ----------------------------------------------------------------------

    def add(self, who: str, count: int) -> None:
        """Tell the others that as many requests of somebody have begun, or, below zero, ended."""
        if self._others:
            self._own[self._slot(who)] += count

    def elsewhere(self, who: str) -> int:
        """Requests of somebody that the other workers have under way.

        The table has so many places that two clients of one place, who are counted together, are rare.
        """
        if not self._others:
            return 0
        slot = self._slot(who)
        return sum(table[slot] for table in self._others)

    def rates(self) -> Rates:
        """The table of the rates of all clients."""
        team = self._team
        if team is None:
            return Rates(mmap.mmap(-1, _RATES_BYTES), None, secrets.token_bytes(16))
        path = os.path.join(team.folder, "rates")
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return Rates(_mapped(path, _RATES_BYTES), lock, team.key)

    # -- what is done once -----------------------------------------------------------------------

    async def elected(self) -> None:
        """Wait until this worker is the one that does what only one has to do."""
        while not self._leads():
            await asyncio.sleep(_ELECTION_SECONDS)

    def _leads(self) -> bool:
        if self._team is None or self._lead >= 0:
            return True
        with contextlib.suppress(BlockingIOError):
            self._lead = _lock(os.path.join(self._team.folder, "lead"))
        return self._lead >= 0

    def is_first(self) -> bool:
        """Whether nobody of the team has asked this before."""
        if self._team is None:
            return True
        try:
            os.mkdir(os.path.join(self._team.folder, "asked"))
        except FileExistsError:
            return False
        return True

    # -- figures ---------------------------------------------------------------------------------

    def inherited(self) -> bytes:
        """The figures of the seat's last holder; empty if there was none."""
        return self._figures(self._number) if self._team is not None else b""

    def publish(self, figures: bytes) -> None:
        """Show the others this worker's figures.

        Raises:
            OSError: they cannot be written.
        """
        if self._team is None:
            return
        path = f"{_path(self._team, self._number)}.figures"
        with open(f"{path}.new", "wb") as file:  # no sync: they do not outlive the server
            file.write(figures)
        os.replace(file.name, path)

    def published(self) -> Iterator[bytes]:
        """The figures of all other seats, those of workers that have died among them."""
        if self._team is not None:
            for number in range(self._team.seats):
                if number != self._number and (found := self._figures(number)):
                    yield found

    def _figures(self, number: int) -> bytes:
        assert self._team is not None
        try:
            with open(f"{_path(self._team, number)}.figures", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""


def _take(team: Team) -> tuple[int, int]:
    """A free seat and its lock, at the place where the fewest sit. What dead workers had under way is over."""
    door = _lock(os.path.join(team.folder, "door"), wait=True)
    try:
        free = dict(_free(team))
        held = [number % team.size for number in range(team.seats) if number not in free]
        if not free:
            raise StorageError(f"{team.folder}: no seat is free for a new worker")
        taken = min(free, key=lambda number: (held.count(number % team.size), number))
        fd = free.pop(taken)
        for other in free.values():
            os.close(other)
    finally:
        os.close(door)
    return taken, fd


def _free(team: Team) -> Iterator[tuple[int, int]]:
    for number in range(team.seats):
        with contextlib.suppress(BlockingIOError):
            fd = _lock(_path(team, number))
            _mapped(_path(team, number), _TABLE_BYTES)[:] = bytes(_TABLE_BYTES)
            yield number, fd


def _mapped(path: str, size: int) -> mmap.mmap:
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), size)


def _hash(key: bytes, text: str) -> int:
    raw = text.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(raw, key=key, digest_size=8).digest(), "little")


class Rates:
    """A token bucket a client, in a table that processes share; of those that meet in a place the last one stays.

    A bucket is kept as the moment at which it will be full: one that is not there is full.

    Args:
        table: Where they are.
        lock: The descriptor of a file whose lock guards the table; None where nobody else has it.
        key: Makes the places unpredictable.

    Example:
        >>> rates = Seat().rates()
        >>> [rates.spend("ann", 0.0, rate=2.0, burst=1) for _ in range(2)]
        [0.0, 0.5]
    """

    def __init__(self, table: mmap.mmap, lock: int | None, key: bytes) -> None:
        self._table, self._lock, self._key = table, lock, key

    def spend(self, client: str, now: float, rate: float, burst: int) -> float:
        """Take one token from a client's bucket.

        Args:
            client: Who.
            now: Seconds of a clock that all processes have in common.
            rate: Tokens a second.
            burst: What the bucket holds.

        Returns:
            0.0, or, where there is none, the seconds until there will be.
        """
        tag = _hash(self._key, client)
        at = tag % (_RATES_BYTES // _ENTRY.size) * _ENTRY.size
        with self._locked():
            known, full_at = _ENTRY.unpack_from(self._table, at)
            missing = max(0.0, full_at - now) * rate if known == tag else 0.0
            if missing > burst - 1 + _ROUNDING:
                return float((missing - burst + 1) / rate)
            _ENTRY.pack_into(self._table, at, tag, now + (missing + 1) / rate)
            return 0.0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
