"""The `blobs` directory of a layout: content under its digest, whole or not there.

A blob is written to `blobs/<algorithm>/.<encoded>.partial`, proved, made durable, and only then gets its name. A
partial file that a failure or a killed process leaves behind is the front of the same blob: the next `push` hashes it
from its first byte and goes on behind it, where the other side can (`Resumable`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from argosy.content.protocols import ContentError, SupportsRead
from argosy.content.verify import CHUNK, VerifyingReader
from argosy.errors import (
    BlobUnknownError,
    DigestMismatchError,
    IntegrityError,
    InvalidDigestError,
    InvalidError,
    InvalidLayoutError,
    ManifestUnknownError,
)
from argosy.layout.durable import WriteBack, storage_error, storage_errors, sync_directory
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest

PARTIAL = ".partial"
GRACE = 3600.0
"""Seconds for which content that nothing refers to yet is safe: a copy in progress writes blobs before manifests."""


class BlobFile(Value):
    """A file below `blobs`: its path, and the digest its name stands for, or None where it stands for none."""

    path: str
    digest: Digest | None
    partial: bool


class FileReader:
    """The stream below a `VerifyingReader` over a regular file: it can begin anywhere (`Resumable`)."""

    def __init__(self, fd: int, path: str) -> None:
        self._path = path
        self._file = open(fd, "rb", buffering=0)  # noqa: SIM115 - closed by close

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes.

        Raises:
            StorageError: the disk said no.
        """
        with storage_errors(self._path):
            return self._file.read(size)

    def start_at(self, offset: int, /) -> None:
        """Go to a byte."""
        self._file.seek(offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_regular(path: str) -> int:
    """A file descriptor to read a regular file; a pipe or device that a stranger put there is neither opened nor read.

    Raises:
        InvalidLayoutError: it is no regular file.
        OSError: it cannot be opened.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidLayoutError(f"{path}: expected a regular file")
    return fd


class BlobDirectory:
    """Blobs by digest below one directory; several layouts may share it. Safe for threads and processes.

    Args:
        path: The directory whose children are named after digest algorithms.
        durable: Whether content must survive a power loss, and not only a killed process.
    """

    def __init__(self, path: str, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable

    def path_of(self, digest: Digest) -> str:
        """Where a blob is, or would be. A `Digest` holds neither a slash nor a dot alone (CVE-2024-3727)."""
        digest = Digest(digest)
        return os.path.join(self.path, digest.algorithm, digest.encoded)

    def has(self, desc: Descriptor) -> bool:
        """Whether a file of the right name and size is there."""
        return self.find(desc.digest) == desc.size

    def keep(self, desc: Descriptor) -> bool:
        """As `has`; and the blob's time is set anew where it is old, so that `gc` spares it for another while."""
        path = self.path_of(desc.digest)
        try:
            found = os.stat(path)
        except OSError:
            return False
        if found.st_mtime < time.time() - GRACE / 2:
            with contextlib.suppress(OSError):
                os.utime(path)
        return stat.S_ISREG(found.st_mode) and found.st_size == desc.size

    def find(self, digest: Digest) -> int | None:
        """The size in bytes of the file a digest names, or None where there is none."""
        try:
            found = os.stat(self.path_of(digest))
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, desc: Descriptor) -> VerifyingReader:
        """Read a blob, verified.

        Raises:
            BlobUnknownError: it is not here (`ManifestUnknownError` for manifests).
            DeniedError: it may not be read.
        """
        path = self.path_of(desc.digest)
        try:
            fd = open_regular(path)
        except FileNotFoundError:
            unknown = ManifestUnknownError if desc.is_manifest() else BlobUnknownError
            raise unknown(f"{desc.digest} is not in {self.path}") from None
        except OSError as exc:
            raise storage_error(exc, path) from exc
        return VerifyingReader(FileReader(fd, path), desc)

    def write(self, desc: Descriptor, content: SupportsRead) -> None:
        """Store a blob, verified and durable. What is here already is not read again.

        Two that write the same blob wait for each other, and the second finds it done.

        Raises:
            IntegrityError: the content is not what `desc` says; nothing is kept.
            StorageError: the disk said no; what was written stays for the next attempt.
            Exception: what reading `content` raised, as it was.
        """
        unread: Exception | None = None
        try:
            self._write(desc, content)
        except ContentError as exc:
            unread = exc.failure
        if unread is not None:  # out here it keeps the context that it has
            raise unread

    def _write(self, desc: Descriptor, content: SupportsRead) -> None:
        path = self.path_of(desc.digest)
        folder, name = os.path.split(path)
        partial = os.path.join(folder, f".{name}{PARTIAL}")
        reader = _proving(content, desc)
        with storage_errors(path):
            if not os.path.isdir(folder):
                os.makedirs(folder, exist_ok=True)
                sync_directory(self.path)
            with _claimed(partial) as fd:
                if self.keep(desc):
                    os.unlink(partial)
                    return
                with _undone(fd, partial):
                    _fill(fd, reader, durable=self._durable)
                    if self._durable:
                        os.fsync(fd)
                    os.rename(partial, path)
            if self._durable:
                sync_directory(folder)

    def remove(self, digest: Digest) -> None:
        """Remove a blob.

        Raises:
            BlobUnknownError: it is not here.
        """
        path = self.path_of(digest)
        try:
            os.unlink(path)
        except FileNotFoundError:
            raise BlobUnknownError(f"{digest} is not in {self.path}") from None
        except OSError as exc:
            raise storage_error(exc, path) from exc

    def files(self) -> Iterator[BlobFile]:
        """Every file below the directory, in the order of their names."""
        with storage_errors(self.path):
            for algorithm in sorted(os.listdir(self.path)):
                folder = os.path.join(self.path, algorithm)
                if not os.path.isdir(folder):
                    yield BlobFile(folder, None, False)
                    continue
                for name in sorted(os.listdir(folder)):
                    yield _blob_file(folder, algorithm, name)


