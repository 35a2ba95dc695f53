"""Files that people name: one way to read them, and those that are written are whole or not there at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from argosy.errors import InvalidError, UsageError, unread
from argosy.layout.durable import is_stream, replacing


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """A file to read from; `-` is stdin.

    Raises:
        NotFoundError: it is not there.
        DeniedError: it may not be read.
        StorageError: it cannot be, such as a directory.
    """
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as exc:
        raise unread(path, exc) from exc
    with file:
        yield file


@contextlib.contextmanager
def blamed(path: str) -> Iterator[None]:
    """Have what is wrong with a file's content say which file it is."""
    try:
        yield
    except InvalidError as exc:
        exc.add_note(f"in {path}")
        raise


def check_readable(paths: Sequence[str], *, again: bool = False) -> None:
    """See that files have their content each time they are read: one that is named twice, or `again` all of them.

    Raises:
        UsageError: one of these is stdin, a FIFO or a device.
    """
    for path in paths:
        if (again or paths.count(path) > 1) and (path == "-" or is_stream(path)):
            raise UsageError(
                f"{path}: it can be read only once, and is needed several times", hint="give a file"
            )


@contextlib.contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """A file to write to, which appears when the block ends without an error; until then what was there stays.

    `-` is stdout. For links, devices and pipes see `replacing`.

    Raises:
        DeniedError: nothing may be written there.
        StorageError: nothing can be.
    """
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with replacing(path) as file:
        yield file


@contextlib.contextmanager
def digest(path: str | None) -> Iterator[Callable[[str], object]]:
    """Write the digest that the block tells of to a file, if there is to be one, when the block has ended.

    The file is opened before the block, so that nothing is changed where it could not be written.
    """
    told: list[str] = []
    if not path:
        yield told.append
        return
    with replacing(path) as file:
        yield told.append
        file.writelines(f"{found}\n".encode() for found in told)
