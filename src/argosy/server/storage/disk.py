"""A local disk: how much of it stays free, files without a name, and what its errors are."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
from typing import IO

from argosy.errors import StorageError
from argosy.server.settings import Settings
from argosy.server.storage import InsufficientStorageError, UnavailableError

__all__ = ["Temporary", "require_room", "translated"]

log = logging.getLogger("argosy.server")

_AWAY = (errno.EIO, errno.EROFS, errno.ESTALE, errno.EMFILE, errno.ENFILE)
_CLASSES: dict[int | None, type[StorageError]] = {
    errno.ENOSPC: InsufficientStorageError,
    errno.EDQUOT: InsufficientStorageError,
    **dict.fromkeys(_AWAY, UnavailableError),
}


def translated(error: OSError, what: str) -> StorageError:
    """An error of the disk as one of ours."""
    cls = _CLASSES.get(error.errno, StorageError)
    return cls(f"{what}: {error.strerror or error}")


def require_room(folder: str, reserve: int, size: int = 0) -> None:
    """See that so many bytes can be written while a reserve stays free.

    Raises:
        InsufficientStorageError: they cannot.
        OSError: nobody can say.
    """
    if not reserve:
        return
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < reserve + size:
        raise InsufficientStorageError(
            f"{folder} is full: {free} bytes are free, {reserve} of them are kept in reserve"
        )


class Temporary:
    """Where bodies under way lie that there is no memory for: files without a name, of which nothing is left when the
    process is killed.

    Args:
        folder: The directory; the system's for temporary files, if None.
        reserve: How many bytes of its file system stay free.

    Example:
        >>> with Temporary().file() as file:
        ...     write(file, b"hello")
        ...     file.tell()
        5
    """

    def __init__(self, folder: str | None = None, *, reserve: int = 0) -> None:
        self._folder = folder
        self._reserve = reserve

    @classmethod
    def of(cls, settings: Settings) -> Temporary:
        """The one the settings name; else where blobs lie, as far as that is here."""
        storage = settings.storage
        root = storage.root if storage.type == "filesystem" else None
        folder = root or settings.data
        if folder and not os.path.isdir(folder):
            folder = None
        return cls(storage.temporary or folder, reserve=storage.reserve_bytes)

    def file(self, size: int = 0) -> IO[bytes]:
        """A new file, for so many bytes as far as that is known; closing it is its end.

        Raises:
            InsufficientStorageError: there is no room for it.
            StorageError: it cannot be made.
        """
        try:
            folder = self._folder or tempfile.gettempdir()
            require_room(folder, self._reserve, size)
            return tempfile.TemporaryFile(buffering=0, dir=folder)
        except OSError as exc:
            raise translated(exc, f"temporary files in {self._folder or 'the system'}") from None

    def check(self) -> None:
        """See that files can be made. That there is no room for one now is logged, and no reason to serve nothing.

        Raises:
            StorageError: they cannot.
        """
        try:
            self.file().close()
        except InsufficientStorageError as exc:
            log.warning("temporary files: %s", exc)


def write(file: IO[bytes], data: bytes | bytearray | memoryview) -> None:
    """Append all of it.

    Raises:
        StorageError: the disk is full, or failed.
    """
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as exc:
        raise translated(exc, "temporary file") from None
