"""`argosy append`: more layers on an image."""

from __future__ import annotations

import contextlib

import click

from argosy.cli import connections, files, making
from argosy.cli.options import FILE, PLACE, platform_option
from argosy.content.memory import MemoryStore
from argosy.image.derive import add_layers, based_on, new_layer
from argosy.image.draft import NewLayer
from argosy.image.new import scratch
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.compressor import check_level
from argosy.locate import Location
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform


@connections.two_ended
@click.command()
@click.option("-b", "--base", type=PLACE, metavar="PLACE", help="The image below; none if absent.")
@click.option(
    "-f",
    "--new_layer",
    "layers",
    multiple=True,
    required=True,
    type=FILE,
    metavar="FILE",
    help="A tar archive, compressed or not; - is stdin; repeatable.",
)
@click.option(
    "--oci-empty-base",
    is_flag=True,
    expose_value=False,
    help="Without --base: OCI media types, which is the default.",
)
@click.option("--docker-empty-base", is_flag=True, help="Without --base: Docker's media types.")
@click.option(
    "--set-base-image-annotations", "annotate", is_flag=True, help="Note the base in annotations."
)
@making.compress_option
@making.level_option
@platform_option
@making.history_options
@making.destination_options
def command(
    base: Location | None,
    layers: tuple[str, ...],
    docker_empty_base: bool,
    annotate: bool,
    compress: Compression | None,
    level: int | None,
    platform: Platform | None,
    history: dict[str, str],
    destination: making.Destination,
) -> None:
    """Put tar archives on an image as its new uppermost layers.

    A compressed archive stays as it is, but for NUL bytes behind it, unless --compress says otherwise; a plain one
    becomes gzip. The base is not changed: say with -t or -o where the new image goes. Of an index it is one image, for
    --platform or this machine's.

    \b
    Examples:
      argosy append -b alpine:3.20 -f files.tar -t registry.example/app:v1
      tar -c app | argosy append -f - -t oci:images:app
    """
    check_level(compress or Compression.GZIP, level)
    destination.needed()
    files.check_readable(layers)
    with contextlib.ExitStack() as stack:
        if base is None:
            image = scratch(MemoryStore(), platform, docker=docker_empty_base)
        else:
            image = below = stack.enter_context(making.one_image(base, platform, destination))
        new: list[tuple[NewLayer, History]] = []
        for path in layers:
            with files.opened(path) as file, files.blamed(path):
                image, layer = new_layer(image, file, compress, level=level)
            new.append((layer, making.step(history, f"argosy append -f {path}")))
        image = add_layers(image, *new)
        if annotate and base is not None:
            image = _noted(image, below, base)
        making.put(image, base, destination)


def _noted(image: Image, below: Image, base: Location) -> Image:
    name = str(base.reference.with_tag(base.reference.tag)) if base.reference else None
    return based_on(image, name, below.digest)
