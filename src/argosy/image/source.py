"""Source images: the sources an image was made from, as an image (the layout of BuildSourceImage).

One layer a source, an uncompressed deterministic tar: the source at `blobs/sha256/<sum>`, and a relative link to it
under its own name at `<driver>/<name>`. Layers unpacked over each other never collide. Annotations of the layers tell
what each source is.
"""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

from argosy.content.protocols import Source
from argosy.errors import UsageError, unread
from argosy.image.configure import rfc3339
from argosy.image.derive import add_layers, derive
from argosy.image.draft import Draft, NewLayer, regular_file
from argosy.image.new import scratch
from argosy.image.rpm import InvalidPackageError, read_package
from argosy.image.view import Image
from argosy.image.walk import TreeOptions, write_tree
from argosy.layer.compression import Compression
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarwriter import TarWriter
from argosy.spec.digest import Digest, hasher
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform

__all__ = [
    "IMAGE_TYPE",
    "Artifact",
    "SourceArtifact",
    "add",
    "artifacts",
    "build",
    "extras",
    "listed",
]

IMAGE_TYPE = "com.redhat.image.type"
"""The annotation that says `source` on a source image."""
_KEY = "source.artifact."
_EXTRA = re.compile(r"extra-src-(\d{1,9})\.tar", re.ASCII)
_TREE = TreeOptions(owner=(0, 0), fixed_time=0, xattrs=False)
_MIMETYPES = (
    (b"\xed\xab\xee\xdb", 0, "application/x-rpm"),
    (b"\x1f\x8b", 0, "application/gzip"),
    (b"\xfd7zXZ\0", 0, "application/x-xz"),
    (b"BZh", 0, "application/x-bzip2"),
    (b"\x28\xb5\x2f\xfd", 0, "application/zstd"),
    (b"PK\x03\x04", 0, "application/zip"),
    (b"ustar", 257, "application/x-tar"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A source to put into a source image.

    Args:
        driver: Which driver found it: `rpm_dir`, `context_dir` or `extra_src_dir`.
        path: A file here, or for the other drivers a directory whose tar is the source.
        filename: What it is called in the image.
        annotations: What is known of it, by the part of the key after `source.artifact.`.
    """

    driver: str
    path: str
    filename: str
    annotations: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SourceArtifact:
    """A source that is in a source image: its layer's digest and size, and what the annotations say of it."""

    layer: Digest
    size: int
    annotations: dict[str, str]


def artifacts(
    *,
    rpms: str | None = None,
    context: str | None = None,
    extra: Sequence[str] = (),
    first: int = 0,
) -> Iterator[Artifact]:
    """What the drivers find, in their order: context, extra directories, source packages.

    Args:
        rpms: A directory of source packages (`*.src.rpm`).
        context: A build context.
        extra: More directories of sources.
        first: The number in the name of the first of those; see `extras`.

    Raises:
        InvalidPackageError: a file of that name is no source package.
        NotFoundError, DeniedError, StorageError: something is not there, may not or cannot be read.
        UsageError: a directory of packages has none.
    """
    if context is not None:
        yield _tree("context_dir", context, "context.tar")
    for number, path in enumerate(extra, first):
        yield _tree("extra_src_dir", path, f"extra-src-{number}.tar")
    if rpms is not None:
        names = sorted(name for name in _listed(rpms) if name.endswith(".src.rpm"))
        if not names:
            raise UsageError(f"{rpms}: no source packages (*.src.rpm) are in it")
        yield from (_package(os.path.join(rpms, name), name) for name in names)


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError as exc:
        raise unread(path, exc) from exc


def _tree(driver: str, path: str, filename: str) -> Artifact:
    _listed(path)
    name = filename.removesuffix(".tar")
    notes = {"name": name, "mimetype": "application/x-tar"}
    return Artifact(driver=driver, path=path, filename=filename, annotations=notes)


def _package(path: str, filename: str) -> Artifact:
    with regular_file(path) as file:
        package = read_package(file, path)
    if not package.is_source:
        raise InvalidPackageError(f"{path}: expected a source package, got a binary one")
    notes = {
        "name": package.name,
        "version": package.version,
        "epoch": package.epoch,
        "release": package.release,
        "license": package.license,
        "buildtime": package.buildtime,
        "pkgid": package.pkgid,
        "mimetype": "application/x-rpm",
    }
    kept = {key: value for key, value in notes.items() if value}
    return Artifact(driver="rpm_dir", path=path, filename=filename, annotations=kept)


def build(
    source: Source,
    found: Sequence[Artifact],
    *,
    platform: Platform | None = None,
    epoch: int | None = None,
    created: str | None = None,
) -> Image:
    """A source image, in a draft over `source`.

    Args:
        source: The place it is drafted over.
        found: What is in it, in order.
        platform: What its configuration says; this machine's if None.
        epoch: Written as the time of everything, in seconds since 1970.
        created: RFC 3339; by `epoch` if None, else absent: the same sources give the same image.

    Raises:
        UsageError: there is nothing to put in.
        NotFoundError, DeniedError, StorageError: a source is not there, may not or cannot be read.
    """
    if not found:
        raise UsageError("there are no sources: name packages, a context or extra directories")
    created = created or (rfc3339(epoch) if epoch is not None else None)
    image = scratch(source, platform, created=created)
    notes = {**image.manifest.annotations, IMAGE_TYPE: "source"}
    return add(derive(image, annotations=notes), found, created=created)


def add(image: Image, found: Sequence[Artifact], *, created: str | None = None) -> Image:
    """A source image with more sources; those it has already are passed over.

    Args:
        image: The old one.
        found: What to add.
        created: RFC 3339, for the history.

    Raises:
        UsageError: the image has another source of that name, which the new one would hide where they are unpacked.
        NotFoundError, DeniedError, StorageError: a source is not there, may not or cannot be read.
    """
    told = [source.annotations for source in listed(image)]
    have = {notes.get("filename.checksum") for notes in told}
    taken = {notes.get("filename") for notes in told}
    place = image.source
    if not isinstance(place, Draft):
        image = derive(image)
        place = image.source
    assert isinstance(place, Draft)
    new: list[tuple[NewLayer, History]] = []
    for artifact in found:
        layer = _layer(place, artifact)
        checksum = layer.descriptor.annotations[f"{_KEY}filename.checksum"]
        if checksum not in have:
            if artifact.filename in taken:
                raise UsageError(
                    f"{artifact.path}: {artifact.filename} is in the image already, and is another source"
                )
            have.add(checksum)
            taken.add(artifact.filename)
            step = History(created=created, created_by=f"#(nop) argosy adding artifact: {checksum}")
            new.append((layer, step))
    return add_layers(image, *new)


def extras(image: Image) -> int:
    """The number of the next extra directory of a source image: one that none in it has.

    Raises:
        UsageError: no layer of it says that it is a source.
    """
    found = (_EXTRA.fullmatch(source.annotations.get("filename", "")) for source in listed(image))
    return max((int(match[1]) + 1 for match in found if match), default=0)


def listed(image: Image) -> tuple[SourceArtifact, ...]:
    """The sources in a source image.

    Raises:
        UsageError: no layer of it says that it is a source.
    """
    found = tuple(
        SourceArtifact(
            layer=layer.digest,
            size=layer.size,
            annotations={
                key.removeprefix(_KEY): value
                for key, value in layer.annotations.items()
                if key.startswith(_KEY)
            },
        )
        for layer in image.manifest.layers
    )
    if found and not any(source.annotations for source in found):
        raise UsageError(f"{image.digest} is no source image: no layer has source annotations")
    return found


def _layer(place: Draft, artifact: Artifact) -> NewLayer:
    """One source as an uncompressed layer: the same source and name give the same digest."""
    with _content(artifact) as file:
        hashed, size, head = hasher(), 0, b""
        while data := file.read(1 << 20):
            head = head or data[:512]
            hashed.update(data)
            size += len(data)
        checksum = Digest.done("sha256", hashed)
        file.seek(0)
        with place.upper.layer(Compression.NONE) as out, TarWriter(out) as tar:
            _write(tar, artifact, checksum, size, file)
    notes = {
        "mimetype": _mimetype(head),
        **artifact.annotations,
        "filename": artifact.filename,
        "filename.checksum": str(checksum),
    }
    annotated = {_KEY + key: value for key, value in sorted(notes.items())}
    descriptor = dataclasses.replace(out.layer.descriptor, annotations=annotated)
    return dataclasses.replace(out.layer, descriptor=descriptor)


def _content(artifact: Artifact) -> IO[bytes]:
    """The source's bytes: a file as it is, a directory as a deterministic tar."""
    if not os.path.isdir(artifact.path):
        return regular_file(artifact.path)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with TarWriter(file) as tar:
        write_tree(tar, artifact.path, b"", _TREE)
    file.seek(0)
    return file


def _write(
    tar: TarWriter, artifact: Artifact, checksum: Digest, size: int, content: IO[bytes]
) -> None:
    driver, filename = os.fsencode(artifact.driver), os.fsencode(artifact.filename)
    blob = b"blobs/sha256/" + checksum.encoded.encode()

    def folder(name: bytes) -> None:
        tar.add(Entry(name=b"./" + name, type=EntryType.DIRECTORY, mode=0o777))

    for name in (b"", b"blobs/", b"blobs/sha256/"):
        folder(name)
    chunks = iter(lambda: content.read(1 << 20), b"")
    tar.add(Entry(name=b"./" + blob, mode=0o666, size=size), chunks)
    folder(driver + b"/")
    tar.add(
        Entry(
            name=b"./" + driver + b"/" + filename,
            type=EntryType.SYMLINK,
            mode=0o777,
            linkname=b"../" + blob,
        )
    )


def _mimetype(head: bytes) -> str:
    for magic, at, name in _MIMETYPES:
        if head[at : at + len(magic)] == magic:
            return name
    return "application/octet-stream"
