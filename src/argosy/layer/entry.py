"""What one member of a changeset is: a value, not yet on any disk.

Names, link targets and extended attributes are bytes, because a file name on Linux is bytes and a digest must not
depend on anybody's locale. Times are integers of nanoseconds since 1970. A *whiteout* (image-spec, layer.md,
"Whiteouts") is an entry whose last component begins with `.wh.`; `Whiteout.of` says which kind.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from argosy.errors import InvalidLayerError

__all__ = ["EMPTY", "Entry", "EntryType", "Limits", "Whiteout", "clean_name", "shown"]

EMPTY: Final[Mapping[bytes, bytes]] = MappingProxyType({})
"""No extended attributes, no records."""

WHITEOUT_PREFIX: Final = b".wh."
OPAQUE_WHITEOUT: Final = b".wh..wh..opq"
AUFS_PREFIX: Final = b".wh..wh."
AUFS_LINKS: Final = b".wh..wh.plnk"


class EntryType(enum.Enum):
    """The file types of image-spec "File Types", with the type flag of tar that stands for each."""

    FILE = b"0"
    HARDLINK = b"1"
    SYMLINK = b"2"
    CHARACTER = b"3"
    BLOCK = b"4"
    DIRECTORY = b"5"
    FIFO = b"6"

    __hash__ = object.__hash__  # members are single: no need to hash their names, for every entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a stranger's layer may ask for. Whatever goes past raises `InvalidLayerError`.

    Args:
        entries: Members in one layer.
        path: Bytes in a name or link target (Linux' PATH_MAX).
        depth: Components in a name.
        header: Bytes of extension headers (PAX, GNU long names) for one entry, as Go's `archive/tar` has it.
        sparse: Data regions in one sparse file.
        content: Bytes of the uncompressed stream with holes that are filled, and of one file's apparent size.
        ratio: Uncompressed bytes for each compressed one, once `grace` bytes have come out.
        grace: Uncompressed bytes below which the ratio is not looked at.
        kept: Bytes of names, link targets, records, attributes and sparse maps that are kept in memory, of all layers
            of an image together; more raises `LimitExceededError`.
        window: The base-2 logarithm of the greatest zstd window, which is memory.

    >>> Limits().header
    1048576
    """

    entries: int = 4_000_000
    path: int = 4096
    depth: int = 1024
    header: int = 1 << 20
    sparse: int = 100_000
    content: int = 256 << 30
    ratio: int = 200
    grace: int = 1 << 30
    kept: int = 512 << 20
    window: int = 26


class Entry(NamedTuple):
    """One member of a changeset, as its tar header says it.

    A tuple, because a layer has hundreds of thousands of them: making one takes a seventh of a frozen dataclass's
    time. `entry._replace(mtime=0)` gives a changed one.

    Args:
        name: The path as written in the archive, not cleaned.
        type: What it is.
        mode: Permission bits with set-id and sticky bits, at most 0o7777.
        uid: Owner, 0 to 2**32 - 2.
        gid: Group, as uid.
        size: Apparent size in bytes; 0 for all but files.
        mtime: Nanoseconds since 1970; may be negative.
        linkname: The target of a hard link (a path in the changeset) or a symbolic link (any bytes).
        device: Major and minor number, of devices.
        xattrs: Extended attributes, byte for byte.
        records: PAX records argosy does not read, kept for who writes the entry again.
        sparse: Data regions (offset, length) of a sparse file, or None where the content is whole.
        offset: Where the content begins in the uncompressed stream.
        stored: Bytes of content in the archive (differs from size in sparse files only).

    >>> Entry(name=b"etc/hosts", size=3).type
    <EntryType.FILE: b'0'>
    """

    name: bytes
    type: EntryType = EntryType.FILE
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    linkname: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = EMPTY
    records: Mapping[bytes, bytes] = EMPTY
    sparse: tuple[tuple[int, int], ...] | None = None
    offset: int = 0
    stored: int = 0

    @property
    def path(self) -> bytes:
        """The name, cleaned: `clean_name(self.name)`."""
        return clean_name(self.name)


class Whiteout(enum.Enum):
    """What a name that begins with `.wh.` asks for."""

    PLAIN = "plain"
    OPAQUE = "opaque"
    AUFS = "aufs"

    @classmethod
    def of(cls, base: bytes) -> Whiteout | None:
        """The kind of whiteout that the last component of a path stands for, or None for an ordinary name.

        Raises:
            InvalidLayerError: It names nothing, the directory itself or its parent.

        >>> Whiteout.of(b".wh.passwd"), Whiteout.of(b".wh..wh..opq"), Whiteout.of(b"passwd")
        (<Whiteout.PLAIN: 'plain'>, <Whiteout.OPAQUE: 'opaque'>, None)
        """
        if not base.startswith(WHITEOUT_PREFIX):
            return None
        if base == OPAQUE_WHITEOUT:
            return cls.OPAQUE
        if base.startswith(AUFS_PREFIX):
            return cls.AUFS
        if base[len(WHITEOUT_PREFIX) :] in (b"", b".", b".."):
            raise InvalidLayerError("a whiteout must name what it removes (image-spec, whiteouts)")
        return cls.PLAIN


def clean_name(name: bytes) -> bytes:
    """A path below the root: no leading slash, no empty, `.` or `..` component; the root itself is `b""`.

    `..` is taken back in the text, as every tool that makes layers does it; it never climbs above the root.

    >>> clean_name(b"./usr//bin/../lib/"), clean_name(b"/../../etc"), clean_name(b"./")
    (b'usr/lib', b'etc', b'')
    """
    if b"//" not in name and b"." not in name:
        return name.strip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def shown(name: bytes) -> str:
    r"""A name for a message: on one line, short, with every odd byte escaped.

    >>> shown(b"caf\xc3\xa9\n")
    "'caf\\xc3\\xa9\\n'"
    """
    text = repr(name)[1:]
    return text if len(text) <= 200 else f"{text[:120]}…{text[-60:]}"
