"""`argosy digest`: the digest a tag stands for."""

from __future__ import annotations

import click

from argosy.cli import places
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
@click.option(
    "-l",
    "--full",
    "--full-ref",
    "--full-reference",
    is_flag=True,
    help="Print the whole place, by digest.",
)
@json_option
def command(place: Location, platform: Platform | None, full: bool, as_json: bool) -> None:
    """Print the digest a tag stands for.

    \b
    Examples:
      argosy digest alpine:3.20
      argosy digest --platform linux/arm64 oci:images:alpine
    """
    with places.image(place, platform, ahead=platform is not None) as (_, desc):
        if as_json:
            document(desc.encode())
        else:
            print(place.at(desc.digest) if full else desc.digest)
