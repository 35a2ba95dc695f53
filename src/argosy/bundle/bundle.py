"""A runtime bundle that was made from an image: its directory, and what must be known to make an image of it again.

config.json   the runtime's configuration
rootfs/       the root file system
umoci.json    what it was unpacked from and how, in umoci's format
argosy.snapshot   what the root file system held then, and of which image
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any, Self

from argosy.bundle.mtree import read_mtree
from argosy.errors import (
    ConflictError,
    InvalidConfigError,
    NotFoundError,
    StorageError,
    unread,
)
from argosy.layer.idmap import IdMap, IdRange
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.layer.snapshot import Snapshot
from argosy.spec import _json
from argosy.spec.descriptor import Descriptor

__all__ = ["Bundle", "Metadata", "kept", "mtree_name", "replace", "write_new"]

CONFIG = "config.json"
METADATA = "umoci.json"
ROOTFS = "rootfs"
SNAPSHOT = "argosy.snapshot"
_MAX_DOCUMENT = 16 << 20
_MAX_SNAPSHOT = 4 << 30
_OF = b"of "


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Where a bundle comes from, in the shape of umoci's `umoci.json`, version 2.

    Args:
        walk: The descriptors from the index to the manifest; the last one is the manifest.
        uids: Owners, container to host.
        gids: Groups, container to host.
        rootless: Whether it was unpacked without root's powers.

    Example:
        >>> m = Metadata(walk=(Descriptor.of("application/vnd.oci.image.manifest.v1+json", b"{}"),))
        >>> Metadata.decode(m.encode()) == m
        True
    """

    walk: tuple[Descriptor, ...]
    uids: IdMap = dataclasses.field(default_factory=IdMap)
    gids: IdMap = dataclasses.field(default_factory=IdMap)
    rootless: bool = False

    @property
    def manifest(self) -> Descriptor:
        """The image it was unpacked from."""
        return self.walk[-1]

    def encode(self) -> bytes:
        """The document."""
        return _json.dumps(
            {
                "umoci_version": "2",
                "from_descriptor_path": {"descriptor_walk": [d.encode() for d in self.walk]},
                "map_options": {
                    "uid_mappings": _encoded(self.uids),
                    "gid_mappings": _encoded(self.gids),
                    "rootless": self.rootless,
                },
                "whiteout_mode": 0,
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read the document, ours or umoci's.

        Raises:
            InvalidConfigError: it is none.
        """
        value: Any = _json.loads_object(raw, error=InvalidConfigError)
        version = value.get("umoci_version")
        if version != "2":
            raise InvalidConfigError(f"umoci_version: expected 2, got {str(version)[:32]!r}")
        try:
            walk = value["from_descriptor_path"]["descriptor_walk"]
            maps = value["map_options"]
            found = cls(
                walk=tuple(Descriptor.decode(item, "descriptor_walk") for item in walk),
                uids=_decoded(maps.get("uid_mappings")),
                gids=_decoded(maps.get("gid_mappings")),
                rootless=maps.get("rootless") is True,
            )
        except (KeyError, TypeError, AttributeError):
            raise InvalidConfigError("the bundle's metadata lacks a property") from None
        if not found.walk:
            raise InvalidConfigError("descriptor_walk: expected at least the manifest")
        return found


def _encoded(ids: IdMap) -> list[dict[str, int]] | None:
    return [
        {"hostID": r.host, "containerID": r.container, "size": r.size} for r in ids.ranges
    ] or None


def _decoded(value: Any) -> IdMap:
    return IdMap(tuple(IdRange(r["containerID"], r["hostID"], r["size"]) for r in value or ()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle's directory.

    Args:
        path: The directory.
        metadata: Where it comes from.
    """

    path: str
    metadata: Metadata

    @classmethod
    def open(cls, path: str) -> Self:
        """A bundle that was unpacked from an image, by argosy or by umoci.

        Raises:
            NotFoundError, DeniedError, StorageError: its metadata is not there, may not or cannot be read.
            InvalidConfigError: its metadata is damaged.
        """
        raw = _read(os.path.join(path, METADATA), _MAX_DOCUMENT)
        return cls(path=path, metadata=Metadata.decode(raw))

    @property
    def rootfs(self) -> str:
        """The path of the root file system."""
        return os.path.join(self.path, ROOTFS)

    def config(self) -> dict[str, Any]:
        """The runtime's configuration.

        Raises:
            InvalidConfigError: it is not JSON.
            NotFoundError, DeniedError, StorageError: it is not there, may not or cannot be read.
        """
        raw = _read(os.path.join(self.path, CONFIG), _MAX_DOCUMENT)
        return _json.loads_object(raw, limit=_MAX_DOCUMENT, error=InvalidConfigError)

    def snapshot(self, root: RootFS) -> Snapshot:
        """What the root file system held when it was unpacked, or last refreshed; of umoci's bundles by their mtree.

        Args:
            root: The root file system, opened.

        Raises:
            NotFoundError, DeniedError, StorageError: there is neither, or it may not or cannot be read.
            ConflictError: there is only one of another image, as after `umoci repack --refresh-bundle`.
            InvalidConfigError: the mtree cannot be read.
        """
        manifest = self.metadata.manifest
        ours = os.path.join(self.path, SNAPSHOT)
        theirs = os.path.join(self.path, mtree_name(manifest))
        said, held, by_mtree = None, b"", os.path.lexists(theirs)
        if os.path.lexists(ours) or not by_mtree:
            said, held = _of(_read(ours, _MAX_SNAPSHOT))
        if by_mtree and said != manifest.digest:
            return read_mtree(_read(theirs, _MAX_SNAPSHOT), root.snapshot(digests=False))
        if said not in (None, manifest.digest):
            raise ConflictError(
                f"{ours} is of {said}, and the bundle of {manifest.digest}",
                hint="unpack the image into another directory",
            )
        return Snapshot.decode(held)

    @contextlib.contextmanager
    def root(
        self, *, epoch: int | None = None, warn: Callable[[str], None] | None = None
    ) -> Iterator[RootFS]:
        """The root file system, opened with the options it was unpacked with."""
        options = Options(
            uids=self.metadata.uids,
            gids=self.metadata.gids,
            rootless=self.metadata.rootless,
            source_date_epoch=epoch,
        )
        if warn is not None:
            options = dataclasses.replace(options, warn=warn)
        with RootFS(self.rootfs, options) as root:
            yield root

    def remember(self, manifest: Descriptor, snapshot: Snapshot) -> Bundle:
        """The bundle, now said to come from this image and to hold what the snapshot says."""
        metadata = dataclasses.replace(self.metadata, walk=(manifest,))
        # Between the two the bundle is of no use, but never wrong: a snapshot says whose it is.
        replace(os.path.join(self.path, SNAPSHOT), kept(manifest, snapshot))
        replace(os.path.join(self.path, METADATA), metadata.encode())
        return dataclasses.replace(self, metadata=metadata)


def kept(manifest: Descriptor, snapshot: Snapshot) -> bytes:
    """A snapshot as a bundle keeps it: after a line that says which image it is of."""
    return b"%s%s\n%s" % (_OF, manifest.digest.encode(), snapshot.encode())


def _of(raw: bytes) -> tuple[str | None, bytes]:
    """Which image a kept snapshot is of, and the snapshot; None in bundles of argosy's first days."""
    first, _, rest = raw.partition(b"\n")
    if not first.startswith(_OF):
        return None, raw
    return first.removeprefix(_OF).decode(errors="replace"), rest


def mtree_name(manifest: Descriptor) -> str:
    """The name of the file in which umoci keeps what a bundle held."""
    return str(manifest.digest).replace(":", "_", 1) + ".mtree"


def _read(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        found = unread(path, exc)
        if isinstance(found, NotFoundError) and os.path.isdir(os.path.dirname(path)):
            hint = "is this a bundle of argosy unpack or umoci?"
            raise StorageError(str(found), hint=hint) from exc
        raise found from exc
    if len(data) > limit:
        raise InvalidConfigError(f"{path}: over the limit of {limit} bytes")
    return data


def write_new(path: str, data: bytes) -> None:
    """A file that was not there, mode 0600.

    Raises:
        StorageError: it is there, or cannot be written.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
    except OSError as exc:
        raise StorageError(f"{path}: {os.strerror(exc.errno or 0).lower()}") from exc


def replace(path: str, data: bytes) -> None:
    """A file's new content, there as a whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    temporary = f"{path}.{os.getpid()}.new"
    try:
        write_new(temporary, data)
        os.replace(temporary, path)
    except OSError as exc:
        raise StorageError(f"{path}: {os.strerror(exc.errno or 0).lower()}") from exc
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
