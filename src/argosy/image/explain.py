"""Why an image is what it says: its chain of digests, link by link, each one computed anew.

    reference → manifest digest → image id (the config's digest) → layer digests → uncompressed digests = diff_ids
    → chain ids

Each link says what was hashed, what was expected and what came out. A broken link does not stop the walk: the others
are checked all the same where they can be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from argosy.content import graph
from argosy.content.protocols import Source
from argosy.errors import ArgosyError, IntegrityError
from argosy.image.view import Image, Layer
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import chain_ids
from argosy.spec.platform import Platform

__all__ = ["Link", "explain"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of the chain.

    Attributes:
        name: What it is, such as `layer 2` or `diff_id 2`.
        hashed: What bytes were hashed, in words.
        expected: The digest somebody promised, or None where this link is the first word.
        promised_by: Who promised it.
        actual: The digest that came out, or None where nothing could be hashed.
        problem: Why it does not hold, or None.
    """

    name: str
    hashed: str
    expected: Digest | None
    promised_by: str
    actual: Digest | None
    problem: str | None = None

    @property
    def holds(self) -> bool:
        """Whether what came out is what was promised."""
        return self.problem is None and self.expected in (None, self.actual)


def explain(source: Source, tag_or_digest: str, platform: Platform | None = None) -> Iterator[Link]:
    """Walk the chain of one image; every byte of it is read.

    Args:
        source: Where it is.
        tag_or_digest: Which one.
        platform: Of an index, the image for this platform; this machine's if None.

    Raises:
        ManifestUnknownError: there is no such tag or manifest.
        PlatformUnknownError: the index has no image for the platform.
        InvalidManifestError: the manifest cannot be read, so there is no chain.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.testing import random
        >>> store = MemoryStore()
        >>> _ = random.image(store, 1, "v1", layers=1)
        >>> [link.name for link in explain(store, "v1") if link.holds]
        ['manifest', 'image id', 'layer 0', 'diff_id 0', 'chain id 0']
    """
    root = source.resolve(tag_or_digest)
    by = f"the digest {tag_or_digest}" if ":" in tag_or_digest else f"the tag {tag_or_digest}"
    if root.is_index():
        yield _stored(source, root, "index", "the index, as stored", by)
        by = f"the index {root.digest}"
    image = Image.select(source, root, platform)
    yield _stored(source, image.descriptor, "manifest", "the manifest, as stored", by)
    config = image.manifest.config
    yield _stored(
        source, config, "image id", "the configuration, as stored", "the manifest's config"
    )
    for layer in image.layers:
        yield from _layer(layer)
    yield from _chain(image)


def _stored(source: Source, desc: Descriptor, name: str, hashed: str, by: str) -> Link:
    try:
        graph.read(source, desc)
    except IntegrityError as exc:
        return _broken(name, hashed, desc.digest, by, exc)
    return Link(
        name=name,
        hashed=f"{hashed}: {desc.size} bytes",
        expected=desc.digest,
        promised_by=by,
        actual=desc.digest,
    )


def _broken(name: str, hashed: str, expected: Digest, by: str, exc: ArgosyError) -> Link:
    actual = getattr(exc, "actual", None)
    return Link(
        name=name,
        hashed=hashed,
        expected=expected,
        promised_by=by,
        actual=actual if isinstance(actual, Digest) else None,
        problem=str(exc),
    )


def _layer(layer: Layer) -> Iterator[Link]:
    """The layer's own digest and its diff_id, both from one reading."""
    number, desc, diff_id = layer.position, layer.descriptor, layer.diff_id
    name, hashed, by = f"layer {number}", "the layer, as stored", f"the manifest's layers[{number}]"
    plain = (
        f"diff_id {number}",
        "the layer, uncompressed",
        f"the config's rootfs.diff_ids[{number}]",
    )
    problem: ArgosyError | None = None
    size = 0
    try:
        with layer.uncompressed() as stream:
            stream.drain()
            size = stream.size
    except ArgosyError as exc:
        problem = exc
    proved = problem is None or getattr(problem, "expected", None) == diff_id is not None
    if not proved and problem is not None:
        yield _broken(name, hashed, desc.digest, by, problem)
        return
    yield Link(
        name=name,
        hashed=f"{hashed}: {desc.size} bytes",
        expected=desc.digest,
        promised_by=by,
        actual=desc.digest,
    )
    if diff_id is None:
        return
    if problem is not None:
        yield _broken(plain[0], plain[1], diff_id, plain[2], problem)
        return
    yield Link(
        name=plain[0],
        hashed=f"{plain[1]}: {size} bytes",
        expected=diff_id,
        promised_by=plain[2],
        actual=diff_id,
    )


def _chain(image: Image) -> Iterator[Link]:
    diff_ids = tuple(layer.diff_id for layer in image.layers if layer.diff_id is not None)
    for number, chain_id in enumerate(chain_ids(diff_ids)):
        below = f'the text "<chain id {number - 1}> <diff_id {number}>"'
        yield Link(
            name=f"chain id {number}",
            hashed=below if number else "nothing: the lowest chain id is its diff_id",
            expected=None,
            promised_by="nobody: it is computed wherever layers are kept",
            actual=chain_id,
        )
