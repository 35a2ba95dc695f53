"""`argosy version`."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import click

from argosy._version import __version__
from argosy.cli.options import json_option
from argosy.cli.output import document, table

_LIBRARIES = (
    "click",
    "isal",
    "backports.zstd",
    "rich",
    "granian",
    "apsw",
    "obstore",
    "psycopg",
)


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Print the version of argosy, of Python, and of the libraries that are installed.

    \b
    Example:
      argosy version --json
    """
    found = {"argosy": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    found["executable"] = sys.executable
    if as_json:
        document(found)
    else:
        table(list(found.items()))
