"""The examples of every command's help, the pages' command lines and the migration table's right sides, as they stand.

They run in a world that has what they speak of.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import TypeVar

import pytest

from argosy.cli import reference
from argosy.content.memory import MemoryStore
from tests.cli.world import World, stored
from tests.house.test_docs import blocks
from tests.interop.registries import Running, running

EXAMPLES = {name: reference.examples(command) for name, command in reference.commands()}
ROOT = pathlib.Path(__file__).parents[2]
TABLES = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
PAGES = {
    name: re.findall(r"^(argosy .*?)(?: +#.*)?$", "".join(blocks(ROOT / name, "sh")), re.MULTILINE)
    for name in ("README.md", "docs/registry.md", "docs/rootless.md")
}


def migrations() -> dict[str, list[list[str]]]:
    """The sections of the migration table: of each row the command lines on its right side."""
    found = {}
    for section in TABLES.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        rows = [re.split(r"(?<!\\)\|", row) for row in text.splitlines() if row.startswith("| ")]
        sides = [row[2].replace("\\|", "|") for row in rows[1:]]
        found[title] = [re.findall(r"`(argosy \S+ [^`]+)`", side) for side in sides]
    return found


MIGRATIONS = migrations()

APP_TAR = "argosy cp -q oci:a:v1 docker-archive:app.tar:app:v1"
BUNDLE = "argosy unpack -q --rootless oci:images:app bundle"
SOURCES = "argosy source build -q -e patches -t oci:output:latest-source"
LAYER = "DIGEST=$(argosy blob put {} layer.tar.gz)"
DATABASE = "argosy registry migrate --data {}"
STORAGE = (
    "coproc argosy serve --data /srv/registry --port 0 2> log; pid=$COPROC_PID; "
    "read -r <&${COPROC[0]}; kill $pid; wait $pid"
)

BEFORE = {
    "auth get": "argosy login registry.example -u ada -p secret --no-check",
    "manifest rm oci:images@": "DIGEST=$(argosy digest oci:images:old)",
    "validate --all-tags": "argosy cp -q oci:images:app oci-archive:images.tar",
    "blob get": LAYER.format("alpine"),
    "blob head": LAYER.format("alpine"),
    "blob head registry.example": LAYER.format("registry.example/app"),
    "blob put registry.example/app@": "DIGEST=sha256:$(sha256sum config.json | cut -d ' ' -f 1)",
    "blob get registry.example": LAYER.format("registry.example/app"),
    "blob rm": LAYER.format("registry.example/app"),
    "push app.tar": APP_TAR,
    "push alpine.tar": "argosy pull -q -o alpine.tar alpine:3.20",
    "restore": "argosy backup -q registry.example/app -o app.tar",
    "tag docker-archive": APP_TAR,
    "tag registry.example/app@": "DIGEST=$(argosy digest registry.example/app:v1)",
    "rm --referrers": "DIGEST=$(argosy digest registry.example/app:v1)",
    "manifest rm registry.example/app:v1": "argosy tag registry.example/app:v2 v1",
    "manifest rm registry.example/app:v2": "argosy tag registry.example/app:v1 v2",
    "check-base": "argosy append -q -b alpine:3.20 -f files.tar --set-base-image-annotations -t registry.example/app:v1",
    "flatten oci:images:app --base": "argosy rebase -q oci:images:app --old_base alpine:3.19 --new_base alpine:3.20",
    "convert docker-archive": APP_TAR,
    "cp --compress gzip --format docker docker-archive": APP_TAR,
    "digest docker-archive": APP_TAR,
    "export docker-archive": APP_TAR,
    "validate docker-archive": APP_TAR,
    "source add": SOURCES,
    "source ls": SOURCES,
    "source unpack": SOURCES,
    "bundle diff": BUNDLE,
    "bundle validate": BUNDLE,
    "repack oci:images:app bundle -t new": BUNDLE,
    "repack --refresh-bundle": f"argosy cp -q oci:a:v1 oci:images:app; {BUNDLE}",
    "registry gc --dry-run": DATABASE.format(".registry"),
    "registry gc --dry-run --data": DATABASE.format("/srv/registry"),
    "registry gc --data": DATABASE.format("/srv/registry"),
    "registry scrub": STORAGE,
    "registry rebuild": STORAGE + "; rm /srv/registry/registry.db*",
    "registry backup": DATABASE.format("/srv/registry") + "; mkdir -p .backup",
    "registry stats": DATABASE.format(".registry"),
    "registry dead-letters": DATABASE.format(".registry"),
    "registry retention": DATABASE.format(".registry"),
    "spec": "rm config.json",
    "spec -o": "",
    "spec -f": "",
    "spec -o config.json": "rm config.json",
    "runtime-check": "rm config.json; mkdir rootfs; argosy spec",
    "runtime-check --strict": "mkdir -p .run/bundles/web/rootfs; argosy spec -b .run/bundles/web",
}
"""What is done before an example whose command line begins so; the longest one that fits."""

AFTERWARDS = {"diff alpine:3.19 alpine:3.20": 1}
"""The exit code of those that are done with another one than 0."""

NOT_RUN = {
    "auth token": "a registry that asks for tokens",
    "docker load": "a Docker daemon",
    "exec": "a container",
    "edit config registry.example": "an image that is no index",
    "graph -f dot": "" if shutil.which("dot") else "Graphviz",
    "kill": "a container",
    "jq": "" if shutil.which("jq") else "jq",
    "login --authfile": "a terminal to ask at",
    "login registry.example": "a terminal to ask at",
    "login registry.example -u": "",
    "logout registry.example": "somebody logged in",
    "logs": "a container",
    "rm -f web": "a container",
    "run": "a container",
    "serve": "somebody who stops it",
    "start": "a container",
    "stop": "a container",
    "unpack": "" if os.geteuid() == 0 else "root",
    "unpack alpine:3.20": "a container",
    "wait": "a container",
}
"""What an example needs that is not here; `tests/engine`, `tests/server` and `tests/interop` try these."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running("argosy", tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def images() -> MemoryStore:
    return stored()


