"""What `argosy sync` is to do: jobs from flags or a file, which tags they mean, and what must change for them.

The file is YAML, a list of jobs, or what `skopeo sync --src yaml` takes: registries with `images`,
`images-by-tag-regex` and `images-by-semver`. Its scalars are read as the text they are: the tag 3.20 is not 3.2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from argosy.cli import places
from argosy.cli.options import patterns
from argosy.cli.versions import parse_range, parse_version
from argosy.content.copy import chosen
from argosy.content.protocols import Source
from argosy.errors import (
    ArgosyError,
    InvalidConfigError,
    LimitExceededError,
    ManifestUnknownError,
    NameUnknownError,
    UsageError,
)
from argosy.locate import Location
from argosy.spec.digest import ALGORITHMS, Digest
from argosy.spec.platform import Platform
from argosy.spec.reference import Reference, digest_tag, is_referrers_tag

Base = Callable[[Location, str], Location]
"""Where a source goes that has no target of its own; the text is what to call its place in the file."""

MAX_FILE = 4 * 1024 * 1024
_KEYS = {
    "source", "target", "tags", "include", "exclude", "semver", "platforms", "referrers", "digest-tags", "prune",
    "newest",
}  # fmt: skip
_RESOLVED = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
"""What YAML 1.1 takes for a truth value."""
_SKOPEO = {
    "images",
    "images-by-tag-regex",
    "images-by-semver",
    "credentials",
    "tls-verify",
    "cert-dir",
}


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


def plan(job: Job, source: Source, target: Source) -> Iterator[Step]:
    """What must change at the target; nothing is read but lists of tags, digests, and with `platforms` indexes.

    Raises:
        ArgosyError: one of the places fails.
    """
    if not job.by_name:  # of an image without tags everything would be pruned
        places.check_tags(job.source)
    have = () if job.by_name else tuple(source.tags())
    names = _named(job, job.matching(have))
    places.check_room(job.target, names)
    for tag, name in names.items():
        yield _step(job, name, tag, source, target)
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


def _step(job: Job, name: str, tag: str, source: Source, target: Source) -> Step:
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


# -------------------------------------------------------------------------------------------------------------- files


def read_jobs(
    text: bytes | str, path: str, target: Location | None = None, *, scoped: bool = False
) -> list[Job]:
    """The jobs of a file.

    Args:
        text: What it holds.
        path: What to call it in messages.
        target: Where jobs without a target of their own go: below it, under their repository's name; those of skopeo's
            file under its last part, as there.
        scoped: The registry is part of that name.

    Raises:
        InvalidConfigError: it is not YAML, or holds something that is not understood.
        LimitExceededError: it is longer than 4 MiB.
    """
    if len(text) > MAX_FILE:
        raise LimitExceededError(f"{path}: over the limit of {MAX_FILE} bytes")
    value = _parsed(text, path)
    name: Callable[[Reference], str] = operator.attrgetter("repository" if scoped else "name")
    try:
        if isinstance(value, list):
            base = functools.partial(below, target, name)
            return [_job(item, f"{path}: [{n}]", base) for n, item in enumerate(value)]
        if isinstance(value, dict):
            base = functools.partial(below, target, name if scoped else _last)
            return _apart(_skopeo(value, path, base), path)
    except ArgosyError as exc:
        if isinstance(exc, InvalidConfigError):
            raise
        raise InvalidConfigError(f"{path}: {exc}") from None
    raise InvalidConfigError(f"{path}: expected a list of jobs")


def _parsed(text: bytes | str, path: str) -> Any:
    """What a file holds, in lists, mappings and texts: only what is left empty is no text."""
    yaml: Any = importlib.import_module("yaml")
    resolvers = {
        first: [(tag, pattern) for tag, pattern in known if tag in _RESOLVED]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    kind: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": resolvers})
    try:
        loader = kind(text)
        node = loader.get_single_node()
        _check_once(node, path, set())
        return loader.construct_document(node) if node else None
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        if isinstance(exc, InvalidConfigError):
            raise
        raise InvalidConfigError(f"{path}: not YAML: {' '.join(str(exc).split())}") from None


def _check_once(node: Any, path: str, seen: set[int]) -> None:
    """See that no mapping has a key twice: which of its values is meant is not guessed.

    Raises:
        InvalidConfigError: one has.
    """
    if node is None or node.id == "scalar" or id(node) in seen:
        return  # an alias is the node it stands for
    seen.add(id(node))
    inner = node.value
    if node.id == "mapping":
        inner = [value for _, value in node.value]
        names = [key for key, _ in node.value if key.id == "scalar"]
        for before, key in itertools.pairwise(sorted(names, key=operator.attrgetter("value"))):
            if key.value == before.value:
                line = key.start_mark.line + 1
                raise InvalidConfigError(f"{path}:{line}: {key.value!r} is there twice")
    for value in inner:
        _check_once(value, path, seen)


def _last(source: Reference) -> str:
    return source.name.rpartition("/")[2]


def _job(value: Any, where: str, base: Base) -> Job:
    if not isinstance(value, dict) or "source" not in value:
        raise InvalidConfigError(f"{where}: expected a job with a source")
    unknown = set(value) - _KEYS
    if unknown:
        raise InvalidConfigError(f"{where}: unknown key {min(map(str, unknown))!r}")
    source = Location.parse(_text(value, "source", where))
    target = _text(value, "target", where) if "target" in value else None
    return Job(
        source=source,
        target=Location.parse(target) if target else base(source, where),
        tags=as_names(_strings(value, "tags", where)) or own_tags(source),
        include=_strings(value, "include", where),
        exclude=_strings(value, "exclude", where),
        semver=_text(value, "semver", where) if "semver" in value else None,
        newest=_number(value, "newest", where),
        platforms=tuple(Platform.parse(p) for p in _strings(value, "platforms", where)),
        referrers=_flag(value, "referrers", where),
        digest_tags=_flag(value, "digest-tags", where),
        prune=_flag(value, "prune", where),
    ).check()


def _text(value: Mapping[str, Any], key: str, where: str) -> str:
    found = value[key]
    if not isinstance(found, str) or not found:
        raise InvalidConfigError(f"{where}: {key}: expected a string")
    return found


def _strings(value: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    found = value.get(key) or ()
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, (list, tuple)) or not all(isinstance(s, str) for s in found):
        raise InvalidConfigError(f"{where}: {key}: expected a list of strings")
    return tuple(found)


def _flag(value: Mapping[str, Any], key: str, where: str) -> bool:
    text = str(value.get(key) or "false")
    if text.lower() not in _FLAGS:
        raise InvalidConfigError(f"{where}: {key}: expected true or false, got {text[:100]!r}")
    return _FLAGS[text.lower()]


def _number(value: Mapping[str, Any], key: str, where: str) -> int | None:
    text = value.get(key)
    if text is None:
        return None
    if not re.fullmatch("0*[1-9][0-9]{0,8}", str(text)):
        raise InvalidConfigError(f"{where}: {key}: expected a number from 1 on")
    return int(text)


def _apart(jobs: Iterable[Job], path: str) -> list[Job]:
    """Jobs of which no two bring different repositories to one place.

    Raises:
        InvalidConfigError: two do, and the tags of the one would be lost for those of the other.
    """
    found = list(jobs)
    sources: dict[str, str] = {}
    for job in found:
        here = places.repository(job.source) or str(job.source)
        other = sources.setdefault(str(job.target), here)
        if other != here:
            raise InvalidConfigError(
                f"{path}: {other} and {here} would both go to {job.target}",
                hint="--scoped keeps them apart",
            )
    return found


def _access(settings: Mapping[str, Any], where: str) -> dict[str, object]:
    """What skopeo's file says of how a registry is talked to, as options."""
    found: dict[str, object] = {}
    if "tls-verify" in settings:
        found["src.tls_verify"] = _flag(settings, "tls-verify", where)
    if settings.get("cert-dir"):
        found["src.cert_dir"] = str(settings["cert-dir"])
    given = settings.get("credentials") or {}
    if not isinstance(given, dict) or set(given) - {"username", "password"}:
        raise InvalidConfigError(f"{where}: credentials: expected username and password")
    if given:
        found["src.creds"] = f"{given.get('username', '')}:{given.get('password', '')}"
    return found


