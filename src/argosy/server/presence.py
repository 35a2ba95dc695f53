"""Who is alive: each worker holds a lock on a file of its own, which the kernel lets go when the process dies.

What a dead worker held (the lease of an upload) can be taken over at once by its successor, instead of when it runs
out. A worker of another machine, whose files are not here, counts as alive.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import time

_NAME = re.compile(r"[0-9a-f]{32}")
_OLD = 3600.0


class Presence:
    """This worker's file, and those of the others over the same data directory.

    Example:
        >>> import tempfile
        >>> data = tempfile.mkdtemp()
        >>> one, two = Presence(), Presence()
        >>> one.begin(data); two.begin(data)
        >>> two.is_gone(one.name)
        False
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._folder = ""
        self._fd = -1

    def begin(self, data: str | None) -> None:
        """Say that this worker lives, in `<data>/workers`; without such a directory nobody can tell.

        Args:
            data: The data directory.
        """
        if data is None:
            return
        self._folder = os.path.join(data, "workers")
        name = secrets.token_hex(16)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            self._fd = os.open(os.path.join(self._folder, name), flags, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.name = name
            self._sweep()

    def end(self) -> None:
        """Say goodbye."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.name is not None:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, self.name))
            self.name = None

    def is_gone(self, name: str | None) -> bool:
        """Whether a worker has surely died. Whom nothing is known of lives."""
        if name is None or not self._folder or not _NAME.fullmatch(name):
            return False
        try:
            fd = os.open(os.path.join(self._folder, name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def _sweep(self) -> None:
        """Forget the dead of whom no lease can be left."""
        before = time.time() - _OLD
        for entry in os.scandir(self._folder):
            if entry.stat().st_mtime < before and self.is_gone(entry.name):
                os.unlink(entry.path)
