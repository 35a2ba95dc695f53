"""Manifests, tags and referrers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from argosy.errors import (
    ConflictError,
    InvalidManifestError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
)
from argosy.server.access import TagGuard
from argosy.server.metadata import Transaction, outbox
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.repositories import review
from argosy.spec import _json

_BATCH = 500


class Stored(NamedTuple):
    """A manifest of a repository, without its bytes."""

    repo_id: int
    digest: str
    media_type: str
    size: int


class Reference(NamedTuple):
    """What a manifest refers to: `kind` is 'blob' or 'manifest'; an optional one may be missing (foreign layers)."""

    kind: str
    target: str
    optional: bool = False


class New(NamedTuple):
    """A manifest to store: checked, its digest computed over `content`.

    `problems` are what it does against the advice of the image-spec; they are told, and not stored.
    """

    digest: str
    media_type: str
    content: bytes
    subject: str | None
    artifact_type: str | None
    annotations: dict[str, str]
    references: tuple[Reference, ...]
    problems: tuple[str, ...] = ()


class Referrer(NamedTuple):
    """One entry of a referrers list, without its annotations: `noted` are the bytes they have as JSON."""

    digest: str
    media_type: str
    size: int
    artifact_type: str | None
    noted: int


Precondition = Callable[[str | None], bool]
"""Given the digest a reference has now (None: it is not there), whether the request may go on."""


# -- reading --------------------------------------------------------------------------------------

# Subqueries, not joins: SQLite answers them in a third of the time.
_BY_DIGEST = (
    "SELECT repo_id, digest, media_type, size FROM manifest"
    " WHERE repo_id = (SELECT id FROM repository WHERE name = ?) AND digest = ?"
)
_BY_TAG = (
    "SELECT repo_id, digest, media_type, size FROM manifest WHERE (repo_id, digest) ="
    " (SELECT t.repo_id, t.digest FROM tag t"
    " WHERE t.repo_id = (SELECT id FROM repository WHERE name = ?) AND t.name = ?)"
)


def find(tx: Transaction, name: str, tag_or_digest: str) -> Stored | None:
    """What a tag or a digest names in a repository."""
    found = tx.row(_BY_DIGEST if ":" in tag_or_digest else _BY_TAG, (name, tag_or_digest))
    return Stored(*found) if found else None


def content(tx: Transaction, stored: Stored) -> bytes | None:
    """The exact bytes, or None where it was deleted this moment."""
    found = tx.row(
        "SELECT content FROM manifest_body WHERE repo_id = ? AND digest = ?",
        (stored.repo_id, stored.digest),
    )
    return bytes(found[0]) if found else None


def is_wanted(tx: Transaction, repo_id: int, digest: str) -> bool:
    """Whether a manifest has a tag, an index that lists it, or a subject that is there."""
    return any(tx.row(query, (repo_id, digest)) is not None for query in _WANTED)


_OF_SUBJECT = (
    "SELECT 1 FROM manifest WHERE (repo_id, digest) ="
    " (SELECT repo_id, subject FROM manifest WHERE repo_id = ? AND digest = ?)"
)
_WANTED = (
    "SELECT 1 FROM tag WHERE repo_id = ? AND digest = ? LIMIT 1",
    "SELECT 1 FROM manifest_ref WHERE repo_id = ? AND target = ? AND kind = 'manifest' LIMIT 1",
    _OF_SUBJECT,
)


def referrers(
    tx: Transaction, name: str, subject: str, artifact_type: str | None, last: str, limit: int
) -> list[Referrer]:
    """Manifests whose subject this is, by digest, after `last`.

    The repository is a value to the planner, not a table it joins: so PostgreSQL, too, takes a page out of the index,
    and does not sort all there are for each.
    """
    wanted = " AND m.artifact_type = ?" if artifact_type is not None else ""
    rows = tx.rows(
        "SELECT m.digest, m.media_type, m.size, m.artifact_type,"  # noqa: S608
        " COALESCE((SELECT octet_length(b.annotations) FROM manifest_body b"
        " WHERE b.repo_id = m.repo_id AND b.digest = m.digest), 0) FROM manifest m"
        f" WHERE m.repo_id = (SELECT id FROM repository WHERE name = ?) AND m.subject = ?{wanted}"
        " AND m.digest > ? ORDER BY m.digest LIMIT ?",
        (name, subject, *([artifact_type] if artifact_type is not None else []), last, limit),
    )
    return [Referrer(*row) for row in rows]


def annotations_of(tx: Transaction, name: str, digests: Sequence[str]) -> dict[str, bytes]:
    """The annotations of some manifests as JSON, in UTF-8; one without any, or that has gone, is not in it."""
    found: dict[str, bytes] = {}
    for at in range(0, len(digests), _BATCH):
        batch = digests[at : at + _BATCH]
        marks = ", ".join("?" * len(batch))
        rows = tx.rows(
            "SELECT digest, annotations FROM manifest_body"  # noqa: S608
            " WHERE repo_id = (SELECT id FROM repository WHERE name = ?)"
            f" AND annotations IS NOT NULL AND digest IN ({marks})",
            (name, *batch),
        )
        found.update((digest, text.encode()) for digest, text in rows)
    return found


# -- writing --------------------------------------------------------------------------------------


def put(
    tx: Transaction,
    change: Change,
    repo: tuple[int, str],
    new: New,
    tags: Sequence[str],
    *,
    sparse: bool = False,
    guard: TagGuard | None = None,
    precondition: Precondition | None = None,
) -> None:
    """Store a manifest and point tags at it, all or nothing. A precondition is of each tag, or of the manifest alone.

    Raises:
        ManifestBlobUnknownError: it refers to something that is not in the repository; all of it is named.
        InvalidManifestError: the repository has the same bytes under another type, which tags already serve.
        ConflictError: the precondition does not hold.
        DeniedError: the guard refuses a tag.
        ForeignKeyError: a blob was collected this moment.
    """
    repo_id, name = repo
    if precondition is not None:
        for reference in sorted(tags) or [new.digest]:
            _check(tx, repo_id, reference, precondition)
    present = _present(tx, repo_id, new.references)
    missing = sorted({r.target for r in new.references if not (r.optional or r.target in present)})
    if missing and not sparse:
        raise ManifestBlobUnknownError(
            f"manifest {new.digest} refers to what is not in {name}: {', '.join(missing[:10])}"
        )
    _insert(tx, change, repo_id, new, present)
    outbox.add(
        tx,
        change,
        outbox.MANIFEST_PUSHED,
        name,
        digest=new.digest,
        media_type=new.media_type,
        size=len(new.content),
    )
    for tag in sorted(set(tags)):
        set_tag(tx, change, repo, tag, new.digest, guard)
    if not tags:
        review(tx, repo_id, "manifest", new.digest, change.now + change.grace)


def _check(tx: Transaction, repo_id: int, reference: str, precondition: Precondition) -> None:
    table = "manifest WHERE repo_id = ? AND digest" if ":" in reference else _TAG_HAS
    found = tx.row(f"SELECT digest FROM {table} = ? /*pg FOR UPDATE*/", (repo_id, reference))  # noqa: S608
    if not precondition(found[0] if found else None):
        raise not_as_seen(reference, is_there=found is not None)


def not_as_seen(reference: str, *, is_there: bool) -> ConflictError:
    """What a change is refused with. It does not say what is there: who may write need not be one who may read."""
    what = "is not what it should be" if is_there else "is not there"
    return ConflictError(f"{reference} {what}: the precondition does not hold")


_TAG_HAS = "tag WHERE repo_id = ? AND name"


def _present(tx: Transaction, repo_id: int, references: Sequence[Reference]) -> set[str]:
    """Which targets are in the repository, healthy."""
    present: set[str] = set()
    for kind, query in _QUERIES.items():
        wanted = sorted({r.target for r in references if r.kind == kind})
        for at in range(0, len(wanted), _BATCH):
            batch = wanted[at : at + _BATCH]
            marks = ", ".join("?" * len(batch))
            present.update(r[0] for r in tx.rows(query.replace("?*", marks), (repo_id, *batch)))
    return present


_QUERIES = {
    "blob": "SELECT l.digest FROM repo_blob l JOIN blob b ON b.digest = l.digest"
    " WHERE l.repo_id = ? AND b.state = 'ok' AND l.digest IN (?*)",
    "manifest": "SELECT digest FROM manifest WHERE repo_id = ? AND digest IN (?*)",
}


def _insert(tx: Transaction, change: Change, repo_id: int, new: New, present: set[str]) -> None:
    made = tx.row(
        "INSERT INTO manifest (repo_id, digest, media_type, size, subject, artifact_type,"
        " pushed, protected_until) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (repo_id, digest) DO NOTHING RETURNING 1",
        (
            repo_id,
            new.digest,
            new.media_type,
            len(new.content),
            new.subject,
            new.artifact_type,
            change.now,
            change.now + change.grace,
        ),
    )
    if made is None:
        _push_again(tx, change, repo_id, new)
        return
    noted = _json.dumps(new.annotations).decode() if new.annotations else None
    tx.rows(
        "INSERT INTO manifest_body (repo_id, digest, content, annotations) VALUES (?, ?, ?, ?)",
        (repo_id, new.digest, new.content, noted),
    )
    _insert_references(tx, repo_id, new, present)
    tx.rows(
        "UPDATE manifest_ref SET child = target"
        " WHERE repo_id = ? AND target = ? AND kind = 'manifest' AND child IS NULL",
        (repo_id, new.digest),
    )


def _push_again(tx: Transaction, change: Change, repo_id: int, new: New) -> None:
    """Start the grace of what is there again. Bytes that do not say their type keep the one they came with first."""
    same = tx.row(
        "UPDATE manifest SET artifact_type = ?, protected_until = ?"
        " WHERE repo_id = ? AND digest = ? AND media_type = ? RETURNING 1",
        (new.artifact_type, change.now + change.grace, repo_id, new.digest, new.media_type),
    )
    if same is None:
        raise InvalidManifestError(
            f"manifest {new.digest} is here under another media type than {new.media_type}"
        )


def _insert_references(tx: Transaction, repo_id: int, new: New, present: set[str]) -> None:
    for kind, target in sorted({(r.kind, r.target) for r in new.references}):
        there = target if target in present else None
        tx.rows(
            "INSERT INTO manifest_ref (repo_id, manifest, kind, target, blob, child)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                repo_id,
                new.digest,
                kind,
                target,
                there if kind == "blob" else None,
                there if kind == "manifest" else None,
            ),
        )


def set_tag(
    tx: Transaction,
    change: Change,
    repo: tuple[int, str],
    tag: str,
    digest: str,
    guard: TagGuard | None,
) -> None:
    """Point a tag at a manifest of the repository.

    Raises:
        DeniedError: the guard refuses.
        ForeignKeyError: the manifest is not there.
    """
    repo_id, name = repo
    found = tx.row(
        "SELECT digest FROM tag WHERE repo_id = ? AND name = ? /*pg FOR UPDATE*/", (repo_id, tag)
    )
    old = found[0] if found else None
    if guard is not None:
        guard(tag, old, digest)
    tx.rows(
        "INSERT INTO tag (repo_id, name, digest, updated) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (repo_id, name) DO UPDATE SET digest = excluded.digest,"
        " updated = excluded.updated",
        (repo_id, tag, digest, change.now),
    )
    if old is not None and old != digest:
        _loosen(tx, change, repo_id, [old])
    outbox.add(tx, change, outbox.TAG_SET, name, digest=digest, tag=tag)


def _loosen(tx: Transaction, change: Change, repo_id: int, digests: Iterable[str]) -> None:
    """Manifests that lost a tag, a parent or a subject: their grace starts now."""
    until = change.now + change.grace
    for digest in sorted(digests):
        tx.rows(
            "UPDATE manifest SET protected_until = ? WHERE repo_id = ? AND digest = ?",
            (until, repo_id, digest),
        )
        review(tx, repo_id, "manifest", digest, until)


def lease(tx: Transaction, stored: Stored) -> float | None:
    """Until when a manifest is protected, or None where it has gone."""
    found = tx.row(
        "SELECT protected_until FROM manifest WHERE repo_id = ? AND digest = ?",
        (stored.repo_id, stored.digest),
    )
    return found[0] if found else None


def protect(tx: Transaction, change: Change, stored: Stored) -> bool:
    """Start the lease of an untagged manifest again, as `blobs.protect` does; False if it was collected meanwhile."""
    kept = tx.row(
        "UPDATE manifest SET protected_until = ? WHERE repo_id = ? AND digest = ? RETURNING 1",
        (change.now + 2 * change.grace, stored.repo_id, stored.digest),
    )
    return kept is not None


def delete_tag(
    tx: Transaction, change: Change, name: str, tag: str, guard: TagGuard | None = None
) -> None:
    """Remove a tag; the manifest and its other tags stay.

    Raises:
        ManifestUnknownError: there is no such tag.
        DeniedError: the guard refuses.
    """
    found = tx.row(
        "SELECT t.repo_id, t.digest FROM repository r JOIN tag t ON t.repo_id = r.id"
        " WHERE r.name = ? AND t.name = ? /*pg FOR UPDATE OF t*/",
        (name, tag),
    )
    if found is None:
        raise ManifestUnknownError(f"tag {tag} is not in {name}")
    repo_id, digest = found
    if guard is not None:
        guard(tag, digest, None)
    tx.rows("DELETE FROM tag WHERE repo_id = ? AND name = ?", (repo_id, tag))
    _loosen(tx, change, repo_id, [digest])
    outbox.add(tx, change, outbox.TAG_DELETED, name, digest=digest, tag=tag)


def delete(
    tx: Transaction, change: Change, name: str, digest: str, guard: TagGuard | None = None
) -> None:
    """Remove a manifest with all its tags. Indexes that list it keep the entry, unresolved.

    Raises:
        ManifestUnknownError: it is not there.
        DeniedError: the guard refuses to let one of its tags go, or one of an index above it.
    """
    found = tx.row(
        "SELECT m.repo_id FROM repository r JOIN manifest m ON m.repo_id = r.id"
        " WHERE r.name = ? AND m.digest = ? /*pg FOR UPDATE OF m*/",
        (name, digest),
    )
    if found is None:
        raise ManifestUnknownError(f"manifest {digest} is not in {name}")
    repo_id: int = found[0]
    if guard is not None:
        for tag, of in _tags_above(tx, repo_id, digest):
            guard(tag, of, None)
    for (tag,) in tx.rows(
        "DELETE FROM tag WHERE repo_id = ? AND digest = ? RETURNING name", (repo_id, digest)
    ):
        outbox.add(tx, change, outbox.TAG_DELETED, name, digest=digest, tag=tag)
    tx.rows(
        "UPDATE manifest_ref SET child = NULL WHERE repo_id = ? AND child = ?", (repo_id, digest)
    )
    remove(tx, change, (repo_id, name), digest)


def _tags_above(tx: Transaction, repo_id: int, digest: str) -> list[tuple[str, str]]:
    """The tags of a manifest and of all indexes that list it, at any height.

    The indexes are written to, too: a push that tags one this moment, with an older view, must begin again.
    """
    seen, level = {digest}, [digest]
    found: list[tuple[str, str]] = []
    while level:
        below, level = level, []
        for one in below:
            rows = tx.rows(
                "SELECT name FROM tag WHERE repo_id = ? AND digest = ? ORDER BY name",
                (repo_id, one),
            )
            found += [(row[0], one) for row in rows]
            parents = tx.rows(
                "SELECT manifest FROM manifest_ref WHERE repo_id = ? AND child = ?",
                (repo_id, one),
            )
            level += [row[0] for row in parents if row[0] not in seen]
            seen.update(level)
        for one in level:
            tx.rows(
                "UPDATE manifest SET protected_until = protected_until"
                " WHERE repo_id = ? AND digest = ?",
                (repo_id, one),
            )
    return found


def remove(tx: Transaction, change: Change, repo: tuple[int, str], digest: str) -> None:
    """Remove a manifest that no tag and no index refers to; what it referred to begins its grace.

    Raises:
        ForeignKeyError: something refers to it.
    """
    repo_id, name = repo
    until = change.now + change.grace
    children = tx.rows(
        "SELECT kind, target FROM manifest_ref WHERE repo_id = ? AND manifest = ?"
        " ORDER BY kind, target",
        (repo_id, digest),
    )
    referring = tx.rows(
        "SELECT digest FROM manifest WHERE repo_id = ? AND subject = ?", (repo_id, digest)
    )
    tx.rows("DELETE FROM manifest WHERE repo_id = ? AND digest = ?", (repo_id, digest))
    for kind, target in children:
        if kind == "blob":
            tx.rows(
                "UPDATE repo_blob SET protected_until = ? WHERE repo_id = ? AND digest = ?"
                " AND protected_until < ?",
                (until, repo_id, target, until),
            )
            review(tx, repo_id, "blob", target, until)
    loose = {target for kind, target in children if kind == "manifest"}
    _loosen(tx, change, repo_id, loose | {row[0] for row in referring})
    review(tx, repo_id, "repository", "", until)
    outbox.add(tx, change, outbox.MANIFEST_DELETED, name, digest=digest)
