"""`argosy pull`: images to this machine, or into a file."""

from __future__ import annotations

import os

import click

from argosy import locate
from argosy.cli import connections, engine, places, progress, remotes
from argosy.cli.options import (
    Parsed,
    jobs_option,
    platforms_option,
    quiet_option,
    typed_place,
)
from argosy.content.copy import copy
from argosy.content.protocols import together
from argosy.engine.names import local_name
from argosy.errors import NotFoundError, UsageError
from argosy.locate import Location
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform

TAR = (".tar", ".tgz")

FORMATS = {
    "tarball": "docker-archive",
    "docker-archive": "docker-archive",
    "oci": "oci",
    "oci-archive": "oci-archive",
    "dir": "dir",
}


def _source(text: str) -> Location:
    """What is pulled; crane's file behind it is none."""
    try:
        return typed_place(text)
    except (NotFoundError, UsageError) as exc:
        if text.endswith(TAR):
            exc.hint = f"argosy pull -o {text} PLACE writes a file"
        raise


@connections.wanted
@click.command()
@click.argument("named", nargs=-1, required=True, type=Parsed("place", _source), metavar="PLACE...")
@click.option(
    "-o",
    "--output",
    metavar="FILE|DIRECTORY",
    help="A file to write anew, or a directory to add to, instead of this machine's images.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(FORMATS)),
    help="With -o: what to write; an archive for docker load if FILE ends in .tar, else a layout.",
)
@click.option(
    "-a", "--all-tags", is_flag=True, help="Every tag of the repository; PLACE names none."
)
@platforms_option
@jobs_option
@quiet_option
@progress.progress_option
def command(
    named: tuple[Location, ...],
    output: str | None,
    form: str | None,
    all_tags: bool,
    platforms: tuple[Platform, ...],
    jobs: int,
    quiet: bool,
    progress: str,
) -> None:
    """Bring images to this machine, for `argosy run`; or with -o into a file or directory.

    \b
    Examples:
      argosy pull alpine:3.20
      argosy pull -o alpine.tar alpine:3.20
      argosy pull -o images --format oci alpine:3.20 busybox
    """
    if form and not output:
        raise UsageError("--format: say where to, with --output")
    wanted = list(_each(named) if all_tags else named)
    if output is not None:
        _write(wanted, output, form, platforms, jobs, progress, quiet)
        return
    if len(platforms) > 1:
        raise UsageError("one --platform at a time: a machine's image is for one")
    images = engine.images()
    ctx = click.get_current_context()
    with _shown(progress, quiet=quiet) as on_event:
        for place in wanted:
            name, image = images.get(
                place,
                platform=platforms[0] if platforms else None,
                pull="always",
                connect=remotes.connect(ctx, "src", ahead=True),
                jobs=jobs,
                on_event=on_event,
            )
            print(f"{name}@{image.descriptor.digest}" if not quiet else name)


_shown = progress.shown


def _each(named: tuple[Location, ...]) -> list[Location]:
    found = []
    for place in named:
        places.check_whole(place)
        with places.source(place) as source:
            found += [place.at(tag) for tag in places.images(source)]
    return found


def _write(
    wanted: list[Location],
    output: str,
    form: str | None,
    platforms: tuple[Platform, ...],
    jobs: int,
    style: str,
    quiet: bool,
) -> None:
    chosen = form or ("tarball" if output == "-" or output.endswith(TAR) else "oci")
    transport = FORMATS[chosen]
    if transport == "dir" and len(wanted) > 1:
        raise UsageError("dir: holds one image")
    if transport == "docker-archive" and not platforms:
        platforms = (Platform.host(),)
    target = Location(transport=transport, path=os.path.expanduser(output))
    with (
        places.target(target, anew=True) as given,
        _shown(style, quiet=quiet) as on_event,
        together(given),
    ):
        for place in wanted:
            with places.source(place, ahead=True) as source:
                tag = locate.choose(source, place)
                tags = _tags(place, tag, whole=transport == "docker-archive" or len(wanted) > 1)
                copy(
                    source, tag, given, *tags,
                    platforms=platforms or None, jobs=jobs, on_event=on_event,
                )  # fmt: skip


def _tags(place: Location, tag: str, *, whole: bool) -> tuple[str, ...]:
    if isinstance(tag, Digest) and place.reference is None:
        return ()
    if whole:
        return () if isinstance(tag, Digest) else (local_name(place.at(tag)),)
    return () if isinstance(tag, Digest) else (tag,)
