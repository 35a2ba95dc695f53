"""Measure argosy beside the tools people use, and write what was found to `docs/benchmarks.md`.

    python bench/run.py [--quick] [--runs N] [--only NAME ...] [--list] [--work DIRECTORY] [--output FILE]

Peers are looked for on PATH and in the directory $ARGOSY_PEERS; a missing one is named in the result. All work is on
this machine: servers listen on loopback, and every load is bounded in count and time.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import report
from harness import Result, Stage, Study, find, measured
from studies import client, command, distance, layers, registry, runtime

import argosy

STUDIES: tuple[Study, ...] = (
    *command.STUDIES,
    *layers.STUDIES,
    *client.STUDIES,
    *distance.STUDIES,
    *registry.STUDIES,
    *runtime.STUDIES,
)
DOCS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"


def chosen(names: list[str]) -> list[Study]:
    """The studies that are named, or that have a row or a module of that name; all when none is."""
    known = {
        study: {study.name, *(row.name for row in study.rows), group(study)} for study in STUDIES
    }
    for name in names:
        if not any(name in words for words in known.values()):
            raise SystemExit(f"--only {name}: no such study or row; see --list")
    return [study for study in STUDIES if not names or known[study] & set(names)]


def group(study: Study) -> str:
    """The module a study stands in."""
    return study.prepare.__module__.rpartition(".")[2]


def listing(studies: list[Study]) -> Iterator[str]:
    """Studies, their rows and targets, and the peers that are missing."""
    for study in studies:
        missing = [peer for peer in study.peers if find(peer) is None]
        yield f"{group(study)}: {study.name}: {study.says}" + "".join(
            f" ({peer}: not installed)" for peer in missing
        )
        for row in study.rows:
            targets = "; ".join(target.says(row.unit) for target in row.targets)
            yield f"    {row.name} [{row.unit}] {targets}".rstrip()


def room() -> str:
    """Where inputs are made: in memory when there is a RAM disk with enough left, so that no disk is measured."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK):
        free = os.statvfs(memory)
        if free.f_bavail * free.f_frsize > 8 << 30:
            return str(memory)
    return tempfile.gettempdir()


def part(given: argparse.Namespace) -> str:
    """What a run leaves out, in words; empty for a whole one."""
    said = [f"{given.runs} turns of each contender"] if given.runs else []
    return ", ".join([*said, *(["only some studies"] if given.only else [])])


def compiled() -> None:
    """Make the code as it is when installed: compiled."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    source = str(Path(argosy.__file__).parent)
    subprocess.run([sys.executable, "-m", "compileall", "-q", source], check=True)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few runs, small inputs")
    parser.add_argument("--runs", type=int, metavar="N", help="so many turns of each contender")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    parser.add_argument("--list", action="store_true", help="only say what would be measured")
    parser.add_argument("--work", help="directory for inputs  [default: a RAM disk]")
    parser.add_argument("--output", type=Path, help="Markdown file  [default: docs/benchmarks.md]")
    return parser.parse_args()


def main() -> None:
    """Run what is asked for."""
    given = options()
    studies = chosen(given.only)
    if given.list:
        print("\n".join(listing(studies)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are stopped, inputs removed
    compiled()
    results: list[Result] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="argosy-bench-", dir=given.work or room()) as work:
        stage = Stage(Path(work), given.quick, given.runs)
        for study in studies:
            since = time.monotonic()
            print(f"{study.name} ...", file=sys.stderr, flush=True)
            results.append(measured(study, stage))
            print("\n".join(report.plain(results[-1])), flush=True)
            print(f"    {time.monotonic() - since:.0f} s", file=sys.stderr, flush=True)
    whole = not (given.quick or given.only or given.runs)
    output = given.output or (DOCS if whole else None)
    text = report.markdown(
        results, seconds=time.monotonic() - began, quick=given.quick, partial=part(given)
    )
    if output is not None:
        output.write_text(text)
        print(f"written: {output}", file=sys.stderr)
    missed = sum(result.missed() for result in results)
    print(f"{len(results)} studies, {missed} with a target missed", file=sys.stderr)


if __name__ == "__main__":
    main()
