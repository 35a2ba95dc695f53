"""`argosy layout …`: looking after OCI image layouts on disk."""

from __future__ import annotations

import sys

import click

from argosy.cli.failure import EXIT_CODES, printable
from argosy.cli.options import json_option
from argosy.cli.output import document, lines, size, table
from argosy.errors import IntegrityError
from argosy.layout import gc as collecting
from argosy.layout.blobs import GRACE
from argosy.layout.store import LayoutStore

_directory = click.argument(
    "directory",
    type=click.Path(file_okay=False),
    callback=lambda _ctx, _param, text: text.removeprefix("oci:"),
)


@click.command()
@_directory
def init(directory: str) -> None:
    """Make an empty OCI image layout. A layout that is there already stays as it is.

    \b
    Example:
      argosy layout init images
    """
    LayoutStore.create(directory)


@click.command()
@_directory
@json_option
def ls(directory: str, as_json: bool) -> None:
    """List every entry of a layout's index.json, in its order.

    \b
    Example:
      argosy layout ls images
    """
    entries = LayoutStore.open(directory).index().manifests
    if as_json:
        document([entry.encode() for entry in entries])
        return
    table(
        [
            (
                f"@{number}",
                entry.annotations.get("org.opencontainers.image.ref.name", "-"),
                str(entry.platform) if entry.platform else "-",
                entry.digest,
                size(entry.size),
            )
            for number, entry in enumerate(entries)
        ],
        ("", "name", "platform", "digest", "size"),
    )


@click.command()
@_directory
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--untagged", is_flag=True, help="Also drop manifests without a tag.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=GRACE,
    show_default=True,
    metavar="SECONDS",
    help="Spare what is younger: a copy may be about to refer to it.",
)
@json_option
def gc(directory: str, dry_run: bool, untagged: bool, grace: float, as_json: bool) -> None:
    """Remove blobs that nothing in a layout refers to, and what broken runs left.

    \b
    Examples:
      argosy layout gc --dry-run images
      argosy layout gc --grace 0 images
    """
    done = collecting.gc(
        LayoutStore.open(directory), dry_run=dry_run, untagged=untagged, grace=grace
    )
    if as_json:
        entries = [entry.digest for entry in done.entries]
        document({"blobs": done.blobs, "files": done.files, "entries": entries, "size": done.size})
        return
    lines((*(entry.digest for entry in done.entries), *done.blobs, *map(printable, done.files)))
    print(f"{'would free' if dry_run else 'freed'} {size(done.size)}", file=sys.stderr)


@click.command()
@_directory
@json_option
def fsck(directory: str, as_json: bool) -> int:
    """Read everything in a layout and say what is wrong: digests, sizes, media types, missing blobs, foreign files.

    Exits with 4 where something is broken; left-over and unknown files alone do not count.

    \b
    Example:
      argosy layout fsck images
    """
    found = list(collecting.fsck(LayoutStore.open(directory)))
    if as_json:
        document([{"kind": p.kind, "where": p.where, "message": p.message} for p in found])
    else:
        lines(printable(f"{p.kind}: {p}") for p in found)
    return 0 if all(problem.harmless for problem in found) else EXIT_CODES[IntegrityError]
