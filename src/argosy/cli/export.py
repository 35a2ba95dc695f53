"""`argosy export`: the files of an image as one tar archive."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from argosy.cli import making
from argosy.cli.options import place_argument, platform_option
from argosy.errors import UsageError
from argosy.image.contents import Contents, write_flat
from argosy.image.view import Image
from argosy.layout.durable import replacing
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.argument("output", default="-", metavar="[FILE]")
@click.option("--path", default="", help="Only what is at this path of the image.")
@platform_option
def command(place: Location, output: str, path: str, platform: Platform | None) -> None:
    """Write the files of an image as one uncompressed tar archive, to FILE or stdout. Nothing is unpacked.

    An artifact with one layer is written as that layer is.

    \b
    Examples:
      argosy export alpine:3.20 | tar -t
      argosy export oci:images:app app.tar --path /srv
    """
    with making.one_image(place, platform) as image, _opened(output) as out:
        if not image.is_image and len(image.layers) == 1:
            _raw(image, out)
        else:
            write_flat(Contents(image, keep=place.reference is not None), out, path)


def _raw(image: Image, out: BinaryIO) -> None:
    with image.layers[0].compressed() as reader:
        while data := reader.read(1 << 20):
            out.write(data)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Where an archive is written: stdout, or a file that appears whole or not at all."""
    if path == "-":
        if sys.stdout.isatty():
            raise UsageError("an archive is not written to a terminal")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with replacing(path) as file:
        yield file
