"""Upload sessions. A body takes the session's lease and a new version; who comes with an old one is refused.

Every body received is an object of its own, and `so_far` the digest of everything received up to its end, so the
final empty PUT of the usual clients compares two strings. All that another replica needs is in the row.
"""

from __future__ import annotations

import datetime as dt
import random
import uuid
from typing import NamedTuple

from argosy.errors import (
    RangeNotSatisfiableError,
    TooManyRequestsError,
    UploadUnknownError,
)
from argosy.server.metadata import Transaction, blobs
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.outbox import Change


class Upload(NamedTuple):
    """A session.

    Args:
        repo_id: Its repository.
        id: A UUID.
        principal: Whose it is.
        algorithm: The digest algorithm its bodies are hashed with.
        received: Bytes received and durable.
        version: Bodies begun so far.
        so_far: The digest of what was received, None before the first body.
        known: The digest of a blob the registry has, where the body under way is only hashed.
        expires: When it is given up, in seconds since the epoch.
        lease_until: How long the body under way holds it; 0 where there is none.
        holder: The process that receives that body, where it can be told whether it still lives.
    """

    repo_id: int
    id: str
    principal: str
    algorithm: str
    received: int
    version: int
    so_far: str | None
    known: str | None
    expires: float
    lease_until: float = 0.0
    holder: str | None = None


_COLUMNS = "repo_id, id, principal, algorithm, received, version, so_far, known, expires, lease_until, holder"


_UNCHANGED = "repo_id = ? AND id = ? AND version = ? AND COALESCE(so_far, '') = ?"
"""A session that is as it was found. Its version alone does not say so: a database that died may have forgotten the
last bodies, and counts others anew."""


def _state(upload: Upload) -> tuple[object, ...]:
    return upload.repo_id, upload.id, upload.version, upload.so_far or ""


class BusyError(TooManyRequestsError):
    """Another body of the session is under way.

    `holder` is the process that receives it, if that is known; `received` are the bytes the session has without it.
    """

    holder: str | None = None
    received = 0


def create(
    tx: Transaction, repo_id: int, upload: str, principal: str, algorithm: str, expires: float
) -> Upload:
    """Begin a session."""
    tx.rows(
        "INSERT INTO upload (repo_id, id, principal, algorithm, received, version, lease_until, expires)"
        " VALUES (?, ?, ?, ?, 0, 0, 0, ?)",
        (repo_id, upload, principal, algorithm, expires),
    )
    return Upload(repo_id, upload, principal, algorithm, 0, 0, None, None, expires)


def find(tx: Transaction, name: str, upload: str, principal: str) -> Upload:
    """A session of a repository and a principal.

    Raises:
        UploadUnknownError: there is none, or it is somebody else's.
    """
    columns = ", ".join(f"u.{column}" for column in _COLUMNS.split(", "))
    found = tx.row(
        f"SELECT {columns} FROM repository r JOIN upload u ON u.repo_id = r.id"  # noqa: S608
        " WHERE r.name = ? AND u.id = ? AND u.principal = ?",
        (name, upload, principal),
    )
    if found is None:
        raise UploadUnknownError(f"upload {upload} is not known in {name}, or has expired")
    return Upload(*found)


def claim(
    tx: Transaction,
    name: str,
    upload: str,
    principal: str,
    *,
    start: int | None,
    known: str | None,
    now: float,
    lease: float,
    expires: float,
    holder: str | None = None,
    gone: str | None = None,
) -> Upload:
    """Take the lease for one body.

    Args:
        start: Where the body says it begins; None for wherever the session is.
        known: A digest announced before the first byte: where the registry has it, the row holds on to it.
        lease: Seconds the lease lasts if it is not renewed. One that would last twice as long was taken by a clock
            that was wrong, and is free.
        holder: The process that takes it.
        gone: A process that has died: what it holds is free.

    Raises:
        UploadUnknownError: no such session.
        RangeNotSatisfiableError: the body does not begin where the session is; the session stays as it is.
        BusyError: another body of the session is under way.
    """
    current = find(tx, name, upload, principal)
    if start is not None and start != current.received:
        raise RangeNotSatisfiableError(
            f"upload {upload}: expected a chunk from byte {current.received}, got one from {start}"
        )
    held = known if known and not current.received and blobs.healthy(tx, known) else None
    taken = tx.row(
        "UPDATE upload SET version = version + 1, lease_until = ?, known = ?, expires = ?, holder = ?"
        " WHERE repo_id = ? AND id = ? AND version = ?"
        " AND (lease_until < ? OR lease_until > ? OR holder = ?) RETURNING version",
        (
            *(now + lease, held, expires, holder, current.repo_id, upload, current.version),
            *(now, now + 2 * lease, gone),
        ),
    )
    if taken is None:
        busy = BusyError(
            f"upload {upload}: another body is under way", retry_after=max(1.0, lease / 10)
        )
        busy.holder, busy.received = current.holder, current.received
        raise busy
    return current._replace(
        version=taken[0], known=held, expires=expires, lease_until=now + lease, holder=holder
    )


def renew(tx: Transaction, upload: Upload, until: float, expires: float) -> bool:
    """Hold the lease longer, and the session; False if it was lost, or given back: it is not taken again."""
    kept = tx.row(
        "UPDATE upload SET lease_until = ?, expires = ? WHERE repo_id = ? AND id = ? AND version = ?"
        " AND lease_until > 0 RETURNING 1",
        (until, expires, upload.repo_id, upload.id, upload.version),
    )
    return kept is not None


