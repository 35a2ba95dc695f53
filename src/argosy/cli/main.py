"""The root of the command line: loads commands when they are called, and turns every failure into an exit code."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from argosy._version import __version__
from argosy.cli import failure
from argosy.cli.table import ALIASES, COMMANDS, children

_EPILOG = """\b
Places:  docker://registry/name:tag (or just registry/name:tag)
         oci:directory:tag   oci-archive:file.tar:tag   docker-archive:file.tar:name:tag   dir:directory
         ./path and /path are looked at: a layout, an archive, an image's directory.
         oci-archive:- and docker-archive:- are stdin or stdout.
Exit:    0 done, 1 failed, 2 not found, 3 not allowed, 4 verification failed, 5 rate limited, 64 wrong usage
"""


class Lazy(click.Group):
    """A group whose commands are lines of the table, imported when they are called."""

    def __init__(self, prefix: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the table's order."""
        return children(self.prefix)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or make the group below this one; with all its options."""
        return self._command(cmd_name, None)

    def _command(self, cmd_name: str, args: list[str] | None) -> click.Command | None:
        """As `get_command`, with the options that these arguments need."""
        name = cmd_name if self.prefix else ALIASES.get(cmd_name, cmd_name)
        full = f"{self.prefix} {name}".strip()
        entry = COMMANDS.get(full)
        if entry is None:
            return None
        if not entry.module:
            return Lazy(full, name=name, help=entry.help)
        found = getattr(importlib.import_module(f"argosy.cli.{entry.module}"), entry.attribute)
        assert isinstance(found, click.Command)
        # Loaded with a command and not before: `argosy --help` needs nothing of it.
        added: click.Command = importlib.import_module("argosy.cli.connections").added(found, args)
        return added

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; a name that is none gets ours for it suggested, or the nearest ones."""
        name = str(args[0])
        command = self._command(name, None if ctx.resilient_parsing else args[1:])
        if command is not None:
            return name, command, args[1:]
        if not name.startswith("-"):
            ctx.fail(f"there is no command '{name}'.{self._instead(ctx, args)}")
        return super().resolve_command(ctx, args)

    def _instead(self, ctx: click.Context, args: list[str]) -> str:
        ours = importlib.import_module("argosy.cli.peers").command(self.prefix, args)
        if ours:
            return f" Here it is {ours}."
        matches = importlib.import_module("difflib").get_close_matches
        known = self.list_commands(ctx) + ([] if self.prefix else [*ALIASES])
        near = matches(args[0], known, 3)
        if near:
            return f" Did you mean {' or '.join(near)}?"
        place = set(args[0]) & set("/:@") and "get" in known
        get = f", as in {ctx.command_path} get {args[0]}" if place else ""
        return f" Expected one of {', '.join(known)}{get}." if self.prefix else ""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """The commands that begin so, from the table: nothing is imported for it. Then options, as of any command."""
        item = importlib.import_module("click.shell_completion").CompletionItem
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        found = [item(name, help=COMMANDS[f"{self.prefix} {name}".strip()].help) for name in names]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by section, from the table: nothing is imported for it."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            entry = COMMANDS[f"{self.prefix} {name}".strip()]
            sections.setdefault(entry.section if not self.prefix else "Commands", []).append(
                (name, entry.help)
            )
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows, col_spacing=2)


@click.command(
    cls=Lazy,
    name="argosy",
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="argosy %(version)s")
def root() -> None:
    """Images, registries and containers of the Open Container Initiative.

    A command that takes a place takes every kind. Data goes to stdout, progress and errors to stderr.

    \b
    argosy cp alpine:3.20 oci:images:alpine      copy from a registry into a directory
    argosy inspect oci:images:alpine             see what it is
    argosy explain oci:images:alpine             see why it is what it says
    argosy COMMAND --help                        options and examples of one command
    """


