"""Checking an image, an index or an artifact: every digest, size, media type and DiffID, and what must agree.

Nothing here stops at the first mistake: what is found is yielded, one `Finding` a mistake, and checking goes on where
it can. An error is a MUST that does not hold or content that is not there; a warning is a SHOULD.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from argosy.content import graph
from argosy.content.bounds import MOST_RECENT
from argosy.content.protocols import readable
from argosy.content.verify import embedded
from argosy.errors import ArgosyError, NotFoundError, StorageError
from argosy.image.view import Image, ImageIndex, Layer
from argosy.layer.compression import Compression
from argosy.layer.entry import Whiteout
from argosy.layer.tarstream import TarReader
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest, problems
from argosy.spec.platform import Platform

__all__ = ["Finding", "Known", "validate"]

Known = dict[tuple[object, ...], "tuple[Finding, ...]"]
"""What was found in layers, by all that it depends on: images share many, and each is read once."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One mistake.

    Args:
        where: What it is in, such as `layer 3 (sha256:…)`.
        rule: What does not hold, in one line.
        warning: Whether it is a SHOULD.
    """

    where: str
    rule: str
    warning: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}"


def validate(
    what: Image | ImageIndex, *, fast: bool = False, known: Known | None = None
) -> Iterator[Finding]:
    """Everything that is wrong with an image or an index.

    Args:
        what: What to check.
        fast: Look whether layers are there, but do not read them.
        known: What was found in layers before, of the same place and as `fast`; what is found now joins it.

    Raises:
        RegistryError: the place itself fails.

    Example:
        >>> from argosy.content.memory import MemoryStore
        >>> from argosy.testing.random import image
        >>> store = MemoryStore()
        >>> [str(finding) for finding in validate(Image(source=store, descriptor=image(store, 1)))]
        []
    """
    run = _Run(fast, {} if known is None else known)
    if isinstance(what, ImageIndex):
        yield from run.index(what, 0)
    else:
        yield from run.image(what)


class _Run:
    def __init__(self, fast: bool, known: Known) -> None:
        self._fast, self._known = fast, known
        self._seen: set[Digest] = set()

    def index(self, index: ImageIndex, depth: int) -> Iterator[Finding]:
        """What is wrong with an index, and below it."""
        where = f"index {index.digest}"
        try:
            parsed = index.index
        except (ArgosyError, StorageError) as exc:
            yield Finding(where=where, rule=_unread(index.descriptor, exc))
            return
        for problem in problems(parsed):
            yield Finding(where=where, rule=problem, warning=True)
        if depth > graph.MAX_DEPTH:
            yield Finding(where=where, rule=f"indexes are nested deeper than {graph.MAX_DEPTH}")
            return
        for entry in parsed.manifests:
            yield from _data(f"manifest {entry.digest}", entry)
            new = entry.digest not in self._seen
            self._seen.add(entry.digest)
            if entry.is_index() and new:
                nested = ImageIndex(source=index.source, descriptor=entry)
                yield from self.index(nested, depth + 1)
            elif entry.is_manifest():
                image = Image(source=index.source, descriptor=entry)
                if new:
                    yield from self.image(image)
                yield from _agrees(image, entry)

    def image(self, image: Image) -> Iterator[Finding]:
        """What is wrong with an image or an artifact, and with its layers."""
        where = f"manifest {image.digest}"
        try:
            manifest = image.document
        except ArgosyError as exc:
            yield Finding(where=where, rule=_unread(image.descriptor, exc))
            return
        for problem in problems(manifest):
            yield Finding(where=where, rule=problem, warning=True)
        if isinstance(manifest, Manifest):
            yield from _config(image)
        try:
            layers = image.layers
        except ArgosyError:
            layers = tuple(
                Layer(source=image.source, descriptor=desc, position=position)
                for position, desc in enumerate(manifest.layers)
            )
        for layer in layers:
            yield from self._layer(layer, changeset=image.is_image)

    def _layer(self, layer: Layer, *, changeset: bool) -> Iterator[Finding]:
        desc, name = layer.descriptor, layer.name
        yield from _data(name, desc)
        at_hand = embedded(desc) is not None
        key = (desc.digest, desc.size, desc.media_type, at_hand, layer.diff_id, changeset)
        found = self._known.get(key)
        if found is None:
            found = tuple(_layer(layer, self._fast, changeset=changeset))
            if len(self._known) >= MOST_RECENT:
                self._known.clear()
            self._known[key] = found
        for finding in found:
            yield dataclasses.replace(finding, where=name)


def _unread(desc: Descriptor, failure: Exception) -> str:
    """Why a manifest could not be read; where it is not there, for whom it would be."""
    if not isinstance(failure, NotFoundError):
        return str(failure)
    return f"is not there, for {desc.platform}" if desc.platform else "is not there"


def _agrees(image: Image, entry: Descriptor) -> Iterator[Finding]:
    """An entry's platform and its image's must be the same machine."""
    try:
        if entry.platform is None or not image.is_image or entry.platform.os == "unknown":
            return
        found = image.platform
    except ArgosyError:
        return  # already found
    said = entry.platform
    if _machine(said) != _machine(found):
        rule = f"the index says {said}, the configuration {found}"
        yield Finding(where=f"manifest {entry.digest}", rule=rule)


def _machine(platform: Platform) -> tuple[str, str]:
    return platform.os, platform.architecture


def _config(image: Image) -> Iterator[Finding]:
    where = f"config {image.manifest.config.digest}"
    yield from _data(where, image.manifest.config)
    try:
        raw = image.raw_config
        if not image.is_image:
            return
        config = image.config
    except ArgosyError as exc:
        yield Finding(where=where, rule=str(exc))
        return
    del raw
    stack, layers = len(config.rootfs.diff_ids), len(image.manifest.layers)
    if stack != layers:
        yield Finding(
            where=where, rule=f"rootfs.diff_ids: expected {layers}, one a layer, got {stack}"
        )
    told = sum(not step.empty_layer for step in config.history)
    if config.history and told != layers:
        rule = f"history: tells of {told} layers, the manifest has {layers}"
        yield Finding(where=where, rule=rule, warning=told < layers)


def _layer(layer: Layer, fast: bool, *, changeset: bool) -> Iterator[Finding]:
    desc = layer.descriptor
    if changeset and not layer.is_changeset:
        rule = f"{desc.media_type} is no media type of a layer"
        yield Finding(where=layer.name, rule=rule, warning=True)
    foreign = desc.media_type in mediatypes.NONDISTRIBUTABLE
    try:
        if fast or foreign:
            if not foreign and embedded(desc) is None and not readable(layer.source, desc):
                yield Finding(where=layer.name, rule="is not there")
            return
        if changeset and layer.is_changeset:
            yield from _changeset(layer)
        else:
            with layer.compressed() as reader:
                while reader.read(1 << 20):
                    pass
    except ArgosyError as exc:
        yield Finding(where=layer.name, rule=str(exc).removeprefix(f"{layer.name}: "))


def _data(where: str, desc: Descriptor) -> Iterator[Finding]:
    """What is embedded in a descriptor must be its content (descriptor.md, "Embedded Content")."""
    if desc.data is not None and embedded(desc) is None:
        yield Finding(where=where, rule="the data in its descriptor is something else")


def _changeset(layer: Layer) -> Iterator[Finding]:
    failure: ArgosyError | None = None
    with layer.uncompressed() as stream:
        try:
            _entries(TarReader(stream))
        except ArgosyError as exc:
            failure = exc
    actual = stream.meter.compression
    expected = Compression.of_media_type(layer.descriptor.media_type)
    if actual and expected and actual is not expected:
        rule = f"the media type says {expected.value}, the bytes are {actual.value}"
        # Many tools write the gzip media type for what they left uncompressed, and read what is there.
        yield Finding(where=layer.name, rule=rule, warning=True)
    if failure is not None:
        raise failure
    if stream.meter.padding:
        # Their readers of gzip and of zstd look for another member there.
        padding = stream.meter.padding
        rule = f"{padding} NUL bytes follow the compressed stream, which tools in Go refuse"
        yield Finding(where=layer.name, rule=rule, warning=True)


def _entries(reader: TarReader) -> None:
    for entry in reader:
        Whiteout.of(entry.path.rpartition(b"/")[2])
    reader.drain()
