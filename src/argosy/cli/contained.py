"""Commands that exit as the program in a container does, and in Docker's way where there is none."""

from __future__ import annotations

from typing import Any

import click

from argosy.cli import failure
from argosy.engine.invoke import EXIT_ENGINE
from argosy.errors import ArgosyError


class Command(click.Command):
    """What fails before the program runs is 125, be it the command line; 126 and 127 are as Docker has them."""

    exit_usage = EXIT_ENGINE

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what fails is told, and its exit code is the result."""
        try:
            return super().invoke(ctx)
        except (ArgosyError, OSError) as exc:
            failure.report(exc)
            return getattr(exc, "exit_code", EXIT_ENGINE)
