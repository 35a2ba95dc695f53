"""`argosy tag`: more tags for an image."""

from __future__ import annotations

import click

from argosy import locate
from argosy.cli import places
from argosy.cli.options import place_argument
from argosy.locate import Location


@click.command()
@place_argument
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
def command(place: Location, tags: tuple[str, ...]) -> None:
    """Give an image more tags in the place where it is. No blob moves.

    \b
    Examples:
      argosy tag oci:images:v1.2.3 v1.2 v1 latest
      argosy tag docker-archive:app.tar:app:v1 v2 other:v1
      argosy tag registry.example/app@sha256:44136fa3… stable
    """
    places.check_tags(place)
    with places.target(place, ahead=True) as target:
        chosen = locate.choose(target, place)
        wanted = [places.tag_in(place.at(chosen), tag) for tag in tags]
        desc = target.resolve(chosen)
        for tag in wanted:
            target.tag(desc, tag)
