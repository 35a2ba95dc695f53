"""`argosy ps|logs|start|stop|kill|wait|exec`: containers of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Callable

import click

from argosy.cli import contained, containerfilter, containerformat, engine, failure
from argosy.cli.images import ago
from argosy.cli.options import environment, json_option
from argosy.cli.output import document, lines, table
from argosy.engine import logfile, rootless
from argosy.engine.configure import find_user, one_more
from argosy.engine.container import Container, End
from argosy.engine.invoke import Runtime, meaning, status_of, words
from argosy.engine.places import Places
from argosy.engine.streams import run_attached, run_signalled
from argosy.engine.values import signal_number
from argosy.errors import ArgosyError, ContainerStatusError, ContainerUnknownError, UsageError

_FOLLOW = 0.2
"""Seconds between two looks at a log that is followed."""


@click.command()
@click.option("-a", "--all", "every", is_flag=True, help="Also those that have ended.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="Only those of this id, name (an expression), label, status or ancestor (an image).",
)
@click.option(
    "-n", "--last", metavar="N", type=click.IntRange(0), help="Only the N newest, ended or not."
)
@click.option("-l", "--latest", "last", flag_value=1, help="Only the newest, ended or not.")
@click.option("-q", "--quiet", is_flag=True, help="Only ids.")
@click.option(
    "--format",
    "template",
    metavar="TEMPLATE",
    help="A line for each by a template of Go's with the fields of Docker's, as in {{.Names}} {{.Status}}.",
)
@json_option
def ps(
    every: bool,
    filters: tuple[str, ...],
    last: int | None,
    quiet: bool,
    template: str | None,
    as_json: bool,
) -> int | None:
    """List containers.

    Of several filters with the same key one must fit, of labels all. Those for a status find containers that have
    ended, too.

    One is `orphaned` where the process that watched it was killed and it runs on, and `dead` where it does not: nobody
    knows its exit code. `argosy prune` removes both. Of one that is `damaged` the record cannot be read; `argosy rm -f`
    removes it.

    \b
    Examples:
      argosy ps -a
      argosy ps -q --filter label=job=17 --filter status=running
      argosy ps -lq
      argosy ps -a --format '{{.ID}} {{.Names}} {{.Status}}'
    """
    template = template and containerformat.template_of(template)
    wanted = containerfilter.parse(filters)
    every = every or last is not None or "status" in wanted
    found = [
        c
        for c in Container.every(engine.places(), damaged=True)
        if (every or status_of(c) not in ("exited", "dead")) and containerfilter.fits(c, wanted)
    ][:last]
    if quiet:
        lines(c.id for c in found)
    elif template:
        for one in found:
            print(containerformat.filled(template, one))
    elif as_json:
        document([_plain(c) for c in found])
    else:
        header = ("container", "image", "command", "created", "status", "ports", "name")
        table([_row(c) for c in found], header)
    return None


def _row(container: Container) -> tuple[str, ...]:
    record = container.record
    status = status_of(container)
    if status == "exited":
        why = ", out of memory" if record.oom_killed else ""
        status = f"exited ({record.exit_code}{why})"
    return (
        container.id[:12], record.image.removeprefix("docker.io/library/"), words(record.command)[:40],
        ago(record.created) if record.created else "-", status, ", ".join(containerformat.ports(container)),
        record.name,
    )  # fmt: skip


def _plain(container: Container) -> dict[str, object]:
    record = container.record
    return {
        "Id": container.id,
        "Name": record.name,
        "Image": record.image,
        "ImageID": record.digest,
        "Command": record.command,
        "Created": record.created or None,
        "Started": record.started or None,
        "Finished": record.finished or None,
        "Status": status_of(container),
        "ExitCode": record.exit_code,
        "OOMKilled": record.oom_killed,
        "Address": record.address or None,
        "Ports": containerformat.ports(container),
        "Labels": containerfilter.labels(container),
    }


@click.command()
@click.argument("container")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("-n", "--tail", metavar="N", type=click.IntRange(0), help="Only the last N lines.")
@click.option("-t", "--timestamps", is_flag=True, help="The time before every line.")
@click.option(
    "--since",
    metavar="TIME",
    default="",
    help="Only lines since a time, or of so long, as 1h30m.",
)
def logs(container: str, follow: bool, tail: int | None, timestamps: bool, since: str) -> None:
    """Print what a detached container wrote, its stderr to stderr.

    \b
    Example:
      argosy logs -f --tail 20 web
    """
    since = since and logfile.moment(since)
    found = Container.find(engine.places(), container)
    if not found.record.detached and not os.path.exists(found.file("output.log")):
        raise ContainerStatusError(
            f"container {found.record.name} ran in the foreground: its output was not kept"
        )
    with contextlib.closing(logfile.LogReader(found.file("output.log"), since)) as log:
        for line in log.lines() if tail is None else deque(log.lines(), tail):
            _say(line, timestamps)
        while follow:
            watched = found.watched
            for line in log.lines():
                _say(line, timestamps)
            sys.stdout.flush()
            follow = watched
            select.select([], [], [], _FOLLOW if follow else 0)


def _say(line: logfile.Line, timestamps: bool) -> None:
    text = f"{line.time} {line.text}" if timestamps else line.text
    (sys.stderr if line.stream == "stderr" else sys.stdout).write(text)


@click.command()
@click.argument("named", nargs=-1, required=True, metavar="CONTAINER...")
@click.option(
    "-t",
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0),
    help="Seconds until it is killed.",
)
@click.option("-s", "--signal", "signal_name", metavar="SIGNAL", help="What asks it to end.")
def stop(named: tuple[str, ...], timeout: float | None, signal_name: str | None) -> int | None:
    """Ask containers to end, and kill them if they do not. Those that have ended are as they should be.

    \b
    Example:
      argosy stop -t 3 web
    """
    number = signal_number(signal_name) if signal_name else None
    made = engine.engine()
    if rootless.needed():
        options = [] if timeout is None else [f"--timeout={timeout}"]
        options += [f"--signal={signal_name}"] if signal_name else []
        return _each_as_root(made.places, ["stop", *options], named)
    return _each(named, lambda name: made.stop(Container.find(made.places, name), timeout, number))


@click.command()
@click.argument("named", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-a", "--attach", is_flag=True, help="Wait for it, and exit as its program does.")
@click.option(
    "-i", "--interactive", is_flag=True, help="--attach, with stdin if it was run with -i."
)
def start(named: tuple[str, ...], attach: bool, interactive: bool) -> int | None:
    """Run containers again that have ended.

    A container finds its root file system as it left it, and everything else as `argosy run` was told; its address may
    be another one. What it writes goes on in its log, or with --attach is shown here. One that runs is left alone; one
    that cannot be started stays as it is.

    \b
    Examples:
      argosy start web
      argosy start -ai shell
    """
    attach = attach or interactive
    if attach and len(named) > 1:
        raise UsageError("only one container can be attached", hint="leave out --attach")
    made = engine.engine()
    if rootless.needed():
        chosen = {"--attach": attach, "--interactive": interactive}
        options = [option for option, wanted in chosen.items() if wanted]
        return _each_as_root(made.places, ["start", *options], named)
    if attach:
        container = Container.find(made.places, named[0])
        _check_terminal(container, interactive)
        code = made.start_attached(container, stdin=interactive)
        return contained.explained(code, container)
    return _each(named, lambda name: made.start(Container.find(made.places, name)))


def _check_terminal(container: Container, interactive: bool) -> None:
    asked = container.record.options
    if interactive and asked["tty"] and asked["interactive"] and not sys.stdin.isatty():
        raise UsageError("the input device is not a terminal", hint="leave out -i")


@click.command()
@click.argument("named", nargs=-1, required=True, metavar="CONTAINER...")
@click.option(
    "-s",
    "--signal",
    "signal_name",
    metavar="SIGNAL",
    default="KILL",
    show_default=True,
    help="What is sent.",
)
def kill(named: tuple[str, ...], signal_name: str) -> int | None:
    """Kill containers, or send them another signal.

    After KILL the container has ended; another signal is sent and not waited for.

    \b
    Examples:
      argosy kill web
      argosy kill -s HUP web
    """
    number = signal_number(signal_name)
    made = engine.engine()
    if rootless.needed():
        return _each_as_root(made.places, ["kill", f"--signal={signal_name}"], named)
    return _each(named, lambda name: made.kill(Container.find(made.places, name), number))


@click.command()
@click.argument("named", nargs=-1, required=True, metavar="CONTAINER...")
@json_option
def wait(named: tuple[str, ...], as_json: bool) -> int | None:
    """Wait until containers have ended, and print their exit codes, one a line.

    Of one that has ended already it is printed at once; of one that was run with --rm too, if it is waited for before.

    \b
    Example:
      argosy wait web
    """
    found = [Container.find(engine.places(), name) for name in named]
    for container in found:
        if status_of(container) == "orphaned":
            raise ContainerStatusError(
                f"container {container.record.name} runs on, and nobody will know its exit code"
            )
    ends = [End(container) for container in found]
    rows = []
    for container, end in zip(found, ends, strict=True):
        code = end.wait()
        rows.append({"Id": container.id, "Name": container.record.name, "ExitCode": code})
        if not as_json:
            print(code, flush=True)
    if as_json:
        document(rows)
    return None


@click.command(cls=contained.Command, context_settings={"allow_interspersed_args": False})
@click.option("-i", "--interactive", is_flag=True, help="Keep stdin open.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal; here must be one, too.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it.")
@click.option(
    "-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="A variable; without a value, this one's."
)  # fmt: skip
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Who it runs as.")
@click.option("-w", "--workdir", metavar="PATH", help="Where it starts.")
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    interactive: bool,
    tty: bool,
    detach: bool,
    env: tuple[str, ...],
    user: str | None,
    workdir: str | None,
    container: str,
    command: tuple[str, ...],
) -> int:
    """Run one more program in a container that runs.

    \b
    Example:
      argosy exec -it web sh
    """
    found = Container.find(engine.places(), container)
    _check_running(found)
    if rootless.needed():
        return rootless.enter(sys.argv[1:], found.record.watcher)
    who = find_user(user, found.record.options["groups"], found.rootfs) if user else None
    with open(found.file("config.json"), "rb") as file:
        own = json.load(file)["process"]
    process = one_more(own, command, user=who, env=environment(env), workdir=workdir, terminal=tty)
    before = Runtime(found).log_size()
    fd = os.memfd_create("process")  # a full disk is no hindrance
    with os.fdopen(fd, "w") as file:
        json.dump(process, file)
        file.flush()
        arguments = ["--process", f"/proc/self/fd/{fd}", *(["--detach"] if detach else [])]
        argv = Runtime(found).argv("exec", *arguments, found.id)
        code = _executed(argv, fd, interactive=interactive, tty=tty, detach=detach)
    return (code == 255 and _exec_failure(found, before)) or code


def _check_running(container: Container) -> None:
    status = status_of(container)
    if status == "orphaned":
        raise ContainerStatusError(
            f"container {container.record.name} runs on, and nobody watches it",
            hint="argosy stop ends it",
        )
    if status != "running":
        raise ContainerStatusError(f"container {container.record.name} is not running")


def _executed(argv: list[str], fd: int, *, interactive: bool, tty: bool, detach: bool) -> int:
    """Run the runtime. Only with a terminal, whose other end the program gets, are its streams this process's."""
    null = subprocess.DEVNULL
    if detach:
        return subprocess.run(
            argv, stdin=null, stdout=null, stderr=null, pass_fds=(fd,), check=False
        ).returncode
    if tty:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
        except OSError:
            raise UsageError("there is no terminal here", hint="leave out -t") from None
        stdin = None if interactive else null
        return run_signalled(argv, stdin=stdin, pass_fds=(fd,))
    return run_attached(argv, interactive=interactive, pass_fds=(fd,))


