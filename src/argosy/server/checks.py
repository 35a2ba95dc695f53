"""What keeps settings from being served, found without serving them: files that are wrong, doors that lead nowhere."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator

from argosy.errors import InvalidConfigError, StorageError
from argosy.server import certificates
from argosy.server.auth import gate, htpasswd, issuers, policy, tokens
from argosy.server.config import is_open, require_access
from argosy.server.settings import Settings
from argosy.server.storage.disk import Temporary

__all__ = ["problems"]


def problems(settings: Settings) -> list[str]:
    """Everything that `serve` would refuse, each with the path of its property; the files that are named are read.

    Nothing that stays is made, and nobody is asked: whether a database or a bucket answers is not looked at.

    >>> problems(Settings())
    []
    """
    found = []
    for key, check in _checks(settings):
        try:
            check()
        except (InvalidConfigError, StorageError) as exc:
            hint = f" ({exc.hint})" if exc.hint else ""
            found.append(f"{key}: {exc}{hint}")
    return found


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], object]]]:
    if settings.listen.tls is not None:
        yield "listen.tls", functools.partial(certificates.Copy, settings.listen.tls)
    if settings.storage.temporary is not None:
        yield "storage.temporary", Temporary.of(settings).check
    yield "listen.host", functools.partial(require_access, settings)
    if is_open(settings):
        return
    access = settings.access
    if access.htpasswd is not None:
        yield "access.htpasswd", functools.partial(htpasswd.parse, access.htpasswd)
    if access.policy is not None:
        yield "access.policy", functools.partial(policy.Policy.load, access.policy)
    yield "access.issuers", functools.partial(issuers.Issuers, access.issuers)
    key = access.tokens.key
    if key is None:
        yield "access.tokens.key", functools.partial(gate.require_key, settings)
    elif os.path.exists(key):  # else it is made when it is needed
        yield "access.tokens.key", functools.partial(tokens.load_key, key)
