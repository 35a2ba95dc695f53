"""Reading an image layout, wherever its files are: the part that a directory and an archive have in common."""

from __future__ import annotations

import io
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from argosy.content.verify import VerifyingReader, embedded
from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    InvalidError,
    InvalidLayoutError,
    ManifestUnknownError,
)
from argosy.layout import names
from argosy.layout.catalog import Catalog
from argosy.spec import _json, imagelayout, mediatypes
from argosy.spec import manifest as manifests
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import ALGORITHMS, Digest
from argosy.spec.manifest import Index, decode_manifest, manifest_of


class Blobs(Protocol):
    """Content under its digest."""

    def has(self, desc: Descriptor) -> bool:
        """Whether it is here, as far as its name and size say."""
        ...

    def find(self, digest: Digest) -> int | None:
        """The size in bytes of what is here under a digest, or None."""
        ...

    def open(self, desc: Descriptor) -> VerifyingReader:
        """Read it, verified."""
        ...


def decode_index(raw: bytes, where: str) -> Index:
    """Read an `index.json`; its `manifests` may be null, as Docker writes it for an image without a name.

    Raises:
        InvalidLayoutError: it breaks the specification; the message begins with `where`.
    """
    try:
        value = _json.loads_object(raw, limit=imagelayout.MAX_INDEX_SIZE, error=InvalidLayoutError)
        if value.get("manifests", ...) is None:
            value["manifests"] = []
        index = manifest_of(value, mediatypes.OCI_INDEX)
    except (ArgosyError, ValueError) as exc:
        raise InvalidLayoutError(f"{where}: {exc}") from None
    if not isinstance(index, Index):  # pragma: no cover - manifest_of goes by the media type
        raise InvalidLayoutError(f"{where}: no image index")
    return index


def check_header(raw: bytes, where: str) -> None:
    """Check an `oci-layout` file.

    Raises:
        InvalidLayoutError: it is none, or of another version; the message begins with `where`.
    """
    try:
        imagelayout.check_header(raw)
    except ArgosyError as exc:
        raise InvalidLayoutError(f"{where}: {exc}") from None


class LayoutSource:
    """A `Source` over an `index.json` and blobs.

    Args:
        name: What to call it in messages.
        blobs: Where its content is.
    """

    def __init__(self, name: str, blobs: Blobs) -> None:
        self._name = name
        self.content = blobs
        self.catalog = Catalog(self.fetch)
        self._known: tuple[Index, names.Entries] | None = None

    def __str__(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    @staticmethod
    def check_tag(tag: str) -> None:
        """See `Target.check_tag`: a tag, or a reference name as the image-spec has them."""
        names.check_tag(tag)

    def index(self) -> Index:
        """What `index.json` says now, unknown properties included."""
        raise NotImplementedError

    def entries(self) -> names.Entries:
        """The entries of `index()`, to find some of them."""
        index, known = self.index(), self._known
        if known is None or known[0] is not index:
            known = self._known = index, names.Entries(index.manifests)
        return known[1]

    def manifests(self) -> Iterator[Descriptor]:
        """Every manifest here: the entries of `index.json`, then those that indexes among them hold, each once."""
        yield from self.catalog.manifests(self.index().manifests)

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """See `Source.resolve`.

        Of several entries with one name it is the one that suits this machine's platform best, else the first. A name
        may be the whole one that BuildKit and Docker write (`docker.io/library/busybox:latest`), or a short form of it;
        `@N` is the entry number N of `index.json`, from 0.

        Raises:
            ManifestUnknownError: there is no such name or manifest.
        """
        if tag_or_digest.partition(":")[0] in ALGORITHMS:
            return self._resolve_digest(Digest(tag_or_digest))
        at = names.position(tag_or_digest)
        if at is not None:
            found = list(self.index().manifests[at : at + 1])
        else:
            found = self.entries().meant(tag_or_digest)
        if not found:
            raise ManifestUnknownError(f"{tag_or_digest!r} is not in {self}", hint=self._hint())
        return names.unnamed(names.choose(found))

    def _hint(self) -> str | None:
        have = sorted(self.tags())
        return f"it has {', '.join(have[:10])}{' …' if len(have) > 10 else ''}" if have else None

    def _resolve_digest(self, digest: Digest) -> Descriptor:
        for desc in self.manifests():
            if desc.digest == digest:
                return names.unnamed(desc)
        size = self.content.find(digest)
        if size is not None and size <= manifests.MAX_SIZE:
            desc = Descriptor(media_type=mediatypes.OCTET_STREAM, digest=digest, size=size)
            try:
                with self.content.open(desc) as reader:
                    manifest = decode_manifest(reader.readall())
            except InvalidError:
                pass
            else:
                return Descriptor(media_type=manifest.media_type, digest=digest, size=size)
        raise ManifestUnknownError(f"{digest} is no manifest in {self}")

    def exists(self, desc: Descriptor) -> bool:
        """See `Source.exists`."""
        return self.content.has(desc)

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        """See `Source.fetch`. Content that only the descriptor itself holds (`data`) is read from there."""
        try:
            return self.content.open(desc)
        except (BlobUnknownError, ManifestUnknownError):
            at_hand = embedded(desc)
            if at_hand is None:
                raise
            return VerifyingReader(io.BytesIO(at_hand), desc)

    def tags(self) -> Iterator[str]:
        """See `Source.tags`: the names in `index.json`, in its order."""
        yield from names.tags_of(self.index().manifests)

    def untagged(self) -> Iterator[Descriptor]:
        """See `Untagged.untagged`."""
        entries = self.index().manifests
        named = {entry.digest for entry in entries if names.is_named(entry)}
        found = {entry.digest: entry for entry in entries if entry.digest not in named}
        yield from [e for e in found.values() if self._stands_alone(e)] or found.values()

    def _stands_alone(self, entry: Descriptor) -> bool:
        facts = self.catalog.facts(entry)
        return entry.is_manifest() and (facts is None or facts.subject is None)

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """See `Source.referrers`: found among all manifests that `index.json` leads to."""
        for entry in self.catalog.referrers(self.index().manifests, subject.digest):
            if artifact_type in (None, entry.artifact_type):
                yield entry

    def close(self) -> None:
        """Let files go."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()
