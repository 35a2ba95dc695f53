"""Short names as containers-registries.conf(5) has them: aliases, and registries that are searched.

Nobody is asked behind the user's back: a name that several registries could mean is an error that names them, as in
the manual's mode `enforcing` without a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from argosy.errors import InvalidConfigError, InvalidReferenceError
from argosy.remote.config import read_toml


class ShortNames:
    """What names without a registry stand for.

    Args:
        aliases: Short name → name with its registry, both without tag and digest.
        search: Registries in which other names are looked for (`unqualified-search-registries`).

    Example:
        >>> names = ShortNames({"fedora": "registry.fedoraproject.org/fedora"}, ["quay.io"])
        >>> names.expand("fedora:41"), names.expand("team/app"), names.expand("ghcr.io/a/b")
        ('registry.fedoraproject.org/fedora:41', 'quay.io/team/app', 'ghcr.io/a/b')
    """

    def __init__(self, aliases: Mapping[str, str], search: Sequence[str]) -> None:
        self.aliases, self.search = dict(aliases), tuple(search)

    @classmethod
    def read(cls, files: Sequence[str]) -> Self:
        """Read configuration files; what a later file says wins, and an empty alias takes one away.

        Raises:
            InvalidConfigError: a file is not TOML, of version 1, or holds something of the wrong kind.
        """
        aliases: dict[str, str] = {}
        search: list[str] = []
        for path in files:
            document = read_toml(path)
            found, listed = document.get("aliases", {}), document.get(_SEARCH, search)
            if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
                raise InvalidConfigError(f"{path}: aliases: expected a table of names")
            if not isinstance(listed, list) or not all(isinstance(v, str) for v in listed):
                raise InvalidConfigError(f"{path}: {_SEARCH}: expected an array of registries")
            aliases |= found
            search = listed
        return cls({name: value for name, value in aliases.items() if value}, search)

    def expand(self, text: str) -> str:
        """A reference with its registry; one that has it is given back.

        Raises:
            InvalidReferenceError: it could be in several registries, or in none that is configured.
        """
        name = text.partition("@")[0]
        head, slash, last = name.rpartition("/")
        name = f"{head}{slash}{last.partition(':')[0]}"
        first = name.partition("/")[0]
        if slash and ("." in first or ":" in first or first == "localhost"):
            return text
        if name in self.aliases:
            return self.aliases[name] + text[len(name) :]
        if len(self.search) == 1:
            return f"{self.search[0]}/{text}"
        if not self.search:
            raise InvalidReferenceError(
                f"{text[:200]!r} is a short name without an alias, and no registries are searched",
                hint=f"name the registry, or set {_SEARCH} in registries.conf",
            )
        raise InvalidReferenceError(
            f"{text[:200]!r} is a short name that could be in {', '.join(self.search)}",
            hint="name the registry, or give the name an alias in registries.conf",
        )


_SEARCH = "unqualified-search-registries"
