"""`argosy source build|add|ls|unpack`: the sources an image was made from, as an image."""

from __future__ import annotations

import os

import click

from argosy.bundle.unpack import unpack_rootfs
from argosy.cli import connections, making
from argosy.cli.options import FILE, json_option, made_platform_option, place_argument
from argosy.cli.output import document, size, table
from argosy.content.memory import MemoryStore
from argosy.errors import UsageError
from argosy.image import source as sources
from argosy.layer.options import Options
from argosy.locate import Location
from argosy.spec.platform import Platform

_rpms = click.option(
    "-s", "--srpms", "rpms", metavar="DIRECTORY", help="A directory of source packages (*.src.rpm)."
)
_context = click.option(
    "-c", "--context", metavar="DIRECTORY", help="A directory that was a build context."
)
_extra = click.option(
    "-e",
    "--extra",
    multiple=True,
    metavar="DIRECTORY",
    help="A directory of other sources; repeatable.",
)


@connections.wanted
@click.command()
@_rpms
@_context
@_extra
@made_platform_option
@making.destination_options
def build(
    rpms: str | None,
    context: str | None,
    extra: tuple[str, ...],
    platform: Platform | None,
    destination: making.Destination,
) -> None:
    """Make a source image: one layer a source, with annotations that tell what it is.

    The same sources give the same image. SOURCE_DATE_EPOCH is written as its time where it is set.

    \b
    Example:
      argosy source build -s ./SRPMS -e ./patches -t oci:output:latest-source
    """
    destination.needed()
    found = list(sources.artifacts(rpms=rpms, context=context, extra=extra))
    image = sources.build(MemoryStore(), found, platform=platform, epoch=making.epoch())
    making.put(image, None, destination)


@click.command()
@place_argument
@click.argument("files", nargs=-1, type=FILE)
@_rpms
@_context
@_extra
@making.destination_options
def add(
    place: Location,
    files: tuple[str, ...],
    rpms: str | None,
    context: str | None,
    extra: tuple[str, ...],
    destination: making.Destination,
) -> None:
    """Add sources to a source image; those it has already are passed over. Another source of a name it has is refused.

    \b
    Example:
      argosy source add oci:output:latest-source vendor.tar.gz
    """
    if not (files or rpms or context or extra):
        raise UsageError("which sources shall be added?")
    with making.one_image(place, None, destination) as image:
        first = sources.extras(image)
        found = [
            *sources.artifacts(rpms=rpms, context=context, extra=extra, first=first),
            *(_file(path) for path in files),
        ]
        making.put(sources.add(image, found), place, destination)


def _file(path: str) -> sources.Artifact:
    name = os.path.basename(os.path.normpath(path))
    if os.path.isdir(path):
        name += ".tar"
    return sources.Artifact(driver="extra_src_dir", path=path, filename=name)


@click.command()
@place_argument
@json_option
def ls(place: Location, as_json: bool) -> None:
    """List the sources in a source image.

    \b
    Example:
      argosy source ls oci:output:latest-source
    """
    with making.one_image(place) as image:
        found = sources.listed(image)
    if as_json:
        document([{"layer": s.layer, "size": s.size, "annotations": s.annotations} for s in found])
        return
    rows = [
        (
            s.annotations.get("filename", ""),
            s.annotations.get("version", ""),
            s.annotations.get("license", ""),
            size(s.size),
        )
        for s in found
    ]
    table(rows, ("FILE", "VERSION", "LICENSE", "SIZE"))


@click.command()
@place_argument
@click.argument("directory")
def unpack(place: Location, directory: str) -> None:
    """Unpack all sources into a new directory: each under its driver's name, the bytes below blobs/.

    \b
    Example:
      argosy source unpack oci:output:latest-source sources
    """
    with making.one_image(place) as image:
        sources.listed(image)
        unpack_rootfs(image, directory, Options(rootless=os.geteuid() != 0))
