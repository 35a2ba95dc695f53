"""`argosy push`: an image of this machine, or a file, to a registry."""

from __future__ import annotations

from typing import Any

import click

from argosy import locate
from argosy.cli import engine, places, progress
from argosy.cli.options import FILE_OR_PLACE, jobs_option, platforms_option, quiet_option
from argosy.content.copy import copy
from argosy.engine.names import local_name
from argosy.errors import UsageError
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@click.argument("named", nargs=-1, required=True, type=FILE_OR_PLACE, metavar="[PLACE] REFERENCE")
@click.option(
    "-a", "--all-tags", is_flag=True, help="Every tag the repository has on this machine."
)
@click.option("-r", "--referrers", is_flag=True, help="Also what refers to it.")
@click.option("--foreign", is_flag=True, help="Also non-distributable layers.")
@platforms_option
@jobs_option
@quiet_option
@progress.progress_option
def command(
    named: tuple[Location, ...],
    all_tags: bool,
    referrers: bool,
    foreign: bool,
    platforms: tuple[Platform, ...],
    jobs: int,
    quiet: bool,
    progress: str,
) -> None:
    """Send an image to a registry: one of this machine's, or what PLACE (a file, a layout) holds.

    Prints the reference by digest.

    \b
    Examples:
      argosy push registry.example/app:v1
      argosy push alpine.tar registry.example/alpine:3.20
    """
    if len(named) > 2:
        raise UsageError("expected a reference, or a place and a reference")
    target = named[-1]
    if all_tags:
        places.check_whole(target)
    if all_tags and len(named) == 2:
        raise UsageError(
            "--all-tags is for images of this machine", hint="copy a place with `argosy cp -a`"
        )
    if target.reference is None:
        raise UsageError(f"{target}: expected a reference to a registry")
    options: dict[str, Any] = {
        "platforms": platforms or None,
        "referrers": referrers,
        "foreign": foreign,
        "jobs": jobs,
        "expected": target.digest,
    }
    with places.target(target) as given, _shown(progress, quiet=quiet) as on_event:
        if len(named) == 2:
            with places.source(named[0], ahead=True) as source:
                chosen = locate.choose(source, named[0])
                digest = copy(
                    source, chosen, given, *_tags(target), on_event=on_event, **options
                ).digest
            print(f"{target.reference.repository}@{digest}")
            return
        store = engine.images().store
        prefix = f"{target.reference.repository}:"
        names = (
            [t for t in store.tags() if t.startswith(prefix)] if all_tags else [local_name(target)]
        )
        for name in names:
            tags = (name[len(prefix) :],) if name.startswith(prefix) else _tags(target)
            # a machine holds the image of its own platform, and the index it came with
            digest = copy(store, name, given, *tags, on_event=on_event, **_here(options)).digest
            print(f"{target.reference.repository}@{digest}")


_shown = progress.shown


def _here(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "platforms": options["platforms"] or [Platform.host()]}


def _tags(target: Location) -> tuple[str, ...]:
    tag = target.own_tag or (None if target.digest else "latest")
    return (tag,) if tag else ()
