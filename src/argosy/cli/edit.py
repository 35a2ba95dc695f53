"""`argosy edit config|manifest`: change a document in an editor."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import click

from argosy.cli import failure, making
from argosy.cli.options import place_argument, platform_option
from argosy.errors import ArgosyError, UsageError
from argosy.image.edit import with_config, with_manifest
from argosy.locate import Location
from argosy.spec import _json
from argosy.spec.platform import Platform

_MOST = 64 << 20


@click.command()
@place_argument
@platform_option
@making.destination_options
def config(place: Location, platform: Platform | None, destination: making.Destination) -> None:
    """Change an image's configuration in $VISUAL or $EDITOR. What is not valid is not written.

    Where neither is set and stdin is no terminal, the changed document is read from stdin.

    \b
    Example:
      argosy edit config oci:images:app -t v2
    """
    with (
        making.one_image(place, platform, destination) as image,
        edited(image.raw_config, "config.json") as text,
    ):
        making.put(with_config(image, text), place, destination)


@click.command()
@place_argument
@click.option("-m", "--media-type", metavar="TYPE", help="The new manifest's media type.")
@platform_option
@making.destination_options
def manifest(
    place: Location,
    media_type: str | None,
    platform: Platform | None,
    destination: making.Destination,
) -> None:
    """Change a manifest or index in $VISUAL or $EDITOR. What is not valid is not written.

    Where neither is set and stdin is no terminal, the changed document is read from stdin.

    \b
    Example:
      argosy edit manifest oci:images:app -t v2
    """
    with (
        making.opened(place, platform, destination) as view,
        edited(view.raw, "manifest.json") as text,
    ):
        making.put(with_manifest(view, text, media_type), place, destination)


@contextlib.contextmanager
def edited(raw: bytes, name: str) -> Iterator[bytes]:
    """A JSON document after a person changed it: shown indented, kept as they left it.

    A document that was not changed keeps its bytes, whatever white space it was shown with. Where the block fails, what
    the person wrote stays, and the error tells the file.

    Raises:
        UsageError: there is no editor, or it failed.
    """
    shown = _indented(raw)
    if not sys.stdin.isatty() and not (os.environ.get("VISUAL") or os.environ.get("EDITOR")):
        text = sys.stdin.buffer.read(_MOST)
        if not text:
            raise UsageError("no editor is set, and stdin is empty", hint="set $EDITOR")
        yield raw if text == shown else text
        return
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="argosy-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(shown)
        _run(path)
        with open(path, "rb") as file:
            text = file.read(_MOST)
        try:
            yield raw if text == shown else text
        except BaseException as exc:
            if text != shown:
                stack.pop_all()
                told = f"what was written is kept in {path}"
                if isinstance(exc, Exception):
                    exc.add_note(told)
                else:  # of an interrupt no notes are shown
                    failure.say(f"argosy: {told}")
            raise


def _indented(raw: bytes) -> bytes:
    try:
        return _json.dumps(_json.loads(raw, limit=_MOST), indent=2) + b"\n"
    except ArgosyError:  # not to be read in one way alone: shown as it is
        return raw


def _run(path: str) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), path], check=False)
    except (OSError, ValueError) as exc:
        raise UsageError(f"the editor {editor!r} cannot be run", hint="set $EDITOR") from exc
    if done.returncode:
        raise UsageError(
            f"the editor {editor!r} exited with {done.returncode}: nothing was changed"
        )
