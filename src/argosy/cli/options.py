"""What commands have in common: kinds of arguments, and options that mean the same everywhere."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from argosy.errors import (
    AccessError,
    ArgosyError,
    InvalidDigestError,
    InvalidNameError,
    InvalidReferenceError,
    InvalidTagError,
    NotFoundError,
    UsageError,
)
from argosy.locate import Location
from argosy.spec import _json
from argosy.spec.platform import Platform
from argosy.spec.reference import parse_name, parse_registry, without_scheme

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

HTTPS_ONLY = "argosy.https"
"""Where a context keeps the registries that were typed as `https://…`."""


class Parsed(click.ParamType[Any]):
    """An argument that a function of the library reads; what it refuses is wrong usage; a file may be missing."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except (NotFoundError, AccessError):
            raise
        except ArgosyError as exc:
            self.fail(f"{exc}. {exc.hint}" if exc.hint else str(exc), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Have the shell be told places, where one is typed."""
        item = importlib.import_module("click.shell_completion").CompletionItem
        return [item(incomplete, type=self.name)] if "place" in self.name else []


def typed(parse: Callable[[str], T], text: str) -> T:
    """What was typed, as a function of the library reads it.

    Raises:
        UsageError: it is no reference, or no part of one.
    """
    try:
        return parse(text)
    except (InvalidReferenceError, InvalidNameError, InvalidTagError, InvalidDigestError) as exc:
        raise UsageError(str(exc), hint=exc.hint) from None


def typed_registry(text: str) -> tuple[str, str]:
    """A registry, and perhaps a namespace in it; also as a URL of its API.

    Raises:
        UsageError: it is none.
    """
    host, _, name = without_scheme(text).rstrip("/").partition("/")
    named = name and name not in ("v1", "v2")
    registry = typed(parse_registry, host)
    heed_https(text, registry)
    return registry, typed(parse_name, name) if named else ""


def typed_place(text: str) -> Location:
    """A place; with ARGOSY_SHORT_NAMES in the environment, short names are what registries.conf says they are.

    Raises:
        UsageError: it is none.
    """
    found = typed(located, text)
    if found.reference is None or "://" in text or not os.environ.get("ARGOSY_SHORT_NAMES"):
        return found
    config: Any = importlib.import_module("argosy.remote.config")
    names: Any = importlib.import_module("argosy.remote.shortnames")
    known = names.ShortNames.read(config.registries_files(os.environ))
    return typed(lambda short: Location.parse(known.expand(short)), text)


def located(text: str) -> Location:
    """A place, as `Location.parse` reads it, and a registry's `https://` heeded.

    Raises:
        InvalidReferenceError: it has none of the shapes of a place.
        NotFoundError, DeniedError: nothing is at the path it is, or what is may not be read.
    """
    found = Location.parse(text)
    if found.reference is not None:
        heed_https(text, found.reference.registry)
    return found


def _existing(text: str) -> Location:
    """A place, or a file or directory that is there."""
    return Location.existing(text) if os.path.lexists(text) else located(text)


def heed_https(text: str, registry: str) -> None:
    """Have a registry that was typed as `https://…` spoken to in nothing else."""
    if text.strip()[:8].lower() == "https://":
        click.get_current_context().meta.setdefault(HTTPS_ONLY, set()).add(registry)


def typed_platform(text: str) -> Platform:
    """A platform.

    Raises:
        InvalidReferenceError: it is none; also a word that other tools take in the place of one.
    """
    if text == "all":
        raise InvalidReferenceError("all is no platform", hint="leave --platform out to take all")
    if text == "local":
        raise InvalidReferenceError(
            "local is no platform", hint=f"this machine's is {Platform.host()}"
        )
    if "," in text:
        raise InvalidReferenceError(
            f"{text[:100]!r} is no platform", hint="repeat the option for each"
        )
    return Platform.parse(text)


def utf8(text: str) -> str:
    """A text that shall stand in a document.

    Raises:
        UsageError: it was typed in bytes that are not UTF-8, and no document can hold it.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text[:100]!r}: expected UTF-8") from None
    return text


def patterns(texts: Iterable[str]) -> list[re.Pattern[str]]:
    """Regular expressions.

    Raises:
        UsageError: one of them is none.
    """
    found = []
    for text in texts:
        try:
            found.append(re.compile(text))
        except (re.error, OverflowError, RecursionError) as exc:
            raise UsageError(f"{text[:100]!r} is not a regular expression: {exc}") from None
    return found


