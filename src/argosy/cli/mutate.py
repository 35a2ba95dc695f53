"""`argosy mutate`: change an image's configuration and annotations."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import click

from argosy.cli import files, making
from argosy.cli.options import (
    FILE,
    PLATFORM,
    arguments,
    many,
    one,
    pairs,
    pairs_or_removed,
    patterns,
    place_argument,
    platform_option,
    utf8,
)
from argosy.errors import UsageError
from argosy.image.configure import CLEARABLE, Changes
from argosy.image.derive import append_layer, mutate, remove_layers
from argosy.image.view import Image, ImageIndex
from argosy.locate import Location
from argosy.spec import _json
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform

# Option names, crane's first, then umoci's; what click makes of them.
_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-u", "--user", "--config.user", "user"), one("USER[:GROUP]", "Who the process runs as.")),
    (("-e", "--env", "--config.env", "env"), many("NAME=VALUE", "A variable; NAME- removes it.")),
    (("--entrypoint", "entrypoint"),
     many("WORD|JSON", "The entrypoint, an option a word or a JSON array; clears cmd.")),
    (("--config.entrypoint", "config_entrypoint"), many("WORD|JSON", "The entrypoint; cmd stays.")),
    (("--cmd", "--config.cmd", "cmd"), many("WORD|JSON", "The default arguments, an option a word or a JSON array.")),
    (("-l", "--label", "--config.label", "labels"), many("KEY=VALUE", "A label; KEY- removes it.")),
    (("-a", "--annotation", "--manifest.annotation", "annotations"),
     many("KEY=VALUE", "An annotation of the manifest; KEY- removes it.")),
    (("-w", "--workdir", "--config.workingdir", "workdir"), one("PATH", "The working directory.")),
    (("--exposed-ports", "--config.exposedports", "ports"), many("PORT[/PROTOCOL]", "A port; PORT- removes it.")),
    (("--volume", "--config.volume", "volumes"), many("PATH", "A volume; PATH- removes it.")),
    (("--stop-signal", "--config.stopsignal", "stop_signal"), one("SIGNAL", "What stops a container.")),
    (("--created", "created"), one("TIME", "RFC 3339, or seconds since 1970.")),
    (("--author", "author"), one("TEXT", "Who made the image.")),
    (("--set-platform", "set_platform"), {"type": PLATFORM, "help": "What the image runs on."}),
    (("--platform.os", "--os", "os"), one("OS", "The operating system alone.")),
    (("--platform.arch", "--architecture", "arch"), one("ARCH", "The architecture alone.")),
    (("--platform.variant", "variant"), one("VARIANT", "The architecture's variant alone.")),
    (("--set", "properties"), many("NAME=JSON", "Any other property, such as config.Healthcheck; null removes it.")),
    (("--clear", "clear"),
     {"multiple": True, "type": click.Choice([*CLEARABLE, "manifest.annotations"]),
      "help": "Empty a property before anything is set."}),
    (("--layer-rm-index", "rm_index"),
     {**many("N", "Take a layer away, counted from 0, the lowest."), "type": click.IntRange(0)}),
    (("--layer-rm-created-by", "rm_created_by"), many("REGEX", "Take the layers away whose history has this in it.")),
    (("--append", "append"), {**many("FILE", "A tar as new layer; - is stdin."), "type": FILE}),
    (("--no-history", "no_history"), {"is_flag": True, "help": "Add no step to the history."}),
)  # fmt: skip


def _options(command: Any) -> Any:
    for names, settings in reversed(_OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


@click.command()
@place_argument
@_options
@platform_option
@making.history_options
@making.destination_options
@making.redone
def command(
    place: Location,
    platform: Platform | None,
    history: dict[str, str],
    destination: making.Destination,
    rm_index: tuple[int, ...],
    rm_created_by: tuple[str, ...],
    append: tuple[str, ...],
    no_history: bool,
    **given: Any,
) -> None:
    """Change an image's configuration and annotations. The digest changes, the layers stay but for those taken away.

    Of an index without --platform, every image is changed.

    \b
    Examples:
      argosy mutate oci:images:app --env TZ=UTC --label build=7 -t v2
      argosy mutate registry.example/app:v1 --entrypoint '["/app"]' -t registry.example/app:v2
    """
    if no_history and history:
        raise UsageError("--no-history and --history.* exclude each other")
    wanted, made_by = changes(given), patterns(rm_created_by)
    step = None if no_history else making.step(history, "argosy mutate")

    def change(image: Image) -> Image:
        if rm_index or made_by:
            image = remove_layers(image, rm_index, made_by)
        for path in append:
            with files.opened(path) as file, files.blamed(path):
                image = append_layer(image, file, history=_appended(path))
        return mutate(image, _narrowed(wanted, given, image), history=step)

    with making.opened(place, platform, destination) as view:
        files.check_readable(append, again=isinstance(view, ImageIndex))
        made = making.changed(view, change)
        if isinstance(view, ImageIndex) and isinstance(made, ImageIndex):
            _check_apart(view, made)
        making.put(made, place, destination)


def _check_apart(old: ImageIndex, new: ImageIndex) -> None:
    """See that images of an index which ran on different platforms still do."""
    before, after = ([entry.platform for entry in index.leaves()] for index in (old, new))
    if len(set(after)) < len(set(before)):
        raise UsageError(
            f"several images of the index {old.digest} would run on the same platform",
            hint="choose one with --platform, and name it with -t",
        )


def _appended(path: str) -> History:
    told = f"argosy mutate --append {path}"
    return History(created_by=told.encode(errors="replace").decode())


def changes(given: dict[str, Any]) -> Changes:
    """What the options ask for."""
    for text in _texts(given):
        utf8(text)
    ports, no_ports = _with_removed(given["ports"])
    volumes, no_volumes = _with_removed(given["volumes"])
    entrypoint = arguments(given["entrypoint"])
    clear = set(given["clear"])
    if entrypoint is not None:
        clear.add("config.cmd")
    else:
        entrypoint = arguments(given["config_entrypoint"])
    return Changes(
        user=given["user"],
        env=pairs_or_removed(given["env"], "--env", "NAME=VALUE"),
        entrypoint=entrypoint,
        cmd=arguments(given["cmd"]),
        labels=pairs_or_removed(given["labels"], "--label"),
        annotations=pairs_or_removed(given["annotations"], "--annotation"),
        working_dir=given["workdir"],
        exposed_ports=ports,
        removed_ports=no_ports,
        volumes=volumes,
        removed_volumes=no_volumes,
        stop_signal=given["stop_signal"],
        created=making.time(given["created"]) if given["created"] else None,
        author=given["author"],
        platform=given["set_platform"],
        properties=_properties(given["properties"]),
        clear=frozenset(clear),
    )


def _texts(given: dict[str, Any]) -> Iterator[str]:
    for value in given.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):
            yield from value


def _narrowed(wanted: Changes, given: dict[str, Any], image: Image) -> Changes:
    """umoci's options for one part of the platform, the other parts being the image's own."""
    parts = {"os": given["os"], "architecture": given["arch"], "variant": given["variant"]}
    parts = {name: value for name, value in parts.items() if value is not None}
    if not parts:
        return wanted
    return dataclasses.replace(
        wanted, platform=dataclasses.replace(wanted.platform or image.platform, **parts)
    )


def _with_removed(values: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    added = tuple(value for value in values if not value.endswith("-"))
    return added, tuple(value[:-1] for value in values if value.endswith("-"))


def _properties(values: tuple[str, ...]) -> dict[str, object]:
    return {
        name: _json.loads(value.encode(), error=UsageError)
        for name, value in pairs(values, "--set", "NAME=JSON").items()
    }
