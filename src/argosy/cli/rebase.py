"""`argosy rebase` and `argosy check-base`: another base below an image."""

from __future__ import annotations

import contextlib
import functools
from typing import TypeVar

import click

from argosy import locate
from argosy.cli import making, places
from argosy.cli.options import PLACE, place_argument, platform_option
from argosy.cli.output import document
from argosy.content import graph
from argosy.errors import UsageError
from argosy.image.derive import is_based_on, rebase
from argosy.image.view import Image
from argosy.locate import Location
from argosy.spec.annotations import BASE_DIGEST, BASE_NAME
from argosy.spec.platform import Platform

T = TypeVar("T")


@click.command()
@place_argument
@click.option("--old_base", "--old-base", "old", type=PLACE, help="What it was made from.")
@click.option("--new_base", "--new-base", "new", type=PLACE, help="What it shall stand on.")
@platform_option
@making.destination_options
def command(
    place: Location,
    old: Location | None,
    new: Location | None,
    platform: Platform | None,
    destination: making.Destination,
) -> None:
    """Put another base below an image, without building it again.

    Bases that are not given are taken from the annotations `org.opencontainers.image.base.name` and `base.digest`. Of
    an index without --platform, every image is rebased, each on the base for its platform.

    \b
    Example:
      argosy rebase registry.example/app:v1 --old_base alpine:3.19 --new_base alpine:3.20 -t registry.example/app:v1
    """
    with contextlib.ExitStack() as stack:
        opened = functools.cache(lambda base: stack.enter_context(places.source(base, ahead=True)))

        def based(base: Location, image: Image) -> Image:
            source = opened(base)
            desc = source.resolve(locate.choose(source, base))
            return Image(source=source, descriptor=graph.select(source, desc, image.platform))

        def change(image: Image) -> Image:
            named, digest = _named(image)
            above = new or _known(named, "--new_base", BASE_NAME)
            below = old or _known(named, "--old_base", BASE_NAME).at(
                _known(digest, "--old_base", BASE_DIGEST)
            )
            name = str(above.reference.with_tag(above.reference.tag)) if above.reference else None
            return rebase(image, based(below, image), based(above, image), new_name=name)

        view = stack.enter_context(making.opened(place, platform, destination))
        making.put(making.changed(view, change), place, destination)


def _known(value: T | None, option: str, annotation: str) -> T:
    if value is None:
        raise UsageError(f"{option} is needed: the image has no annotation {annotation}")
    return value


def _named(image: Image) -> tuple[Location | None, str | None]:
    notes = image.manifest.annotations
    name = notes.get(BASE_NAME)
    # The annotation is a stranger's: it may name a registry, never a file of this machine.
    parsed = Location.parse(f"docker://{name}") if name else None
    return parsed, notes.get(BASE_DIGEST)


@click.command()
@place_argument
@click.option("--base", type=PLACE, help="The base; by the annotations if absent.")
@click.option("-q", "--quiet", is_flag=True, help="Say it by the exit code alone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
@platform_option
def check(
    place: Location, base: Location | None, quiet: bool, as_json: bool, platform: Platform | None
) -> int:
    """Look whether an image stands on its base as it is now. Exits with 1 where the base has changed.

    \b
    Example:
      argosy check-base registry.example/app:v1
    """
    with making.one_image(place, platform) as image:
        named, digest = _named(image)
        where = base or _known(named, "--base", BASE_NAME)
        with making.one_image(where, image.platform) as below:
            current = is_based_on(image, below)
            said = {
                "image": str(image.digest),
                "base": str(where),
                "expected": digest,
                "actual": str(below.digest),
                "current": current,
            }
    if as_json:
        document(said)
    elif not quiet:
        print(f"{where} {'has not changed' if current else 'has changed'}: {said['actual']}")
    return 0 if current else 1
