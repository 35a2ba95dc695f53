"""A container as the engine remembers it: a directory with a record, a bundle, and a lock its watcher holds."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.engine.record import Record, overwrite
from argosy.errors import (
    ContainerError,
    ContainerExistsError,
    ContainerStatusError,
    ContainerUnknownError,
    InvalidConfigError,
    UsageError,
)
from argosy.layer.removal import discard
from argosy.layout.durable import storage_errors
from argosy.spec.imageconfig import ImageConfig

_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)
_RECORD = "container.json"
_IMAGE = "image.json"
"""The image's configuration: the image may be gone when the container is started again."""
_LOCK = "lock"
_PATIENCE = 30.0
"""Seconds until a watcher must have cleared away after the end of its container."""
_LOOK = 0.01
"""Seconds between two looks at a lock."""
_END = 64
"""Bytes by which a record may grow at the end of a run."""
_GLANCE = 1.0
"""Seconds for which somebody may have a lock who only looks at it."""


class Container:
    """One container. `Container.make` makes a new one; `find` and `every` find those that are there."""

    def __init__(self, places: Places, record: Record, lock: int | None = None) -> None:
        self.places = places
        self.record = record
        self.lock = lock

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self.record.id

    @property
    def path(self) -> str:
        """Its directory: also the bundle."""
        return os.path.join(self.places.containers, self.id)

    def file(self, name: str) -> str:
        """The path of one of its files."""
        return os.path.join(self.path, name)

    def write(self, name: str, data: bytes) -> str:
        """Write one of its files anew. Returns the file's path.

        Raises:
            StorageError: it cannot be written.
        """
        path = self.file(name)
        with storage_errors(path), open(path, "wb") as file:
            file.write(data)
        return path

    def keep_image(self, config: bytes) -> None:
        """Keep its image's configuration.

        Raises:
            StorageError: it cannot be written.
        """
        self.write(_IMAGE, config)

    def image(self) -> ImageConfig:
        """Its image's configuration.

        Raises:
            OSError: it is not there yet, or cannot be read.
        """
        with open(self.file(_IMAGE), "rb") as file:
            return ImageConfig.decode(file.read())

    @property
    def rootfs(self) -> str:
        """Where its root file system is mounted."""
        return self.file("rootfs")

    @classmethod
    def make(
        cls, places: Places, options: RunOptions, *, image: str, digest: str, detached: bool
    ) -> Self:
        """Make the directory of a new container and hold its lock.

        Raises:
            ContainerExistsError: another one has this name.
            StorageError: it cannot be made; nothing is left.
        """
        container_id = secrets.token_hex(32)
        record = Record(
            id=container_id,
            name=options.name or f"{secrets.choice(_ADJECTIVES)}_{container_id[:6]}",
            image=image,
            digest=digest,
            created=now(),
            command=[],
            layers=[],
            options=dataclasses.asdict(options),
            detached=detached,
        )
        made = cls(places, record)
        with _names_locked(places):
            if cls._named(places, record.name):
                raise ContainerExistsError(
                    f"a container named {record.name} is there already",
                    hint="remove it, or choose another name",
                )
            try:
                made._make_directories()
            except BaseException:
                made.discard()
                raise
        return made

    def _make_directories(self) -> None:
        with storage_errors(self.path):
            os.mkdir(self.path, 0o700)
            for name in ("rootfs", "upper", "work"):
                os.mkdir(self.file(name), 0o700)
            os.chmod(self.file("upper"), 0o755)  # noqa: S103 - the container's root, whatever the umask
            self.hold()
        self.save()

    @classmethod
    def every(cls, places: Places, *, damaged: bool = False) -> Iterator[Self]:
        """All containers that have a record, the newest first; those whose record cannot be read last, if at all."""
        there = cls._there(places, os.listdir(places.containers))
        found = [container for container in there if damaged or not container.damaged]
        yield from sorted(found, key=lambda c: c.record.created, reverse=True)

    @classmethod
    def _read(cls, places: Places, container_id: str) -> Self:
        """By its whole id, damaged or not."""
        try:
            return cls.load(places, container_id)
        except InvalidConfigError:
            return cls._of_id(places, container_id)

    @classmethod
    def _of_id(cls, places: Places, container_id: str) -> Self:
        """A damaged one: its id is all that is known of it, and that it may have all that a container can have."""
        record = Record(
            id=container_id, name="", image="", digest="", created="", command=[], layers=[],
            options=dataclasses.asdict(RunOptions(network="bridge")),
        )  # fmt: skip
        return cls(places, record)

    @classmethod
    def load(cls, places: Places, container_id: str) -> Self:
        """Read a record.

        Raises:
            ContainerUnknownError: there is none.
            InvalidConfigError: it cannot be read.
        """
        path = os.path.join(places.containers, container_id, _RECORD)
        try:
            with open(path, encoding="utf-8") as file:
                record = Record.decode(file.read(), places, container_id)
        except (FileNotFoundError, NotADirectoryError):
            raise ContainerUnknownError(f"there is no container {container_id}") from None
        except ValueError as exc:
            raise InvalidConfigError(
                f"{path}: {exc}", hint=f"argosy rm -f {container_id[:12]} removes the container"
            ) from exc
        return cls(places, record)

    @classmethod
    def find(cls, places: Places, text: str, *, damaged: bool = False) -> Self:
        """By name, id, or the first digits of an id.

        Args:
            places: Where to look.
            text: What it is called.
            damaged: Whether one whose record cannot be read is wanted, too, by its id.

        Raises:
            ContainerUnknownError: there is none.
            InvalidConfigError: its record cannot be read.
            UsageError: the digits fit several.
        """
        found = cls._called(places, text)
        return found if damaged or not found.damaged else cls.load(places, found.id)

    @classmethod
    def _called(cls, places: Places, text: str) -> Self:
        """There may be many: the record of none is decoded that cannot be meant."""
        fits = list(cls._there(places, [text])) if _ID.fullmatch(text) else []
        if text and not fits:
            ids = [one for one in os.listdir(places.containers) if one.startswith(text)]
            fits = cls._named(places, text) or list(cls._there(places, ids))
        if len(fits) > 1:
            raise UsageError(f"{text} fits {len(fits)} containers: give more digits")
        if not fits:
            raise ContainerUnknownError(f"there is no container {text}")
        return fits[0]

    @classmethod
    def _named(cls, places: Places, name: str) -> list[Self]:
        """The container of a name, if there is one."""
        quoted, ids = json.dumps(name).encode(), []
        for one in os.listdir(places.containers):
            path = os.path.join(places.containers, one, _RECORD)
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                open(path, "rb") as file,
            ):
                if quoted in file.read():
                    ids.append(one)
        return [found for found in cls._there(places, ids) if found.record.name == name]

    @classmethod
    def _there(cls, places: Places, ids: Iterable[str]) -> Iterator[Self]:
        """Those of some that have a record, damaged or not."""
        for one in ids:
            with contextlib.suppress(ContainerUnknownError):
                yield cls._read(places, one)

    @property
    def damaged(self) -> bool:
        """Whether its record cannot be read."""
        return not self.record.created

    def save(self) -> None:
        """Write the record, in one step.

        Raises:
            StorageError: it cannot be written; the one before is still there.
        """
        path = self.file(_RECORD)
        with storage_errors(path):
            overwrite(f"{path}.tmp", self._encoded())
            os.rename(f"{path}.tmp", path)

    @contextlib.contextmanager
    def becoming(self, record: Record) -> Iterator[None]:
        """Have another record from the end of the block on, if it ends well.

        That record and the room for the one after it are on the disk before: a program that fills it at once is no
        hindrance to either.

        Raises:
            StorageError: it cannot be written.
        """
        path, before = self.file(_RECORD), self.record
        self.record = record
        try:
            with storage_errors(path):
                overwrite(f"{path}.next", self._encoded())
                overwrite(f"{path}.tmp", self._encoded() + b" " * _END)
            yield
            with storage_errors(path):
                os.rename(f"{path}.next", path)
        except BaseException:
            self.record = before
            discard(f"{path}.next")
            raise

    def _encoded(self) -> bytes:
        return json.dumps(dataclasses.asdict(self.record)).encode()

    def hold(self) -> None:
        """Take the watcher's lock.

        Raises:
            ContainerError: somebody watches it.
            ContainerUnknownError: it is not there any more.
        """
        self._hold(_GLANCE, lambda: False)

    def hold_unless_running(self) -> bool:
        """Take the watcher's lock and read the record anew; whoever starts the container just now is waited for.

        Returns:
            Whether it was taken; else the container runs.

        Raises:
            ContainerError: somebody watches it, though it does not run.
            ContainerUnknownError: it is not there any more.
        """
        taken = self._hold(_PATIENCE, lambda: self._read_anew() == "running")
        try:
            self._read_anew()
        except BaseException:
            self.release()
            raise
        return taken

    def _hold(self, patience: float, unless: Callable[[], bool]) -> bool:
        """Take the lock within some seconds, unless, while somebody has it, there is no need to. Returns whether."""
        try:
            fd = os.open(self.file(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise ContainerUnknownError(f"there is no container {self.record.name}") from None
        end = time.monotonic() + patience
        try:
            while not _lock(fd, fcntl.LOCK_EX):
                if unless():
                    os.close(fd)
                    return False
                if time.monotonic() > end:
                    raise ContainerError(f"container {self.id[:12]} is watched by another process")
                time.sleep(_LOOK)
        except BaseException:
            os.close(fd)
            raise
        self.lock = fd
        return True

    def _read_anew(self) -> str:
        """Read the record, which somebody may have changed meanwhile. Returns the status."""
        self.record = Container.load(self.places, self.id).record
        return self.status

    def begin(self) -> None:
        """Forget, for those who wait, how the run before this one ended. The lock is held."""
        assert self.lock is not None
        os.ftruncate(self.lock, 0)

    def tell(self) -> None:
        """Write the exit code where those who wait read it, also once the directory is gone. The lock is held."""
        assert self.lock is not None
        if self.record.exit_code is not None:
            # A full disk costs them the code, not the container its record.
            with contextlib.suppress(OSError):
                os.pwrite(self.lock, b"%d" % self.record.exit_code, 0)

    def wait_unwatched(self) -> None:
        """Wait until nobody watches it any more.

        Raises:
            ContainerError: somebody still does after a time.
        """
        end = time.monotonic() + _PATIENCE
        while os.path.exists(self.path) and self.watched:
            if time.monotonic() > end:
                raise ContainerError(
                    f"container {self.record.name} has ended, but not process {self.record.watcher}, which watches it",
                    hint="whoever reads its output may be slow",
                )
            time.sleep(_LOOK)

    @property
    def watched(self) -> bool:
        """Whether a process watches it; nobody watches one that is gone."""
        if self.lock is not None:
            return True
        try:
            fd = os.open(self.file(_LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            # Shared, so that nobody who looks takes another one who looks for a watcher.
            return not _lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    def release(self) -> None:
        """Let go of the lock."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def discard(self) -> None:
        """Remove its directory, in which nothing is mounted any more. What is gone already is fine.

        The record goes first: whatever is left by who is killed at this is no container any more, and `sweep` finds it.
        """
        discard(self.file(_RECORD))
        discard(self.path)
        self.release()

    @property
    def status(self) -> str:
        """`created`, `running`, `exited`, `dead` (nobody watches it and it has no exit code) or `damaged`."""
        if self.damaged:
            return "damaged"
        if self.record.exit_code is not None:
            return "exited"
        if not self.watched:
            return "dead"
        return "running" if self.record.started else "created"


class End:
    """The end of a container's run, for whoever waits for it, even if the container is removed at it.

    Raises:
        ContainerUnknownError: the container is not there any more.
    """

    def __init__(self, container: Container) -> None:
        self._name = container.record.name
        try:
            self._fd = os.open(container.file(_LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ContainerUnknownError(f"there is no container {self._name}") from None

    def wait(self) -> int:
        """Wait until nobody watches the container, as long as it takes. To be called once.

        Returns:
            The exit code of its last run.

        Raises:
            ContainerStatusError: nobody knows it: the program did not start, or whoever watched it was killed.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            code = os.pread(self._fd, 16, 0)
        finally:
            os.close(self._fd)
        if not code:
            raise ContainerStatusError(f"nobody knows how container {self._name} ended")
        return int(code)


def sweep(places: Places) -> list[str]:
    """Remove the directories without a record: whoever was to be made there was killed at it. Returns their names."""
    with _names_locked(places):
        found = [
            name
            for name in os.listdir(places.containers)
            if not os.path.exists(os.path.join(places.containers, name, _RECORD))
        ]
        for name in found:
            discard(os.path.join(places.containers, name))
    return found


def _lock(fd: int, kind: int) -> bool:
    """Take a lock if it is to be had now. Returns whether it was."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _names_locked(places: Places) -> Iterator[None]:
    fd = os.open(
        os.path.join(places.run, "names.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def unheard(_what: object) -> None:
    """Nobody listens."""


def now() -> str:
    """The time, in RFC 3339."""
    return rfc3339(dt.datetime.now(dt.UTC))


def rfc3339(moment: dt.datetime) -> str:
    """A time of UTC in RFC 3339, always of one length, so that what is later is greater."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


_ADJECTIVES = (
    "brisk", "calm", "deft", "eager", "fair", "gallant", "hardy", "keen", "lively", "merry",
    "nimble", "proud", "quick", "sturdy", "trim", "windward",
)  # fmt: skip