def run(argv: Sequence[str]) -> NoReturn:
    """Run one command line and exit."""
    _stand_in()
    _know_home()
    _hear_signals()
    code = call(argv)
    if threading.active_count() == 1 and sys.getprofile() is None and sys.gettrace() is None:
        # What is left of a Python process that ends is 20 ms of freeing memory: the kernel is faster at that.
        with contextlib.suppress(OSError, ValueError):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):  # what could not be written was told by `call`
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def call(argv: Sequence[str]) -> int:
    """Run one command line.

    Returns:
        The exit code (see `failure.EXIT_CODES`).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What has no place in its encoding, such as a lone surrogate out of JSON, is shown by its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if "_ARGOSY_COMPLETE" in os.environ:
            importlib.import_module("argosy.cli.completion").answer(root)
            return 0
        # Not `root.main`: it turns a closed pipe into exit code 1.
        result = _invoked(list(argv))
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as exc:
        failure.say_all(exc.message)
        return failure.EXIT_USAGE
    except click.UsageError as exc:
        return _usage(exc)
    except click.ClickException as exc:
        failure.say(f"argosy: {exc.format_message()}")
        return failure.EXIT_USAGE
    except TerminatedError:
        failure.say("argosy: terminated")
        return failure.EXIT_TERMINATED
    except HungUpError:
        failure.say("argosy: hung up")
        return failure.EXIT_HUNG_UP
    except (click.Abort, KeyboardInterrupt):
        failure.say("argosy: interrupted")
        return failure.EXIT_INTERRUPTED
    except BrokenPipeError:
        failure.hush(1, 2)  # so that the interpreter's last flush is quiet
        return failure.EXIT_PIPE
    except Exception as exc:  # noqa: BLE001 - the one place where every failure becomes a line and a code
        return failure.report(exc)
    return result


def _invoked(argv: list[str]) -> int:
    if argv[:1] == ["help"]:  # as many tools have it
        argv = [*argv[1:], "--help"]
    try:
        with root.make_context("argosy", argv) as ctx:
            result = root.invoke(ctx)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    return result if isinstance(result, int) else 0


class TerminatedError(KeyboardInterrupt):
    """SIGTERM came. What is undone after Ctrl-C is undone after it."""


class HungUpError(KeyboardInterrupt):
    """SIGHUP came: the terminal or the session has gone. What is undone after Ctrl-C is undone after it."""


def _hear_signals() -> None:
    """Have SIGTERM and SIGHUP end a command in order, where nobody said otherwise (`nohup`); by themselves they leave
    what is half made.

    They count once: `timeout` sends one twice, and what is undone meanwhile must not be broken off. How children end is
    heard also where the caller did not want to know it of its own: that is handed on.
    """
    # `signal` makes enumerations of it, which is a millisecond of a start
    signals = importlib.import_module("_signal")
    default = signals.SIG_DFL
    signals.signal(signals.SIGCHLD, default)
    ends = {signals.SIGTERM: TerminatedError, signals.SIGHUP: HungUpError}

    def replace(before: Any, handler: Any) -> None:
        for number in ends:
            if signals.getsignal(number) == before:
                signals.signal(number, handler)

    def ended(number: int, _: object) -> NoReturn:
        replace(ended, lambda *_: None)
        raise ends[number]

    replace(default, ended)
    # What is half made is the parent's to undo.
    os.register_at_fork(after_in_child=lambda: replace(ended, default))


def _stand_in() -> None:
    """Put something in the place of standard streams that the caller closed, or the next file opened would be there.

    What is said on stderr goes nowhere, also where it is open and cannot be written; reading or writing one of the
    others fails, as it does in other programs.
    """
    for fd, (name, flags, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, flags)
            if opened != fd:
                os.dup2(opened, fd)
                os.close(opened)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115 - as long as the process lives
    encoding, errors = sys.stderr.encoding, sys.stderr.errors
    heard = io.BufferedWriter(_Stderr(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(heard, encoding, errors, line_buffering=True)


def _know_home() -> None:
    """Have `HOME` say where home is, also for a service that was started without: helpers and namespaces inherit it."""
    if not os.environ.get("HOME"):  # an empty one would make the root of the file system home
        os.environ.pop("HOME", None)
    home = os.path.expanduser("~")
    if home != "~":
        os.environ.setdefault("HOME", home)


class _Stderr(io.FileIO):
    """Takes what is said also where it cannot be written (a full disk): the command goes on, its exit code stands."""

    def write(self, data: Any, /) -> int:
        """As many bytes as were written, or else all: they are lost. A reader that has gone ends the command."""
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)


_STREAMS = (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w"))


def _usage(exc: click.UsageError) -> int:
    advice = ""
    if isinstance(exc, click.NoSuchOption):
        advice = importlib.import_module("argosy.cli.peers").option(exc)
    elif isinstance(exc, click.BadOptionUsage):
        advice = importlib.import_module("argosy.cli.peers").flag(exc)
    failure.say(f"argosy: {exc.message if advice else exc.format_message()}")
    path = exc.ctx.command_path if exc.ctx else "argosy"
    failure.say(f"hint: {advice or f'{path} --help'}")
    return getattr(exc.ctx and exc.ctx.command, "exit_usage", failure.EXIT_USAGE)
