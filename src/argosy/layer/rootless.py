r"""Owners and capabilities that an ordinary user may not set, kept in extended attributes instead.

`user.rootlesscontainers` holds a protobuf message (field 1 the uid, field 2 the gid, 2**32 - 1 for "as it is"), which
umoci and PRoot read too. A file capability is bound to the user namespace's root (revision 3 of the attribute) when it
is written for mapped ids, and loosened again (revision 2) on the way back. An attribute that was refused is kept
under `user.argosy.`, from where `diff` takes it back.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from argosy.errors import InvalidLayerError

__all__ = [
    "CAPABILITY",
    "OWNER",
    "REFUSED",
    "capability_to_disk",
    "capability_to_layer",
    "decode_owner",
    "encode_owner",
]

OWNER: Final = b"user.rootlesscontainers"
REFUSED: Final = b"user.argosy."
CAPABILITY: Final = b"security.capability"
_NOBODY: Final = (1 << 32) - 1
_REVISION: Final = 0xFF000000
_V2: Final = 0x02000000
_V3: Final = 0x03000000


def encode_owner(uid: int, gid: int) -> bytes | None:
    r"""The message for an owner; None for root, which needs none.

    >>> encode_owner(1000, 0)
    b'\x08\xe8\x07\x10\xff\xff\xff\xff\x0f'
    """
    if not uid and not gid:
        return None
    return b"\x08" + _varint(uid or _NOBODY) + b"\x10" + _varint(gid or _NOBODY)


def decode_owner(message: bytes) -> tuple[int, int]:
    r"""The owner (uid, gid) a message holds; 0 where it says "as it is" or nothing.

    Raises:
        InvalidLayerError: It is not such a message.

    >>> decode_owner(encode_owner(1000, 0))
    (1000, 0)
    """
    found = {1: _NOBODY, 2: _NOBODY} | dict(_fields(message))
    uid, gid = (0 if found[field] == _NOBODY else found[field] for field in (1, 2))
    return uid, gid


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(message: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key & 7:
            raise InvalidLayerError("user.rootlesscontainers holds a field of an unknown type")
        value, at = _read_varint(message, at)
        yield key >> 3, value & _NOBODY


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InvalidLayerError("user.rootlesscontainers is cut off")


def capability_to_disk(value: bytes, root: int) -> bytes:
    """A file capability for a tree whose root is this host user: bound to it, unless it is the host's own root."""
    if root == 0 or len(value) != 20 or _magic(value) & _REVISION != _V2:
        return value
    return struct.pack("<I", _magic(value) & ~_REVISION | _V3) + value[4:] + struct.pack("<I", root)


def capability_to_layer(value: bytes, root: int) -> bytes:
    """A file capability as a layer carries it: not bound, when it was bound to this tree's root."""
    if (
        len(value) != 24
        or _magic(value) & _REVISION != _V3
        or value[20:] != struct.pack("<I", root)
    ):
        return value
    return struct.pack("<I", _magic(value) & ~_REVISION | _V2) + value[4:20]


def _magic(value: bytes) -> int:
    found: tuple[int] = struct.unpack("<I", value[:4])
    return found[0]
