"""The command line: tables of verbs and options, and the parser for them.

runc's callers write options before and after positional arguments, long ones with one dash or two, values after a
space or an equals sign; ``exec``, ``kill`` and ``ps`` stop at the first positional argument.
"""

from __future__ import annotations

import posix

from argosy.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAG, TEXT, NUMBER, LIST = "flag", "text", "number", "list"

_BUNDLE = {"bundle": TEXT, "b": "bundle"}
_START = {
    **_BUNDLE, "console-socket": TEXT, "pidfd-socket": TEXT, "pid-file": TEXT, "no-pivot": FLAG,
    "no-new-keyring": FLAG, "preserve-fds": NUMBER,
}  # fmt: skip
_CRIU = {
    "image-path": TEXT, "work-path": TEXT, "tcp-established": FLAG, "ext-unix-sk": FLAG, "shell-job": FLAG,
    "file-locks": FLAG, "manage-cgroups-mode": TEXT, "empty-ns": LIST, "auto-dedup": FLAG, "lazy-pages": FLAG,
    "link-remap": FLAG,
}  # fmt: skip

GLOBAL: dict[str, str] = {
    "debug": FLAG, "log": TEXT, "log-format": TEXT, "log-level": TEXT, "root": TEXT, "systemd-cgroup": FLAG,
    "rootless": TEXT, "cgroup-manager": TEXT, "help": FLAG, "h": "help", "version": FLAG, "v": "version",
}  # fmt: skip


class Verb:
    """One verb.

    Attributes:
        options: option to kind, or to the name it is short for.
        usage: its positional arguments.
        about: one line.
        least: fewest positional arguments.
        most: most of them, None for any number.
        stops: options end at the first positional argument.
    """

    __slots__ = ("about", "least", "most", "options", "stops", "usage")

    def __init__(
        self,
        options: dict[str, str],
        usage: str,
        about: str,
        least: int = 1,
        most: int | None = 1,
        *,
        stops: bool = False,
    ) -> None:
        self.options = {**options, "help": FLAG, "h": "help"}
        self.usage = usage
        self.about = about
        self.least = least
        self.most = most
        self.stops = stops


_ID = "<container-id>"
VERBS = {
    "checkpoint": Verb(
        {
            **_CRIU, "parent-path": TEXT, "leave-running": FLAG, "tcp-skip-in-flight": FLAG, "status-fd": NUMBER,
            "page-server": TEXT, "pre-dump": FLAG,
        },
        _ID, "checkpoint a running container",
    ),
    "create": Verb(_START, _ID, "create a container"),
    "delete": Verb(
        {"force": FLAG, "f": "force"}, _ID,
        "delete any resources held by the container often used with detached container",
    ),
    "events": Verb(
        {"interval": TEXT, "stats": FLAG}, _ID,
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    ),
    "exec": Verb(
        {
            "console-socket": TEXT, "pidfd-socket": TEXT, "cwd": TEXT, "env": LIST, "e": "env", "tty": FLAG, "t": "tty",
            "user": TEXT, "u": "user", "additional-gids": LIST, "g": "additional-gids", "process": TEXT, "p": "process",
            "detach": FLAG, "d": "detach", "pid-file": TEXT, "process-label": TEXT, "apparmor": TEXT,
            "no-new-privs": FLAG, "cap": LIST, "c": "cap", "preserve-fds": NUMBER, "cgroup": LIST,
            "ignore-paused": FLAG,
        },
        f"{_ID} <command> [command options]  || -p process.json {_ID}", "execute new process inside the container",
        1, None, stops=True,
    ),
    "features": Verb({}, "", "show the enabled features", 0, 0),
    "kill": Verb(
        {"all": FLAG, "a": "all"}, f"{_ID} [signal]",
        "kill sends the specified signal (default: SIGTERM) to the container's init process", 1, 2, stops=True,
    ),
    "list": Verb(
        {"format": TEXT, "f": "format", "quiet": FLAG, "q": "quiet"}, "",
        "lists containers started with the given root", 0, 0,
    ),
    "pause": Verb({}, _ID, "pause suspends all processes inside the container"),
    "ps": Verb(
        {"format": TEXT, "f": "format"}, f"{_ID} [ps options]",
        "ps displays the processes running inside a container", 1, None, stops=True,
    ),
    "restore": Verb(
        {
            **_CRIU, **_BUNDLE, "console-socket": TEXT, "detach": FLAG, "d": "detach", "pid-file": TEXT,
            "no-subreaper": FLAG, "no-pivot": FLAG, "lsm-profile": TEXT, "lsm-mount-context": TEXT,
        },
        _ID, "restore a container from a previous checkpoint",
    ),
    "resume": Verb({}, _ID, "resumes all processes that have been previously paused"),
    "run": Verb(
        {**_START, "detach": FLAG, "d": "detach", "keep": FLAG, "no-subreaper": FLAG}, _ID,
        "create and run a container",
    ),
    "spec": Verb({**_BUNDLE, "rootless": FLAG}, "", "create a new specification file", 0, 0),
    "start": Verb({}, _ID, "executes the user defined process in a created container"),
    "state": Verb({}, _ID, "output the state of a container"),
    "update": Verb(
        {
            "resources": TEXT, "r": "resources",
            **dict.fromkeys(
                (
                    "blkio-weight", "cpu-period", "cpu-quota", "cpu-burst", "cpu-share", "cpu-rt-period",
                    "cpu-rt-runtime", "cpuset-cpus", "cpuset-mems", "kernel-memory", "kernel-memory-tcp", "memory",
                    "cpu-idle", "memory-reservation", "memory-swap", "pids-limit", "l3-cache-schema", "mem-bw-schema",
                ),
                TEXT,
            ),
        },
        _ID, "update container resource constraints",
    ),
}  # fmt: skip


