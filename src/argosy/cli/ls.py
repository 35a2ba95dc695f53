"""`argosy ls`: the tags of a place."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

import click

from argosy.cli import places
from argosy.cli.options import json_option, patterns, place_argument
from argosy.cli.output import document, lines
from argosy.locate import Location
from argosy.spec.reference import stands_for


def semver_key(tag: str) -> tuple[bool, list[int], bool, list[tuple[bool, int, str]]]:
    """Sorts tags as semantic versioning orders them; what is no version comes first.

    >>> sorted(["v1.10.0", "1.2.0", "1.2.0-rc.1", "latest"], key=semver_key)
    ['latest', '1.2.0-rc.1', '1.2.0', 'v1.10.0']
    """
    match = re.fullmatch(
        r"v?(\d{1,18}(?:\.\d{1,18}){0,3})(?:-([0-9A-Za-z.-]+))?(?:\+.*)?", tag, re.ASCII
    )
    if not match:
        return (False, [], False, [(False, 0, tag)])
    before = [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in (match[2] or "").split(".")
        if part
    ]
    return (True, [int(n) for n in match[1].split(".")], not before, before)


_ORDERS: dict[str, Callable[[str], Any]] = {"name": str, "semver": semver_key}


@click.command()
@place_argument
@click.option("--include", multiple=True, metavar="REGEX", help="Only tags that match, whole.")
@click.option("--exclude", multiple=True, metavar="REGEX", help="Not tags that match, whole.")
@click.option(
    "--sort",
    type=click.Choice([*_ORDERS, "date"]),
    help="Instead of the place's own order. `date` reads every manifest.",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many.")
@click.option(
    "--no-digest-tags",
    "-O",
    "--omit-digest-tags",
    "--exclude-digest-tags",
    is_flag=True,
    help="Leave out tags like sha256-<hex>.sig.",
)
@click.option("--full", "--full-ref", is_flag=True, help="Print whole places.")
@json_option
def command(
    place: Location,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    sort: str | None,
    reverse: bool,
    limit: int | None,
    no_digest_tags: bool,
    full: bool,
    as_json: bool,
) -> None:
    """List the tags of a repository, layout or archive.

    \b
    Examples:
      argosy ls oci:images
      argosy ls alpine --include '3\\..*' --sort semver --reverse --limit 3
      argosy ls registry.example/app --sort date --reverse --limit 5
    """
    places.check_whole(place, "ls", _advice(place))
    wanted, unwanted = patterns(include), patterns(exclude)
    with places.source(place, ahead=sort == "date") as source:
        tags = [
            tag
            for tag in source.tags()
            if (not wanted or any(p.fullmatch(tag) for p in wanted))
            and not any(p.fullmatch(tag) for p in unwanted)
            and not (no_digest_tags and stands_for(tag))
        ]
        if sort == "date":
            dates = importlib.import_module("argosy.cli.dates")
            tags = dates.by_date(source, tags, jobs=places.jobs(place))
    if sort in _ORDERS:
        tags.sort(key=_ORDERS[sort])
    if reverse:
        tags.reverse()
    del tags[limit if limit is not None else len(tags) :]
    shown = [str(place.at(tag)) if full else tag for tag in tags]
    if as_json:
        document(shown)
    else:
        lines(shown)


def _advice(place: Location) -> str:
    """What to type instead of a name with a tag, which may be a registry with its port."""
    found = place.reference
    name = found.name.removeprefix("library/") if found else ""
    if found and found.tag and "/" not in name and ("." in name or name == "localhost"):
        return f"`argosy catalog {name}:{found.tag}` lists the repositories of a registry"
    return f"`argosy digest {place}` says whether that one is there"
