"""What the registry's commands share: where the configuration comes from, and how upstreams are reached."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from argosy.content.protocols import Source
from argosy.server import config
from argosy.server.settings import Settings, Upstream
from argosy.spec.reference import DOCKER_HUB

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


def _data_directory() -> str:
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "argosy", "registry")


def open_upstream(environ: Mapping[str, str], upstream: Upstream, name: str) -> Source:
    """A repository of an upstream. Nobody waits for one that limits the rate: what is cached is served instead.

    The client is loaded here: most registries have no upstream, and start sooner without it.
    """
    from argosy.remote.config import Options
    from argosy.remote.credentials import Credential, CredentialStore
    from argosy.remote.registry import Registry

    given = {}
    if upstream.username is not None:
        given[upstream.registry] = Credential(
            username=upstream.username, password=upstream.password or ""
        )
    options = Options.from_environment(environ)
    options = dataclasses.replace(
        options,
        credentials=CredentialStore((), given=given),
        plain_http=upstream.plain_http,
        attempts=2,
        max_wait=0.0,
        timeout=30.0,
    )
    if upstream.registry == DOCKER_HUB and "/" not in name:
        name = f"library/{name}"
    return Registry(upstream.registry, options).repository(name)
