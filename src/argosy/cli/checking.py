"""`argosy registry check-config`: reads what a registry would read, which loads more than looking after one does."""

from __future__ import annotations

import sys

import click

from argosy.cli.failure import printable
from argosy.cli.serving import environment
from argosy.errors import UsageError
from argosy.server import checks, config


@click.command("check-config")
@click.argument("file", type=click.Path(dir_okay=False))
def check_config(file: str) -> None:
    """Say what is wrong with a configuration file and the files it names, every problem on a line of its own.

    \b
    Example:
      argosy registry check-config registry.yaml
    """
    problems = config.check_config(file, environment())
    if not problems:
        settings = config.load(file, environment())
        problems = [f"{file}: {problem}" for problem in checks.problems(settings)]
    for problem in problems:
        print(printable(problem), file=sys.stderr)
    if problems:
        raise UsageError(f"{file}: {len(problems)} problem{'s' * (len(problems) > 1)}")
    print(f"{file}: good")
