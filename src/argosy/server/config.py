"""The registry's configuration: one YAML file and the environment in, frozen `Settings` out.

The schema is made from the dataclasses of `settings` and published as `schema.json`. Whatever it does not name is
refused, with the file, the line, the path of the property, and the nearest name there is.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import math
import os
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

from argosy.errors import InvalidConfigError, InvalidError, unread
from argosy.server.settings import Settings, Upstream
from argosy.spec.reference import parse_name, parse_registry

__all__ = [
    "check_config",
    "decode",
    "environment_names",
    "is_loopback",
    "load",
    "parse_yaml",
    "published",
    "require_access",
    "schema",
    "validate",
]

MAX_FILE_BYTES = 1024 * 1024
"""The largest configuration file that is read."""

ENVIRONMENT_PREFIX = "ARGOSY_REGISTRY_"

# -- the schema --------------------------------------------------------------------------------------------------

_SCALARS: dict[type, dict[str, object]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
}


def schema() -> dict[str, object]:
    """The JSON Schema (2020-12) of the configuration file, made from the dataclasses.

    >>> schema()["properties"]["listen"]["properties"]["port"]["maximum"]
    65535
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "argosy registry configuration",
        **_object_schema(Settings),
    }


def _object_schema(cls: type) -> dict[str, object]:
    hints = get_type_hints(cls)
    properties: dict[str, object] = {}
    for field in dataclasses.fields(cls):
        shape = _type_schema(hints[field.name], field.metadata["rules"])
        default = _default(field)
        shown = {} if dataclasses.is_dataclass(default) or default == "" else {"default": default}
        properties[field.name] = {"description": field.metadata["about"], **shape, **shown}
    made: dict[str, object] = {"type": "object", "properties": properties}
    if required := getattr(cls, "REQUIRED", ()):
        made["required"] = list(required)
    return made | {"additionalProperties": False}


def _type_schema(kind: Any, rules: Mapping[str, object]) -> dict[str, object]:
    if get_origin(kind) in {typing.Union, types.UnionType}:
        inner = next(part for part in get_args(kind) if part is not types.NoneType)
        return {"anyOf": [_type_schema(inner, rules), {"type": "null"}]}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind)), **rules}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _type_schema(get_args(kind)[0], {}), **rules}
    if dataclasses.is_dataclass(kind):
        return _object_schema(typing.cast("type", kind))
    return {**_SCALARS[kind], **rules}


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return list(made) if isinstance(made, tuple) else made
    return field.default


# -- reading -----------------------------------------------------------------------------------------------------


