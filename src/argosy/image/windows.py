"""Changesets for Windows images: files below `Files/`, a `Hives/` beside it, and a security descriptor on each entry.

The descriptor makes BUILTIN/Users owner and group (SDDL `O:BUG:BU`), without which a program does not start.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable

from argosy.layer.entry import Entry, EntryType, clean_name
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import SupportsWrite, TarWriter

__all__ = ["as_windows"]

_DESCRIPTOR = b"MSWINDOWS.rawsd"
# S-1-5-32-545: revision, count, authority, then its parts.
_USERS = struct.pack("<BB", 1, 2) + (5).to_bytes(6, "big") + struct.pack("<II", 32, 545)
# Self-relative: revision, control, where owner and group begin, no lists.
_USERS_OWN = base64.b64encode(
    struct.pack("<BxHIIII", 1, 0x8000, 20, 20 + len(_USERS), 0, 0) + _USERS + _USERS
)


def as_windows(pieces: Iterable[bytes], out: SupportsWrite) -> None:
    """Write a changeset as Windows wants it; one that is so already keeps its names.

    Args:
        pieces: The changeset, uncompressed.
        out: Where the new one goes.

    Raises:
        InvalidLayerError: it is no tar archive.
    """
    reader = TarReader(pieces)
    with TarWriter(out) as tar:
        ready = False
        for position, entry in enumerate(reader):
            top = clean_name(entry.name).partition(b"/")[0]
            if not position:
                ready = top in (b"Files", b"Hives")
                if not ready:
                    tar.add(_folder(b"Files/"))
                    tar.add(_folder(b"Hives/"))
            tar.add(entry if ready else _moved(entry), reader.whole())
        reader.drain()


def _folder(name: bytes) -> Entry:
    records = {_DESCRIPTOR: _USERS_OWN}
    return Entry(name=name, type=EntryType.DIRECTORY, mode=0o555, records=records)


def _moved(entry: Entry) -> Entry:
    name = b"Files/" + clean_name(entry.name)
    linkname = entry.linkname
    if entry.type is EntryType.HARDLINK:
        linkname = b"Files/" + clean_name(linkname)
    if entry.type is EntryType.DIRECTORY:
        name = name.rstrip(b"/") + b"/"
    records = {_DESCRIPTOR: _USERS_OWN, **entry.records}
    return entry._replace(name=name, linkname=linkname, records=records, sparse=None)
