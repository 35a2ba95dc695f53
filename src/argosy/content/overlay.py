"""Several places seen as one: a writable one over a read-only one, and places beside each other.

Mutations of images are built this way: only what is new is stored, and `copy` moves the whole as if it lay together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from argosy.content.protocols import BlobReader, Source, SupportsRead, Target
from argosy.errors import NotFoundError
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest


class Overlay:
    """A `Target` that writes to `upper` and reads from `upper`, then `lower`.

    Args:
        lower: Where content comes from that `upper` lacks. It is never written to.
        upper: Where new content goes.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> below = MemoryStore()
        >>> desc = below.add("text/plain", b"old")
        >>> above = Overlay(below, MemoryStore())
        >>> above.exists(desc), above.upper.exists(desc)
        (True, False)
    """

    def __init__(self, lower: Source, upper: Target) -> None:
        self.lower = lower
        self.upper = upper

    def __str__(self) -> str:
        return str(self.lower)

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """See `Source.resolve`."""
        try:
            return self.upper.resolve(tag_or_digest)
        except NotFoundError:
            return self.lower.resolve(tag_or_digest)

    def exists(self, desc: Descriptor) -> bool:
        """See `Source.exists`."""
        return self.upper.exists(desc) or self.lower.exists(desc)

    def fetch(self, desc: Descriptor) -> BlobReader:
        """See `Source.fetch`."""
        return (self.upper if self.upper.exists(desc) else self.lower).fetch(desc)

    def tags(self) -> Iterator[str]:
        """See `Source.tags`."""
        yield from sorted({*self.upper.tags(), *self.lower.tags()})

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """See `Source.referrers`."""
        seen: set[Digest] = set()
        for place in (self.upper, self.lower):
            for entry in place.referrers(subject, artifact_type):
                if entry.digest not in seen:
                    seen.add(entry.digest)
                    yield entry

    def check_tag(self, tag: str) -> None:
        """See `Target.check_tag`."""
        self.upper.check_tag(tag)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """See `Target.push`."""
        self.upper.push(desc, content, tags=tags)

    def tag(self, desc: Descriptor, tag: str) -> None:
        """See `Target.tag`. A manifest that only `lower` has is taken over first."""
        if not self.upper.exists(desc):
            with self.lower.fetch(desc) as reader:
                self.upper.push(desc, reader)
        self.upper.tag(desc, tag)


class Union:
    """Several sources seen as one: each thing comes from the first that has it."""

    def __init__(self, *sources: Source) -> None:
        self.sources = sources

    def __str__(self) -> str:
        return str(self.sources[0])

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """See `Source.resolve`."""
        for source in self.sources[:-1]:
            with contextlib.suppress(NotFoundError):
                return source.resolve(tag_or_digest)
        return self.sources[-1].resolve(tag_or_digest)

    def exists(self, desc: Descriptor) -> bool:
        """See `Source.exists`."""
        return any(source.exists(desc) for source in self.sources)

    def fetch(self, desc: Descriptor) -> BlobReader:
        """See `Source.fetch`."""
        for source in self.sources[:-1]:
            # Of a blob it is asked first: a repository says only at the first `read` that it has none.
            if desc.is_manifest() or source.exists(desc):
                with contextlib.suppress(NotFoundError):
                    return source.fetch(desc)
        return self.sources[-1].fetch(desc)

    def tags(self) -> Iterator[str]:
        """See `Source.tags`."""
        yield from dict.fromkeys(tag for source in self.sources for tag in source.tags())

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """See `Source.referrers`."""
        seen: set[Digest] = set()
        for source in self.sources:
            for entry in source.referrers(subject, artifact_type):
                if entry.digest not in seen:
                    seen.add(entry.digest)
                    yield entry


def origins(source: Source) -> Iterator[Source]:
    """The places that a source's content comes from, in the order they are asked; not what is new over them."""
    if isinstance(source, Overlay):
        yield from origins(source.lower)
    elif isinstance(source, Union):
        for one in source.sources:
            yield from origins(one)
    else:
        yield source
