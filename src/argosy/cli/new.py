"""`argosy new`: an image with nothing in it."""

from __future__ import annotations

import click

from argosy.cli import making
from argosy.cli.options import PLACE, made_platform_option, utf8
from argosy.cli.progress import progress_option
from argosy.content.memory import MemoryStore
from argosy.image.new import scratch
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@click.argument("place", type=PLACE, metavar="PLACE")
@made_platform_option
@click.option("--created", metavar="TIME", help="RFC 3339, or seconds since 1970.")
@click.option("--author", metavar="TEXT", default="", help="Who makes it.")
@click.option("--docker", is_flag=True, help="Docker's media types instead of OCI's.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@progress_option
def command(
    place: Location,
    platform: Platform | None,
    created: str | None,
    author: str,
    docker: bool,
    quiet: bool,
    progress: str,
) -> None:
    """Make an image without layers.

    \b
    Example:
      argosy new oci:images:empty --platform linux/arm64
    """
    epoch = making.epoch()
    when = created or (str(epoch) if epoch is not None else None)
    image = scratch(
        MemoryStore(),
        platform,
        created=making.time(when) if when else None,
        author=utf8(author),
        docker=docker,
    )
    making.put(image, None, making.Destination(tag=str(place), quiet=quiet, style=progress))
