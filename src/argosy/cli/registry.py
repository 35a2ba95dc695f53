"""`argosy registry …`: looking after a registry. They work beside a running one, or without one."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from typing import Any

import click

from argosy.cli.options import json_option
from argosy.cli.output import document, lines, table
from argosy.cli.serving import config_option, configuration, data_option, with_metadata
from argosy.errors import StorageError, UsageError
from argosy.server import config as configs
from argosy.server import journal, retention
from argosy.server.assemble import fresh_metadata, open_metadata, open_storage
from argosy.server.auth.policy import Policy
from argosy.server.gc import Upkeep
from argosy.server.metadata import Metadata, collect
from argosy.server.metadata.outbox import Change
from argosy.server.settings import Settings

_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


def _upkeep(settings: Settings, metadata: Metadata) -> Upkeep:
    return Upkeep(metadata, open_storage(settings), settings.gc, time.time)


def _show(value: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        document(value)
        return
    table([(name.replace("_", " "), _plain(found)) for name, found in value.items()])


def _plain(found: object) -> str:
    return f"{found:g}" if isinstance(found, float) else str(found)


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file.

    \b
    Example:
      argosy registry schema > registry.schema.json
    """
    print(configs.published(), end="")


@click.command()
@config_option
@data_option
@_dry_run
@json_option
def gc(config: str | None, data: str | None, dry_run: bool, as_json: bool) -> None:
    """Collect what nothing refers to and whose grace is over. A running registry does this by itself.

    \b
    Examples:
      argosy registry gc --dry-run
      argosy registry gc --data /srv/registry --json
    """
    settings = configuration(config, data)
    report = with_metadata(settings, lambda m: _upkeep(settings, m).collect(dry_run=dry_run))
    _show(dataclasses.asdict(report), as_json=as_json)


@click.command()
@config_option
@data_option
@json_option
def scrub(config: str | None, data: str | None, as_json: bool) -> None:
    """Read all blobs again and mark the damaged ones; pushing them again heals them, and so does a scrub that finds
    their bytes right. Exit code 4 if any is damaged or cannot be read.

    \b
    Example:
      argosy registry scrub --data /srv/registry
    """
    settings = configuration(config, data)
    report = with_metadata(
        settings, lambda m: _upkeep(settings, m).scrub(older_than=0.0, most_bytes=1 << 62)
    )
    _show(dataclasses.asdict(report), as_json=as_json)
    if report.damaged or report.unreadable:
        click.get_current_context().exit(4)


@click.command()
@config_option
@data_option
@json_option
def rebuild(config: str | None, data: str | None, as_json: bool) -> None:
    """Make a lost database again from the journal in the storage. The database must be empty, and nobody use it. What
    cannot be read of the journal is left out; exit code 4 if there is such. A run that fails leaves no SQLite database.

    \b
    Example:
      argosy registry rebuild --data /srv/registry
    """
    settings = configuration(config, data)
    root = settings.storage.root or os.path.join(settings.data or "", "blobs")
    if settings.storage.type == "filesystem" and not os.path.isdir(root):
        raise StorageError(f"no storage of a registry: {root} is not there", hint="is it mounted?")

    async def run() -> journal.Rebuilt:
        with fresh_metadata(settings) as metadata:
            return await journal.rebuild(metadata, open_storage(settings))

    report = asyncio.run(run())
    _show(dataclasses.asdict(report), as_json=as_json)
    if report.damaged:
        click.get_current_context().exit(4)


@click.command()
@config_option
@data_option
@click.argument("file", type=click.Path(dir_okay=False))
def backup(config: str | None, data: str | None, file: str) -> None:
    """Copy the SQLite database to a new file while the registry runs.

    \b
    Example:
      argosy registry backup --data /srv/registry /backup/registry.db
    """
    settings = configuration(config, data)
    with_metadata(settings, lambda m: m.backup(file))
    print(file)


@click.command()
@config_option
@data_option
@json_option
def stats(config: str | None, data: str | None, as_json: bool) -> None:
    """Show how much of everything there is.

    \b
    Example:
      argosy registry stats --json
    """
    settings = configuration(config, data)
    found = with_metadata(settings, lambda m: m.read(lambda tx: collect.figures(tx, time.time())))
    _show(found, as_json=as_json)


@click.command()
@config_option
@data_option
def migrate(config: str | None, data: str | None) -> None:
    """Bring the database to the schema this argosy works with. PostgreSQL's is changed by nothing else.

    \b
    Example:
      argosy registry migrate --config registry.yaml
    """
    settings = configuration(config, data)
    chosen = settings.metadata.postgresql
    if settings.metadata.type == "postgresql" and chosen is not None:
        from argosy.server.metadata import postgresql

        before, after = postgresql.migrate(chosen.dsn)
        print(f"schema version {before or 'none'} -> {after}")
        return
    open_metadata(settings).close()
    print("SQLite databases are brought up to date when they are opened")


@click.command(name="retention")
@config_option
@data_option
@_dry_run
@json_option
def retain(config: str | None, data: str | None, dry_run: bool, as_json: bool) -> None:
    """Let go the tags that the policy's retention rules let go.

    \b
    Example:
      argosy registry retention --config registry.yaml --dry-run
    """
    settings = configuration(config, data)
    if settings.access.policy is None:
        raise UsageError("no policy file is configured", hint="access.policy names it")
    policy, rules = Policy.load(settings.access.policy), settings.gc
    change = Change(time.time(), rules.grace_seconds, "retention", "", rules.trash_seconds)
    gone = with_metadata(settings, lambda m: retention.retain(m, policy, change, dry_run=dry_run))
    if as_json:
        document([tag._asdict() for tag in gone])
    else:
        lines(f"{tag.repository}:{tag.tag} {tag.digest}" for tag in gone)
