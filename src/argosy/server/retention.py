"""Retention: tags that are let go. It acts on tags alone; what they named is the collector's business, and another tag
of the same manifest keeps it.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from argosy.server.auth.policy import Policy, Retention, matches
from argosy.server.metadata import Metadata, Transaction, leases, manifests, repositories
from argosy.server.metadata.outbox import Change
from argosy.server.registry import Registry, log
from argosy.spec.reference import stands_for

__all__ = ["Doomed", "beside", "doomed", "janitor", "retain"]

_PAGE = 100
_LEASE_SECONDS = 3600.0
_PAUSE_SECONDS = 3600.0
_FAR_SECONDS = 86400.0
_ALONE_SECONDS = 86400.0
"""How long a signature or a list of referrers may wait for the manifest that it is about: it may be pushed first."""


class TagAge(NamedTuple):
    """A tag, the digest it names, and when it was last set, in seconds since the epoch."""

    name: str
    digest: str
    updated: float


class Doomed(NamedTuple):
    """A tag to be let go."""

    repository: str
    tag: str
    digest: str


def doomed(rule: Retention, tags: Iterable[TagAge], now: float) -> list[TagAge]:
    """The tags of one repository a rule lets go: those it speaks of and has no reason to keep.

    Tags like `sha256-<hex>.sig` must not be among them: see `beside`.

    >>> tags = [TagAge("v1", "d", 1.0), TagAge("v2", "d", 2.0), TagAge("latest", "d", 0.0)]
    >>> rule = Retention(repositories=("**",), keep=("latest",), keep_last=1)
    >>> [tag.name for tag in doomed(rule, tags, 100.0)]
    ['v1']
    """
    newest_first = sorted(_spoken_of(rule, tags), key=lambda t: (-t.updated, t.name))
    old = newest_first[rule.keep_last :]
    if rule.keep_days is not None:
        old = [t for t in old if now - t.updated > rule.keep_days * 86400.0]
    return old


def beside(
    rule: Retention, tags: Iterable[TagAge], held: Iterable[str], now: float
) -> list[TagAge]:
    """The tags with a digest in their name that a rule lets go: those of manifests that are gone, and a day old.

    A signature or a list of referrers is no image. It is not counted, has no age of its own, and goes after the last
    it is about; a rule that does not speak of it leaves it for ever.

    Args:
        rule: The rule.
        tags: Tags with a digest in their name.
        held: The digests of the repository's manifests.
        now: Seconds since the epoch.

    >>> tags = [TagAge("sha256-" + 64 * n + ".sig", "d", 0.0) for n in "ab"]
    >>> rule = Retention(repositories=("**",), keep_last=0)
    >>> beside(rule, tags, ["sha256:" + 64 * "a"], 1e9) == tags[1:]
    True
    """
    subjects = {(algorithm, encoded[:64]) for algorithm, encoded in (d.split(":", 1) for d in held)}
    return [
        tag
        for tag in _spoken_of(rule, tags)
        if now - tag.updated > _ALONE_SECONDS and _subject(tag) not in subjects
    ]


def _spoken_of(rule: Retention, tags: Iterable[TagAge]) -> Iterator[TagAge]:
    return (t for t in tags if matches(rule.tags, t.name) and not matches(rule.keep, t.name))


def _subject(tag: TagAge) -> tuple[str, str] | None:
    found = stands_for(tag.name)
    return (found[0], found[1][:64]) if found else None


async def retain(
    metadata: Metadata, policy: Policy, change: Change, *, dry_run: bool = False
) -> list[Doomed]:
    """Let go what the policy's rules let go, some repositories at a time; judged on a thread, for tags may be many.

    Args:
        metadata: The database.
        policy: Where the rules are. Immutable tags stay, whatever a rule says.
        change: When, and for whom.
        dry_run: Only tell.

    Returns:
        What went, or would go.
    """
    gone: list[Doomed] = []
    last: str | None = "" if policy.retention else None
    while last is not None:
        last, found = await metadata.read(
            lambda tx, after=last: _judged(tx, policy, after, change.now),  # type: ignore[misc]
            slow=True,
        )
        gone += [
            Doomed(name, tag.name, tag.digest)
            for name, tag in found
            if dry_run or await _let_go(metadata, change, name, tag)
        ]
    return gone


def _judged(
    tx: Transaction, policy: Policy, after: str, now: float
) -> tuple[str | None, list[tuple[str, TagAge]]]:
    """What goes of some repositories, and the last of them; None where there are no more."""
    names = repositories.page(tx, after, _PAGE)
    found = [(name, tag) for name in names for tag in _doomed_of(tx, policy, name, now)]
    return names[-1] if names else None, found


def _doomed_of(tx: Transaction, policy: Policy, name: str, now: float) -> list[TagAge]:
    """What no rule that speaks of it has a reason to keep."""
    rules = [rule for rule in policy.retention if matches(rule.repositories, name)]
    if not rules:
        return []
    tags = list(_tags(tx, name))
    images = [tag for tag in tags if _subject(tag) is None]
    others = [tag for tag in tags if _subject(tag) is not None]
    held = _held(tx, name) if others else []
    gone: set[TagAge] = set()
    kept: set[TagAge] = set()
    for rule in rules:
        doomed_now = {*doomed(rule, images, now), *beside(rule, others, held, now)}
        gone |= doomed_now
        kept |= {tag for tag in tags if matches(rule.tags, tag.name)} - doomed_now
    return [tag for tag in sorted(gone - kept) if not policy.is_immutable(name, tag.name)]


def _tags(tx: Transaction, name: str) -> Iterator[TagAge]:
    rows = tx.rows(
        "SELECT t.name, t.digest, t.updated FROM repository r JOIN tag t ON t.repo_id = r.id"
        " WHERE r.name = ? ORDER BY t.name",
        (name,),
    )
    return (TagAge(*row) for row in rows)


def _held(tx: Transaction, name: str) -> list[str]:
    rows = tx.rows(
        "SELECT m.digest FROM repository r JOIN manifest m ON m.repo_id = r.id WHERE r.name = ?",
        (name,),
    )
    return [row[0] for row in rows]


async def _let_go(metadata: Metadata, change: Change, name: str, tag: TagAge) -> bool:
    """Delete a tag, unless it was moved, set again or deleted since it was judged."""

    def work(tx: Transaction) -> bool:
        is_same = tx.row(_SAME, (name, *tag)) is not None
        if is_same:
            manifests.delete_tag(tx, change, name, tag.name)
        return is_same

    return await metadata.write(work)


_SAME = (
    "SELECT 1 FROM tag WHERE repo_id = (SELECT id FROM repository WHERE name = ?)"
    " AND name = ? AND digest = ? AND updated = ?"
)


def janitor(policy: Callable[[], Policy]) -> Callable[[Registry], Awaitable[None]]:
    """The background task: every hour, on one replica.

    Args:
        policy: The policy that holds when it is called.
    """
    holder = secrets.token_hex(8)

    async def run(registry: Registry) -> None:
        while True:
            await _clean(registry, policy(), holder)
            await asyncio.sleep(_PAUSE_SECONDS)

    return run


async def _clean(registry: Registry, policy: Policy, holder: str) -> None:
    now, rules = registry.clock(), registry.settings.gc
    if not policy.retention:
        return
    far = await registry.write(functools.partial(_far, holder, now), durable=False)
    if far:
        log.warning(
            "retention waits for an hour: the clock is %.1f days away from where it was at the last look",
            far / 86400.0,
        )
    elif far is not None:
        change = Change(now, rules.grace_seconds, "retention", "", rules.trash_seconds)
        await retain(registry.metadata, policy, change)


def _far(holder: str, now: float, tx: Transaction) -> float | None:
    """Seconds between this look and the last one, 0 where they are no more than a day; None where another replica has
    the lease. A clock that jumps makes everything old: it is believed when it has gone on from there for an hour."""
    if not leases.take(tx, "retention", holder, now, _LEASE_SECONDS):
        return None
    last = float(repositories.setting(tx, "retention_looked") or now)
    repositories.set_setting(tx, "retention_looked", repr(now))
    return now - last if abs(now - last) > _FAR_SECONDS else 0.0
