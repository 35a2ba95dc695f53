"""Commands that exit as the program in a container does, and in Docker's way where there is none."""

from __future__ import annotations

from typing import Any

import click

from argosy.cli import failure
from argosy.engine.container import Container
from argosy.engine.invoke import EXIT_ENGINE
from argosy.errors import ArgosyError, ContainerError


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


def explained(code: int, container: Container) -> int:
    """Tell what an exit code does not: that the kernel killed the program, or one of its own, for want of memory.

    Returns:
        The exit code.
    """
    if code and container.record.oom_killed:
        more = "a greater --memory" if container.record.options["memory"] else "more memory"
        failure.report(
            ContainerError(
                f"the kernel killed a process of container {container.record.name} for want of memory",
                hint=f"it needs {more}, or less to do",
            )
        )
    return code
