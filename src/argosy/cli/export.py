"""`argosy export`: the files of an image as one tar archive."""

from __future__ import annotations

import sys
from typing import BinaryIO

import click

from argosy.cli import files, making
from argosy.cli.options import place_argument, platform_option
from argosy.errors import UsageError
from argosy.image.contents import Contents, write_flat
from argosy.image.draft import Spool
from argosy.image.view import Image
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.argument("output", default="-", metavar="[FILE]")
@click.option("--path", metavar="PATH", default="", help="Only what is at this path of the image.")
@platform_option
def command(place: Location, output: str, path: str, platform: Platform | None) -> None:
    """Write the files of an image as one uncompressed tar archive, to FILE or stdout. Nothing is unpacked.

    An artifact with one layer is written as that layer is.

    \b
    Examples:
      argosy export alpine:3.20 | tar -t
      argosy export oci:images:app app.tar --path /srv
    """
    if output == "-" and sys.stdout.isatty():
        raise UsageError("an archive is not written to a terminal")
    with making.one_image(place, platform) as image, files.whole(output) as out:
        if not image.is_image and len(image.layers) == 1:
            _raw(image, out)
        else:
            write_flat(Contents(image, spool=Spool() if place.reference else None), out, path)


def _raw(image: Image, out: BinaryIO) -> None:
    with image.layers[0].compressed() as reader:
        while data := reader.read(1 << 20):
            out.write(data)
