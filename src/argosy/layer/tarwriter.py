"""A tar archive written to a stream, one digest for one content.

The bytes are those of Go's `archive/tar`, which most tools of the field write with: ustar where everything fits, a PAX
header with sorted records where it does not, times in whole seconds, no user names, no padding after the two empty
blocks that end it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Protocol, Self

from argosy.errors import InvalidLayerError
from argosy.layer.entry import Entry, EntryType, shown
from argosy.layer.tarheader import BLOCK, XATTR, format_records, octal, pad

__all__ = ["SupportsWrite", "TarWriter", "header"]

_MAX_HEADER: Final = 1 << 20
_MAX_SIZE: Final = 1 << 63
_ZEROS: Final = bytes(2 * BLOCK)


class SupportsWrite(Protocol):
    """Anything with a `write(data)` that takes all of it."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take all of the data."""


class TarWriter:
    r"""Entries in, tar out. Leaving the `with` block without an error ends the archive.

    Args:
        out: Where the bytes go.

    >>> import io
    >>> out = io.BytesIO()
    >>> with TarWriter(out) as tar:
    ...     _ = tar.add(Entry(name=b"etc/", type=EntryType.DIRECTORY, mode=0o755))
    >>> len(out.getvalue())
    1536
    """

    def __init__(self, out: SupportsWrite) -> None:
        self._out = out
        self.size = 0
        """Bytes written so far."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()

    def add(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> int:
        """Write one entry with its content; a sparse entry is written whole.

        Args:
            entry: What to write; `offset`, `stored` and `sparse` are not looked at.
            content: Exactly `entry.size` bytes.

        Returns:
            Where the content begins in the archive.

        Raises:
            InvalidLayerError: The entry cannot be written, or its content has another size.
        """
        self._write(header(entry))
        start, left = self.size, entry.size if entry.type is EntryType.FILE else 0
        for chunk in content:
            left -= len(chunk)
            if left < 0:
                break
            self._write(chunk)
        if left:
            raise InvalidLayerError(
                f"entry {shown(entry.name)}: content is not of the size {entry.size}"
            )
        if rest := pad(self.size - start):
            self._write(_ZEROS[:rest])
        return start

    def close(self) -> None:
        """Write the two empty blocks that end an archive."""
        self._write(_ZEROS)

    def _write(self, data: bytes | memoryview) -> None:
        self._out.write(data)
        self.size += len(data)


def header(entry: Entry) -> bytes:
    """The header blocks of an entry, its PAX header included.

    Raises:
        InvalidLayerError: A number fits no field, a name holds a NUL, an attribute's name a `=`,
            or the PAX header is too large.
    """
    records = _records(entry)
    if records:
        return _pax(entry, records) + _block(entry, entry.name, b"", plain=False)
    split = _split(entry.name) if len(entry.name) > 100 else None
    prefix, name = split or (b"", entry.name)
    return _block(entry, name, prefix, plain=True)


def _records(entry: Entry) -> dict[bytes, bytes]:
    """The PAX records an entry needs; empty where a ustar header holds it."""
    if b"\0" in entry.name or b"\0" in entry.linkname:
        raise InvalidLayerError(f"entry {shown(entry.name)}: a path holds a NUL byte")
    if bad := next((name for name in (*entry.xattrs, *entry.records) if b"=" in name), None):
        # As Go: the record would be read as one of a shorter name, with the rest in its value.
        raise InvalidLayerError(
            f"entry {shown(entry.name)}: no tar header holds an attribute {shown(bad)}"
        )
    found = dict(entry.records)
    found.update((XATTR + name, value) for name, value in entry.xattrs.items())
    seconds = entry.mtime // 10**9
    for key, value, width in (
        (b"uid", entry.uid, 8),
        (b"gid", entry.gid, 8),
        (b"size", entry.size, 12),
    ):
        if not 0 <= value < _MAX_SIZE:
            raise InvalidLayerError(
                f"entry {shown(entry.name)}: {key.decode()} {value} is outside 0 to 2**63"
            )
        if octal(value, width) is None:
            found[key] = b"%d" % value
    if octal(seconds, 12) is None:
        found[b"mtime"] = b"%d" % seconds
    if not entry.linkname.isascii() or len(entry.linkname) > 100:
        found[b"linkpath"] = entry.linkname
    # A long name that ustar can split needs no record by itself, but gets one beside others.
    if not entry.name.isascii() or (
        len(entry.name) > 100 and (found or _split(entry.name) is None)
    ):
        found[b"path"] = entry.name
    return found


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """A name as ustar's prefix and name; None where it cannot be split."""
    length = 156 if len(name) > 156 else len(name) - name.endswith(b"/")
    at = name.rfind(b"/", 0, length)
    rest = len(name) - at - 1
    if at <= 0 or not 0 < rest <= 100 or at > 155:
        return None
    return name[:at], name[at + 1 :]


def _pax(entry: Entry, records: dict[bytes, bytes]) -> bytes:
    data = format_records(records)
    if len(data) > _MAX_HEADER:
        raise InvalidLayerError(
            f"entry {shown(entry.name)}: its PAX header is larger than {_MAX_HEADER} bytes"
        )
    folder, _, base = entry.name.rpartition(b"/")
    slash = b"/" if entry.name.startswith(b"/") else b""
    name = posixpath.normpath(
        slash + folder + b"/PaxHeaders.0/" + base if folder else slash + b"PaxHeaders.0/" + base
    )
    block = bytearray(BLOCK)
    _put(block, 0, _ascii(name)[:100].rstrip(b"/"))
    zero = Entry(name=b"", mode=0, size=len(data))
    _numbers(block, zero)
    block[156:157] = b"x"
    return _sealed(block) + data + bytes(pad(len(data)))


def _block(entry: Entry, name: bytes, prefix: bytes, *, plain: bool) -> bytes:
    block = bytearray(BLOCK)
    ascii_name, link = (name, entry.linkname) if plain else (_ascii(name), _ascii(entry.linkname))
    _put(block, 0, _cut(ascii_name))
    _numbers(block, entry)
    block[156:157] = entry.type.value
    _put(block, 157, _cut(link))
    for at, value in zip((329, 337), entry.device, strict=True):
        field = octal(value, 8)
        if field is None:
            raise InvalidLayerError(
                f"entry {shown(entry.name)}: device number {value} fits no tar header"
            )
        block[at : at + 8] = field
    _put(block, 345, prefix)
    return _sealed(block)


def _numbers(block: bytearray, entry: Entry) -> None:
    size = entry.size if entry.type is EntryType.FILE else 0
    fields = ((100, 8, entry.mode), (108, 8, entry.uid), (116, 8, entry.gid), (124, 12, size))
    for at, width, value in (*fields, (136, 12, entry.mtime // 10**9)):
        block[at : at + width] = octal(value, width) or octal(0, width) or b""


def _sealed(block: bytearray) -> bytes:
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _put(block: bytearray, at: int, value: bytes) -> None:
    block[at : at + len(value)] = value


def _cut(value: bytes) -> bytes:
    """A name in its 100 bytes; never ending in a slash by the cut, which old readers take for a directory."""
    if len(value) > 100 and value[99:100] == b"/":
        return value[:99].rstrip(b"/")
    return value[:100]


def _ascii(value: bytes) -> bytes:
    if value.isascii():
        return value
    return value.decode("utf-8", "replace").encode("ascii", "ignore")
