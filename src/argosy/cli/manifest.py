"""`argosy manifest …`: manifests as they are."""

from __future__ import annotations

import io
import sys

import click

from argosy import locate
from argosy.cli import files, places
from argosy.cli.options import FILE, place_argument, platform_option
from argosy.cli.output import document, raw
from argosy.cli.rm import check_unlisted
from argosy.content import graph
from argosy.content.protocols import Deleter
from argosy.errors import DigestMismatchError, UnsupportedError
from argosy.locate import Location
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import MAX_SIZE, decode_manifest
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
def get(place: Location, platform: Platform | None) -> None:
    """Print a manifest or index, byte for byte.

    \b
    Examples:
      argosy manifest get alpine:3.20 | jq .
      argosy manifest get oci:images:alpine | sha256sum
    """
    with places.image(place, platform) as (source, desc):
        raw(graph.read(source, desc))


@click.command()
@place_argument
@platform_option
def head(place: Location, platform: Platform | None) -> None:
    """Print a manifest's descriptor as JSON: media type, digest, size.

    \b
    Example:
      argosy manifest head alpine:3.20
    """
    with places.image(place, platform, ahead=platform is not None) as (_, desc):
        document(desc.encode())


@click.command()
@place_argument
@click.argument("file", type=FILE, default="-")
@click.option(
    "--media-type", metavar="TYPE", help="Its media type, where it does not say so itself."
)
def put(place: Location, file: str, media_type: str | None) -> None:
    """Store a manifest from a file (or stdin) as it is, and print its digest.

    PLACE names the tag, the digest the manifest must have, or both.

    \b
    Example:
      argosy manifest get oci:a:v1 | sed s/old/new/ | argosy manifest put oci:a:v2
    """
    with files.opened(file) as given:
        data = given.read(MAX_SIZE + 1)
    with files.blamed(file):
        manifest = decode_manifest(data, media_type)
    wanted = place.digest
    tag = locate.new_tag(place) or (None if wanted else "latest")
    desc = Descriptor.of(
        manifest.media_type, data, algorithm=wanted.algorithm if wanted else "sha256"
    )
    if wanted is not None and wanted != desc.digest:
        raise DigestMismatchError("manifest", expected=wanted, actual=desc.digest)
    with places.target(place) as target:
        target.push(desc, io.BytesIO(data), tags=(tag,) if tag else ())
    print(desc.digest, file=places.beside(place))


@click.command()
@place_argument
def rm(place: Location) -> None:
    """Remove a manifest, and with it every tag that points to it.

    `argosy rm` removes one tag and leaves its siblings. Of a layout or an archive none is removed that an index lists.

    \b
    Example:
      argosy manifest rm oci:images@sha256:44136fa3…
    """
    with places.target(place, ahead=True) as target:
        if not isinstance(target, Deleter):
            raise UnsupportedError(f"{place.transport}: nothing can be removed there")
        desc = target.resolve(locate.choose(target, place))
        check_unlisted(target, [desc])
        target.delete(desc)
    print(f"removed {desc.digest}", file=sys.stderr)
