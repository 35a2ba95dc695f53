"""The policy file: who may do what where, which tags stay as they are, and which are let go.

    groups:
      devs: [alice, bob]
    rules:
      - repositories: ["team/**"]
        groups: [devs]
        allow: [pull, push]
      - repositories: ["**"]
        anonymous: true
        allow: [pull]
    immutable:
      - repositories: ["**"]
        tags: ["v*"]
    retention:
      - repositories: ["ci/**"]
        keep_last: 10

What no rule allows is refused; rules only add. In patterns `*` stands for anything but `/`, `**` for anything, `?` for
one character but `/`. `push` is `create` and `update` together: `create` alone uploads and makes new tags, and never
moves one. `admin` is everything, but immutable tags are immutable for admins, too.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from argosy.errors import DeniedError
from argosy.server import config
from argosy.server.auth.watched import read_limited

__all__ = ["Policy", "Retention", "Rule", "TagRule", "glob"]

VERBS = ("pull", "push", "create", "update", "delete", "admin")
_IMPLIED = {
    "push": ("create", "update"),
    "admin": ("pull", "create", "update", "delete"),
}

_PATTERNS = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
_NAMES = {"type": "array", "items": {"type": "string", "minLength": 1}}


def _object(required: tuple[str, ...], **properties: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _list(item: dict[str, object]) -> dict[str, object]:
    return {"type": "array", "items": item}


SCHEMA: Mapping[str, object] = _object(
    (),
    groups={"type": "object", "additionalProperties": _NAMES},
    rules=_list(
        _object(
            ("repositories", "allow"),
            repositories=_PATTERNS,
            users=_NAMES,
            groups=_NAMES,
            anonymous={"type": "boolean"},
            allow={"type": "array", "items": {"enum": list(VERBS)}, "minItems": 1},
        )
    ),
    immutable=_list(
        _object(("repositories", "tags"), repositories=_PATTERNS, tags=_PATTERNS, exclude=_PATTERNS)
    ),
    retention=_list(
        _object(
            ("repositories",),
            repositories=_PATTERNS,
            tags=_PATTERNS,
            keep=_PATTERNS,
            keep_last={"type": "integer", "minimum": 0},
            keep_days={"type": "number", "minimum": 0},
        )
        | {"anyOf": [{"required": ["keep_last"]}, {"required": ["keep_days"]}]}
    ),
)
"""The JSON Schema of the policy file."""


@functools.lru_cache(4096)
def glob(pattern: str) -> re.Pattern[str]:
    """A pattern, compiled. Between two `**`, and after a `*`, the first place that fits is as good as any other: there
    is no going back behind it, so that no name takes longer than the square of its length.

    >>> [bool(glob("team/*").fullmatch(n)) for n in ("team/a", "team/a/b", "teams/a")]
    [True, False, False]
    """
    *parts, last = pattern.split("**")
    first, *between = [_of_chunks(part.split("*")) for part in parts] or [""]
    *chunks, end = last.split("*")
    text = first + "".join(f"(?>.*?{part})" for part in between) + (".*" if parts else "")
    text += _of_chunks(chunks) + ("[^/]*" if chunks else "") + _of_chunks([end])
    return re.compile(text, re.DOTALL)


def _of_chunks(chunks: Sequence[str]) -> str:
    """What stands between `*`, each at the first place where it fits behind the one before."""
    texts = [re.escape(chunk).replace(r"\?", "[^/]") for chunk in chunks]
    return "".join(texts[:1]) + "".join(f"(?>[^/]*?{text})" for text in texts[1:])


def matches(patterns: tuple[str, ...], text: str) -> bool:
    """Whether one of the patterns fits the whole text."""
    return any(glob(pattern).fullmatch(text) for pattern in patterns)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may do what in which repositories. The user `*` is everybody who has said who they are."""

    repositories: tuple[str, ...]
    allow: frozenset[str]
    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    anonymous: bool = False

    def speaks_of(self, user: str, groups: frozenset[str]) -> bool:
        """Whether the rule is about this principal."""
        if not user:
            return self.anonymous
        return (
            self.anonymous or user in self.users or "*" in self.users or bool(groups & self.groups)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TagRule:
    """Tags that may be made and then neither moved nor deleted."""

    repositories: tuple[str, ...]
    tags: tuple[str, ...]
    exclude: tuple[str, ...] = ()

    def holds(self, repository: str, tag: str) -> bool:
        """Whether it is about this tag."""
        return (
            matches(self.repositories, repository)
            and matches(self.tags, tag)
            and not matches(self.exclude, tag)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Tags that are let go, unless one of the reasons to keep them holds."""

    repositories: tuple[str, ...]
    tags: tuple[str, ...] = ("**",)
    keep: tuple[str, ...] = ()
    keep_last: int | None = None
    keep_days: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy file, read."""

    rules: tuple[Rule, ...] = ()
    members: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    immutable: tuple[TagRule, ...] = ()
    retention: tuple[Retention, ...] = ()

    @classmethod
    def load(cls, path: str) -> Policy:
        """Read a policy file.

        Raises:
            InvalidConfigError: it cannot be read or breaks the schema; the message says where.
        """
        text = read_limited(path).decode("utf-8", "replace")
        document, lines = config.parse_yaml(text, path)
        return cls.decode({} if document is None else document, path, lines)

    @classmethod
    def decode(
        cls,
        document: Any,
        where: str = "policy",
        lines: Mapping[tuple[str, ...], int] | None = None,
    ) -> Policy:
        """A policy from a decoded document.

        Raises:
            InvalidConfigError: it breaks the schema.

        >>> policy = Policy.decode({"rules": [{"repositories": ["a/*"], "users": ["ann"], "allow": ["pull"]}]})
        >>> sorted(policy.rights("ann", frozenset(), "a/b")), sorted(policy.rights("bob", frozenset(), "a/b"))
        (['pull'], [])
        """
        config.validate(document, SCHEMA, where, lines)
        return cls(
            rules=tuple(_rule(entry) for entry in document.get("rules", ())),
            members=_members(document.get("groups", {})),
            immutable=tuple(TagRule(**_tuples(entry)) for entry in document.get("immutable", ())),
            retention=tuple(Retention(**_tuples(entry)) for entry in document.get("retention", ())),
        )

    def rights(self, user: str, groups: frozenset[str], repository: str) -> frozenset[str]:
        """The verbs somebody has in a repository: of `pull`, `create`, `update`, `delete`, `admin`."""
        mine = groups | self.members.get(user, frozenset()) if user else frozenset()
        return frozenset[str]().union(
            *(
                rule.allow
                for rule in self.rules
                if rule.speaks_of(user, mine) and matches(rule.repositories, repository)
            )
        )

    def is_admin(self, user: str, groups: frozenset[str]) -> bool:
        """Whether somebody is an admin of all repositories."""
        mine = groups | self.members.get(user, frozenset())
        return bool(user) and any(
            "admin" in rule.allow and "**" in rule.repositories and rule.speaks_of(user, mine)
            for rule in self.rules
        )

    def speaks_of_anybody(self, user: str, groups: frozenset[str]) -> bool:
        """Whether any rule at all is about this principal."""
        mine = groups | self.members.get(user, frozenset()) if user else frozenset()
        return any(rule.speaks_of(user, mine) for rule in self.rules)

    def is_immutable(self, repository: str, tag: str) -> bool:
        """Whether a tag that is there must stay as it is."""
        return any(rule.holds(repository, tag) for rule in self.immutable)

    def check_tag(
        self, rights: frozenset[str], repository: str, tag: str, old: str | None, new: str | None
    ) -> None:
        """Whether a tag may go from one digest to another (None: no such tag), for somebody with these rights.

        Raises:
            DeniedError: it may not.
        """
        if old is not None and old != new and self.is_immutable(repository, tag):
            raise DeniedError(f"tag {tag} of {repository} is immutable")
        verb = "create" if old is None else "delete" if new is None else "update"
        if old != new and verb not in rights:
            raise DeniedError(f"{verb} of tag {tag} of {repository} is not allowed")


def _rule(entry: Mapping[str, Any]) -> Rule:
    allow = frozenset(entry["allow"])
    implied = frozenset(verb for given in allow for verb in _IMPLIED.get(given, ()))
    return Rule(
        repositories=tuple(entry["repositories"]),
        allow=(allow | implied) - {"push"},
        users=frozenset(entry.get("users", ())),
        groups=frozenset(entry.get("groups", ())),
        anonymous=entry.get("anonymous", False),
    )


def _members(groups: Mapping[str, list[str]]) -> Mapping[str, frozenset[str]]:
    """From a user to their groups."""
    users = {user for listed in groups.values() for user in listed}
    return {user: frozenset(g for g, listed in groups.items() if user in listed) for user in users}


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
