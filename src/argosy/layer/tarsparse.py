"""The maps of GNU sparse files: the old header form, and PAX 0.0, 0.1 and 1.0. They are read, never written.

A map is a list of data regions (offset, length); what lies between them is holes. Two things make it safe: regions
come in order without overlap inside the apparent size, and together they are as long as the content that is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from argosy.errors import InvalidLayerError
from argosy.layer.entry import Limits
from argosy.layer.tarheader import BLOCK, decimal, number

__all__ = ["Regions", "checked", "map_in_content", "map_in_header", "map_in_records"]

Regions = tuple[tuple[int, int], ...]
_GNU_REGIONS = range(386, 482, 24)
_GNU_MORE = range(0, 504, 24)
_PAX_KEYS = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")


def checked(regions: Iterable[tuple[int, int]], size: int, stored: int, limits: Limits) -> Regions:
    """The regions, if they are safe for a file of this apparent size with this much content in the archive.

    Raises:
        InvalidLayerError: They are not.
    """
    end = total = 0
    safe: list[tuple[int, int]] = []
    for offset, length in regions:
        if length < 0 or offset < end:
            raise InvalidLayerError("sparse regions overlap or run backwards")
        end, total = offset + length, total + length
        if length:
            safe.append((offset, length))
        if len(safe) > limits.sparse:
            raise InvalidLayerError(f"more than {limits.sparse} sparse regions")
    if end > size:
        raise InvalidLayerError(f"sparse regions end at {end}, past the size of {size}")
    if total != stored:
        raise InvalidLayerError(f"sparse regions hold {total} bytes, the archive {stored}")
    return tuple(safe)


def map_in_header(
    block: bytes, read: Callable[[int], bytes], limits: Limits
) -> list[tuple[int, int]]:
    """The regions of an old GNU header (type `S`), with those of the blocks that continue it."""
    regions = list(_pairs(block, _GNU_REGIONS))
    more = block[482]
    while more:
        if len(regions) > limits.sparse:
            raise InvalidLayerError(f"more than {limits.sparse} sparse regions")
        block = read(BLOCK)
        regions += _pairs(block, _GNU_MORE)
        more = block[504]
    return regions


def _pairs(block: bytes, places: range) -> Iterable[tuple[int, int]]:
    for at in places:
        if block[at] == 0:
            return
        yield number(block[at : at + 12]), number(block[at + 12 : at + 24])


def map_in_records(records: list[tuple[bytes, bytes]]) -> list[tuple[int, int]] | None:
    """The regions in PAX records of version 0.1 (one record) or 0.0 (two for each region); None without any.

    Raises:
        InvalidLayerError: Offsets and lengths do not pair up.
    """
    whole = [value for key, value in records if key == b"GNU.sparse.map"]
    if whole:
        numbers = [decimal(value, b"GNU.sparse.map") for value in whole[-1].split(b",") if value]
    else:
        pairs = [(key, value) for key, value in records if key in _PAX_KEYS]
        if not pairs:
            return None
        if any(key is not None and key != _PAX_KEYS[at % 2] for at, (key, _) in enumerate(pairs)):
            raise InvalidLayerError("sparse offsets and lengths do not alternate")
        numbers = [decimal(value, key) for key, value in pairs]
    if len(numbers) % 2:
        raise InvalidLayerError("a sparse region has no length")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def map_in_content(
    read: Callable[[int], bytes], stored: int, limits: Limits
) -> tuple[list[tuple[int, int]], int]:
    """The regions that begin the content (PAX 1.0), and how many bytes of it they took.

    Raises:
        InvalidLayerError: The map is not one, or larger than the content.
    """
    lines: list[bytes] = []
    rest, taken, wanted = b"", 0, 1
    while len(lines) < wanted:
        if taken + BLOCK > stored or len(rest) > BLOCK:
            raise InvalidLayerError("a sparse map runs past the content")
        rest += read(BLOCK)
        taken += BLOCK
        *whole, rest = rest.split(b"\n")
        lines += whole
        wanted = 1 + 2 * decimal(lines[0], b"sparse map") if lines else 1
        if wanted > 1 + 2 * limits.sparse:
            raise InvalidLayerError(f"more than {limits.sparse} sparse regions")
    numbers = [decimal(line, b"sparse map") for line in lines[1:wanted]]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), taken
