"""The registry's configuration: one YAML file, one published schema, frozen values.

The dataclasses below are the one truth: the JSON Schema (`schema.json` beside this file), the names of the
environment's overrides and the decoder all come from their fields. Whatever is not written here is refused, with the
file, the line, the path of the property, and the nearest name there is.

Every field's unit is in its name or its description: seconds, bytes, octal modes.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import os
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from argosy.errors import InvalidConfigError

MAX_FILE_BYTES = 1024 * 1024
"""The largest configuration file that is read."""

ENVIRONMENT_PREFIX = "ARGOSY_REGISTRY_"

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


def _field(default: Any, about: str, **rules: Any) -> Any:
    """A property: its default, its description, and more keywords of JSON Schema that bind it."""
    metadata = {"about": about, "rules": rules}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificate files; a change of either is taken up without a restart."""

    certificate: str = _field("", "PEM file: the certificate, then its chain", minLength=1)
    key: str = _field("", "PEM file of the private key", minLength=1)
    client_ca: str | None = _field(None, "PEM file: clients must show a certificate of this CA")

    REQUIRED: ClassVar[tuple[str, ...]] = ("certificate", "key")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where the registry listens, and whom it believes about where a request came from."""

    host: str = _field("127.0.0.1", "address to bind; anything but loopback needs access rules")
    port: int = _field(5000, "port to bind; 0 takes a free one", minimum=0, maximum=65535)
    workers: int = _field(1, "worker processes; more than one needs a shared upload secret")
    tls: Tls | None = _field(None, "serve HTTPS")
    public_url: str | None = _field(
        None, "what clients call this registry, e.g. https://registry.example (token realm)"
    )
    trusted_proxies: tuple[str, ...] = _field(
        tuple, "CIDRs whose X-Forwarded-For and X-Forwarded-Proto are believed; nobody's by default"
    )
    shutdown_seconds: float = _field(
        30.0, "how long a stop waits for bodies under way", minimum=0, maximum=3600
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """An S3-compatible object store."""

    bucket: str = _field("", "bucket name", minLength=3, maxLength=255)
    endpoint: str | None = _field(None, "URL of the service, for anything but AWS")
    region: str = _field("us-east-1", "region")
    prefix: str = _field("", "put before every key")
    access_key: str | None = _field(None, "access key id; None takes it from the environment")
    secret_key: str | None = _field(None, "secret access key")
    path_style: bool = _field(True, "address the bucket in the path, not in the host name")
    redirect: bool = _field(False, "send blob downloads to presigned URLs (307) where possible")
    redirect_seconds: int = _field(600, "how long a presigned URL lives", minimum=1, maximum=604800)
    memory_bytes: int = _field(
        256 * MiB, "the most that all uploads under way hold in memory", minimum=16 * MiB
    )
    timeout_seconds: float = _field(
        60.0, "how long one request may take", exclusiveMinimum=0, maximum=3600
    )

    REQUIRED: ClassVar[tuple[str, ...]] = ("bucket",)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where blobs are kept."""

    type: Literal["filesystem", "s3"] = _field("filesystem", "the kind of storage")
    root: str | None = _field(None, "directory of the file system storage; below `data` if None")
    s3: S3 | None = _field(None, "the object store, for type s3")
    reserve_bytes: int = _field(
        256 * MiB, "free space below which uploads are refused (file system)", minimum=0
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Postgresql:
    """A PostgreSQL database, shared by all replicas."""

    dsn: str = _field("", "libpq connection string or URL", minLength=1)
    pool: int = _field(10, "connections of one worker at most", minimum=1, maximum=1000)
    statement_seconds: float = _field(
        30.0, "how long one statement may take", exclusiveMinimum=0, maximum=3600
    )

    REQUIRED: ClassVar[tuple[str, ...]] = ("dsn",)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MetadataStore:
    """Where names, tags and links are kept."""

    type: Literal["sqlite", "postgresql"] = _field("sqlite", "the database engine")
    path: str | None = _field(None, "file of the SQLite database; below `data` if None")
    postgresql: Postgresql | None = _field(None, "the database, for type postgresql")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request, one client and one address may cost."""

    manifest_bytes: int = _field(8 * MiB, "largest manifest", minimum=4 * MiB, maximum=64 * MiB)
    blob_bytes: int = _field(0, "largest blob; 0 for no limit", minimum=0)
    page: int = _field(1000, "most entries of one page of a list", minimum=1, maximum=10000)
    tags_per_push: int = _field(100, "most tags of one manifest PUT", minimum=10, maximum=1000)
    body_idle_seconds: float = _field(
        60.0, "how long a body may send nothing", exclusiveMinimum=0, maximum=3600
    )
    body_seconds: float = _field(
        6 * 3600.0, "how long a body may take", exclusiveMinimum=0, maximum=86400
    )
    concurrency: int = _field(256, "requests under way in one worker", minimum=1)
    concurrency_per_client: int = _field(
        64, "requests under way of one user, or of one address for anonymous ones", minimum=1
    )
    requests_per_second: float = _field(
        0.0, "rate of one user or anonymous address; 0 for no limit", minimum=0
    )
    burst: int = _field(100, "requests above the rate that are let through at once", minimum=1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Garbage collection, and how long what nobody refers to is kept."""

    enabled: bool = _field(True, "collect in the background")
    interval_seconds: float = _field(30.0, "pause between two passes", minimum=0.01)
    grace_seconds: float = _field(
        86400.0,
        "how long a blob nobody refers to is kept; 24 h is what clients may rely on",
        minimum=0,
    )
    trash_seconds: float = _field(
        86400.0,
        "how long the bytes of a collected blob are kept for undelete and readers",
        minimum=0,
    )
    upload_seconds: float = _field(
        86400.0, "how long an upload nobody continues is kept", minimum=1
    )
    untagged: bool = _field(False, "collect manifests no tag and no index refers to")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Somebody else whose tokens are believed."""

    issuer: str = _field("", "the `iss` claim, exactly", minLength=1)
    audience: str = _field("", "the `aud` claim that tokens must have", minLength=1)
    jwks: str = _field("", "file or https URL of the issuer's JSON Web Key Set", minLength=1)
    algorithms: tuple[Literal["EdDSA", "ES256", "ES384", "RS256", "RS384", "PS256"], ...] = _field(
        lambda: ("EdDSA", "ES256", "RS256"), "signature algorithms that are believed", minItems=1
    )
    user_claim: str = _field("sub", "the claim with the user's name", minLength=1)
    groups_claim: str = _field("groups", "the claim with the user's groups", minLength=1)
    refresh_seconds: float = _field(
        300.0, "how often keys from a URL are fetched again", minimum=10
    )

    REQUIRED: ClassVar[tuple[str, ...]] = ("issuer", "audience", "jwks")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The built-in token endpoint, `/token`."""

    enabled: bool = _field(True, "give out tokens, and challenge with Bearer instead of Basic")
    issuer: str = _field("argosy", "the `iss` claim of tokens given out", minLength=1)
    service: str = _field("argosy", "the service's name: the `aud` claim", minLength=1)
    lifetime_seconds: int = _field(
        300, "how long a token lives; clients expect 60 or more", minimum=60, maximum=3600
    )
    key: str | None = _field(
        None, "PEM file (mode 0600) of the Ed25519 or P-256 key; made below `data` if None"
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AccessSettings:
    """Who may do what. Nothing here means: everything on loopback, nothing elsewhere."""

    anonymous: Literal["default", "none", "pull", "push", "all"] = _field(
        "default", "what a request without credentials may do; `default` is `all` on loopback only"
    )
    htpasswd: str | None = _field(
        None, "file of users with bcrypt hashes, taken up when it changes"
    )
    fail_delay_seconds: float = _field(
        1.0, "how long the answer to a wrong password takes", minimum=0, maximum=60
    )
    tokens: Tokens = _field(Tokens, "the built-in token endpoint")
    issuers: tuple[Issuer, ...] = _field(tuple, "others whose tokens are believed")
    policy: str | None = _field(
        None, "policy file: who may do what where, immutable tags, retention"
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A webhook that events are delivered to, at least once and in order."""

    name: str = _field(
        "", "its name: the delivery cursor belongs to it", pattern="^[a-z0-9-]{1,63}$"
    )
    url: str = _field("", "http or https URL", pattern="^https?://")
    types: tuple[str, ...] = _field(tuple, "event types to deliver; all if empty")
    secret: str | None = _field(None, "key of the HMAC-SHA256 signature header")
    timeout_seconds: float = _field(10.0, "how long one delivery may take", exclusiveMinimum=0)
    attempts: int = _field(10, "tries before an event is put with the dead letters", minimum=1)
    allow_private: bool = _field(False, "whether the URL may lead to a private address")

    REQUIRED: ClassVar[tuple[str, ...]] = ("name", "url")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What is told about pushes and deletes."""

    sinks: tuple[Sink, ...] = _field(tuple, "webhooks")
    keep_seconds: float = _field(7 * 86400.0, "how long delivered events are kept", minimum=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A registry whose repositories are pulled through below a prefix."""

    prefix: str = _field("", "first part of the names here, e.g. `hub`", minLength=1, maxLength=128)
    registry: str = _field("", "the upstream's host, e.g. `docker.io`", minLength=1)
    fresh_seconds: float = _field(300.0, "how long a tag is served without asking again", minimum=0)
    missing_seconds: float = _field(30.0, "how long a 404 is remembered", minimum=0)

    REQUIRED: ClassVar[tuple[str, ...]] = ("prefix", "registry")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is written down."""

    level: Literal["debug", "info", "warning", "error"] = _field(
        "info", "least severe level written"
    )
    access: bool = _field(True, "write one JSON line a request")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """Doors for those who run the registry."""

    metrics: Literal["loopback", "all", "admin", "none"] = _field(
        "loopback", "who may read /metrics: loopback addresses, everybody, admins, nobody"
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What repositories take."""

    sparse: bool = _field(False, "accept manifests whose children are missing")
    delete: bool = _field(True, "accept DELETE of tags, manifests and blobs")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured; the defaults are a registry for one person on one machine.

    Example:
        >>> Settings().listen.port
        5000
        >>> decode({"listen": {"port": 5001}}).listen.port
        5001
    """

    data: str | None = _field(None, "directory for everything; the user's data directory if None")
    secret: str | None = _field(
        None, "key that signs upload sessions, the same on all replicas; kept in `data` if None"
    )
    listen: Listen = _field(Listen, "where to listen")
    storage: Storage = _field(Storage, "where blobs are kept")
    metadata: MetadataStore = _field(MetadataStore, "where names, tags and links are kept")
    content: Content = _field(Content, "what repositories take")
    limits: Limits = _field(Limits, "what a request may cost")
    gc: Collection = _field(Collection, "garbage collection")
    access: AccessSettings = _field(AccessSettings, "who may do what")
    events: Events = _field(Events, "what is told about pushes and deletes")
    cache: tuple[Upstream, ...] = _field(tuple, "registries that are pulled through")
    log: Log = _field(Log, "what is written down")
    operations: Operations = _field(Operations, "doors for those who run the registry")


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
        InvalidConfigError: the file cannot be read, or it or a variable breaks the schema; the message says where.

    >>> load(environment={"ARGOSY_REGISTRY_LISTEN_PORT": "5001"}).listen.port
    5001
    """
    text = _read(path) if path else ""
    where = path or "defaults"
    value, lines = _parse(text, where)
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
    _check(settings, where)
    return settings


def check_config(path: str, environment: Mapping[str, str] | None = None) -> list[str]:
    """All that is wrong with a configuration file, one line each; empty where it can be served.

    Other files it names are looked for, too.

    Raises:
        InvalidConfigError: the file cannot be read at all.
    """
    text = _read(path)
    value, lines = _parse(text, path)
    document = _override(value, environment or {})
    problems = [
        _message(problem, path, lines)[0]
        for problem in _problems({} if document is None else document, schema())
    ]
    if problems:
        return problems
    try:
        settings = decode(document, where=path, lines=lines)
    except InvalidConfigError as error:
        return [str(error)]
    return [
        f"{path}: {key}: no such file: {name}"
        for key, name in _files(settings)
        if not os.path.isfile(name)
    ]


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidConfigError(f"{path}: {error.strerror}") from None
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
    return _parse(text, where)


def _parse(text: str, where: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    import yaml

    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InvalidConfigError(
                    f"{where}:{event.start_mark.line + 1}: aliases are not taken"
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = dict(_lines(node, (), where)) if node is not None else {}
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InvalidConfigError(f"{where}{line}: {problem}") from None
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
    return {ENVIRONMENT_PREFIX + "_".join(path).upper(): path for path in _leaves(Settings, ())}


def _leaves(cls: type, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind = hints[field.name]
        inner = next((p for p in (kind, *get_args(kind)) if dataclasses.is_dataclass(p)), None)
        if inner is not None and get_origin(kind) is not tuple:
            yield from _leaves(typing.cast("type", inner), (*path, field.name))
        else:
            yield (*path, field.name)


def _override(value: Any, environment: Mapping[str, str]) -> Any:
    names = environment_names()
    given = {k: v for k, v in environment.items() if k.startswith(ENVIRONMENT_PREFIX)}
    if not given:
        return value
    made = {} if value is None else value
    for name, text in sorted(given.items()):
        if name not in names:
            raise InvalidConfigError(f"{name}: no such setting", hint=_nearest(name, names))
        made = _with(made, names[name], _parse(text, name)[0] if text else None)
    return made


def _with(value: Any, path: tuple[str, ...], new: object) -> Any:
    if not path:
        return new
    base = value if isinstance(value, dict) else {}
    return base | {path[0]: _with(base.get(path[0]), path[1:], new)}


# -- checking ----------------------------------------------------------------------------------------------------


def _problems(document: object, rules: Mapping[str, object]) -> list[Any]:
    from jsonschema import Draft202012Validator

    return sorted(
        Draft202012Validator(dict(rules)).iter_errors(document),
        key=lambda e: list(map(str, e.path)),
    )


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
        unknown = sorted(set(error.instance) - set(error.schema["properties"]), key=str)[0]
        path = (*path, str(unknown))
        text = "no such property"
        hint = _nearest(str(unknown), error.schema["properties"])
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


def _check(settings: Settings, where: str) -> None:
    """What the schema cannot say."""
    needs = [
        (settings.storage.type == "s3" and settings.storage.s3 is None, "storage.s3"),
        (
            settings.metadata.type == "postgresql" and settings.metadata.postgresql is None,
            "metadata.postgresql",
        ),
    ]
    for missing, name in needs:
        if missing:
            raise InvalidConfigError(f"{where}: {name}: expected it, for the type that was chosen")
    for cidr in settings.listen.trusted_proxies:
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise InvalidConfigError(f"{where}: listen.trusted_proxies: {error}") from None
    names = [sink.name for sink in settings.events.sinks]
    prefixes = [upstream.prefix for upstream in settings.cache]
    for key, listed in (("events.sinks", names), ("cache", prefixes)):
        if len(set(listed)) != len(listed):
            raise InvalidConfigError(f"{where}: {key}: two entries of the same name")


def _files(settings: Settings) -> Iterator[tuple[str, str]]:
    tls = settings.listen.tls
    if tls is not None:
        yield "listen.tls.certificate", tls.certificate
        yield "listen.tls.key", tls.key
    for key in ("htpasswd", "policy"):
        if name := getattr(settings.access, key):
            yield f"access.{key}", name
    for index, issuer in enumerate(settings.access.issuers):
        if "://" not in issuer.jwks:
            yield f"access.issuers.{index}.jwks", issuer.jwks


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
