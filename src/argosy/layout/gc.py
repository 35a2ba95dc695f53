"""Cleaning and checking a layout directory.

`gc` removes blobs that nothing in `index.json` leads to. It holds the layout's write lock, so that the index stays as
it is; and it spares what is younger than the grace time, because a copy in progress writes blobs before the manifests
that lead to them. `fsck` reads every blob and says what is wrong; it changes nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from argosy.content.graph import MAX_NODES
from argosy.content.verify import CHUNK, VerifyingReader, embedded
from argosy.errors import (
    ArgosyError,
    IntegrityError,
    InvalidLayoutError,
    NotFoundError,
    UnsupportedError,
)
from argosy.layout import names
from argosy.layout.blobs import GRACE, BlobFile, open_regular
from argosy.layout.durable import TEMPORARY, locked, storage_errors
from argosy.layout.indexfile import read_file
from argosy.layout.store import LayoutStore
from argosy.layout.target import LayoutTarget
from argosy.layout.view import check_header
from argosy.spec import imagelayout, mediatypes
from argosy.spec import manifest as manifests
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import ImageConfig
from argosy.spec.manifest import decode_manifest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `gc` removed, or would remove.

    Attributes:
        blobs: Digests of blobs that nothing led to.
        files: Paths of partial and temporary files that nobody writes any more.
        entries: Entries of `index.json` without a name (only with `untagged`).
        size: Bytes that are free again.
    """

    blobs: tuple[Digest, ...]
    files: tuple[str, ...]
    entries: tuple[Descriptor, ...]
    size: int


def gc(
    store: LayoutStore,
    *,
    dry_run: bool = False,
    untagged: bool = False,
    grace: float = GRACE,
    sharers: Sequence[LayoutStore] = (),
) -> Collected:
    """Remove what nothing leads to.

    Args:
        store: The layout.
        dry_run: Say what would be removed, and remove nothing.
        untagged: Also drop manifests without a tag, unless a tagged index holds them or they refer to something kept.
        grace: Seconds for which content is safe after it was written.
        sharers: The other layouts, all of them, that share the blobs directory of `store`.

    Raises:
        UnsupportedError: the blobs directory is shared and no `sharers` are given: their content would be lost.
        InvalidLayoutError: a manifest cannot be read, so that nobody knows what it needs; nothing is removed.
    """
    if store.shared and not sharers:
        raise UnsupportedError(
            f"{store.blobs.path} is shared, and what other layouts need of it is not known",
            hint="name the other layouts",
        )
    dropped = _drop_untagged(store, dry_run=dry_run) if untagged else ()
    with storage_errors(store.path), contextlib.ExitStack() as locks:
        for path in sorted({os.path.realpath(one.path) for one in (store, *sharers)}):
            locks.enter_context(locked(path))  # all in one order, lest two wait for each other
        gone = {entry.digest for entry in dropped}
        kept = needed(store, gone).union(*(needed(one) for one in sharers))
        return _sweep(store, kept, dropped, time.time() - grace, dry_run=dry_run)


def _drop_untagged(store: LayoutStore, *, dry_run: bool) -> tuple[Descriptor, ...]:
    """Take the entries without a name out of the index."""
    dropped: list[Descriptor] = []

    def named(entries: list[Descriptor]) -> list[Descriptor]:
        kept = [e for e in entries if names.is_named(e) or not e.is_manifest()]
        rest = [e for e in entries if e.is_manifest() and not names.is_named(e)]
        while True:
            led = {desc.digest for desc in store.catalog.content(kept)}
            more = [e for e in rest if _refers(store, e, led)]
            if not more:
                break
            kept += more
            rest = [e for e in rest if not _refers(store, e, led)]
        dropped.extend(rest)
        gone = {id(entry) for entry in rest}
        return entries if dry_run else [e for e in entries if id(e) not in gone]

    store.change(named)
    return tuple(dropped)


def _refers(store: LayoutStore, entry: Descriptor, kept: set[Digest]) -> bool:
    facts = store.catalog.facts(entry)
    return facts is None or facts.subject in kept or entry.digest in kept


def needed(store: LayoutTarget, gone: Collection[Digest] = ()) -> set[Digest]:
    """The digests of everything the index leads to.

    Raises:
        InvalidLayoutError: a manifest that is here cannot be read.
    """
    roots = [e for e in store.index().manifests if names.is_named(e) or e.digest not in gone]
    found: set[Digest] = set()
    for desc in store.catalog.content(roots):
        found.add(desc.digest)
        here = desc.is_manifest() and store.blobs.find(desc.digest) is not None
        if here and store.catalog.facts(desc) is None:
            raise InvalidLayoutError(
                f"{store}: manifest {desc.digest} cannot be read, so what it needs is not known",
                hint="see what fsck says of it",
            )
    return found


def _sweep(
    store: LayoutStore,
    kept: set[Digest],
    dropped: tuple[Descriptor, ...],
    before: float,
    *,
    dry_run: bool,
) -> Collected:
    blobs: list[Digest] = []
    files: list[str] = []
    size = 0
    for file in [*store.blobs.files(), *_temporary(store.path)]:
        if file.digest is None and not file.partial:
            continue  # not ours
        if file.digest in kept and not file.partial:
            continue
        freed = _remove(file, before, dry_run=dry_run)
        if freed is None:
            continue
        size += freed
        if file.partial:
            files.append(file.path)
        elif file.digest is not None:
            blobs.append(file.digest)
    return Collected(blobs=tuple(blobs), files=tuple(files), entries=dropped, size=size)