T = TypeVar("T")


def fits(line: str, table: Mapping[str, T], default: T) -> T:
    """What a table has for the longest beginning of a call in a line."""
    found = [key for key in table if f"argosy {key}" in line or f"| {key}" in line]
    return table[max(found, key=len)] if found else default


def check(world: World, lines: list[str]) -> None:
    for line in lines:
        if not fits(line, NOT_RUN, ""):
            call = re.sub(r"sha256:(44136fa3)?…", "$DIGEST", line)
            done = world.run(f"{{ {fits(line, BEFORE, '') or ':'}; }} >&2\n{call}")
            assert done.returncode == fits(line, AFTERWARDS, 0), (
                f"{line}\n{done.stdout}{done.stderr}"
            )


@pytest.mark.parametrize("name", [name for name, lines in EXAMPLES.items() if lines])
def test_the_examples_of_a_command_run(
    name: str, registry: Running, images: MemoryStore, tmp_path: pathlib.Path
) -> None:
    world = World(tmp_path / "world", registry.name, name.replace(" ", "-"))
    world.make(images)
    check(world, EXAMPLES[name])


@pytest.mark.parametrize("page", PAGES)
def test_the_command_lines_of_a_page_run(
    page: str, registry: Running, images: MemoryStore, tmp_path: pathlib.Path
) -> None:
    world = World(tmp_path / "world", registry.name, re.sub("[^a-z]", "-", page.lower()))
    world.make(images)
    assert PAGES[page]
    check(world, PAGES[page])


@pytest.mark.parametrize("title", MIGRATIONS)
def test_what_others_commands_are_in_argosy_runs(
    title: str, registry: Running, images: MemoryStore, tmp_path: pathlib.Path
) -> None:
    for number, lines in enumerate(MIGRATIONS[title]):
        world = World(tmp_path / f"{number}", registry.name, f"{title.lower()}{number}")
        world.make(images)
        check(world, lines)


def test_every_exception_is_about_an_example() -> None:
    lines = [line for found in EXAMPLES.values() for line in found]
    lines += [line for found in PAGES.values() for line in found]
    lines += [line for rows in MIGRATIONS.values() for row in rows for line in row]
    for key in (*BEFORE, *AFTERWARDS, *NOT_RUN):
        assert any(fits(line, {key: True}, False) for line in lines), key
