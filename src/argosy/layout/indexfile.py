"""The `index.json` of a directory: read when it has changed, and replaced as a whole, by one writer at a time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator

from argosy.errors import ArgosyError, InvalidLayoutError
from argosy.layout.blobs import open_regular
from argosy.layout.durable import locked, storage_error, storage_errors, write_file
from argosy.layout.view import decode_index
from argosy.spec import imagelayout
from argosy.spec._value import replace
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index

Change = Callable[[list[Descriptor]], list[Descriptor]]
"""Makes new entries of the old ones; called again where another process has changed them meanwhile."""
MOST = 64
"""How many changes wait for one another before they are written."""

_Stamp = tuple[int, int, int, int]


class IndexFile:
    """An `index.json`. Safe for threads and processes.

    Args:
        folder: The directory it is in.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, imagelayout.INDEX_FILE)
        self._read: tuple[_Stamp, Index] | None = None
        self._mutex = threading.RLock()
        self._blocks = 0
        self._waiting: list[Change] = []
        self._ahead: tuple[Index, Index] | None = None
        """What was stored when the first of these changes came, and what they make of it."""

    def now(self) -> Index:
        """What it says, with what waits to be written.

        Raises:
            InvalidLayoutError: it is missing, or no image index.
        """
        ahead = self._ahead
        return self._stored() if ahead is None else ahead[1]

    def _stored(self) -> Index:
        held = self._read
        with storage_errors(self._path):
            stamp = stamp_of(self._path)
            if held is not None and held[0] == stamp:
                return held[1]
        index = decode_index(read_file(self._path, imagelayout.MAX_INDEX_SIZE), self._path)
        # It was taken before: what changed meanwhile has another one.
        self._read = (stamp, index) if stamp is not None else None
        return index

    def change(self, change: Change, *, patient: bool = False) -> None:
        """Replace the entries by what `change` makes of them, alone and as a whole.

        Args:
            change: Makes the new entries.
            patient: Inside `together`, let it wait to be written with others.
        """
        with self._mutex:
            if not (patient and self._blocks):
                self.settle()
                self._write((change,))
                return
            base, before = self._ahead or (self._stored(),) * 2
            entries = tuple(change(list(before.manifests)))
            if entries != before.manifests:
                self._waiting.append(change)
                self._ahead = base, replace(before, manifests=entries)
                if len(self._waiting) >= MOST:
                    self.settle()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let patient changes wait for one another until the block ends, in order or not."""
        with self._mutex:
            self._blocks += 1
        try:
            yield
        except BaseException:
            with contextlib.suppress(ArgosyError):  # the first error says why
                self._end()
            raise
        else:
            self._end()

    def _end(self) -> None:
        with self._mutex:
            self._blocks -= 1
            if not self._blocks:
                self.settle()

    def settle(self) -> None:
        """Write what waits."""
        with self._mutex:
            try:
                if self._waiting:
                    self._write(self._waiting, self._ahead)
            finally:  # until then it is shown: who reads takes no lock
                self._waiting, self._ahead = [], None

    def _write(self, changes: Iterable[Change], ahead: tuple[Index, Index] | None = None) -> None:
        with storage_errors(self._path), locked(self._folder):
            index = self._stored()
            if ahead is not None and ahead[0] is index:
                made = ahead[1]
            else:
                entries = list(index.manifests)
                for change in changes:
                    entries = change(entries)
                made = replace(index, manifests=tuple(entries))
            if made.manifests == index.manifests:
                return
            inode = write_file(self._path, made.encode())
            stamp = stamp_of(self._path)  # its ctime is not known before it has its name
            self._read = (stamp, made) if stamp is not None and stamp[0] == inode else None


def stamp_of(path: str) -> _Stamp | None:
    """What changes when a file is replaced or written; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read_file(path: str, limit: int) -> bytes:
    """A small file of the layout.

    Raises:
        InvalidLayoutError: it is missing, or larger than `limit` bytes.
    """
    try:
        fd = open_regular(path)
    except FileNotFoundError:
        raise InvalidLayoutError(f"{path}: no such file, so this is no image layout") from None
    except OSError as exc:
        raise storage_error(exc, path) from exc
    with storage_errors(path), open(fd, "rb", closefd=True) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise InvalidLayoutError(f"{path}: more than {limit} bytes")
    return raw
