"""An OCI image layout directory as a place: `Source`, `Target` and `Deleter` (image-spec, image-layout.md)."""

from __future__ import annotations

import os
from typing import Self

from argosy.errors import InvalidLayoutError, NameUnknownError
from argosy.layout.blobs import BlobDirectory
from argosy.layout.durable import locked, storage_errors, sync_directory, write_file
from argosy.layout.indexfile import read_file
from argosy.layout.target import LayoutTarget
from argosy.layout.view import check_header
from argosy.spec import imagelayout
from argosy.spec.manifest import Index

_OWN = frozenset({imagelayout.HEADER_FILE, imagelayout.INDEX_FILE, imagelayout.BLOBS_DIRECTORY})


class LayoutStore(LayoutTarget):
    """An OCI image layout directory.

    Safe for threads and processes, and against being killed at any moment: the layout is then as before, at most with a
    hidden partial blob that the next `push` goes on with and `gc` removes.

    Args:
        path: The directory.
        blobs: A blobs directory that several layouts share, in place of `path`/blobs.

    Example:
        >>> import tempfile, io
        >>> from argosy.spec.descriptor import Descriptor
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = LayoutStore.create(folder.name + "/images")
        >>> raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
        >>> desc = Descriptor.of("application/vnd.oci.image.index.v1+json", raw)
        >>> store.push(desc, io.BytesIO(raw), tags=["v1"])
        >>> LayoutStore.open(folder.name + "/images").resolve("v1") == desc
        True
        >>> folder.cleanup()
    """

    def __init__(
        self, path: str | os.PathLike[str], *, blobs: str | os.PathLike[str] | None = None
    ) -> None:
        folder = os.fspath(path)
        self.shared = blobs is not None
        own = os.path.join(folder, imagelayout.BLOBS_DIRECTORY)
        held = BlobDirectory(os.fspath(blobs) if blobs is not None else own)
        super().__init__(f"oci:{folder}", folder, held)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, blobs: str | os.PathLike[str] | None = None
    ) -> Self:
        """Open a layout that is there.

        Raises:
            NameUnknownError: there is nothing at `path`.
            InvalidLayoutError: what is there is no image layout, or of a version argosy does not read.
        """
        store = cls(path, blobs=blobs)
        if not os.path.isdir(store.path):
            raise NameUnknownError(f"{store.path}: no such directory")
        header = os.path.join(store.path, imagelayout.HEADER_FILE)
        check_header(read_file(header, 64 * 1024), header)
        store.index()
        return store

    @classmethod
    def create(
        cls, path: str | os.PathLike[str], *, blobs: str | os.PathLike[str] | None = None
    ) -> Self:
        """Open a layout, making it first if it is not there.

        Raises:
            InvalidLayoutError: a directory is there that holds other things, or a layout that cannot be read.
            StorageError: it cannot be made.
        """
        store = cls(path, blobs=blobs)
        with storage_errors(store.path):
            _make_directory(store.path)
            with locked(store.path):
                store._make()
        return cls.open(path, blobs=blobs)

    def _make(self) -> None:
        header, index = self._file(imagelayout.HEADER_FILE), self._file(imagelayout.INDEX_FILE)
        if os.path.exists(header) and os.path.exists(index):
            _make_directory(self.blobs.path)
            return
        other = [n for n in os.listdir(self.path) if n not in _OWN and not n.startswith(".")]
        if other:
            raise InvalidLayoutError(
                f"{self.path}: expected an image layout or an empty directory, found {min(other)!r}"
            )
        _make_directory(self.blobs.path)
        if not os.path.exists(index):
            write_file(index, Index().encode())
        write_file(header, imagelayout.header())


def _make_directory(path: str) -> None:
    if os.path.isdir(path):
        return
    os.makedirs(path, exist_ok=True)
    sync_directory(os.path.dirname(os.path.abspath(path)))
