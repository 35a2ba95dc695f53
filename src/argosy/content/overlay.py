"""A writable place over a read-only one: new content goes on top, the rest is read from below.

Mutations of images are built this way: only what is new is stored, and `copy` moves the whole as if it lay together.
"""

from __future__ import annotations

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