def _proving(content: SupportsRead, desc: Descriptor) -> VerifyingReader:
    """A reader that proves the content to be `desc`: the content itself, where it does."""
    if isinstance(content, VerifyingReader):
        promised = content.descriptor
        if (promised.digest, promised.size) == (desc.digest, desc.size):
            return content
    return VerifyingReader(content, desc)


def _fill(fd: int, reader: VerifyingReader, *, durable: bool) -> None:
    """Write what is missing behind the front part that an earlier run left, and prove the whole."""
    with open(os.dup(fd), "rb", buffering=0) as front:
        taken = reader.resume(front)
    os.ftruncate(fd, taken)
    os.lseek(fd, taken, os.SEEK_SET)
    written = WriteBack(fd, taken)
    try:
        while data := _read(reader):
            _write_all(fd, data)
            if durable:
                written.grown(len(data))
    except DigestMismatchError as exc:
        if taken:
            exc.hint = "the part kept from an earlier run was wrong and is gone: try once more"
        raise


def _read(reader: VerifyingReader) -> bytes:
    try:
        return reader.read(CHUNK)
    except OSError as exc:  # as those of the disk are
        raise ContentError(exc) from None


@contextlib.contextmanager
def _undone(fd: int, partial: str) -> Iterator[None]:
    """Drop the partial file after a failure, unless what is in it is worth going on with."""
    try:
        yield
    except BaseException as exc:
        if isinstance(exc, (IntegrityError, InvalidError)) or not os.fstat(fd).st_size:
            os.unlink(partial)
        raise


def _blob_file(folder: str, algorithm: str, name: str) -> BlobFile:
    partial = name.startswith(".") and name.endswith(PARTIAL)
    encoded = name[1 : -len(PARTIAL)] if partial else name
    path = os.path.join(folder, name)
    try:
        return BlobFile(path, Digest(f"{algorithm}:{encoded}"), partial)
    except InvalidDigestError:
        return BlobFile(path, None, False)


@contextlib.contextmanager
def _claimed(partial: str) -> Iterator[int]:
    """The partial file, open and locked by us alone. Whoever held it before may have renamed or removed it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        fd = os.open(partial, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _same(fd, partial):
                yield fd
                return
        finally:
            os.close(fd)


def _same(fd: int, path: str) -> bool:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), found)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
