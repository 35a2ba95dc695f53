"""As much of the RPM package format as a source image needs: the header's name, version, licence and their kind.

A package file is a lead of 96 bytes, a signature header padded to 8 bytes, the header, and the payload. A header is a
table of (tag, type, offset, count) over a store of bytes, big-endian (RPM's `docs/manual/format_v4.md`).
"""

from __future__ import annotations

import dataclasses
import struct
from typing import BinaryIO

from argosy.errors import InvalidError

__all__ = ["InvalidPackageError", "Package", "read_package"]

_LEAD = struct.Struct(">4sBBhh66shh16s")
_HEADER = struct.Struct(">4s4xII")
_ENTRY = struct.Struct(">iIiI")
_LEAD_MAGIC = b"\xed\xab\xee\xdb"
_HEADER_MAGIC = b"\x8e\xad\xe8\x01"
_MAX_ENTRIES = 1 << 16
_MAX_STORE = 64 << 20
_MAX_STRING = 64 << 10
_INTEGERS = {2: "B", 3: "H", 4: "I", 5: "Q"}
_STRINGS = frozenset({6, 8, 9})
_SIGNATURE_MD5 = 1004
_TAGS = {
    1000: "name", 1001: "version", 1002: "release", 1003: "epoch", 1006: "buildtime",
    1014: "license", 1022: "arch", 1106: "source_package",
}  # fmt: skip


class InvalidPackageError(InvalidError):
    """A file that is no RPM package, or a damaged one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What a package says of itself; empty where it says nothing.

    Args:
        name: Its name.
        version: Its version.
        release: Its release.
        epoch: Its epoch, in decimal digits.
        license: Its licence.
        arch: The architecture it was built on.
        buildtime: Seconds since 1970, in decimal digits.
        pkgid: MD5 of header and payload, in hexadecimal digits.
        is_source: Whether it is a source package.
    """

    name: str = ""
    version: str = ""
    release: str = ""
    epoch: str = ""
    license: str = ""
    arch: str = ""
    buildtime: str = ""
    pkgid: str = ""
    is_source: bool = False


def read_package(file: BinaryIO, where: str = "package") -> Package:
    """Read the headers of a package file; its payload is not looked at.

    Args:
        file: The package, at its beginning.
        where: What to call it in messages.

    Raises:
        InvalidPackageError: it is none, or a header is damaged or larger than 64 MiB.
    """
    try:
        lead = _exactly(file, _LEAD.size)
        if lead[:4] != _LEAD_MAGIC:
            raise InvalidPackageError("not an RPM package")
        is_source = int.from_bytes(lead[6:8], "big") == 1
        signature = _header(file, {_SIGNATURE_MD5: "pkgid"}, padded=True)
        found = _header(file, _TAGS)
    except InvalidPackageError as exc:
        raise InvalidPackageError(f"{where}: {exc}") from None
    is_source = is_source or found.pop("source_package", "") == "1"
    return Package(**found, pkgid=signature.get("pkgid", ""), is_source=is_source)


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise InvalidPackageError("the package is cut off inside its headers")
    return data


def _header(file: BinaryIO, tags: dict[int, str], *, padded: bool = False) -> dict[str, str]:
    magic, count, size = _HEADER.unpack(_exactly(file, _HEADER.size))
    if magic != _HEADER_MAGIC:
        raise InvalidPackageError("a header does not begin as one")
    if count > _MAX_ENTRIES or size > _MAX_STORE:
        raise InvalidPackageError(f"a header of {count} entries and {size} bytes is too large")
    table = _exactly(file, count * _ENTRY.size)
    store = _exactly(file, size)
    if padded:
        _exactly(file, -size % 8)
    return {
        tags[tag]: _value(store, kind, offset, number)
        for tag, kind, offset, number in _ENTRY.iter_unpack(table)
        if tag in tags
    }


def _value(store: bytes, kind: int, offset: int, count: int) -> str:
    """The first value of an entry as text; binary ones in hexadecimal digits."""
    if not 0 <= offset <= len(store):
        raise InvalidPackageError(f"an entry points to byte {offset} of {len(store)}")
    if kind in _STRINGS:
        end = store.find(b"\0", offset, offset + _MAX_STRING)
        if end < 0:
            raise InvalidPackageError("a string has no end")
        return store[offset:end].decode("utf-8", "replace")
    if kind == 7 and count <= _MAX_STRING and offset + count <= len(store):
        return store[offset : offset + count].hex()
    form = _INTEGERS.get(kind)
    if form is None or not count or offset + struct.calcsize(form) > len(store):
        raise InvalidPackageError(f"an entry of type {kind} is damaged")
    return str(struct.unpack_from(f">{form}", store, offset)[0])
