"""A tar archive read from a stream of bytes: v7, ustar, PAX, GNU, star, sparse files, base-256 numbers.

Nothing is held but one chunk and one header; content is handed on as views of the chunks it came in. What another
tool might understand otherwise is refused, and every size has a limit. Global PAX headers are checked and ignored, as
every tool that applies layers does; an empty PAX value means the header's own field holds (POSIX), but an extended
attribute may be empty. `TarWriter` is in `tarwriter`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol, cast

from argosy.errors import InvalidLayerError
from argosy.layer.entry import EMPTY, Entry, EntryType, Limits, shown
from argosy.layer.meter import Meter
from argosy.layer.tarbytes import Bytes
from argosy.layer.tarheader import (
    BLOCK,
    LIBARCHIVE_XATTR,
    XATTR,
    checksum_ok,
    decimal,
    nanoseconds,
    number,
    pad,
    parse_records,
    seconds,
    text,
    xattrs_of,
)
from argosy.layer.tarsparse import checked, map_in_content, map_in_header, map_in_records

__all__ = ["SupportsRead", "TarReader", "chunks_of"]

_ZERO: Final = bytes(BLOCK)
_NOTHING: Final = memoryview(b"")
_CHUNK: Final = 1 << 18
_MAX_ID: Final = (1 << 32) - 2  # 2**32 - 1 is "leave it" to chown
_TYPES: Final = {member.value: member for member in EntryType} | {
    b"\0": EntryType.FILE,
    b"7": EntryType.FILE,
    b"S": EntryType.FILE,
}
_LINKS: Final = frozenset((EntryType.HARDLINK, EntryType.SYMLINK))
_DEVICES: Final = frozenset((EntryType.CHARACTER, EntryType.BLOCK))
_NO_DEVICE: Final = (0, 0)
_EXTENDED: Final = frozenset((b"x", b"g", b"L", b"K"))
_KEPT: Final = frozenset(
    b"path linkpath size uid gid mtime atime ctime uname gname hdrcharset".split()
)


class SupportsRead(Protocol):
    """Anything with a `read(n)` that gives at most n bytes, and none at the end."""

    def read(self, n: int, /) -> bytes:
        """At most n bytes."""


def chunks_of(source: SupportsRead | Iterable[bytes], size: int = _CHUNK) -> Iterator[bytes]:
    """A readable's bytes in chunks of at most this size; chunks as they are."""
    read = getattr(source, "read", None)
    if read is None:
        return iter(cast("Iterable[bytes]", source))
    return iter(lambda: read(size), b"")


class _Extension:
    """What extended headers said of the entry that follows them."""

    __slots__ = ("linkname", "name", "records", "size")

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.linkname: bytes | None = None
        self.records: list[tuple[bytes, bytes]] = []
        self.size = 0


