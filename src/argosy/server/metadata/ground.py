"""What SQLite stands on: its own version, and the file system below it."""

from __future__ import annotations

import contextlib
import os

from argosy.errors import StorageError

__all__ = ["check_file_system", "check_version"]

_NETWORK = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "glusterfs", "lustre", "afs", "gpfs")
_FIXED = {(3, 44): 6, (3, 50): 7, (3, 51): 3}


def check_version(version: str) -> None:
    """Refuse a SQLite in which two connections can lose a committed transaction (sqlite.org/wal.html, WAL-reset).

    Raises:
        StorageError: the bug is in it.

    >>> check_version("3.54.1")
    """
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    fixed = _FIXED.get((major, minor))
    if (major, minor) > (3, 51) or (fixed is not None and patch >= fixed):
        return
    raise StorageError(
        f"SQLite {version} can lose committed writes in WAL mode: expected 3.51.3 or later",
        hint="install a current apsw, which brings its own SQLite",
    )


def check_file_system(folder: str, mounts: str = "/proc/self/mountinfo") -> None:
    """Refuse a file system whose locks and shared memory do not work between processes or machines.

    Raises:
        StorageError: it is a network file system.
    """
    kind = _file_system(os.path.realpath(folder), mounts)
    if kind.startswith(_NETWORK) and kind != "fuseblk":
        raise StorageError(
            f"{folder} lies on {kind}: SQLite needs a local file system",
            hint="keep the database on a local disk, or use PostgreSQL",
        )


def _file_system(folder: str, mounts: str) -> str:
    best, kind = "", ""
    with contextlib.suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            point = before.split(" ")[4].replace("\\040", " ")
            inside = folder == point or folder.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, after.split(" ")[0]
    return kind
