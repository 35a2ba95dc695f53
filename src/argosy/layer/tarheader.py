"""Numbers, checksums and records of tar headers, byte for byte.

Reading is strict where leniency would let two tools see two archives in one stream: signs, underscores and garbage in
numbers, sizes below zero, PAX records whose length is not their length. Writing follows Go's `archive/tar`, so that a
layer argosy writes has the bytes a Go tool would have written.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from argosy.errors import InvalidLayerError

__all__ = [
    "BLOCK",
    "checksum_ok",
    "decimal",
    "format_records",
    "nanoseconds",
    "number",
    "octal",
    "pad",
    "parse_records",
    "seconds",
    "text",
    "xattrs_of",
]

BLOCK: Final = 512
XATTR: Final = b"SCHILY.xattr."
LIBARCHIVE_XATTR: Final = b"LIBARCHIVE.xattr."
_ADLER: Final = 65521
_BLANKS: Final = b" " * 8
_MAX_SECONDS: Final = 1 << 48
_TIME: Final = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]*))?\Z")


def pad(size: int) -> int:
    """Bytes from the end of content of this size to the next block.

    >>> pad(1), pad(512)
    (511, 0)
    """
    return -size & (BLOCK - 1)


def text(field: bytes) -> bytes:
    """The bytes of a field up to its first NUL."""
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def number(field: bytes) -> int:
    r"""A numeric field: octal, or base-256 (GNU) where the first bit is set; empty is 0.

    Raises:
        InvalidLayerError: Neither.

    >>> number(b"0000644\0"), number(b"\xff" * 8), number(b"\x80\0\0\0\0\0\x01\0")
    (420, -1, 256)
    """
    digits = field[:-1]
    if not (digits.isdigit() and field[-1] in b"\0 "):
        if field[0] & 0x80:
            return _binary(field)
        digits = text(field.lstrip(b"\0 ")).strip(b" ") or b"0"
        if not digits.isdigit():
            raise InvalidLayerError(f"{digits!r} is not a number of tar")
    try:
        return int(digits, 8)
    except ValueError:
        raise InvalidLayerError(f"{digits!r} is not a number of tar") from None


def _binary(field: bytes) -> int:
    """A number in base-256: two's complement, of which the first bit is the mark and the second the sign."""
    bits = 8 * len(field) - (0 if field[0] & 0x40 else 1)
    return int.from_bytes(field, "big") - (1 << bits)


@functools.lru_cache(1024)
def nanoseconds(field: bytes) -> int:
    """A time of a header, whole seconds there, in nanoseconds; neighbours often have the same one.

    Raises:
        InvalidLayerError: It is no number.
    """
    return number(field) * 10**9


def octal(value: int, width: int) -> bytes | None:
    """A value in a field of this many bytes, or None where it does not fit.

    >>> octal(0o644, 8), octal(1 << 40, 8)
    (b'0000644\\x00', None)
    """
    if value < 0 or value >= 1 << 3 * (width - 1):
        return None
    return b"%0*o\0" % (width - 1, value)


def checksum_ok(block: bytes) -> bool:
    """Whether the header's checksum is the sum of its bytes, unsigned or (as old tars did) signed."""
    # The low half of Adler-32 is 1 + the sum of the bytes modulo 65521: the same sum, made in C.
    return zlib.adler32(block) & 0xFFFF == _adler_of(block[148:156]) or _signed_sum_ok(block)


@functools.lru_cache(4096)
def _adler_of(field: bytes) -> int:
    """The low half of a header's Adler-32 where this checksum is right; -1 where it is no number."""
    try:
        claimed = number(field)
    except InvalidLayerError:
        return -1
    # The checksum is of the header with blanks in its own place.
    return (1 + claimed - sum(_BLANKS) + sum(field)) % _ADLER


def _signed_sum_ok(block: bytes) -> bool:
    try:
        claimed = number(block[148:156])
    except InvalidLayerError:
        return False
    blank = block[:148] + _BLANKS + block[156:]
    return claimed == sum(byte - 256 if byte > 127 else byte for byte in blank)


def parse_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    r"""The records of a PAX extended header, in order, repetitions included.

    Raises:
        InvalidLayerError: A record's length is not its length, or it has no key.

    >>> list(parse_records(b"12 path=a/b\n"))
    [(b'path', b'a/b')]
    """
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 12)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        if not space + 1 < end <= len(data) or data[end - 1] != 0x0A:
            raise InvalidLayerError("a PAX record is not as long as it says")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise InvalidLayerError("a PAX record has no key")
        yield key, value
        at = end


def format_records(records: Mapping[bytes, bytes]) -> bytes:
    r"""Records of a PAX extended header, sorted by key.

    >>> format_records({b"path": b"a/b"})
    b'12 path=a/b\n'
    """
    return b"".join(_record(key, records[key]) for key in sorted(records))


def _record(key: bytes, value: bytes) -> bytes:
    rest = b" %s=%s\n" % (key, value)
    size = len(rest)
    # The length counts its own digits: the second guess is always right.
    size = len(rest) + len(str(len(rest) + len(str(size))))
    return b"%d%s" % (size, rest)


def decimal(value: bytes, key: bytes) -> int:
    """A PAX number that must not be negative.

    Raises:
        InvalidLayerError: It is not one, or has more digits than any size of 63 bits.
    """
    if not value.isdigit() or len(value) > 19:
        raise InvalidLayerError(
            f"{key.decode('ascii', 'replace')} of {value[:40]!r} is not a number"
        )
    return int(value)


def seconds(value: bytes) -> int:
    """A PAX time in nanoseconds; digits past the ninth are cut.

    Raises:
        InvalidLayerError: It is not a time, or one no file system can hold.

    >>> seconds(b"1.5"), seconds(b"-0.25")
    (1500000000, -250000000)
    """
    match = _TIME.match(value)
    if match is None or len(match[2]) > 15 or int(match[2]) > _MAX_SECONDS:
        raise InvalidLayerError(f"mtime of {value[:40]!r} is not a time")
    total = int(match[2]) * 10**9 + int((match[3] or b"")[:9].ljust(9, b"0"))
    return -total if match[1] else total


def xattrs_of(records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The extended attributes among PAX records: star's form, else libarchive's; the former wins.

    Raises:
        InvalidLayerError: A name is empty, or libarchive's encoding is broken.
    """
    found: dict[bytes, bytes] = {}
    for key, value in records.items():
        if key.startswith(LIBARCHIVE_XATTR):
            name = unquote_to_bytes(key[len(LIBARCHIVE_XATTR) :])
            try:
                found.setdefault(
                    name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
                )
            except binascii.Error:
                raise InvalidLayerError(f"{key[:80]!r} is not base64") from None
        elif key.startswith(XATTR):
            found[key[len(XATTR) :]] = value
    if any(not name or b"\0" in name for name in found):
        raise InvalidLayerError("an extended attribute has no name")
    return found
