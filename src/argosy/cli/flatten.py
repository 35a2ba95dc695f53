"""`argosy flatten`: an image's layers made into one."""

from __future__ import annotations

import click

from argosy.cli import making
from argosy.cli.options import PLACE, place_argument, platform_option
from argosy.errors import UsageError
from argosy.image.derive import is_based_on, padded_history
from argosy.image.draft import Spool
from argosy.image.flatten import flatten
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.compressor import check_level
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.option(
    "--keep", metavar="N", type=click.IntRange(0), default=0, help="So many lowest layers stay."
)
@click.option("--base", type=PLACE, help="The layers of this base stay.")
@making.compress_option
@making.level_option
@platform_option
@making.history_options
@making.destination_options
def command(
    place: Location,
    keep: int,
    base: Location | None,
    compress: Compression | None,
    level: int | None,
    platform: Platform | None,
    history: dict[str, str],
    destination: making.Destination,
) -> None:
    """Make one layer of an image's layers. What upper layers removed is not in it.

    Of an index without --platform, every image is flattened.

    \b
    Examples:
      argosy flatten registry.example/app:v1 -t registry.example/app:flat
      argosy flatten oci:images:app --base alpine:3.20
    """

    check_level(compress or Compression.GZIP, level)

    def change(image: Image) -> Image:
        above, steps = (keep, 0) if keep else _of_base(base, image)
        return flatten(
            image,
            above=above,
            steps=steps,
            history=making.step(history, f"argosy flatten {image.digest}"),
            compression=compress or Compression.GZIP,
            level=level,
            spool=Spool() if place.reference else None,
        )

    with making.opened(place, platform, destination) as view:
        making.put(making.changed(view, change), place, destination)


def _of_base(base: Location | None, image: Image) -> tuple[int, int]:
    """How many layers and steps of the history are the base's."""
    if base is None:
        return 0, 0
    with making.one_image(base, image.platform) as below:
        if not is_based_on(image, below):
            raise UsageError(f"{image.digest} is not based on {base}")
        return len(below.layers), len(padded_history(below.config))
