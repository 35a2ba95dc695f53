"""Single values as people type them: sizes, names, paths, signals, limits. What is wrong is refused in one line."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
from collections.abc import Sequence
from typing import Any, Self

from argosy.errors import UsageError
from argosy.runtime.tables import RLIMITS

MOST = (1 << 63) - 1
"""The greatest number the kernel takes for a limit."""

_OWN = {
    signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGWINCH,
    signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,  # a shell's job control is of this process
    signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS,
    signal.SIGXCPU, signal.SIGXFSZ,
}  # fmt: skip
PASSED_ON = tuple(sorted(signal.valid_signals() - _OWN))
"""What is sent to a process that only stands for another one, and meant for that; real-time signals, too."""

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""What is sent to a process that is to end."""

_SIZE = re.compile(r"(\d{1,15})([bkmgt]?)b?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)
_ULIMIT = re.compile(r"([a-z]{1,20})=(-1|\d{1,19})(?::(-1|\d{1,19}))?", re.ASCII)
_UNLIMITED = (1 << 64) - 1
_HOSTNAME = re.compile(r"[^\s\0#]{1,64}")


def parse_size(text: str) -> int:
    """A size with a unit of 1024, as Docker reads `--memory`.

    Raises:
        UsageError: another shape.

    >>> parse_size("512m"), parse_size("1g")
    (536870912, 1073741824)
    """
    match = _SIZE.fullmatch(text)
    found = int(match[1]) * _UNITS[match[2].lower()] if match else MOST + 1
    if found > MOST:
        raise UsageError(
            f"size {text[:40]!r}: expected a number with b, k, m or g", hint="for example 512m"
        )
    return found


def parse_name(text: str) -> str:
    """A container's name.

    Raises:
        UsageError: characters it may not have.
    """
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"container name {text[:140]!r}: expected 1 to 128 letters, digits, '_', '.' and '-'"
        )
    return text


def parse_hostname(text: str) -> str:
    """A host name that the kernel takes and that is one word of /etc/hosts.

    Raises:
        UsageError: it is not.
    """
    if not _HOSTNAME.fullmatch(text) or len(text.encode("utf-8", "surrogateescape")) > 64:
        raise UsageError(f"host name {text[:100]!r}: expected one word of at most 64 bytes")
    return text


def parse_destination(text: str, what: str) -> str:
    """Where something is mounted in a container, in one spelling.

    Args:
        text: What was typed.
        what: What it belongs to, for the message.

    Raises:
        UsageError: it is not absolute, or the root itself.

    >>> parse_destination("/data//x/../y/", "volume")
    '/data/y'
    """
    place = "/" + os.path.normpath(text).lstrip("/")
    if not os.path.isabs(text) or place == "/" or "\0" in text:
        raise UsageError(f"{what}: the destination must be an absolute path below /")
    return place


def pairs(entries: Sequence[str], what: str) -> dict[str, str]:
    """`NAME=value` entries, the last of a name; without `=` the value is empty.

    Args:
        entries: The entries.
        what: What they are, for the message.

    Raises:
        UsageError: one has no name.

    >>> pairs(["A=1", "B", "A=2=3"], "env")
    {'A': '2=3', 'B': ''}
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not name or "\0" in entry:
            raise UsageError(f"{what} {entry[:100]!r}: expected NAME=value")
        found[name] = value
    return found


def signal_number(text: str) -> int:
    """A signal by name, with or without `SIG`, or by number.

    Raises:
        UsageError: there is no such signal.

    >>> signal_number("term"), signal_number("SIGRTMIN+3") - signal.SIGRTMIN, signal_number("9")
    (15, 3, 9)
    """
    if text.isdecimal() and 0 < int(text) <= signal.SIGRTMAX:
        return int(text)
    base, plus, more = text.upper().removeprefix("SIG").partition("+")
    found = getattr(signal, f"SIG{base}", None)
    if isinstance(found, signal.Signals) and (not plus or more.isdecimal()):
        number = int(found) + int(more or 0)
        if number <= signal.SIGRTMAX:
            return number
    raise UsageError(f"signal {text[:40]!r} is not known")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ulimit:
    """A limit of the program's own. `kind` is the kernel's name of it, `hard` what the program may raise `soft` to."""

    kind: str
    soft: int
    hard: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name=soft[:hard]`, as Docker's `--ulimit` takes it; -1 is no limit.

        Raises:
            UsageError: another shape, or there is no such limit.

        >>> Ulimit.parse("nofile=1024").hard
        1024
        """
        match = _ULIMIT.fullmatch(text)
        kind = f"RLIMIT_{match[1].upper()}" if match else ""
        if not match or kind not in RLIMITS:
            raise UsageError(
                f"ulimit {text[:60]!r}: expected NAME=SOFT[:HARD]",
                hint="for example nofile=1024:2048",
            )
        soft, hard = (
            _UNLIMITED if number == "-1" else int(number)
            for number in (match[2], match[3] or match[2])
        )
        if soft > hard:
            raise UsageError(f"ulimit {text[:60]!r}: the soft limit is above the hard one")
        return cls(kind=kind, soft=soft, hard=hard)

    def entry(self) -> dict[str, Any]:
        """The runtime configuration's."""
        return {"type": self.kind, "soft": self.soft, "hard": self.hard}
