"""What was measured, as lines for a terminal and as Markdown."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import OURS, Result, Row, argosy, find, told

VERSIONS = {
    "registry": ["--version"],
    "docker-registry": ["--version"],
    "zot": ["--version"],
    "crane": ["version"],
    "skopeo": ["--version"],
    "oras": ["version"],
    "regctl": ["version"],
    "umoci": ["--version"],
    "runc": ["--version"],
    "crun": ["--version"],
    "wrk": ["-v"],
    "tar": ["--version"],
}
VERSION = r"(v?\d+\.\d+(?:\.\d+)?[\w.+~-]*)"
PATTERNS = {"zot": '"commit":"([^"]+)"'}
NAMES = {"registry": "distribution"}

INTRODUCTION = """\
# Benchmarks

Measured by `make bench` (`bench/run.py`), written by it, not by hand. Contenders take turns on the same work on the
same machine; a value is the median of whole processes or of servers under the same client, with the smallest and the
largest in brackets. *Ratio* is argosy's median to the peer's: of times and memory less than 1 is better, of rates more
than 1. A verdict compares medians with the target; a missed target is followed by a profile.
"""


def number(value: float) -> str:
    """Three significant digits, and never an exponent."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(values: Sequence[float]) -> str:
    """Median and spread."""
    low, high = min(values), max(values)
    return f"{number(statistics.median(values))} ({number(low)}-{number(high)})"


def ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """Argosy's median to each peer's."""
    ours = medians.get(OURS)
    if ours is None:
        return {}
    return {name: ours / value for name, value in medians.items() if name != OURS and value}


def verdicts(result: Result, row: Row) -> str:
    """Each target of a row with what became of it."""
    return "; ".join(
        f"{target.says(row.unit)}: {result.verdict(row, target)}" for target in row.targets
    )


def plain(result: Result) -> Iterator[str]:
    """A study for a terminal."""
    if result.skipped:
        yield f"{result.study.name}: {result.skipped}"
    yield from (f"    {note}" for note in result.notes)
    for row in result.study.rows:
        values = result.values.get(row.name, {})
        medians = result.medians(row)
        got = ", ".join(f"{name} {cell(each)}" for name, each in values.items())
        beside = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in ratios(medians).items())
        yield f"{row.name} [{row.unit}]: {got or 'not measured'}"
        if beside or row.targets:
            yield f"    {beside}   {verdicts(result, row)}".rstrip()


def markdown(results: Sequence[Result], *, seconds: float, quick: bool, partial: str = "") -> str:
    """The whole page."""
    lines = [INTRODUCTION]
    if quick:
        lines.append("**A quick run: few turns, small inputs; its verdicts say little.**\n")
    if partial:
        lines.append(f"**Not the whole: {partial}.**\n")
    lines += ["## Machine and versions", "", *machine(), "", *versions(), ""]
    lines.append(f"The whole took {seconds / 60:.0f} minutes.\n")
    lines += ["## Targets", "", *targets(results), ""]
    for result in results:
        lines += section(result)
    return "\n".join(lines).rstrip() + "\n"


def targets(results: Sequence[Result]) -> Iterator[str]:
    """Every target with its verdict."""
    yield "| row | argosy | target | verdict |"
    yield "|---|---|---|---|"
    for result in results:
        for row in result.study.rows:
            ours = result.values.get(row.name, {}).get(OURS)
            for target in row.targets:
                value = f"{cell(ours)} {row.unit}" if ours else result.skipped or "-"
                verdict = result.skipped or result.verdict(row, target)
                shown = f"**{verdict}**" if verdict == "missed" else verdict
                yield f"| {row.name} | {value} | {target.says(row.unit)} | {shown} |"


def section(result: Result) -> Iterator[str]:
    """A study's table, and its profile when it has one."""
    yield f"## {result.study.name.capitalize()}"
    yield ""
    yield result.study.says
    yield ""
    names = list(dict.fromkeys(name for each in result.values.values() for name in each))
    if names:
        yield "| row | " + " | ".join(names) + " | ratio |"
        yield "|---|" + "---|" * (len(names) + 1)
    for row in result.study.rows if names else ():
        values = result.values[row.name]
        cells = [cell(values[name]) if name in values else "-" for name in names]
        beside = ", ".join(f"{one:.2f} {name}" for name, one in ratios(result.medians(row)).items())
        yield f"| {row.name}, {row.unit} | " + " | ".join(cells) + f" | {beside or '-'} |"
    if result.skipped:
        yield f"Not measured: {result.skipped}."
    yield from (f"\n{NAMES.get(peer, peer)}: not installed." for peer in result.missing)
    yield from (f"\n{note}" for note in result.notes)
    if result.profile:
        yield f"\nA target was missed. Where the time goes:\n\n```\n{result.profile}\n```"
    yield ""


def machine() -> Iterator[str]:
    """Processor, cores, memory, kernel, and how busy the machine was."""
    info = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", info)
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024 / 1e9
    yield f"- {model[1] if model else platform.machine()}, {os.cpu_count()} cores, {total:.0f} GB"
    yield f"- Linux {platform.release()}, Python {platform.python_version()}"
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    yield f"- load average at the end (1, 5, 15 minutes): {load}"


def versions() -> Iterator[str]:
    """One line for each program; a missing one by its name."""
    yield f"- {told(argosy('--version')).strip()}"
    for program, words in VERSIONS.items():
        name = NAMES.get(program, program)
        path = find(program)
        if path is None:
            yield f"- {name}: not installed"
            continue
        found = re.search(PATTERNS.get(program, VERSION), told([path, *words]))
        yield f"- {name} {found[1] if found else '(does not say its version)'}"
