"""`argosy cp`: from any place to any place."""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any

import click

from argosy import locate
from argosy.cli import failure, files, places, progress
from argosy.cli.options import (
    FORMATS,
    PLACE,
    jobs_option,
    keep_going_option,
    platforms_option,
    quiet_option,
)
from argosy.content.copy import Copying, copy
from argosy.content.protocols import Source, Target, together
from argosy.errors import ConflictError, NotFoundError, UsageError
from argosy.locate import Location
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform
from argosy.spec.reference import Reference

Change = Callable[[Source, str], tuple[Digest, Source, str]]
"""Makes another image of one: the old digest, the place of the new one, and its digest."""
Wanted = tuple[str, tuple[str]]
"""A tag, and what it is called in the target."""
Steps = Generator[tuple[str, Callable[[], object]]]
"""Tags, each with what copies it or waits until it is copied."""


@click.command()
@click.argument("source", type=PLACE)
@click.argument("target", type=PLACE)
@click.option(
    "-t",
    "--tag",
    "--additional-tag",
    "more_tags",
    metavar="TAG",
    multiple=True,
    help="One more tag for it; repeatable.",
)
@click.option(
    "-a",
    "--all-tags",
    is_flag=True,
    help="Every tag of the source, under the same names; lists of referrers come with --referrers.",
)
@platforms_option
@click.option(
    "--sparse", is_flag=True, help="With --platform: keep the index whole, and its digest."
)
@click.option(
    "-n",
    "--no-clobber",
    is_flag=True,
    help="Move no tag that TARGET has: fail, or with --all-tags copy the others.",
)
@click.option(
    "-r",
    "--referrers",
    "--recursive",
    is_flag=True,
    help="Also what refers to it: signatures, SBOMs.",
)
@click.option(
    "--digest-tags", is_flag=True, help="Also tags like sha256-<hex>.sig; not lists of referrers."
)
@click.option("--foreign", is_flag=True, help="Also non-distributable layers.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(FORMATS)),
    help="Give it these media types. Its digest changes.",
)
@click.option(
    "--compress",
    type=click.Choice(["gzip", "zstd", "none"]),
    help="Compress its layers in this way. Its digest changes.",
)
@click.option(
    "--level",
    metavar="N",
    type=int,
    help="With --compress: how hard, and anew what is of this kind. gzip 0 to 3, zstd 1 to 22.",
)
@click.option(
    "--preserve-digests", is_flag=True, help="Fail rather than let anything change its digest."
)
@click.option(
    "--digest-file",
    "--digestfile",
    type=click.Path(dir_okay=False),
    help="Write the digest to this file.",
)
@keep_going_option
@jobs_option
@quiet_option
@progress.progress_option
def command(
    source: Location,
    target: Location,
    more_tags: tuple[str, ...],
    all_tags: bool,
    platforms: tuple[Platform, ...],
    sparse: bool,
    no_clobber: bool,
    referrers: bool,
    digest_tags: bool,
    foreign: bool,
    kind: str | None,
    compress: str | None,
    level: int | None,
    preserve_digests: bool,
    digest_file: str | None,
    keep_going: bool,
    jobs: int,
    quiet: bool,
    progress: str,
) -> int:
    """Copy an image, an index or an artifact. Its digest is kept, and what is there already does not move.

    With --format or --compress it becomes another one on its way, and both digests are told on stderr; the image id
    stays. The files of an artifact are not compressed. TARGET's tag is SOURCE's where none is given; where TARGET has a
    digest, nothing else is written. Several --platform of an index make a smaller one: of these images, and of what
    BuildKit attests of them.

    \b
    Examples:
      argosy cp alpine:3.20 oci:images:alpine
      argosy cp --platform linux/amd64 --platform linux/arm64 alpine:3.20 oci-archive:alpine.tar
      argosy cp --referrers registry.example/app:v1 mirror.example/app
      argosy cp --format oci --compress zstd registry.example/app:v1 mirror.example/app
      argosy cp oci:images:alpine docker-archive:-:alpine:3.20 | docker load
    """
    if all_tags:
        _check_all(source, target, more_tags, digest_file)
    elif keep_going:
        raise UsageError("--keep-going is for --all-tags")
    named = locate.new_tag(target)
    if more_tags or no_clobber:
        places.check_tags(target)
    _check_change(
        kind or compress, level if compress is None else None, referrers or digest_tags or sparse
    )
    wanted = bool(kind or compress or (preserve_digests and not sparse and len(platforms) > 1))
    docker = FORMATS[kind] if kind else None
    wish = {"docker": docker, "compress": compress, "level": level, "preserve": preserve_digests}
    change = _changing(platforms, wish) if wanted else None
    options: dict[str, Any] = {
        "expected": target.digest,
        "platforms": (platforms or None) if change is None else None,
        "sparse": sparse,
        "referrers": referrers,
        "digest_tags": digest_tags,
        "foreign": foreign,
        "jobs": jobs,
    }
    with (
        _renamed(quiet=quiet) as renamed,
        files.digest(digest_file) as told,
        places.source(source, ahead=True) as taken,
        places.target(target) as given,
        _shown(progress, quiet=quiet) as on_event,
    ):
        options["on_event"] = on_event
        copied = _copying(taken, given, change, renamed, **options)
        if all_tags:
            names = places.all_carried(source, target, places.images(taken))
            places.check_room(target, names)
            take = functools.partial(_wanted, names, given if no_clobber else None)
            if change:
                return _all(_one_by_one(names, take, copied), given, keep_going=keep_going)
            steps = _some_at_a_time(names, take, taken, given, options)
            return _all(steps, given, keep_going=keep_going)
        chosen = locate.choose(taken, source)
        more = (places.tag_in(target, tag, source.at(chosen)) for tag in more_tags)
        tags = (*_tags(source, target, named, chosen), *more)
        if no_clobber:
            _check_free(target, given, tags)
        with places.superseding(target, given, tags) as new:
            root = copied(chosen, *tags)
            new.add(root.digest)
        told(root.digest)
    return 0


