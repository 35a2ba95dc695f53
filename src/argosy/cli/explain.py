"""`argosy explain`: why an image is what it says."""

from __future__ import annotations

import click

from argosy import locate
from argosy.cli import places
from argosy.cli.failure import EXIT_CODES
from argosy.cli.options import json_option, place_argument, platform_option
from argosy.cli.output import document
from argosy.errors import IntegrityError
from argosy.image.explain import Link, explain
from argosy.locate import Location
from argosy.spec.platform import Platform


@click.command()
@place_argument
@platform_option
@json_option
def command(place: Location, platform: Platform | None, as_json: bool) -> int:
    """Walk an image's chain of digests, compute each one anew, and say what was hashed.

    From the reference to the manifest, to the image id, to the layers, to their uncompressed digests (diff_ids), to
    the chain ids. Exits with 4 where a link does not hold.

    \b
    Example:
      argosy explain alpine:3.20
    """
    held = True
    shown: list[dict[str, object]] = []
    with places.source(place, ahead=True) as source:
        for link in explain(source, locate.choose(source, place), platform):
            held = held and link.holds
            if as_json:
                shown.append(_plain(link))
            else:
                _print(link)
    if as_json:
        document(shown)
    return 0 if held else EXIT_CODES[IntegrityError]


def _plain(link: Link) -> dict[str, object]:
    return {
        "name": link.name,
        "holds": link.holds,
        "hashed": link.hashed,
        "promisedBy": link.promised_by,
        "expected": link.expected,
        "actual": link.actual,
        "problem": link.problem,
    }


def _print(link: Link) -> None:
    print(f"{'✓' if link.holds else '✗'} {link.name}")
    print(f"    hashed    {link.hashed}")
    print(f"    promised  {link.expected or '-'}  by {link.promised_by}")
    if link.actual != link.expected or not link.holds:
        print(f"    {'got' if link.expected else 'computed':<9} {link.actual or '-'}")
    if link.problem:
        print(f"    problem   {link.problem}")
