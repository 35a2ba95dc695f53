"""What a place is: `Source` to read from, `Target` to write to, and optional capabilities.

One repository of a registry, a layout directory, an archive and a dictionary in memory are all seen alike: as one
content store with tags.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol, Self, runtime_checkable

from argosy.errors import UsageError
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest


class SupportsRead(Protocol):
    """Anything bytes can be read from."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes, fewer only where the end or the sender's packet is near; empty at the end."""
        ...


class ContentError(Exception):
    """What content raised while a place took it in. It is no failure of the place, which raises `failure` instead."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure


class BlobReader(SupportsRead, Protocol):
    """Verified content: the last `read` returns only after digest and size were found right.

    Bytes handed out before the end are not proved yet: nobody acts on them until the reader has reached its end
    (`b""`), or `readall` returned.
    """

    @property
    def descriptor(self) -> Descriptor:
        """What is read."""
        ...

    def close(self) -> None:
        """Let the place's resources go. Closing early is no error."""
        ...

    def __enter__(self) -> Self:
        """Nothing but itself."""
        ...

    def __exit__(self, *exc: object) -> None:
        """Close."""
        ...


class Source(Protocol):
    """A place to read from.

    Every method raises `NotFoundError` for what is not there, `AccessError` for what may not be read, and
    `RegistryError` or `StorageError` where the place itself fails.
    """

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """The descriptor of what a tag names or a digest is the address of.

        Raises:
            ManifestUnknownError: there is no such tag or manifest.
        """
        ...

    def exists(self, desc: Descriptor) -> bool:
        """Whether the content is here."""
        ...

    def fetch(self, desc: Descriptor) -> BlobReader:
        """Open the content; digest and size are verified while it is read.

        Raises:
            BlobUnknownError: it is not here (`ManifestUnknownError` for manifests).
            IntegrityError: raised by the reader: the bytes are not what `desc` says.
        """
        ...

    def tags(self) -> Iterator[str]:
        """All tags, each once, in the place's order."""
        ...

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """Descriptors of the manifests here whose `subject` this is, with `artifact_type` and annotations filled in.

        An unknown subject has no referrers; that is not an error.
        """
        ...


class Target(Source, Protocol):
    """A place to write to."""

    def check_tag(self, tag: str) -> object:
        """See that something here can have this tag, which is asked before anything is moved.

        Raises:
            InvalidTagError: it cannot.
        """
        ...

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """Store content, verified, and then point tags at it (tags only for manifests).

        When it returns, the content is durable. Content that is already here is not read. What reading it raises comes
        out as it is.

        Raises:
            IntegrityError: the content is not what `desc` says; nothing is kept.
            ManifestBlobUnknownError: the place wants a manifest's children first.
            UsageError: tags for what is no manifest, or one string in place of a list of them.
        """
        ...

    def tag(self, desc: Descriptor, tag: str) -> None:
        """Point a tag at a manifest that is here.

        Raises:
            ManifestUnknownError: it is not here.
            UsageError: it is no manifest.
        """
        ...


@runtime_checkable
class Mirrored(Protocol):
    """A place whose content can come from elsewhere, as a registry's from its mirrors."""

    def readable(self, desc: Descriptor) -> bool:
        """Whether the content can be read from here; `exists` tells of the place itself, as writing needs it."""
        ...


def readable(source: Source, desc: Descriptor) -> bool:
    """Whether `source.fetch` would find the content, as far as can be told without reading it."""
    return source.readable(desc) if isinstance(source, Mirrored) else source.exists(desc)


def check_tagged(desc: Descriptor) -> None:
    """Refuse a tag for what is no manifest; every place does, for no registry could keep it.

    Raises:
        UsageError: it is none.
    """
    if not desc.is_manifest():
        raise UsageError(f"{desc.digest} is no manifest, and cannot have tags")


def several(tags: Sequence[str]) -> Sequence[str]:
    """Some tags. One string is a sequence too, of its letters, which nobody means.

    Raises:
        UsageError: it is one string.
    """
    if isinstance(tags, str):
        raise UsageError(f"tags: expected a list of them, got {tags!r}")
    return tags


@runtime_checkable
class Deleter(Protocol):
    """A place content can be removed from."""

    def delete(self, desc: Descriptor) -> None:
        """Remove a manifest with all its tags, or a blob.

        Raises:
            NotFoundError: it is not here.
            UnsupportedError: the place does not allow it.
        """
        ...

    def untag(self, tag: str) -> None:
        """Remove one tag; the manifest and its other tags stay.

        Raises:
            ManifestUnknownError: there is no such tag.
            UnsupportedError: the place does not allow it.
        """
        ...


@runtime_checkable
class Untagged(Protocol):
    """A place whose images need no tag."""

    def untagged(self) -> Iterator[Descriptor]:
        """The images that no tag stands for, each once; what refers to another is one only where nothing else is."""
        ...


@runtime_checkable
class Forgetter(Untagged, Protocol):
    """A place that lets an image go which has no tag."""

    def forget(self, desc: Descriptor) -> None:
        """List an image without a tag no longer; its content stays until it is collected, and what has a tag stays."""
        ...


@runtime_checkable
class Mounter(Protocol):
    """A place that can take content from another one without moving bytes."""

    def mount(self, desc: Descriptor, source: Source) -> bool:
        """Take a blob over from `source`; False means that it must be copied instead."""
        ...


@runtime_checkable
class Replacer(Protocol):
    """A target that others may change at the same time, and no lock keeps from it."""

    def instead(self, tag: str, old: Digest) -> None:
        """From now on, let `push` and `tag` move this tag, alone, only while it names `old`.

        Where it names something else by then, they raise `ConflictError` and leave it alone.
        """
        ...


@runtime_checkable
class Unordered(Protocol):
    """A target that keeps no order of what is added, and that several manifests and tags may be added to at a time."""

    @property
    def unordered(self) -> Literal[True]:
        """Nothing but that."""
        ...


@runtime_checkable
class Gatherer(Protocol):
    """A target where every new manifest or tag costs more the more there are, and that can write several at once."""

    def together(self) -> AbstractContextManager[object]:
        """Until the block ends, in order or not, what `push` and `tag` add may wait to be written.

        The place itself shows it at once. To others, and past a power loss, it is there when the block has ended; of
        many additions most are sooner.
        """
        ...


def together(target: object) -> AbstractContextManager[object]:
    """`Gatherer.together` of a target that is one, else nothing."""
    return target.together() if isinstance(target, Gatherer) else contextlib.nullcontext()


@runtime_checkable
class Resumable(Protocol):
    """A stream that can begin later than at its first byte, so that what is already on disk is not moved again.

    `VerifyingReader.resume` is the one caller: a place that finds the front part of a blob from an earlier, broken
    run hands it over there, and the whole is verified all the same.
    """

    def start_at(self, offset: int, /) -> None:
        """Let the next `read` return the byte at `offset`. Called before the first `read`, or to begin again.

        Nothing is opened or sent by it: a stream over a network sends its request at the first `read`. If the other
        side then sends from the beginning, the stream drops the first `offset` bytes itself.
        """
        ...
