"""Opening the places a command line names, with the connection options that were given."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Collection, Iterator

import click

from argosy import locate
from argosy.content import graph
from argosy.content.protocols import Source, Target
from argosy.errors import UnsupportedError
from argosy.locate import Connect, Location
from argosy.spec.descriptor import Descriptor
from argosy.spec.platform import Platform
from argosy.spec.reference import is_referrers_tag


def _connect(location: Location, side: str) -> Connect | None:
    """How to reach a registry; its module is loaded only when a registry is named."""
    if location.reference is None:
        return None
    remotes = importlib.import_module("argosy.cli.remotes")
    connect: Connect = remotes.connect(click.get_current_context(), side)
    return connect


@contextlib.contextmanager
def source(location: Location, side: str = "src") -> Iterator[Source]:
    """Open a place to read from; `side` picks `--src-…` or `--dest-…` options where a command has both."""
    with locate.source(location, _connect(location, side)) as place:
        yield place


@contextlib.contextmanager
def target(location: Location, side: str = "dest") -> Iterator[Target]:
    """Open a place to write to."""
    with locate.target(location, _connect(location, side)) as place:
        yield place


def images(place: Source) -> list[str]:
    """The tags of a place, but for those of lists of referrers: a list is the target's own, and merged there."""
    return [tag for tag in place.tags() if not is_referrers_tag(tag)]


def check_room(location: Location, tags: Collection[str]) -> None:
    """See that a place can hold so many images, before any of them is lost for the next.

    Raises:
        UnsupportedError: it is a `dir:`, which is one image.
    """
    if location.transport == "dir" and len(tags) > 1:
        raise UnsupportedError(
            f"{location} holds one image, not {len(tags)}",
            hint=f"oci:{location.path} would hold them all",
        )


def check_tags(location: Location) -> None:
    """See that a place has tags.

    Raises:
        UnsupportedError: it is a `dir:`.
    """
    if location.transport == "dir":
        raise UnsupportedError(f"{location} is one image, and has no tags")


@contextlib.contextmanager
def image(
    location: Location, platform: Platform | None = None, *, single: bool = False
) -> Iterator[tuple[Source, Descriptor]]:
    """Open a place and find what the location means in it.

    Args:
        location: What was typed.
        platform: Of an index, take the image for this platform.
        single: An index is not enough: without `platform`, take the host's image of it.
    """
    with source(location) as place:
        desc = place.resolve(locate.choose(place, location))
        if platform is not None:
            desc = graph.select(place, desc, platform)
        elif single:
            desc = graph.select(place, desc, Platform.host())
        yield place, desc
