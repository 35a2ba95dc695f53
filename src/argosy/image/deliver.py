"""The files of an artifact, brought into a directory: what `pack` packed, and what ORAS did.

Titles and archives are a stranger's, so everything goes through a `RootFS` over the directory: no title, link or chain
of links leads out of it (GHSA-m37j-52j7-pjw7, GHSA-8xwf-rjm4-xvhv, CVE-2026-50163). Titles with `..` are refused
before anything is written. The directory is somebody's: a file takes the place of a file, nothing else there goes, and
where one of the files cannot come, none does.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import tempfile
import time
from collections.abc import Sequence

from argosy.errors import ConflictError, InvalidManifestError, StorageError, UsageError
from argosy.image.layerstream import LayerStream
from argosy.image.pack import CONTENT, DIGEST, UNPACK, check_title, link_stays
from argosy.image.view import Image, ImageIndex, Layer
from argosy.layer.compression import Compression
from argosy.layer.entry import Entry, EntryType, Limits, clean_name, shown
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.tarstream import TarReader, chunks_of
from argosy.layer.tarwriter import TarWriter
from argosy.spec.annotations import TITLE
from argosy.spec.digest import Digest

__all__ = ["Delivered", "deliver", "layers"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What became of one layer: its title and digest, and whether it was written, or skipped for it has no title."""

    title: str
    digest: Digest
    outcome: str


def deliver(
    artifact: Image | ImageIndex,
    directory: str,
    *,
    keep_old: bool = False,
    limits: Limits | None = None,
) -> tuple[Delivered, ...]:
    """Write the files of an artifact below a directory, as files that this process makes: its umask holds.

    A layer without a title is not written. A directory's archive is unpacked under its title. After an error the
    directory is as it was.

    Args:
        artifact: The artifact; of an index, the files of all its artifacts, what they have in common once.
        directory: Where to; it must exist.
        keep_old: Nothing that exists is replaced or added to: that is an error.
        limits: How much archives may ask for.

    Returns:
        What became of each layer.

    Raises:
        InvalidManifestError: a title leaves the directory, two layers have one title, or one lies below a file's.
        ConflictError: something is there, and `keep_old`.
        InvalidLayerError: an archive breaks a rule: an entry lies outside its title, or links out of it.
        IntegrityError: a layer is not what its descriptor says.
        StorageError: the file system refuses; or a directory is where a file goes, or something else where a directory
            goes. Where that can be seen from the titles, no layer was read.
    """
    found = layers(artifact)
    names = _names(found)
    for layer, name in zip(found, names, strict=True):
        if name and keep_old and _mode(directory, name):
            raise ConflictError(f"{os.path.join(directory, os.fsdecode(name))}: is there already")
        if name:
            _check_room(directory, name, unpacked=_unpacked(layer))
    limits = limits or Limits()
    options = Options(additive=True, umask=_umask(), limits=limits)
    done = []
    with RootFS(directory, options) as root, root.staged() as tree:
        for layer, name in zip(found, names, strict=True):
            if name:
                _write(tree, layer, name, limits)
            title = layer.descriptor.annotations.get(TITLE, "")
            outcome = "written" if name else "skipped"
            done.append(Delivered(title=title, digest=layer.descriptor.digest, outcome=outcome))
    return tuple(done)


def layers(artifact: Image | ImageIndex) -> list[Layer]:
    """The layers of an artifact or of all in an index, those of one title and digest once; no config is read."""
    images = artifact.images() if isinstance(artifact, ImageIndex) else (artifact,)
    found = {
        (desc.annotations.get(TITLE), desc.digest): desc
        for image in images
        for desc in image.document.layers
    }
    return [
        Layer(source=artifact.source, descriptor=desc, position=position)
        for position, desc in enumerate(found.values())
    ]


def _names(layers: Sequence[Layer]) -> list[bytes]:
    """What each layer is called below the directory; empty for one without a title."""
    names: dict[bytes, Layer] = {}
    for layer in layers:
        title = layer.descriptor.annotations.get(TITLE)
        if not title:
            continue
        try:
            check_title(title)
        except UsageError as exc:
            raise InvalidManifestError(f"{layer.name}: {exc}") from None
        name = clean_name(os.fsencode(title))
        if not name or name in names:
            raise InvalidManifestError(
                f"{layer.name}: title {title!r} comes twice, or names nothing",
                hint="of an index for several platforms, choose one with --platform",
            )
        names[name] = layer
    for name, layer in names.items():
        for above in _above(name):
            if above in names and not _unpacked(names[above]):
                raise InvalidManifestError(
                    f"{layer.name}: title {shown(name)} lies below {shown(above)}, which is a file"
                )
    called = {layer.position: name for name, layer in names.items()}
    return [called.get(layer.position, b"") for layer in layers]


