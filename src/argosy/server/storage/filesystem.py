"""Objects as files below one directory.

An object gets its name when it is begun and its directory is synced after its content was: the key is random and no
row names it before `commit` returned, so half a file under it harms nobody, and the sweep of old uploads finds it.
That saves the rename, and with it a second journal commit of the file system.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence

from argosy.errors import BlobUnknownError
from argosy.layout.durable import WriteBack, sync_directory
from argosy.server.storage import PIECE, Place, ShortObjectError, checked_key
from argosy.server.storage.disk import require_room, translated

_FOLDERS = 8
_MOST = min(1024, os.sysconf("SC_IOV_MAX"))
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def _skip(views: list[memoryview], count: int) -> None:
    """Take so many bytes from the front."""
    whole = 0
    for view in views:
        if count < len(view):
            break
        count -= len(view)
        whole += 1
    del views[:whole]
    if count:
        views[0] = views[0][count:]


class _Folder:
    """A directory that is held open while objects are made in it: what is synced is where they were made."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, _DIRECTORY)

    def __del__(self) -> None:
        os.close(self.fd)


class _Writer:
    """One file under way."""

    def __init__(self, folder: _Folder, name: str, key: str) -> None:
        self._folder, self._name, self._key = folder, name, key
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(name, flags, 0o600, dir_fd=folder.fd)
        self._written = WriteBack(self._fd)
        self._done = False

    def write(self, *data: bytes | bytearray | memoryview) -> None:
        views = [memoryview(one) for one in data]
        try:
            while views:
                count = os.writev(self._fd, views[:_MOST])
                self._written.grown(count)
                _skip(views, count)
        except OSError as exc:
            raise translated(exc, f"object {self._key}") from exc

    def commit(self) -> None:
        try:
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1
            os.fsync(self._folder.fd)
        except OSError as exc:
            raise translated(exc, f"object {self._key}") from exc
        self._done = True

    def abort(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        if not self._done:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder.fd)
            self._done = True


class FileSystem:
    """A `Storage` in a local directory, which is made if it is not there.

    Args:
        root: The directory. It belongs to the registry alone (mode 0700).
        reserve: How many bytes of the file system uploads leave free: the database needs them.

    Raises:
        StorageError: the directory cannot be made.

    Example:
        >>> import tempfile
        >>> storage = FileSystem(tempfile.mkdtemp(), reserve=0)
        >>> writer = storage.create("b/20260101/x-1")
        >>> writer.write(b"hello"); writer.commit()
        >>> b"".join(storage.read("b/20260101/x-1", 1, 3))
        b'el'
    """

    def __init__(self, root: str, *, reserve: int = 256 * 1024 * 1024) -> None:
        self._root = os.path.abspath(root)
        self._reserve = reserve
        self._lock = threading.Lock()
        try:
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            sync_directory(os.path.dirname(self._root))
        except OSError as exc:
            raise translated(exc, f"storage {self._root}") from exc
        self._known: dict[str, _Folder] = {}

    def create(self, key: str, *, size: int | None = None) -> _Writer:
        """Begin a file; refuse while less than the reserve would stay free."""
        path = self._path(key)
        try:
            require_room(self._root, self._reserve, size or 0)
            return self._open(path, key)
        except OSError as exc:
            raise translated(exc, f"object {key}") from exc

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, or of a part of it."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise BlobUnknownError(f"object {key} is not in the storage") from None
        except OSError as exc:
            raise translated(exc, f"object {key}") from exc
        return _pieces(fd, key, start, stop)

    def locate(self, key: str, *, media_type: str | None = None) -> Place:  # noqa: ARG002
        """The file's path."""
        return Place(path=f"{self._root}/{key}")

    def delete(self, keys: Sequence[str]) -> None:
        """Unlink files."""
        failed: OSError | None = None
        for key in keys:
            try:
                os.unlink(self._path(key))
            except FileNotFoundError:
                continue
            except OSError as exc:
                failed = exc
        if failed is not None:
            raise translated(failed, "deleting objects") from failed

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys below a prefix."""
        folder, _, begin = prefix.rpartition("/")
        yield from self._walk(folder, begin)

    def _walk(self, folder: str, begin: str) -> Iterator[str]:
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                found = sorted(
                    (e.name, e.is_dir(follow_symlinks=False))
                    for e in entries
                    if e.name.startswith(begin)
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, is_folder in found:
            key = f"{folder}/{name}" if folder else name
            if is_folder:
                yield from self._walk(key, "")
            else:
                yield key

    def _path(self, key: str) -> str:
        return f"{self._root}/{checked_key(key)}"

    def _open(self, path: str, key: str) -> _Writer:
        parent, _, name = path.rpartition("/")
        folder = self._known.get(parent)
        if folder is not None:
            with contextlib.suppress(FileNotFoundError):  # somebody has removed it
                return _Writer(folder, name, key)
        return _Writer(self._make(parent), name, key)

    def _make(self, path: str) -> _Folder:
        """Make a directory so that it survives a power cut, and hold it."""
        with self._lock:
            above = os.path.dirname(path)
            if len(above) > len(self._root) and not os.path.isdir(above):
                os.makedirs(above, mode=0o700, exist_ok=True)
                sync_directory(os.path.dirname(above))
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            sync_directory(above)
            self._known[path] = folder = _Folder(path)
            while len(self._known) > _FOLDERS:
                self._known.pop(next(iter(self._known)))
            return folder


def _pieces(fd: int, key: str, start: int, stop: int | None) -> Iterator[bytes]:
    offset = start
    try:
        while stop is None or offset < stop:
            wanted = PIECE if stop is None else min(PIECE, stop - offset)
            piece = os.pread(fd, wanted, offset)
            if not piece and stop is not None:
                raise ShortObjectError(f"object {key} ends at byte {offset}: expected {stop}")
            if not piece:
                return
            offset += len(piece)
            yield piece
    except OSError as exc:
        raise translated(exc, f"object {key}") from exc
    finally:
        os.close(fd)
