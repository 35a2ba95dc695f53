"""Archives made in one line, trees listed in full, and roots to put the one onto the other."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from argosy.layer.compressor import Compressor
from argosy.layer.entry import Entry, EntryType
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.tarwriter import TarWriter

ME: dict[str, Any] = {"uid": os.geteuid(), "gid": os.getegid()}
NOBODY = 65534
NOON = 1_600_000_000 * 10**9

Member = tuple[Entry, bytes]


def _bytes(name: str | bytes) -> bytes:
    return name if isinstance(name, bytes) else name.encode()


def file(name: str | bytes, data: bytes = b"", **more: Any) -> Member:
    return Entry(**{"name": _bytes(name), "size": len(data), "mtime": NOON, **ME, **more}), data


def _member(type_: EntryType, mode: int) -> Callable[..., Member]:
    def made(name: str | bytes, to: str | bytes = b"", **more: Any) -> Member:
        values = {
            "name": _bytes(name),
            "type": type_,
            "mode": mode,
            "linkname": _bytes(to),
            "mtime": NOON,
            **ME,
            **more,
        }
        return Entry(**values), b""

    return made


folder = _member(EntryType.DIRECTORY, 0o755)
symlink = _member(EntryType.SYMLINK, 0o777)
link = _member(EntryType.HARDLINK, 0o644)
fifo = _member(EntryType.FIFO, 0o644)
char = _member(EntryType.CHARACTER, 0o644)
block = _member(EntryType.BLOCK, 0o644)


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with TarWriter(out) as archive:
        for entry, data in members:
            archive.add(entry, [data])
    return out.getvalue()


def put(
    path: str | os.PathLike[str], *members: Member, openat2: bool | None = None, **options: Any
) -> list[str]:
    """Apply one layer; what was warned of."""
    warnings: list[str] = []
    with RootFS(path, Options(warn=warnings.append, **options), openat2=openat2) as root:
        root.apply(io.BytesIO(tar(*members)))
    return warnings


def take(path: str | os.PathLike[str], since: Any = None, **options: Any) -> bytes:
    """The layer of what changed."""
    out = io.BytesIO()
    masks = options.pop("masks", ())
    with RootFS(path, Options(**options)) as root:
        root.write_layer(root.diff(since, masks=masks), out)
    return out.getvalue()


def gzip(data: bytes) -> bytes:
    out = io.BytesIO()
    with Compressor(out) as layer:
        layer.write(data)
    return out.getvalue()


def listing(root: str | os.PathLike[str], *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything a layer says about a tree, and which names are the same file."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for top, folders, files in os.walk(os.fsencode(root)):
        for name in sorted(
            [b".", *folders, *files] if top == os.fsencode(root) else [*folders, *files]
        ):
            path = os.path.join(top, name)
            status = os.lstat(path)
            shown = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            found[shown] = _facts(path, status, times, first, shown)
    return dict(sorted(found.items()))


def _facts(
    path: bytes, status: os.stat_result, times: bool, first: dict[tuple[int, int], str], shown: str
) -> tuple[object, ...]:
    content: object = None
    if stat.S_ISREG(status.st_mode):
        content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    same = ""
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        same = first.setdefault((status.st_dev, status.st_ino), shown)
    mtime = status.st_mtime_ns // 10**9 if times else None
    return (
        oct(status.st_mode),
        status.st_uid,
        status.st_gid,
        content,
        status.st_rdev,
        xattrs,
        same,
        mtime,
    )


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: owners and devices can be set by nobody else"
)


@contextmanager
def opened_up(path: Path) -> Iterator[None]:
    """Let others reach a folder that pytest keeps for root."""
    folders = [path, *path.parents]
    modes = {
        each: stat.S_IMODE(each.stat().st_mode) for each in folders if str(each).startswith("/tmp/")
    }
    for each, mode in modes.items():
        each.chmod(mode | 0o011)
    try:
        yield
    finally:
        path.chmod(modes.get(path, 0o700))  # not its parents, through which other workers' tests go


def as_nobody(path: Path, work: Callable[[], None]) -> None:
    """Do something in a child that has given all its powers away."""
    os.chown(path, NOBODY, NOBODY)
    with opened_up(path):
        child = os.fork()
        if not child:
            code = 1
            try:
                os.setgroups([])
                os.setresgid(NOBODY, NOBODY, NOBODY)
                os.setresuid(NOBODY, NOBODY, NOBODY)
                work()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