_shown = progress.shown


def _check_all(
    source: Location, target: Location, tags: tuple[str, ...], digest_file: str | None
) -> None:
    """See that all of a place's images can be meant, and keep their names."""
    places.check_whole(source)
    places.check_tags(source)
    if tags or _tag_of(target):
        raise UsageError("--all-tags keeps every tag's name: give no other tag")
    if digest_file:
        raise UsageError("--digest-file is for one digest, and --all-tags copies several images")


def _check_change(change: str | None, level: int | None, whole: bool) -> None:
    """Refuse a `level` without --compress, and, with a `change` of the image, what keeps it `whole`."""
    if level is not None:
        raise UsageError("--level is for --compress")
    if change and whole:
        raise UsageError(
            "--format and --compress make another image: what refers to the old one by its digest, or an index that "
            "is kept whole, cannot come along"
        )


def _changing(platforms: tuple[Platform, ...], wish: Mapping[str, object]) -> Change:
    """What makes another image of one."""
    room = importlib.import_module("argosy.cli.converting")
    wanted = room.Wish(**wish)

    def change(place: Source, chosen: str) -> tuple[Digest, Source, str]:
        old, made, new = room.converted(place, chosen, platforms, wanted)
        return old.digest, made, str(new.digest)

    return change


def _copying(
    source: Source,
    target: Target,
    change: Change | None,
    renamed: dict[Digest, Digest],
    **options: Any,
) -> Callable[..., Descriptor]:
    """What copies an image, changed on its way where it shall be; then both digests stand in `renamed`."""

    def copied(name: str, *tags: str) -> Descriptor:
        old, place, what = change(source, name) if change else (None, source, name)
        root = copy(place, what, target, *tags, **options)
        if old is not None:
            renamed[old] = root.digest
        return root

    return copied


@contextlib.contextmanager
def _renamed(*, quiet: bool) -> Iterator[dict[Digest, Digest]]:
    """Digests and what became of them, told at the end of a block, when everything is where it shall be."""
    found: dict[Digest, Digest] = {}
    yield found
    for old, new in found.items():
        if old != new and not quiet:
            print(f"argosy: the digest was {old}, it is {new} now", file=sys.stderr)


def _all(steps: Steps, target: Target, *, keep_going: bool) -> int:
    """Copy what all the steps copy, and say how to exit."""
    losses = failure.Losses(keep_going=keep_going, what="tags")
    with together(target), contextlib.closing(steps):
        for tag, done in steps:
            with losses.among(), places.of_many(tag):
                done()
    return losses.end()


def _wanted(names: Mapping[str, str], kept: Source | None, tag: str) -> Wanted | None:
    """A tag and its name in the target, unless that is one of those that are `kept`."""
    name = names[tag]
    return None if kept is not None and _has(kept, name) else (tag, (name,))


def _one_by_one(
    tags: Iterable[str],
    wanted: Callable[[str], Wanted | None],
    copied: Callable[..., object],
) -> Steps:
    """What copies each tag."""

    def one(tag: str) -> None:
        found = wanted(tag)
        if found is not None:
            copied(found[0], *found[1])

    for tag in tags:
        yield tag, functools.partial(one, tag)


def _some_at_a_time(
    tags: Iterable[str],
    wanted: Callable[[str], Wanted | None],
    source: Source,
    target: Target,
    options: dict[str, Any],
) -> Steps:
    """What waits until each tag is copied."""
    del options["expected"]
    with Copying(source, target, **options) as run:
        yield from run.each(tags, wanted)


def _check_free(target: Location, place: Source, tags: Iterable[str]) -> None:
    for tag in tags:
        if _has(place, tag):
            raise ConflictError(f"{target}: the tag {tag} is there, and --no-clobber keeps it")


def _has(place: Source, tag: str) -> bool:
    try:
        place.resolve(tag)
    except NotFoundError:
        return False
    return True


def _tags(source: Location, target: Location, named: str | None, chosen: str) -> tuple[str, ...]:
    """The tag that is named, else the one the source has; none for what is known by digest only."""
    if named is not None:
        return (named,)
    tag = source.own_tag or source.digest or chosen
    if target.digest or isinstance(tag, Digest) or tag.startswith("@"):
        return ()
    return (places.carried(source, target, tag),)


def _tag_of(target: Location) -> str | None:
    """The tag or digest a target names; a docker archive may be given the name that all tags get."""
    tag = target.digest or target.own_tag
    if target.transport != "docker-archive" or tag is None or target.digest:
        return tag
    return Reference.parse(tag).tag
