"""Who a container runs as: `Config.User` looked up in the image's own user database (conversion.md, "Config.User").

The files come from the image, so everything about them is hostile: they are opened inside the root file system only,
must be regular files, and have limits (CVE-2024-9676, CVE-2026-47262, CVE-2024-40635). A line that is not one of a
user database is passed over, as the C library does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from argosy.errors import InvalidConfigError

__all__ = ["MAX_ID", "MAX_SIZE", "User", "check_user", "resolve_group", "resolve_user"]

MAX_ID = (1 << 31) - 1
"""The greatest user or group id that is taken; the runtimes of the field hold them in 32 signed bits."""

MAX_SIZE = 1 << 20
"""The most bytes of `/etc/passwd` and of `/etc/group`."""

MAX_GROUPS = 65_536
"""The most supplementary groups of one user (Linux' NGROUPS_MAX)."""

ReadFile = Callable[[str, int], bytes | None]
"""Given a path in the image and a limit: the content, or None where there is no such file."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Numeric identity of a process, with the home directory the user database names."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Passwd:
    name: str
    uid: int
    gid: int
    home: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: frozenset[str]


def resolve_user(text: str, read: ReadFile) -> User:
    """Turn `Config.User` into numbers.

    Args:
        text: `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`; empty means root, and an empty group
            that none was said.
        read: Reads a file of the image, never through a link that leaves it.

    Raises:
        InvalidConfigError: a name is in neither database, an id is outside 0 to 2147483647, or the text has another
            shape.
        LimitExceededError: raised by `read`: a database is larger than 1 MiB.

    Example:
        >>> files = {"/etc/passwd": b"www:x:33:33::/srv:/bin/sh", "/etc/group": b"log:x:4:www"}
        >>> resolve_user("www", lambda path, limit: files.get(path))
        User(uid=33, gid=33, additional_gids=(4,), home='/srv')
    """
    check_user(text)
    user, _, group = text.partition(":")
    found = _user(user or "0", read)
    named = not _is_number(user)
    if group:
        gid = resolve_group(group, read)
        return dataclasses.replace(found[0], gid=gid)
    if not named or not found[1]:
        return found[0]
    return dataclasses.replace(found[0], additional_gids=_groups_of(found[1], found[0].gid, read))


def check_user(text: str) -> None:
    """Refuse what is no user of any image.

    Raises:
        InvalidConfigError: an id is outside 0 to 2147483647, or the text has another shape than `user[:group]`.
    """
    user, _, group = text.partition(":")
    if ":" in group or text == ":" or "\0" in text or "\n" in text:
        raise InvalidConfigError(f"user {text[:64]!r}: expected user[:group]")
    for what, name in (("user", user), ("group", group)):
        if _is_number(name):
            _number(name, what)


def _user(user: str, read: ReadFile) -> tuple[User, str]:
    """The user, without supplementary groups, and its name in the database if it has one.

    Digits are an id whatever the image calls its users: one that is named 1000 is not who 1000 is (CVE-2016-3697).
    """
    number = _number(user, "user") if _is_number(user) else None
    for entry in _passwd(read):
        if entry.name == user if number is None else entry.uid == number:
            return User(uid=entry.uid, gid=entry.gid, home=entry.home), entry.name
    if number is None:
        raise InvalidConfigError(
            f"user {user[:64]!r} is not in the image's /etc/passwd",
            hint="a number needs no entry there",
        )
    return User(uid=number, home="/root" if number == 0 else ""), ""


def resolve_group(group: str, read: ReadFile) -> int:
    """Turn a group's name or number into its number.

    Args:
        group: What was typed.
        read: As for `resolve_user`.

    Raises:
        InvalidConfigError: the name is not in the image's database, or the number is outside 0 to 2147483647.
    """
    if _is_number(group):
        return _number(group, "group")
    for entry in _groups(read):
        if entry.name == group:
            return entry.gid
    raise InvalidConfigError(f"group {group[:64]!r} is not in the image's /etc/group")


def _groups_of(name: str, own: int, read: ReadFile) -> tuple[int, ...]:
    found = dict.fromkeys(
        entry.gid for entry in _groups(read) if name in entry.members and entry.gid != own
    )
    if len(found) > MAX_GROUPS:
        raise InvalidConfigError(f"user {name[:64]!r} is in more than {MAX_GROUPS} groups")
    return tuple(found)


def _passwd(read: ReadFile) -> Iterator[_Passwd]:
    for fields in _lines("/etc/passwd", 7, read):
        uid, gid = _field(fields[2]), _field(fields[3])
        if uid is not None and gid is not None:
            yield _Passwd(fields[0], uid, gid, fields[5])


def _groups(read: ReadFile) -> Iterator[_Group]:
    for fields in _lines("/etc/group", 4, read):
        gid = _field(fields[2])
        if gid is not None:
            yield _Group(fields[0], gid, frozenset(fields[3].split(",")))


def _lines(path: str, count: int, read: ReadFile) -> Iterator[list[str]]:
    data = read(path, MAX_SIZE)
    for line in (data or b"").split(b"\n"):
        fields = line.strip().decode("utf-8", "surrogateescape").split(":")
        if fields[0] and not fields[0].startswith(("#", "+", "-")) and len(fields) >= count - 1:
            yield [*fields, *[""] * (count - len(fields))]


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").removeprefix("+").isdigit()


def _number(text: str, what: str) -> int:
    """An id from the configuration; outside the range it is refused, never cut to fit."""
    if len(text) > 20 or not text.isdigit() or not 0 <= int(text) <= MAX_ID:
        raise InvalidConfigError(f"{what} {text[:64]}: expected an id from 0 to {MAX_ID}")
    return int(text)


def _field(text: str) -> int | None:
    """An id of a database; a line with one outside the range does not count."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > MAX_ID:
        return None
    return int(text)
