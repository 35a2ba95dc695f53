"""Where new images live until they are copied somewhere: an overlay over the places the old ones are in.

New manifests and configurations are kept in memory. New layers are spooled into one unlinked temporary file, however
large they are, and gone with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from argosy.content.memory import MemoryStore
from argosy.content.overlay import Overlay, Union
from argosy.content.protocols import Source, SupportsRead
from argosy.content.verify import VerifyingReader, copy_verified
from argosy.errors import StorageError, unread
from argosy.layer.compression import Compression
from argosy.layer.compressor import Compressor
from argosy.layer.entry import Whiteout
from argosy.layer.pump import Pump
from argosy.layer.tarstream import TarReader
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest, hasher
from argosy.spec.mediatypes import layer_media_type

__all__ = ["Draft", "LayerWriter", "NewLayer", "Spool", "draft"]

_IN_MEMORY = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLayer:
    """A layer that is in a draft: its descriptor, its DiffID, and its size uncompressed in bytes."""

    descriptor: Descriptor
    diff_id: Digest
    uncompressed: int = 0


class _Region:
    """A part of a file as something to read; it has a position of its own, so many may be open."""

    def __init__(self, descriptor: int, start: int, size: int, owner: object) -> None:
        self._descriptor, self._at, self._end = descriptor, start, start + size
        self._owner = owner

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._at
        data = os.pread(self._descriptor, left if size < 0 else min(size, left), self._at)
        self._at += len(data)
        return data


class Spool(MemoryStore):
    """A `MemoryStore` whose large blobs lie in one unlinked temporary file.

    Args:
        directory: Where that file is made; the system's place for temporary files if None.

    Example:
        >>> spool = Spool()
        >>> with spool.layer() as out:
        ...     _ = out.write(b"x" * 1_000_000)
        >>> spool.exists(out.layer.descriptor), out.layer.uncompressed
        (True, 1000000)
    """

    def __init__(self, directory: str | None = None) -> None:
        super().__init__()
        self._directory = directory
        self._file: int | None = None
        self._end = 0
        self._regions: dict[Digest, tuple[Descriptor, int]] = {}
        self._files: dict[Digest, str] = {}
        self._writing = threading.RLock()

    def exists(self, desc: Descriptor) -> bool:
        """See `Source.exists`."""
        held = desc.digest in self._regions or desc.digest in self._files
        return held or super().exists(desc)

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        """See `Source.fetch`."""
        if (path := self._files.get(desc.digest)) is not None:
            return VerifyingReader(regular_file(path), desc)
        region = self._regions.get(desc.digest)
        if region is None or self._file is None:
            return super().fetch(desc)
        return VerifyingReader(_Region(self._file, region[1], region[0].size, self), desc)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """See `Target.push`; what is larger than 256 KiB and no manifest goes to the file."""
        if desc.size <= _IN_MEMORY or desc.is_manifest() or tags:
            super().push(desc, content, tags=tags)
        elif not self.exists(desc):
            with self._appending() as file:
                copy_verified(content, desc, file)
                self._keep(desc, file)

    def refer(self, media_type: str, path: str) -> Descriptor:
        """A file of this machine as a blob, left where it is: it is read again when it is fetched, and verified then.

        Raises:
            NotFoundError, DeniedError: it is not there, or may not be read.
            StorageError: it cannot be read, or is no regular file.
        """
        hashed, size = hasher(), 0
        with regular_file(path) as file:
            while data := file.read(1 << 20):
                hashed.update(data)
                size += len(data)
        desc = Descriptor(media_type=media_type, digest=Digest.done("sha256", hashed), size=size)
        self._files[desc.digest] = os.path.abspath(path)
        return desc

    @contextlib.contextmanager
    def layer(
        self,
        compression: Compression = Compression.GZIP,
        *,
        level: int | None = None,
        docker: bool = False,
        algorithm: str = "sha256",
    ) -> Iterator[LayerWriter]:
        """A new layer to write uncompressed bytes into; after the block it is here, and `layer` says what it is.

        One at a time: another thread waits. An exception inside the block leaves nothing.

        Args:
            compression: How it is compressed.
            level: See `Compressor`.
            docker: Whether its media type is Docker's.
            algorithm: Of its digests.
        """
        with self._appending() as file:
            writer = LayerWriter(Compressor(file, compression, level=level, algorithm=algorithm))
            with writer.compressor:
                yield writer
            written = writer.compressor.written
            desc = Descriptor(
                media_type=layer_media_type(compression.value, docker=docker),
                digest=written.digest,
                size=written.size,
            )
            self._keep(desc, file)
            writer.layer = NewLayer(
                descriptor=desc, diff_id=written.diff_id, uncompressed=written.uncompressed
            )

    def keep(self, stream: SupportsRead, *, docker: bool = False) -> NewLayer:
        """A layer as it comes, compressed or not, but for padding behind a compressed one, which many readers refuse.

        It is read through once for its DiffID.

        Args:
            stream: The layer's bytes.
            docker: Whether its media type is Docker's.

        Raises:
            InvalidLayerError: it is no tar archive, is damaged, or is over a limit.
        """
        with self._appending() as file:
            tee = _Tee(stream, file)
            with Pump(tee) as pump:
                check_tar(pump)
            tee.end(pump.meter.padding)
            compression = Compression.sniff(tee.head)
            desc = Descriptor(
                media_type=layer_media_type(compression.value, docker=docker),
                digest=Digest.done("sha256", tee.hashed),
                size=tee.size,
            )
            self._keep(desc, file)
            return NewLayer(descriptor=desc, diff_id=pump.diff_id, uncompressed=pump.size)

    @contextlib.contextmanager
    def _appending(self) -> Iterator[_Appender]:
        with self._writing:
            descriptor = self._spooled()
            where = self._directory or tempfile.gettempdir()
            appender = _Appender(descriptor, self._end, where)
            try:
                yield appender
            except OSError as exc:
                raise _unwritten(where, exc) from exc
            finally:
                os.ftruncate(appender.descriptor, self._end)

    def _keep(self, desc: Descriptor, file: _Appender) -> None:
        if not self.exists(desc):
            self._regions[desc.digest] = (desc.bare(), self._end)
            self._end = file.position

    def _spooled(self) -> int:
        if self._file is None:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                self._file = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._file)
        return self._file


def regular_file(path: str) -> io.FileIO:
    """A file of this machine to read: not to hang on a FIFO, nor to read a device for ever.

    Raises:
        NotFoundError, DeniedError: it is not there, or may not be read.
        StorageError: it cannot be read, or is no regular file.
    """
    try:
        file = open(path, "rb", buffering=0, opener=lambda p, f: os.open(p, f | os.O_NONBLOCK))  # noqa: SIM115
    except OSError as exc:
        raise unread(path, exc) from exc
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise StorageError(f"{path}: expected a regular file")
    return file


def _unwritten(where: str, exc: OSError) -> StorageError:
    reason = (exc.strerror or type(exc).__name__).lower()
    return StorageError(f"temporary file in {where}: {reason}", hint="TMPDIR names another place")


class _Appender:
    """Writes a temporary file in `where`, and tells what is wrong with it: a caller would blame what it reads."""

    def __init__(self, descriptor: int, position: int, where: str) -> None:
        self.descriptor = descriptor
        self.position = position
        self._where = where

    def write(self, data: bytes | memoryview, /) -> int:
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                try:
                    done += os.pwrite(self.descriptor, view[done:], self.position + done)
                except OSError as exc:
                    raise _unwritten(self._where, exc) from exc
        self.position += done
        return done


class _Tee:
    """Reads on, and writes and hashes what it read; of zeros at the end, those that `end` does not leave out."""

    def __init__(self, stream: SupportsRead, out: _Appender) -> None:
        self._stream, self._out = stream, out
        self.hashed = hasher()
        self.size = 0
        self.head = b""
        self._zeros = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.head = self.head if len(self.head) >= 4 else (self.head + data[:4])[:4]
        told = data.rstrip(b"\0")
        if told:
            self.end(0)
            self._write(told)
        self._zeros += len(data) - len(told)
        return data

    def end(self, padding: int) -> None:
        """Write the zeros that were read last, but for so many."""
        self._zeros -= padding
        while self._zeros:
            block = bytes(min(self._zeros, 1 << 20))
            self._write(block)
            self._zeros -= len(block)

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        self.hashed.update(data)
        self._out.write(data)


def check_tar(pieces: Iterable[bytes]) -> None:
    """Read a whole changeset, so that what is no tar archive is refused.

    Raises:
        InvalidLayerError: it is none.
    """
    reader = TarReader(pieces)
    for entry in reader:
        Whiteout.of(entry.path.rpartition(b"/")[2])
    reader.drain()


class LayerWriter:
    """Where a new layer's uncompressed bytes are written; `layer` is there once the block has ended."""

    def __init__(self, compressor: Compressor) -> None:
        self.compressor = compressor
        self._layer: NewLayer | None = None

    def write(self, data: bytes | memoryview, /) -> int:
        """Take all of the data."""
        return self.compressor.write(data)

    @property
    def layer(self) -> NewLayer:
        """What the layer came out as.

        Raises:
            ValueError: the block has not ended yet.
        """
        if self._layer is None:
            raise ValueError("the layer is not written yet")
        return self._layer

    @layer.setter
    def layer(self, layer: NewLayer) -> None:
        self._layer = layer


class Draft(Overlay):
    """A place for new images over the place of old ones; `upper` is a `Spool`."""

    upper: Spool

    def __init__(self, lower: Source, upper: Spool | None = None) -> None:
        super().__init__(lower, upper or Spool())

    def put(self, media_type: str, data: bytes, algorithm: str = "sha256") -> Descriptor:
        """Keep some small content; its descriptor."""
        desc = Descriptor.of(media_type, data, algorithm=algorithm)
        self.push(desc, io.BytesIO(data))
        return desc


def draft(source: Source, *others: Source) -> Draft:
    """The draft a new image goes to: the one its parent is in already, or a new one over the parent's place.

    Args:
        source: Where the parent is.
        others: Where else content of the new image may be.
    """
    below = source.lower if isinstance(source, Draft) else source
    known = below.sources if isinstance(below, Union) else (below,)
    wanted = [s for s in others if s is not source and s not in known]
    if isinstance(source, Draft):
        return Draft(Union(*known, *wanted), source.upper) if wanted else source
    return Draft(Union(*known, *wanted) if wanted else source)