def _skopeo(value: Mapping[str, Any], path: str, base: Base) -> Iterator[Job]:
    for registry, settings in value.items():
        where = f"{path}: {registry}"
        if not isinstance(settings, dict):
            raise InvalidConfigError(
                f"{where}: expected an object, as of a registry in skopeo's file",
                hint="argosy's own file is a list of jobs: see argosy sync --help",
            )
        unknown = set(settings) - _SKOPEO
        if unknown:
            raise InvalidConfigError(f"{where}: unknown key {min(map(str, unknown))!r}")
        tables: Iterable[tuple[str, str]] = (
            ("images", "tags"), ("images-by-tag-regex", "search"), ("images-by-semver", "semver"),
        )  # fmt: skip
        access = _access(settings, where)
        for key, field in tables:
            named = settings.get(key) or {}
            if not isinstance(named, dict):
                raise InvalidConfigError(f"{where}: {key}: expected an object")
            for name, wanted in named.items():
                job: dict[str, Any] = {"source": f"{registry}/{name}"}
                more: dict[str, Any] = {"access": access}
                if wanted and field == "search":
                    more[field] = (_text(named, name, f"{where}: {key}"),)
                elif wanted:
                    job[field] = wanted
                made = _job(job, f"{where}.{key}.{name}", base)
                yield dataclasses.replace(made, **more).check()


def below(
    target: Location | None, named: Callable[[Reference], str], source: Location, where: str
) -> Location:
    """Where a repository goes below a target: `mirror.example/base` and what `quay.io/org/app` is named there.

    Raises:
        InvalidConfigError: there is no target, or no such place below it.
    """
    if target is None:
        raise InvalidConfigError(f"{where}: no target", hint="give one to all jobs with --target")
    if source.reference is None or own_tags(target):
        return target
    name = named(source.reference)
    if target.reference is not None:
        return Location.parse(f"docker://{target.reference.repository}/{name}")
    return dataclasses.replace(target, path=f"{target.path}/{name}")
