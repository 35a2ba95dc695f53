"""A place in memory: for tests, for small artifacts, and as the top of an overlay."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator, Sequence

from argosy.content.graph import readall
from argosy.content.protocols import SupportsRead, check_tagged, several
from argosy.content.verify import VerifyingReader
from argosy.errors import ArgosyError, BlobUnknownError, ManifestUnknownError
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import ALGORITHMS, Digest
from argosy.spec.manifest import AnyManifest, decode_manifest
from argosy.spec.reference import parse_tag


class MemoryStore:
    """A `Target` and `Deleter` that keeps everything in a dictionary. Safe for threads.

    Example:
        >>> store = MemoryStore()
        >>> desc = store.add("application/vnd.oci.image.index.v1+json", b'{"schemaVersion":2,"manifests":[]}', "v1")
        >>> store.resolve("v1") == desc, list(store.tags())
        (True, ['v1'])
    """

    def __init__(self) -> None:
        self._content: dict[Digest, tuple[Descriptor, bytes]] = {}
        self._tags: dict[str, Descriptor] = {}
        self._lock = threading.RLock()

    def __str__(self) -> str:
        return "memory"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def add(self, media_type: str, data: bytes, *tags: str) -> Descriptor:
        """Store some bytes and tag them.

        Returns:
            Their descriptor.
        """
        desc = Descriptor.of(media_type, data)
        self.push(desc, io.BytesIO(data), tags=tags)
        return desc

    def resolve(self, tag_or_digest: str) -> Descriptor:
        """See `Source.resolve`."""
        with self._lock:
            found = self._tags.get(tag_or_digest)
            if found is None and tag_or_digest.partition(":")[0] in ALGORITHMS:
                found = self._content.get(Digest(tag_or_digest), (None,))[0]
        if found is None:
            raise ManifestUnknownError(f"{tag_or_digest} is not in memory")
        return found

    def exists(self, desc: Descriptor) -> bool:
        """See `Source.exists`."""
        return desc.digest in self._content

    def fetch(self, desc: Descriptor) -> VerifyingReader:
        """See `Source.fetch`."""
        with self._lock:
            held = self._content.get(desc.digest)
        if held is None:
            raise (ManifestUnknownError if desc.is_manifest() else BlobUnknownError)(
                f"{desc.digest} is not in memory"
            )
        return VerifyingReader(io.BytesIO(held[1]), desc)

    def tags(self) -> Iterator[str]:
        """See `Source.tags`; in lexical order."""
        with self._lock:
            return iter(sorted(self._tags))

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        """See `Source.referrers`."""
        with self._lock:
            held = [item for item in self._content.values() if item[0].is_manifest()]
        for desc, raw in held:
            entry = referrer_of(desc, raw, subject.digest)
            if entry is not None and artifact_type in (None, entry.artifact_type):
                yield entry

    @staticmethod
    def check_tag(tag: str) -> None:
        """See `Target.check_tag`."""
        parse_tag(tag)

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """See `Target.push`."""
        names = [parse_tag(tag) for tag in several(tags)]
        if names:
            check_tagged(desc)
        if not self.exists(desc):
            data = readall(VerifyingReader(content, desc))
            with self._lock:
                self._content[desc.digest] = (desc.bare(), data)
        with self._lock:
            self._tags.update(dict.fromkeys(names, desc.bare()))

    def tag(self, desc: Descriptor, tag: str) -> None:
        """See `Target.tag`."""
        parse_tag(tag)
        check_tagged(desc)
        with self._lock:
            if desc.digest not in self._content:
                raise ManifestUnknownError(f"{desc.digest} is not in memory")
            self._tags[tag] = desc.bare()

    def delete(self, desc: Descriptor) -> None:
        """See `Deleter.delete`."""
        with self._lock:
            if self._content.pop(desc.digest, None) is None:
                raise (ManifestUnknownError if desc.is_manifest() else BlobUnknownError)(
                    f"{desc.digest} is not in memory"
                )
            self._tags = {t: d for t, d in self._tags.items() if d.digest != desc.digest}

    def untag(self, tag: str) -> None:
        """See `Deleter.untag`."""
        with self._lock:
            if self._tags.pop(tag, None) is None:
                raise ManifestUnknownError(f"{tag} is not in memory")


def referrer_of(desc: Descriptor, raw: bytes, subject: Digest) -> Descriptor | None:
    """How a manifest is listed among the referrers of a subject, or None where it does not refer to it.

    The entry has `artifactType` (for images without one, the config's media type) and the manifest's annotations, as
    the distribution-spec asks ("Listing Referrers").
    """
    try:
        manifest = decode_manifest(raw, desc.media_type)
    except ArgosyError:
        return None
    if manifest.subject is None or manifest.subject.digest != subject:
        return None
    return listed(desc, manifest)


def listed(desc: Descriptor, manifest: AnyManifest) -> Descriptor:
    """A manifest's entry in a list of referrers."""
    return Descriptor(
        media_type=desc.media_type,
        digest=desc.digest,
        size=desc.size,
        artifact_type=manifest.kind,
        annotations=manifest.annotations,
    )
