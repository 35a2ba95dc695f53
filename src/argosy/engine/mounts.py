"""What is mounted in a container: `-v` and `--tmpfs`, read into one noun.

A read-only bind is so with everything that is mounted below its source, unless somebody says otherwise.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any, Self

from argosy.engine.values import parse_destination
from argosy.errors import UsageError

_TMPFS_FLAGS = ("nosuid", "nodev", "noexec")
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_VOLUME_OPTIONS = {
    **{option: (option,) for option in (*_PROPAGATIONS, "idmap")},
    **{option: (option,) for flag in ("suid", "dev", "exec") for option in (flag, f"no{flag}")},
    "rw": ("rw",),
    "ro": ("rro",),
    "z": (),
    "Z": (),
}
"""What `-v` takes → what the runtime is told. Labels of SELinux have no meaning here."""

_NUMBER, _COUNT = r"\d{1,10}", r"\d{1,15}[kmgKMG]?"
_TMPFS_OPTIONS = re.compile(
    r"(no)?(suid|dev|exec|(rel|dir|strict)?atime|mand|symfollow)|r[ow]|a?sync|dirsync|tmpcopyup|defaults"
    rf"|size=({_COUNT}|\d{{1,3}}%)|nr_(blocks|inodes)={_COUNT}|mode=[0-7]{{1,4}}|[ug]id={_NUMBER}|mpol=[\w=:-]+"
    r"|huge=(never|always|within_size|advise)",
    re.ASCII,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory or file of the host, or an empty file system in memory, inside the container.

    `kind` is `bind` or `tmpfs`, `options` are the runtime's. With `make`, a source that is not there becomes a
    directory.
    """

    kind: str
    destination: str
    source: str = "tmpfs"
    options: tuple[str, ...] = ()
    make: bool = False

    @classmethod
    def volume(cls, text: str) -> Self:
        """Read `source:destination[:options]`, as Docker's `-v` takes it.

        Raises:
            UsageError: another shape, or a destination that is not absolute.

        >>> Mount.volume("/srv:/data:ro").options
        ('rbind', 'rro', 'rprivate')
        """
        what = f"volume {text[:200]!r}"
        parts = text.split(":")
        if len(parts) not in (2, 3) or not all(parts[:2]):
            raise UsageError(f"{what}: expected source:destination[:options]")
        given = [option for option in (parts[2].split(",") if len(parts) == 3 else ()) if option]
        unknown = set(given) - set(_VOLUME_OPTIONS)
        if unknown:
            raise UsageError(f"{what}: option {min(unknown)!r} is not known")
        options = [told for option in given for told in _VOLUME_OPTIONS[option]]
        if not set(options) & set(_PROPAGATIONS):
            options.append("rprivate")
        return cls(
            kind="bind",
            source=_parse_source(parts[0], what),
            destination=parse_destination(parts[1], what),
            options=("rbind", *options),
            make=True,
        )

    @classmethod
    def tmpfs(cls, text: str) -> Self:
        """Read `path[:options]`; the flags that keep a program from trouble hold unless their contrary is said.

        Raises:
            UsageError: another shape, or an option that tmpfs does not have.

        >>> Mount.tmpfs("/scratch:size=1m,exec").options
        ('nosuid', 'nodev', 'size=1m', 'exec')
        """
        destination, _, more = text.partition(":")
        what = f"tmpfs {text[:100]!r}"
        given = [option for option in more.split(",") if option]
        for option in given:
            if not _TMPFS_OPTIONS.fullmatch(option):
                raise UsageError(f"{what}: option {option[:60]!r} is not known, or its value")
        flags = [flag for flag in _TMPFS_FLAGS if not {flag, flag.removeprefix("no")} & set(given)]
        return cls(
            kind="tmpfs",
            destination=parse_destination(destination, what),
            options=(*flags, *given),
        )

    def entry(self) -> dict[str, Any]:
        """The runtime configuration's."""
        return {
            "destination": self.destination,
            "type": self.kind,
            "source": self.source,
            "options": [*self.options],
        }


def _parse_source(text: str, what: str) -> str:
    source = os.path.expanduser(text)
    if not os.path.isabs(source) and not source.startswith("."):
        raise UsageError(f"{what}: the source must be a path", hint="begin it with / or ./")
    if "\0" in source:
        raise UsageError(f"{what}: the source must be a path")
    return os.path.abspath(source)


def check_destinations(mounts: Sequence[Mount]) -> None:
    """See that nothing is mounted twice in one place.

    Raises:
        UsageError: something is.
    """
    taken: set[str] = set()
    for mount in mounts:
        if mount.destination in taken:
            raise UsageError(f"{mount.destination}: two mounts with this destination")
        taken.add(mount.destination)
