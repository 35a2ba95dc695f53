"""From an image to a runtime bundle (image-spec, conversion.md; runtime-spec, bundle.md)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable
from typing import Any

from argosy.bundle.bundle import (
    CONFIG,
    METADATA,
    ROOTFS,
    SNAPSHOT,
    Bundle,
    Metadata,
    kept,
    mtree_name,
    write_new,
)
from argosy.bundle.convert import as_rootless, runtime_config, with_id_maps
from argosy.bundle.inside import read_inside
from argosy.bundle.mtree import mtree
from argosy.bundle.users import User, resolve_user
from argosy.errors import (
    InvalidConfigError,
    LimitExceededError,
    NotFoundError,
    StorageError,
    UnsupportedError,
    UsageError,
)
from argosy.image.contents import Contents
from argosy.image.draft import Spool
from argosy.image.view import Image
from argosy.layer.idmap import IdMap
from argosy.layer.options import Options
from argosy.layer.rootfs import RootFS
from argosy.spec import _json
from argosy.spec.imageconfig import ImageConfig

__all__ = ["apply_layers", "generate_config", "image_config", "unpack", "unpack_rootfs"]


def unpack(
    image: Image,
    path: str,
    options: Options | None = None,
    *,
    digests: bool = False,
    for_umoci: bool = False,
    trust_labels: bool = False,
    on_layer: Callable[[int, int], object] = lambda _position, _count: None,
) -> Bundle:
    """Make a bundle of an image.

    The bundle's directory has mode 0700: without it, anybody could run the set-user-id programs of the image. When
    this fails, everything it made is removed again.

    Args:
        image: The image.
        path: The bundle's directory; it may exist, if nothing of a bundle is in it.
        options: Owners, rootless, and so on.
        digests: Hash every file, so that `repack` works on a bundle that was moved or restored.
        for_umoci: Write a manifest of the tree as well, so that `umoci repack` can be used on the bundle.
        trust_labels: See `runtime_config`.
        on_layer: Told the position of each layer before it is applied, and how many there are.

    Raises:
        StorageError: a part of a bundle is there already, or the file system refuses.
        InvalidLayerError: a layer breaks a rule; the message names layer, entry and rule.
        IntegrityError: a layer is not what manifest and configuration say.
        InvalidConfigError: the configuration cannot be turned into a runtime's.
    """
    options = options or Options()
    with contextlib.ExitStack() as undo:
        _directory(path, undo)
        rootfs = os.path.join(path, ROOTFS)
        root = undo.enter_context(RootFS.create(rootfs, options))
        apply_layers(image, root, on_layer)
        config = generate_config(image.config, rootfs, options=options, trust_labels=trust_labels)
        walk = (image.descriptor,)
        metadata = Metadata(
            walk=walk, uids=options.uids, gids=options.gids, rootless=options.rootless
        )
        _written(path, CONFIG, _json.dumps(config, indent=2) + b"\n", undo)
        snapshot = root.snapshot(digests=digests or for_umoci)
        _written(path, SNAPSHOT, kept(image.descriptor, snapshot), undo)
        if for_umoci:
            _written(path, mtree_name(image.descriptor), mtree(snapshot), undo)
        _written(path, METADATA, metadata.encode(), undo)
        root.close()
        undo.pop_all()
    return Bundle(path=path, metadata=metadata)


def unpack_rootfs(
    image: Image,
    path: str,
    options: Options | None = None,
    *,
    on_layer: Callable[[int, int], object] = lambda _position, _count: None,
) -> None:
    """The image's root file system alone, in a new directory; removed again when this fails.

    Raises:
        StorageError: the directory exists, or the file system refuses.
        InvalidLayerError: a layer breaks a rule.
        IntegrityError: a layer is not what manifest and configuration say.
    """
    with RootFS.create(path, options) as root:
        apply_layers(image, root, on_layer)


def apply_layers(
    image: Image, root: RootFS, on_layer: Callable[[int, int], object] = lambda _at, _of: None
) -> None:
    """Apply all layers of an image to a root, from the base upwards, each proved by digest, size and DiffID.

    Raises:
        UnsupportedError: this is no image, or a layer is of a media type that is no changeset.
        InvalidLayerError: a layer breaks a rule.
        IntegrityError: a layer is not what manifest and configuration say.
    """
    if not image.is_image:
        raise UnsupportedError(f"{image.digest} is an artifact, there is nothing to unpack")
    for layer in image.layers:
        if not layer.is_changeset:
            raise UnsupportedError(f"{layer.name}: {layer.descriptor.media_type} is no changeset")
    for layer in image.layers:
        on_layer(layer.position, len(image.layers))
        with layer.changeset() as blob:
            root.apply(
                blob, layer=layer.name, diff_id=layer.diff_id, proves=layer.descriptor.digest
            )


def generate_config(
    config: ImageConfig,
    rootfs: str,
    *,
    options: Options | None = None,
    trust_labels: bool = False,
) -> dict[str, Any]:
    """The runtime configuration for an image whose root file system lies here.

    Args:
        config: The image's configuration.
        rootfs: The root file system, in which user names are looked up.
        options: Id maps and rootless, which become a user namespace.
        trust_labels: See `runtime_config`.

    Raises:
        InvalidConfigError: a user is not in the image, or a field has no meaning for a runtime.
    """
    options = options or Options()
    user = _user(config, rootfs)
    made = runtime_config(config, user=user, trust_labels=trust_labels)
    if options.rootless:
        return as_rootless(made, os.geteuid(), os.getegid())
    if options.uids.ranges or options.gids.ranges:
        return with_id_maps(made, _ranges(options.uids), _ranges(options.gids))
    return made


def image_config(
    image: Image, *, rootfs: str | None = None, trust_labels: bool = False
) -> dict[str, Any]:
    """The runtime configuration for an image, without unpacking it.

    Args:
        image: The image.
        rootfs: A root file system to look users up in; the image's own files, read from its layers, if None.
        trust_labels: See `runtime_config`.

    Raises:
        InvalidConfigError: a user is not in the image, or a field has no meaning for a runtime.
        IntegrityError: a layer is not what manifest and configuration say.
    """
    if rootfs is not None:
        return generate_config(image.config, rootfs, trust_labels=trust_labels)
    contents = Contents(image, spool=Spool())

    def read(path: str, limit: int) -> bytes | None:
        try:
            size = contents.file(path).entry.size
        except NotFoundError:
            return None
        except UsageError as exc:
            raise InvalidConfigError(f"{path}: {exc}") from None
        if size > limit:
            raise LimitExceededError(f"{path}: the image's file is over the limit of {limit} bytes")
        return b"".join(contents.content(path))

    user = _at_home(resolve_user(image.config.execution.user, read))
    return runtime_config(image.config, user=user, trust_labels=trust_labels)


def _user(config: ImageConfig, rootfs: str) -> User:
    return _at_home(
        resolve_user(config.execution.user, lambda path, limit: read_inside(rootfs, path, limit))
    )


def _at_home(user: User) -> User:
    """A user whose home is a path; a database may say anything."""
    return user if user.home.startswith("/") else dataclasses.replace(user, home="/")


def _ranges(ids: IdMap) -> list[tuple[int, int, int]]:
    return [(r.container, r.host, r.size) for r in ids.ranges]


def _directory(path: str, undo: contextlib.ExitStack) -> None:
    """The bundle's directory, made if it is not there; nothing of a bundle may be in it."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        for name in (ROOTFS, CONFIG, METADATA, SNAPSHOT):
            if os.path.lexists(os.path.join(path, name)):
                raise StorageError(
                    f"{path}: {name} exists already", hint="unpack into another directory"
                ) from None
        if not os.path.isdir(path):
            raise StorageError(f"{path}: not a directory") from None
    except OSError as exc:
        raise StorageError(f"{path}: {os.strerror(exc.errno or 0).lower()}") from exc
    else:
        undo.push(_removing(os.rmdir, path))


def _written(path: str, name: str, data: bytes, undo: contextlib.ExitStack) -> None:
    write_new(os.path.join(path, name), data)
    undo.push(_removing(os.unlink, os.path.join(path, name)))


def _removing(remove: Callable[[str], None], path: str) -> Callable[..., bool]:
    def undone(*_: object) -> bool:
        with contextlib.suppress(OSError):
            remove(path)
        return False

    return undone
