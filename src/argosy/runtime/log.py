"""The log: one line an entry, to ``--log`` or the standard error, as text or JSON; errors also to the standard error.

Clients read the last line of level "error" for the cause (containerd's shim), so its ``msg`` is the whole story.
Nothing is written on success.
"""

from __future__ import annotations

import posix
from time import gmtime, strftime

from argosy.runtime.jsonio import encode

_state: dict[str, str | int | bool] = {"path": "", "format": "text", "debug": False}


def configure(path: str, style: str, *, debug: bool) -> None:
    """Where and how entries are written.

    Args:
        path: the log file, absolute, for commands change directory; "" for the standard error.
        style: "text" or "json".
        debug: also write entries of level "debug".
    """
    _state.update(path=path, format=style, debug=debug)
    if path:
        posix.close(_open(path))


def _open(path: str) -> int:
    return posix.open(
        path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC, 0o644
    )


def _line(level: str, message: str) -> bytes:
    now = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())
    if _state["format"] == "json":
        text = encode({"level": level, "msg": message, "time": now})
    else:
        text = f'time="{now}" level={level} msg={encode(message)}'
    return text.encode() + b"\n"


def _write(level: str, message: str) -> None:
    path = str(_state["path"])
    try:
        fd = _open(path) if path else 2
        posix.write(fd, _line(level, message))
        if path:
            posix.close(fd)
    except OSError:
        pass


def wanted() -> bool:
    """Whether entries of level "debug" are written."""
    return bool(_state["debug"])


def debug(message: str) -> None:
    """An entry for somebody who asked for ``--debug``."""
    if _state["debug"]:
        _write("debug", message)


def warning(message: str) -> None:
    """Something was left out or is not as it should be; the operation goes on."""
    _write("warning", message)


def error(message: str) -> None:
    """The one reason why the command fails; with a log file it is also said on the standard error."""
    _write("error", message)
    if _state["path"]:
        _say(message)


def plain(message: str) -> None:
    """What the program itself would say if it had been executed: on the standard error as it is, and in the log."""
    if _state["path"]:
        _write("error", message)
    _say(message)


def _say(message: str) -> None:
    try:
        posix.write(2, message.encode("utf-8", "surrogateescape") + b"\n")
    except OSError:
        pass