class TarReader:
    r"""The entries of a tar archive, one after the other; each one's content is read before the next.

    Args:
        source: A readable, or an iterable of chunks of any sizes but zero. Its `meter`, where it has one, counts the
            holes that `whole` fills; else what is read is counted here.
        limits: How much the archive may ask for.
        where: What to call the archive in messages, such as "layer 3".

    Raises:
        InvalidLayerError: While iterating: it is not a tar archive, is cut off, or asks for more than the limits.

    >>> import io
    >>> from argosy.layer.tarwriter import TarWriter
    >>> out = io.BytesIO()
    >>> with TarWriter(out) as tar:
    ...     _ = tar.add(Entry(name=b"hello", size=5), [b"world"])
    >>> reader = TarReader(io.BytesIO(out.getvalue()))
    >>> [(entry.name, b"".join(reader.chunks())) for entry in reader]
    [(b'hello', b'world')]
    """

    def __init__(
        self,
        source: SupportsRead | Iterable[bytes],
        *,
        limits: Limits | None = None,
        where: str = "",
    ) -> None:
        self._limits = limits or Limits()
        chunks = chunks_of(source)
        meter: Meter | None = getattr(source, "meter", None)
        if meter is None:
            meter = Meter(self._limits)
            chunks = meter.passed(chunks)
        self._meter = meter
        self._bytes = Bytes(chunks)
        self._where = f"{where}: " if where else ""
        self._count = 0
        self._left = 0
        self._pad = 0
        self._current: bytes | None = None
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._entry: Entry | None = None

    def __iter__(self) -> Iterator[Entry]:
        """The entries, in order."""
        while True:
            try:
                entry = self._next()
            except InvalidLayerError as error:
                raise self.error(str(error), hint=error.hint) from None
            if entry is None:
                return
            yield entry

    @property
    def offset(self) -> int:
        """Bytes of the archive read so far."""
        return self._bytes.offset

    def error(
        self, rule: str, name: bytes | None = None, *, hint: str | None = None
    ) -> InvalidLayerError:
        """The error that says which layer and entry broke a rule; the current entry where no name is given."""
        place = self.place(self._current if name is None else name)
        return InvalidLayerError(f"{place}: {rule.removeprefix(self._where)}", hint=hint)

    def place(self, name: bytes | None) -> str:
        """Where in which layer: the entry of this name (which may be empty), or the offset reached."""
        at = f"at offset {self._bytes.offset}" if name is None else f"entry {shown(name)}"
        return self._where + at

    def chunks(self) -> Iterator[memoryview]:
        """The content of the current entry as it is stored: of a sparse file, its data regions only."""
        while part := self.part():
            yield part

    def part(self) -> memoryview:
        """The next piece of what `chunks` gives, as much as is at hand; none at the end."""
        if not self._left:
            return _NOTHING
        part = self._bytes.view(self._left)
        if not part:
            raise self.error("the archive ends inside its content")
        self._left -= len(part)
        return part

    def whole(self) -> Iterator[bytes | memoryview]:
        """The content of the current entry with its holes as zeros, which count as what is uncompressed does."""
        entry = self._entry
        if entry is None or entry.sparse is None:
            yield from self.chunks()
            return
        end = 0
        for offset, length in entry.sparse:
            yield from self._hole(offset - end)
            yield from self._exactly(length)
            end = offset + length
        yield from self._hole(entry.size - end)

    def regions(self) -> Iterator[tuple[int, memoryview]]:
        """The content of the current entry as (offset, bytes); of one that is all hole, none."""
        entry = self._entry
        assert entry is not None
        for offset, length in ((0, entry.size),) if entry.sparse is None else entry.sparse:
            at = offset
            for part in self._exactly(length):
                yield at, part
                at += len(part)

    def drain(self) -> None:
        """Read what follows the end of the archive, so that a digest over the stream is over all of it."""
        while self._bytes.view(_CHUNK):
            pass

    def _hole(self, size: int) -> Iterator[bytes]:
        try:
            yield from self._meter.zeros(size)
        except InvalidLayerError as error:
            raise self.error(str(error)) from None

    def _exactly(self, length: int) -> Iterator[memoryview]:
        while length:
            part = self._bytes.view(length)
            if not part:
                raise self.error("the archive ends inside its content")
            length -= len(part)
            self._left -= len(part)
            yield part

    def _read(self, size: int) -> bytes:
        data = self._bytes.read(size)
        if len(data) < size:
            raise InvalidLayerError(f"the archive is cut off, {size - len(data)} bytes are missing")
        return data

    def _next(self) -> Entry | None:
        missing = self._bytes.skip(self._left + self._pad)
        if missing > self._pad:
            raise InvalidLayerError("the archive ends inside its content")
        self._left = self._pad = 0
        if missing:
            # Go's writer leaves out the last padding when nobody closes it, and its reader takes that (umoci insert).
            return None
        self._current = None
        extension: _Extension | None = None
        while True:
            block = self._bytes.read(BLOCK)
            if not (block and block[0]) and self._at_end(block, extension):
                return None
            if len(block) < BLOCK:
                raise InvalidLayerError("the archive is cut off inside a header")
            if not checksum_ok(block):
                raise InvalidLayerError("a header's checksum is wrong")
            flag = block[156:157]
            if flag not in _EXTENDED:
                break
            extension = self._extend(extension or _Extension(), flag, block)
        self._count += 1
        if self._count > self._limits.entries:
            raise InvalidLayerError(f"more than {self._limits.entries} entries")
        self._entry = self._decode(block, flag, extension)
        return self._entry

    def _at_end(self, block: bytes, extension: _Extension | None) -> bool:
        if block and block != _ZERO:
            return False
        if extension is not None and (extension.records or extension.name or extension.linkname):
            raise InvalidLayerError("the archive ends after an extended header")
        if block and (second := self._bytes.read(BLOCK)) not in (b"", _ZERO):
            raise InvalidLayerError(
                "an empty block stands between entries" if len(second) == BLOCK else "cut off"
            )
        return True

    def _extend(self, extension: _Extension, flag: bytes, block: bytes) -> _Extension:
        size = number(block[124:136])
        extension.size += size
        if size < 0 or extension.size > self._limits.header:
            raise InvalidLayerError(f"extended headers of more than {self._limits.header} bytes")
        data = self._read(size)
        self._read(pad(size))
        if flag == b"L":
            extension.name = text(data)
        elif flag == b"K":
            extension.linkname = text(data)
        elif flag == b"x":
            extension.records = list(parse_records(data))
        else:
            for _ in parse_records(data):
                pass
        return extension

    def _owner(self, key: bytes) -> tuple[int, int, int]:
        mode, uid, gid = number(key[:8]), number(key[8:16]), number(key[16:])
        if mode < 0:
            raise InvalidLayerError(f"mode {mode} is negative")
        owner = mode & 0o7777, uid, gid
        if len(self._owners) < 4096:
            self._owners[key] = owner
        return owner

    def _decode(self, block: bytes, flag: bytes, extension: _Extension | None) -> Entry:
        end = block.find(0, 0, 100)
        name = block[:end] if end >= 0 else block[:100]
        if block[345]:
            name = _prefixed(block, name)
        self._current = name
        type_ = _TYPES.get(flag)
        if type_ is None:
            raise InvalidLayerError(f"type {flag!r} is none of the file types of the image-spec")
        key = block[100:124]
        mode, uid, gid = self._owners.get(key) or self._owner(key)
        numbers = mode, uid, gid, number(block[124:136]), nanoseconds(block[136:148])
        linkname = text(block[157:257]) if type_ in _LINKS else b""
        device = _device(block) if type_ in _DEVICES else _NO_DEVICE
        if extension is not None or flag == b"S":
            return self._extended(
                block, flag, extension or _Extension(), (type_, name, linkname, numbers, device)
            )
        return self._made(_aged(type_, flag, name), name, linkname, numbers, device)

    def _made(
        self,
        type_: EntryType,
        name: bytes,
        linkname: bytes,
        numbers: tuple[int, int, int, int, int],
        device: tuple[int, int],
        xattrs: Mapping[bytes, bytes] = EMPTY,
        records: Mapping[bytes, bytes] = EMPTY,
        *,
        sparse: tuple[tuple[int, int], ...] | None = None,
        stored: int | None = None,
    ) -> Entry:
        mode, uid, gid, size, mtime = numbers
        if not (0 <= uid <= _MAX_ID and 0 <= gid <= _MAX_ID):
            raise InvalidLayerError(f"owner {uid}:{gid} is outside 0 to {_MAX_ID}")
        if not -(1 << 79) < mtime < 1 << 79:
            raise InvalidLayerError(f"mtime of {mtime // 10**9} seconds is not a time")
        if type_ is EntryType.FILE:
            if not 0 <= size <= self._limits.content:
                raise InvalidLayerError(f"size {size} is outside 0 to {self._limits.content}")
        else:
            size = 0
        if len(name) > self._limits.path or len(linkname) > self._limits.path:
            raise InvalidLayerError(f"a name or link target of more than {self._limits.path} bytes")
        if stored is None:
            self._left, self._pad = size, pad(size)
        offset, stored = self._bytes.offset, self._left
        # By position, in the order of its fields: names would take as long again.
        return Entry(
            name,
            type_,
            mode,
            uid,
            gid,
            size,
            mtime,
            linkname,
            device,
            xattrs,
            records,
            sparse,
            offset,
            stored,
        )

    def _extended(
        self,
        block: bytes,
        flag: bytes,
        extension: _Extension,
        plain: tuple[EntryType, bytes, bytes, tuple[int, int, int, int, int], tuple[int, int]],
    ) -> Entry:
        type_, name, linkname, (mode, uid, gid, size, mtime), device = plain
        records = dict(extension.records)
        name = _path(extension.name or records.get(b"path") or name)
        type_ = _aged(type_, flag, name)
        if type_ in _LINKS:
            linkname = _path(extension.linkname or records.get(b"linkpath") or linkname)
        self._current = name
        uid = _record(records, b"uid", uid)
        gid = _record(records, b"gid", gid)
        size = _record(records, b"size", size)
        if value := records.get(b"mtime"):
            mtime = seconds(value)
        if type_ in _DEVICES:
            device = (
                _record(records, b"SCHILY.devmajor", device[0]),
                _record(records, b"SCHILY.devminor", device[1]),
            )
        xattrs = xattrs_of(records) or EMPTY
        kept = {key: value for key, value in records.items() if not _known(key)} or EMPTY
        numbers = (mode, uid, gid, size, mtime)
        entry = self._made(type_, name, linkname, numbers, device, xattrs, kept)
        if type_ is EntryType.FILE and (
            flag == b"S" or any(key.startswith(b"GNU.sparse.") for key in records)
        ):
            return self._sparse(block, flag, extension.records, entry)
        return entry

    def _sparse(
        self, block: bytes, flag: bytes, pairs: list[tuple[bytes, bytes]], entry: Entry
    ) -> Entry:
        records, stored = dict(pairs), entry.stored
        size = _record(
            records, b"GNU.sparse.realsize", _record(records, b"GNU.sparse.size", stored)
        )
        regions: list[tuple[int, int]] | None
        if flag == b"S":
            size = number(block[483:495])
            regions = map_in_header(block, self._read, self._limits)
        elif records.get(b"GNU.sparse.major") == b"1":
            regions, taken = map_in_content(self._read, stored, self._limits)
            stored -= taken
            self._left = stored
        else:
            regions = map_in_records(pairs)
        if regions is None:
            return entry
        if not 0 <= size <= self._limits.content:
            raise InvalidLayerError(f"size {size} is outside 0 to {self._limits.content}")
        return self._made(
            entry.type,
            _path(records.get(b"GNU.sparse.name") or entry.name),
            entry.linkname,
            (entry.mode, entry.uid, entry.gid, size, entry.mtime),
            entry.device,
            entry.xattrs,
            entry.records,
            sparse=checked(regions, size, stored, self._limits),
            stored=stored,
        )


