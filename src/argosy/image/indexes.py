"""New indexes from images and old indexes: create, add, remove, filter, annotate."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from argosy.content.protocols import Source
from argosy.errors import ManifestUnknownError, PlatformUnknownError
from argosy.image.configure import map_with
from argosy.image.draft import draft
from argosy.image.view import Image, ImageIndex
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, check_types
from argosy.spec.platform import Platform

__all__ = ["add", "annotate", "create", "entries_of", "filtered", "remove"]


def entries_of(view: Image | ImageIndex, *, flatten: bool = False) -> tuple[Descriptor, ...]:
    """How an index lists something.

    Args:
        view: An image, whose platform is read from its configuration where its descriptor names none, or an index.
        flatten: List an index's entries instead of itself.
    """
    if isinstance(view, ImageIndex):
        return tuple(view.leaves()) if flatten else (view.descriptor.bare(),)
    platform = view.descriptor.platform or (view.platform if view.is_image else None)
    return (
        dataclasses.replace(
            view.descriptor.bare(), platform=platform, artifact_type=view.document.artifact_type
        ),
    )


def create(
    source: Source,
    *views: Image | ImageIndex,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
    flatten: bool = False,
    subject: Descriptor | None = None,
    artifact_type: str | None = None,
) -> ImageIndex:
    """An index of some images, in a draft over their places.

    Args:
        source: The place it is drafted over.
        views: What it lists, in order, each once.
        annotations: Of the index.
        docker: Whether it is a Docker manifest list.
        flatten: List the entries of indexes instead of the indexes.
        subject: What the index refers to.
        artifact_type: What sort of artifact it is.

    Raises:
        InvalidManifestError: `artifact_type` is no media type, or has parameters.
    """
    kind = mediatypes.DOCKER_LIST if docker else mediatypes.OCI_INDEX
    empty = Index(
        media_type=kind,
        annotations=annotations or {},
        subject=subject,
        artifact_type=artifact_type,
    )
    check_types(empty)
    place = draft(source)
    base = ImageIndex(source=place, descriptor=place.put(kind, empty.encode()))
    return add(base, *views, flatten=flatten) if views else base


def add(
    index: ImageIndex,
    *views: Image | ImageIndex,
    flatten: bool = False,
    entry_annotations: Mapping[str, str] | None = None,
    platform: Platform | None = None,
) -> ImageIndex:
    """An index with more entries at its end; one of the same digest and platform is replaced.

    Args:
        index: The old one.
        views: What to add.
        flatten: List the entries of indexes instead of the indexes.
        entry_annotations: Annotations of the new entries' descriptors.
        platform: Said of the new entries instead of what their configurations say.
    """
    new = [entry for view in views for entry in entries_of(view, flatten=flatten)]
    if entry_annotations:
        new = [
            dataclasses.replace(e, annotations={**e.annotations, **entry_annotations}) for e in new
        ]
    if platform is not None:
        new = [dataclasses.replace(entry, platform=platform) for entry in new]
    named = {(entry.digest, str(entry.platform)): entry for entry in new}
    kept = [e for e in index.manifests if (e.digest, str(e.platform)) not in named]
    return _with(index, [*kept, *named.values()], [view.source for view in views])


def remove(
    index: ImageIndex, *, digests: Iterable[Digest] = (), platforms: Iterable[Platform] = ()
) -> ImageIndex:
    """An index without some entries.

    Args:
        index: The old one.
        digests: Entries with these digests go.
        platforms: Entries for exactly these platforms go.

    Raises:
        ManifestUnknownError: a digest is not in it.
        PlatformUnknownError: a platform is not in it.
    """
    gone, unwanted = set(digests), set(platforms)
    for digest in gone - {entry.digest for entry in index.manifests}:
        raise ManifestUnknownError(f"{digest} is not in {index.digest}")
    for platform in unwanted - {entry.platform for entry in index.manifests}:
        raise PlatformUnknownError(f"no entry for {platform} in {index.digest}")
    kept = [e for e in index.manifests if e.digest not in gone and e.platform not in unwanted]
    return _with(index, kept)


def filtered(index: ImageIndex, platforms: Sequence[Platform]) -> ImageIndex:
    """An index of those entries alone that run on one of these platforms; the index itself where all do.

    Where an entry names no platform, an image's configuration does; and a nested index of which not all is kept gives
    way to what is kept of it.

    Raises:
        PlatformUnknownError: for one of them there is none.
        LimitExceededError: nested deeper than 16, or more than 10 000 images and indexes.
    """
    deque(index.leaves(), maxlen=0)
    missing = dict.fromkeys(platforms)
    kept = _running(index, platforms, missing)
    for platform in missing:
        raise PlatformUnknownError(f"no entry for {platform} in {index.digest}")
    return index if kept == list(index.manifests) else _with(index, kept)


def _running(
    index: ImageIndex, platforms: Sequence[Platform], missing: dict[Platform, None]
) -> list[Descriptor]:
    """The entries that run on one of some platforms, which are missing no longer."""
    kept: list[Descriptor] = []
    for entry in index.manifests:
        if entry.is_index() and entry.platform is None:
            nested = ImageIndex(source=index.source, descriptor=entry)
            below = _running(nested, platforms, missing)
            kept += [entry] if below == list(nested.manifests) else below
            continue
        offered = _platform(index.source, entry)
        suited = [one for one in platforms if offered and one.distance(offered) is not None]
        for platform in suited:
            missing.pop(platform, None)
        kept += [entry] if suited else []
    return kept


def _platform(source: Source, entry: Descriptor) -> Platform | None:
    if entry.platform is not None or entry.media_type not in mediatypes.MANIFESTS:
        return entry.platform
    image = Image(source=source, descriptor=entry)
    return image.platform if image.is_image else None


def annotate(
    index: ImageIndex,
    annotations: Mapping[str, str | None],
    *,
    digest: Digest | None = None,
    platform: Platform | None = None,
) -> ImageIndex:
    """An index with annotations set, or with None removed.

    Args:
        index: The old one.
        annotations: What to set.
        digest: Annotate the entry of this digest instead of the index.
        platform: What to say the platform of that entry is.

    Raises:
        ManifestUnknownError: there is no such entry.
    """
    if digest is None:
        changed = dataclasses.replace(
            index.index, annotations=map_with(index.index.annotations, annotations)
        )
        return _stored(index, changed)
    if digest not in {entry.digest for entry in index.manifests}:
        raise ManifestUnknownError(f"{digest} is not in {index.digest}")
    entries = [
        dataclasses.replace(
            entry,
            annotations=map_with(entry.annotations, annotations),
            platform=platform or entry.platform,
        )
        if entry.digest == digest
        else entry
        for entry in index.manifests
    ]
    return _with(index, entries)


def _with(
    index: ImageIndex, entries: Sequence[Descriptor], others: Sequence[Source] = ()
) -> ImageIndex:
    changed = dataclasses.replace(index.index, manifests=tuple(entries))
    return _stored(index, changed, others)


def _stored(index: ImageIndex, changed: Index, others: Sequence[Source] = ()) -> ImageIndex:
    place = draft(index.source, *others)
    if changed == index.index:
        return ImageIndex(source=place, descriptor=index.descriptor)
    desc = place.put(changed.media_type, changed.encode(), index.digest.algorithm)
    return ImageIndex(source=place, descriptor=desc)
