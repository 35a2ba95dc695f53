"""`argosy unpack`: an image as a runtime bundle, or its root file system alone."""

from __future__ import annotations

import sys

import click

from argosy.bundle.convert import unsafe_labels
from argosy.bundle.unpack import unpack, unpack_rootfs
from argosy.cli import making
from argosy.cli.failure import warn
from argosy.cli.options import place_argument, platform_option
from argosy.cli.unpacking import max_ratio_option
from argosy.errors import UsageError
from argosy.layer.entry import Limits
from argosy.layer.idmap import IdMap
from argosy.layer.options import Options
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.argument("directory", metavar="BUNDLE")
@platform_option
@click.option("--rootfs-only", is_flag=True, help="Only the root file system, into BUNDLE itself.")
@click.option("--rootless", is_flag=True, help="Without root's powers; owners are recorded.")
@click.option(
    "--uid-map",
    "uids",
    multiple=True,
    metavar="CONTAINER:HOST[:SIZE]",
    help="Give files of these users to those of the host, and the bundle a user namespace; repeatable.",
)
@click.option(
    "--gid-map",
    "gids",
    multiple=True,
    metavar="CONTAINER:HOST[:SIZE]",
    help="The same of groups; repeatable.",
)
@click.option("--keep-dirlinks", is_flag=True, help="A link to a directory stays a link.")
@click.option("--digests", is_flag=True, help="Hash all files, so that BUNDLE may be moved.")
@click.option("--for-umoci", is_flag=True, help="Also what `umoci repack` needs.")
@click.option(
    "--trust-labels", is_flag=True, help="Keep labels that tell a runtime what to do on the host."
)
@max_ratio_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def command(
    place: Location,
    directory: str,
    platform: Platform | None,
    rootfs_only: bool,
    rootless: bool,
    uids: tuple[str, ...],
    gids: tuple[str, ...],
    keep_dirlinks: bool,
    digests: bool,
    for_umoci: bool,
    trust_labels: bool,
    max_ratio: int,
    quiet: bool,
) -> None:
    """Make a runtime bundle of an image: rootfs, config.json, and what `argosy repack` needs.

    What fails leaves nothing behind.

    \b
    Examples:
      argosy unpack alpine:3.20 bundle && argosy-runtime run -b bundle name
      argosy unpack --rootfs-only oci:images:app rootfs
    """
    if rootless and (uids or gids):
        raise UsageError("--rootless and id maps exclude each other")
    options = Options(
        uids=IdMap.parse(*uids),
        gids=IdMap.parse(*gids),
        rootless=rootless,
        keep_dirlinks=keep_dirlinks,
        limits=Limits(ratio=max_ratio),
        warn=warn,
    )
    with making.one_image(place, platform) as image:

        def tell(position: int, count: int) -> None:
            if not quiet:
                print(f"layer {position + 1} of {count}", file=sys.stderr)

        if rootfs_only:
            unpack_rootfs(image, directory, options, on_layer=tell)
            return
        unpack(
            image,
            directory,
            options,
            digests=digests,
            for_umoci=for_umoci,
            trust_labels=trust_labels,
            on_layer=tell,
        )
        left_out = () if trust_labels else unsafe_labels(image.config.execution.labels)
    for label in left_out:
        warn(f"label {label} was left out: a runtime would act on it; see --trust-labels")
