"""Files that commands write: whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO

from argosy.layout.durable import storage_errors


@contextlib.contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """A file to write to, which appears when the block ends without an error; until then what was there stays.

    `-` is stdout. What is no regular file (`/dev/null`, a pipe) is written to as it is, and nothing takes its place.

    Raises:
        DeniedError: nothing may be written there.
        StorageError: nothing can be.
    """
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    place = os.path.realpath(path)  # a link stays, and what it leads to is replaced
    regular = not os.path.exists(path) or _is_file(place)
    temporary = f"{place}.{os.getpid()}.tmp"
    with contextlib.ExitStack() as undo:
        with storage_errors(path):
            file = open(temporary, "xb") if regular else open(path, "wb")  # noqa: SIM115 - next line
            undo.enter_context(file)
        if not regular:
            yield file
            return
        undo.callback(_remove, temporary)
        yield file
        file.close()
        with storage_errors(path):
            os.rename(temporary, place)


def _is_file(place: str) -> bool:
    """Whether a regular file has this name; /dev/stdout may lead to something that has none."""
    return os.path.exists(place) and stat.S_ISREG(os.stat(place).st_mode)


def line(path: str, text: str) -> None:
    """Write a file of one line."""
    with whole(path) as file:
        file.write(f"{text}\n".encode())


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
