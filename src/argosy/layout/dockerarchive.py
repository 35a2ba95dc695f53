"""Docker archives: what `docker save` writes and `docker load` reads (`docker-archive:`).

Three forms are read: `manifest.json` with configs and layers anywhere in the archive; the older one that has only
`repositories` and a directory for each layer; and that of Docker 25 and later, an OCI image layout with a
`manifest.json` beside it, of which the layout is used. The first two hold no manifests, so they are made, always the
same ones for the same archive: OCI manifests over the very bytes that are there (a layer in xz or
bzip2 is unpacked: OCI has no media type for it). The digest an image had in a registry
is not in such an archive, and so cannot be kept.

Written is the third form: Docker of every version, podman, skopeo and all that read `manifest.json` load it, and
digests are kept.
"""

from __future__ import annotations

import dataclasses
import io
import os
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from argosy.content.graph import MAX_DEPTH
from argosy.content.protocols import several
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    ArgosyError,
    InvalidError,
    InvalidLayoutError,
    InvalidTagError,
    PlatformUnknownError,
)
from argosy.layer.compression import Compression
from argosy.layout import dockerlegacy, names
from argosy.layout.archive import DOCKER_FILE, OCIArchive, OCIArchiveWriter, TarBlobs, TarSource
from argosy.layout.tarindex import Member, TarIndex
from argosy.layout.view import Blobs, LayoutSource
from argosy.spec import _json, imageconfig, imagelayout, mediatypes
from argosy.spec import manifest as manifests
from argosy.spec.annotations import CONTAINERD_IMAGE_NAME, REF_NAME
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ImageConfig
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.spec.platform import Platform, best
from argosy.spec.reference import Reference

MAX_FILE = 64 * 1024 * 1024
"""The most bytes argosy reads as an archive's `manifest.json`."""
MAX_LAYERS = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One image of an archive that holds no manifests.

    Attributes:
        tags: Its names, as written.
        config: Its configuration, byte for byte.
        layers: Its layers, the lowest first.
    """

    tags: tuple[str, ...]
    config: bytes
    layers: tuple[Member, ...]


class DockerArchive(TarSource):
    """A Docker archive to read: a `Source`. Compressed archives are read as well, and stdin as the path `-`.

    Tags are whole names (`busybox:1.36`); `@N` is the image number N.

    Args:
        tar: The archive, which is closed with this.

    Raises:
        InvalidLayoutError: it is no Docker archive; the message has the offset or the member.
    """

    transport = "docker-archive"

    @staticmethod
    def create(
        path: str | os.PathLike[str], *, compression: Compression | None = None, anew: bool = False
    ) -> DockerArchiveWriter:
        """Open an archive to write: see `DockerArchiveWriter`."""
        return DockerArchiveWriter(path, compression=compression, anew=anew)

    @staticmethod
    def check_tag(tag: str) -> None:
        """See `Target.check_tag`: it is the name of an image."""
        _name(tag)

    @staticmethod
    def _contents(tar: TarIndex) -> tuple[Index, Blobs]:
        return _layout(tar) or _made(tar)


def short_name(name: str) -> str:
    """A whole name as Docker shows it.

    >>> short_name("docker.io/library/busybox:latest")
    'busybox:latest'
    """
    return name.removeprefix("docker.io/").removeprefix("library/")


def _layout(tar: TarIndex) -> tuple[Index, Blobs] | None:
    """The images by way of the OCI layout that is in the archive too, or None where it names none."""
    if tar.find(imagelayout.HEADER_FILE) is None or tar.find(imagelayout.INDEX_FILE) is None:
        return None
    archive = OCIArchive(tar)
    entries = tuple(_by_whole_name(entry) for entry in archive.index().manifests)
    if not entries:
        return None
    return dataclasses.replace(archive.index(), manifests=entries), archive.content


def _by_whole_name(entry: Descriptor) -> Descriptor:
    whole = entry.annotations.get(CONTAINERD_IMAGE_NAME)
    return names.named(entry, short_name(whole)) if whole else entry


class _Blobs:
    """Content of an archive without manifests: members under their digests, and what was made."""

    def __init__(self, tar: TarIndex) -> None:
        self._tar = tar
        self._beside = TarBlobs(tar)
        self.members: dict[Digest, Member] = {}
        self.made: dict[Digest, bytes] = {}

    def has(self, desc: Descriptor) -> bool:
        return self.find(desc.digest) == desc.size

    def find(self, digest: Digest) -> int | None:
        if digest in self.made:
            return len(self.made[digest])
        member = self.members.get(digest)
        return member.size if member else self._beside.find(digest)

    def open(self, desc: Descriptor) -> VerifyingReader:
        made, member = self.made.get(desc.digest), self.members.get(desc.digest)
        if made is not None:
            return VerifyingReader(io.BytesIO(made), desc)
        return (
            self._beside.open(desc)
            if member is None
            else VerifyingReader(self._tar.stream(member), desc)
        )


def _made(tar: TarIndex) -> tuple[Index, Blobs]:
    """The images by way of `manifest.json` or `repositories`, with manifests made for them."""
    blobs = _Blobs(tar)
    known = _manifests_beside(tar)
    entries: list[Descriptor] = []
    for item in _items(tar):
        config = Descriptor.of(mediatypes.OCI_CONFIG, item.config)
        desc = known.get(config.digest) or _manifest(tar, blobs, item, config)
        entries += [names.named(desc, tag) for tag in item.tags] or [desc]
    return Index(manifests=tuple(entries)), blobs


def _manifests_beside(tar: TarIndex) -> dict[Digest, Descriptor]:
    """Manifests that lie in the archive though no index names them (Docker 25, untagged images), by their config."""
    found: dict[Digest, Descriptor] = {}
    if tar.find(imagelayout.HEADER_FILE) is None:
        return found
    for name in tar:
        member = tar.find(name)
        if member is None or not name.startswith("blobs/") or member.size > manifests.MAX_SIZE:
            continue
        if tar.stream(member).read(1) != b"{":
            continue
        raw = tar.small(name, manifests.MAX_SIZE) or b""
        try:
            manifest = decode_manifest(raw)
        except ArgosyError:
            continue
        if isinstance(manifest, Manifest):
            found[manifest.config.digest] = Descriptor.of(manifest.media_type, raw)
    return found


def _manifest(tar: TarIndex, blobs: _Blobs, item: Item, config: Descriptor) -> Descriptor:
    """Make the manifest of an image, and have its content found."""
    blobs.made[config.digest] = item.config
    diff_ids = _diff_ids(tar, item)
    layers = tuple(
        _layer(tar, blobs, member, diff_id)
        for member, diff_id in zip(item.layers, diff_ids, strict=True)
    )
    raw = Manifest(config=config, layers=layers).encode()
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, raw)
    blobs.made[desc.digest] = raw
    return desc


def _diff_ids(tar: TarIndex, item: Item) -> tuple[Digest, ...]:
    try:
        diff_ids = ImageConfig.decode(item.config).rootfs.diff_ids
    except InvalidError as exc:
        raise InvalidLayoutError(f"{tar.where}: config of {_called(item)}: {exc}") from None
    if len(diff_ids) != len(item.layers):
        raise InvalidLayoutError(
            f"{tar.where}: {_called(item)}: expected {len(diff_ids)} layers as in its config, "
            f"got {len(item.layers)}"
        )
    return diff_ids


def _called(item: Item) -> str:
    return repr(item.tags[0]) if item.tags else "an image without a name"


def _layer(tar: TarIndex, blobs: _Blobs, member: Member, diff_id: Digest) -> Descriptor:
    """A layer's descriptor: uncompressed it is its DiffID, which `fetch` proves; else it is read and hashed."""
    compression = Compression.sniff(tar.stream(member).read(4))
    digest = diff_id if compression is Compression.NONE else tar.digest(member)
    blobs.members[digest] = member
    media_type = mediatypes.layer_media_type(compression.value)
    return Descriptor(media_type=media_type, digest=digest, size=member.size)


