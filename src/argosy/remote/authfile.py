"""A file of credentials (containers-auth.json(5), Docker's config.json): read, and written in one step.

Who changes one does so inside `alone`: two who read it at once would each write it without what the other added.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from argosy.errors import InvalidConfigError, InvalidError, LimitExceededError, StorageError
from argosy.spec import _json

MAX_FILE = 4 * 1024 * 1024
_PATIENCE = 10.0
"""Seconds to wait for who is changing a file."""


def read(path: str) -> dict[str, Any]:
    """A file's document; empty where there is no file. The flat `.dockercfg` is put into today's form.

    Raises:
        InvalidConfigError: it is not JSON, or no object.
        StorageError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as exc:
        raise _failed(path, exc) from None
    if not raw.strip():
        return {}
    try:
        document = _json.loads_object(raw, limit=MAX_FILE, error=InvalidConfigError)
    except (InvalidError, LimitExceededError) as exc:
        raise InvalidConfigError(f"{path}: {exc}") from None
    if os.path.basename(path) == ".dockercfg" and "auths" not in document:
        return {"auths": document}
    return document


def table(document: Mapping[str, Any], name: str, path: str) -> dict[str, Any]:
    """An object of a document; empty where there is none.

    Raises:
        InvalidConfigError: it is something else.
    """
    value = document.get(name)
    if value is not None and not isinstance(value, dict):  # Go writes null for a map of nothing
        raise InvalidConfigError(f"{path}: {name}: expected an object")
    return value or {}


def text(value: Any, where: str) -> str:
    """A string of a document; empty where there is none, or null.

    Raises:
        InvalidConfigError: it is something else; the message says where.
    """
    return "" if value is None else str(_json.STRING.decode(value, where, InvalidConfigError))


def store(document: Mapping[str, Any], path: str) -> str:
    """The name of the helper that keeps what no other does, if any.

    Raises:
        InvalidConfigError: it is something else.
    """
    return text(document.get("credsStore"), f"{path}: credsStore")


def helper(value: Any, key: str, path: str) -> str:
    """The name of the helper that keeps a registry's credentials; empty where it is the file.

    Raises:
        InvalidConfigError: it is something else.
    """
    return text(value, f"{path}: credHelpers[{key!r}]")


def pair(auth: str, place: str) -> tuple[str, str]:
    """User name and password of an `auth`; hands and programs leave out the padding and break its lines.

    Raises:
        InvalidConfigError: it is not Base 64, or has no colon inside.
    """
    packed = re.sub(r"[ \t-\r]", "", auth)
    try:
        plain = binascii.a2b_base64(packed + "=" * (-len(packed) % 4), strict_mode=True).decode()
    except ValueError:
        raise InvalidConfigError(f"{place}: not Base 64") from None
    username, colon, password = plain.rstrip("\0").partition(":")
    if not colon:
        raise InvalidConfigError(f"{place}: expected user:password inside")
    return username, password


@contextlib.contextmanager
def alone(path: str, *, make: bool = False) -> Iterator[None]:
    """Keep other threads and processes that change a file's folder waiting, if they can be.

    Where there are no locks it is hoped for, and so it is after some seconds: whoever may open the folder can keep
    its lock.

    Args:
        path: The file.
        make: Whether to make its folder, mode 0700, where there is none.

    Raises:
        StorageError: the folder cannot be made.
    """
    folder = os.path.dirname(os.path.realpath(path))
    try:
        if make:
            os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as exc:
        raise _failed(path, exc) from None
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            _lock(fd, time.monotonic() + _PATIENCE)
        yield


def _lock(fd: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def write(path: str, document: Mapping[str, Any]) -> None:
    """Replace a file in a folder that is there in one step, mode 0600; of a symbolic link, its target.

    Raises:
        StorageError: it cannot be written.
    """
    target = os.path.realpath(path)
    if os.path.lexists(target) and not os.path.isfile(target):
        # REGISTRY_AUTH_FILE=/dev/null reads as no credentials; written, there would be no /dev/null any more
        raise StorageError(f"{path}: expected a regular file")
    folder = os.path.dirname(target)
    if os.path.basename(target) == ".dockercfg" and set(document) <= {"auths"}:
        document = document.get("auths", {})
    try:
        temporary = os.path.join(folder, f".argosy-auth-{os.getpid()}-{os.urandom(8).hex()}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_json.dumps(document, indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as exc:
        raise _failed(path, exc) from None


def _failed(path: str, exc: OSError) -> StorageError:
    elsewhere = "name another file with --authfile or REGISTRY_AUTH_FILE"
    barred = exc.errno in {errno.EACCES, errno.EPERM, errno.EROFS}
    return StorageError(f"{path}: {exc.strerror}", hint=elsewhere if barred else None)
