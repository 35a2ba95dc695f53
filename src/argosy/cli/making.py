"""What the commands that make images have in common: opening the old one, and where the new one goes.

Without `-t` a new image takes the tag it came from, as with umoci and crane, or the place of the only image without a
tag; what a digest or `@N` names stays, and the new one has its digest alone: if it took the place of `@N`, that would
be another image from then on. What is printed is the new image's place by digest, so that commands can be chained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import click

from argosy import locate
from argosy.cli import failure, files, places, progress
from argosy.cli.options import PLACE, typed_place, utf8
from argosy.content.copy import copy
from argosy.content.protocols import Replacer, Source
from argosy.errors import (
    ArgosyError,
    ConflictError,
    InvalidConfigError,
    InvalidLayerError,
    UsageError,
)
from argosy.image.configure import now, rfc3339, seconds_of
from argosy.image.convert import each
from argosy.image.view import Image, ImageIndex
from argosy.layer.compression import Compression
from argosy.locate import Location
from argosy.spec.digest import Digest
from argosy.spec.imageconfig import History
from argosy.spec.imagelayout import HEADER_FILE
from argosy.spec.platform import Platform

F = TypeVar("F", bound=Callable[..., Any])
View = Image | ImageIndex

_TURNS = 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a new image goes: `-t`, `-o`, and how progress is shown."""

    tag: str | None = None
    output: str | None = None
    digest_file: str | None = None
    quiet: bool = False
    style: str = "auto"
    read: dict[str, Digest] = dataclasses.field(default_factory=dict)
    """What the tags that are changed in place named when they were read: `check` notes it, and `put` goes by it."""

    def needed(self) -> str:
        """The place or file that was given.

        Raises:
            UsageError: there is none.
        """
        given = self.output or self.tag
        if given is None:
            raise UsageError("where shall it go?", hint="give -t PLACE or -o FILE")
        return given


def destination_options(command: F) -> F:
    """`-t`, `-o`, `--digest-file`, `-q` and `--progress`, gathered into one argument `destination`."""

    def gathered(*args: Any, **named: Any) -> Any:
        destination = Destination(
            tag=named.pop("new_tag"),
            output=named.pop("output"),
            digest_file=named.pop("digest_file"),
            quiet=named.pop("quiet"),
            style=named.pop("progress"),
        )
        return command(*args, destination=destination, **named)

    gathered.__doc__ = command.__doc__
    gathered.__name__ = command.__name__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = gathered
    for option in (
        progress.progress_option,
        click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
        click.option(
            "--digest-file", type=click.Path(dir_okay=False), help="Write the digest to this file."
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="Write an archive that `docker load` reads.",
        ),
        click.option(
            "-t",
            "--tag",
            "--new_tag",
            "new_tag",
            metavar="PLACE|TAG",
            help="Where the new image goes, unless it is changed in place; a mere tag is one of the same place. "
            "What a digest or @N names is not replaced.",
        ),
    ):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def redone(command: F) -> F:
    """Do a command again where somebody else changed the same tag meanwhile, on what they made of it.

    For what can be done to that as well, as adding to a list can. Stdin is read once, so then it is not done again.
    """

    @functools.wraps(command)
    def turns(**named: Any) -> Any:
        for turn in range(2, 2 if _reads_stdin(named.values()) else _TURNS + 1):
            try:
                return command(**named)
            except ConflictError as exc:
                failure.say(f"argosy: {exc}: turn {turn}")
                importlib.import_module("argosy.cli.remotes").forget(click.get_current_context())
        return command(**named)

    return turns  # type: ignore[return-value]


def _reads_stdin(given: Iterable[Any]) -> bool:
    values = [one for value in given for one in (value if isinstance(value, tuple) else (value,))]
    return any((v.path if isinstance(v, Location) else v) == "-" for v in values)


@contextlib.contextmanager
def opened(
    location: Location, platform: Platform | None = None, destination: Destination | None = None
) -> Iterator[View]:
    """The image or index a location means; of an index the image for a platform, where one is given.

    Args:
        location: What was typed.
        platform: The platform.
        destination: Where what is made of it goes, see `check`.
    """
    with (
        claimed(location, destination) as itself,
        places.image(location, platform, itself=itself) as (place, desc),
    ):
        view = seen(place, desc)
        if destination is not None:
            check(view, location, destination)
        yield view


