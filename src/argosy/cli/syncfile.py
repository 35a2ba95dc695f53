"""The file of `argosy sync`: YAML, a list of jobs, or what `skopeo sync --src yaml` takes.

That is registries with `images`, `images-by-tag-regex` and `images-by-semver`. Scalars are read as the text they are:
the tag 3.20 is not 3.2.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from argosy.cli import places
from argosy.cli.options import located
from argosy.cli.syncing import Job, as_names, own_tags
from argosy.errors import ArgosyError, InvalidConfigError, LimitExceededError
from argosy.locate import Location
from argosy.spec.platform import Platform
from argosy.spec.reference import Reference

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
    source = located(_text(value, "source", where))
    target = _text(value, "target", where) if "target" in value else None
    return Job(
        source=source,
        target=located(target) if target else base(source, where),
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
        if ":" in name:
            raise InvalidConfigError(
                f"{where}: {name} below {target.reference.repository}: a repository's name holds no port",
                hint="give the job a target of its own, or leave --scoped out",
            )
        return Location.parse(f"docker://{target.reference.repository}/{name}")
    return dataclasses.replace(target, path=f"{target.path}/{name}")
