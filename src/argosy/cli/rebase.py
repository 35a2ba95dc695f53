"""`argosy rebase` and `argosy check-base`: another base below an image."""

from __future__ import annotations

from typing import TypeVar

import click

from argosy.cli import making
from argosy.cli.options import PLACE, place_argument, platform_option
from argosy.cli.output import document
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

    Bases that are not given are taken from the annotations `org.opencontainers.image.base.name` and `base.digest`.

    \b
    Example:
      argosy rebase registry.example/app:v1 --old_base alpine:3.19 --new_base alpine:3.20 -t registry.example/app:v1
    """
    with making.one_image(place, platform) as image:
        named, digest = _named(image)
        if new is None:
            new = _known(named, "--new_base", BASE_NAME)
        if old is None:
            old = _known(named, "--old_base", BASE_NAME).at(
                _known(digest, "--old_base", BASE_DIGEST)
            )
        wanted = image.platform
        with making.one_image(old, wanted) as below, making.one_image(new, wanted) as above:
            name = str(new.reference.with_tag(new.reference.tag)) if new.reference else None
            made = rebase(image, below, above, new_name=name)
            making.put(made, place, destination)


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
