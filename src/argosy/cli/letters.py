"""`argosy registry dead-letters`: the events that webhooks were not told."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import click

from argosy.cli.options import json_option
from argosy.cli.output import document, table
from argosy.cli.serving import config_option, configuration, data_option, with_metadata
from argosy.errors import ArgosyError, UsageError
from argosy.server.metadata import Metadata, deliveries
from argosy.server.metadata.deliveries import WEBHOOK, DeadLetter
from argosy.server.settings import Settings
from argosy.server.webhooks import post

_MOST = 10_000


@click.command("dead-letters")
@config_option
@data_option
@click.option("--replay", is_flag=True, help="Tell them to their webhooks now, the oldest first.")
@click.option("--drop", is_flag=True, help="Delete them.")
@json_option
def letters(config: str | None, data: str | None, replay: bool, drop: bool, as_json: bool) -> None:
    """List the events that webhooks were not told because all tries failed, the newest first. They are kept for
    `events.dead_letter_seconds`, `events.dead_letters` of them at most.

    Those that are told by --replay are deleted; it ends at the first one that fails again, and leaves out webhooks that
    are not configured any more. At most 10000 are taken at a time.

    \b
    Examples:
      argosy registry dead-letters --config registry.yaml
      argosy registry dead-letters --config registry.yaml --replay
    """
    if replay and drop:
        raise UsageError("--replay and --drop exclude each other")
    settings = configuration(config, data)

    async def work(metadata: Metadata) -> list[DeadLetter]:
        found = await metadata.read(lambda tx: deliveries.dead_letters(tx, _MOST))
        for letter in reversed(found) if replay else ():
            await _tell(settings, metadata, letter)
        for letter in found if drop else ():
            await _bury(metadata, letter)
        return found

    found = with_metadata(settings, work)
    if as_json:
        document([_shown(letter) for letter in found])
    elif found:
        rows = [(_moment(one), _name(one), one.event, one.problem) for one in found]
        table(rows, ("WHEN", "WEBHOOK", "EVENT", "PROBLEM"))


async def _tell(settings: Settings, metadata: Metadata, letter: DeadLetter) -> None:
    sink = next((sink for sink in settings.events.sinks if sink.name == _name(letter)), None)
    if sink is None:
        return
    try:
        post(sink, letter.body.encode())
    except ArgosyError as exc:
        exc.add_note(f"event {letter.event} for {sink.name}")
        raise
    await _bury(metadata, letter)


async def _bury(metadata: Metadata, letter: DeadLetter) -> None:
    await metadata.write(lambda tx: deliveries.bury(tx, letter))


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {
        "webhook": _name(letter),
        "event": letter.event,
        "at": _moment(letter),
        "problem": letter.problem,
        "body": json.loads(letter.body),
    }


def _name(letter: DeadLetter) -> str:
    return letter.consumer.removeprefix(WEBHOOK)


def _moment(letter: DeadLetter) -> str:
    return dt.datetime.fromtimestamp(letter.at, dt.UTC).isoformat(timespec="seconds")
