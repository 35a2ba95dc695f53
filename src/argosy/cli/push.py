"""`argosy push`: an image of this machine, or a file, to a registry."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from argosy import locate
from argosy.cli import engine, places, progress
from argosy.cli.failure import warn
from argosy.cli.options import FILE_OR_NAME, jobs_option, platforms_option, quiet_option
from argosy.content.copy import copy
from argosy.engine.names import local_name
from argosy.errors import ManifestUnknownError, StorageError, UsageError
from argosy.locate import Location
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform

if TYPE_CHECKING:
    from argosy.engine.images import LocalImages


@click.command()
@click.argument("named", nargs=-1, required=True, type=FILE_OR_NAME, metavar="[PLACE] REFERENCE")
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
    named: tuple[tuple[Location, bool], ...],
    all_tags: bool,
    referrers: bool,
    foreign: bool,
    platforms: tuple[Platform, ...],
    jobs: int,
    quiet: bool,
    progress: str,
) -> None:
    """Send an image to a registry: one of this machine's, or what PLACE holds.

    PLACE is a file or a layout, or an image of this machine by its other name or its id; a registry's, if none is, or
    after docker://.

    Of an index of this machine all images are sent; where only one of them was pulled, that one alone, with a warning.
    Prints the reference by digest.

    \b
    Examples:
      argosy push registry.example/app:v1
      argosy push alpine.tar registry.example/alpine:3.20
      argosy push alpine:3.20 registry.example/alpine:3.20
    """
    if len(named) > 2:
        raise UsageError("expected a reference, or a place and a reference")
    (place, may_be_here), (target, _) = named[0], named[-1]
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
        found = _here(place) if may_be_here else None
        here = local_name(target) if len(named) == 1 else found
        if here is None:
            with places.source(place, ahead=True) as source:
                chosen = locate.choose(source, place)
                digest = copy(
                    source, chosen, given, *_tags(target), on_event=on_event, **options
                ).digest
            print(f"{target.reference.repository}@{digest}")
            return
        images = engine.images()
        prefix = f"{target.reference.repository}:"
        names = [t for t in images.store.tags() if t.startswith(prefix)] if all_tags else [here]
        for name in names:
            tags = (name[len(prefix) :],) if all_tags else _tags(target)
            chosen = name if platforms else _whole(images, name)
            digest = copy(images.store, chosen, given, *tags, on_event=on_event, **options).digest
            print(f"{target.reference.repository}@{digest}")


_shown = progress.shown


def _here(place: Location) -> str | None:
    """The name of an image of this machine, if a place is that, or the first digits of its id."""
    if place.reference is not None:
        with contextlib.suppress(
            ManifestUnknownError, StorageError
        ):  # it may have no room for images
            return engine.images().finder()(str(place))[0]
    return None


def _whole(images: LocalImages, name: str) -> Digest:
    """What of a name is here, which may be less than it was where it came from."""
    found = images.whole(name)
    if images.store.resolve(name).digest != found.digest:
        image = f"the image for {found.platform}" if found.platform else "one image"
        warn(f"only {image} of {name} is here: it is pushed alone, without its index")
    return found.digest


def _tags(target: Location) -> tuple[str, ...]:
    tag = target.own_tag or (None if target.digest else "latest")
    return (tag,) if tag else ()
