"""`argosy insert`: a file or directory into an image, without unpacking it."""

from __future__ import annotations

import click

from argosy.cli import making
from argosy.cli.failure import warn
from argosy.cli.options import FILE, place_argument, platform_option
from argosy.errors import UsageError
from argosy.image.insert import insert, remove_path
from argosy.image.view import Image
from argosy.image.walk import TreeOptions
from argosy.layer.compression import Compression
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@click.argument("source", type=FILE)
@click.argument("target", required=False)
@click.option("--opaque", is_flag=True, help="Hide what lower layers have in that directory.")
@click.option("--whiteout", is_flag=True, help="Remove a path of the image; SOURCE is that path.")
@click.option("--owner", metavar="UID:GID", help="Whose the files are; their own if absent.")
@click.option("--rootless", is_flag=True, help="The same as --owner 0:0.")
@making.compress_option
@platform_option
@making.history_options
@making.destination_options
def command(
    place: Location,
    source: str,
    target: str | None,
    opaque: bool,
    whiteout: bool,
    owner: str | None,
    rootless: bool,
    compress: Compression | None,
    platform: Platform | None,
    history: dict[str, str],
    destination: making.Destination,
) -> None:
    """Put a file, or a directory and all in it, into an image as a new layer.

    Of an index without --platform, every image gets the layer.

    \b
    Examples:
      argosy insert oci:images:app ./etc /etc
      argosy insert oci:images:app --whiteout /var/cache -t clean
    """
    if whiteout is (target is not None):
        raise UsageError("expected SOURCE TARGET, or --whiteout TARGET alone")
    epoch = making.epoch()
    options = TreeOptions(owner=_owner("0:0" if rootless else owner), epoch=epoch, warn=warn)
    kind = compress or Compression.GZIP

    def change(image: Image) -> Image:
        if whiteout:
            made = making.step(history, f"argosy insert --whiteout {source}", timed=True)
            return remove_path(image, source, history=made, compression=kind)
        made = making.step(history, f"argosy insert {source} {target}", timed=True)
        return insert(
            image,
            source,
            str(target),
            opaque=opaque,
            options=options,
            history=made,
            compression=kind,
        )

    with making.opened(place, platform, destination) as view:
        making.put(making.changed(view, change), place, destination)


def _owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    uid, _, gid = text.partition(":")
    gid = gid or uid
    if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()):
        raise UsageError(f"owner {text[:64]!r}: expected UID:GID in numbers")
    return int(uid), int(gid)
