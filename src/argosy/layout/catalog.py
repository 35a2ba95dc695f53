"""What the manifests of a layout say of each other: who is below whom, and who refers to whom.

Content never changes under its digest, so what was read once is kept. Whatever a stranger's layout holds, a walk ends:
every manifest is read once, and there are limits on depth and number (`content.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from argosy.content.graph import MAX_DEPTH, MAX_NODES
from argosy.content.memory import listed
from argosy.content.verify import VerifyingReader, embedded
from argosy.errors import ArgosyError, LimitExceededError
from argosy.spec import manifest as manifests
from argosy.spec._value import Value
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import AnyManifest, decode_manifest


class Facts(Value):
    """What one manifest says.

    Attributes:
        children: Everything it is made of.
        subject: What it refers to.
        entry: How it is listed among the referrers of that.
    """

    children: tuple[Descriptor, ...]
    subject: Digest | None
    entry: Descriptor

    @classmethod
    def of(cls, desc: Descriptor, manifest: AnyManifest) -> Facts:
        """The facts of a decoded manifest."""
        subject = manifest.subject.digest if manifest.subject else None
        return cls(manifest.children(), subject, listed(desc, manifest))


class Catalog:
    """The manifests of a layout, each read once.

    Args:
        fetch: Opens a manifest's content, verified.
    """

    def __init__(self, fetch: Callable[[Descriptor], VerifyingReader]) -> None:
        self._fetch = fetch
        self._facts: dict[Digest, Facts] = {}

    def facts(self, desc: Descriptor) -> Facts | None:
        """What a manifest says; None where it is not here, is damaged, or is none that argosy reads."""
        known = self._facts.get(desc.digest)
        if known is not None or not desc.is_manifest():
            return known
        try:
            made = Facts.of(desc, decode_manifest(self._read(desc), desc.media_type))
        except ArgosyError:
            return None
        self._facts[desc.digest] = made
        return made

    def _read(self, desc: Descriptor) -> bytes:
        at_hand = embedded(desc)
        if at_hand is not None:
            return at_hand
        with self._fetch(desc) as reader:
            return reader.readall(manifests.MAX_SIZE)

    def manifests(self, roots: Iterable[Descriptor]) -> Iterator[Descriptor]:
        """The roots and every manifest that indexes among them hold, parents first, each once.

        Raises:
            LimitExceededError: indexes nest deeper than 16, or there are more than 100 000 manifests.
        """
        seen: set[Digest] = set()
        level = list(roots)
        for _ in range(MAX_DEPTH + 1):
            below: list[Descriptor] = []
            for desc in level:
                if desc.digest in seen:
                    continue
                seen.add(desc.digest)
                if len(seen) > MAX_NODES:
                    raise LimitExceededError(f"more than {MAX_NODES} manifests")
                yield desc
                below.extend(self._nested(desc))
            if not below:
                return
            level = below
        raise LimitExceededError(f"indexes nest deeper than {MAX_DEPTH} at {level[0].digest}")

    def _nested(self, desc: Descriptor) -> Iterator[Descriptor]:
        facts = self.facts(desc) if desc.is_index() else None
        return (child for child in facts.children if child.is_manifest()) if facts else iter(())

    def referrers(self, roots: Iterable[Descriptor], subject: Digest) -> Iterator[Descriptor]:
        """The list entries of those below `roots` that refer to `subject`."""
        for desc in self.manifests(roots):
            facts = self.facts(desc)
            if facts is not None and facts.subject == subject:
                yield facts.entry

    def content(self, roots: Iterable[Descriptor]) -> Iterator[Descriptor]:
        """Everything below and including `roots`: manifests, configs and layers; some more than once."""
        seen: set[Digest] = set()
        todo = list(roots)
        while todo:
            inner: list[Descriptor] = []
            for desc in self.manifests(todo):
                yield desc
                facts = self.facts(desc)
                for child in facts.children if facts else ():
                    if not child.is_manifest():
                        yield child
                    elif not desc.is_index() and child.digest not in seen:
                        seen.add(
                            child.digest
                        )  # an artifact's layer, or its config, that is a manifest
                        inner.append(child)
            todo = inner
