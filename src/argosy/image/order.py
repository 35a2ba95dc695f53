"""Entries of layers in the order of their paths, where that means the same as the order they came in.

In a changeset order has a meaning: the later of two entries with one path holds, a hard link is to what stands at its
target at that moment, and a path may go through a symbolic link that a later entry replaces. A layer in which any of
that could matter keeps its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from argosy.errors import InvalidLayerError, NotFoundError
from argosy.layer.entry import WHITEOUT_PREFIX, Entry, EntryType, Whiteout
from argosy.layer.tree import MergedTree

__all__ = ["Order"]

Pair = tuple[Entry, Entry]
"""An entry as it is written, and as it was read."""


class Order:
    """Puts the entries of an image's layers in order, from the lowest layer upwards."""

    def __init__(self) -> None:
        self._below = MergedTree()
        self._known = True

    def of(self, entries: list[Pair]) -> list[Pair]:
        """The next layer's entries: by path, hard links last; as they came where that could mean something else."""
        made = sorted(entries, key=lambda pair: (pair[0].type is EntryType.HARDLINK, pair[0].path))
        try:
            if not self._known or not self._same([e for e, _ in entries], [e for e, _ in made]):
                made = entries
            self._below.lay(entry for entry, _ in made)
        except InvalidLayerError:
            # Nothing can be said of what cannot be unpacked, nor of what lies above it.
            self._known = False
            return entries
        return made

    def _same(self, given: Sequence[Entry], wanted: Sequence[Entry]) -> bool:
        was, will = _places(given), _places(wanted)
        return (
            len(was) == len(given)
            and all(_follows(entry, was) and _follows(entry, will) for entry in given)
            and self._plain(given, was)
        )

    def _plain(self, entries: Sequence[Entry], places: Mapping[bytes, int]) -> bool:
        """Whether every directory a path goes through is one by then, and the same one in any order."""
        hidden = set(_hidden(places))
        for folder, first in _folders(places).items():
            place = places.get(folder)
            if place is None:
                # Described by nobody: a new one after a whiteout, an old one before it.
                known = folder not in hidden and not any(b"%s/" % f in hidden for f in _up(folder))
            else:
                known = entries[place].type is EntryType.DIRECTORY
            if not known or not (self._is_folder(folder) or (place is not None and place < first)):
                return False
        return True

    def _is_folder(self, path: bytes) -> bool:
        """Whether lower layers have a directory there, or nothing."""
        try:
            return self._below.get(path, follow=False).inode.is_directory
        except NotFoundError:
            return True


def _places(entries: Sequence[Entry]) -> dict[bytes, int]:
    return {entry.path: place for place, entry in enumerate(entries)}


def _follows(entry: Entry, places: Mapping[bytes, int]) -> bool:
    """Whether the target of a hard link is an entry before it."""
    if entry.type is not EntryType.HARDLINK:
        return True
    place = places[entry.path]
    return places.get(entry._replace(name=entry.linkname).path, place) < place


def _folders(paths: Iterable[bytes]) -> dict[bytes, int]:
    """The directories that paths go through, each with the place of the first that does."""
    found: dict[bytes, int] = {}
    for place, path in enumerate(paths):
        for folder in _up(path):
            if not folder or folder in found:
                break
            found[folder] = place
    return found


def _up(path: bytes) -> Iterator[bytes]:
    """The directories above a path, the nearest first and the root, which is empty, last."""
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _hidden(paths: Mapping[bytes, int]) -> Iterator[bytes]:
    """What whiteouts name; with a slash behind it what they empty, which is also what they remove."""
    for path in paths:
        folder, slash, base = path.rpartition(b"/")
        kind = Whiteout.of(base)
        if kind is Whiteout.OPAQUE:
            yield folder + b"/"
        elif kind is Whiteout.PLAIN:
            name = folder + slash + base[len(WHITEOUT_PREFIX) :]
            yield from (name, name + b"/")
