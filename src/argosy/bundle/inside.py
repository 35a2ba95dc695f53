"""Reading a file of a container's root file system, as the container would find it and with a limit.

The path is resolved below the root's descriptor, so no link leads out of it; what is opened must be a regular file, so
nothing hangs and no device is read.
"""

from __future__ import annotations

import errno
import os
import stat

from argosy.errors import InvalidConfigError, LimitExceededError, StorageError
from argosy.layer.resolve import Resolver, open_root

__all__ = ["read_inside"]

_LINKS = 40
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def read_inside(root: str, path: str, limit: int) -> bytes | None:
    """A file below a root; None where there is none.

    Args:
        root: The root directory.
        path: The path in the container.
        limit: The most bytes it may have.

    Raises:
        InvalidConfigError: it is no regular file, or lies behind too many links.
        LimitExceededError: it is larger than `limit`.
        StorageError: it cannot be read.
    """
    unlock = os.geteuid() != 0
    try:
        top = open_root(root, unlock=unlock)
        try:
            file = _found(Resolver(top, unlock=unlock), os.fsencode(path))
        finally:
            os.close(top)
    except OSError as exc:
        raise StorageError(f"{path}: {os.strerror(exc.errno or 0).lower()}") from exc
    if file is None:
        return None
    with os.fdopen(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InvalidConfigError(f"{path}: expected a regular file in the image")
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise LimitExceededError(f"{path}: the image's file is over the limit of {limit} bytes")
    return data


def _found(resolver: Resolver, path: bytes) -> int | None:
    try:
        return _opened(resolver, path)
    finally:
        resolver.relock()


def _opened(resolver: Resolver, path: bytes) -> int | None:
    for _ in range(_LINKS):
        folder_path, _, base = path.strip(b"/").rpartition(b"/")
        try:
            folder = resolver.open(folder_path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return os.open(base, _FILE, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                raise InvalidConfigError(
                    f"{os.fsdecode(path)}: expected a regular file in the image"
                ) from None
            if exc.errno != errno.ELOOP:
                raise
            target = os.readlink(base, dir_fd=folder)
            # Above the root there is nothing: the resolver takes a leading `/` and every `..` from the root.
            path = target if target.startswith(b"/") else folder_path + b"/" + target
        finally:
            os.close(folder)
    raise InvalidConfigError(f"{os.fsdecode(path)}: lies behind more than {_LINKS} links")
