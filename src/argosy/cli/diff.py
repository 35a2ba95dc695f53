"""`argosy diff`: what differs between two images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import click

from argosy.cli import making
from argosy.cli.failure import printable
from argosy.cli.options import PLACE, json_option, platform_option
from argosy.cli.output import document
from argosy.image.contents import Contents
from argosy.image.differences import FileDifference, document_differences, file_differences
from argosy.image.draft import Spool
from argosy.image.view import Image
from argosy.locate import Location
from argosy.spec.platform import Platform

_LETTERS = {"added": "+", "removed": "-", "changed": "~"}


@click.command()
@click.argument("old", type=PLACE, metavar="A")
@click.argument("new", type=PLACE, metavar="B")
@click.option("--fs", "parts", flag_value="fs", multiple=True, help="Only the files.")
@click.option("--config", "parts", flag_value="config", multiple=True, help="Only the config.")
@click.option("--manifest", "parts", flag_value="manifest", multiple=True, help="Only manifests.")
@click.option("--ignore-timestamps", is_flag=True, help="Times of files do not count.")
@json_option
@platform_option
def command(
    old: Location,
    new: Location,
    parts: tuple[str, ...],
    ignore_timestamps: bool,
    as_json: bool,
    platform: Platform | None,
) -> int:
    """Show what differs between two images: manifest, configuration and files. Exits with 1 where anything does.

    \b
    Examples:
      argosy diff alpine:3.19 alpine:3.20
      argosy diff --fs --ignore-timestamps oci:images:v1 oci:images:v2
    """
    wanted = parts or ("manifest", "config", "fs")
    with contextlib.ExitStack() as stack:
        one = stack.enter_context(making.one_image(old, platform))
        two = stack.enter_context(making.one_image(new, platform))
        found: dict[str, list[dict[str, object]]] = {}
        if "manifest" in wanted:
            found["manifest"] = list(_documents(one.raw, two.raw))
        if "config" in wanted:
            found["config"] = list(_documents(one.raw_config, two.raw_config))
        if "fs" in wanted:
            found["fs"] = list(_files(one, two, old, new, times=not ignore_timestamps))
    if as_json:
        document(found)
    else:
        _print(found)
    return 1 if any(found.values()) else 0


def _documents(old: bytes, new: bytes) -> Iterator[dict[str, object]]:
    for path, before, after in document_differences(old, new):
        yield {"property": path, "old": before, "new": after}


def _files(
    one: Image, two: Image, old: Location, new: Location, *, times: bool
) -> Iterator[dict[str, object]]:
    spool = Spool()
    contents = (
        Contents(one, spool=spool if old.reference else None),
        Contents(two, spool=spool if new.reference else None),
    )
    for difference in file_differences(*contents, times=times):
        yield {
            "path": "/" + difference.path.decode(errors="replace"),
            "kind": difference.kind,
            "what": list(difference.what),
            "size": _sizes(difference),
        }


def _sizes(difference: FileDifference) -> list[int | None]:
    return [entry.size if entry else None for entry in (difference.old, difference.new)]


def _print(found: dict[str, list[dict[str, object]]]) -> None:
    for part in ("manifest", "config"):
        for item in found.get(part, ()):
            print(printable(f"{part} {item['property']}:"))
            for sign, key in (("-", "old"), ("+", "new")):
                if item[key] is not None:
                    print(printable(f"  {sign} {json.dumps(item[key], ensure_ascii=False)}"))
    for item in found.get("fs", ()):
        what = item["what"]
        more = f" ({', '.join(what)})" if isinstance(what, list) and what else ""
        print(printable(f"{_LETTERS[str(item['kind'])]} {item['path']}{more}"))
