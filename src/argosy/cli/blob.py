"""`argosy blob …`: blobs as they are."""

from __future__ import annotations

import sys
import tempfile

import click

from argosy.cli import files, places
from argosy.cli.options import FILE, place_argument
from argosy.cli.output import document
from argosy.content.protocols import Deleter, Source, Target
from argosy.content.verify import CHUNK
from argosy.errors import BlobUnknownError, DigestMismatchError, UnsupportedError, UsageError
from argosy.layout import gc as collecting
from argosy.layout.target import LayoutTarget
from argosy.layout.view import LayoutSource
from argosy.locate import Location
from argosy.remote.repository import Repository
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import ALGORITHMS, Digest, hasher
from argosy.spec.mediatypes import OCTET_STREAM

_IN_MEMORY = 8 * 1024 * 1024


def _described(source: Source, place: Location, size: int | None, media_type: str) -> Descriptor:
    if not isinstance(place.tag, Digest):
        raise UsageError(
            f"{place}: name the blob by its digest, as in {place.path or 'name'}@sha256:…"
        )
    if size is None:
        size = _find(source, place.tag)
    if size is None:
        raise BlobUnknownError(f"{place}: no such blob")
    return Descriptor(media_type=media_type, digest=place.tag, size=size)


def _find(source: Source, digest: Digest) -> int | None:
    """The size of a blob of which only the digest is known."""
    if isinstance(source, Repository):
        return source.blob(digest).size
    if isinstance(source, LayoutSource):
        return source.content.find(digest)
    raise UsageError(f"{source}: give the blob's --size")


_size = click.option(
    "--size", metavar="BYTES", type=click.IntRange(0), help="Its size in bytes, where it is known."
)


_media_type = click.option(
    "--media-type",
    metavar="TYPE",
    default=OCTET_STREAM,
    show_default=True,
    help="What to say it is.",
)


@click.command()
@place_argument
@_size
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    default="-",
    metavar="FILE",
    help="A file instead of stdout.",
)
def get(place: Location, size: int | None, output: str) -> None:
    """Print a blob, verified.

    What reaches stdout before an error is not verified: mind the exit code. A file is written whole or not at all.

    \b
    Example:
      argosy blob get alpine@sha256:44136fa3… | tar tz
    """
    with places.source(place) as source:
        desc = _described(source, place, size, OCTET_STREAM)
        with source.fetch(desc) as reader, files.whole(output) as out:
            while data := reader.read(CHUNK):
                out.write(data)


@click.command()
@place_argument
@_media_type
def head(place: Location, media_type: str) -> None:
    """Print a blob's descriptor as JSON; fails if it is not there.

    \b
    Example:
      argosy blob head alpine@sha256:44136fa3…
    """
    with places.source(place) as source:
        document(_described(source, place, None, media_type).encode())


@click.command()
@place_argument
@click.argument("file", type=FILE, default="-")
@click.option(
    "--algorithm",
    type=click.Choice(list(ALGORITHMS)),
    default="sha256",
    show_default=True,
    help="The digest's algorithm.",
)
@_media_type
@click.option("--descriptor", is_flag=True, help="Print the descriptor instead of the digest.")
def put(place: Location, file: str, algorithm: str, media_type: str, descriptor: bool) -> None:
    """Store a blob from a file or stdin, and print its digest. Not in an archive: it keeps what its images need alone.

    \b
    Examples:
      argosy blob put registry.example/app layer.tar.gz
      argosy blob put registry.example/app@sha256:44136fa3… < config.json
    """
    if place.transport in places.ARCHIVES:
        raise UnsupportedError(
            f"{place}: an archive would not keep a blob that no image needs",
            hint="put it into an oci: directory, and copy the image from there",
        )
    with files.opened(file) as given, tempfile.SpooledTemporaryFile(_IN_MEMORY) as held:
        made, size = hasher(algorithm), 0
        while data := given.read(CHUNK):
            made.update(data)
            size += len(data)
            held.write(data)
        desc = Descriptor(media_type=media_type, digest=Digest.done(algorithm, made), size=size)
        if isinstance(place.tag, Digest) and place.tag != desc.digest:
            raise DigestMismatchError("blob", expected=place.tag, actual=desc.digest)
        held.seek(0)
        with places.target(place) as target:
            target.push(desc, held)
    if descriptor:
        document(desc.encode())
    else:
        print(desc.digest)


@click.command()
@place_argument
def rm(place: Location) -> None:
    """Remove a blob. In a layout or an archive, one that no manifest needs: `argosy layout gc` removes all of those.

    \b
    Example:
      argosy blob rm registry.example/app@sha256:44136fa3…
    """
    with places.target(place) as target:
        if not isinstance(target, Deleter):
            raise UnsupportedError(f"{place.transport}: nothing can be removed there")
        target.delete(_unneeded(target, place))
    print(f"removed {place.tag}", file=sys.stderr)


def _unneeded(target: Target, place: Location) -> Descriptor:
    """A blob to remove. A registry knows itself what its manifests need; in a layout it is looked up."""
    if not isinstance(target, LayoutTarget):
        return _described(target, place, 0, OCTET_STREAM)
    desc = _described(target, place, None, OCTET_STREAM)
    if desc.digest in collecting.needed(target):
        raise UnsupportedError(
            f"{desc.digest} is part of what {target} holds, and stays",
            hint="remove the image with `argosy rm`, then `argosy layout gc` removes what only that needed",
        )
    return desc
