"""`argosy graph`: an image as a picture."""

from __future__ import annotations

import dataclasses

import click

from argosy.cli import places
from argosy.cli.failure import printable
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document
from argosy.image.drawing import RENDERERS, Drawing, draw
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
@click.option(
    "-f",
    "--format",
    "form",
    type=click.Choice(list(RENDERERS)),
    default="tree",
    show_default=True,
    help="The form of the picture.",
)
@click.option("--no-referrers", is_flag=True, help="Do not ask what refers to it.")
@json_option
def command(
    place: Location, platform: Platform | None, form: str, no_referrers: bool, as_json: bool
) -> None:
    """Draw what an image is made of: index, manifests, configs, layers, and what refers to them.

    \b
    Examples:
      argosy graph oci:images:alpine
      argosy graph -f svg alpine:3.20 > alpine.svg
      argosy graph -f dot alpine:3.20 | dot -Tpng > alpine.png
    """
    with places.image(place, platform) as (source, desc):
        drawing = draw(
            source, desc, str(place), referrers=not no_referrers, jobs=places.jobs(place)
        )
    if as_json:
        document(_plain(drawing))
    else:
        print(RENDERERS[form](_printable(drawing)), end="")


def _printable(drawing: Drawing) -> Drawing:
    """The same picture with labels that are safe for a terminal, and for XML."""
    vertices = {
        digest: dataclasses.replace(vertex, lines=tuple(map(printable, vertex.lines)))
        for digest, vertex in drawing.vertices.items()
    }
    return dataclasses.replace(drawing, title=printable(drawing.title), vertices=vertices)


def _plain(drawing: Drawing) -> dict[str, object]:
    return {
        "root": drawing.root,
        "vertices": [{"kind": v.kind, **v.descriptor.encode()} for v in drawing.vertices.values()],
        "edges": [{"from": e.tail, "to": e.head, "label": e.label} for e in drawing.edges],
    }