def release(tx: Transaction, upload: Upload) -> None:
    """Give the lease back without having received anything."""
    tx.rows(
        "UPDATE upload SET lease_until = 0, known = NULL WHERE repo_id = ? AND id = ? AND version = ?",
        (upload.repo_id, upload.id, upload.version),
    )


def extend(tx: Transaction, upload: Upload, segment: Segment, so_far: str) -> Upload:
    """Take a durable object in as the next part, and give the lease back.

    `so_far` is of `upload.algorithm`, which is the session's from now on.

    Raises:
        TooManyRequestsError: the lease was lost to another body; the object is nobody's.
    """
    received = upload.received + segment.size
    kept = tx.row(
        "UPDATE upload SET received = ?, algorithm = ?, so_far = ?, lease_until = 0, known = NULL"  # noqa: S608
        f" WHERE {_UNCHANGED} RETURNING 1",
        (received, upload.algorithm, so_far, *_state(upload)),
    )
    if kept is None:
        raise TooManyRequestsError(f"upload {upload.id}: another body took over", retry_after=1)
    if segment.size:
        tx.rows(
            "INSERT INTO upload_segment (repo_id, upload, position, key, size) VALUES (?, ?, ?, ?, ?)",
            (upload.repo_id, upload.id, upload.version, segment.key, segment.size),
        )
    return upload._replace(received=received, so_far=so_far, lease_until=0.0)


def segments(tx: Transaction, upload: Upload) -> list[Segment]:
    """The objects received, in order."""
    rows = tx.rows(
        "SELECT key, size FROM upload_segment WHERE repo_id = ? AND upload = ? ORDER BY position",
        (upload.repo_id, upload.id),
    )
    return [Segment(*row) for row in rows]


def finish(
    tx: Transaction,
    change: Change,
    upload: Upload,
    name: str,
    digest: str,
    size: int,
    last: Segment | None,
) -> None:
    """End a session whose bytes hash to `digest`: the blob is there, the session is not.

    Args:
        size: Bytes in all.
        last: The object of the closing request's own body, if it had one that was kept.

    Raises:
        TooManyRequestsError: the lease was lost.
        ForeignKeyError: the collector was quicker; try again.
    """
    parts = segments(tx, upload) if upload.received else []
    if last is not None:
        parts.append(last)
    remove(tx, upload)
    blobs.commit(tx, change, (upload.repo_id, name), digest, size, parts)
    if upload.version > len(parts) and not upload.known:
        _sweep(tx, upload.id, change)


def remove(tx: Transaction, upload: Upload) -> None:
    """Delete the row of a session whose lease is held.

    Raises:
        TooManyRequestsError: the lease was lost, or the session was cancelled meanwhile.
    """
    gone = tx.row(f"DELETE FROM upload WHERE {_UNCHANGED} RETURNING 1", _state(upload))  # noqa: S608
    if gone is None:
        raise TooManyRequestsError(f"upload {upload.id}: another body took over", retry_after=1)


def drop(tx: Transaction, change: Change, upload: Upload) -> None:
    """Give a session up: its objects go to the trash at once, for nobody can be reading them."""
    blobs.discard(tx, change._replace(trash=0.0), segments(tx, upload))
    tx.rows("DELETE FROM upload WHERE repo_id = ? AND id = ?", (upload.repo_id, upload.id))
    _sweep(tx, upload.id, change)


def expired(tx: Transaction, now: float, limit: int) -> list[Upload]:
    """Sessions that are over and have no body under way."""
    rows = tx.rows(
        f"SELECT {_COLUMNS} FROM upload WHERE expires < ? AND lease_until < ?"  # noqa: S608
        " ORDER BY expires LIMIT ? /*pg FOR UPDATE SKIP LOCKED*/",
        (now, now, limit),
    )
    return [Upload(*row) for row in rows]


def new_key(upload: Upload) -> str:
    """The object key of one body, `b/<yyyymmdd>/<uuid>-<n>`: no other of the session can have it.

    It does not come from the version: a database that dies may count a body it has forgotten anew.
    """
    return f"{prefix(upload.id)}-{10**18 + random.randrange(10**18)}"  # noqa: S311 - unique is enough


def _sweep(tx: Transaction, upload: str, change: Change) -> None:
    """Have whatever failed bodies of a session left behind looked for, once none of them can be under way."""
    tx.rows(
        "INSERT INTO trash (key, not_before) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
        (f"{prefix(upload)}-", change.now + 3600.0),
    )


def prefix(upload: str) -> str:
    """What the keys of a session's objects begin with, a `-` and a number follow."""
    return f"b/{day(upload)}/{upload}"


def day(upload: str) -> str:
    """The day a session began, `yyyymmdd`: its id is a UUID of version 7, which begins with the time.

    >>> day("01941f29-7c00-7000-8000-000000000000")
    '20250101'
    """
    milliseconds = int(upload.replace("-", "")[:12], 16)
    began = dt.datetime.fromtimestamp(milliseconds / 1000, tz=dt.UTC)
    return began.strftime("%Y%m%d")


def new_id(now: float) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): unique, and no secret, for a location is signed.

    Asking the kernel for each would hand the interpreter to another thread meanwhile.
    """
    value = (int(now * 1000) & 0xFFFFFFFFFFFF) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
