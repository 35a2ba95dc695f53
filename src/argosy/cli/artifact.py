"""`argosy artifact …`, `attach` and `discover`: files as artifacts, and what refers to an image."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import click

from argosy import locate
from argosy.cli import files, making, places, progress
from argosy.cli.failure import printable
from argosy.cli.options import (
    FILE,
    jobs_option,
    json_option,
    pairs,
    place_argument,
    platform_option,
    quiet_option,
)
from argosy.cli.output import document
from argosy.content import graph
from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.content.protocols import Source
from argosy.content.verify import CHUNK
from argosy.content.workers import each
from argosy.errors import (
    InvalidConfigError,
    InvalidManifestError,
    ManifestUnknownError,
    UsageError,
)
from argosy.image.deliver import deliver, layers
from argosy.image.pack import UNPACK, File, pack
from argosy.image.view import Image
from argosy.layout.durable import storage_errors
from argosy.locate import Location
from argosy.spec import _json, mediatypes
from argosy.spec import annotations as keys
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import MAX_SIZE
from argosy.spec.platform import Platform

_MAX_DEPTH = 32
_MANIFEST, _CONFIG = "$manifest", "$config"

_Annotations = Mapping[str, Mapping[str, str]]

_files = click.argument("files", nargs=-1, type=FILE, metavar="FILE[:TYPE]...")
_type = click.option("--artifact-type", metavar="TYPE", help="What sort of artifact this is.")
_annotations = click.option(
    "-a",
    "--annotation",
    multiple=True,
    metavar="KEY=VALUE",
    help="An annotation of the manifest; repeatable.",
)
_annotation_file = click.option(
    "--annotation-file",
    type=FILE,
    metavar="FILE",
    help="Annotations in JSON by what they are of: $manifest, $config, or a FILE as it is named here.",
)
_config = click.option(
    "--config", type=FILE, metavar="FILE[:TYPE]", help="A file to be the artifact's config."
)
_any_path = click.option(
    "--disable-path-validation",
    is_flag=True,
    help="Allow names and links that lead out of where they are unpacked.",
)


def _file(text: str, annotations: _Annotations | None = None) -> File:
    """`path[:media type]`; a colon in a path that exists is part of it."""
    path, colon, media_type = text.rpartition(":")
    if not colon or "/" not in media_type or os.path.lexists(text):
        path, media_type = text, ""
    if path == "-":
        raise UsageError(
            "-: stdin has no name that a file of an artifact could have",
            hint="write it to a file first; ./- is a file of that name",
        )
    notes = dict((annotations or {}).get(path, {}))
    title = notes.pop(keys.TITLE, None)
    return File(path=path, title=title, media_type=media_type or None, annotations=notes)


def _annotated(given: dict[str, Any]) -> _Annotations:
    """Annotations by what they are of: `$manifest`, `$config`, or a file as it was named."""
    path = given["annotation_file"]
    if path is None:
        return {_MANIFEST: pairs(given["annotation"], "--annotation")}
    if given["annotation"]:
        raise UsageError("--annotation and --annotation-file exclude each other")
    with files.opened(path) as file:
        raw = file.read(MAX_SIZE + 1)
    with files.blamed(path):
        found = _json.loads_object(raw, error=InvalidConfigError)
        decode = _json.STRING_MAP.decode
        return {name: decode(notes, name, InvalidConfigError) for name, notes in found.items()}


def _packed(source: Source, given: dict[str, Any], subject: Descriptor | None) -> Image:
    annotations = _annotated(given)
    try:
        return pack(
            source,
            [_file(text, annotations) for text in given["files"]],
            artifact_type=given["artifact_type"],
            config=_file(given["config"]) if given["config"] else None,
            subject=subject,
            annotations=annotations.get(_MANIFEST),
            config_annotations=annotations.get(_CONFIG),
            any_path=given["disable_path_validation"],
        )
    except InvalidManifestError as exc:  # all that is in it was typed
        raise UsageError(str(exc), hint=exc.hint) from None


def _delivered(
    made: Image,
    place: Location,
    given: dict[str, Any],
    tags: tuple[str, ...] = (),
    expected: Digest | None = None,
) -> None:
    with (
        places.target(place) as target,
        progress.shown(given["progress"], quiet=given["quiet"]) as on_event,
    ):
        copy(
            made.source,
            made.descriptor.digest,
            target,
            *tags,
            expected=expected,
            jobs=given["jobs"],
            on_event=on_event,
        )
    print(made.descriptor.digest, file=places.beside(place))


@click.command()
@place_argument
@_files
@_type
@_annotations
@_annotation_file
@_config
@_any_path
@jobs_option
@quiet_option
@progress.progress_option
def push(place: Location, **given: Any) -> None:
    """Pack files and directories as an artifact and store it; print its digest.

    \b
    Examples:
      argosy artifact push registry.example/models:v1 model.bin card.md:text/markdown
      argosy artifact push --artifact-type application/x.site oci:site:v1 public/
    """
    tag = locate.new_tag(place) or (None if place.digest else place.tag)
    made = _packed(MemoryStore(), given, None)
    _delivered(made, place, given, (tag,) if tag else (), place.digest)


@click.command()
@place_argument
@_files
@_type
@_annotations
@_annotation_file
@_config
@_any_path
@platform_option
@jobs_option
@quiet_option
@progress.progress_option
def attach(place: Location, platform: Platform | None, **given: Any) -> None:
    """Pack files as an artifact that refers to an image, beside it; print its digest.

    \b
    Examples:
      argosy attach registry.example/app:v1 --artifact-type application/spdx+json sbom.json
      argosy attach --platform linux/arm64 oci:images:app --artifact-type application/x.note note.txt
    """
    if not given["artifact_type"] and not given["config"]:
        raise UsageError("say what it is, with --artifact-type")
    with places.image(place, platform, itself=True, ahead=platform is not None) as (
        source,
        subject,
    ):
        made = _packed(source, given, subject)
    _delivered(made, place, given)


@click.command()
@place_argument
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    default=".",
    show_default=True,
    help="The directory to write to; - prints the artifact's only file.",
)
@click.option("-k", "--keep-old-files", is_flag=True, help="Fail where a file is there already.")
@platform_option
@quiet_option
def pull(
    place: Location, output: str, keep_old_files: bool, platform: Platform | None, quiet: bool
) -> None:
    """Write the files of an artifact, or of all artifacts of an index, into a directory.

    No name and no link in it leads out of the directory. A file takes the place of a file; where a directory would have
    to give way to one, or a file to a directory, that is an error. After an error the directory is as it was.

    \b
    Examples:
      argosy artifact pull registry.example/models:v1 -o models
    """
    if output == "-":
        with making.opened(place, platform) as view:
            _print_only(view, place)
            if not quiet:
                print(view.digest, file=sys.stderr)
        return
    with _directory(output), making.opened(place, platform) as view:
        for one in deliver(view, output, keep_old=keep_old_files):
            told = printable(one.title) or f"{one.digest}: it has no name"
            if not quiet:
                print(f"{one.outcome} {told}", file=sys.stderr)
        print(view.digest)


def _print_only(view: making.View, place: Location) -> None:
    """The file of an artifact to stdout, verified by its end."""
    named = [layer for layer in layers(view) if keys.TITLE in layer.descriptor.annotations]
    if len(named) != 1 or named[0].descriptor.annotations.get(UNPACK) == "true":
        what = f"{len(named)} files" if len(named) != 1 else "a directory"
        raise UsageError(
            f"{place} has {what}, and stdout takes one file", hint="name a directory with -o"
        )
    with named[0].compressed() as reader, files.whole("-") as out:
        while data := reader.read(CHUNK):
            out.write(data)


@contextlib.contextmanager
def _directory(path: str) -> Iterator[None]:
    """A directory to write to, made if it is not there; what was made is removed where the block fails."""
    new = not os.path.lexists(path)
    with storage_errors(path):
        os.makedirs(path, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        yield
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                os.rmdir(path)
        raise


@click.command()
@place_argument
@click.option(
    "--artifact-type", metavar="TYPE", help="Only artifacts of this type, at every depth."
)
@click.option(
    "--depth",
    metavar="N",
    type=click.IntRange(1, _MAX_DEPTH),
    default=_MAX_DEPTH,
    show_default=True,
    help="How deep to look.",
)
@platform_option
@json_option
def discover(
    place: Location, artifact_type: str | None, depth: int, platform: Platform | None, as_json: bool
) -> None:
    """Show what refers to an image: signatures, SBOMs and other artifacts, and what refers to those.

    An image that is named by its digest need not be there.

    \b
    Examples:
      argosy discover registry.example/app:v1
      argosy discover --artifact-type application/spdx+json --json registry.example/app:v1
    """
    with places.source(place, ahead=platform is not None) as source:
        node = _subject(source, place, platform)
        found = _tree(source, place, node, artifact_type, depth)
    if as_json:
        document(found)
        return
    print(found["reference"])
    _draw(found["referrers"], "")


class _Node(NamedTuple):
    """A manifest in a tree of referrers: how it is shown, and what is above it."""

    desc: Descriptor
    shown: dict[str, Any]
    above: frozenset[Digest]

    @classmethod
    def of(cls, desc: Descriptor, place: Location, above: frozenset[Digest]) -> Self:
        reference = str(place.at(desc.digest))
        return cls(desc, {**desc.encode(), "reference": reference, "referrers": []}, above)


def _subject(source: Source, place: Location, platform: Platform | None) -> _Node:
    """The manifest that is meant. One that is not there may be referred to: its digest is all that is known then."""
    try:
        desc = source.resolve(locate.choose(source, place)).bare()
        chosen = graph.select(source, desc, platform).bare() if platform else desc
        return _Node.of(chosen, place, frozenset())
    except ManifestUnknownError:
        if place.digest is None or platform is not None:
            raise
        desc = Descriptor(media_type=mediatypes.OCTET_STREAM, digest=place.digest, size=0)
        if not any(source.referrers(desc)):
            raise
    known = {"digest": place.digest, "reference": str(place.at(place.digest)), "referrers": []}
    return _Node(desc, known, frozenset())


def _tree(
    source: Source, place: Location, root: _Node, kind: str | None, depth: int
) -> dict[str, Any]:
    """What refers to a manifest, and to that, a level at a time: all of a level is asked for together."""

    def referrers(node: _Node) -> list[Descriptor]:
        return list(source.referrers(node.desc, kind))

    level = [root]
    for _ in range(depth):
        asked = [node for node in level if node.desc.digest not in node.above]
        level = []
        for node, entries in zip(
            asked, each(referrers, asked, jobs=places.jobs(place)), strict=True
        ):
            above = node.above | {node.desc.digest}
            below = [_Node.of(entry, place, above) for entry in entries]
            node.shown["referrers"] += [one.shown for one in below]
            level += below
    return root.shown


def _draw(entries: list[dict[str, Any]], indent: str) -> None:
    for position, entry in enumerate(entries):
        last = position == len(entries) - 1
        kind = printable(str(entry.get("artifactType") or entry["mediaType"]))
        print(f"{indent}{'└── ' if last else '├── '}{kind} {entry['digest']}")
        deeper = indent + ("    " if last else "│   ")
        for key, value in sorted(entry.get("annotations", {}).items()):
            print(f"{deeper}  {printable(key)}: {printable(value)}")
        _draw(entry["referrers"], deeper)
