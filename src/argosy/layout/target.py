"""Writing an image layout: `index.json` and blobs in a directory of the file system.

Rules:

1. Readers need no lock: `index.json` is replaced as a whole, and a blob has its name only when it is whole.
2. Writers of `index.json` hold one lock, between threads and processes.
3. Every manifest that was pushed is in `index.json`, or in an index that is: under its names, or without one. So it is
   found by digest, its referrers are found, and `gc` knows it. A manifest that an index holds needs no entry.
4. What is not understood stays: files, properties, entries of unknown media types.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar

from argosy.content.protocols import SupportsRead, check_tagged, several
from argosy.errors import BlobUnknownError, ManifestUnknownError, UsageError
from argosy.layout import names
from argosy.layout.blobs import BlobDirectory
from argosy.layout.indexfile import Change, IndexFile
from argosy.layout.view import LayoutSource
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index

_LARGE = 1024 * 1024
"""Bytes of content that may be long in coming: `gc` must not take for left over what would wait for it meanwhile."""


class LayoutTarget(LayoutSource):
    """`Target`, `Deleter` and `Forgetter` over an `index.json` in a directory and a directory of blobs.

    Args:
        name: What to call it in messages.
        path: The directory of `index.json`.
        blobs: Where content is.
    """

    keeps_untagged: ClassVar[bool] = True
    """Whether a manifest that loses its last tag stays in the index."""

    def __init__(self, name: str, path: str, blobs: BlobDirectory) -> None:
        super().__init__(name, blobs)
        self.path = path
        self.blobs = blobs
        self._index = IndexFile(path)

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def index(self) -> Index:
        """What `index.json` says now, unknown properties included.

        Raises:
            InvalidLayoutError: it is missing, or no image index.
        """
        return self._index.now()

    def together(self) -> AbstractContextManager[None]:
        """See `Gatherer.together`."""
        return self._index.together()

    def exists(self, desc: Descriptor) -> bool:
        """See `Source.exists`. A manifest must also be one that `index.json` leads to.

        Content that is found and old is marked as in use, so that a `gc` at the same time does not take it away.
        """
        if not self.blobs.keep(desc):
            return False
        if not desc.is_manifest() or desc.digest in self.entries().digests:
            return True
        return any(d.digest == desc.digest for d in self.manifests())

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """See `Target.push`. Children may be missing (image-layout.md, "Blobs").

        A blob that an earlier attempt has begun is gone on with where `content` can begin later (`Resumable`).

        Raises:
            InvalidTagError: a tag is empty, too long or not printable.
            IntegrityError: the content is not what `desc` says; nothing is kept.
        """
        for tag in several(tags):
            names.check_tag(tag)
            check_tagged(desc)
        if desc.size > _LARGE:
            self._index.settle()
        self.blobs.write(desc, content)
        if desc.is_manifest():
            self._index.change(lambda entries: self._with(entries, desc, tags), patient=True)

    def tag(self, desc: Descriptor, tag: str) -> None:
        """See `Target.tag`. What had the tag before stays, without it."""
        names.check_tag(tag)
        check_tagged(desc)
        if not self.blobs.keep(desc):
            raise ManifestUnknownError(f"{desc.digest} is not in {self}")
        self._index.change(lambda entries: self._with(entries, desc, (tag,)), patient=True)

    def untag(self, tag: str, *more: str) -> None:
        """See `Deleter.untag`. Every entry with the name loses it.

        Args:
            tag: The tag.
            more: Other tags that go in the same step.

        Raises:
            ManifestUnknownError: there is none of them.
            UsageError: no tag at all, such as the one of a reference that has none.
        """
        if None in (tag, *more):  # a name that entries lack, and then all would be meant
            raise UsageError("tag: expected a string, got None")

        def without(entries: list[Descriptor]) -> list[Descriptor]:
            rest = self._without(entries, (tag, *more))
            if rest is entries:
                raise ManifestUnknownError(f"{tag!r} is not in {self}")
            return rest

        self.change(without)

    def forget(self, desc: Descriptor) -> None:
        """See `Forgetter.forget`."""

        def without(entries: list[Descriptor]) -> list[Descriptor]:
            return [e for e in entries if names.is_named(e) or e.digest != desc.digest]

        self.change(without)

    def delete(self, desc: Descriptor) -> None:
        """See `Deleter.delete`. What only this manifest led to stays until `gc`.

        Raises:
            NotFoundError: it is not here.
        """

        def without(entries: list[Descriptor]) -> list[Descriptor]:
            rest = [entry for entry in entries if entry.digest != desc.digest]
            if len(rest) == len(entries) and not self.blobs.has(desc):
                unknown = ManifestUnknownError if desc.is_manifest() else BlobUnknownError
                raise unknown(f"{desc.digest} is not in {self}")
            return rest

        self.change(without)
        if self.blobs.has(desc):
            self.blobs.remove(desc.digest)

    def _with(
        self, entries: list[Descriptor], desc: Descriptor, tags: Sequence[str]
    ) -> list[Descriptor]:
        """The entries with this manifest among them under the tags, and without those it now holds itself."""
        entries = self._without(entries, tags)
        desc = names.unnamed(desc)
        facts = self.catalog.facts(desc)
        held = {child.digest for child in facts.children} if facts and desc.is_index() else set()
        held.add(desc.digest)
        entries = [e for e in entries if e.digest not in held or names.is_named(e)]
        entries += [names.named(desc, tag) for tag in dict.fromkeys(tags)]
        return self._kept(entries, (desc,))

    def _without(self, entries: list[Descriptor], tags: Sequence[str]) -> list[Descriptor]:
        """The entries without some names; what has lost its name is still there. The same list where none is meant."""
        named = names.Entries(entries)
        lost = {id(entry): names.unnamed(entry) for tag in tags for entry in named.meant(tag)}
        if not lost:
            return entries
        rest = [entry for entry in entries if id(entry) not in lost]
        return self._kept(rest, lost.values()) if self.keeps_untagged else rest

    def _kept(self, entries: list[Descriptor], more: Iterable[Descriptor]) -> list[Descriptor]:
        """The entries, and those of `more` that are manifests here and that nothing among them leads to."""
        direct = {entry.digest for entry in entries}
        lost = [desc for desc in more if desc.is_manifest() and desc.digest not in direct]
        if not lost:
            return entries
        indexes = [entry for entry in entries if entry.is_index()]
        led = {*direct, *(found.digest for found in self.catalog.manifests(indexes))}
        for desc in lost:
            if desc.digest not in led and self.blobs.has(desc):
                led.add(desc.digest)
                entries.append(desc)
        return entries

    def change(self, change: Change) -> None:
        """Replace the entries of `index.json` by what `change` makes of them, alone and as a whole."""
        self._index.change(change)
