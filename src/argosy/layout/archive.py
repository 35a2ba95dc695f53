"""OCI archives: an image layout in one tar file (`oci-archive:`).

Reading opens members where they lie; nothing is extracted. Writing collects blobs in a hidden directory beside the
archive and then writes the tar in one go under another name, so that the archive is there whole, or as it was before.
What is written depends on the content alone: metadata first, blobs in the order of their digests, no times, no owners.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, Self

from argosy.content.protocols import SupportsRead
from argosy.content.verify import CHUNK, VerifyingReader
from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    DeniedError,
    InvalidLayoutError,
    ManifestUnknownError,
    NameUnknownError,
)
from argosy.layer.compression import Compression
from argosy.layer.compressor import Compressor
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarwriter import SupportsWrite, TarWriter
from argosy.layout.blobs import BlobDirectory
from argosy.layout.durable import held, is_stream, replacing, storage_errors
from argosy.layout.store import LayoutStore
from argosy.layout.target import LayoutTarget
from argosy.layout.tarindex import STANDARD, TarIndex
from argosy.layout.view import Blobs, LayoutSource, check_header, decode_index
from argosy.spec import imagelayout
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index

DOCKER_FILE = "manifest.json"
"""The file that makes an archive one of `docker save`."""

_COMPRESSED = {".gz": Compression.GZIP, ".tgz": Compression.GZIP, ".zst": Compression.ZSTD}


def sniff(path: str | os.PathLike[str]) -> str | None:
    """Which archive a file is: `oci-archive`, `docker-archive`, or None where it is neither.

    Docker since version 25 writes both in one; that is an `oci-archive`, unless its index names no image.

    Raises:
        DeniedError: it may not be read.
    """
    try:
        with contextlib.closing(TarIndex(path)) as tar:
            raw = tar.small(imagelayout.INDEX_FILE, imagelayout.MAX_INDEX_SIZE)
            if raw is not None and tar.find(imagelayout.HEADER_FILE) is not None:
                index = decode_index(raw, os.fspath(path))
                if index.manifests or tar.find(DOCKER_FILE) is None:
                    return "oci-archive"
            docker = tar.find(DOCKER_FILE) is not None or tar.find("repositories") is not None
            return "docker-archive" if docker else None
    except DeniedError:
        raise
    except ArgosyError:
        return None


class TarBlobs:
    """The blobs of a layout inside an archive.

    Args:
        tar: The archive.
        root: The folder of the archive that is the layout.
    """

    def __init__(self, tar: TarIndex, root: str = "") -> None:
        self._tar, self._root = tar, root

    def has(self, desc: Descriptor) -> bool:
        """Whether a member of the right name and size is there."""
        return self.find(desc.digest) == desc.size

    def find(self, digest: Digest) -> int | None:
        """The size in bytes of the member a digest names, or None."""
        member = self._tar.find(self._path(digest))
        return None if member is None else member.size

    def open(self, desc: Descriptor) -> VerifyingReader:
        """Read a blob, verified.

        Raises:
            BlobUnknownError: it is not here (`ManifestUnknownError` for manifests).
        """
        member = self._tar.find(self._path(desc.digest))
        if member is None:
            unknown = ManifestUnknownError if desc.is_manifest() else BlobUnknownError
            raise unknown(f"{desc.digest} is not in {self._tar.where}")
        return VerifyingReader(self._tar.stream(member), desc)

    def _path(self, digest: Digest) -> str:
        return posixpath.join(self._root, imagelayout.blob_path(Digest(digest)))


class TarSource(LayoutSource):
    """A `Source` over an archive, of whichever kind a subclass knows.

    Args:
        tar: The archive, which is closed with this.

    Raises:
        InvalidLayoutError: it is no archive of this kind; the message has the offset or the member.
    """

    transport: ClassVar[str]
    """What the kind is called in a place's name."""

    def __init__(self, tar: TarIndex) -> None:
        self._tar = tar
        self._index, blobs = self._contents(tar)
        super().__init__(f"{self.transport}:{tar.where}", blobs)

    @staticmethod
    def _contents(tar: TarIndex) -> tuple[Index, Blobs]:
        """The images of an archive, and where their content is."""
        raise NotImplementedError

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open an archive; `-` is stdin, which is read to its end into a temporary file first.

        Raises:
            NameUnknownError: there is no such file.
            InvalidLayoutError: it is no archive of this kind; the message has the offset or the member.
        """
        tar = TarIndex(path)
        try:
            return cls(tar)
        except BaseException:
            tar.close()
            raise

    def index(self) -> Index:
        """The index of the images, under their names."""
        return self._index

    def close(self) -> None:
        """Close the file."""
        self._tar.close()


class OCIArchive(TarSource):
    """An OCI archive to read: a `Source`. gzip, zstd, xz and bzip2 ones are read as well, and stdin as the path `-`.

    Args:
        tar: The archive, which is closed with this.

    Example:
        >>> import io, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
        >>> desc = Descriptor.of("application/vnd.oci.image.index.v1+json", raw)
        >>> with OCIArchive.create(folder.name + "/a.tar") as archive:
        ...     archive.push(desc, io.BytesIO(raw), tags=["v1"])
        >>> with OCIArchive.open(folder.name + "/a.tar") as archive:
        ...     archive.resolve("v1") == desc, list(archive.tags())
        (True, ['v1'])
        >>> folder.cleanup()
    """

    transport = "oci-archive"

    @staticmethod
    def create(
        path: str | os.PathLike[str], *, compression: Compression | None = None, anew: bool = False
    ) -> OCIArchiveWriter:
        """Open an archive to write: see `OCIArchiveWriter`."""
        return OCIArchiveWriter(path, compression=compression, anew=anew)

    @staticmethod
    def _contents(tar: TarIndex) -> tuple[Index, Blobs]:
        return _read_index(tar), TarBlobs(tar)


def _read_index(tar: TarIndex) -> Index:
    """The index of the layout in an archive.

    Raises:
        InvalidLayoutError: there is no layout, or a broken one.
    """
    header = tar.small(imagelayout.HEADER_FILE, 64 * 1024)
    raw = tar.small(imagelayout.INDEX_FILE, imagelayout.MAX_INDEX_SIZE)
    for name, found in ((imagelayout.HEADER_FILE, header), (imagelayout.INDEX_FILE, raw)):
        if found is None:
            hint = "docker-archive: reads it" if tar.find(DOCKER_FILE) else None
            raise InvalidLayoutError(
                f"{tar.where}: no member {name}, so this is no OCI archive", hint=hint
            )
    check_header(header or b"", f"{tar.where}: {imagelayout.HEADER_FILE}")
    return decode_index(raw or b"", f"{tar.where}: {imagelayout.INDEX_FILE}")


class _Joined(BlobDirectory):
    """Blobs of a directory over those of the archive that is written anew."""

    def __init__(self, path: str, base: Blobs | None) -> None:
        super().__init__(path, durable=False)  # what lasts is the archive
        self._base = base
        self._removed: set[Digest] = set()

    def keep(self, desc: Descriptor) -> bool:
        return self.has(desc)

    def write(self, desc: Descriptor, content: SupportsRead) -> None:
        self._removed.discard(desc.digest)
        super().write(desc, content)

    def remove(self, digest: Digest) -> None:
        if super().find(digest) is not None:
            super().remove(digest)
        self._removed.add(
            digest
        )  # from the old archive nothing is taken away: it is not taken over

    def find(self, digest: Digest) -> int | None:
        if digest in self._removed:
            return None
        found = super().find(digest)
        return self._base.find(digest) if found is None and self._base is not None else found

    def open(self, desc: Descriptor) -> VerifyingReader:
        if self._base is None or desc.digest in self._removed:
            return super().open(desc)
        if super().find(desc.digest) == desc.size:
            return super().open(desc)
        return self._base.open(desc)


class OCIArchiveWriter(LayoutTarget):
    """An OCI archive to write: a `Target`. Leaving the `with` block without an error makes the file, whole and durable.

    What an archive of this name holds already stays in it; an image that loses its last tag is left out. Content is
    collected in `.<name>.spool` beside the archive; where a copy was killed, the next one goes on with it.

    Args:
        path: The file; `-` is stdout, to which nothing goes before all content is here.
        compression: Of the whole file; None goes by the name: `.gz`, `.tgz` and `.zst` are compressed.
        anew: Keep nothing of a file of this name, whatever it is.

    Raises:
        InvalidLayoutError: a file of this name is there, and no such archive.
        ConflictError: another process writes it at this moment.
    """

    scheme: ClassVar[str] = "oci-archive"
    keeps_untagged: ClassVar[bool] = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        compression: Compression | None = None,
        anew: bool = False,
    ) -> None:
        self.file = os.fspath(path)
        self._streams = self.file == STANDARD or is_stream(self.file)
        suffix = os.path.splitext(self.file)[1]
        self._compression = compression or _COMPRESSED.get(suffix, Compression.NONE)
        with contextlib.ExitStack() as undo:
            base = None if anew else self._open_base(undo)
            layout = LayoutStore.create(os.path.join(self._spool(undo), "layout"))
            blobs = _Joined(layout.blobs.path, base.content if base else None)
            super().__init__(f"{self.scheme}:{self.file}", layout.path, blobs)
            self._changes = base is not None
            held = list(base.index().manifests) if base else []
            self.change(lambda _: held)  # of a killed run, only blobs are of use
            self._undo = undo.pop_all()

    def _open_base(self, undo: contextlib.ExitStack) -> LayoutSource | None:
        if self._streams or not os.path.exists(self.file):
            return None
        if os.path.isfile(self.file) and not os.path.getsize(self.file):
            return None
        return undo.enter_context(self._open(self.file))

    def _open(self, path: str) -> LayoutSource:
        return OCIArchive.open(path)

    def _spool(self, undo: contextlib.ExitStack) -> str:
        """The directory content is collected in, ours alone until the end."""
        if self._streams:
            return undo.enter_context(tempfile.TemporaryDirectory(prefix="argosy-"))
        folder, name = os.path.split(os.path.realpath(self.file))
        spool = os.path.join(folder, f".{name}.spool")
        if not os.path.isdir(folder):
            raise NameUnknownError(f"{folder}: no such directory")
        with storage_errors(spool):
            os.makedirs(spool, exist_ok=True)
            fd = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.callback(os.close, fd)
            held(fd, self.file)
        undo.callback(shutil.rmtree, spool, ignore_errors=True)
        return spool

    def commit(self) -> None:
        """Write the archive. Called at the end of the `with` block.

        Raises:
            StorageError: the disk said no; what was there before stays.
        """
        if self.file == STANDARD:
            with storage_errors("stdout"), open(os.dup(1), "wb") as out:
                self._write(out)
            return
        temporary = os.path.join(os.path.dirname(self.path), "archive.tar")
        with storage_errors(self.file):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)  # of a killed run
            with replacing(
                self.file, temporary=temporary, durable=True, changed=self._changes
            ) as out:
                self._write(out)

    def _write(self, out: Any) -> None:
        if self._compression is Compression.NONE:
            self._write_tar(out)
            return
        with Compressor(out, self._compression) as packed:
            self._write_tar(packed)

    def _write_tar(self, out: SupportsWrite) -> None:
        with TarWriter(out) as tar:
            for name, raw in self._documents().items():
                tar.add(Entry(name=name.encode(), size=len(raw)), [raw])
            held = self._held()
            folders = {imagelayout.BLOBS_DIRECTORY}
            folders |= {posixpath.dirname(imagelayout.blob_path(d.digest)) for d in held}
            for folder in sorted(folders):
                tar.add(Entry(name=f"{folder}/".encode(), type=EntryType.DIRECTORY, mode=0o755))
            for desc in held:
                name = imagelayout.blob_path(desc.digest)
                with self.fetch(desc) as reader:
                    tar.add(Entry(name=name.encode(), size=desc.size), _pieces(reader))

    def _documents(self) -> dict[str, bytes]:
        """The files beside the blobs."""
        return {
            imagelayout.HEADER_FILE: imagelayout.header(),
            imagelayout.INDEX_FILE: self.index().encode(),
        }

    def _held(self) -> list[Descriptor]:
        """What the index leads to and is here, in the order of digests."""
        found = {d.digest: d for d in self.catalog.content(self.index().manifests)}
        return [found[digest] for digest in sorted(found) if self.blobs.has(found[digest])]

    def close(self) -> None:
        """Drop what was collected; without `commit` the archive is as it was."""
        self._undo.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commit, unless an error leaves the block; then close."""
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()


def _pieces(reader: SupportsRead) -> Iterator[bytes]:
    while data := reader.read(CHUNK):
        yield data
