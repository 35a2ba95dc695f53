"""`argosy completion`: the shell's completion script."""

from __future__ import annotations

import importlib

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      source <(argosy completion bash)
      argosy completion fish > ~/.config/fish/completions/argosy.fish
    """
    completions = importlib.import_module("click.shell_completion")
    kind = completions.get_completion_class(shell)
    print(kind(ctx.find_root().command, {}, "argosy", "_ARGOSY_COMPLETE").source())
