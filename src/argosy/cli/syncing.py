"""What `argosy sync` is to do: which tags a job means, and what must change for them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from argosy.cli import places
from argosy.cli.options import patterns
from argosy.cli.versions import parse_range, parse_version
from argosy.content.copy import chosen
from argosy.content.protocols import Source
from argosy.errors import (
    ArgosyError,
    ManifestUnknownError,
    NameUnknownError,
    UsageError,
)
from argosy.locate import Location
from argosy.spec.digest import ALGORITHMS, Digest
from argosy.spec.platform import Platform
from argosy.spec.reference import Reference, digest_tag, is_referrers_tag


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One repository to keep the same in another place.

    Args:
        source: Where the tags come from. `target`: where they go.
        tags: These tags, whatever else is said; a digest is copied without a tag.
        include: Regular expressions, one of which a tag must match whole. `exclude`: none of which it may match.
        search: Regular expressions, one of which must match somewhere in a tag, as skopeo's do.
        semver: A range that a tag must be a version in.
        newest: Only so many versions, the newest.
        platforms: Of indexes, only these images.
        referrers: Also what refers to them. `digest_tags`: also tags like `sha256-<hex>.sig`.
        prune: Remove tags of the target that the filters take and that the source does not have at all; tags for
            digests only with `digest_tags`.
        access: Options for the source's registry, as `connections.META` has them.
    """

    source: Location
    target: Location
    tags: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    semver: str | None = None
    newest: int | None = None
    platforms: tuple[Platform, ...] = ()
    referrers: bool = False
    digest_tags: bool = False
    prune: bool = False
    access: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def selector(self) -> Callable[[str], bool]:
        """What says whether the filters take a tag. The list of referrers that clients keep under a tag is no image's.

        Raises:
            UsageError: a filter makes no sense.
        """
        wanted, unwanted = patterns(self.include), patterns(self.exclude)
        sought = patterns(self.search)
        inside = parse_range(self.semver) if self.semver else None
        versions = inside is not None or self.newest is not None

        def selects(tag: str) -> bool:
            version = parse_version(tag) if versions else None
            return not (
                is_referrers_tag(tag)
                or (wanted and not any(p.fullmatch(tag) for p in wanted))
                or any(p.fullmatch(tag) for p in unwanted)
                or (sought and not any(p.search(tag) for p in sought))
                or (versions and version is None)
                or (inside and version and not inside(version))
            )

        return selects

    def matching(self, tags: Iterable[str]) -> list[str]:
        """The tags of some that this job is about.

        Raises:
            UsageError: a filter makes no sense.
        """
        if self.by_name:
            return list(self.tags)
        found = list(filter(self.selector(), tags))
        if self.newest is not None:
            versions = [(v, t) for t in found if (v := parse_version(t))]
            found = [tag for _, tag in sorted(versions)[-self.newest :]]
        return [*found, *(tag for tag in self.tags if tag not in found)]

    @property
    def by_name(self) -> bool:
        """Whether its tags are named one by one, and not said by a filter."""
        return bool(self.tags) and not (self.include or self.search or self.semver)

    def check(self) -> Job:
        """Itself, if it makes sense.

        Raises:
            UsageError: it does not.
        """
        self.selector()
        if own_tags(self.target):
            raise UsageError(
                f"{self.target}: the target has no tag of its own: tags keep their names"
            )
        for tag in filter(is_referrers_tag, self.tags):
            raise UsageError(
                f"{tag} is a list of referrers, and no image", hint="they come with --referrers"
            )
        return self


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do: `copy`, `prune`, or nothing because it is the `same`; or `fail`, because it cannot be done.

    `name` is what the source calls it; `tag` its tag at the target, or its digest where it gets none. `there` says that
    the target has it, so that only what goes with it may be missing.
    """

    action: str
    tag: str
    name: str = ""
    digest: Digest | None = None
    there: bool = False
    error: ArgosyError | None = None


Each = Callable[[Callable[[Any], Step], Iterable[Any]], Iterator[Step]]
"""As `map`, perhaps some at a time."""


def plan(job: Job, source: Source, target: Source, each: Each = map) -> Iterator[Step]:
    """What must change at the target.

    Nothing is read but lists of tags, digests, and what `argosy.content.copy.chosen` reads to find `platforms`.

    Args:
        job: What is wanted.
        source: Where it comes from.
        target: Where it goes.
        each: What looks at the tags.

    Raises:
        ArgosyError: one of the places fails.
    """
    if not job.by_name:  # of an image without tags everything would be pruned
        places.check_tags(job.source)
    have = () if job.by_name else tuple(source.tags())
    names = _named(job, job.matching(have))
    places.check_room(job.target, names)
    yield from each(lambda one: _step(job, one[0], one[1], source, target), names.items())
    if job.prune and not job.by_name:
        kept = {*names, *_had(job, have)}
        for tag in sorted(_surplus(job, target, kept)):
            found = _resolved(job, target, tag)
            if found is not None:
                yield Step(action="prune", tag=tag, digest=found)


def _named(job: Job, names: Iterable[str]) -> dict[str, str]:
    """Names at the source by what they will be at the target.

    Raises:
        UsageError: two of them would be one.
    """
    found: dict[str, str] = {}
    for name in names:
        tag = _at_target(job, name)
        if found.setdefault(tag, name) != name:
            raise UsageError(
                f"{found[tag]} and {name} would both be {tag} at {job.target}",
                hint="choose one of them with --tag",
            )
    return found


def _had(job: Job, names: Iterable[str]) -> Iterator[str]:
    """What all the source has would be at the target, but for what could not be there."""
    for name in names:
        with contextlib.suppress(UsageError):
            yield _at_target(job, name)


def _at_target(job: Job, name: str) -> str:
    """What a name at the source is at the target; content without a name gets none but the tag typed beside it."""
    if job.source.own_tag and name == job.source.digest:
        name = job.source.own_tag
    if isinstance(name, Digest) or name.startswith("@"):
        return name
    return places.carried(job.source, job.target, name)


def _step(job: Job, tag: str, name: str, source: Source, target: Source) -> Step:
    try:
        digest = chosen(source, name, job.platforms).digest
        if isinstance(tag, Digest) or tag.startswith("@"):
            tag = digest
        there = digest == _resolved(job, target, tag)
    except ArgosyError as exc:
        return Step(action="fail", tag=tag, name=name, error=exc)
    same = there and not job.referrers and not job.digest_tags
    return Step(action="same" if same else "copy", tag=tag, name=name, digest=digest, there=there)


def _surplus(job: Job, target: Source, kept: set[str]) -> Iterator[str]:
    """The tags at the target that are the job's to remove: what its filters leave out never was."""
    selects = job.selector()
    try:
        for tag in target.tags():
            name = _at_source(job, tag)
            if name is None or _at_target(job, name) in kept or not selects(name):
                continue
            if job.digest_tags or digest_tag(tag) is None:
                yield tag
    except NameUnknownError:
        return


def _at_source(job: Job, tag: str) -> str | None:
    """What a tag at the target is called at the source; None for an archive's image of another repository."""
    if job.target.transport != "docker-archive" or job.source.reference is None:
        return tag
    found = Reference.parse(tag)
    same = found.repository == job.source.reference.repository
    return found.tag or "latest" if same else None


def _resolved(job: Job, target: Source, tag: str) -> Digest | None:
    try:
        # a `dir:` has no tags, and is its one image
        return target.resolve("@0" if job.target.transport == "dir" else tag).digest
    except (ManifestUnknownError, NameUnknownError):
        return None


def own_tags(place: Location) -> tuple[str, ...]:
    """The tag or digest that was typed with a place, if any."""
    typed = place.digest or place.own_tag
    return (typed,) if typed else ()


def as_names(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as they are, digests as digests.

    >>> [type(name).__name__ for name in as_names(["app:v1", "sha256:" + 64 * "0"])]
    ['str', 'Digest']
    """
    return tuple(Digest(t) if t.partition(":")[0] in ALGORITHMS else t for t in tags)
