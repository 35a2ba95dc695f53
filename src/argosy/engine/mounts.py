"""What is mounted in a container: `-v`, `--tmpfs` and `--mount`, read into one noun.

A read-only bind is so with everything that is mounted below its source, unless somebody says otherwise.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from argosy.engine.values import parse_destination, parse_size
from argosy.errors import UsageError

_TMPFS_FLAGS = ("nosuid", "nodev", "noexec")
_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_VOLUME_OPTIONS = {
    **{option: (option,) for option in (*_PROPAGATIONS, "idmap")},
    **{option: (option,) for flag in ("suid", "dev", "exec") for option in (flag, f"no{flag}")},
    "rw": ("rw",),
    "ro": ("rro",),
    **dict.fromkeys(("z", "Z", "cached", "consistent", "delegated"), ()),
}
"""What `-v` takes → what the runtime is told. Labels of SELinux, and how a Mac keeps files alike, mean nothing here."""

_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "destination": "target",
    "dst": "target",
    "readonly": "readonly",
    "ro": "readonly",
    "consistency": "consistency",
}
"""What `--mount` takes of every kind → its one name."""

_KEYS_OF = {
    "bind": ("bind-propagation", "bind-recursive", "bind-nonrecursive", "bind-create-src"),
    "tmpfs": ("tmpfs-size", "tmpfs-mode"),
}
_FLAGS = {"readonly", "bind-nonrecursive", "bind-create-src"}
"""Those that may stand alone."""

_RECURSIONS = {
    "enabled": ("rbind", "rro"),
    "disabled": ("bind", "ro"),
    "writable": ("rbind", "ro"),
    "readonly": ("rbind", "rro"),
}
"""`bind-recursive` → the runtime's words for the bind, and for a read-only one."""

_TRUTH = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}

_NUMBER, _COUNT = r"\d{1,10}", r"\d{1,15}[kmgKMG]?"
_TMPFS_OPTIONS = re.compile(
    r"(no)?(suid|dev|exec|(rel|dir|strict)?atime|mand|symfollow)|r[ow]|a?sync|dirsync|tmpcopyup|noswap|inode(32|64)|defaults"
    rf"|size=({_COUNT}|\d{{1,3}}%)|nr_(blocks|inodes)={_COUNT}|mode=[0-7]{{1,4}}|[ug]id={_NUMBER}|mpol=[\w=:-]+"
    r"|huge=(never|always|within_size|advise)",
    re.ASCII,
)

_TMPFS_MODE = re.compile("[0-7]{1,5}", re.ASCII)


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

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `type=bind,source=…,target=…`, as Docker's `--mount` takes it.

        Raises:
            UsageError: another shape, a key or value that is not known, or a kind that argosy does not have.

        >>> Mount.parse("type=bind,src=/srv,dst=/data,readonly").options
        ('rbind', 'rro', 'rprivate')
        >>> Mount.parse("type=tmpfs,target=/t,tmpfs-size=1m").options
        ('nosuid', 'nodev', 'noexec', 'size=1048576')
        """
        what = f"mount {text[:200]!r}"
        given = _given(text, what)
        destination = parse_destination(given.get("target", ""), what)
        if given["type"] == "tmpfs":
            if "source" in given:
                raise UsageError(f"{what}: a tmpfs has no source")
            options = _tmpfs_options(given, what)
            return cls(kind="tmpfs", destination=destination, options=options)
        return cls(
            kind="bind",
            destination=destination,
            source=_parse_source(given.get("source", ""), what),
            options=_bind_options(given, what),
            make=_is_true(given, "bind-create-src", what),
        )

    def entry(self) -> dict[str, Any]:
        """The runtime configuration's."""
        return {
            "destination": self.destination,
            "type": self.kind,
            "source": self.source,
            "options": [*self.options],
        }


def _given(text: str, what: str) -> dict[str, str]:
    """The keys and values of a `--mount`, each key by its one name."""
    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise UsageError(f"{what}: expected KEY=VALUE,…") from None
    found = [field.partition("=") for field in fields]
    kind = next((value for key, _, value in found if key == "type"), "volume")
    if kind not in _KEYS_OF:
        raise UsageError(
            f"{what}: argosy mounts type=bind and type=tmpfs, and has no {kind[:40]!r}",
            hint="bind a directory: --mount type=bind,source=/path,target=/path" if kind == "volume" else None,
        )  # fmt: skip
    given = {}
    for typed, equals, value in found:
        key = _KEYS.get(typed, typed)
        if key not in (*_KEYS.values(), *_KEYS_OF[kind]):
            raise UsageError(f"{what}: a {kind} has no {typed[:60]!r}")
        if not equals and key not in _FLAGS:
            raise UsageError(f"{what}: expected {typed}=VALUE")
        if key in given:
            raise UsageError(f"{what}: {key} is there twice")
        given[key] = value if equals else "true"
    return given


def _is_true(given: Mapping[str, str], key: str, what: str) -> bool:
    text = given.get(key, "false")
    if text not in _TRUTH:
        raise UsageError(f"{what}: {key}={text[:60]}: expected true or false")
    return _TRUTH[text]


def _bind_options(given: Mapping[str, str], what: str) -> tuple[str, ...]:
    readonly = _is_true(given, "readonly", what)
    alone = _is_true(given, "bind-nonrecursive", what)
    recursion = given.get("bind-recursive", "disabled" if alone else "enabled")
    if recursion not in _RECURSIONS or (alone and recursion != "disabled"):
        expected = "disabled" if alone else ", ".join(_RECURSIONS)
        raise UsageError(f"{what}: bind-recursive={recursion[:60]}: expected {expected}")
    if recursion == "readonly" and not readonly:
        raise UsageError(f"{what}: bind-recursive=readonly is for a mount with readonly")
    propagation = given.get("bind-propagation", "rprivate")
    if propagation not in _PROPAGATIONS:
        expected = ", ".join(_PROPAGATIONS)
        raise UsageError(f"{what}: bind-propagation={propagation[:60]}: expected {expected}")
    bind, sealed = _RECURSIONS[recursion]
    return (bind, *((sealed,) if readonly else ()), propagation)


def _tmpfs_options(given: Mapping[str, str], what: str) -> tuple[str, ...]:
    options = [*_TMPFS_FLAGS]
    if "tmpfs-size" in given:
        try:
            options.append(f"size={parse_size(given['tmpfs-size'])}")
        except UsageError as exc:
            exc.add_note(what)
            raise
    if "tmpfs-mode" in given:
        mode = given["tmpfs-mode"]
        if not _TMPFS_MODE.fullmatch(mode):
            raise UsageError(f"{what}: tmpfs-mode={mode[:60]}: expected octal digits, such as 1777")
        options.append(f"mode={mode}")
    if _is_true(given, "readonly", what):
        options.append("ro")
    return tuple(options)


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


def check_sources(mounts: Sequence[Mount]) -> None:
    """See that what is to be bound is there, or will be made.

    Raises:
        UsageError: something is not.
    """
    for mount in mounts:
        if mount.kind == "bind" and not mount.make and not os.path.lexists(mount.source):
            raise UsageError(
                f"mount of {mount.source}: it is not there",
                hint="bind-create-src makes a directory",
            )
