"""`argosy config`: an image's configuration, byte for byte."""

from __future__ import annotations

import click

from argosy.cli import places
from argosy.cli.options import place_argument, platform_option
from argosy.cli.output import raw
from argosy.content import graph
from argosy.locate import Location
from argosy.spec.imageconfig import MAX_SIZE
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
def command(place: Location, platform: Platform | None) -> None:
    """Print an image's configuration as it is stored: its digest is the image's id.

    \b
    Examples:
      argosy config alpine:3.20 | jq .config.Env
      argosy config oci:images:alpine | sha256sum
    """
    with places.image(place, platform, single=True) as (source, desc):
        raw(graph.read(source, graph.read_image(source, desc).config, limit=MAX_SIZE))
