"""A registry that is far: what a command costs in round trips, beside crane, oras, skopeo and regctl."""

from __future__ import annotations

import contextlib
import itertools
import math
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import harness
import inputs
import servers
from harness import OURS, Attempt, Row, Stage, Study, Target, argosy, present, process

from studies.client import QUIET, SKOPEO, peer, plain

AWAY = 0.01
"""Seconds a byte takes from here to there."""
NARROW = 15e6
"""Bytes a second that one connection brings, as some networks and CDNs have it."""


@contextlib.contextmanager
def far(stage: Stage, layout: Path, rate: float) -> Iterator[str]:
    """The host of a registry that is far, with a layout in its repository `from`."""
    way = Path(__file__).parents[1] / "far.py"
    with servers.several(stage, peer()) as found:
        (one,) = found.values()
        process(argosy("cp", *QUIET, "--all-tags", f"oci:{layout}", f"{one.host}/from"))
        port = servers.free_port()
        command = [sys.executable, str(way), str(port), str(one.port), str(AWAY), str(rate)]
        with harness.server(command, lambda: servers.answers(port)):
            away = servers.Registry(one.name, port, one.pid, one.seconds, one.data)
            with plain(away):
                yield away.host


Commands = Callable[[str, Path, str], Mapping[str, list[str]]]
"""What each tool is called with, given the registry, a path and a repository that are new."""


def turns(
    row: str, commands: Commands, layout: Callable[[Stage], Path], rate: float
) -> Callable[[Stage], contextlib.AbstractContextManager[dict[str, Attempt]]]:
    """One command of each tool, each time to a new place."""

    @contextlib.contextmanager
    def prepare(stage: Stage) -> Iterator[dict[str, Attempt]]:
        numbers = itertools.count()
        with far(stage, layout(stage), rate) as host, stage.folder() as folder:

            def made() -> dict[str, list[str]]:
                number = next(numbers)
                return present(commands(host, folder / f"new{number}", f"{host}/new{number}"))

            def turn(name: str) -> Attempt:
                def run() -> dict[str, float]:
                    taken = process(made()[name])[0] * 1000
                    for path in folder.iterdir():
                        shutil.rmtree(path)
                    return {row: taken}

                return run

            yield {name: turn(name) for name in made()}

    return prepare


def pull(host: str, path: Path, _: str) -> Mapping[str, list[str]]:
    image, out = f"{host}/from:index", f"{path}:index"
    return {
        OURS: argosy("cp", *QUIET, image, f"oci:{out}"),
        "oras": ["oras", "cp", "--no-tty", "--from-plain-http", image, "--to-oci-layout", out],
        "skopeo": [*SKOPEO, "--all", "--src-tls-verify=false", f"docker://{image}", f"oci:{out}"],
        "regctl": ["regctl", "image", "copy", image, f"ocidir://{out}"],
    }


def copy(host: str, _: Path, repository: str) -> Mapping[str, list[str]]:
    image, to = f"{host}/from:index", f"{repository}:index"
    return {
        OURS: argosy("cp", *QUIET, image, to),
        "crane": ["crane", "cp", image, to],
        "oras": ["oras", "cp", "--no-tty", "--from-plain-http", "--to-plain-http", image, to],
        "regctl": ["regctl", "image", "copy", image, to],
    }


def every(host: str, _: Path, repository: str) -> Mapping[str, list[str]]:
    return {
        OURS: argosy("cp", *QUIET, "--all-tags", f"{host}/from", repository),
        "crane": ["crane", "cp", "--all-tags", f"{host}/from", repository],
    }


def backup(host: str, path: Path, _: str) -> Mapping[str, list[str]]:
    return {
        OURS: argosy("backup", "--quiet", f"{host}/from", "-o", str(path)),
        "oras": ["oras", "backup", "--no-tty", "--plain-http", f"{host}/from", "-o", str(path)],
    }


def narrow(host: str, path: Path, _: str) -> Mapping[str, list[str]]:
    image, out = f"{host}/from:v1", str(path)
    return {
        OURS: argosy("cp", *QUIET, image, f"oci:{out}:v1"),
        "crane": ["crane", "pull", "--format", "oci", image, out],
        "oras": ["oras", "cp", "--no-tty", "--from-plain-http", image, "--to-oci-layout", f"{out}:v1"],
        "skopeo": [*SKOPEO, "--src-tls-verify=false", f"docker://{image}", f"oci:{out}:v1"],
        "regctl": ["regctl", "image", "copy", image, f"ocidir://{out}:v1"],
    }  # fmt: skip


def _study(
    row: str,
    says: str,
    commands: Commands,
    peers: tuple[str, ...],
    target: str,
    layout: Callable[[Stage], Path] = inputs.small,
    rate: float = math.inf,
) -> Study:
    rows = (Row(row, "ms", (Target(1, (target,)),)),)
    prepare = turns(row, commands, layout, rate)
    return Study(row, says, rows, prepare, ("registry", *peers), runs=5, quick=1)


STUDIES = (
    _study(
        "pull from far",
        "An index of ten small images to a layout, from a registry whose every answer takes 20 ms.",
        pull,
        ("oras", "skopeo", "regctl"),
        "skopeo",
    ),
    _study(
        "copy in a far registry",
        "The same index to another repository of that registry.",
        copy,
        ("crane", "oras", "regctl"),
        "crane",
    ),
    _study(
        "copy all tags in a far registry",
        "Twenty images and the index to another repository of that registry.",
        every,
        ("crane",),
        "crane",
    ),
    _study("backup from far", "The same tags to a layout.", backup, ("oras",), "oras"),
    _study(
        "pull over narrow connections",
        "Two large layers to a layout, where one connection brings 15 MB a second.",
        narrow,
        ("crane", "oras", "skopeo", "regctl"),
        "crane",
        inputs.opaque,
        NARROW,
    ),
)
