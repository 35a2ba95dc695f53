"""What differs between two images: files, configuration, manifest."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any

from argosy.image.contents import Contents, Key, key_of
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tree import Node
from argosy.spec import _json

__all__ = ["FileDifference", "document_differences", "file_differences"]

_COMPARED = ("type", "mode", "uid", "gid", "size", "linkname", "device", "xattrs", "mtime")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FileDifference:
    """One path that is not the same.

    Args:
        path: From the root, without a leading slash.
        kind: `added`, `removed` or `changed`.
        what: Of a changed one, what: `content`, or names of `Entry`'s fields.
        old: Its header in the first image.
        new: Its header in the second.
    """

    path: bytes
    kind: str
    what: tuple[str, ...] = ()
    old: Entry | None = None
    new: Entry | None = None


def file_differences(
    old: Contents, new: Contents, *, times: bool = True
) -> Iterator[FileDifference]:
    """The paths that differ between two images, sorted.

    Content is compared only where the two do not share the layer it lies in.

    Args:
        old: The first image.
        new: The second image.
        times: Whether times count.

    Raises:
        InvalidLayerError: a layer is damaged or breaks a rule.
        IntegrityError: a layer is not what its image says.
    """
    before, after = dict(old.tree.walk()), dict(new.tree.walk())
    common = before.keys() & after.keys()
    both = {path for path in common if _unsure(old, before[path], new, after[path])}
    was = _hashes(old, {key_of(before[path].inode) for path in both})
    now = _hashes(new, {key_of(after[path].inode) for path in both})
    for path in sorted(before.keys() | after.keys()):
        one, two = before.get(path), after.get(path)
        if one is None or two is None:
            yield FileDifference(
                path=path,
                kind="removed" if two is None else "added",
                old=one.entry if one else None,
                new=two.entry if two else None,
            )
            continue
        what = _differing(one.entry, two.entry, times)
        if path in both and was[key_of(one.inode)] != now[key_of(two.inode)]:
            what = ("content", *what)
        if what:
            yield FileDifference(path=path, kind="changed", what=what, old=one.entry, new=two.entry)


def _differing(one: Entry, two: Entry, times: bool) -> tuple[str, ...]:
    return tuple(
        name
        for name in _COMPARED
        if getattr(one, name) != getattr(two, name) and (times or name != "mtime")
    )


def _unsure(old: Contents, one: Node, new: Contents, two: Node) -> bool:
    """Whether content must be read to know if it is the same."""
    if one.entry.type is not EntryType.FILE or two.entry.type is not EntryType.FILE:
        return False
    if one.entry.size != two.entry.size or not one.entry.size:
        return False  # the size itself differs, or there is nothing to compare
    return _place(old, one) != _place(new, two)


def _place(contents: Contents, node: Node) -> tuple[object, int]:
    return contents.image.layers[node.layer].diff_id, node.entry.offset


def _hashes(contents: Contents, keys: set[Key]) -> dict[Key, bytes]:
    found: dict[Key, bytes] = {}
    for key, _, chunks in contents.read(dict.fromkeys(keys)):
        hashed = hashlib.sha256()
        for chunk in chunks:
            hashed.update(chunk)
        found[key] = hashed.digest()
    return found


def document_differences(old: bytes, new: bytes) -> Iterator[tuple[str, Any, Any]]:
    """The properties that differ between two JSON documents: path, old value and new value; None where it is absent.

    >>> list(document_differences(b'{"a": 1, "b": [1, 2]}', b'{"a": 1, "b": [1, 3]}'))
    [('b[1]', 2, 3)]
    """
    yield from _walk("", _json.loads(old), _json.loads(new))


def _walk(where: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _walk(f"{where}.{name}" if where else name, old.get(name), new.get(name))
    elif isinstance(old, list) and isinstance(new, list):
        for position in range(max(len(old), len(new))):
            pair = [items[position] if position < len(items) else None for items in (old, new)]
            yield from _walk(f"{where}[{position}]", *pair)
    elif old != new or type(old) is not type(new):
        yield where, old, new
