"""One image as plain files: the `dir:` form of skopeo.

    version                  "Directory Transport Version: 1.1"
    manifest.json            the image, or the index
    <encoded>.manifest.json  the manifests an index holds
    <encoded>                configs and layers, by the encoded part of their sha256 digest
    <algorithm>-<encoded>    the same under other algorithms; an image known by one has its manifest so, too

There are no tags: the directory is the image. Every manifest that is pushed becomes it, so that of a copy it is the
root, which comes last; a manifest that refers to another by `subject` stands beside it.
"""

from __future__ import annotations

import os
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from argosy.content.protocols import SupportsRead, check_tagged, several
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    ArgosyError,
    InvalidDigestError,
    InvalidLayoutError,
    ManifestUnknownError,
    NameUnknownError,
)
from argosy.layout import names
from argosy.layout.blobs import BlobDirectory
from argosy.layout.durable import TEMPORARY, held, locked, storage_errors, write_file
from argosy.layout.indexfile import read_file, stamp_of
from argosy.layout.view import LayoutSource
from argosy.spec import manifest as manifests
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, decode_manifest

VERSION_FILE = "version"
VERSION = b"Directory Transport Version: 1.1\n"
MANIFEST_FILE = "manifest.json"
SUFFIX = ".manifest.json"

_READ = re.compile(rb"Directory Transport Version: 1\.\d+\n?")


class _FlatBlobs(BlobDirectory):
    """Content beside each other; manifests have a suffix, and the root another name."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._read: tuple[object, Descriptor] | None = None

    def path_of(self, digest: Digest) -> str:
        """Where content is, or would be. A `Digest` holds no slash (CVE-2024-3727)."""
        own = os.path.join(self.path, _name(digest))
        if os.path.lexists(own + SUFFIX):
            return own + SUFFIX
        root = None if os.path.lexists(own) else self.root()
        if root is not None and root.digest == digest:
            return os.path.join(self.path, MANIFEST_FILE)
        return own

    def root(self) -> Descriptor | None:
        """What `manifest.json` is, or None where there is none."""
        path = os.path.join(self.path, MANIFEST_FILE)
        stamp, held = stamp_of(path), self._read
        if stamp is None:
            return None
        if held is None or held[0] != stamp:
            desc = described(path)
            others = (described(path, algorithm) for algorithm in self._algorithms())
            own = (d for d in others if os.path.lexists(os.path.join(self.path, _beside(d.digest))))
            held = self._read = (stamp, next(own, desc))
        return held[1]

    def _algorithms(self) -> set[str]:
        """The algorithms but sha256 that manifests here are known by."""
        with storage_errors(self.path):
            found = (_digest(name) for name in os.listdir(self.path) if name.endswith(SUFFIX))
            return {digest.algorithm for digest in found if digest} - {"sha256"}


def described(path: str, algorithm: str = "sha256") -> Descriptor:
    """The descriptor of the manifest in a file.

    Raises:
        InvalidLayoutError: it is none; the message begins with the path.
    """
    raw = read_file(path, manifests.MAX_SIZE)
    try:
        return Descriptor.of(decode_manifest(raw).media_type, raw, algorithm=algorithm)
    except ArgosyError as exc:
        raise InvalidLayoutError(f"{path}: {exc}") from None


def _name(digest: Digest) -> str:
    digest = Digest(digest)
    return (
        digest.encoded if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.encoded}"
    )


def _beside(digest: Digest) -> str:
    """The name of a manifest that is not the image, or not by its sha256."""
    return _name(digest) + SUFFIX


def _digest(name: str) -> Digest | None:
    """The digest a file's name stands for, or None: then the file is not ours."""
    stem = name.removesuffix(SUFFIX)
    algorithm, dash, encoded = stem.rpartition("-")
    try:
        digest = Digest(f"{algorithm}:{encoded}" if dash else f"sha256:{stem}")
    except InvalidDigestError:
        return None
    return digest if digest.registered else None


