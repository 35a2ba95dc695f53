"""Where a user's own data is."""

from __future__ import annotations

import os

from argosy.errors import StorageError


def data(instead: str) -> str:
    """The directory of the user's data.

    Args:
        instead: What else may be given to name a place, for who has no home: a service, or a number without a name.

    Raises:
        StorageError: there is none. As a path, a `~` that nobody knows would be a directory of that name.
    """
    if base := os.environ.get("XDG_DATA_HOME"):
        return base
    home = os.path.expanduser("~")
    if home == "~":
        raise StorageError(
            f"user {os.getuid()} has no home: HOME is not set, and the users' database has none",
            hint=f"set HOME, or {instead}",
        )
    return os.path.join(home, ".local", "share")
