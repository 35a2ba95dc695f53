"""Opening the places a command line names, with the connection options that were given."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import TextIO

import click

from argosy import locate
from argosy.content import graph
from argosy.content.protocols import Forgetter, Source, Target
from argosy.content.workers import JOBS
from argosy.errors import (
    AccessError,
    ArgosyError,
    InvalidError,
    InvalidTagError,
    NotFoundError,
    RegistryError,
    UnsupportedError,
    UsageError,
)
from argosy.locate import Connect, Location
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform
from argosy.spec.reference import DOCKER_HUB, Reference, is_referrers_tag, parse_tag

ARCHIVES = ("oci-archive", "docker-archive")


def _connect(location: Location, side: str, *, ahead: bool) -> Connect | None:
    """How to reach a registry; its module is loaded only when a registry is named."""
    if location.reference is None:
        return None
    remotes = importlib.import_module("argosy.cli.remotes")
    connect: Connect = remotes.connect(click.get_current_context(), side, ahead=ahead)
    return connect


@contextlib.contextmanager
def source(
    location: Location, side: str = "src", *, itself: bool = False, ahead: bool = False
) -> Iterator[Source]:
    """Open a place to read from.

    Args:
        location: What was typed.
        side: Whose options hold where a command has both: those of `--src-…` or `--dest-…`.
        itself: See `locate.source`.
        ahead: What is resolved is read: see `Repository`.
    """
    connect = _connect(location, side, ahead=ahead)
    with _looked_for_here(location), locate.source(location, connect, itself=itself) as place:
        yield place


@contextlib.contextmanager
def _looked_for_here(location: Location) -> Iterator[None]:
    """Have an error about a repository of Docker Hub tell of the layout here that is called as it is."""
    try:
        yield
    except (NotFoundError, AccessError, RegistryError) as exc:
        found = location.reference
        name = found.name.removeprefix("library/") if found else ""
        if found and found.registry == DOCKER_HUB and os.path.lexists(f"{name}/oci-layout"):
            tag = f":{found.tag}" if found.tag else ""
            exc.hint = f"oci:{name}{tag} is the layout here, and {found} Docker Hub's"
        raise


@contextlib.contextmanager
def target(
    location: Location, side: str = "dest", *, anew: bool = False, ahead: bool = False
) -> Iterator[Target]:
    """Open a place to write to; `anew` keeps nothing of an archive that is there. `ahead`: as of a source."""
    with locate.target(location, _connect(location, side, ahead=ahead), anew=anew) as place:
        yield place


def jobs(location: Location) -> int:
    """How many things to ask of a place at a time: on this machine nothing waits for an answer."""
    return JOBS if location.reference else 1


def beside(location: Location) -> TextIO:
    """Where to tell of what was written: stdout, unless what was written went there."""
    return sys.stderr if location.path == "-" else sys.stdout


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


def check_whole(
    location: Location,
    meant: str = "--all-tags",
    hint: str = "one image comes with all its platforms, without an option",
) -> None:
    """See that a place is named alone, where all of its tags are meant.

    Args:
        location: What was typed.
        meant: The option or command that means all of them.
        hint: What to do about a single one.

    Raises:
        UsageError: a tag or a digest was typed with it.
    """
    if location.own_tag or location.digest:
        raise UsageError(f"{location}: {meant} means every tag of the place: name none", hint=hint)


@contextlib.contextmanager
def superseding(
    location: Location, target: Target, tags: Collection[object], *, in_place: bool = False
) -> Iterator[set[Digest]]:
    """Write images without a tag in place of those without one, where they could not be told from each other.

    That is so in an archive, and where an image without a tag is changed in place. A digest says which is meant.

    Args:
        location: What was typed.
        target: The place, opened.
        tags: What the new images are called there; where it is anything, the others stay.
        in_place: The new image is made of the only one without a tag.

    Yields:
        The digests of the new images, to be filled in.

    Raises:
        UsageError: it is an archive with tags: those would be read for it.
    """
    archive = location.transport in ARCHIVES
    concerned = not tags and location.tag is None and (archive or in_place)
    new: set[Digest] = set()
    if not concerned or not isinstance(target, Forgetter):
        yield new
        return
    if archive and any(target.tags()):
        raise UsageError(
            f"{location} holds images with names: one without would not be found beside them",
            hint="give it a name, too",
        )
    old = list(target.untagged())
    yield new
    for desc in old:
        if desc.digest not in new:
            target.forget(desc)


@contextlib.contextmanager
def of_many(tag: str) -> Iterator[None]:
    """Have an error in the block tell which of the tags it is about."""
    try:
        yield
    except ArgosyError as exc:
        exc.add_note(f"tag {tag}")
        raise


def check_tags(location: Location) -> None:
    """See that a place has tags.

    Raises:
        UnsupportedError: it is a `dir:`.
    """
    if location.transport == "dir":
        raise UnsupportedError(
            f"{location} is one image, and has no tags",
            hint="argosy cp copies it, and gives it one there",
        )


def tag_in(target: Location, tag: str, source: Location | None = None) -> str:
    """A tag as a place takes it. In a docker archive it is a whole name: `NAME:TAG`, or a tag of a name that is known.

    Args:
        target: The place.
        tag: What was typed, or what the source calls it.
        source: Where the image comes from: its name is taken where `target` has none.

    Raises:
        UsageError: it is no tag, or nobody said of which name.
    """
    try:
        if target.transport != "docker-archive":
            return parse_tag(tag)
        if ":" in tag or "/" in tag:
            return _whole(tag)
        name = repository(target) or (repository(source) if source else None)
        if name is not None:
            return f"{name}:{parse_tag(tag)}"
    except InvalidError as exc:
        name_too = "this is a tag alone; `argosy cp` gives an image another name"
        raise UsageError(str(exc), hint=name_too if set(tag) & set("/:") else exc.hint) from None
    raise UsageError(
        f"{target}: an image of a docker archive has a whole name, and {tag!r} is only a tag",
        hint=f"give the name too, as in docker-archive:{target.path}:NAME:{tag}",
    )


def _whole(name: str) -> str:
    if "@" in name:
        raise InvalidTagError(f"{name[:300]!r}: expected a name and a tag, without a digest")
    reference = Reference.parse(name)
    return str(reference.with_tag(reference.tag or "latest"))


def carried(source: Location, target: Location, tag: str) -> str:
    """What a tag of the source is called in the target: only docker archives, and some layouts, hold whole names.

    Raises:
        UsageError: the target can have no such tag, or nobody said of which name it is.
    """
    if target.transport == "docker" and not source.reference and (":" in tag or "/" in tag):
        return Reference.parse(tag).tag or "latest"
    return tag_in(target, tag, source) if target.transport in ("docker", "docker-archive") else tag


def all_carried(source: Location, target: Location, tags: Iterable[str]) -> dict[str, str]:
    """What every tag is called in the target.

    Raises:
        UsageError: two would be called the same, or one cannot be called so.
    """
    names = {tag: carried(source, target, tag) for tag in tags}
    if len(set(names.values())) < len(names):
        raise UsageError(
            f"{source} holds images of several names, whose tags are the same in {target}",
            hint="copy them one by one, each to a repository of its own",
        )
    return names


def repository(location: Location) -> str | None:
    """The name, with neither tag nor digest, of the repository a location means; None where it tells of none."""
    if location.reference is not None:
        return location.reference.repository
    tag = location.tag
    whole = location.transport == "docker-archive" or (tag and (":" in tag or "/" in tag))
    if not (tag and whole) or location.digest or tag.startswith("@"):
        return None
    return Reference.parse(tag).repository


@contextlib.contextmanager
def image(
    location: Location,
    platform: Platform | None = None,
    *,
    single: bool = False,
    itself: bool = False,
    ahead: bool = True,
) -> Iterator[tuple[Source, Descriptor]]:
    """Open a place and find what the location means in it.

    Args:
        location: What was typed.
        platform: Of an index, take the image for this platform.
        single: An index is not enough: without `platform`, take the host's image of it.
        itself: See `locate.source`.
        ahead: Whether it is read, too, and not only found.
    """
    with source(location, itself=itself, ahead=ahead) as place:
        desc = place.resolve(locate.choose(place, location))
        if platform is not None:
            desc = graph.select(place, desc, platform)
        elif single:
            desc = graph.select(place, desc, Platform.host())
        yield place, desc
