"""The registry's settings, as frozen values: what can be configured, its defaults, units and rules.

These dataclasses are the one truth: the JSON Schema (`schema.json` beside this file), the names of the environment's
overrides and the decoder all come from their fields (see `config`). Every field's unit is in its name or its
description: seconds, bytes, octal modes.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30


def _field(default: Any, about: str, **rules: Any) -> Any:
    """A property: its default, its description, and more keywords of JSON Schema that bind it.

    One that is `writeOnly` is a secret: no `repr` shows it.
    """
    metadata = {"about": about, "rules": rules}
    if rules.get("writeOnly"):
        return dataclasses.field(default=default, metadata=metadata, repr=False)
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

    host: str = _field(
        "127.0.0.1", "address to bind, or a name of one; anything but loopback needs access rules"
    )
    port: int = _field(5000, "port to bind; 0 takes a free one", minimum=0, maximum=65535)
    workers: int | None = _field(
        None, "worker processes; as many as CPUs, at most 4, if None", minimum=1, maximum=256
    )
    tls: Tls | None = _field(None, "serve HTTPS")
    public_url: str | None = _field(
        None,
        "what clients call this registry, e.g. https://registry.example: where tokens are asked for,"
        " and the name that an open registry on loopback answers to besides localhost",
        pattern="^https?://",
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
    endpoint: str | None = _field(
        None, "http or https URL of the service, for anything but AWS", pattern="^https?://"
    )
    region: str = _field("us-east-1", "region")
    prefix: str = _field("", "put before every key")
    access_key: str | None = _field(None, "access key id; None takes it from the environment")
    secret_key: str | None = _field(None, "secret access key", writeOnly=True)
    path_style: bool = _field(True, "address the bucket in the path, not in the host name")
    redirect: bool = _field(False, "send blob downloads to presigned URLs (307) where possible")
    redirect_seconds: int = _field(600, "how long a presigned URL lives", minimum=1, maximum=604800)
    memory_bytes: int = _field(
        256 * MiB,
        "the most that all uploads of one worker hold in memory; more goes through temporary files",
        minimum=16 * MiB,
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
    temporary: str | None = _field(
        None,
        "directory of temporary files: bodies on their way into a bucket or through the cache; `root`"
        " or `data` if None",
    )
    reserve_bytes: int = _field(
        256 * MiB, "free space of a disk below which it takes no more bodies", minimum=0
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Postgresql:
    """A PostgreSQL database, shared by all replicas."""

    dsn: str = _field("", "libpq connection string or URL", minLength=1, writeOnly=True)
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
        60.0,
        "how long nothing may come of a body, or go through a connection",
        exclusiveMinimum=0,
        maximum=3600,
    )
    body_seconds: float = _field(
        6 * 3600.0, "how long a body may take", exclusiveMinimum=0, maximum=86400
    )
    concurrency: int = _field(256, "requests under way in all workers together", minimum=1)
    concurrency_per_client: int = _field(
        192,
        "requests under way of one user, or of one address (of IPv6 a /64) for anonymous ones",
        minimum=1,
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
    prefix: str = _field("", "put before the names of its users and groups, to keep them apart")
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
    service: str = _field(
        "argosy", "the service's name: the `aud` claim", pattern=r"^[ !#-\[\]-~]+(?!\n)$"
    )
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


EventType = Literal[
    "blob.pushed", "blob.mounted", "blob.deleted", "blob.collected", "blob.damaged", "blob.moved",
    "content.collected", "manifest.pushed", "manifest.deleted", "tag.set", "tag.deleted",
]  # fmt: skip
"""The kinds of `outbox`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """A webhook that events are delivered to, at least once and in order."""

    name: str = _field(
        "", "its name: the delivery cursor belongs to it", pattern="^[a-z0-9-]{1,63}$"
    )
    url: str = _field("", "http or https URL", pattern="^https?://", writeOnly=True)
    types: tuple[EventType, ...] = _field(tuple, "event types to deliver; all if empty")
    secret: str | None = _field(None, "key of the HMAC-SHA256 signature header", writeOnly=True)
    timeout_seconds: float = _field(10.0, "how long one delivery may take", exclusiveMinimum=0)
    attempts: int = _field(10, "tries before an event is put with the dead letters", minimum=1)
    allow_private: bool = _field(False, "whether the URL may lead to a private address")

    REQUIRED: ClassVar[tuple[str, ...]] = ("name", "url")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What is told about pushes and deletes."""

    sinks: tuple[Sink, ...] = _field(tuple, "webhooks")
    keep_seconds: float = _field(7 * 86400.0, "how long delivered events are kept", minimum=0)
    dead_letters: int = _field(
        10_000, "most dead letters of all webhooks together; the oldest go", minimum=0
    )
    dead_letter_seconds: float = _field(30 * 86400.0, "how long a dead letter is kept", minimum=0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A registry whose repositories are pulled through below a prefix."""

    prefix: str = _field("", "first part of the names here, e.g. `hub`", minLength=1, maxLength=128)
    registry: str = _field("", "the upstream's host, e.g. `docker.io`", minLength=1)
    fresh_seconds: float = _field(300.0, "how long a tag is served without asking again", minimum=0)
    username: str | None = _field(None, "user at the upstream; None asks as nobody")
    password: str | None = _field(None, "that user's password or token", writeOnly=True)
    token_hosts: tuple[str, ...] = _field(
        (),
        "hosts of token services that may see them, beside the upstream's own and its known ones",
    )
    plain_http: bool = _field(False, "speak http with the upstream")
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
    reuse_known: bool = _field(
        True,
        "hash, but do not write, a body whose announced digest is stored already; its time, and how much is kept where"
        " it is cut off, tell a tenant so",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured; the defaults are a registry for one person on one machine.

    Example:
        >>> Settings().listen.port
        5000
    """

    data: str | None = _field(None, "directory for everything; the user's data directory if None")
    secret: str | None = _field(
        None,
        "key that signs upload sessions, the same on all replicas; kept in the database if None",
        writeOnly=True,
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
