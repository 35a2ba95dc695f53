"""What is remembered of unfinished uploads, from one run to the next: a file for each, where the caller keeps them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from typing import IO

from argosy.errors import InvalidError, LimitExceededError
from argosy.spec import _json
from argosy.spec.descriptor import Descriptor

REMEMBERED = 4 * 1024 * 1024
"""Blobs of fewer bytes go with the request that ends their session (POST, PUT), and are not worth remembering. Larger
ones go before it (POST, one PATCH, PUT): registries keep what they got of a PATCH that broke, and little of a PUT."""
_MAX_AGE = 7 * 86400


class Memory:
    """Where one upload session is remembered; this one forgets.

    `location` is the session that an earlier run left, or an empty string; `least` the least bytes of its chunks.
    """

    location = ""
    least = 0

    def save(self, location: str, least: int = 0) -> None:
        """Remember a session."""

    def clear(self) -> None:
        """Forget it."""

    @property
    def lasting(self) -> bool:
        """Whether it is remembered after this process."""
        return False


class FileMemory(Memory):
    """One session in a file of its own, mode 0600: a location may hold a signature."""

    def __init__(self, path: str, location: str, least: int = 0) -> None:
        self._path, self.location, self.least = path, location, least

    @property
    def lasting(self) -> bool:
        """True."""
        return True

    def save(self, location: str, least: int = 0) -> None:
        """Replace the file; that it cannot be written is no reason to fail."""
        temporary = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(temporary, flags, 0o600)
            with os.fdopen(handle, "wb") as file:
                value = {"location": location, "least": least, "saved": int(time.time())}
                file.write(_json.dumps(value))
            os.replace(temporary, self._path)

    def clear(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)


@contextlib.contextmanager
def remembered(state_dir: str | None, repository: str, desc: Descriptor) -> Iterator[Memory]:
    """The memory of one blob's upload to one repository; forgetful where another process is at the same blob."""
    if not state_dir or desc.size < REMEMBERED:
        yield Memory()
        return
    key = hashlib.sha256(f"{repository}@{desc.digest}".encode()).hexdigest()
    path = os.path.join(state_dir, key)
    lock = _locked(state_dir, f"{path}.lock")
    try:
        yield FileMemory(path, *_saved(path)) if lock else Memory()
    finally:
        if lock:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.lock")
            lock.close()


def _locked(folder: str, path: str) -> IO[bytes] | None:
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 - it is held as long as the upload goes on
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino != os.fstat(file.fileno()).st_ino:
            raise OSError("removed by the process that had it")
    except OSError:
        file.close()
        return None
    return file


def _saved(path: str) -> tuple[str, int]:
    try:
        with open(path, "rb") as file:
            value = _json.loads_object(file.read(64 * 1024))
    except (OSError, InvalidError, LimitExceededError):
        return "", 0
    saved, location, least = (value.get(name) for name in ("saved", "location", "least"))
    fresh = isinstance(saved, int) and time.time() - saved < _MAX_AGE
    if not fresh or not isinstance(location, str):
        return "", 0
    return location, least if isinstance(least, int) else 0
