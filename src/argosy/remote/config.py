"""What a client is told: options, registries.conf (containers-registries.conf(5), version 2) and certs.d.

The environment is not read here: `Options.from_environment` takes it as a mapping, and the command line gives it.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

from argosy._version import __version__
from argosy.errors import DeniedError, InvalidConfigError, StorageError, UsageError
from argosy.remote import userheaders
from argosy.remote.connection import TLS, Address
from argosy.remote.credentials import INLINE, CredentialStore, credential_files
from argosy.remote.wire import Exchange
from argosy.spec._value import Value, field
from argosy.spec.reference import DOCKER_HUB

USER_AGENT = f"argosy/{__version__}"

HUB_HOST = "registry-1.docker.io"
"""Where Docker Hub, called `docker.io` in references, answers."""

_HUB_NAMES = frozenset({HUB_HOST, "index.docker.io"})

MOST_SECONDS = 1e6
"""Seconds of any setting: the system waits for a socket no longer than 2**31 milliseconds."""
_LEAST = {
    "timeout": 0.001, "connect_timeout": 0.001, "retry_delay": 0, "max_wait": 0, "rate": 0, "attempts": 1,
}  # fmt: skip

_MAX_FILE = 4 * 1024 * 1024
_NAMES_A_REGISTRY = rb"""^\s*(?:\[+\s*["']?registr|["']?registr[a-z]*["']?\s*=\s*[^\s"'])"""
_SINGLE = "/[^/]*[:@][^/]*$"
"""The end of a prefix that is about one tag or digest of a repository."""
_PULL_FROM_MIRROR = ("all", "digest-only", "tag-only")
_KINDS: tuple[tuple[str, type, str], ...] = (
    ("prefix", str, "a string"),
    ("location", str, "a string"),
    ("insecure", bool, "true or false"),
    ("blocked", bool, "true or false"),
    ("mirror-by-digest-only", bool, "true or false"),
)
"""What properties of registries.conf are: a string "false" is as true as any."""


def ignore_exchange(_exchange: Exchange) -> None:
    """Watch nothing."""


def ignore_warning(_registry: str, _text: str) -> None:
    """Warn nobody."""


class Options(Value, kw_only=True):
    """Everything about how registries are talked to.

    Args:
        credentials: Where user names and passwords come from.
        token_hosts: `host[:port]` of the token servers that credentials are shown to, beside the registry itself; None
            for whichever the registry names.
        registries: Mirrors, rewrites and insecure registries.
        plain_http: Speak http, never https. `https_only`: registries that are never spoken to in http.
        insecure: Do not check certificates, and speak http where the registry does not speak TLS.
        tls: Authorities, and a client's certificate, for the registry itself (redirects get only the authorities).
        cert_dirs: Directories with one folder a registry, `host[:port]`, as certs.d has them.
        headers: Sent to the registry itself, with every request, beside `HttpHeaders` of the credential files.
        user_agent: What we call ourselves.
        proxies: Proxy URLs by scheme. `no_proxy`: hosts without one.
        resolve: Addresses to use instead of what names resolve to.
        timeout: Seconds without progress before a request is given up.
        connect_timeout: Seconds for a connection to stand.
        attempts: How often a request is sent before its failure is believed.
        retry_delay: Seconds before the second attempt; it doubles from there, up to 30, with jitter.
        max_wait: The most seconds to wait because a registry asked for it.
        rate: Requests a second to one registry, at most; 0 for no limit.
        chunk_size: Bytes of one chunk of an upload; None to send blobs whole until that fails.
        foreign: Fetch layers that the registry lacks from the `urls` of their descriptors, without credentials.
        referrers: `auto` (the API, else the tag schema), `api`, `tag`, or `both` joined.
        state_dir: Where unfinished uploads are remembered from one run to the next; None to forget them.
        observe: Told each HTTP exchange, secrets redacted.
        warn: Told each warning of a registry, once.

    Raises:
        UsageError: a number without sense: negative, not a number, or over 1e6 (seconds, eleven days); or a header
            that cannot be sent.

    Example:
        >>> Options(plain_http=True).plain_http, Options().max_wait
        (True, 120.0)
    """

    credentials: CredentialStore = field(default_factory=CredentialStore)
    token_hosts: tuple[str, ...] | None = None
    registries: Registries = field(default_factory=lambda: Registries())  # noqa: PLW0108 - it stands below
    plain_http: bool = False
    https_only: Container[str] = frozenset()
    insecure: bool = False
    tls: TLS = TLS()
    cert_dirs: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    user_agent: str = USER_AGENT
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    no_proxy: str = ""
    resolve: Mapping[Address, Address] = field(default_factory=dict)
    timeout: float = 60.0
    connect_timeout: float = 15.0
    attempts: int = 5
    retry_delay: float = 0.5
    max_wait: float = 120.0
    rate: float = 0.0
    chunk_size: int | None = None
    foreign: bool = False
    referrers: Literal["auto", "api", "tag", "both"] = "auto"
    state_dir: str | None = None
    observe: Callable[[Exchange], object] = ignore_exchange
    warn: Callable[[str, str], object] = ignore_warning

    def __post_init__(self) -> None:
        """Refuse numbers without sense, for NaN would be no limit at all, and headers that cannot be sent."""
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value <= MOST_SECONDS:
                raise UsageError(
                    f"{name.replace('_', ' ')}: expected {least:g} to {MOST_SECONDS:.0f}, got {value:g}"
                )
        if self.chunk_size is not None and self.chunk_size < 0:
            raise UsageError(f"chunk size: expected bytes, got {self.chunk_size}")
        for name, text in (*self.headers.items(), ("User-Agent", self.user_agent)):
            try:
                userheaders.check(name, text)
            except ValueError as exc:
                raise UsageError(f"header: {exc}") from None

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, authfile: str | None = None, **more: Any
    ) -> Self:
        """The options as an environment has them: credential files, proxies, registries.conf, certs.d, state.

        Args:
            environ: The environment, most often the process's own.
            authfile: The one credential file to use, if not those of the environment.
            more: Other options; they win.

        Raises:
            InvalidConfigError: a configuration file cannot be read as what it should be.
        """
        home = environ.get("HOME", "/")
        config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
        state = environ.get("XDG_STATE_HOME") or f"{home}/.local/state"
        settings: dict[str, Any] = {
            "proxies": dict(_proxies(environ)),
            "no_proxy": environ.get("no_proxy") or environ.get("NO_PROXY") or "",
            "cert_dirs": tuple(
                f"{base}/certs.d"
                for base in (f"{config}/containers", "/etc/containers", "/etc/docker")
            ),
            "state_dir": f"{state}/argosy/uploads",
        }
        if "registries" not in more:
            settings["registries"] = Registries.read(registries_files(environ))
        if "credentials" not in more:
            files = credential_files(environ, authfile)
            inline = "" if authfile else environ.get(INLINE, "")
            settings["credentials"] = CredentialStore(files, environ=environ, inline=inline)
        return cls(**{**settings, **more})

    def tls_of(self, host: str, *, own: bool, insecure: bool) -> TLS:
        """The TLS settings of a `host[:port]`; `own` where it is the registry itself and no redirect's end."""
        found = certificates(self.cert_dirs, host)
        return TLS(
            ca_files=self.tls.ca_files + found.ca_files,
            cert_file=(self.tls.cert_file if own else None) or found.cert_file,
            key_file=(self.tls.key_file if own else None) or found.key_file,
            insecure=insecure,
        )


def _proxies(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    everything = environ.get("all_proxy") or environ.get("ALL_PROXY")
    for scheme in ("http", "https"):
        # HTTP_PROXY in capitals is a request's header to a CGI script, not somebody's wish (CVE-2016-5385)
        loud = environ.get(f"{scheme.upper()}_PROXY") if "REQUEST_METHOD" not in environ else None
        proxy = environ.get(f"{scheme}_proxy") or loud or everything
        if proxy:
            yield scheme, proxy if "://" in proxy else f"http://{proxy}"


def certificates(cert_dirs: Sequence[str], host: str) -> TLS:
    """What certs.d has for a `host[:port]`: `*.crt` are authorities, `*.cert` with its `*.key` a client's certificate.

    Raises:
        StorageError: the directory cannot be read.
        InvalidConfigError: a certificate without its key, or a key without its certificate.
    """
    names = (host, DOCKER_HUB) if host == HUB_HOST else (host,)
    folders = (os.path.join(base, name, "") for base in cert_dirs for name in names)
    found = next((folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)), None)
    return certificates_in(found) if found else TLS()


def certificates_in(folder: str) -> TLS:
    """What one directory of certs.d has.

    Raises:
        StorageError: it cannot be read.
        InvalidConfigError: a certificate without its key, or a key without its certificate.
    """
    try:
        paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except OSError as exc:
        raise StorageError(f"{folder}: {(exc.strerror or 'unreadable').lower()}") from None
    for one, other in ((".cert", ".key"), (".key", ".cert")):
        for path in (p for p in paths if p.endswith(one)):
            beside = path.removesuffix(one) + other
            if beside not in paths:
                raise InvalidConfigError(
                    f"{path}: there is no {os.path.basename(beside)} beside it"
                )
    return TLS(
        ca_files=tuple(p for p in paths if p.endswith(".crt")),
        cert_file=next((p for p in paths if p.endswith(".cert")), None),
        key_file=next((p for p in paths if p.endswith(".key")), None),
    )


# --------------------------------------------------------------------------------------------------- registries.conf


class Endpoint(Value):
    """One place a repository can be read from: a mirror, or in the end the registry itself."""

    registry: str
    name: str
    insecure: bool = False
    mirror: bool = False
    pull: Literal["all", "digest-only", "tag-only"] = "all"

    def serves(self, *, by_digest: bool) -> bool:
        """Whether it may be asked for something named by digest, or by tag."""
        return self.pull == "all" or (self.pull == "digest-only") == by_digest


def registries_files(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The configuration files that exist, the later ones winning: one main file, then the drop-in directories."""
    if explicit := environ.get("CONTAINERS_REGISTRIES_CONF"):
        return (explicit,)
    home = environ.get("HOME", "/")
    user = (environ.get("XDG_CONFIG_HOME") or f"{home}/.config") + "/containers/registries.conf"
    system = "/etc/containers/registries.conf"
    main = user if os.path.exists(user) else system
    found = [main] if os.path.exists(main) else []
    for directory in (f"{system}.d", f"{user}.d"):
        try:
            names = sorted(n for n in os.listdir(directory) if n.endswith(".conf"))
        except OSError:
            continue
        found += [os.path.join(directory, name) for name in names]
    return tuple(found)


class Registries:
    """The rules of registries.conf: rewrites, mirrors, what is blocked or insecure.

    Args:
        entries: The `[[registry]]` tables.

    Example:
        >>> rules = Registries([{"location": "quay.io", "mirror": [{"location": "mirror.example/quay"}]}])
        >>> [f"{e.registry}/{e.name}" for e in rules.endpoints("quay.io", "org/app")]
        ['mirror.example/quay/org/app', 'quay.io/org/app']
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]] = ()) -> None:
        self._entries = tuple(entries)
        self._single = {prefix: e for e in entries if re.search(_SINGLE, prefix := _prefix(e))}

    @classmethod
    def read(cls, files: Sequence[str]) -> Self:
        """Read configuration files; a registry that a later file names again is that file's.

        Raises:
            InvalidConfigError: a file is not TOML, of version 1, or holds something of the wrong kind.
        """
        entries: dict[str, Mapping[str, Any]] = {}
        for path in files:
            for entry in _list(read_toml(path, everything=False), "registry", path):
                entries[_prefix(entry)] = _entry(entry, path)
        return cls(tuple(entries.values()))

    def endpoints(self, registry: str, name: str) -> tuple[Endpoint, ...]:
        """Where a repository can be read from: mirrors in their order, then the registry, perhaps under another name.

        Raises:
            DeniedError: the configuration blocks it.
            InvalidConfigError: it would be read from a registry as a whole.
        """
        self.check(registry, name)
        entry, prefix = self._match(registry, name)
        if entry is None:
            return (Endpoint(registry=registry, name=name),)
        rest = f"{registry}/{name}"[len(prefix) :]
        digest_only = bool(entry.get("mirror-by-digest-only"))
        found = [
            _endpoint(
                str(m["location"]).rstrip("/") + rest, m, digest_only=digest_only, mirror=True
            )
            for m in entry.get("mirror", ())
        ]
        own = str(entry.get("location") or prefix).rstrip("/")
        found.append(_endpoint(own + rest, entry, digest_only=False, mirror=False))
        return tuple(found)

    def check(self, registry: str, name: str, *wanted: str) -> None:
        """See that a repository may be spoken to, about these tags and digests.

        Raises:
            DeniedError: the configuration blocks it.
            InvalidConfigError: it has something else for one tag or digest, which is not known here.
        """
        entry, _ = self._match(registry, name)
        if entry is not None and entry.get("blocked"):
            raise DeniedError(f"{registry}/{name} is blocked by registries.conf")
        for one in wanted if self._single else ():
            whole = f"{registry}/{name}{'@' if ':' in one else ':'}{one}"
            _check_single(whole, self._single.get(whole, {}))

    def insecure(self, registry: str, name: str = "") -> bool:
        """Whether a repository is marked `insecure`, or without a name a registry as a whole."""
        entry, _ = self._match(registry, name)
        return bool(entry and entry.get("insecure"))

    def _match(self, registry: str, name: str) -> tuple[Mapping[str, Any] | None, str]:
        """The entry with the longest prefix, and the part of the whole name that the prefix stands for."""
        best, longest, matched = None, "", ""
        host = re.sub(":[0-9]+$", "", registry)
        for entry in self._entries:
            prefix = _prefix(entry)
            found = _stands_for(prefix, registry, name)
            if not found and entry.get("blocked"):  # whatever the port, as for skopeo and podman
                found = _stands_for(prefix, host, "")
            if found and len(prefix) > len(longest):
                best, longest, matched = entry, prefix, found
        return best, matched


