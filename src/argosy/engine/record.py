"""What is kept of a container in its directory, as JSON, and the judgement whether it is that."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import json
import os
import types
from typing import Any, Self, get_args, get_origin, get_type_hints

from argosy.engine.options import RunOptions
from argosy.engine.places import Places
from argosy.runtime import judge
from argosy.runtime.errors import ConfigError


@dataclasses.dataclass(kw_only=True)
class Record:
    """A container's record. `layers` are directories, the topmost first; `options` those of `RunOptions`, as JSON has
    them; times are RFC 3339 and empty before their time."""

    id: str
    name: str
    image: str
    digest: str
    created: str
    command: list[str]
    layers: list[str]
    options: dict[str, Any]
    address: str = ""
    detached: bool = False
    started: str = ""
    finished: str = ""
    exit_code: int | None = None
    oom_killed: bool = False
    watcher: int = 0

    @classmethod
    def decode(cls, text: str, places: Places, container_id: str) -> Self:
        """Read a record; what a newer argosy added is passed over, and an option that it lacks is as by default.

        Args:
            text: The record.
            places: Where the container's layers must be.
            container_id: The id it must have.

        Raises:
            ValueError: it is no record, or none of this container.
        """
        value = judge.prune(json.loads(text))
        try:
            judge.check(value, _record_shape(), "")
        except ConfigError as exc:
            raise ValueError(exc.detail) from exc
        known = {field.name for field in dataclasses.fields(cls)}
        record = cls(**{key: value[key] for key in value if key in known})
        record.options = {**_defaults(), **record.options}
        record._judge(places, container_id)
        return record

    def _judge(self, places: Places, container_id: str) -> None:
        """See that it makes sense, beyond its shape."""
        layers = os.path.realpath(places.layers)
        folders = {os.path.dirname(layer) for layer in self.layers}  # one, of a hundred layers
        others = {folder for folder in folders if os.path.realpath(folder) != layers}
        outside = [layer for layer in self.layers if os.path.dirname(layer) in others]
        for wrong, name, expected, got in (
            (self.id != container_id, "id", container_id, self.id),
            (not _is_time(self.created), "created", "a time", self.created),
            (self.started and not _is_time(self.started), "started", "a time", self.started),
            (self.finished and not _is_time(self.finished), "finished", "a time", self.finished),
            (self.watcher < 0, "watcher", "a process id", self.watcher),
            (not 0 <= (self.exit_code or 0) <= 255, "exit_code", "0 to 255", self.exit_code),
            (outside, "layers", f"those in {places.layers}", outside),
        ):
            if wrong:
                raise ValueError(f"{name}: expected {expected}, got {got!r:.200}")


def overwrite(path: str, data: bytes) -> None:
    """Write a file, in the blocks it has if it is there, and wait until it is on the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        file.write(data)
        file.truncate()
        os.fsync(fd)


def _is_time(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


@functools.cache
def _defaults() -> dict[str, Any]:
    """None of them can be changed."""
    return dataclasses.asdict(RunOptions())


@functools.cache
def _record_shape() -> dict[str, Any]:
    return {**_shape(Record), "options": _shape(RunOptions)}


def _shape(kind: Any) -> Any:
    """What JSON must be to become a value of this type: of a dataclass, what it has no default for must be there."""
    if dataclasses.is_dataclass(kind):
        fields, hints = dataclasses.fields(kind), get_type_hints(kind)
        needed = [field.name for field in fields if field.default is dataclasses.MISSING]
        return {**{name: _shape(hint) for name, hint in hints.items()}, judge.NEEDED: needed}
    origin, inner = get_origin(kind), [_shape(part) for part in get_args(kind)[:1]]
    if origin is types.UnionType:  # with None
        return inner[0]
    if origin in (list, tuple):
        return inner
    return judge.I64 if kind is int else kind
