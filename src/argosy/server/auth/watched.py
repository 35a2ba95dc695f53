"""A file that is taken up again when it changes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from argosy.errors import ArgosyError, InvalidConfigError

__all__ = ["MAX_BYTES", "Watched", "read_limited"]

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

MAX_BYTES = 8 * 1024 * 1024
"""The largest file of users, rules or keys that is read."""


def read_limited(path: str, limit: int = MAX_BYTES) -> bytes:
    """A whole file, if it is not too large.

    Raises:
        InvalidConfigError: it cannot be read or is over the limit.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise InvalidConfigError(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise InvalidConfigError(f"{path}: over the limit of {limit} bytes")
    return data


class Watched(Generic[T]):
    """What a file says, read again when its inode, size or time of change is another one.

    The first reading must succeed; a later one that fails is logged, and what was known goes on to hold: a file caught
    half-written must not lock everybody out, nor let anybody in.

    Args:
        path: The file.
        read: Makes a value of the file's path; raises `ArgosyError` for what it cannot take.
    """

    def __init__(self, path: str, read: Callable[[str], T]) -> None:
        self._path = path
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._value = read(path)

    def get(self) -> T:
        """The value that holds now."""
        stamp = self._stamp()
        if stamp != self._seen:
            with self._lock:
                self._take_up(stamp)
        return self._value

    def _take_up(self, stamp: object) -> None:
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._value = self._read(self._path)
        except ArgosyError as error:
            _LOG.error("%s; going on with what it said before", error)
        else:
            _LOG.info("%s was read again", self._path)

    def _stamp(self) -> object:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