def _aged(type_: EntryType, flag: bytes, name: bytes) -> EntryType:
    """The type of an old header, which knows no directories: their whole name ends with a slash (CVE-2025-13462)."""
    return EntryType.DIRECTORY if flag == b"\0" and name.endswith(b"/") else type_


def _prefixed(block: bytes, name: bytes) -> bytes:
    """The name behind ustar's prefix, where there is one."""
    if block[257:262] != b"ustar" or (block[262] == 0x20 and not _gnu_prefix(block)):
        return name
    prefix = block[345:476] if block[508:512] == b"tar\0" else block[345:500]
    return text(prefix) + b"/" + name


def _gnu_prefix(block: bytes) -> bool:
    """GNU's magic means no prefix, but Go before 1.8 wrote one: where its times are no numbers, it is a prefix."""
    for field in (block[345:357], block[357:369]):
        if field.strip(b"01234567 \0") and not field[0] & 0x80:
            return block[345:500].isascii() and block[499] == 0
    return False


def _path(value: bytes) -> bytes:
    if b"\0" in value:
        raise InvalidLayerError("a path holds a NUL byte")
    return value


def _device(block: bytes) -> tuple[int, int]:
    if block[257:262] != b"ustar":
        return _NO_DEVICE
    major, minor = number(block[329:337]), number(block[337:345])
    if not (0 <= major < 1 << 32 and 0 <= minor < 1 << 32):
        raise InvalidLayerError(f"device {major}:{minor} is none")
    return major, minor


def _record(records: dict[bytes, bytes], key: bytes, default: int) -> int:
    value = records.get(key)
    return decimal(value, key) if value else default


def _known(key: bytes) -> bool:
    return key in _KEPT or key.startswith((XATTR, LIBARCHIVE_XATTR, b"GNU.sparse.", b"SCHILY.dev"))