def _items(tar: TarIndex) -> Iterator[Item]:
    """The images an archive lists.

    Raises:
        InvalidLayoutError: it lists none, or one of which a part is missing.
    """
    raw = tar.small(DOCKER_FILE, MAX_FILE)
    if raw is None:
        yield from (Item(*parts) for parts in dockerlegacy.images(tar))
        return
    where = f"{tar.where}: {DOCKER_FILE}"
    try:
        listed = _json.loads(raw, limit=MAX_FILE, error=InvalidLayoutError)
    except ArgosyError as exc:
        raise InvalidLayoutError(f"{where}: {exc}") from None
    if not isinstance(listed, list):
        raise InvalidLayoutError(f"{where}: expected an array")
    for position, entry in enumerate(listed):
        yield _item(tar, entry, f"{where}: [{position}]")


def _item(tar: TarIndex, entry: Any, where: str) -> Item:
    if not isinstance(entry, dict):
        raise InvalidLayoutError(f"{where}: expected an object")
    name = entry.get("Config")
    layers, tags = _strings(entry, "Layers", where), _strings(entry, "RepoTags", where)
    if not isinstance(name, str):
        raise InvalidLayoutError(f"{where}.Config: expected a string")
    if len(layers) > MAX_LAYERS:
        raise InvalidLayoutError(
            f"{where}.Layers: {len(layers)} are over the limit of {MAX_LAYERS}"
        )
    config = tar.small(name, imageconfig.MAX_SIZE)
    if config is None:
        raise InvalidLayoutError(f"{where}.Config: no member {name[:200]!r}")
    _check_named(name, config, f"{where}.Config")
    return Item(tags, config, tuple(_member(tar, layer, where) for layer in layers))


