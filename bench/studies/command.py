"""What it costs to start: the command itself beside the interpreter that does nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from harness import OURS, Attempt, Row, Stage, Study, Target, argosy, present, process, told

BARE = "python -I -c pass"


@contextlib.contextmanager
def start(_stage: Stage) -> Iterator[dict[str, Attempt]]:
    """Each row has the same contenders: argosy, an interpreter that does nothing, and peers."""
    rows = {"argosy --version": "--version", "argosy --help": "--help"}
    peers = present({"crane": ["crane"], "skopeo": ["skopeo"], "runc": ["runc"]})

    def turn(command: list[str], *, bare: bool = False) -> Attempt:
        return lambda: {
            row: process(command if bare else [*command, word])[0] * 1000
            for row, word in rows.items()
            if not (command[0].endswith("crane") and word == "--version")
        }

    yield {
        OURS: turn(argosy()),
        BARE: turn([sys.executable, "-I", "-c", "pass"], bare=True),
        **{name: turn(command) for name, command in peers.items()},
    }


def where(_stage: Stage) -> str:
    """The modules that take longest to import."""
    lines = told([sys.executable, "-X", "importtime", "-m", "argosy", "--help"]).splitlines()
    timed = [line for line in lines if line.startswith("import time:") and "self" not in line]
    timed.sort(key=lambda line: -int(line.split(":")[1].split("|")[0]))
    return "\n".join(["self us | cumulative us | module", *timed[:14]])


STUDIES = (
    Study(
        "start-up",
        "The whole process, beside the bare interpreter.",
        (
            Row("argosy --version", "ms", (Target(5, (BARE,)),)),
            Row("argosy --help", "ms", (Target(5, (BARE,)),)),
        ),
        start,
        runs=21,
        quick=7,
        profile=where,
    ),
)
