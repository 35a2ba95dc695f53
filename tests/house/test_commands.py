"""What holds of every command: how its options are named, and that it takes those that it needs."""

from __future__ import annotations

import click
import pytest

from argosy.cli import connections, reference
from argosy.remote.config import Options

COMMANDS = dict(reference.commands())
every_command = pytest.mark.parametrize("name", COMMANDS)

OF_THIS_MACHINE = {
    "completion", "version",
    "bundle diff", "bundle validate", "layout init", "layout ls", "layout gc", "layout fsck",
    "serve", "registry check-config", "registry schema", "registry gc", "registry scrub", "registry rebuild",
    "registry backup", "registry stats", "registry migrate", "registry dead-letters", "registry retention",
    "spec", "runtime-check", "ps", "logs", "exec", "start", "stop", "kill", "wait",
    "images", "rmi", "prune",
}  # fmt: skip
"""The commands that ask no registry anything."""


def options(name: str) -> list[click.Option]:
    return [param for param in COMMANDS[name].params if isinstance(param, click.Option)]


@every_command
def test_whoever_may_talk_to_a_registry_is_told_how(name: str) -> None:
    taken = {opt for option in options(name) for opt in option.opts}
    assert ("--creds" in taken) == (name not in OF_THIS_MACHINE)


@every_command
def test_options_say_what_they_take_in_a_word_of_their_own(name: str) -> None:
    ctx = click.Context(COMMANDS[name])
    told = {option.make_metavar(ctx) for option in options(name) if not option.is_flag}
    assert not told & {"INTEGER", "INTEGER RANGE", "FLOAT", "FLOAT RANGE", "FILENAME", "PLATFORM"}


@every_command
def test_options_say_their_defaults(name: str) -> None:
    for option in options(name):
        default = option.get_default(click.Context(COMMANDS[name]), call=False)
        unsaid = isinstance(default, (str, int, float)) and not (
            option.is_flag or option.show_default
        )
        assert not unsaid or default in {"", 0, "-", "auto"}, f"{option.opts}: {default!r}"


@pytest.mark.parametrize("name", ["timeout", "retry", "retry-delay", "max-wait"])
def test_the_defaults_of_a_client_are_those_that_are_told(name: str) -> None:
    (told,) = (s.help for s in connections.SETTINGS if s.name == name)
    field = {"retry": "attempts"}.get(name, name.replace("-", "_"))
    assert f"[default: {getattr(Options(), field) - (name == 'retry'):g}]" in told