@contextlib.contextmanager
def one_image(
    location: Location, platform: Platform | None = None, destination: Destination | None = None
) -> Iterator[Image]:
    """The image a location means; of an index the one for a platform, or for this machine. Else as `opened`."""
    with (
        claimed(location, destination) as itself,
        places.image(location, platform, single=True, itself=itself) as (place, desc),
    ):
        image = Image(source=place, descriptor=desc)
        if destination is not None:
            check(image, location, destination)
        try:
            yield image
        except InvalidLayerError as exc:  # any file can be what an image calls a layer
            if not image.is_image:
                exc.hint = exc.hint or "this is an artifact: argosy artifact pull writes its files"
            raise


@contextlib.contextmanager
def claimed(location: Location, destination: Destination | None) -> Iterator[bool]:
    """Keep other processes from changing the image of a layout's tag meanwhile, or one of two changes would be lost.

    Yields:
        Whether the image is changed in place, so that an older one, of a mirror, would take the place of a newer.
    """
    where, tags = _where(location, destination) if destination else (location, ())
    with contextlib.ExitStack() as stack:
        if where.transport == "oci" and tags:
            durable = importlib.import_module("argosy.layout.durable")
            header = os.path.join(where.path, HEADER_FILE)
            stack.enter_context(durable.claimed(header, tags[0], lambda: _wait(where)))
        yield destination is not None and where is location


def _wait(where: Location) -> None:
    failure.say(f"argosy: another process is changing {where}: waiting for it")


def seen(place: Source, desc: Any) -> View:
    """A descriptor as a view."""
    kind = ImageIndex if desc.is_index() else Image
    return kind(source=place, descriptor=desc)


def changed(view: View, change: Callable[[Image], Image]) -> View:
    """An image changed, or every image of an index."""
    return each(view, change) if isinstance(view, ImageIndex) else change(view)


def check(view: View, came_from: Location, destination: Destination) -> None:
    """See that what is made of an image can go where it shall, before there is any work in it.

    Raises:
        UsageError: it cannot, or would take the place of an index, whose other images would be lost.
    """
    where, tags = _where(came_from, destination)
    if where is not came_from or not (tags or where.tag is None):
        return  # named by its digest, the old one stays what it is
    old = view.source.resolve(tags[0] if tags else locate.choose(view.source, where))
    destination.read.update(dict.fromkeys(tags, old.digest))
    if old.is_index() and not isinstance(view, ImageIndex):
        raise UsageError(
            f"{where} is an index, whose other images would be lost",
            hint="name another place with -t",
        )


def put(view: View, came_from: Location | None, destination: Destination) -> None:
    """Write a new image to where it goes, and print that place by digest; beside an archive on stdout, to stderr."""
    where, tags = _where(came_from, destination)
    with (
        files.digest(destination.digest_file) as told,
        places.target(where, anew=destination.output is not None) as target,
        progress.shown(destination.style, quiet=destination.quiet) as on_event,
        places.superseding(where, target, tags, in_place=where == came_from) as new,
    ):
        if isinstance(target, Replacer):
            for tag, old in destination.read.items():
                target.instead(tag, old)
        expected = where.digest if destination.tag is not None else None
        root = copy(
            view.source, str(view.digest), target, *tags, expected=expected, on_event=on_event
        )
        new.add(root.digest)
        told(root.digest)
    shown = where if where.transport == "docker-archive" else where.at(root.digest)
    print(shown, file=places.beside(where))


def _where(came_from: Location | None, destination: Destination) -> tuple[Location, Sequence[str]]:
    if destination.output is not None:
        name = destination.tag or (_own_tag(came_from) if came_from else None)
        where = Location(transport="docker-archive", path=destination.output)
        return where, (name,) if name else ()
    if destination.tag is None and came_from is not None:
        return came_from, _kept_tags(came_from)
    tag = destination.needed()
    if came_from is not None and "/" not in tag and ":" not in tag:
        if came_from.transport in places.ARCHIVES:
            raise UsageError(
                f"{came_from}: an archive is not changed in place",
                hint="name another place with -t, such as oci:DIRECTORY:TAG",
            )
        return came_from.at(places.tag_in(came_from, tag)), (tag,)
    where = typed_place(tag)
    named = locate.new_tag(where)
    if where.reference is not None and where.reference.digest is None:
        named = named or "latest"
    return where, (named,) if named else ()


