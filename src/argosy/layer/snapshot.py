"""What a root holds at one moment: every name with its metadata and, if asked, a digest of its content."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from argosy.errors import InvalidLayerError, StorageError
from argosy.layer.entry import EMPTY, shown
from argosy.layer.options import Options
from argosy.layer.resolve import HANDLE, Resolver, handle_path

__all__ = ["Inode", "Snapshot", "content_digest", "open_file", "scan", "told"]

_CHUNK = 1 << 18
_FORMAT = "argosy snapshot 1"


@dataclass(frozen=True, slots=True)
class Inode:
    """What stands at one name, as it is stored (ids are the host's, attributes are on-disk names).

    Args:
        mode: Type and permission bits, as in stat(2).
        target: Of a symbolic link.
        digest: sha256 of a file's content, or None where it was not asked for.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    device: int
    number: int
    links: int
    rdev: int
    target: bytes = b""
    xattrs: Mapping[bytes, bytes] = field(default_factory=lambda: EMPTY)
    digest: bytes | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode number: which names are hard links of each other."""
        return self.device, self.number


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Names below a root (the root itself is `b""`), with what stood there.

    >>> Snapshot.decode(Snapshot({}).encode()) == Snapshot({})
    True
    """

    inodes: Mapping[bytes, Inode]

    def encode(self) -> bytes:
        """JSON lines, to be kept beside a bundle."""
        lines = [json.dumps(_FORMAT)]
        for path, inode in self.inodes.items():
            numbers = [getattr(inode, name) for name in _NUMBERS]
            xattrs = {
                os.fsdecode(name): base64.b64encode(value).decode()
                for name, value in inode.xattrs.items()
            }
            digest = inode.digest.hex() if inode.digest is not None else None
            lines.append(
                json.dumps([os.fsdecode(path), numbers, os.fsdecode(inode.target), xattrs, digest])
            )
        return "\n".join((*lines, "")).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """The reverse.

        Raises:
            InvalidLayerError: It is not a snapshot.
        """
        first, *lines = raw.split(b"\n")
        try:
            if json.loads(first) != _FORMAT:
                raise ValueError
            return cls(dict(_decoded(json.loads(line)) for line in lines if line))
        except (ValueError, TypeError, KeyError):
            raise InvalidLayerError("this is not a snapshot of a root file system") from None


_NUMBERS = ("mode", "uid", "gid", "size", "mtime", "ctime", "device", "number", "links", "rdev")


def _decoded(row: list[object]) -> tuple[bytes, Inode]:
    path, numbers, target, xattrs, digest = row
    if not (isinstance(path, str) and isinstance(numbers, list) and isinstance(target, str)):
        raise TypeError
    if (
        not isinstance(xattrs, dict)
        or len(numbers) != len(_NUMBERS)
        or not all(isinstance(n, int) for n in numbers)
    ):
        raise TypeError
    found = {os.fsencode(name): base64.b64decode(value) for name, value in xattrs.items()}
    known = bytes.fromhex(digest) if isinstance(digest, str) else None
    fields = dict(zip(_NUMBERS, numbers, strict=True))
    return os.fsencode(path), Inode(
        **fields, target=os.fsencode(target), xattrs=found, digest=known
    )


@contextmanager
def told(path: bytes) -> Iterator[None]:
    """Turn an `OSError` into a `StorageError` that names the path."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{shown(path)}: {(error.strerror or str(error)).lower()}") from error


def scan(resolver: Resolver, options: Options, *, digests: bool) -> Snapshot:
    """All names below a root; sockets are passed over, as no layer can hold one.

    Raises:
        StorageError: Something cannot be read.
    """
    found: dict[bytes, Inode] = {
        b"": _inode(os.fstat(resolver.root), handle_path(resolver.root).encode())
    }
    pending = [b""]
    try:
        while pending:
            path = pending.pop()
            with told(path):
                fd = resolver.open(path)
            try:
                pending += _scan_folder(fd, path, found, options, digests=digests)
            finally:
                os.close(fd)
    finally:
        resolver.relock()
    return Snapshot(found)


def _scan_folder(
    fd: int, path: bytes, found: dict[bytes, Inode], options: Options, *, digests: bool
) -> list[bytes]:
    folders: list[bytes] = []
    with os.scandir(fd) as entries:
        names = sorted(os.fsencode(entry.name) for entry in entries)
    for name in names:
        below = path + b"/" + name if path else name
        with told(below):
            status = os.lstat(name, dir_fd=fd)
            if stat.S_ISSOCK(status.st_mode):
                options.warn(f"{shown(below)}: a socket cannot be in a layer")
                continue
            # Reading what is closed to its owner changes its ctime, which then tells nothing of its content.
            hashed = stat.S_ISREG(status.st_mode) and (digests or _is_closed(status.st_mode))
            digest = content_digest(fd, name) if hashed else None
            target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
            with _readable(fd, name, status.st_mode):
                found[below] = _inode(
                    status, b"%s/%s" % (handle_path(fd).encode(), name), target, digest
                )
        if stat.S_ISDIR(status.st_mode):
            folders.append(below)
    folders.reverse()
    return folders


def _inode(
    status: os.stat_result, path: bytes, target: bytes = b"", digest: bytes | None = None
) -> Inode:
    return Inode(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_dev,
        status.st_ino,
        status.st_nlink,
        status.st_rdev,
        target,
        _xattrs(path, follow=not target and stat.S_ISDIR(status.st_mode)),
        digest,
    )


def _xattrs(path: bytes, *, follow: bool) -> Mapping[bytes, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:
        return EMPTY
    found = {}
    for name in map(os.fsencode, names):
        try:
            found[name] = os.getxattr(path, name, follow_symlinks=follow)
        except OSError:
            continue  # gone meanwhile, or not for us to read
    return found or EMPTY


def _is_closed(mode: int) -> bool:
    """Whether its owner, who is us and not root, may not read what has this mode."""
    return os.geteuid() != 0 and not mode & stat.S_IRUSR


@contextmanager
def _readable(parent: int, name: bytes, mode: int) -> Iterator[None]:
    """Let the owner of a file or directory read it, for as long as this takes."""
    if not _is_closed(mode) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        yield
        return
    handle = os.open(name, HANDLE, dir_fd=parent)
    try:
        os.chmod(handle_path(handle), stat.S_IMODE(mode) | stat.S_IRUSR)
        try:
            yield
        finally:
            os.chmod(handle_path(handle), stat.S_IMODE(mode))
    finally:
        os.close(handle)


def open_file(parent: int, name: bytes) -> int:
    """Open a regular file for reading, never through a link; its owner may even where the mode says no."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _readable(parent, name, os.lstat(name, dir_fd=parent).st_mode):
        return os.open(name, flags, dir_fd=parent)


def content_digest(parent: int, name: bytes) -> bytes:
    """The sha256 of a file's content."""
    fd = open_file(parent, name)
    try:
        hashed = hashlib.sha256()
        while chunk := os.read(fd, _CHUNK):
            hashed.update(chunk)
        return hashed.digest()
    finally:
        os.close(fd)
