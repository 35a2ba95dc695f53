"""`argosy serve`: a registry."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys

import click

from argosy.cli.serving import configuration, open_upstream
from argosy.server.app import App
from argosy.server.assemble import build
from argosy.server.config import is_loopback, require_access
from argosy.server.serve import serve
from argosy.server.settings import Settings
from argosy.server.team import Seat


@click.command()
@click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False),
    envvar="ARGOSY_REGISTRY_CONFIG",
    show_envvar=True,
    help="YAML file; `argosy registry schema` prints what may stand in it.",
)
@click.option("--data", type=click.Path(file_okay=False), help="Directory for everything.")
@click.option("--host", metavar="ADDRESS", help="Address to bind.  [default: 127.0.0.1]")
@click.option(
    "-p",
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Port to bind; 0 takes a free one.  [default: 5000]",
)
@click.option(
    "--access-log/--no-access-log", default=None, help="One JSON line a request on stderr."
)
def command(
    config: str | None,
    data: str | None,
    host: str | None,
    port: int | None,
    access_log: bool | None,
) -> None:
    """Serve a registry.

    Without options: on this machine only, port 5000, everybody may do everything, data in the user's data directory.
    Options win over ARGOSY_REGISTRY_... variables, and those over the file.

    \b
    Examples:
      argosy serve
      argosy serve --data /srv/registry --port 0
      argosy serve --config registry.yaml
      ARGOSY_REGISTRY_LISTEN_HOST=0.0.0.0 argosy serve --config registry.yaml
    """
    settings = configuration(config, data)
    listen = settings.listen
    listen = dataclasses.replace(
        listen,
        host=listen.host if host is None else host,
        port=listen.port if port is None else port,
    )
    settings = dataclasses.replace(settings, listen=listen)
    if access_log is not None:
        log = dataclasses.replace(settings.log, access=access_log)
        settings = dataclasses.replace(settings, log=log)
    _warn(settings)
    serve(settings, _say, build=_build)


def _warn(settings: Settings) -> None:
    """Say what surprises people: a registry that answers nobody, and one that answers everybody.

    Raises:
        InvalidConfigError: it would answer nobody.
    """
    require_access(settings)
    access = settings.access
    configured = access.htpasswd or access.issuers or access.policy
    if not is_loopback(settings.listen.host) and not configured:
        print(f"argosy: everybody who reaches this may {access.anonymous}", file=sys.stderr)


def _build(settings: Settings, seat: Seat) -> App:
    """Runs in each worker: what it logs goes to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("argosy")
    root.handlers = [handler]
    root.setLevel(settings.log.level.upper())
    requests = logging.getLogger("argosy.access")
    plain = logging.StreamHandler(sys.stderr)
    plain.setFormatter(logging.Formatter("%(message)s"))
    requests.handlers, requests.propagate = [plain], False
    requests.setLevel(logging.INFO)
    return build(settings, seat, source_for=functools.partial(open_upstream, os.environ))


def _say(url: str) -> None:
    print(f"listening on {url}", flush=True)
