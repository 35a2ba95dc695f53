"""Layers as directories: each one unpacked once, under the chain id that says what it stands on.

A layer is applied to an overlay of those below it, so that its changes are just what overlayfs keeps in an upper
directory: whiteouts, opaque directories and copied-up parents are the kernel's own. The directory appears by one
rename, after everything was verified and written out.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator

from argosy.engine import overlay
from argosy.engine.container import unheard
from argosy.errors import InvalidConfigError, StorageError
from argosy.image.view import Image, Layer
from argosy.layer.options import Options
from argosy.layer.removal import discard
from argosy.layer.rootfs import RootFS
from argosy.layout.durable import sync_directory
from argosy.spec.digest import Digest

_TEMPORARY = ".tmp-"
_NEEDS = "needs.lock"


class LayerTrees:
    """The unpacked layers below one directory.

    Args:
        path: The directory, which must be there.
        rootless: Whether overlay mounts are made without being root.
        one_owner: Whether there is but one id, so that owners can only be recorded.

    Attributes:
        options: How layers are unpacked.
    """

    def __init__(self, path: str, *, rootless: bool = False, one_owner: bool = False) -> None:
        self.path = path
        self._rootless = rootless
        self.options = Options(rootless=one_owner)

    def place_of(self, chain_id: Digest) -> str:
        """Where a chain id's changes are, or would be."""
        return os.path.join(self.path, name_of(chain_id))

    def plan(self, image: Image) -> list[str]:
        """The directories to stack for an image, the topmost first, as overlayfs wants them; they may not be there yet.

        Raises:
            InvalidConfigError: the configuration has another number of diff_ids than there are layers.
        """
        chain_ids = image.config.chain_ids()
        if len(chain_ids) != len(image.layers):
            raise InvalidConfigError(f"{len(image.layers)} layers, but {len(chain_ids)} diff_ids")
        return [self.place_of(chain_id) for chain_id in reversed(chain_ids)] or [self._empty()]

    def ensure(self, image: Image, on_layer: Callable[[Layer], object] = unheard) -> None:
        """Unpack what is not there yet of an image's plan.

        Args:
            image: The image; its layers are verified as they are read.
            on_layer: Told of every layer that is unpacked, before it is.

        Raises:
            InvalidLayerError: a layer breaks a rule; nothing of it is kept.
            IntegrityError: a layer is not what its descriptor and diff_id say.
        """
        stack: list[str] = []
        for layer, chain_id in zip(image.layers, image.config.chain_ids(), strict=True):
            stack.insert(0, self._ensure(layer, chain_id, tuple(stack), on_layer))

    @contextlib.contextmanager
    def settled(self, *, alone: bool = False) -> Iterator[None]:
        """Nobody else is `alone` meanwhile.

        Whoever writes down what a new container needs is not alone, and whoever removes what none needs is: then what
        was written down is kept, and what is gone is seen to be gone.
        """
        fd = os.open(os.path.join(self.path, _NEEDS), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    def _ensure(
        self,
        layer: Layer,
        chain_id: Digest,
        below: tuple[str, ...],
        on_layer: Callable[[Layer], object],
    ) -> str:
        place = self.place_of(chain_id)
        if os.path.isdir(place):
            return place
        with self._locked(chain_id):
            if not os.path.isdir(place):
                on_layer(layer)
                self._unpack(layer, place, below)
        return place

    def _unpack(self, layer: Layer, place: str, below: tuple[str, ...]) -> None:
        temporary = tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.path)
        busy = _lock(temporary)
        try:
            changes, work = os.path.join(temporary, "diff"), os.path.join(temporary, "work")
            os.mkdir(changes, 0o755)
            os.mkdir(work, 0o700)
            os.chmod(changes, 0o755)  # noqa: S103 - the root of a file system, whatever the umask
            if below:
                overlay.like(changes, below[0])
            with self._root(changes, work, below) as root, layer.changeset() as blob:
                root.apply(
                    blob, layer=layer.name, diff_id=layer.diff_id, proves=layer.descriptor.digest
                )
            _write_out(changes)
            os.rename(changes, place)
            sync_directory(self.path)
        finally:
            discard(temporary)
            if busy is not None:
                os.close(busy)

    @contextlib.contextmanager
    def _root(self, changes: str, work: str, below: tuple[str, ...]) -> Iterator[RootFS]:
        if not below:
            with RootFS(changes, self.options) as root:
                yield root
            return
        with (
            overlay.detached(below, changes, work, rootless=self._rootless) as mount,
            RootFS(f"/proc/self/fd/{mount}", self.options) as root,
        ):
            yield root

    def _empty(self) -> str:
        place = os.path.join(self.path, "empty")
        os.makedirs(place, exist_ok=True)
        os.chmod(place, 0o755)  # noqa: S103 - the root of a file system, whatever the umask
        return place

    @contextlib.contextmanager
    def _locked(self, chain_id: Digest) -> Iterator[None]:
        """One unpacker a chain id; another one waits and then finds it done. The lock is removed by who holds it."""
        path = f"{self.place_of(chain_id)}.lock"
        fd = _wait_for(path)
        try:
            yield
        finally:
            discard(path)
            os.close(fd)

    def collect(self, needed: set[str], *, dry_run: bool = False) -> list[str]:
        """Remove what broken runs left, and the layers that are not `needed`.

        Args:
            needed: The names of directories to keep, see `name_of`: a path may be spelled in several ways.
            dry_run: Only say what would go.

        Returns:
            What is gone.
        """
        gone: list[str] = []
        for name in sorted(os.listdir(self.path)):
            path = os.path.join(self.path, name)
            if name in needed or name in ("empty", _NEEDS):
                continue
            busy = _lock(path)
            if busy is None:
                continue
            if not name.endswith(".lock"):
                gone.append(path)
            if not dry_run:
                discard(path)
            os.close(busy)
        return gone


def name_of(chain_id: Digest) -> str:
    """The name of the directory of a chain id's changes."""
    return f"{chain_id.algorithm}-{chain_id.encoded}"


def _wait_for(path: str) -> int:
    """A descriptor that holds a lock file, made anew where who held it before has removed it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(path: str) -> int | None:
    """A descriptor that holds the lock of what is at a path, or None where somebody holds or removes it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(fd, path):
            return fd
    os.close(fd)
    return None


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _write_out(path: str) -> None:
    """Have the file system that holds a directory write everything out (syncfs)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            raise StorageError(f"{path}: {os.strerror(ctypes.get_errno()).lower()}")
    finally:
        os.close(fd)
