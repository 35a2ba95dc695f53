"""Users and their passwords, as Apache's `htpasswd -B` writes them.

Only bcrypt is taken: the other schemes of that file are broken or too cheap. A wrong user costs as much time as a
wrong password. A password that was right is remembered as a keyed hash, so that not every request pays for bcrypt;
it is forgotten when the file's entry changes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping

import bcrypt

from argosy.errors import InvalidConfigError
from argosy.server.auth.watched import Watched, read_limited

__all__ = ["Htpasswd", "parse"]

_PREFIXES = (b"$2a$", b"$2b$", b"$2y$")
_MAX_PASSWORD = 72
_REMEMBERED = 1024


def parse(path: str) -> Mapping[str, bytes]:
    """The users of a file, with their hashes.

    Raises:
        InvalidConfigError: a line is not `user:hash`, a user is there twice, or a hash is not bcrypt.
    """
    users: dict[str, bytes] = {}
    for number, raw in enumerate(read_limited(path).splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        name, colon, hashed = line.partition(b":")
        if not colon or not name:
            raise InvalidConfigError(f"{path}:{number}: expected user:hash")
        try:
            user = name.decode()
        except UnicodeDecodeError:
            raise InvalidConfigError(f"{path}:{number}: the user's name is not UTF-8") from None
        if user in users:
            raise InvalidConfigError(f"{path}:{number}: user {user!r} is there twice")
        if not _is_bcrypt(hashed):
            raise InvalidConfigError(
                f"{path}:{number}: user {user!r}: expected a bcrypt hash",
                hint="make one with htpasswd -B",
            )
        users[user] = hashed
    return users


def _is_bcrypt(hashed: bytes) -> bool:
    if not hashed.startswith(_PREFIXES) or len(hashed) != 60:
        return False
    try:
        bcrypt.checkpw(b"", hashed[:4] + b"04" + hashed[6:])
    except ValueError:
        return False
    return hashed[4:6].isdigit() and 4 <= int(hashed[4:6]) <= 31


class Htpasswd:
    """Says whether a password is right. Blocking: bcrypt takes tens of milliseconds and lets other threads run."""

    def __init__(self, path: str) -> None:
        self._users = Watched(path, parse)
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, user: str) -> bool:
        """Whether there is such a user now."""
        return user in self._users.get()

    def remembered(self, user: str, password: str) -> bool:
        """Whether this very password was right before, for the entry that holds now. Takes microseconds."""
        hashed = self._users.get().get(user)
        mark = self._mark(user, password)
        with self._lock:
            return hashed is not None and self._right.get(mark) == hashed

    def check(self, user: str, password: str) -> bool:
        """Whether the password is the user's. An unknown user takes as long as a wrong password."""
        users = self._users.get()
        hashed = users.get(user)
        secret = password.encode()[:_MAX_PASSWORD]
        right = bcrypt.checkpw(secret, hashed or _like(users))
        if hashed is None or not right:
            return False
        with self._lock:
            self._right[self._mark(user, password)] = hashed
            while len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)
        return True

    def _mark(self, user: str, password: str) -> bytes:
        name = user.encode()
        message = len(name).to_bytes(8, "big") + name + password.encode()
        return hmac.digest(self._key, message, hashlib.sha256)


def _like(users: Mapping[str, bytes]) -> bytes:
    """A hash nobody's password has, as costly as the file's first one."""
    some = next(iter(users.values()), b"$2b$10$" + b"." * 53)
    return some[:7] + b"." * 22 + b"u" * 31
