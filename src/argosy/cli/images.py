"""`argosy images|rmi|prune`: the images of this machine, and what it needs no more."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from argosy.cli import engine, failure
from argosy.cli.options import json_option, typed
from argosy.cli.output import document, lines, size, table
from argosy.engine import rootless
from argosy.errors import ArgosyError, NotFoundError

if TYPE_CHECKING:
    from argosy.engine.images import LocalImage

_LENGTHS = (("year", 365 * 86400), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def ago(text: str) -> str:
    """How long ago a time was, for people."""
    seconds = (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(text)).total_seconds()
    name, length = next((pair for pair in _LENGTHS if seconds >= pair[1]), _LENGTHS[-1])
    number = int(seconds // length)
    return f"{number} {name}{'' if number == 1 else 's'} ago" if number >= 0 else "in the future"


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option("--digests", is_flag=True, help="Also digests.")
@json_option
def images(quiet: bool, digests: bool, as_json: bool) -> None:
    """List the images of this machine.

    Of one that is damaged the manifest or configuration cannot be read; `argosy rmi` removes it.

    \b
    Example:
      argosy images --digests
    """
    found = list(engine.images().entries())
    if quiet:
        lines(dict.fromkeys(entry.image_id.encoded[:12] for entry in found))
    elif as_json:
        document(
            [
                {
                    "Name": e.name, "Digest": e.digest, "Id": e.image_id, "Created": e.created, "Size": e.size,
                    "Platform": str(e.platform) if e.platform else None, "Damaged": e.damaged or None,
                }
                for e in found
            ]
        )  # fmt: skip
    else:
        rows = [
            (
                e.name.removeprefix("docker.io/library/"),
                *((e.digest,) if digests else ()),
                e.image_id.encoded[:12],
                "damaged" if e.damaged else str(e.platform or "-"),
                ago(e.created) if e.created else "-",
                "-" if e.damaged else size(e.size),
            )
            for e in found
        ]
        table(
            rows, ("name", *(("digest",) if digests else ()), "id", "platform", "created", "size")
        )
    _warn_of(found)


def _warn_of(found: Iterable[LocalImage]) -> None:
    """A line for each that is damaged."""
    for entry in found:
        if entry.damaged:
            failure.warn(
                f"{entry.name} is damaged: {entry.damaged}; argosy rmi {entry.name} removes it, "
                "to be pulled anew, and until then prune frees neither blobs nor layers"
            )


@click.command()
@click.argument("named", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-f", "--force", is_flag=True, help="What is not there is no error.")
def rmi(named: tuple[str, ...], force: bool) -> int | None:
    """Remove images from this machine: a name, or by its id all names of an image.

    What no other image and no container needs is freed by `argosy prune`, blobs an hour after they were written.

    \b
    Example:
      argosy rmi alpine:3.20
    """
    store = engine.images()
    find = store.finder()
    found: list[str] = []
    code: int | None = None
    for text in named:
        try:
            found += typed(find, text)
        except ArgosyError as exc:
            if force and isinstance(exc, NotFoundError):
                continue
            code = code or failure.report(exc)
    lines(f"removed {name}" for name in store.remove(*dict.fromkeys(found)))
    return code


@click.command()
@click.option("-a", "--all", "every", is_flag=True, help="Also images that no container uses.")
@click.option("-f", "--force", is_flag=True, help="Ask nothing, which it never does.")
def prune(every: bool, force: bool) -> int | None:  # noqa: ARG001 - Docker's scripts say it
    """Remove containers that have ended or whose watcher was killed, their networks, and what nothing needs.

    Blobs of the last hour stay, for a pull may be under way that needs them. While an image is damaged, all blobs and
    unpacked layers do, for nobody knows what it needs.

    \b
    Example:
      argosy prune
    """
    if rootless.needed():
        return rootless.enter(sys.argv[1:])
    made = engine.engine()
    gone, layers, freed = made.prune(images=every)
    lines(gone)
    _warn_of(made.images.entries())
    removed = f"removed {len(gone)} containers and {len(layers)} unpacked layers"
    print(f"{removed}, freed {size(freed)} of blobs older than an hour", file=sys.stderr)
    return None