def pairs(texts: Iterable[str], option: str, shape: str = "KEY=VALUE") -> dict[str, str]:
    """What an option that is repeated says of each key.

    Raises:
        UsageError: a text is of another shape, or a key comes twice: which of its values was meant is not guessed.

    >>> pairs(["a=1", "b=2=3"], "--label")
    {'a': '1', 'b': '2=3'}
    """
    return _each_once((pair(text, option, shape) for text in texts), option)


def pairs_or_removed(
    texts: Iterable[str], option: str, shape: str = "KEY=VALUE"
) -> dict[str, str | None]:
    """The same, where a mere `KEY-` removes the key.

    >>> pairs_or_removed(["a=1", "b-"], "--label")
    {'a': '1', 'b': None}
    """
    return _each_once((_change(text, option, shape) for text in texts), option)


def pair(text: str, option: str, shape: str = "KEY=VALUE") -> tuple[str, str]:
    """A key and its value.

    Raises:
        UsageError: the text is of another shape.
    """
    key, equals, value = utf8(text).partition("=")
    if not key or not equals:
        raise UsageError(f"{option}: expected {shape}, got {text[:100]!r}")
    return key, value


def _change(text: str, option: str, shape: str) -> tuple[str, str | None]:
    if "=" not in text and text.endswith("-") and len(text) > 1:
        return utf8(text[:-1]), None
    return pair(text, option, f"{shape}, or {shape.partition('=')[0]}- to remove it")


def _each_once(found: Iterable[tuple[str, T]], option: str) -> dict[str, T]:
    once: dict[str, T] = {}
    for key, value in found:
        if key in once:
            raise UsageError(f"{option}: {key[:100]!r} comes twice")
        once[key] = value
    return once


def one(metavar: str, text: str, kind: Any = str) -> dict[str, Any]:
    """What a line of a table of options gives to `click.option`: one that is given once."""
    return {"metavar": metavar, "type": kind, "help": text}


def many(metavar: str, text: str) -> dict[str, Any]:
    """The same of one that may be repeated."""
    return {"metavar": metavar, "multiple": True, "help": text}


def switch(text: str) -> dict[str, Any]:
    """The same of one that is on, off or not given."""
    return {"default": None, "help": text}


PLACE = Parsed("place", typed_place)
FILE_OR_PLACE = Parsed("file or place", _existing)
FILE_OR_NAME = Parsed(
    "file or place", lambda text: (_existing(text), not text.startswith("docker://"))
)
"""A place, and whether, where it is a reference, this machine's images may be meant and not a registry's alone."""
PLATFORM = Parsed("os/arch[/variant]", typed_platform)

FORMATS = {"oci": False, "docker": True, "v2s2": True}
"""Whose media types, as people call them → whether they are Docker's; the last is skopeo's word."""

FILE = click.Path(readable=False)
"""A file to be read, which shells complete. What is wrong with it is said where it is opened, everywhere alike."""

place_argument = click.argument("place", type=PLACE, metavar="PLACE")

platform_option = click.option(
    "--platform",
    type=PLATFORM,
    help="Of an index, the image for this platform.",
)
made_platform_option = click.option(
    "--platform",
    type=PLATFORM,
    help="What the image is for; this machine's platform if not given.",
)
platforms_option = click.option(
    "--platform",
    "platforms",
    type=PLATFORM,
    multiple=True,
    help="Of an index, only the image for this platform; repeatable.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
jobs_option = click.option(
    "-j",
    "--jobs",
    "--concurrency",
    metavar="N",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many blobs move at a time; a large one that comes slowly, in as many parts as others leave over.",
)
keep_going_option = click.option(
    "--keep-going", is_flag=True, help="Go on with the next tag after a failure."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


def arguments(values: Sequence[str]) -> list[str] | None:
    """A list of arguments: the option repeated, or once with a JSON array; None where it was not given.

    `[` and `[[` alone are programs.

    >>> arguments(['["sh", "-c"]']), arguments(["sh", "-c"]), arguments([""]), arguments(["["])
    (['sh', '-c'], ['sh', '-c'], [], ['['])
    """
    if not values:
        return None
    values = [utf8(value) for value in values]
    if len(values) == 1 and values[0].startswith("[") and values[0].strip("["):
        found = _json.loads(values[0].encode(), error=UsageError)
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise UsageError(f"{values[0][:100]!r}: expected a JSON array of strings")
        return found
    return [] if list(values) == [""] else list(values)


def environment(given: Sequence[str]) -> list[str]:
    """`NAME` alone takes this process's value, and is left out where it has none."""
    return [
        entry if "=" in entry else f"{entry}={os.environ[entry]}"
        for entry in given
        if "=" in entry or entry in os.environ
    ]