def _temporary(path: str) -> Iterator[BlobFile]:
    """What a killed writer of `index.json` left."""
    for name in sorted(os.listdir(path)):
        if name.startswith(".") and name.endswith(TEMPORARY):
            yield BlobFile(os.path.join(path, name), None, True)


def _remove(file: BlobFile, before: float, *, dry_run: bool) -> int | None:
    """Remove a file that is older than `before` and that nobody writes; the bytes freed, or None."""
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if file.partial:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(fd)
        if found.st_mtime > before:
            return None
        if not dry_run:
            os.unlink(file.path)
    except BlockingIOError:
        return None
    finally:
        os.close(fd)
    return found.st_size


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a layout.

    Attributes:
        kind: `header`, `index`, `digest`, `size`, `missing`, `manifest`, `config`, `data`, `algorithm`, `partial` or
            `foreign`.
        where: The file, or the digest of what is concerned.
        message: What is wrong, in one line.
    """

    kind: str
    where: str
    message: str

    @property
    def harmless(self) -> bool:
        """Whether the layout is valid all the same: left-over and unknown files."""
        return self.kind in ("partial", "foreign")

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.message}"


def fsck(store: LayoutStore) -> Iterator[Problem]:
    """Read everything in a layout, and say what is wrong with it.

    Every blob is hashed, and everything the index leads to is looked at: is it there, of the size its descriptor says,
    and can it be read as what its media type says.
    """
    header = os.path.join(store.path, imagelayout.HEADER_FILE)
    yield from _tried("header", header, lambda: check_header(read_file(header, 65536), header))
    index = os.path.join(store.path, imagelayout.INDEX_FILE)
    broken = list(_tried("index", index, store.index))
    yield from broken
    yield from _foreign(store)
    bad: set[Digest] = set()
    for file in store.blobs.files():
        for problem in _blob(file):
            if file.digest is not None and not problem.harmless:
                bad.add(file.digest)
            yield problem
    if not broken:
        yield from _references(store, bad)


def _tried(kind: str, where: str, action: Callable[[], object]) -> Iterator[Problem]:
    try:
        action()
    except ArgosyError as exc:
        yield Problem(kind, where, str(exc).removeprefix(f"{where}: "))


def _foreign(store: LayoutStore) -> Iterator[Problem]:
    own = {imagelayout.HEADER_FILE, imagelayout.INDEX_FILE, imagelayout.BLOBS_DIRECTORY}
    left = {file.path for file in _temporary(store.path)}
    for name in sorted(set(os.listdir(store.path)) - own):
        path = os.path.join(store.path, name)
        kind = "partial" if path in left else "foreign"
        yield Problem(kind, path, "no part of the image layout")


def _blob(file: BlobFile) -> Iterator[Problem]:
    if file.partial:
        yield Problem("partial", file.path, "what a broken copy left; the next one goes on with it")
        return
    if file.digest is None:
        yield Problem("foreign", file.path, "its name is no digest")
        return
    try:
        with open(open_regular(file.path), "rb", buffering=0) as content:
            size = os.fstat(content.fileno()).st_size
            desc = Descriptor(media_type=mediatypes.OCTET_STREAM, digest=file.digest, size=size)
            reader = VerifyingReader(content, desc)
            while reader.read(CHUNK):
                pass
    except (IntegrityError, InvalidLayoutError) as exc:
        yield Problem("digest", file.path, str(exc).removeprefix(f"{file.path}: "))
    except ArgosyError as exc:
        yield Problem("algorithm", file.path, str(exc))
    except OSError as exc:
        yield Problem("digest", file.path, f"cannot be read: {(exc.strerror or '').lower()}")


def _references(store: LayoutStore, bad: set[Digest]) -> Iterator[Problem]:
    seen: set[tuple[Digest, int, str]] = set()
    try:
        for desc in store.catalog.content(store.index().manifests):
            key = (desc.digest, desc.size, desc.media_type)
            if key not in seen and len(seen) < MAX_NODES:
                seen.add(key)
                yield from _referenced(store, desc, bad)
    except ArgosyError as exc:
        yield Problem("index", str(store), str(exc))


def _referenced(store: LayoutStore, desc: Descriptor, bad: set[Digest]) -> Iterator[Problem]:
    if desc.data is not None and embedded(desc) is None:
        yield Problem("data", desc.digest, "the data in its descriptor is something else")
    size = store.blobs.find(desc.digest)
    if size is None:
        optional = desc.media_type in mediatypes.NONDISTRIBUTABLE or embedded(desc) is not None
        if not optional:
            yield Problem("missing", desc.digest, f"{desc.media_type} is not here")
    elif size != desc.size:
        yield Problem("size", desc.digest, f"expected {desc.size} bytes, got {size}")
    elif desc.digest not in bad:
        yield from _document(store, desc)


def _document(store: LayoutStore, desc: Descriptor) -> Iterator[Problem]:
    kind = "manifest" if desc.is_manifest() else "config"
    if kind == "config" and desc.media_type not in mediatypes.CONFIGS:
        return

    def decode() -> None:
        with store.fetch(desc) as reader:
            raw = reader.readall(manifests.MAX_SIZE)
        if kind == "manifest":
            decode_manifest(raw, desc.media_type)
        else:
            ImageConfig.decode(raw)

    with contextlib.suppress(NotFoundError):
        yield from _tried(kind, desc.digest, decode)