def _prefix(entry: Mapping[str, Any]) -> str:
    return _named(str(entry.get("prefix") or entry.get("location") or "").rstrip("/"))


def _named(text: str) -> str:
    """A prefix or location with its host as references have it: in lower case, and Docker Hub by its one name."""
    host, slash, rest = text.partition("/")
    host = host.lower()
    return f"{DOCKER_HUB if host in _HUB_NAMES else host}{slash}{rest}"


def _check_single(whole: str, entry: Mapping[str, Any]) -> None:
    if entry.get("blocked"):
        raise DeniedError(f"{whole} is blocked by registries.conf")
    if (
        entry.get("mirror")
        or entry.get("insecure")
        or _named(entry.get("location", whole)) != whole
    ):
        # podman and skopeo read over such a table, whatever registries.conf(5) says
        raise InvalidConfigError(
            f"registries.conf: prefix {whole!r}: of one tag or digest it can only be said that it is blocked",
            hint="give the repository as the prefix",
        )


def _stands_for(prefix: str, registry: str, name: str) -> str:
    """What of `registry/name` a prefix stands for, empty where it is about others; `*.` is for a whole registry."""
    if prefix.startswith("*."):
        return registry if registry.endswith(prefix[1:]) else ""
    return prefix if f"{registry}/{name}/".startswith(f"{prefix}/") else ""


