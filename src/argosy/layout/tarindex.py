"""The members of a stranger's tar archive, found once and read at any offset. Nothing is ever extracted.

The archive must be seekable and uncompressed for that; whatever is not (a pipe, gzip, zstd, xz, bzip2) is first written
to an unnamed temporary file, of which nothing is left behind. Then only headers are read, so that an archive of
gigabytes is opened at once. Names that escape, members that end behind the archive's end, and two members of one name
with different content are refused; links are followed inside the archive only.
"""

from __future__ import annotations

import bz2
import functools
import lzma
import os
import posixpath
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from argosy.content.protocols import SupportsRead
from argosy.errors import InvalidLayerError, InvalidLayoutError, NameUnknownError
from argosy.layer.compression import Compression, Decoder, uncompressed
from argosy.layer.entry import Entry, EntryType, Limits, shown
from argosy.layer.meter import Meter
from argosy.layer.tarheader import pad
from argosy.layer.tarstream import TarReader
from argosy.layout.blobs import open_regular
from argosy.layout.durable import storage_error, storage_errors
from argosy.spec.digest import Digest, hasher

STANDARD = "-"
"""The path that stands for stdin or stdout."""
MAX_MEMBERS = 100_000
MAX_LINKS = 16
"""How many links lead from one member to another before it is a loop."""
MAX_SIZE = 1 << 40
"""The most bytes an archive may have once it is decompressed."""

_CHUNK = 1 << 20
_HEADERS = 4096
_INPUT = 1 << 16
_MAX_NAME = 4096
_OFFSET = re.compile(r"^at offset \d+: ")  # counted from this member, and so of no use
_LINKS = (EntryType.SYMLINK, EntryType.HARDLINK)


class _Method(NamedTuple):
    """A compression that no media type of a layer says, and that Docker reads all the same."""

    name: str
    begins: re.Pattern[bytes]
    decoder: Callable[[], Decoder]