def parse(
    arguments: list[str], table: dict[str, str], *, stops: bool
) -> tuple[dict[str, Any], list[str]]:
    """Options and positional arguments.

    Args:
        arguments: the words after the verb (or after the program).
        table: options of the verb.
        stops: the first positional argument ends the options.

    Returns:
        Options by their long name: True, text, int, or a list of texts; and the rest.

    Raises:
        UsageError: an unknown option, a missing or wrong value.

    Example:
        >>> parse(["c1", "-bundle=/b", "--no-pivot"], VERBS["create"].options, stops=False)
        ({'bundle': '/b', 'no-pivot': True}, ['c1'])
    """
    options: dict[str, Any] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            return options, [*rest, *words]
        if len(word) < 2 or word[0] != "-":
            rest.append(word)
            if stops:
                return options, [*rest, *words]
            continue
        name, equals, value = word.lstrip("-").partition("=")
        _take(options, table, word, name, value if equals else None, words)
    return options, rest


def _take(
    options: dict[str, Any],
    table: dict[str, str],
    word: str,
    name: str,
    value: str | None,
    words: Any,
) -> None:
    kind = table.get(name)
    if kind is not None and kind not in (FLAG, TEXT, NUMBER, LIST):
        name, kind = kind, table[kind]
    if kind is None:
        raise UsageError(f"flag provided but not defined: -{word.lstrip('-').partition('=')[0]}")
    if kind == FLAG:
        if value not in (None, "true", "false", "1", "0", "t", "f"):
            raise UsageError(f'invalid boolean value "{value}" for -{name}')
        options[name] = value in (None, "true", "1", "t")
        return
    if value is None:
        value = next(words, None)
        if value is None:
            raise UsageError(f"flag needs an argument: {word}")
    if kind == LIST:
        options.setdefault(name, []).append(value)
    else:
        options[name] = _number(name, value) if kind == NUMBER else value


def absolute(path: str | None) -> str | None:
    """An option's path made absolute, before anything changes directory; None and "" stay."""
    if not path or path.startswith("/"):
        return path
    return f"{posix.getcwd()}/{path}"


def is_number(text: str) -> bool:
    """Whether this is one to ten of the digits 0 to 9: `isdigit` alone takes what `int` refuses.

    Example:
        >>> is_number("10"), is_number("²"), is_number("9" * 5000)
        (True, False, False)
    """
    return text.isascii() and text.isdigit() and len(text) <= 10


def _number(name: str, value: str) -> int:
    if not is_number(value.removeprefix("-")):
        raise UsageError(f'invalid value "{value}" for flag -{name}: expected a number')
    return int(value)
