"""Scopes of the token protocol: `repository:<name>:<action>,<action>` and `registry:catalog:*`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from argosy.errors import InvalidError, InvalidNameError, UsageError
from argosy.spec.reference import parse_name

__all__ = ["CATALOG", "Grants", "covers", "decode_access", "encode_access", "parse_scopes"]

Grants = Mapping[str, frozenset[str]]
"""From a repository's name (or `CATALOG`) to the actions that are granted there."""

CATALOG = "registry:catalog"
"""The key of the right to list repositories; no repository can have a colon in its name."""

ACTIONS = frozenset({"pull", "push", "delete", "*"})
MAX_SCOPES = 100
MAX_LENGTH = 16 * 1024


def parse_scopes(texts: Iterable[str]) -> Grants:
    """What some scope parameters ask for; each may hold several, separated by spaces. Unknown types are left out.

    Raises:
        UsageError: too many.

    >>> parse_scopes(["repository:a/b:pull,push registry:catalog:*"]) == {
    ...     "a/b": frozenset({"pull", "push"}), CATALOG: frozenset({"*"})}
    True
    """
    asked: dict[str, frozenset[str]] = {}
    scopes = [scope for text in texts for scope in text.split()]
    if len(scopes) > MAX_SCOPES or sum(map(len, scopes)) > MAX_LENGTH:
        raise UsageError(f"scope: expected at most {MAX_SCOPES}")
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        key = _key(kind, name)
        if key is not None:
            asked[key] = asked.get(key, frozenset()) | (frozenset(actions.split(",")) & ACTIONS)
    return asked


def _key(kind: str, name: str) -> str | None:
    if kind == "registry" and name == "catalog":
        return CATALOG
    if kind.partition("(")[0] != "repository":
        return None
    try:
        return parse_name(name)
    except (InvalidNameError, InvalidError):
        return None


def encode_access(grants: Grants) -> list[dict[str, object]]:
    """The `access` claim of a token.

    >>> encode_access({"a": frozenset({"push", "pull"})})
    [{'type': 'repository', 'name': 'a', 'actions': ['pull', 'push']}]
    """
    return [
        {"type": "registry", "name": "catalog", "actions": sorted(actions)}
        if name == CATALOG
        else {"type": "repository", "name": name, "actions": sorted(actions)}
        for name, actions in sorted(grants.items())
        if actions
    ]


def decode_access(claim: object) -> Grants:
    """What an `access` claim grants; entries of another shape grant nothing."""
    granted: dict[str, frozenset[str]] = {}
    for entry in claim[:MAX_SCOPES] if isinstance(claim, list) else ():
        if not isinstance(entry, dict) or not isinstance(entry.get("actions"), list):
            continue
        key = _key(str(entry.get("type")), str(entry.get("name")))
        if key is not None:
            actions = frozenset(str(a) for a in entry["actions"]) & ACTIONS
            granted[key] = granted.get(key, frozenset()) | actions
    return granted


def covers(grants: Grants, verb: str, repository: str | None) -> bool:
    """Whether a token's grants hold for a verb of the route table.

    >>> covers({"a": frozenset({"push"})}, "pull", "a"), covers({"a": frozenset({"*"})}, "delete", "a")
    (False, True)
    """
    if repository is None:
        return verb == "catalog" and "*" in grants.get(CATALOG, ())
    actions = grants.get(repository, frozenset())
    return verb in actions or "*" in actions