_METHODS = (
    _Method(
        "xz",
        re.compile(rb"\xfd7zXZ\0"),
        functools.partial(lzma.LZMADecompressor, format=lzma.FORMAT_XZ, memlimit=96 << 20),
    ),
    _Method("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor),
)
_HEAD = 10
"""How many first bytes tell one."""


class Member(NamedTuple):
    """One file of the archive: where its content begins, its size in bytes, or what it links to.

    An unpacked one lies in a file beside the archive.
    """

    name: str
    offset: int
    size: int
    link: str | None = None
    unpacked: bool = False


class MemberReader:
    """The content of a member, beginning anywhere (`Resumable`). Several read one archive at the same time."""

    def __init__(self, fd: int, member: Member) -> None:
        self._fd, self._at, self._end = fd, member.offset, member.offset + member.size

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes."""
        left = self._end - self._at
        data = os.pread(self._fd, left if size < 0 else min(size, left), self._at)
        self._at += len(data)
        return data

    def start_at(self, offset: int, /) -> None:
        """Go to a byte of the member."""
        self._at += offset


class TarIndex:
    """The members of an archive by name.

    Args:
        path: The file; `-` is stdin. A FIFO is read to its end.

    Raises:
        NameUnknownError: there is no such file.
        InvalidLayoutError: it is no tar archive, is cut off, or holds what an archive of images must not.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.where = "stdin" if self.path == STANDARD else self.path
        self._file = _seekable(self.path, self.where)
        self._fd = self._file.fileno()
        self._members: dict[str, Member] = {}
        self._plain: dict[int, Member] = {}
        self._beside: BinaryIO | None = None
        self._meter = Meter(
            Limits(content=MAX_SIZE)
        )  # one for all: many small bombs are a large one
        try:
            with storage_errors(self.where):
                self._scan(os.fstat(self._fd).st_size)
        except BaseException:
            self._file.close()
            raise

    def _scan(self, size: int) -> None:
        at = count = 0
        while at < size:
            entry = self._entry(at)
            if entry is None:
                break
            count += 1
            if count > MAX_MEMBERS:
                raise self._error(at, f"more than {MAX_MEMBERS} members")
            start = at + entry.offset
            if start + entry.stored > size:
                raise self._error(
                    at,
                    f"member {shown(entry.name)} of {entry.stored} bytes ends behind the end of the archive "
                    f"({size} bytes): it is cut off",
                )
            self._add(entry, at, start)
            at = start + entry.stored + pad(entry.stored)
        if not count:
            raise InvalidLayoutError(f"{self.where}: no tar archive, or an empty one")

    def _entry(self, at: int) -> Entry | None:
        try:
            return next(iter(TarReader(self._headers(at), limits=Limits(content=MAX_SIZE))), None)
        except InvalidLayerError as exc:
            raise self._error(at, _OFFSET.sub("", str(exc))) from None

    def _headers(self, at: int) -> Iterator[bytes]:
        while data := os.pread(self._fd, _HEADERS, at):
            yield data
            at += len(data)

    def _error(self, at: int, rule: str) -> InvalidLayoutError:
        return InvalidLayoutError(f"{self.where}: at byte {at}: {rule}")

    def _add(self, entry: Entry, at: int, start: int) -> None:
        name = self._name(entry.name, at)
        if entry.type is EntryType.DIRECTORY or not name:
            return
        link = None
        if entry.type in _LINKS:
            target = entry.linkname.decode("utf-8", "replace")
            above = posixpath.dirname(name) if entry.type is EntryType.SYMLINK else ""
            link = posixpath.normpath(posixpath.join(above, target))
        elif entry.type is not EntryType.FILE or entry.sparse is not None:
            kind = "sparse" if entry.sparse is not None else entry.type.name.lower()
            raise self._error(
                at, f"member {shown(entry.name)}: a {kind} member is no part of an image"
            )
        member = Member(name, start, entry.stored, link)
        known = self._members.get(name)
        if known is not None and not self._alike(known, member):
            raise self._error(
                at, f"member {shown(entry.name)} is there twice, with different content"
            )
        self._members[name] = member

    def _name(self, raw: bytes, at: int) -> str:
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self._error(at, f"member {shown(raw)}: a name that is not UTF-8") from None
        if text.startswith("/") or ".." in text.split("/"):
            raise self._error(at, f"member {shown(raw)}: a name that leads out of the archive")
        name = posixpath.normpath(text)
        return "" if name == "." else name

    def _alike(self, one: Member, other: Member) -> bool:
        if (one.size, one.link) != (other.size, other.link):
            return False
        return self._hash(one) == self._hash(other)

    def _hash(self, member: Member) -> str:
        made, stream = hasher(), self.stream(member)
        while data := stream.read(_CHUNK):
            made.update(data)
        return made.hexdigest()

    def __iter__(self) -> Iterator[str]:
        """The names, in the archive's order."""
        return iter(self._members)

    def find(self, name: str) -> Member | None:
        """The file of a name, links followed; None where there is none.

        Raises:
            InvalidLayoutError: links go round in a circle, or out of the archive.
        """
        wanted = posixpath.normpath(name) if len(name) <= _MAX_NAME else ""
        for _ in range(MAX_LINKS):
            member = self._members.get(wanted) or self._through(wanted)
            if member is None or member.link is None:
                return member
            wanted = member.link
            if wanted.startswith(("/", "../")) or wanted == ".." or len(wanted) > _MAX_NAME:
                raise InvalidLayoutError(
                    f"{self.where}: {name}: a link that leads out of the archive"
                )
        raise InvalidLayoutError(f"{self.where}: {name}: more than {MAX_LINKS} links, or a circle")

    def _through(self, name: str) -> Member | None:
        """A name below a directory that is a link: as the link to where it leads."""
        above = posixpath.dirname(name)
        while above.strip("/"):
            link = self._members.get(above)
            if link is not None and link.link is not None:
                return Member(name, 0, 0, posixpath.normpath(link.link + name[len(above) :]))
            above = posixpath.dirname(above)
        return None

    def stream(self, member: Member) -> MemberReader:
        """Read a member."""
        beside = self._beside if member.unpacked else None
        return MemberReader(self._fd if beside is None else beside.fileno(), member)

    def plain(self, member: Member) -> Member:
        """A member, or what is in it if it is compressed with xz or bzip2: no media type of a layer says that.

        Raises:
            InvalidLayoutError: it is damaged, or is a bomb.
        """
        stream = self.stream(member)
        head = stream.read(_HEAD)
        method = _method(head)
        if method is None:
            return member
        found = self._plain.get(member.offset)
        if found is None:
            where = f"{self.where}: {member.name}"
            found = self._unpack(_unpacking(method, head, stream, where, self._meter), member.name)
            self._plain[member.offset] = found
        return found

    def _unpack(self, pieces: Iterator[bytes], name: str) -> Member:
        if self._beside is None:
            self._beside = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the archive
        start = self._beside.tell()
        try:
            with storage_errors("temporary file"):
                self._beside.writelines(pieces)
                self._beside.flush()
        except InvalidLayerError as exc:
            raise InvalidLayoutError(str(exc)) from None
        return Member(name, start, self._beside.tell() - start, unpacked=True)

    def small(self, name: str, limit: int) -> bytes | None:
        """The content of a small member, or None where there is none.

        Raises:
            InvalidLayoutError: it is larger than `limit` bytes; it is not read then (CVE-2023-25153).
        """
        member = self.find(name)
        if member is None:
            return None
        if member.size > limit:
            raise InvalidLayoutError(
                f"{self.where}: {name}: {member.size} bytes are over the limit of {limit} bytes"
            )
        stream = self.stream(member)
        return b"".join(iter(lambda: stream.read(_CHUNK), b""))

    def digest(self, member: Member) -> Digest:
        """The digest of a member, read whole."""
        return Digest(f"sha256:{self._hash(member)}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._beside is not None:
            self._beside.close()


def _seekable(path: str, where: str) -> BinaryIO:
    """The archive as an uncompressed file that can be read at any offset."""
    try:
        fd = _opened(path)
    except (FileNotFoundError, NotADirectoryError):
        raise NameUnknownError(f"{where}: no such file") from None
    except OSError as exc:
        raise storage_error(exc, where) from exc
    file = open(fd, "rb", buffering=0)  # noqa: SIM115 - closed by who asked
    with storage_errors(where):
        regular = stat.S_ISREG(os.fstat(fd).st_mode) and file.tell() == 0
        head = os.pread(fd, _HEAD, 0) if regular else b""
        if regular and not _method(head) and Compression.sniff(head) is Compression.NONE:
            return file
        with file:
            return _unpacked(file, where)


def _opened(path: str) -> int:
    if path == STANDARD:
        return os.dup(0)
    if stat.S_ISFIFO(os.stat(path).st_mode):
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # who names one waits for its writer
    return open_regular(path)


def _unpacked(file: SupportsRead, where: str) -> BinaryIO:
    out: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who asked
    try:
        out.writelines(_decompressed(file, where))
        out.flush()
    except InvalidLayerError as exc:
        out.close()
        raise InvalidLayoutError(str(exc)) from None
    except BaseException:
        out.close()
        raise
    return out


class _Again:
    """A stream of which the head was read already."""

    def __init__(self, head: bytes, stream: SupportsRead) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1, /) -> bytes:
        head, self._head = self._head, b""
        return head or self._stream.read(size)


def _decompressed(file: SupportsRead, where: str) -> Iterator[bytes]:
    head = b""
    while len(head) < _HEAD and (data := file.read(_HEAD - len(head))):
        head += data
    if method := _method(head):
        yield from _unpacking(method, head, file, where, Meter(Limits(content=MAX_SIZE)))
    else:
        yield from uncompressed(_Again(head, file), limits=Limits(content=MAX_SIZE), where=where)


def _method(head: bytes) -> _Method | None:
    return next((method for method in _METHODS if method.begins.match(head)), None)


def _unpacking(
    method: _Method, head: bytes, file: SupportsRead, where: str, meter: Meter
) -> Iterator[bytes]:
    """What one stream of a method holds after the other, padding between them left out."""
    decoder, data = method.decoder(), head
    try:
        while True:
            meter.took(len(data))
            piece = _piece(decoder, data, method.name)
            meter.gave(len(piece))
            yield piece
            data = b""
            if decoder.eof:
                data = decoder.unused_data.lstrip(b"\0")
                while not data and (more := file.read(_INPUT)):
                    data = more.lstrip(b"\0")
                if not data:
                    return
                decoder = method.decoder()
            elif decoder.needs_input and not (data := file.read(_INPUT)):
                raise InvalidLayerError("the compressed stream is cut off")
    except InvalidLayerError as exc:
        raise InvalidLayerError(f"{where}: {exc}") from None


def _piece(decoder: Decoder, data: bytes, name: str) -> bytes:
    try:
        return decoder.decompress(data, _CHUNK)
    except (lzma.LZMAError, OSError) as exc:
        raise InvalidLayerError(f"not {name}: {exc}") from None
