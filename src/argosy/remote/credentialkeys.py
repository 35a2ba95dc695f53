"""Keys of credentials: what a registry or repository may be called in files and helpers, most specific first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from argosy.spec.reference import DOCKER_HUB

HUB_KEY = "https://index.docker.io/v1/"
_HUB_KEYS = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})


def normal(key: str) -> str:
    """A key as files write it, made comparable: no scheme, no `/v1/` or `/v2/`, Docker Hub's names as one."""
    text = key.partition("://")[2] or key
    text = re.sub(r"/v[12]/?$", "", text).rstrip("/")
    host, slash, rest = text.partition("/")
    host = DOCKER_HUB if host.lower() in _HUB_KEYS else host.lower()
    return host + slash + rest


def wanted_keys(registry: str, name: str) -> Iterator[str]:
    """The keys that may stand for a repository, the most specific first."""
    parts = name.split("/") if name else []
    for count in range(len(parts), -1, -1):
        yield "/".join([normal(registry), *parts[:count]])


def helper_keys(registry: str) -> tuple[str, ...]:
    """The names a registry may have in a helper, the first the one to give it."""
    hub = normal(registry) == DOCKER_HUB  # which docker and podman call differently
    return (HUB_KEY, DOCKER_HUB) if hub else (registry, f"https://{registry}")


def file_key(registry: str, path: str) -> str:
    """The key that a registry is written down under in a file."""
    docker = os.path.basename(path) in {"config.json", ".dockercfg"}
    return HUB_KEY if docker and normal(registry) == DOCKER_HUB else registry
