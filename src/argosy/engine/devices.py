"""`--device`: devices of the host in a container.

What a name stands for is looked up at every start: numbers of devices change from boot to boot. With root the container
gets a node of its own and leave to use it; without, the host's node is bound, and its file says who may do what.
"""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from typing import Any, Self

from argosy.engine.values import parse_destination
from argosy.errors import UsageError

_ACCESS = "rwm"
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
_LEFT_OUT = {"/dev/console", "/dev/mqueue", "/dev/ptmx", "/dev/pts", "/dev/shm"}  # noqa: S108 - as names only
"""What of /dev each container has of its own."""
_MOST = 10_000
"""The most devices of one directory."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A device of the host, and where the container has it."""

    source: str
    path: str
    status: os.stat_result

    def entry(self) -> dict[str, Any]:
        """The runtime configuration's, with the host's mode and owner."""
        return {
            "path": self.path,
            **self._number(),
            "fileMode": stat.S_IMODE(self.status.st_mode),
            "uid": self.status.st_uid,
            "gid": self.status.st_gid,
        }

    def rule(self, access: str) -> dict[str, Any]:
        """Leave to use it."""
        return {"allow": True, **self._number(), "access": access}

    def mount(self) -> dict[str, Any]:
        """The host's own node in its place."""
        options = ["bind", "nosuid", "noexec", "rprivate"]
        return {"destination": self.path, "type": "bind", "source": self.source, "options": options}

    def _number(self) -> dict[str, Any]:
        return {
            "type": _KINDS[stat.S_IFMT(self.status.st_mode)],
            "major": os.major(self.status.st_rdev),
            "minor": os.minor(self.status.st_rdev),
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device of the host, or all in a directory. `access` is of `r`, `w` and `m` (making nodes of it)."""

    source: str
    path: str
    access: str = _ACCESS

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host[:container][:permissions]`, as Docker's `--device` takes it.

        Raises:
            UsageError: another shape.

        >>> Device.parse("/dev/fuse:r")
        Device(source='/dev/fuse', path='/dev/fuse', access='r')
        """
        what = f"device {text[:200]!r}"
        source, *more = text.split(":")
        access = more.pop() if more and _is_access(more[-1]) else _ACCESS
        if len(more) > 1 or not os.path.isabs(source) or "\0" in source:
            raise UsageError(
                f"{what}: expected /HOST[:/CONTAINER][:PERMISSIONS], PERMISSIONS of rwm"
            )
        path = parse_destination(more[0] if more else source, what)
        return cls(source=source, path=path, access=access)

    def nodes(self) -> list[Node]:
        """The devices there are now.

        Raises:
            UsageError: there is none.
        """
        try:
            real = os.path.realpath(self.source, strict=True)
            found = list(_nodes(real, self.path, os.stat(real)))
        except OSError as exc:
            why = os.strerror(exc.errno or 0).lower()
            raise UsageError(f"device {self.source}: {why}") from None
        if not found:
            raise UsageError(f"device {self.source}: it is no device, nor a directory of devices")
        if len(found) > _MOST:
            raise UsageError(f"device {self.source}: more than {_MOST} devices")
        return found

    def check_unprivileged(self) -> None:
        """See that no permission is asked for that only root can see to.

        Raises:
            UsageError: some is.
        """
        if not {"r", "w"} <= set(self.access):
            raise UsageError(
                f"device {self.source}: without root it cannot be for {self.access} alone",
                hint="leave the permissions out: the file's own hold",
            )


def _is_access(text: str) -> bool:
    return text != "" and set(text) <= set(_ACCESS) and len(set(text)) == len(text)


def _nodes(source: str, path: str, status: os.stat_result) -> Iterator[Node]:
    """A device itself, or those below a directory; no link in it is followed."""
    if stat.S_IFMT(status.st_mode) in _KINDS:
        yield Node(source=source, path=path, status=status)
    elif stat.S_ISDIR(status.st_mode):
        with os.scandir(source) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            inner = os.path.join(source, name)
            if inner not in _LEFT_OUT:
                yield from _nodes(inner, f"{path}/{name}", os.lstat(inner))
