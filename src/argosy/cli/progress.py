"""Progress on stderr: bars on a terminal, a line a blob elsewhere, JSON lines for machines.

Nothing of it is loaded when nothing is shown; `rich` only on a terminal.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from argosy.cli.output import size
from argosy.content.events import (
    Copied,
    Event,
    Mounted,
    OnEvent,
    Planned,
    Progressed,
    Skipped,
    Tagged,
    ignore,
)
from argosy.spec.descriptor import Descriptor

STYLES = ("auto", "tty", "plain", "json", "none")

progress_option = click.option(
    "--progress",
    type=click.Choice(STYLES),
    default="auto",
    envvar="ARGOSY_PROGRESS",
    help="How to show progress on stderr; auto is bars on a terminal, lines elsewhere.",
)


@contextlib.contextmanager
def shown(style: str = "auto", *, quiet: bool = False) -> Iterator[OnEvent]:
    """Show what `copy` tells, until the block ends.

    Args:
        style: One of `STYLES`.
        quiet: Show nothing, whatever the style.
    """
    if quiet or style == "none":
        yield ignore
        return
    if style == "auto":
        style = "tty" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    with _SHOWN[style]() as on_event:
        yield on_event


def _name(desc: Descriptor) -> str:
    kind = "manifest" if desc.is_manifest() else "blob"
    return f"{kind} {desc.digest.algorithm}:{desc.digest.encoded[:12]}"


_WORDS: dict[type, str] = {Copied: "copied", Mounted: "mounted"}


@contextlib.contextmanager
def _plain() -> Iterator[OnEvent]:
    """A line when something is done, with the time it took since the start."""
    begun = time.monotonic()

    def on_event(event: Event) -> None:
        if isinstance(event, Tagged):
            text = f"tagged {event.tag} {event.descriptor.digest}"
        elif isinstance(event, Skipped):
            text = f"{_name(event.descriptor)} {event.reason}"
        elif type(event) in _WORDS:
            text = (
                f"{_name(event.descriptor)} {_WORDS[type(event)]} ({size(event.descriptor.size)})"
            )
        else:
            return
        print(f"{time.monotonic() - begun:6.1f}s {text}", file=sys.stderr, flush=True)

    yield on_event


@contextlib.contextmanager
def _json() -> Iterator[OnEvent]:
    """An object a line: `event`, `digest`, `size`, and what else the event has. Progress at most ten times a second."""
    told: dict[str, float] = {}

    def on_event(event: Event) -> None:
        desc = event.descriptor
        line: dict[str, object] = {
            "event": type(event).__name__.lower(),
            "digest": desc.digest,
            "mediaType": desc.media_type,
            "size": desc.size,
        }
        if isinstance(event, Progressed):
            now = time.monotonic()
            if now - told.get(desc.digest, 0.0) < 0.1 and event.done < desc.size:
                return
            told[desc.digest] = now
            line["done"] = event.done
        else:
            told.pop(desc.digest, None)
        if isinstance(event, Skipped):
            line["reason"] = event.reason
        elif isinstance(event, Tagged):
            line["tag"] = event.tag
        print(json.dumps(line), file=sys.stderr, flush=True)

    yield on_event


@contextlib.contextmanager
def _tty() -> Iterator[OnEvent]:
    """A bar a blob, with speed and remaining time; what is done moves up as a line."""
    rich: Any = importlib.import_module("rich.progress")
    console: Any = importlib.import_module("rich.console").Console(stderr=True)
    bars = rich.Progress(
        rich.TextColumn("{task.description}"),
        rich.BarColumn(bar_width=None),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    tasks: dict[str, Any] = {}

    def on_event(event: Event) -> None:
        desc = event.descriptor
        if isinstance(event, Planned):
            return
        if isinstance(event, Progressed):
            if desc.digest not in tasks:
                tasks[desc.digest] = bars.add_task(_name(desc), total=desc.size)
            bars.update(tasks[desc.digest], completed=event.done)
            return
        if desc.digest in tasks:
            bars.remove_task(tasks.pop(desc.digest))
        word = (
            event.reason
            if isinstance(event, Skipped)
            else f"tagged {event.tag}"
            if isinstance(event, Tagged)
            else _WORDS[type(event)]
        )
        console.print(f"{_name(desc)} {word} ({size(desc.size)})", highlight=False, markup=False)

    with bars:
        yield on_event


_SHOWN = {"plain": _plain, "json": _json, "tty": _tty}
