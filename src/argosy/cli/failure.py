"""How failures reach a person and a script: one line on stderr, a hint where there is one, and an exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import sys
from collections.abc import Iterator

from argosy.errors import (
    AccessError,
    ArgosyError,
    IntegrityError,
    NotFoundError,
    TooManyRequestsError,
    UnsupportedError,
    UsageError,
)

EXIT_CODES: dict[type[BaseException], int] = {
    UsageError: 64,
    NotFoundError: 2,
    AccessError: 3,
    IntegrityError: 4,
    TooManyRequestsError: 5,
    ArgosyError: 1,
    OSError: 1,
}
"""The first class that fits decides. 0 is success, 129 SIGHUP, 130 an interrupt, 143 SIGTERM, 141 a closed
pipe, 70 a defect of argosy."""

EXIT_HUNG_UP = 128 + 1
EXIT_INTERRUPTED = 130
EXIT_PIPE = 128 + 13
EXIT_TERMINATED = 128 + 15
EXIT_DEFECT = 70
EXIT_USAGE = 64


SERVER = {
    "apsw",
    "bcrypt",
    "cryptography",
    "granian",
    "jsonschema",
    "jwt",
    "obstore",
    "prometheus_client",
    "psycopg",
}
"""The modules of the libraries that `argosy[server]` brings: without them there is no registry."""


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error.

    >>> from argosy.errors import ManifestUnknownError
    >>> exit_code(ManifestUnknownError("no such tag"))
    2
    """
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), EXIT_DEFECT)


def one_line(error: BaseException) -> str:
    """An error in one printable line, with its notes in parentheses.

    >>> one_line(ArgosyError("no\\nroom"))
    'no room'
    """
    if isinstance(error, OSError) and not isinstance(error, ArgosyError) and error.errno:
        text = os.strerror(error.errno).lower()
        names = [str(n) for n in (error.filename, error.filename2) if n is not None]
        text = f"{' -> '.join(names)}: {text}" if names else text
    else:
        text = str(error) or type(error).__name__
    notes = "; ".join(dict.fromkeys(getattr(error, "__notes__", ())))
    return printable(f"{text} ({notes})" if notes else text)


class Losses:
    """What failed of many things to do: told at once and counted where the others shall be done, else raised.

    Args:
        keep_going: Whether the others shall be done.
        what: What the things are.
    """

    def __init__(self, *, keep_going: bool, what: str) -> None:
        self._keep_going, self._what = keep_going, what
        self.count = 0

    @contextlib.contextmanager
    def among(self) -> Iterator[None]:
        """One of the things, done in the block."""
        try:
            yield
        except ArgosyError as exc:
            if not self._keep_going:
                raise
            self.count += 1
            report(exc)

    def end(self) -> int:
        """Say how many failed, and how to exit."""
        if self.count:
            say(f"argosy: {self.count} of the {self._what} failed")
        return 1 if self.count else 0


def printable(text: str) -> str:
    """Text from outside made safe for a terminal: one line, no control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def report(error: BaseException) -> int:
    """Print an error to stderr and say how to exit. `ARGOSY_DEBUG=1` adds the traceback."""
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] in SERVER:
        missing = f"the registry needs {error.name}, which is not installed"
        error = UnsupportedError(missing, hint="install argosy[server]")
    error = _lacking(error)
    if os.environ.get("ARGOSY_DEBUG"):
        say_all("".join(importlib.import_module("traceback").format_exception(error)).rstrip())
    code = exit_code(error)
    if code == EXIT_DEFECT:
        say(f"argosy: defect: {type(error).__name__}: {one_line(error)}")
        say("hint: this is a mistake in argosy; ARGOSY_DEBUG=1 shows where")
        return code
    say(f"argosy: {one_line(error)}")
    hint = getattr(error, "hint", None) or _HINTS.get(getattr(error, "errno", None) or 0)
    if hint:
        say(f"hint: {hint}")
    return code


def _lacking(error: BaseException) -> BaseException:
    """What Python says where the machine gives no more, as an error of ours: it is no mistake in argosy."""
    if isinstance(error, MemoryError):
        told = ArgosyError("out of memory", hint="raise the limit of memory, or use fewer --jobs")
    elif isinstance(error, RuntimeError) and "start new thread" in str(error):
        told = ArgosyError(
            "no thread can be started",
            hint="raise the limit of processes (ulimit -u, pids.max) or of memory (ulimit -v)",
        )
    elif isinstance(error, FileNotFoundError) and "temporary directory" in str(error.strerror):
        text = str(error.strerror)
        told = ArgosyError(text[0].lower() + text[1:], hint="TMPDIR names another place")
    else:
        return error
    told.__cause__ = error
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told


_HINTS = {
    errno.EBADF: "a standard stream is closed",
    errno.ENOSPC: "the disk is full; TMPDIR names another place for temporary files",
    errno.EFBIG: "TMPDIR names another place for temporary files",
    errno.EMFILE: "raise the limit of open files (ulimit -n) or use fewer --jobs",
}


_WORD, _LINE = 300, 2000
"""How many characters of a word are shown, and of all words."""


def warn(line: str) -> None:
    """A warning to stderr."""
    print(f"argosy: warning: {printable(line)}", file=sys.stderr)


def say(text: str) -> None:
    """Print a line to stderr that stays readable: what is longer than any name has an ellipsis for its rest."""
    text = re.sub(rf"(\S{{{_WORD}}})\S+?(\W{{0,3}})(?!\S)", r"\1…\2", printable(text))
    say_all(text if len(text) <= _LINE else f"{text[:_LINE]}…")


def say_all(text: str) -> None:
    """Print lines to stderr as they are."""
    try:
        print(text, file=sys.stderr)
    except BrokenPipeError:  # nobody hears it, but what has failed stands
        hush(2)


def hush(*streams: int) -> None:
    """Have what is still to be written to stdout (1) or stderr (2) go nowhere: who read it has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream)
    os.close(nowhere)
