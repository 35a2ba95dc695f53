"""How much of an image is used: sizes, and the bytes that upper layers hide.

As with dive, the question is what could be saved by building better. A byte is wasted when the file it belongs to is
not in the image in the end: it was removed, or written again. The efficiency is the part of all bytes that is not
wasted, from 0 to 1. dive's numbers go by paths: of one that several layers have, every copy is wasted, and the smallest
counts for its efficiency, in which the removal of a directory is a copy, as large as what was in it.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from argosy.errors import InvalidConfigError
from argosy.image.contents import Key, key_of
from argosy.image.view import Image, Layer
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarstream import TarReader
from argosy.layer.tree import MergedTree
from argosy.spec.digest import Digest

__all__ = ["LayerSize", "Report", "Rules", "Wasted", "report"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LayerSize:
    """One layer: bytes as stored, bytes uncompressed, bytes of its files' content, and how many entries it has."""

    digest: Digest
    stored: int
    uncompressed: int
    content: int
    entries: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wasted:
    """A path whose bytes upper layers hid: how many bytes, and how often that happened."""

    path: bytes
    size: int
    count: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How much of an image is used.

    Args:
        layers: The layers from the base upwards.
        content: Bytes of content in all layers.
        used: Bytes of content that are in the image in the end.
        wasted: The paths that waste most, the worst first.
    """

    layers: tuple[LayerSize, ...]
    content: int
    used: int
    wasted: tuple[Wasted, ...]

    @property
    def stored(self) -> int:
        """Bytes of all layers as stored."""
        return sum(layer.stored for layer in self.layers)

    @property
    def wasted_bytes(self) -> int:
        """Bytes of content that are in a layer and not in the image."""
        return self.content - self.used

    @property
    def efficiency(self) -> float:
        """The part of the content that is used, from 0 to 1."""
        return self.used / self.content if self.content else 1.0

    @property
    def user_wasted_percent(self) -> float:
        """Wasted bytes as a part (0 to 1) of the content above the base layer, as dive counts it."""
        above = sum(layer.content for layer in self.layers[1:])
        return min(1.0, self.wasted_bytes / above) if above else 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a build may waste, by dive's names; None says nothing.

    Args:
        lowest_efficiency: `lowestEfficiency`, 0 to 1.
        highest_wasted_bytes: `highestWastedBytes`, in bytes.
        highest_user_wasted_percent: `highestUserWastedPercent`, 0 to 1.
    """

    lowest_efficiency: float | None = None
    highest_wasted_bytes: int | None = None
    highest_user_wasted_percent: float | None = None

    @classmethod
    def parse(cls, rules: Mapping[str, object]) -> Rules:
        """Read dive's `rules:` (of `.dive-ci`): numbers or texts, sizes with a unit, `disabled`.

        Raises:
            InvalidConfigError: a rule is not known, or its value has no meaning.

        >>> Rules.parse({"lowestEfficiency": "0.95", "highestWastedBytes": "20MB"}).highest_wasted_bytes
        20000000
        """
        for name in rules.keys() - _RULES.keys():
            raise InvalidConfigError(f"rule {name!r} is none of {', '.join(_RULES)}")
        found = {
            _RULES[name]: (_bytes if name == "highestWastedBytes" else _part)(name, value)
            for name, value in rules.items()
            if str(value) != "disabled"
        }
        return cls(**found)  # type: ignore[arg-type]

    def broken(self, found: Report) -> Iterator[str]:
        """The rules an image breaks, one line each."""
        low, wasted, user = (
            self.lowest_efficiency,
            self.highest_wasted_bytes,
            self.highest_user_wasted_percent,
        )
        if low is not None and found.efficiency < low:
            yield f"lowestEfficiency: expected at least {low}, got {found.efficiency:.4f}"
        if wasted is not None and found.wasted_bytes > wasted:
            yield f"highestWastedBytes: expected at most {wasted}, got {found.wasted_bytes}"
        if user is not None and found.user_wasted_percent > user:
            yield f"highestUserWastedPercent: expected at most {user}, got {found.user_wasted_percent:.4f}"


_RULES = {
    "lowestEfficiency": "lowest_efficiency",
    "highestWastedBytes": "highest_wasted_bytes",
    "highestUserWastedPercent": "highest_user_wasted_percent",
}
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}


def _part(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise InvalidConfigError(f"{name}: expected a number from 0 to 1, got {str(value)[:32]!r}")
    return number


def _bytes(name: str, value: object) -> int:
    text = str(value).strip().lower().replace(" ", "")
    digits = text.rstrip("bkmgi")
    try:
        number = int(float(digits) * _UNITS[text[len(digits) :]])
    except (KeyError, ValueError, OverflowError):
        number = -1
    if number < 0:
        raise InvalidConfigError(
            f"{name}: expected a number of bytes such as 20MB, got {str(value)[:32]!r}"
        )
    return number


def report(image: Image) -> Report:
    """Read all of an image and tell how much of it is used.

    Raises:
        InvalidLayerError: a layer is damaged or breaks a rule.
        IntegrityError: a layer is not what manifest and configuration say.
    """
    tree, counter = MergedTree(), _Counter()
    sizes = []
    for layer in image.layers:
        with layer.uncompressed() as stream:
            reader = TarReader(stream, where=layer.name)
            tree.lay(counter.counted(reader, layer))
            reader.drain()
            sizes.append(counter.layer(layer, stream.size))
    used: dict[Key, int] = {
        key_of(node.inode): node.entry.size
        for _, node in tree.walk()
        if node.entry.type is EntryType.FILE
    }
    return Report(
        layers=tuple(sizes),
        content=sum(size.content for size in sizes),
        used=sum(used.values()),
        wasted=_worst(tree, counter),
    )


class _Counter:
    def __init__(self) -> None:
        self.links: set[tuple[int, bytes]] = set()
        self._entries = self._content = 0

    def counted(self, entries: Iterable[Entry], layer: Layer) -> Iterator[Entry]:
        self._entries = self._content = 0
        for entry in entries:
            self._entries += 1
            self._content += entry.size
            if entry.type is EntryType.HARDLINK:
                self.links.add((layer.position, entry.path))
            yield entry

    def layer(self, layer: Layer, uncompressed: int) -> LayerSize:
        return LayerSize(
            digest=layer.descriptor.digest,
            stored=layer.descriptor.size,
            uncompressed=uncompressed,
            content=self._content,
            entries=self._entries,
        )


def _worst(tree: MergedTree, counter: _Counter) -> tuple[Wasted, ...]:
    """Hidden files by path; a hard link's bytes are those of the file it is a name of."""
    sizes: dict[bytes, list[int]] = defaultdict(list)
    for lost in tree.lost:
        if (lost.layer, lost.path) not in counter.links:
            sizes[lost.path].append(lost.size)
    found = [Wasted(path=path, size=sum(all_), count=len(all_)) for path, all_ in sizes.items()]
    return tuple(sorted(found, key=lambda wasted: (-wasted.size, wasted.path)))
