"""`argosy layout …`: looking after OCI image layouts on disk."""

from __future__ import annotations

import click

from argosy.cli.options import json_option
from argosy.cli.output import document, size, table
from argosy.layout.store import LayoutStore

_directory = click.argument("directory", type=click.Path(file_okay=False))


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
