"""`argosy validate`: everything that can be wrong with an image."""

from __future__ import annotations

import sys

import click

from argosy import locate
from argosy.cli import places
from argosy.cli.failure import EXIT_CODES, printable
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document
from argosy.content import graph
from argosy.errors import IntegrityError
from argosy.image.validate import Known, validate
from argosy.image.view import Image, ImageIndex
from argosy.locate import Location
from argosy.spec.platform import Platform

_WHOLE = "is sound"
_FAST = "is sound as far as it was read: its layers are there, and were not read"


@click.command()
@place_argument
@platform_option
@click.option(
    "--fast", is_flag=True, help="Do not read the layers, only look whether they are there."
)
@click.option("--all-tags", is_flag=True, help="Every image of the place.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@json_option
def command(
    place: Location,
    platform: Platform | None,
    fast: bool,
    all_tags: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Read an image whole and check every digest, size, media type and diff_id, and that history and layers agree.

    Prints one line a mistake and nothing for a sound image. Exits with 4 where there is an error. Layers that are not
    to be distributed are not read. What `cp --sparse` left out is not there: --platform checks what is.

    \b
    Examples:
      argosy validate oci:images:alpine
      argosy validate --all-tags --json oci-archive:images.tar
    """
    found: list[dict[str, object]] = []
    failed = False
    known: Known = {}
    if all_tags:
        places.check_whole(place)
    with places.source(place, ahead=True) as source:
        tags = list(source.tags()) if all_tags else [locate.choose(source, place)]
        for tag in tags:
            desc = source.resolve(tag)
            if platform is not None:
                desc = graph.select(source, desc, platform)
            kind = ImageIndex if desc.is_index() else Image
            wrong = False
            image = kind(source=source, descriptor=desc)
            for finding in validate(image, fast=fast, known=known):
                wrong = True
                failed = failed or strict or not finding.warning
                level = "warning" if finding.warning else "error"
                if as_json:
                    found.append(
                        {"tag": tag, "level": level, "where": finding.where, "rule": finding.rule}
                    )
                else:
                    print(printable(f"{level}: {tag}: {finding}"))
            if not (as_json or wrong):
                print(
                    printable(f"{tag}: {desc.digest} {_FAST if fast else _WHOLE}"), file=sys.stderr
                )
    if as_json:
        document(found)
    return EXIT_CODES[IntegrityError] if failed else 0