def _check_room(directory: str, name: bytes, *, unpacked: bool) -> None:
    """Tell of what is in the way before anything is read; what comes there later, `RootFS` refuses."""
    for path in (*_above(name), name):
        mode = _mode(directory, path)
        folder = path != name or unpacked
        if stat.S_ISREG(mode) if folder else stat.S_ISDIR(mode):
            what = "file" if folder else "directory"
            raise StorageError(
                f"{os.path.join(directory, os.fsdecode(path))}: a {what} is in the way"
            )


def _umask() -> int:
    """The process's umask. It is read by setting it: to one that gives nobody anything meanwhile."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _above(name: bytes) -> list[bytes]:
    """The directories of a path, the outermost first."""
    parts = name.split(b"/")
    return [b"/".join(parts[:count]) for count in range(1, len(parts))]


def _mode(directory: str, name: bytes) -> int:
    """The type and mode of what is there; 0 where nothing is."""
    try:
        return os.lstat(os.path.join(os.fsencode(directory), name)).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _unpacked(layer: Layer) -> bool:
    return layer.descriptor.annotations.get(UNPACK) == "true"


def _write(root: RootFS, layer: Layer, name: bytes, limits: Limits) -> None:
    """As a changeset of our own making, proved before anything of it is written."""
    with tempfile.TemporaryFile(dir=root.path) as spool:
        with TarWriter(spool) as tar:
            if _unpacked(layer):
                _archive(tar, layer, name, limits)
            else:
                _plain(tar, layer, name)
        spool.seek(0)
        root.apply(spool, compression=Compression.NONE, layer=layer.name)


def _plain(tar: TarWriter, layer: Layer, name: bytes) -> None:
    size = layer.descriptor.size
    entry = _owned(Entry(name=name, mode=0o666, size=size, mtime=time.time_ns()))
    with layer.compressed() as blob:
        tar.add(entry, chunks_of(blob))
        # The read that reaches the end proves the content, also where there is none.
        blob.read(1)


def _archive(tar: TarWriter, layer: Layer, name: bytes, limits: Limits) -> None:
    expected = layer.descriptor.annotations.get(DIGEST)
    diff_id = Digest(expected) if expected else None
    with LayerStream(layer.compressed(), diff_id, limits=limits, where=layer.name) as stream:
        reader = TarReader(stream, limits=limits, where=layer.name)
        links: set[bytes] = set()
        for entry in reader:
            inside = _inside(entry, name, reader)
            if _behind_link(inside.path, links):
                raise reader.error("lies behind a link of the same archive")
            if entry.type is EntryType.SYMLINK:
                links.add(inside.path)
            tar.add(inside, reader.whole())
        reader.drain()


def _inside(entry: Entry, name: bytes, reader: TarReader) -> Entry:
    """An entry that lies below its title, and whose links stay there."""
    if entry.type not in CONTENT:
        raise reader.error(f"a {entry.type.name.lower()} cannot be in an artifact")
    if b".." in entry.name.split(b"/") or not _below(clean_name(entry.name), name):
        raise reader.error(f"lies outside of {shown(name)}")
    if entry.type is EntryType.HARDLINK:
        target = clean_name(entry.linkname)
        if b".." in entry.linkname.split(b"/") or not _below(target, name):
            raise reader.error(f"a hard link to {shown(entry.linkname)}, outside of {shown(name)}")
    if entry.type is EntryType.SYMLINK and not link_stays(entry, name):
        raise reader.error(f"a link to {shown(entry.linkname)}, outside of {shown(name)}")
    return _owned(entry._replace(sparse=None, xattrs={}, records={}))


def _behind_link(path: bytes, links: set[bytes]) -> bool:
    """Whether a directory of this path is a link of the same archive."""
    while (path := path.rpartition(b"/")[0]) and links:
        if path in links:
            return True
    return False


def _below(path: bytes, name: bytes) -> bool:
    return path == name or path.startswith(name + b"/")


def _owned(entry: Entry) -> Entry:
    """Whose a delivered file is: ours, and without bits that lend our power to others."""
    return entry._replace(uid=os.geteuid(), gid=os.getegid(), mode=entry.mode & 0o777 | 0o200)
