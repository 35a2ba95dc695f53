"""`argosy backup` and `argosy restore`: tags and their referrers into one file or directory, and back."""

from __future__ import annotations

import os
import sys

import click

from argosy.cli import connections, failure, places, progress
from argosy.cli.options import jobs_option, keep_going_option, quiet_option, typed_place
from argosy.content.copy import Copying
from argosy.content.protocols import together
from argosy.content.workers import Workers
from argosy.errors import InvalidLayoutError, UsageError
from argosy.layout.archive import sniff
from argosy.locate import Location

_BY_DIGEST = "one image by its digest is copied by `argosy cp`"
_TAR = (".tar", ".tar.gz", ".tgz")


def _split(text: str) -> tuple[Location, tuple[str, ...]]:
    """`registry/name[:tag[,tag]...]`: the repository, and the tags.

    Raises:
        UsageError: it names no tag before a comma, or a digest, which a backup would not find again.
    """
    head, comma, more = text.partition(",")
    place = typed_place(head)
    first = place.own_tag
    if place.digest or (comma and not first):
        raise UsageError(f"{text}: expected NAME or NAME:TAG,TAG", hint=_BY_DIGEST)
    return place, (*((first,) if first else ()), *(tag for tag in more.split(",") if tag))


def _kept(path: str) -> Location:
    if path.partition(":")[0] in ("oci", "oci-archive", "dir", "docker-archive"):
        return typed_place(path)
    return Location(transport="oci-archive" if path.endswith(_TAR) else "oci", path=path)


def _given(path: str) -> Location:
    """What to restore from: an archive by what is in it, whatever its name is.

    Raises:
        InvalidLayoutError: it is a file, and no archive.
    """
    if not os.path.isfile(path):
        return _kept(path)
    kind = sniff(path)
    if kind is None and not path.endswith(_TAR):
        raise InvalidLayoutError(
            f"{path}: it is a file, but neither an OCI archive nor one of Docker",
            hint="give what `argosy backup` wrote: a directory or a tar file",
        )
    return Location(transport=kind or "oci-archive", path=path)


_referrers = click.option(
    "--referrers/--no-referrers",
    "--include-referrers/--exclude-referrers",
    default=True,
    help="Also what refers to them (the default).",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be copied.")


@connections.two_ended
@click.command()
@click.argument("repository", metavar="REPOSITORY[:TAG[,TAG]...]")
@click.option(
    "-o",
    "--output",
    metavar="FILE|DIRECTORY",
    required=True,
    help="A directory (a layout) to add to, or FILE.tar to write anew.",
)
@_referrers
@_dry_run
@keep_going_option
@jobs_option
@quiet_option
@progress.progress_option
def command(
    repository: str,
    output: str,
    referrers: bool,
    dry_run: bool,
    keep_going: bool,
    jobs: int,
    quiet: bool,
    progress: str,
) -> int:
    """Write tags of a repository, all of them if none is named, into a layout or an archive.

    \b
    Examples:
      argosy backup registry.example/app -o app.tar
      argosy backup registry.example/app:v1,v2 -o mirror
    """
    place, tags = _split(repository)
    losses = failure.Losses(keep_going=keep_going, what="tags")
    options = (referrers, dry_run, jobs)
    _all(place, tags, _kept(output), options, losses, progress, quiet, anew=True)
    return losses.end()


@connections.two_ended
@click.command()
@click.argument("repository", metavar="REPOSITORY[:TAG[,TAG]...]")
@click.option(
    "-i",
    "--input",
    "given",
    metavar="FILE|DIRECTORY",
    required=True,
    help="What `argosy backup` wrote.",
)
@_referrers
@_dry_run
@keep_going_option
@jobs_option
@quiet_option
@progress.progress_option
def restore(
    repository: str,
    given: str,
    referrers: bool,
    dry_run: bool,
    keep_going: bool,
    jobs: int,
    quiet: bool,
    progress: str,
) -> int:
    """Bring tags back from a layout or an archive, all of them if none is named.

    \b
    Example:
      argosy restore -i app.tar registry.example/app
    """
    place, tags = _split(repository)
    losses = failure.Losses(keep_going=keep_going, what="tags")
    _all(_given(given), tags, place, (referrers, dry_run, jobs), losses, progress, quiet)
    return losses.end()


def _all(
    source: Location,
    tags: tuple[str, ...],
    target: Location,
    options: tuple[bool, bool, int],
    losses: failure.Losses,
    style: str,
    quiet: bool,
    *,
    anew: bool = False,
) -> None:
    referrers, dry_run, jobs = options
    places.check_tags(source)
    with places.source(source, ahead=not dry_run) as taken:
        wanted = tags or tuple(places.images(taken))
        places.check_room(target, wanted)
        if dry_run:
            with Workers(jobs, "argosy-plan") as workers:
                for tag, found in workers.ahead(taken.resolve, wanted):
                    with losses.among(), places.of_many(tag):
                        print(f"{tag} {found.result().digest}")
            return
        with (
            places.target(target, anew=anew) as given,
            progress.shown(style, quiet=quiet) as on_event,
            together(given),
            Copying(taken, given, referrers=referrers, jobs=jobs, on_event=on_event) as run,
        ):
            names = places.all_carried(source, target, wanted)
            for tag, copied in run.each(names, lambda tag: (tag, (names[tag],))):
                with losses.among(), places.of_many(tag):
                    copied()
    print(f"{len(wanted) - losses.count} tags copied to {target}", file=sys.stderr)
