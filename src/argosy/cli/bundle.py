"""`argosy repack` and `argosy bundle diff|validate`: from a bundle to an image, and what is in between."""

from __future__ import annotations

import stat

import click

from argosy.bundle.bundle import Bundle
from argosy.bundle.repack import base_of, differences, refresh
from argosy.bundle.repack import repack as repacked
from argosy.bundle.unpack import image_config
from argosy.bundle.validate import problems
from argosy.cli import failure, making, places
from argosy.cli.failure import printable
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.compressor import check_level
from argosy.layer.diff import Change
from argosy.locate import Location
from argosy.spec.platform import Platform

_bundle = click.argument("directory", metavar="BUNDLE")
_masks = click.option(
    "--mask-path", "masks", multiple=True, metavar="PATH", help="Leave changes below PATH out."
)


@click.command()
@place_argument
@_bundle
@_masks
@click.option("--no-mask-volumes", is_flag=True, help="Take changes in the image's volumes too.")
@click.option("--refresh-bundle", is_flag=True, help="Compare BUNDLE with the new image from now.")
@making.compress_option
@making.level_option
@making.history_options
@making.destination_options
def repack(
    place: Location,
    directory: str,
    masks: tuple[str, ...],
    no_mask_volumes: bool,
    refresh_bundle: bool,
    compress: Compression | None,
    level: int | None,
    history: dict[str, str],
    destination: making.Destination,
) -> None:
    """Make an image of a bundle: what changed since `argosy unpack` becomes one more layer.

    PLACE holds the image the bundle was unpacked from; its tag, or -t, is what the new image gets. Where nothing
    changed the image stays as it is.

    \b
    Example:
      argosy unpack oci:images:app bundle; touch bundle/rootfs/x; argosy repack oci:images:app bundle -t v2
    """
    check_level(compress or Compression.GZIP, level)
    bundle = Bundle.open(directory)
    with (
        making.claimed(place, destination) as itself,
        places.source(place, itself=itself) as source,
    ):
        base = base_of(bundle, source)
        making.check(base, place, destination)
        image = repacked(
            bundle,
            base,
            history=making.step(history, "argosy repack", timed=True),
            compression=compress or Compression.GZIP,
            level=level,
            masks=masks,
            mask_volumes=not no_mask_volumes,
            epoch=making.epoch(),
            warn=failure.warn,
        )
        making.put(image, place, destination)
        if refresh_bundle:
            refresh(bundle, Image(source=source, descriptor=image.descriptor))


@click.command()
@_bundle
@_masks
@json_option
def diff(directory: str, masks: tuple[str, ...], as_json: bool) -> None:
    """Show what changed in a bundle since it was unpacked: A added, M modified, D deleted.

    \b
    Example:
      argosy bundle diff bundle --mask-path /tmp
    """
    found = differences(Bundle.open(directory), masks=masks, warn=failure.warn)
    if as_json:
        document([_plain(change) for change in found])
        return
    for change in found:
        print(f"{change.kind.value[0].upper()} /{printable(change.path.decode(errors='replace'))}")


def _plain(change: Change) -> dict[str, object]:
    inode = change.inode
    return {
        "path": "/" + change.path.decode(errors="replace"),
        "kind": change.kind.value,
        "size": inode.size if inode and stat.S_ISREG(inode.mode) else None,
        "mode": f"{stat.S_IMODE(inode.mode):04o}" if inode else None,
    }


@click.command()
@_bundle
def validate(directory: str) -> int:
    """Check that a bundle is whole and that a runtime can read it. Exits with 1 where it cannot.

    \b
    Example:
      argosy bundle validate bundle
    """
    found = list(problems(directory))
    for problem in found:
        print(printable(problem))
    return 1 if found else 0


@click.command()
@place_argument
@platform_option
@click.option(
    "--rootfs",
    metavar="DIRECTORY",
    help="Look users up in this root file system instead of the image.",
)
@click.option(
    "--trust-labels", is_flag=True, help="Keep labels that tell a runtime what to do on the host."
)
def config(
    place: Location, platform: Platform | None, rootfs: str | None, trust_labels: bool
) -> None:
    """Print the runtime configuration an image stands for, without unpacking it.

    \b
    Example:
      argosy bundle config alpine:3.20 > config.json
    """
    with making.one_image(place, platform) as image:
        document(image_config(image, rootfs=rootfs, trust_labels=trust_labels))
