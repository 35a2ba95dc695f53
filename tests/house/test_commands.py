"""What holds of every command: how its options are named, and that it takes those that it needs."""

from __future__ import annotations

import click
import pytest

from argosy.cli import reference

COMMANDS = dict(reference.commands())
every_command = pytest.mark.parametrize("name", COMMANDS)

OF_THIS_MACHINE = {
    "completion", "version",
    "bundle diff", "bundle validate", "layout init", "layout ls", "layout gc", "layout fsck",
    "serve", "registry check-config", "registry schema", "registry gc", "registry scrub", "registry rebuild",
    "registry backup", "registry stats", "registry migrate", "registry dead-letters", "registry retention",
    "spec", "runtime-check", "ps", "logs", "exec", "stop", "images", "rmi", "prune",
}  # fmt: skip
"""The commands that ask no registry anything."""


def options(name: str) -> list[click.Option]:
    return [param for param in COMMANDS[name].params if isinstance(param, click.Option)]


@every_command
def test_whoever_may_talk_to_a_registry_is_told_how(name: str) -> None:
    taken = {opt for option in options(name) for opt in option.opts}
    assert ("--creds" in taken) == (name not in OF_THIS_MACHINE)
