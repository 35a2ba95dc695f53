"""What the registry's commands share: where the configuration comes from, and how upstreams are reached."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import click

from argosy.cli import home
from argosy.content.protocols import Source
from argosy.errors import StorageError
from argosy.server import config
from argosy.server.assemble import open_metadata
from argosy.server.metadata import Metadata
from argosy.server.settings import Settings, Upstream
from argosy.spec.reference import DOCKER_HUB

if TYPE_CHECKING:
    from argosy.remote.config import Options

T = TypeVar("T")

config_option = click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False),
    envvar="ARGOSY_REGISTRY_CONFIG",
    show_envvar=True,
    help="The registry's YAML file.",
)
data_option = click.option(
    "--data", type=click.Path(file_okay=False), help="The registry's directory."
)

_NOT_SETTINGS = frozenset({"ARGOSY_REGISTRY_CONFIG"})


def configuration(path: str | None, data: str | None = None) -> Settings:
    """The settings of a file and the environment; the data directory is the user's own if nothing names one.

    Raises:
        InvalidConfigError: the file or a variable is wrong.
    """
    settings = config.load(path, environment())
    chosen = data or settings.data or _data_directory()
    return dataclasses.replace(settings, data=os.path.abspath(chosen))


def environment() -> dict[str, str]:
    """The variables that are settings."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_SETTINGS}


def with_metadata(settings: Settings, work: Callable[[Metadata], Awaitable[T]]) -> T:
    """Open the database, do one thing, close it.

    Raises:
        StorageError: there is no registry in the directory.
    """
    if settings.metadata.type == "sqlite":
        path = settings.metadata.path or os.path.join(settings.data or "", "registry.db")
        if not os.path.exists(path):
            raise StorageError(f"no registry in {settings.data}: {path} is not there")

    async def run() -> T:
        metadata = open_metadata(settings)
        try:
            return await work(metadata)
        finally:
            metadata.close()

    return asyncio.run(run())


def _data_directory() -> str:
    return os.path.join(home.data("--data"), "argosy", "registry")


# Registries whose token service has another name than they have.
_TOKEN_HOSTS = {DOCKER_HUB: ("auth.docker.io",), "registry.gitlab.com": ("gitlab.com",)}


def open_upstream(environ: Mapping[str, str], upstream: Upstream, name: str) -> Source:
    """A repository of an upstream.

    The client is loaded here: most registries have no upstream, and start sooner without it.
    """
    from argosy.remote.registry import Registry

    if upstream.registry == DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    return Registry(upstream.registry, upstream_options(environ, upstream)).repository(name)


def upstream_options(environ: Mapping[str, str], upstream: Upstream) -> Options:
    """How an upstream is talked to.

    Its credentials are for its own token service. Nobody waits for one that limits the rate: what is cached is served
    instead.
    """
    from argosy.remote.config import Options
    from argosy.remote.credentials import Credential, CredentialStore

    given = {}
    if upstream.username is not None:
        given[upstream.registry] = Credential(
            username=upstream.username, password=upstream.password or ""
        )
    return dataclasses.replace(
        Options.from_environment(environ),
        credentials=CredentialStore((), given=given),
        token_hosts=upstream.token_hosts + _TOKEN_HOSTS.get(upstream.registry, ()),
        plain_http=upstream.plain_http,
        attempts=2,
        max_wait=0.0,
        timeout=30.0,
    )