def _endpoint(
    location: str, entry: Mapping[str, Any], *, digest_only: bool, mirror: bool
) -> Endpoint:
    registry, _, name = _named(location).partition("/")
    if not name:
        raise InvalidConfigError(
            f"registries.conf: location {location!r} is a registry: its prefix is one repository, and so must this be"
        )
    pull = "digest-only" if digest_only else str(entry.get("pull-from-mirror", "all"))
    return Endpoint(
        registry=registry,
        name=name,
        insecure=bool(entry.get("insecure")),
        mirror=mirror,
        pull=pull if mirror else "all",  # type: ignore[arg-type]
    )


def read_toml(path: str, *, everything: bool = True) -> dict[str, Any]:
    """A file of registries.conf; empty where it is about something else than registries and not `everything` is wanted.

    Raises:
        StorageError: it cannot be read.
        InvalidConfigError: it is no TOML, or of version 1.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE)
    except OSError as exc:
        raise StorageError(f"{path}: {(exc.strerror or 'unreadable').lower()}") from None
    if not everything and not re.search(_NAMES_A_REGISTRY, raw, re.MULTILINE):
        return {}  # most say nothing here, or only what short names mean: reading TOML would cost 10 ms
    tomllib: Any = importlib.import_module("tomllib")
    try:
        document: dict[str, Any] = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InvalidConfigError(f"{path}: {exc}") from None
    if isinstance(document.get("registries"), dict):
        raise InvalidConfigError(f"{path}: version 1 of registries.conf is not supported")
    return document


def _list(document: Mapping[str, Any], name: str, path: str) -> list[Mapping[str, Any]]:
    value = document.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise InvalidConfigError(f"{path}: {name}: expected an array of tables")
    return value


def _check_kinds(entry: Mapping[str, Any], path: str) -> None:
    for name, kind, expected in _KINDS:
        if not isinstance(entry.get(name, kind()), kind):
            raise InvalidConfigError(f"{path}: {name}: expected {expected}, got {entry[name]!r}")
    for name in ("prefix", "location"):
        if "://" in entry.get(name, ""):
            raise InvalidConfigError(f"{path}: {name}: expected a host first, got {entry[name]!r}")


def _entry(entry: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    _check_kinds(entry, path)
    prefix, location = entry.get("prefix", ""), entry.get("location", "")
    if not location and not prefix.startswith("*."):
        raise InvalidConfigError(f"{path}: a registry without a location")
    if prefix.startswith("*.") and "/" in prefix:
        raise InvalidConfigError(f"{path}: prefix {prefix!r}: expected only a host after '*.'")
    if "*" in location:
        raise InvalidConfigError(f"{path}: location {location!r}: '*' can only be in a prefix")
    for mirror in _list(entry, "mirror", path):
        _check_kinds(mirror, path)
        if not mirror.get("location"):
            raise InvalidConfigError(f"{path}: a mirror without a location")
        if mirror.get("pull-from-mirror", "all") not in _PULL_FROM_MIRROR:
            raise InvalidConfigError(
                f"{path}: pull-from-mirror: expected one of {', '.join(_PULL_FROM_MIRROR)}"
            )
    return entry


def host_of(registry: str) -> str:
    """Where a registry answers: `docker.io` under another name, any other under its own."""
    return HUB_HOST if registry == DOCKER_HUB else registry
