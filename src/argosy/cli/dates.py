"""When images were made, for `argosy ls --sort date`: loaded only where asked, for it reads every manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from argosy.content import graph
from argosy.content.protocols import Source
from argosy.content.workers import JOBS, each
from argosy.errors import ArgosyError, InvalidError, NotFoundError, UnsupportedError
from argosy.spec.annotations import CREATED
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index, Manifest

_NEVER = datetime.min.replace(tzinfo=UTC)


def by_date(source: Source, tags: Sequence[str], *, jobs: int = JOBS) -> list[str]:
    """Tags from the oldest to the newest; those without a date come first, and what is as old keeps its order.

    The date is the annotation `org.opencontainers.image.created`, else `created` of the configuration; an index
    without the annotation is as old as its first image.

    Raises:
        ArgosyError: the place fails. A tag that has gone meanwhile has no date; nor has one that cannot be read.
    """
    dates = dict(zip(tags, each(lambda tag: _made(source, tag), tags, jobs=jobs), strict=True))
    return sorted(tags, key=dates.__getitem__)


def _made(source: Source, tag: str) -> datetime:
    try:
        return _moment(_created(source, source.resolve(tag), graph.MAX_DEPTH))
    except (NotFoundError, UnsupportedError, InvalidError):
        return _NEVER


def _created(source: Source, desc: Descriptor, depth: int) -> object:
    if not desc.is_manifest():
        return None
    found = graph.read_manifest(source, desc)
    if noted := found.annotations.get(CREATED):
        return noted
    if isinstance(found, Index):
        return (
            _created(source, found.manifests[0], depth - 1) if found.manifests and depth else None
        )
    if not (isinstance(found, Manifest) and found.config.media_type.endswith("+json")):
        return None
    try:
        config = json.loads(graph.read(source, found.config))
    except (ValueError, RecursionError) as exc:
        if isinstance(exc, ArgosyError):
            raise
        return None
    return config.get("created") if isinstance(config, dict) else None


def _moment(text: object) -> datetime:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return _NEVER
    return found if found.tzinfo else found.replace(tzinfo=UTC)
