"""Artifacts: files and directories as the layers of a manifest, in the shape ORAS gave them (manifest.md, "Guidelines
for Artifact Usage").

A file is a layer as it is, its name in the annotation `org.opencontainers.image.title`. A directory is a gzip tar whose
entries begin with its name, marked to be unpacked again. Without a configuration the config is the empty descriptor and
`artifactType` says what this is.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence

from argosy.content.protocols import Source
from argosy.errors import UsageError
from argosy.image.draft import Draft, draft
from argosy.image.view import Image
from argosy.image.walk import TreeOptions, write_tree
from argosy.layer.entry import Entry, EntryType, clean_name, shown
from argosy.layer.tarwriter import SupportsWrite, TarWriter
from argosy.spec import annotations as keys
from argosy.spec import mediatypes
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.manifest import Manifest, check_types, decode_manifest

__all__ = [
    "CONTENT",
    "DIGEST",
    "UNKNOWN_ARTIFACT",
    "UNKNOWN_CONFIG",
    "UNPACK",
    "File",
    "check_title",
    "link_stays",
    "pack",
]

UNKNOWN_ARTIFACT = "application/vnd.unknown.artifact.v1"
"""The artifact type where nobody said one."""
UNKNOWN_CONFIG = "application/vnd.unknown.config.v1+json"
"""The media type of a config where nobody said one: an image's would make an image of the artifact."""
UNPACK = "io.deis.oras.content.unpack"
"""The annotation that says `true` on a directory's tar."""
DIGEST = "io.deis.oras.content.digest"
"""The annotation with the digest of a directory's tar, uncompressed."""