def _member(tar: TarIndex, name: str, where: str) -> Member:
    member = tar.find(name)
    if member is None:
        raise InvalidLayoutError(f"{where}.Layers: no member {name[:200]!r}")
    return tar.plain(member)


def _check_named(name: str, config: bytes, where: str) -> None:
    """A config that is named by a digest must have it."""
    stem = posixpath.basename(name).removesuffix(".json").removeprefix("sha256:")
    actual = Digest.of(config).encoded
    if len(stem) == len(actual) and stem.isalnum() and stem != actual:
        raise InvalidLayoutError(f"{where}: {name[:200]!r} has another digest: {actual}")


def _strings(entry: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = entry.get(name)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidLayoutError(f"{where}.{name}: expected an array of strings")
    return tuple(value)


class DockerArchiveWriter(OCIArchiveWriter):
    """A Docker archive to write: a `Target`, that also is an OCI archive, so that digests are kept.

    Tags are names of images with a tag (`app:v1`, `registry.example/app:v1`); without a tag it is `latest`. Of an
    index, `docker load` of versions that know no indexes gets the image for this machine's platform. Everything else is
    as in `OCIArchiveWriter`.

    Example:
        >>> import tempfile
        >>> from argosy.testing import random
        >>> folder = tempfile.TemporaryDirectory()
        >>> with DockerArchive.create(folder.name + "/a.tar") as archive:
        ...     desc = random.image(archive, 1, "app:v1")
        >>> with DockerArchive.open(folder.name + "/a.tar") as archive:
        ...     list(archive.tags()), archive.resolve("docker.io/library/app:v1") == desc
        (['app:v1'], True)
        >>> folder.cleanup()
    """

    scheme: ClassVar[str] = "docker-archive"

    def _open(self, path: str) -> LayoutSource:
        return DockerArchive.open(path)

    def push(self, desc: Descriptor, content: Any, *, tags: Sequence[str] = ()) -> None:
        """See `Target.push`; tags are names of images."""
        super().push(desc, content, tags=[_name(tag) for tag in several(tags)])

    def tag(self, desc: Descriptor, tag: str) -> None:
        """See `Target.tag`; the tag is the name of an image."""
        super().tag(desc, _name(tag))

    def _documents(self) -> dict[str, bytes]:
        index = self.index()
        entries = tuple(_as_docker(entry) for entry in index.manifests)
        written = dataclasses.replace(index, manifests=entries)
        documents = super()._documents()
        documents[imagelayout.INDEX_FILE] = written.encode()
        documents[DOCKER_FILE] = _json.dumps(list(self._listed(index.manifests)))
        return documents

    def _listed(self, entries: Sequence[Descriptor]) -> Iterator[dict[str, object]]:
        """The entries of `manifest.json`: each image once, with all its names."""
        tags: dict[Digest, list[str]] = {}
        for entry in entries:
            name = entry.annotations.get(REF_NAME)
            facts = self.catalog.facts(entry)
            image = None if facts and facts.subject and not name else self._image(entry)
            if image is None:
                continue
            whole = names.long_name(name) if name else None
            tags.setdefault(image.digest, []).extend([whole] if whole else [])
        for digest, of in tags.items():
            facts = self.catalog.facts(self.resolve(digest))
            config, *layers = facts.children if facts else ()
            yield {
                "Config": imagelayout.blob_path(config.digest),
                "RepoTags": of or None,
                "Layers": [imagelayout.blob_path(layer.digest) for layer in layers],
            }

    def _image(self, entry: Descriptor) -> Descriptor | None:
        """The one image that stands for an entry; None for artifacts and what is not whole here."""
        for _ in range(MAX_DEPTH):
            facts = self.catalog.facts(entry)
            if facts is None:
                return None
            if not entry.is_index():
                is_image = facts.children[0].media_type in mediatypes.CONFIGS
                whole = all(self.blobs.has(child) for child in facts.children)
                return entry if is_image and whole else None
            here = [c for c in facts.children if c.is_manifest() and self.blobs.has(c)]
            found = best(Platform.host(), [c.platform for c in here]) if here else None
            if not here:
                return None
            entry = here[found or 0]
        raise PlatformUnknownError(f"indexes nest deeper than {MAX_DEPTH}")


def _name(tag: str) -> str:
    """A tag as the name of an image, in Docker's short form."""
    whole = names.long_name(tag)
    if whole is None or "@" in tag:
        raise InvalidTagError(f"tag {tag[:200]!r}: expected the name of an image, as in app:v1")
    return short_name(whole)


def _as_docker(entry: Descriptor) -> Descriptor:
    """An entry with its tag and its whole name, as Docker writes them."""
    name = entry.annotations.get(REF_NAME)
    whole = names.long_name(name) if name else None
    if whole is None:
        return entry
    annotations = dict(entry.annotations)
    annotations[CONTAINERD_IMAGE_NAME] = whole
    annotations[REF_NAME] = Reference.parse(whole).tag or "latest"
    return dataclasses.replace(entry, annotations=annotations)
