"""`argosy rm`: one tag, or a manifest by digest."""

from __future__ import annotations

import click

from argosy.cli import places
from argosy.cli.options import PLACE
from argosy.content.protocols import Deleter
from argosy.errors import NotFoundError, UnsupportedError, UsageError
from argosy.locate import Location


@click.command()
@click.argument("named", nargs=-1, required=True, type=PLACE, metavar="PLACE...")
@click.option("--referrers", is_flag=True, help="By digest: also what refers to the manifest.")
@click.option("--ignore-missing", is_flag=True, help="What is not there is no error.")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
def command(
    named: tuple[Location, ...], referrers: bool, ignore_missing: bool, dry_run: bool
) -> None:
    """Remove a tag and leave its siblings; or, by digest, a manifest with all its tags.

    \b
    Examples:
      argosy rm oci:images:old
      argosy rm --referrers registry.example/app@sha256:44136fa3…
    """
    for place in named:
        try:
            _remove(place, referrers, dry_run)
        except NotFoundError:
            if not ignore_missing:
                raise


def _remove(place: Location, referrers: bool, dry_run: bool) -> None:
    if place.tag is None or (
        place.reference and not (place.reference.tag or place.reference.digest)
    ):
        raise UsageError(f"{place}: name the tag or the digest to remove")
    with places.target(place) as target:
        if not isinstance(target, Deleter):
            raise UnsupportedError(f"{place.transport}: nothing can be removed there")
        desc = target.resolve(place.tag)
        doomed = list(target.referrers(desc)) if referrers else []
        by_digest = ":" in place.tag
        for entry in doomed:
            print(entry.digest)
            if not dry_run:
                target.delete(entry)
        print(desc.digest if by_digest else place.tag)
        if dry_run:
            return
        if by_digest:
            target.delete(desc)
        else:
            target.untag(place.tag)
