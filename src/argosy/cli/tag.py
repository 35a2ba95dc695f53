"""`argosy tag`: more tags for an image."""

from __future__ import annotations

import click

from argosy import locate
from argosy.cli import places
from argosy.cli.options import place_argument
from argosy.locate import Location
from argosy.spec.reference import parse_tag


@click.command()
@place_argument
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
def command(place: Location, tags: tuple[str, ...]) -> None:
    """Give an image more tags in the place where it is. No blob moves.

    \b
    Examples:
      argosy tag oci:images:v1.2.3 v1.2 v1 latest
      argosy tag registry.example/app@sha256:44136fa3… stable
    """
    for tag in tags:
        parse_tag(tag)
    places.check_tags(place)
    with places.target(place) as target:
        desc = target.resolve(locate.choose(target, place))
        for tag in tags:
            target.tag(desc, tag)
