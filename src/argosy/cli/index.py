"""`argosy index create|add|rm|filter|annotate`: images of several platforms under one name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import click

from argosy.cli import making
from argosy.cli.options import (
    PLACE,
    PLATFORM,
    F,
    pairs,
    pairs_or_removed,
    place_argument,
)
from argosy.content.memory import MemoryStore
from argosy.errors import InvalidManifestError, UsageError
from argosy.image import indexes
from argosy.image.view import ImageIndex
from argosy.locate import Location
from argosy.spec.digest import Digest
from argosy.spec.platform import Platform

_manifests = click.argument("images", nargs=-1, type=PLACE, metavar="IMAGE...")
_append = click.option(
    "-m",
    "--manifest",
    "--ref",
    "more",
    multiple=True,
    type=PLACE,
    help="One more IMAGE; repeatable.",
)


def _annotation(text: str) -> Callable[[F], F]:
    return click.option(
        "-a", "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help=text
    )


def _platforms(text: str) -> Callable[[F], F]:
    return click.option("--platform", "platforms", multiple=True, type=PLATFORM, help=text)


_flatten = click.option(
    "--flatten/--no-flatten",
    default=True,
    show_default=True,
    help="List the images of indexes instead of the indexes.",
)


@click.command()
@_manifests
@_append
@_annotation("An annotation; repeatable.")
@click.option(
    "--docker",
    "--docker-empty-base",
    is_flag=True,
    help="Make a Docker manifest list instead of an OCI index.",
)
@click.option("--artifact-type", metavar="TYPE", help="What sort of artifact the index is.")
@_flatten
@making.destination_options
def create(
    images: tuple[Location, ...],
    more: tuple[Location, ...],
    annotations: tuple[str, ...],
    docker: bool,
    artifact_type: str | None,
    flatten: bool,
    destination: making.Destination,
) -> None:
    """Make an index of images; each one's platform is read from its configuration.

    \b
    Example:
      argosy index create oci:a:amd64 oci:a:arm64 -t oci:images:app
    """
    with contextlib.ExitStack() as stack:
        views = _views(stack, (*images, *more))
        place = views[0].source if views else MemoryStore()
        made = indexes.create(
            place,
            *views,
            annotations=pairs(annotations, "--annotation"),
            docker=docker,
            flatten=flatten,
            artifact_type=artifact_type,
        )
        making.put(made, None, destination)


@click.command()
@place_argument
@_manifests
@_append
@_annotation("An annotation; repeatable.")
@click.option("--desc-platform", "platform", type=PLATFORM, help="What the new entries run on.")
@_flatten
@making.destination_options
@making.redone
def add(
    place: Location,
    images: tuple[Location, ...],
    more: tuple[Location, ...],
    annotations: tuple[str, ...],
    platform: Platform | None,
    flatten: bool,
    destination: making.Destination,
) -> None:
    """Add images to an index. Annotations are those of the new entries.

    \b
    Example:
      argosy index add oci:images:app registry.example/app:riscv64
    """
    if not (images or more):
        raise UsageError("which images shall be added?")
    with contextlib.ExitStack() as stack:
        index = _index(stack, place, destination)
        views = _views(stack, (*images, *more))
        made = indexes.add(
            index,
            *views,
            flatten=flatten,
            platform=platform,
            entry_annotations=pairs(annotations, "--annotation"),
        )
        making.put(made, place, destination)


@click.command()
@place_argument
@click.argument("digests", nargs=-1, metavar="[DIGEST...]")
@_platforms("Take out the entries for this platform; repeatable.")
@making.destination_options
@making.redone
def rm(
    place: Location,
    digests: tuple[str, ...],
    platforms: tuple[Platform, ...],
    destination: making.Destination,
) -> None:
    """Take entries out of an index, by digest or by platform.

    \b
    Example:
      argosy index rm oci:images:app --platform linux/386
    """
    if not digests and not platforms:
        raise UsageError("which entries? give digests or --platform")
    with contextlib.ExitStack() as stack:
        index = _index(stack, place, destination)
        wanted = [Digest(text) for text in digests]
        making.put(indexes.remove(index, digests=wanted, platforms=platforms), place, destination)


@click.command(name="filter")
@place_argument
@_platforms("Keep the entries for this platform; repeatable.")
@making.destination_options
@making.redone
def filter_(
    place: Location, platforms: tuple[Platform, ...], destination: making.Destination
) -> None:
    """Keep only the entries of an index that run on some platforms.

    \b
    Example:
      argosy index filter alpine:3.20 --platform linux/amd64 --platform linux/arm64 -t oci:images:alpine
    """
    if not platforms:
        raise UsageError("which platforms? give --platform")
    with contextlib.ExitStack() as stack:
        making.put(
            indexes.filtered(_index(stack, place, destination), platforms), place, destination
        )


@click.command()
@place_argument
@click.argument("digest", required=False)
@_annotation("An annotation; KEY- removes it.")
@click.option("--desc-platform", "platform", type=PLATFORM, help="What that entry runs on.")
@making.destination_options
@making.redone
def annotate(
    place: Location,
    digest: str | None,
    annotations: tuple[str, ...],
    platform: Platform | None,
    destination: making.Destination,
) -> None:
    """Annotate an index, or with DIGEST one of its entries.

    \b
    Example:
      argosy index annotate oci:images:app -a org.opencontainers.image.version=1.2
    """
    if platform is not None and digest is None:
        raise UsageError("--desc-platform is about an entry: name its digest")
    with contextlib.ExitStack() as stack:
        made = indexes.annotate(
            _index(stack, place, destination),
            pairs_or_removed(annotations, "--annotation"),
            digest=Digest(digest) if digest else None,
            platform=platform,
        )
        making.put(made, place, destination)


def _views(stack: contextlib.ExitStack, images: Sequence[Location]) -> list[making.View]:
    return [stack.enter_context(making.opened(image)) for image in images]


def _index(
    stack: contextlib.ExitStack, place: Location, destination: making.Destination
) -> ImageIndex:
    view = stack.enter_context(making.opened(place, destination=destination))
    if not isinstance(view, ImageIndex):
        raise InvalidManifestError(
            f"{place} is an image, not an index", hint="make one with argosy index create"
        )
    return view
