"""`argosy history`: how an image came to be."""

from __future__ import annotations

import dataclasses
import re

import click

from argosy.cli import making
from argosy.cli.failure import printable
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document, size, table
from argosy.image.history import as_dockerfile, steps
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
@click.option("--dockerfile", is_flag=True, help="As the Dockerfile it may have come from.")
@click.option("--no-trunc", is_flag=True, help="Whole lines and digests.")
@json_option
def command(
    place: Location, platform: Platform | None, dockerfile: bool, no_trunc: bool, as_json: bool
) -> None:
    """Show the steps that made an image, the oldest first, with the size of each layer as it is stored.

    \b
    Examples:
      argosy history alpine:3.20
      argosy history oci:images:app --dockerfile
    """
    with making.one_image(place, platform) as image:
        if dockerfile:
            for line in as_dockerfile(image):
                print("\n".join(printable(part) for part in line.split("\n")))
            return
        found = steps(image)
        if as_json:
            document([dataclasses.asdict(step) for step in found])
            return
        rows = [
            (
                re.sub(r"\.[0-9]+", "", step.created or ""),
                _digest(step.layer, no_trunc),
                size(step.size) if step.layer else "",
                _cut(step.instruction, no_trunc),
            )
            for step in found
        ]
        table(rows, ("CREATED", "LAYER", "SIZE", "CREATED BY"))


def _digest(digest: str | None, whole: bool) -> str:
    if digest is None:
        return ""
    return digest if whole else digest.partition(":")[2][:12]


def _cut(text: str, whole: bool) -> str:
    text = printable(text)
    return text if whole or len(text) <= 72 else text[:71] + "…"
