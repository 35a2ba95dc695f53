"""`argosy rm`: one tag, or a manifest by digest."""

from __future__ import annotations

import importlib
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import click

from argosy.cli import connections, failure, places
from argosy.cli.options import PLACE
from argosy.content.graph import MAX_NODES
from argosy.content.protocols import Deleter, Source, Target
from argosy.errors import (
    ArgosyError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from argosy.locate import Location
from argosy.spec.descriptor import Descriptor


@connections.wanted
@click.command()
@click.argument(
    "named",
    nargs=-1,
    required=True,
    metavar="PLACE|CONTAINER...",
    shell_complete=PLACE.shell_complete,
)
@click.option("-f", "--force", is_flag=True, help="Kill a container that runs.")
@click.option(
    "--referrers", is_flag=True, help="By digest: also what refers to the manifest, and to that."
)
@click.option("--ignore-missing", is_flag=True, help="What is not there is no error.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def command(
    named: tuple[str, ...], force: bool, referrers: bool, ignore_missing: bool, dry_run: bool
) -> int | None:
    """Remove a tag and leave its siblings; or, by digest, a manifest with all its tags; or a container.

    A word without colon, slash or @ is a container: a tag is always named with its place. What cannot be removed is
    told, and hinders none of the others. Of a layout or an archive no
    manifest is removed that an index there lists.

    \b
    Examples:
      argosy rm oci:images:old
      argosy rm --referrers registry.example/app@sha256:44136fa3…
      argosy rm -f web
    """
    containers = tuple(text for text in named if not set(text) & set(":/@"))
    context = click.get_current_context()
    wanted = [PLACE.convert(text, None, context) for text in named if text not in containers]
    for place in wanted:
        _check(place, referrers)
    code: int | None = None
    for place in wanted:
        try:
            _remove(place, referrers, dry_run)
        except ArgosyError as exc:
            if not (ignore_missing and isinstance(exc, NotFoundError)):
                told = failure.report(exc)
                code = code or told
    if containers:
        module = importlib.import_module("argosy.cli.containers")
        told = module.remove(
            containers, force=force, ignore_missing=ignore_missing, dry_run=dry_run
        )
        code = code or told
    return code


def _check(place: Location, referrers: bool) -> None:
    """Refuse, before anything is removed, what does not say what to remove."""
    if place.tag is None or (
        place.reference and not (place.reference.tag or place.reference.digest)
    ):
        raise UsageError(f"{place}: name the tag or the digest to remove")
    if place.tag.startswith("@"):
        raise UsageError(
            f"{place}: a manifest without a tag is removed by its digest",
            hint=f"`argosy digest --full {place}` prints it",
        )
    if place.own_tag and place.digest:
        raise UsageError(
            f"{place}: name the tag or the digest to remove, not both",
            hint="by digest the manifest goes with all its tags",
        )
    if referrers and place.digest is None:
        raise UsageError(
            f"--referrers: {place} is a tag, and what refers to its manifest stays with the manifest",
            hint=f"remove the manifest by digest: `argosy digest --full {place}` prints it",
        )


def _remove(place: Location, referrers: bool, dry_run: bool) -> None:
    assert place.tag is not None
    with places.target(place, ahead=place.digest is not None) as target:
        if not isinstance(target, Deleter):
            raise UnsupportedError(f"{place.transport}: nothing can be removed there")
        if place.digest is None and not dry_run:
            target.untag(place.tag)
            print(place.tag)
            return
        desc = target.resolve(place.tag)
        if place.digest is None:
            print(place.tag)
            return
        gone = _with_referrers(target, desc) if referrers else [desc]
        check_unlisted(target, gone)
        for entry in gone:
            if not dry_run:
                target.delete(entry)
            print(entry.digest)


def check_unlisted(target: Target, gone: Sequence[Descriptor]) -> None:
    """See that no index of a layout or an archive loses an image. A registry knows itself what its indexes need.

    Raises:
        UnsupportedError: an index that stays lists one of them.
    """
    layout: Any = sys.modules.get("argosy.layout.target")  # while it is not loaded, nothing is one
    if layout is None or not isinstance(target, layout.LayoutTarget):
        return
    digests = {desc.digest for desc in gone}
    for index in target.manifests():
        facts = target.catalog.facts(index) if index.is_index() else None
        if facts is None or index.digest in digests:
            continue
        for listed in digests.intersection(child.digest for child in facts.children):
            raise UnsupportedError(
                f"{listed} is part of the index {index.digest} in {target}, and stays",
                hint="`argosy rm` by a tag removes the tag alone; `argosy index rm` makes an index without it",
            )


def _with_referrers(source: Source, desc: Descriptor) -> Sequence[Descriptor]:
    """A manifest after all that refers to it, and that after what refers to that: so no subject goes first."""
    found = {desc.digest: desc}
    todo = deque([desc])
    while todo:
        for entry in source.referrers(todo.popleft()):
            if entry.digest not in found:
                found[entry.digest] = entry
                todo.append(entry)
        if len(found) > MAX_NODES:
            raise LimitExceededError(f"{desc.digest}: more than {MAX_NODES} manifests refer to it")
    return list(reversed(found.values()))
