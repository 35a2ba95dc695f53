"""Header fields that a user has sent to a registry with every request: options, and Docker's `HttpHeaders`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from argosy.errors import InvalidConfigError, InvalidError, StorageError
from argosy.remote import authfile
from argosy.remote.http1 import HeadError, check_field

_OURS = frozenset((
    "accept-encoding", "connection", "content-length", "content-range", "expect", "host", "keep-alive", "range", "te",
    "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip
"""What a request says of itself: said otherwise, the next one would begin at another byte, or nothing be understood."""
_TABLE = "HttpHeaders"


def check(name: str, value: str) -> None:
    """Refuse what cannot go with every request.

    Raises:
        HeadError: why; its words do not have the value.

    >>> check("X-Meta-Team", "blue")
    """
    check_field(name, value)
    if name.lower() in _OURS:
        raise HeadError(f"{name} is what each request says of itself")


def written(files: Iterable[str]) -> dict[str, str]:
    """`HttpHeaders` of the first configuration file that has any, but for `User-Agent`: that would be Docker's.

    What cannot be read has none. Where a credential is looked for in it, that is told.

    Raises:
        InvalidConfigError: they are not what can be sent.
    """
    for path in files:
        document: Mapping[str, object] = {}
        with contextlib.suppress(InvalidError, StorageError):
            document = authfile.read(path)
        if found := authfile.table(document, _TABLE, path):
            return dict(_checked(found, f"{path}: {_TABLE}"))
    return {}


def _checked(found: Mapping[str, object], where: str) -> Iterator[tuple[str, str]]:
    for name, value in found.items():
        if not isinstance(value, str):
            raise InvalidConfigError(f"{where}: {name}: expected a string")
        try:
            check(name, value)
        except HeadError as exc:
            raise InvalidConfigError(f"{where}: {exc}") from None
        if name.lower() != "user-agent":
            yield name, value


def merged(*groups: Mapping[str, str]) -> dict[str, str]:
    """Header fields of several sources; of one name, however it is written, the last.

    >>> merged({"User-Agent": "argosy", "A": "b"}, {"user-agent": "mine"})
    {'user-agent': 'mine', 'A': 'b'}
    """
    fields = {name.lower(): (name, value) for group in groups for name, value in group.items()}
    return dict(fields.values())