def load(path: str | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of a file, overridden by the environment.

    Args:
        path: The YAML file; only defaults and the environment if None.
        environment: Variables; those that begin with `ARGOSY_REGISTRY_` are taken, e.g. `ARGOSY_REGISTRY_LISTEN_PORT`.

    Raises:
        NotFoundError, DeniedError, StorageError: the file is not there, may not or cannot be read.
        InvalidConfigError: it or a variable breaks the schema; the message says where.

    >>> load(environment={"ARGOSY_REGISTRY_LISTEN_PORT": "5001"}).listen.port
    5001
    """
    text = _read(path) if path else ""
    where = path or "defaults"
    value, lines = parse_yaml(text, where)
    overridden = _override(value, environment or {})
    return decode(overridden, where=where, lines=lines)


def decode(
    value: object,
    *,
    where: str = "configuration",
    lines: Mapping[tuple[str, ...], int] | None = None,
) -> Settings:
    """Settings from a decoded document.

    Args:
        value: A mapping; None counts as an empty one.
        where: What to call the document in messages.
        lines: The line of each path in it, for messages.

    Raises:
        InvalidConfigError: it breaks the schema, or two of its settings contradict each other.
    """
    document = {} if value is None else value
    _validate(document, schema(), where, lines or {})
    settings = typing.cast("Settings", _build(Settings, document))
    for problem in _contradictions(settings):
        raise InvalidConfigError(f"{where}: {problem}")
    return settings


def check_config(path: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """All that is wrong with a configuration file itself, one line each. `checks` has what is wrong beside it.

    Raises:
        NotFoundError, DeniedError, StorageError: the file is not there, may not or cannot be read.
        InvalidConfigError: it is over the limit, or no UTF-8.
    """
    text = _read(path)
    value, lines = parse_yaml(text, path)
    document = _override(value, environment or {})
    document = {} if document is None else document
    problems = [_message(problem, path, lines)[0] for problem in _problems(document, schema())]
    if problems:
        return problems
    settings = typing.cast("Settings", _build(Settings, document))
    return [f"{path}: {problem}" for problem in _contradictions(settings)]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise unread(path, error) from None
    if len(raw) > MAX_FILE_BYTES:
        raise InvalidConfigError(f"{path}: over the limit of {MAX_FILE_BYTES} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"{path}: not UTF-8 at byte {error.start}") from None


def parse_yaml(text: str, where: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """A YAML document and the line (from 1) of every path in it.

    Raises:
        InvalidConfigError: it is not YAML, names a property twice, or uses anchors, which could hide its size.
    """
    import yaml

    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            mark = event.start_mark
            if isinstance(event, yaml.AliasEvent):
                line = f":{mark.line + 1}" if mark else ""
                raise InvalidConfigError(f"{where}{line}: aliases are not taken")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_lines(node, (), where)) if node is not None else {}
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InvalidConfigError(f"{where}{line}: {error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:
        raise InvalidConfigError(f"{where}: not YAML: {error}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidConfigError):
            raise
        raise InvalidConfigError(f"{where}: not YAML: {error}") from None


def _lines(node: Any, path: tuple[str, ...], where: str) -> Iterator[tuple[tuple[str, ...], int]]:
    yield path, node.start_mark.line + 1
    if node.id == "mapping":
        seen = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise InvalidConfigError(
                    f"{where}:{key.start_mark.line + 1}: {name!r} is there twice"
                )
            seen.add(name)
            yield from _lines(value, (*path, name), where)
            yield (*path, name), key.start_mark.line + 1
    elif node.id == "sequence":
        for index, value in enumerate(node.value):
            yield from _lines(value, (*path, str(index)), where)


def environment_names() -> dict[str, tuple[str, ...]]:
    """Every variable that overrides a property, with the property's path.

    >>> environment_names()["ARGOSY_REGISTRY_METADATA_POSTGRESQL_DSN"]
    ('metadata', 'postgresql', 'dsn')
    """
    return {ENVIRONMENT_PREFIX + "_".join(path).upper(): path for path, _ in _leaves(Settings, ())}


def _leaves(cls: type, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The path of every property that has no properties itself, and its type."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        inner = next((p for p in (kind, *get_args(kind)) if dataclasses.is_dataclass(p)), None)
        if inner is not None and get_origin(kind) is not tuple:
            yield from _leaves(typing.cast("type", inner), (*path, field.name))
        else:
            yield (*path, field.name), kind


def _is_text(kind: Any) -> bool:
    return kind in {str, str | None} or get_origin(kind) is Literal


def _override(value: Any, environment: Mapping[str, str]) -> Any:
    names, kinds = environment_names(), dict(_leaves(Settings, ()))
    given = {k: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
    if not given:
        return value
    made = {} if value is None else value
    for name, text in sorted(given.items()):
        if name not in names:
            raise InvalidConfigError(f"{name}: no such setting", hint=_nearest(name, names))
        is_text = _is_text(kinds[names[name]])  # as it is: a password may look like a number
        said = text if is_text else parse_yaml(text, name)[0]
        made = _with(made, names[name], said if text else None)
    return made


def _with(value: Any, path: tuple[str, ...], new: object) -> Any:
    if not path:
        return new
    base = value if isinstance(value, dict) else {}
    return base | {path[0]: _with(base.get(path[0]), path[1:], new)}


# -- checking ----------------------------------------------------------------------------------------------------


def _problems(document: object, rules: Mapping[str, object]) -> list[Any]:
    from jsonschema import Draft202012Validator, validators  # type: ignore[import-untyped]

    checker = Draft202012Validator.TYPE_CHECKER.redefine_many(_TYPES)
    strict = validators.extend(Draft202012Validator, type_checker=checker)
    errors = strict(dict(rules)).iter_errors(document)
    return sorted(errors, key=lambda e: list(map(str, e.path)))


def _is_integer(_checker: object, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: object, value: object) -> bool:
    return _is_integer(checker, value) or (isinstance(value, float) and math.isfinite(value))


def _is_string(_checker: object, value: object) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


_TYPES = {"integer": _is_integer, "number": _is_number, "string": _is_string}
"""What YAML can write and nothing here can use: 5.0 for a port, .nan, text that is in no file and no path."""


def _validate(
    document: object, rules: Mapping[str, object], where: str, lines: Mapping[tuple[str, ...], int]
) -> None:
    for problem in _problems(document, rules):
        message, hint = _message(problem, where, lines)
        raise InvalidConfigError(message, hint=hint)


def validate(
    document: object,
    rules: Mapping[str, object],
    where: str,
    lines: Mapping[tuple[str, ...], int] | None = None,
) -> None:
    """Hold a document against a JSON Schema.

    Raises:
        InvalidConfigError: it breaks it; the message names the first place, the hint the nearest property.
    """
    _validate(document, rules, where, lines or {})


def _message(
    problem: Any, where: str, lines: Mapping[tuple[str, ...], int]
) -> tuple[str, str | None]:
    error = _deepest(problem)
    path = tuple(str(part) for part in error.absolute_path)
    hint = None
    text = error.message
    if error.validator == "additionalProperties":
        unknown = min(set(error.instance) - set(error.schema["properties"]), key=str)
        path = (*path, str(unknown))
        text = "no such property"
        hint = _nearest(str(unknown), error.schema["properties"])
    elif error.schema.get("writeOnly"):
        text = text.replace(repr(error.instance), "what is there")
    line = f":{lines[path]}" if path in lines else ""
    return f"{where}{line}: {'.'.join(path) or 'document'}: {text[:300]}", hint


def _deepest(error: Any) -> Any:
    """Of an alternative with null, the error of the other branch."""
    while error.validator == "anyOf" and error.instance is not None:
        branch = [e for e in error.context if e.schema_path[0] == 0]
        if not branch:
            break
        error = branch[0]
    return error


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(sorted(known))}"


def _build(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(kind) in {typing.Union, types.UnionType}:
        inner = next(part for part in get_args(kind) if part is not types.NoneType)
        return _build(inner, value)
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], item) for item in value)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        made = {name: _build(hints[name], item) for name, item in value.items()}
        return typing.cast("Any", kind)(**made)
    return float(value) if kind is float else value


def _contradictions(settings: Settings) -> Iterator[str]:
    """What the schema cannot say."""
    for name in ("storage.s3", "metadata.postgresql"):
        part, _, kind = name.partition(".")
        chosen = getattr(settings, part)
        if chosen.type == kind and getattr(chosen, kind) is None:
            yield f"{name}: expected it, for the type that was chosen"
    for cidr in settings.listen.trusted_proxies:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            yield f"listen.trusted_proxies: {error}"
    names = [sink.name for sink in settings.events.sinks]
    prefixes = [upstream.prefix for upstream in settings.cache]
    for key, listed in (("events.sinks", names), ("cache", prefixes)):
        if len(set(listed)) != len(listed):
            yield f"{key}: two entries of the same name"
    for index, upstream in enumerate(settings.cache):
        yield from _wrong_upstream(upstream, f"cache.{index}")
    for key, url in _urls(settings):
        if url is not None:
            yield from _wrong_url(url, key)


def _urls(settings: Settings) -> Iterator[tuple[str, str | None]]:
    s3 = settings.storage.s3
    yield "listen.public_url", settings.listen.public_url
    yield "storage.s3.endpoint", s3.endpoint if s3 else None
    for index, issuer in enumerate(settings.access.issuers):
        yield f"access.issuers.{index}.jwks", issuer.jwks if "://" in issuer.jwks else None
    for index, sink in enumerate(settings.events.sinks):
        yield f"events.sinks.{index}.url", sink.url


def _wrong_upstream(upstream: Upstream, key: str) -> Iterator[str]:
    try:
        parse_name(upstream.prefix)
    except InvalidError as error:
        yield f"{key}.prefix: {error}"
    for name, text in (
        ("registry", upstream.registry),
        *(("token_hosts", host) for host in upstream.token_hosts),
    ):
        try:
            host = parse_registry(text)
        except InvalidError as error:
            yield f"{key}.{name}: {error}"
        else:
            if host != text:
                yield f"{key}.{name}: expected {host!r}, got {text!r}"


def _wrong_url(url: str, key: str) -> Iterator[str]:
    """Nothing of the URL is shown: there may be a secret in it."""
    if not url.isascii() or not url.isprintable() or " " in url or '"' in url:
        yield f"{key}: expected printable ASCII without spaces and quotes; others are written as %XX"
        return
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole:
        yield f"{key}: expected a host, and a port from 1 to 65535 if any"
    elif "@" in parts.netloc:
        yield f"{key}: expected no user and password"


def rights_of_everybody(settings: Settings) -> str:
    """What those may do who do not say who they are: `none`, `pull`, `push` or `all`.

    >>> rights_of_everybody(Settings())
    'all'
    """
    if settings.access.anonymous != "default":
        return settings.access.anonymous
    return "all" if is_loopback(settings.listen.host) and not _tells_apart(settings) else "none"


def is_open(settings: Settings) -> bool:
    """Whether everybody may do everything, and nobody can be told apart.

    >>> is_open(Settings())
    True
    """
    return rights_of_everybody(settings) == "all" and not _tells_apart(settings)


def _tells_apart(settings: Settings) -> bool:
    access = settings.access
    return bool(access.htpasswd or access.issuers or access.policy)


def require_access(settings: Settings) -> None:
    """See that somebody may do something.

    Raises:
        InvalidConfigError: on an address that others reach, nobody could.
    """
    nobody = rights_of_everybody(settings) == "none" and not _tells_apart(settings)
    if nobody and not is_loopback(settings.listen.host):
        raise InvalidConfigError(
            f"on {settings.listen.host} nobody could do anything: nothing says who may do what",
            hint="name an htpasswd file or a policy, or set access.anonymous",
        )


def is_loopback(host: str) -> bool:
    """Whether a server bound to this host can only be reached from this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def published() -> str:
    """The text of `schema.json`, as it is shipped."""
    return json.dumps(schema(), indent=2, sort_keys=False) + "\n"
