"""A root file system: the one door through which argosy writes below a root.

All paths are resolved from the descriptor of the root directory, which is held open; see `resolve`. What is applied
and what is taken out as a layer are each other's reverse: applying `b.diff(a.snapshot())` to `a` makes it equal `b`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

from argosy.errors import DigestMismatchError, InvalidLayerError, StorageError
from argosy.layer.apply import Application
from argosy.layer.compression import Compression
from argosy.layer.diff import Change, changes_between, layer_entries
from argosy.layer.options import WITHOUT_ROOT, Options
from argosy.layer.pump import Pump
from argosy.layer.removal import purge
from argosy.layer.resolve import Resolver, open_root
from argosy.layer.snapshot import Snapshot, scan
from argosy.layer.staged import staged
from argosy.layer.tarstream import SupportsRead, TarReader
from argosy.layer.tarwriter import SupportsWrite, TarWriter
from argosy.spec.digest import Digest

__all__ = ["RootFS"]


class RootFS:
    r"""A directory as the root of a file system. Close it, or use it in a `with` block.

    Args:
        path: An existing directory.
        options: How the tree is treated; the same ones must be given to apply and to take the difference.
        openat2: Resolve paths by the system call (None: if it works), or else in steps.

    Raises:
        StorageError: The directory cannot be opened.

    >>> import io, tempfile
    >>> from pathlib import Path
    >>> from argosy.layer.entry import Entry
    >>> layer = io.BytesIO()
    >>> with TarWriter(layer) as tar:
    ...     _ = tar.add(Entry(name=b"etc/hosts", uid=os.geteuid(), gid=os.getegid(), size=4), [b"::1\n"])
    >>> with tempfile.TemporaryDirectory() as path, RootFS(path) as root:
    ...     diff_id = root.apply(io.BytesIO(layer.getvalue()))
    ...     Path(path, "etc/hosts").read_text(), diff_id == Digest.of(layer.getvalue())
    ('::1\n', True)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: Options | None = None,
        *,
        openat2: bool | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.options = options or Options()
        try:
            self._fd = open_root(self.path, unlock=os.geteuid() != 0)
        except OSError as error:
            raise StorageError(f"{self.path}: {(error.strerror or '').lower()}") from error
        self._resolver = Resolver(self._fd, openat2=openat2, unlock=os.geteuid() != 0)
        self._made = False

    @classmethod
    def create(cls, path: str | os.PathLike[str], options: Options | None = None) -> Self:
        """A new directory as a root, mode 0755 and time 0. If its `with` block fails, it is removed again.

        Raises:
            StorageError: It exists already, or cannot be made.
        """
        try:
            os.mkdir(path, 0o700)
        except OSError as error:
            raise StorageError(f"{os.fspath(path)}: {(error.strerror or '').lower()}") from error
        root = cls(path, options)
        root._made = True
        with ExitStack() as undo:
            undo.push(root)
            os.fchmod(root._fd, 0o755)
            owner = root.options.uids.to_host(0, "uid"), root.options.gids.to_host(0, "gid")
            if owner != (os.geteuid(), os.getegid()) and not root.options.rootless:
                try:
                    os.fchown(root._fd, *owner)
                except OSError as error:
                    reason = (error.strerror or "").lower()
                    raise StorageError(f"{root.path}: {reason}", hint=WITHOUT_ROOT) from error
            os.utime(root._fd, ns=(0, 0))
            undo.pop_all()
        return root

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None and self._made:
            with suppress(OSError):
                os.fchmod(self._fd, 0o700)  # a layer may have closed it
                purge(self._fd, unlock=os.geteuid() != 0)
                os.rmdir(self.path)
        self.close()

    def close(self) -> None:
        """Let go of the root directory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def apply(
        self,
        changeset: SupportsRead,
        *,
        compression: Compression | None = None,
        layer: str = "",
        diff_id: Digest | None = None,
        proves: Digest | None = None,
    ) -> Digest:
        """Carry out a changeset (image-spec, layer.md, "Applying Changesets").

        The stream is read to its end and hashed in a thread of its own, which has ended when this returns. After an
        error the root holds part of the layer.

        Args:
            changeset: A layer, compressed or not.
            compression: What its media type says; None looks at its first bytes.
            layer: What to call it in messages, such as "layer 3 (sha256:…)".
            diff_id: What the image's configuration promises.
            proves: What reading `changeset` to its end proves by itself, such as its descriptor's digest. Where that
                is the diff_id the layer is taken as uncompressed, and is not hashed twice.

        Returns:
            The diff_id: the digest over the whole uncompressed stream, whatever follows the archive included.

        Raises:
            InvalidLayerError: It is damaged or breaks a rule; the message names layer, entry and rule.
            DigestMismatchError: It is not the layer with this diff_id.
            StorageError: The file system refuses.
            UnsupportedError: The tree is an overlay's, and cannot hold an entry.
        """
        limits = self.options.limits
        algorithm = diff_id.algorithm if diff_id is not None else "sha256"
        known = diff_id if proves is not None and proves == diff_id else None
        if known is not None:
            compression = Compression.NONE
        with Pump(changeset, compression, limits=limits, algorithm=algorithm, known=known) as pump:
            reader = TarReader(pump, limits=limits, where=layer)
            Application(self._resolver, reader, self.options).run()
            try:
                reader.drain()
            except InvalidLayerError as error:
                raise reader.error(str(error), hint=error.hint) from None
        if diff_id is not None and pump.diff_id != diff_id:
            where = f"{layer}: " if layer else ""
            raise DigestMismatchError(
                f"{where}diff_id of the layer", expected=diff_id, actual=pump.diff_id
            )
        return pump.diff_id

    @contextmanager
    def staged(self) -> Iterator[RootFS]:
        """A new tree, which goes into this one as a whole when the block ends, and not at all where that fails.

        Directories are joined, those that are here staying as they are; a file takes the place of a file.

        Raises:
            StorageError: The file system refuses, or something else is in the way of a file or a directory.
        """
        unlock = os.geteuid() != 0
        with (
            staged(self._resolver, self.path, unlock=unlock) as path,
            RootFS(path, self.options) as tree,
        ):
            yield tree

    def snapshot(self, *, digests: bool = True) -> Snapshot:
        """What is there now, to be compared with later.

        Args:
            digests: Hash every file, so that the snapshot is worth something on another disk or after a restore.

        Raises:
            StorageError: Something cannot be read.
        """
        return scan(self._resolver, self.options, digests=digests)

    def diff(self, since: Snapshot | None = None, *, masks: Iterable[str] = ()) -> Iterator[Change]:
        """What has changed, sorted by path, parents before children.

        Args:
            since: An earlier snapshot; None says all that is there.
            masks: Paths (volumes, say) whose changes are left out, with all below them.

        Raises:
            StorageError: Something cannot be read.
        """
        old = since or Snapshot({})
        new = scan(self._resolver, self.options, digests=False)
        return iter(
            changes_between(
                old, new, self._resolver, self.options, [os.fsencode(mask) for mask in masks]
            )
        )

    def write_layer(self, changes: Iterable[Change], out: SupportsWrite) -> int:
        """Write changes as a layer: an uncompressed tar archive (hand in a `Compressor` for a compressed one).

        Args:
            changes: From `diff`.
            out: Where the bytes go.

        Returns:
            How many entries were written; with none, nothing at all was written.

        Raises:
            InvalidLayerError: An id is not in the map, or a name cannot be in a layer.
            StorageError: A file cannot be read, or changed while it was.
        """
        count = 0
        with ExitStack() as stack:
            for entry, content in layer_entries(changes, self._resolver, self.options):
                if not count:
                    tar = stack.enter_context(TarWriter(out))
                tar.add(entry, content)
                count += 1
        return count