class DirectoryStore(LayoutSource):
    """A `dir:` directory: a `Source` and a `Target` for one image.

    Leaving the `with` block without an error removes what an image that was here before has left.

    Args:
        path: The directory.

    Example:
        >>> import tempfile
        >>> from argosy.testing import random
        >>> folder = tempfile.TemporaryDirectory()
        >>> with DirectoryStore.create(folder.name + "/image") as store:
        ...     desc = random.image(store, 1)
        >>> DirectoryStore.open(folder.name + "/image").resolve("@0") == desc
        True
        >>> folder.cleanup()
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.blobs = _FlatBlobs(self.path)
        self._changed = False
        self._release: Callable[[], object] = lambda: None
        super().__init__(f"dir:{self.path}", self.blobs)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a directory that holds an image.

        Raises:
            NameUnknownError: there is nothing at `path`.
            InvalidLayoutError: what is there holds no image, or of a version argosy does not read.
        """
        store = cls(path)
        if not os.path.isdir(store.path):
            raise NameUnknownError(f"{store.path}: no such directory")
        version = os.path.join(store.path, VERSION_FILE)
        if os.path.lexists(version) and not _READ.fullmatch(read_file(version, 1024)):
            raise InvalidLayoutError(f"{version}: expected {VERSION.decode().strip()!r}")
        if store.blobs.root() is None:
            raise InvalidLayoutError(
                f"{store.path}: no {MANIFEST_FILE}, so this is no image directory"
            )
        return store

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Self:
        """Open a directory to write an image to, making it first if it is not there.

        It is this process's alone until it is closed: two images in it would each take the other's layers away.

        Raises:
            ConflictError: another process writes to it at this moment.
            InvalidLayoutError: a directory is there that holds other things.
            StorageError: it cannot be made.
        """
        store = cls(path)
        with storage_errors(store.path):
            os.makedirs(store.path, exist_ok=True)
            with locked(store.path):
                store._make()
            version = os.open(store._file(VERSION_FILE), os.O_RDONLY | os.O_CLOEXEC)
            store._release = weakref.finalize(store, os.close, version)
            held(version, store.path)
        return store

    def _make(self) -> None:
        if os.path.lexists(self._file(VERSION_FILE)):
            return
        other = [name for name in os.listdir(self.path) if not name.startswith(".")]
        if other:
            raise InvalidLayoutError(
                f"{self.path}: expected an image directory or an empty one, found {min(other)!r}"
            )
        write_file(self._file(VERSION_FILE), VERSION)

    def index(self) -> Index:
        """The image, and after it the manifests that stand beside it."""
        root = self.blobs.root()
        return Index(manifests=(root, *self._beside(root))) if root is not None else Index()

    def _beside(self, root: Descriptor) -> Iterator[Descriptor]:
        below = {desc.digest for desc in self.catalog.manifests([root])}
        with storage_errors(self.path):
            found = sorted(name for name in os.listdir(self.path) if name.endswith(SUFFIX))
        for name in found:
            digest = _digest(name)
            if digest is not None and digest not in below:
                yield described(os.path.join(self.path, name), digest.algorithm)

    def tags(self) -> Iterator[str]:
        """None: the directory is the image, and has no name inside. `@0` stands for it."""
        return iter(())

    def untagged(self) -> Iterator[Descriptor]:
        """See `Untagged.untagged`: the image, and nothing that stands beside it."""
        return iter(self.index().manifests[:1])

    def push(self, desc: Descriptor, content: SupportsRead, *, tags: Sequence[str] = ()) -> None:
        """See `Target.push`. A manifest becomes the image, unless the image holds it or it has a `subject`.

        Raises:
            InvalidManifestError: a manifest that cannot be read.
            IntegrityError: the content is not what `desc` says; nothing is kept.
        """
        for tag in several(tags):
            names.check_tag(tag)
            check_tagged(desc)
        if not desc.is_manifest():
            self.blobs.write(desc, content)
        elif not self.blobs.has(desc):
            raw = VerifyingReader(content, desc).readall(manifests.MAX_SIZE)
            self._push(desc, raw, decode_manifest(raw, desc.media_type).subject is not None)
        for tag in tags:
            self.tag(desc, tag)

    def _push(self, desc: Descriptor, raw: bytes, refers: bool) -> None:
        with storage_errors(self.path), locked(self.path):
            root = self.blobs.root()
            below = {d.digest for d in self.catalog.manifests([root])} if root else set()
            aside = root is not None and (refers or desc.digest in below)
            if aside or desc.digest.algorithm != "sha256":
                write_file(self._file(_beside(desc.digest)), raw)
            if not aside:
                self._make_root(root, raw)

    def _make_root(self, old: Descriptor | None, raw: bytes) -> None:
        """Replace `manifest.json`; what it was keeps a file of its own, in case the new image holds it."""
        self._changed = True
        if old is not None:
            with self.blobs.open(old) as reader:
                write_file(self._file(_beside(old.digest)), reader.readall())
        write_file(self._file(MANIFEST_FILE), raw)

    def tag(self, desc: Descriptor, tag: str) -> None:
        """See `Target.tag`. Whatever the tag is called, the manifest becomes the image.

        Raises:
            ManifestUnknownError: it is not here.
        """
        names.check_tag(tag)
        check_tagged(desc)
        if not self.blobs.has(desc):
            raise ManifestUnknownError(f"{desc.digest} is not in {self}")
        with storage_errors(self.path), locked(self.path):
            root = self.blobs.root()
            if root is not None and root.digest != desc.digest:
                with self.blobs.open(desc) as reader:
                    self._make_root(root, reader.readall(manifests.MAX_SIZE))

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _sweep(self) -> None:
        """Remove what neither the image nor what refers to it needs."""
        with storage_errors(self.path), locked(self.path):
            root = self.blobs.root()
            if root is None:
                return
            kept = {desc.digest for desc in self.catalog.content(self._linked(root))}
            for name in os.listdir(self.path):
                digest = _digest(name)
                twice = name == _beside(root.digest) and root.digest.algorithm == "sha256"
                unused = digest is not None and digest not in kept
                if unused or twice or (name.startswith(".") and name.endswith(TEMPORARY)):
                    os.unlink(self._file(name))

    def _linked(self, root: Descriptor) -> list[Descriptor]:
        """The image, and the manifests that refer to it or to what refers to it."""
        linked, rest = [root], list(self._beside(root))
        while True:
            kept = {desc.digest for desc in self.catalog.manifests(linked)}
            more = [d for d in rest if (f := self.catalog.facts(d)) and f.subject in kept]
            if not more:
                return linked
            linked += more
            rest = [d for d in rest if d not in more]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tidy up, unless an error leaves the block; then close."""
        if kind is None and self._changed:
            self._sweep()
        self.close()

    def close(self) -> None:
        """Let others write to it."""
        super().close()
        self._release()