CONTENT = (EntryType.FILE, EntryType.DIRECTORY, EntryType.SYMLINK, EntryType.HARDLINK)
"""What a directory's tar may hold."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """Something to pack.

    Args:
        path: A file or directory here, or a link to one.
        title: What it is called in the artifact; its path if None. `./a` and `b/../a` are called `a`.
        media_type: Of its layer; a tar layer's if None, and of a config `UNKNOWN_CONFIG`.
        annotations: Of its layer's descriptor.
    """

    path: str
    title: str | None = None
    media_type: str | None = None
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)


def pack(
    source: Source,
    files: Sequence[File] = (),
    *,
    artifact_type: str | None = None,
    config: File | None = None,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
    config_annotations: Mapping[str, str] | None = None,
    options: TreeOptions | None = None,
    any_path: bool = False,
) -> Image:
    """An artifact of some files, in a draft over `source`.

    Args:
        source: The place it is drafted over.
        files: What is in it, in order; without any, one empty layer.
        artifact_type: What sort of artifact it is.
        config: A file to be its config; the empty descriptor if None.
        subject: The manifest it refers to.
        annotations: Of the manifest.
        config_annotations: Of the config's descriptor.
        options: How the files of directories are told of.
        any_path: Allow titles and links that leave where they are unpacked, which unpacking then refuses.

    Raises:
        NotFoundError, DeniedError, StorageError: a file is not there, may not or cannot be read.
        UsageError: two files have one title, a title leaves its directory, or a directory holds what could not
            be unpacked: a device, or a link that leads out of it.
        InvalidManifestError: something given cannot stand in a manifest, such as a media type that is none.
    """
    place = draft(source)
    layers = tuple(_layer(place, file, options, any_path) for file in files)
    titles = [layer.annotations[keys.TITLE] for layer in layers]
    for title in {t for t in titles if titles.count(t) > 1}:
        raise UsageError(f"{title!r}: two files would have this title")
    described = _config(place, config, config_annotations or {})
    if artifact_type is None and described.media_type == mediatypes.OCI_EMPTY:
        artifact_type = UNKNOWN_ARTIFACT
    manifest = Manifest(
        artifact_type=artifact_type,
        config=described,
        layers=layers or (_empty(place),),
        subject=subject.bare() if subject else None,
        annotations=annotations or {},
    )
    raw = manifest.encode()
    # What would be refused by whoever reads it is not made.
    decode_manifest(raw, manifest.media_type)
    check_types(manifest)
    return Image(source=place, descriptor=place.put(manifest.media_type, raw))


def _empty(place: Draft) -> Descriptor:
    place.put(mediatypes.OCI_EMPTY, b"{}")
    return EMPTY


def _config(place: Draft, config: File | None, notes: Mapping[str, str]) -> Descriptor:
    if config is None:
        return dataclasses.replace(_empty(place), annotations=notes)
    made = place.upper.refer(config.media_type or UNKNOWN_CONFIG, config.path)
    return dataclasses.replace(made, annotations={**config.annotations, **notes})


def _layer(place: Draft, file: File, options: TreeOptions | None, any_path: bool) -> Descriptor:
    title = os.path.normpath(file.title or file.path)
    if title == ".":
        raise UsageError(
            f"{file.path}: the artifact needs a name for it",
            hint="run this from the directory above it",
        )
    if not any_path:
        check_title(title)
    if os.path.isdir(file.path):
        return _directory(place, file, title, options, any_path)
    made = place.upper.refer(file.media_type or mediatypes.OCI_LAYER, file.path)
    return dataclasses.replace(made, annotations={keys.TITLE: title, **file.annotations})


class _Tree(TarWriter):
    """The tar of a directory, without what unpacking would refuse."""

    def __init__(self, out: SupportsWrite, title: bytes) -> None:
        super().__init__(out)
        self._title = title

    def add(self, entry: Entry, content: Iterable[bytes | memoryview] = ()) -> int:
        if entry.type not in CONTENT:
            raise UsageError(
                f"{shown(entry.name)}: a {entry.type.name.lower()} cannot be in an artifact"
            )
        if entry.type is EntryType.SYMLINK and not link_stays(entry, self._title):
            raise UsageError(
                f"{shown(entry.name)}: a link to {shown(entry.linkname)}, outside of {shown(self._title)}, "
                "cannot be in an artifact",
                hint="make it a relative link to something in that directory, or a file",
            )
        return super().add(entry, content)


def link_stays(entry: Entry, title: bytes) -> bool:
    """Whether a symbolic link leads below the title, whatever other links there are: so `..` only at its beginning."""
    parts = [part for part in entry.linkname.split(b"/") if part not in (b"", b".")]
    up = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
    depth = clean_name(entry.name).count(b"/") - title.count(b"/") - 1
    return not entry.linkname.startswith(b"/") and b".." not in parts[up:] and 0 <= up <= depth


def _directory(
    place: Draft, file: File, title: str, options: TreeOptions | None, any_path: bool
) -> Descriptor:
    # ORAS looks for what a hard link leads to where it was started, not where it unpacks.
    plain = options or TreeOptions(owner=(0, 0), xattrs=False, hardlinks=False)
    name = os.fsencode(title)
    with place.upper.layer() as out, TarWriter(out) if any_path else _Tree(out, name) as tar:
        # A link that was named is followed, as one to a file is: pulled as a link it would lead out of its title.
        write_tree(tar, os.path.realpath(file.path), name, plain)
    made = out.layer
    return dataclasses.replace(
        made.descriptor,
        media_type=file.media_type or mediatypes.OCI_LAYER_GZIP,
        annotations={
            keys.TITLE: title,
            DIGEST: str(made.diff_id),
            UNPACK: "true",
            **file.annotations,
        },
    )


def check_title(title: str) -> None:
    """Refuse a title that is no path below a directory.

    Raises:
        UsageError: it is absolute, empty, has `..` in it, or a byte no name can have.

    >>> check_title("docs/readme.md")
    """
    try:
        title.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"{title!r} cannot be the name of a file in an artifact: it is not UTF-8"
        ) from None
    parts = title.split("/")
    if not title or title.startswith("/") or ".." in parts or "\0" in title:
        raise UsageError(
            f"{title!r} cannot be the name of a file in an artifact: expected a relative path without '..'",
            hint="change to the directory the file is in, and name it from there",
        )
