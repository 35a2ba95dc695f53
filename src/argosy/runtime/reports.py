"""Verbs that tell: ``list``, ``ps``, ``features``, ``spec``."""

from __future__ import annotations

import posix

from argosy.runtime import state as states
from argosy.runtime.cli import _print
from argosy.runtime.container import Container
from argosy.runtime.errors import Failure, UnknownError
from argosy.runtime.jsonio import encode, pretty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from argosy.runtime.cli import Command

_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
_PS = ("/usr/bin/ps", "/bin/ps")


def _choice(command: Command) -> str:
    chosen = command.options.get("format") or "table"
    if chosen not in ("table", "json"):
        raise Failure("invalid format option")
    return str(chosen)


def list_verb(command: Command) -> int:
    """``list``: every container of the state root."""
    chosen = _choice(command)
    found = _containers(command.root, must_exist="root" in command.settings)
    if command.options.get("quiet"):
        _print("".join(f"{entry['id']}\n" for entry in found))
    elif chosen == "json":
        _print((encode(found) if found else "null") + "\n")
    else:
        rows = [tuple(name.upper() for name in _COLUMNS)]
        rows += [
            tuple(str(entry[name]) for name in _COLUMNS) for entry in found
        ]  # fmt: skip
        _print(table(rows))
    return 0


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns at least twelve wide with three blanks between them; the last one is not padded."""
    widths = [
        max(12, max(len(row[column]) for row in rows) + 3) for column in range(len(rows[0]) - 1)
    ]
    lines = [
        "".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True))
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def _containers(root: str, *, must_exist: bool) -> list[dict[str, Any]]:
    try:
        names = sorted(posix.listdir(root))
    except FileNotFoundError:
        if must_exist:
            raise
        return []
    found = []
    for name in names:
        try:
            states.check_id(name)
            found.append(Container.load(root, name).public_state())
        except (Failure, OSError) as error:
            if not isinstance(error, UnknownError) and not name.startswith("."):
                from argosy.runtime import log

                log.warning(f"load container {name}: {error}")
    return found


def ps_verb(command: Command) -> int:
    """``ps``: the processes of the container's cgroup."""
    chosen = _choice(command)
    pids = command.container().cgroup().pids()
    if chosen == "json":
        _print((encode(pids) if pids else "null") + "\n")
        return 0
    _print(_only(_ps(command.arguments[1:] or ["-ef"]), {str(pid) for pid in pids}))
    return 0


def _ps(arguments: list[str]) -> str:
    """The output of ps(1)."""
    path = next((path for path in _PS if posix.access(path, posix.X_OK)), None)
    if path is None:
        raise Failure("ps is not installed: use --format json")
    reader, writer = posix.pipe2(posix.O_CLOEXEC)
    pid = posix.fork()
    if pid == 0:
        try:
            posix.dup2(writer, 1)
            posix.dup2(writer, 2)
            posix.execve(path, ["ps", *arguments], posix.environ)
        finally:
            posix._exit(127)
    posix.close(writer)
    text = b""
    while part := posix.read(reader, 65536):
        text += part
    posix.close(reader)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    shown = text.decode("utf-8", "replace")
    if status:
        raise Failure(f"exit status {status}: {shown.strip()}")
    return shown


def _only(output: str, pids: set[str]) -> str:
    header, *lines = output.splitlines()
    titles = header.split()
    if "PID" not in titles:
        raise Failure("couldn't find PID field in ps output")
    column = titles.index("PID")
    kept = [
        line
        for line in lines
        if (fields := line.split()) and fields[column : column + 1] and fields[column] in pids
    ]
    return "\n".join([header, *kept]) + "\n"


def features_verb(_: Command) -> int:
    """``features``: what this runtime knows, for this machine's libraries."""
    from argosy.runtime.features import FEATURES

    _print(FEATURES.decode())
    return 0


def spec_verb(command: Command) -> int:
    """``spec``: a config.json to begin with; one that is there is not overwritten."""
    from argosy.runtime.starter import configuration, rootless

    directory = command.options.get("bundle") or "."
    path = f"{directory}/config.json"
    config = configuration()
    if command.options.get("rootless"):
        config = rootless(config)
    try:
        fd = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o666
        )
    except FileExistsError:
        raise Failure("File config.json exists. Remove it first") from None
    try:
        posix.write(fd, pretty(config).encode() + b"\n")
    finally:
        posix.close(fd)
    return 0
