"""`argosy convert`, `argosy recompress` and `argosy reproducible`: the same image in another form."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from argosy.cli import making
from argosy.cli.options import FORMATS, place_argument, platform_option
from argosy.errors import UsageError
from argosy.image.configure import seconds_of
from argosy.image.convert import recompress as recompressed
from argosy.image.convert import retyped
from argosy.image.reproducible import reproducible as made_reproducible
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.compressor import check_level
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.option(
    "--format",
    "kind",
    type=click.Choice(list(FORMATS)),
    default="oci",
    show_default=True,
    help="Whose media types.",
)
@platform_option
@making.destination_options
def command(
    place: Location, kind: str, platform: Platform | None, destination: making.Destination
) -> None:
    """Give an image Docker's or OCI's media types. Configuration and layers keep their bytes, the digest changes.

    \b
    Example:
      argosy convert docker-archive:app.tar --format oci -t oci:images:app
    """
    with making.opened(place, platform, destination) as view:
        _written(view, retyped(view, docker=FORMATS[kind]), place, destination)


@click.command()
@place_argument
@click.option(
    "--compress",
    "--compression",
    "compression",
    type=making.COMPRESSION,
    required=True,
    metavar="[gzip|zstd|none]",
    help="How the layers shall be compressed.",
)
@click.option("--force", is_flag=True, help="Compress anew what is of this kind already.")
@making.level_option
@platform_option
@making.destination_options
def recompress(
    place: Location,
    compression: Compression | None,
    force: bool,
    level: int | None,
    platform: Platform | None,
    destination: making.Destination,
) -> None:
    """Compress an image's layers in another way. The image id stays, the digest changes. An artifact stays as it is.

    \b
    Example:
      argosy recompress oci:images:app --compress zstd -t app-zstd
    """
    if compression is None:
        raise UsageError("--compress: expected gzip, zstd or none")
    kind = compression
    check_level(kind, level)

    def change(image: Image) -> Image:
        return recompressed(image, kind, level=level, force=force)

    _changed(place, platform, destination, change)


@click.command()
@place_argument
@click.option("--time", "when", metavar="TIME", help="The latest time; by SOURCE_DATE_EPOCH.")
@platform_option
@making.destination_options
def reproducible(
    place: Location, when: str | None, platform: Platform | None, destination: making.Destination
) -> None:
    """Write an image's layers anew without what differs from build to build: later times, order, names of owners.

    No time in it is after --time, or SOURCE_DATE_EPOCH, or 1970 where neither is given.

    \b
    Example:
      SOURCE_DATE_EPOCH=1700000000 argosy reproducible oci:images:app
    """
    epoch = int(seconds_of(making.time(when))) if when else making.epoch() or 0
    _changed(place, platform, destination, lambda image: made_reproducible(image, epoch))


def _changed(
    place: Location,
    platform: Platform | None,
    destination: making.Destination,
    change: Callable[[Image], Image],
) -> None:
    with making.opened(place, platform, destination) as view:
        _written(view, making.changed(view, change), place, destination)


def _written(
    old: making.View, new: making.View, place: Location, destination: making.Destination
) -> None:
    """Put the new image where it goes, and say that its digest is another one."""
    making.put(new, place, destination)
    if old.digest != new.digest and not destination.quiet:
        print(f"argosy: the digest was {old.digest}, it is {new.digest} now", file=sys.stderr)
