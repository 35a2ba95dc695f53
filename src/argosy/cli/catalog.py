"""`argosy catalog` and `argosy registry ping`: a registry as a whole."""

from __future__ import annotations

import itertools

import click

from argosy.cli import connections, remotes
from argosy.cli.options import json_option, patterns, typed_registry
from argosy.cli.output import document, lines
from argosy.errors import UsageError


def _host(text: str) -> str:
    host, name = typed_registry(text)
    if name:
        raise UsageError(f"registry {text!r}: expected host or host:port")
    return host


@connections.wanted
@click.command()
@click.argument("registry")
@click.option("--include", metavar="REGEX", help="Only names that match, whole.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="At most so many.")
@click.option("--full", "--full-ref", is_flag=True, help="Print the registry in front of each.")
@json_option
def command(
    registry: str, include: str | None, limit: int | None, full: bool, as_json: bool
) -> None:
    """List the repositories of a registry.

    The specification has no such list; most registries have, some not for everybody. Where you are logged in, or with
    --creds, it is what you may see.

    \b
    Example:
      argosy catalog localhost:5000
    """
    wanted = patterns([include] if include else [])
    host = _host(registry)
    made = remotes.registry(click.get_current_context(), host)
    names = (n for n in made.catalog() if all(p.fullmatch(n) for p in wanted))
    shown = (f"{host}/{n}" if full else n for n in itertools.islice(names, limit))
    if as_json:
        document(list(shown))
    else:
        lines(shown)


@connections.wanted
@click.command()
@click.argument("registry")
@json_option
def ping(registry: str, as_json: bool) -> None:
    """Ask whether a registry is there and lets us in; show its URL, the time it took, and its rate limit.

    \b
    Example:
      argosy registry ping registry.example
    """
    host = _host(registry)
    found = remotes.registry(click.get_current_context(), host).ping()
    if as_json:
        document(
            {
                "registry": host,
                "url": found.url,
                "version": found.version,
                "milliseconds": round(found.seconds * 1000, 1),
                "rateLimit": found.rate_limit,
            }
        )
        return
    print(f"{host} is there: {found.url}, {found.seconds * 1000:.0f} ms")
    for name, value in found.rate_limit.items():
        print(f"{name}: {value}")
