"""The limits that the pages tell are those that the code keeps."""

from __future__ import annotations

import pathlib
import re

import pytest

from argosy.bundle import check, users
from argosy.content import graph
from argosy.engine import logfile, network
from argosy.layer.entry import Limits
from argosy.layout import tarindex
from argosy.remote import auth, flows, referrers, session
from argosy.remote.config import Options
from argosy.server import connections, routes
from argosy.server.auth import scope, tokens
from argosy.server.settings import Settings
from argosy.spec import _json, distribution, imageconfig, imagelayout, manifest

DOCS = pathlib.Path(__file__).parents[2] / "docs"
UNITS = {"": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "hours": 3600}
LAYER, CLIENT, REGISTRY = Limits(), Options(), Settings()

SECURITY: dict[str, tuple[float, ...]] = {
    "a manifest or index": (manifest.MAX_SIZE,),
    "descriptors in one manifest, layers or children": (manifest.MAX_ENTRIES,),
    "an image configuration": (imageconfig.MAX_SIZE,),
    "nesting of JSON": (_json.MAX_DEPTH,),
    "indexes within indexes": (graph.MAX_DEPTH,),
    "descriptors below what is copied": (graph.MAX_NODES,),
    "an index of a layout": (imagelayout.MAX_INDEX_SIZE,),
    "pages of a list": (flows.MAX_PAGES, referrers.MAX_PAGES),
    "redirects": (session.MAX_REDIRECTS,),
    "a registry's error body": (distribution.MAX_ERROR_BODY,),
    "a token endpoint's answer": (auth.MAX_TOKEN_ANSWER,),
    "no progress in a request": (CLIENT.timeout,),
    "waiting because a registry asks for it": (CLIENT.max_wait,),
    "entries of a layer": (LAYER.entries,),
    "a name in a layer": (LAYER.path, LAYER.depth),
    "extension headers of an entry": (LAYER.header,),
    "regions of a sparse file": (LAYER.sparse,),
    "names, attributes and sparse maps of an image that are kept in memory": (LAYER.kept,),
    "a layer uncompressed": (LAYER.content,),
    "uncompressed to compressed": (LAYER.ratio,),
    "a zstd window": (1 << LAYER.window,),
    "members of an archive": (tarindex.MAX_MEMBERS,),
    "`passwd`, `group`": (users.MAX_SIZE, users.MAX_GROUPS),
    "ports of an image that `run -P` publishes": (network.MAX_EXPOSED,),
    "a bundle's `config.json`": (check.LIMIT,),
    "a container's log": (logfile.MAX_SIZE,),
    "the registry's path": (routes.MAX_PATH,),
    "requests under way at a time on one HTTP/2 connection of the registry": (connections.STREAMS,),
    "headers of one such request": (connections.HEADERS,),
    "a token": (tokens.MAX_TOKEN,),
    "scopes of a token request": (scope.MAX_SCOPES,),
}
"""What the security page's table says, in its order."""


def told(page: str) -> dict[str, list[float]]:
    """The table below a page's heading `Limits`: what → the numbers that are told of it."""
    text = (
        (DOCS / page)
        .read_text(encoding="utf-8")
        .partition("## Limits\n")[2]
        .partition("\n\n## ")[0]
    )
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| ")]
    return {what: amounts(limit) for what, limit in rows[1:]}


def amounts(text: str) -> list[float]:
    found = re.findall(r"(\d+(?: \d{3})*)(?: (KiB|MiB|GiB|bytes|hours))?", text)
    return [int(number.replace(" ", "")) * UNITS[unit] for number, unit in found]


def test_the_security_page_tells_the_limits_of_the_code() -> None:
    page = told("security.md")
    assert list(page) == list(SECURITY)
    for what, limits in SECURITY.items():
        assert page[what][: len(limits)] == list(limits), what


@pytest.mark.parametrize("row", told("registry.md"))
def test_the_registry_page_tells_the_defaults_of_its_settings(row: str) -> None:
    settings = re.findall(r"`(\w+)\.(\w+)`", row)
    found = [getattr(getattr(REGISTRY, section), name) for section, name in settings]
    numbers = [value for value in found if value]  # 0 and None are no limit
    assert told("registry.md")[row][: len(numbers)] == numbers or not settings