def _exec_failure(container: Container, before: int) -> int:
    """126 or 127 where the runtime's log says so; 0 where the program itself returned 255."""
    with open(container.file("runtime.log"), encoding="utf-8") as file:
        file.seek(before)
        for text in file:
            try:
                return meaning(str(json.loads(text).get("msg", "")))
            except ValueError:
                continue
    return 0


def remove(
    named: tuple[str, ...], *, force: bool, ignore_missing: bool, dry_run: bool
) -> int | None:
    """Remove containers, for `argosy rm`, or only name them; with `ignore_missing`, those that there are."""
    made = engine.engine()
    if ignore_missing:
        named = tuple(name for name in named if _is_there(made.places, name))
    if not named:
        return None
    if rootless.needed():
        chosen = {"--force": force, "--dry-run": dry_run}
        options = [option for option, wanted in chosen.items() if wanted]
        return _each_as_root(made.places, ["rm", *options], named, damaged=force)

    def remove_one(name: str) -> None:
        found = Container.find(made.places, name, damaged=force)
        made.remove(found, force=force, dry_run=dry_run)

    return _each(named, remove_one)


def _each(named: tuple[str, ...], act: Callable[[str], object]) -> int | None:
    """Do something to every container and print its name; one that refuses is told and hinders no other.

    Returns:
        The exit code that stands for the first failure.
    """
    code: int | None = None
    for name in named:
        try:
            act(name)
        except ArgosyError as exc:
            told = failure.report(exc)
            code = code or told
        else:
            print(name, flush=True)
    return code


def _each_as_root(
    places: Places, argv: list[str], named: tuple[str, ...], *, damaged: bool = False
) -> int:
    """Say a command to one container after the other, each time as root of the namespaces it is watched in."""
    code = 0
    for name in named:
        try:
            found = Container.find(places, name, damaged=damaged)
        except ArgosyError as exc:
            told = failure.report(exc)
        else:
            # The process that watched one that has ended may be anybody's by now.
            told = rootless.enter([*argv, name], found.record.watcher if found.watched else 0)
        code = code or told
    return code


def _is_there(places: Places, name: str) -> bool:
    try:
        Container.find(places, name, damaged=True)
    except ContainerUnknownError:
        return False
    return True