def _kept_tags(came_from: Location) -> Sequence[str]:
    """The tag a new image takes over in its own place."""
    if came_from.transport in places.ARCHIVES:
        raise UsageError(
            f"{came_from}: an archive is not changed in place",
            hint="name another place with -t, such as oci:DIRECTORY:TAG",
        )
    if came_from.reference is not None:
        return () if came_from.reference.digest else (came_from.reference.tag or "latest",)
    if came_from.tag is None or isinstance(came_from.tag, Digest) or came_from.tag.startswith("@"):
        return _only_tag(came_from)
    return (came_from.tag,)


def _only_tag(location: Location) -> Sequence[str]:
    if location.tag is not None:
        return ()
    with places.source(location) as place:
        chosen = locate.choose(place, location)
    return () if location.at(chosen).digest else (chosen,)


def _own_tag(location: Location) -> str | None:
    if location.reference is not None:
        return str(location.reference.with_tag(location.reference.tag))
    return location.tag


def epoch() -> int | None:
    """SOURCE_DATE_EPOCH, in seconds since 1970; None where it is not set.

    Raises:
        UsageError: it is no whole number.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise UsageError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {text[:32]!r}")
    return int(text)


def time(text: str) -> str:
    """A time as typed: RFC 3339, or seconds since 1970.

    Raises:
        UsageError: it is neither.

    >>> time("0")
    '1970-01-01T00:00:00Z'
    """
    if text.isascii() and text.isdigit() and len(text) < 16:
        return rfc3339(int(text))
    try:
        seconds_of(text)
    except InvalidConfigError as exc:
        raise UsageError(str(exc)) from None
    return text


def history_options(command: F) -> F:
    """umoci's `--history.*` options, gathered into one argument `history`: a map of what was given."""

    def gathered(*args: Any, **named: Any) -> Any:
        found = {key: named.pop(f"history_{key}") for key in _HISTORY}
        given = {key: value for key, value in found.items() if value is not None}
        return command(*args, history=given, **named)

    gathered.__doc__ = command.__doc__
    gathered.__name__ = command.__name__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    decorated: Any = gathered
    for key, (metavar, help_text) in _HISTORY.items():
        decorated = click.option(
            f"--history.{key}", f"history_{key}", metavar=metavar, help=help_text
        )(decorated)
    return decorated  # type: ignore[no-any-return]


_HISTORY = {
    "author": ("TEXT", "Who, in the history."),
    "comment": ("TEXT", "A comment, in the history."),
    "created": ("TIME", "When, in the history: RFC 3339 or seconds since 1970."),
    "created_by": ("TEXT", "What made it, in the history."),
}


def step(given: Mapping[str, str], created_by: str, *, timed: bool = False) -> History:
    """A step of the history: what was given, else what this command says of itself.

    Args:
        given: The `--history.*` options.
        created_by: What the command says of itself.
        timed: Write the time of now. Without it only SOURCE_DATE_EPOCH is written, so that the same command gives the
            same image, as with crane.
    """
    seconds = epoch()
    moment = now(seconds) if timed or seconds is not None else None
    if "created" in given:
        moment = time(given["created"])
    return History(
        created=moment,
        author=utf8(given.get("author", "")),
        # What argosy says of itself has names of files in it, which may be any bytes.
        created_by=utf8(given.get("created_by", created_by.encode(errors="replace").decode())),
        comment=utf8(given.get("comment", "")),
    )


class _Compression(click.ParamType[Compression]):
    name = "compression"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        if isinstance(value, Compression) or value is None:
            return value
        names = {"uncompressed": "none", "auto": None}
        try:
            chosen = names.get(value, value)
            return None if chosen is None else Compression(chosen)
        except ValueError:
            self.fail(f"{value!r}: expected auto, gzip, zstd or none", param, ctx)


COMPRESSION = _Compression()
compress_option = click.option(
    "--compress",
    type=COMPRESSION,
    metavar="[auto|gzip|zstd|none]",
    help="How the new layer is compressed; auto leaves a compressed archive as it is and makes gzip of the rest.",
)
level_option = click.option(
    "--level",
    metavar="N",
    type=int,
    help="How hard to compress: gzip 0 to 3, zstd 1 to 22; 2 and 3 if absent.",
)

__all__ = [
    "COMPRESSION", "PLACE", "ArgosyError", "Destination", "View", "changed", "claimed",
    "compress_option", "destination_options", "epoch", "history_options", "level_option",
    "one_image", "opened", "put", "redone", "seen", "step", "time",
]  # fmt: skip
