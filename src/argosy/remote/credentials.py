"""Credentials: which file or helper knows them, and keeping them there (containers-auth.json(5), Docker's config.json).

Files are asked in the order of containers-auth.json(5); the first that has a credential for the repository or
registry gives it. Inside a file, a helper of its own for the registry comes before the store for all, and that before
what is written down. Keys are matched from the most specific to the registry alone.

`login` writes where that order looks first, with mode 0600, in one rename; what it does not know in the file stays.
"""

from __future__ import annotations

import binascii
import contextlib
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from argosy.errors import (
    ArgosyError,
    InvalidConfigError,
    InvalidError,
    NotFoundError,
    StorageError,
    UnauthorizedError,
    UnsupportedError,
)
from argosy.remote import authfile, credentialkeys
from argosy.spec import _json
from argosy.spec._value import Value, field, replace

GIVEN = "the command line"
"""What the place of credentials is called that are in no file."""
INLINE = "DOCKER_AUTH_CONFIG"
"""The variable that holds credentials itself, as CI systems set it."""
IDENTITY_USER = "<token>"
"""The user name that an identity token has, where there is one for a pair only."""


class Credential(Value, kw_only=True):
    """A user name and password, or a token that stands for them. `repr` shows no secret."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Refuse what could not be sent or kept.

        Raises:
            InvalidConfigError: something of it is not UTF-8 text.
        """
        for name in self._fields:
            if re.search("[\ud800-\udfff]", getattr(self, name)):
                raise InvalidConfigError(f"{name.replace('_', ' ')}: not UTF-8")

    @classmethod
    def of(cls, username: str, secret: str) -> Self:
        """What files and helpers keep as a pair: a password, or the identity token of the user `<token>`.

        Raises:
            InvalidConfigError: something of it is not UTF-8 text.
        """
        if username == IDENTITY_USER:
            return cls(identity_token=secret)
        return cls(username=username, password=secret)

    @property
    def is_empty(self) -> bool:
        """Whether it stands for nobody."""
        return not (self.username or self.identity_token or self.registry_token)

    def basic(self) -> str:
        """The value of a Basic `Authorization` header."""
        pair = f"{self.username}:{self.password}".encode()
        return "Basic " + binascii.b2a_base64(pair, newline=False).decode()


class Found(Value):
    """A credential, the place that gave it (a path, perhaps with a helper), and the key it stands under there."""

    credential: Credential
    place: str
    key: str = ""


class Step(Value):
    """One place that was asked for a credential, and what it had to say."""

    place: str
    outcome: Literal["absent", "none", "found", "unreadable", "not asked"]
    detail: str = ""


class Entry(Value):
    """One registry or repository that a file has a credential for; `via` names the helper, if one keeps it."""

    key: str
    place: str
    username: str = ""
    via: str = ""


def credential_files(environ: Mapping[str, str], authfile: str | None = None) -> tuple[str, ...]:
    """The files that may hold credentials, the first to be asked first; whether they exist is not looked at.

    Args:
        environ: The environment: `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`, `XDG_CONFIG_HOME`, `DOCKER_CONFIG`, `HOME`.
        authfile: A file that is asked alone, as `--authfile` gives it.

    >>> credential_files({"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"})  # doctest: +NORMALIZE_WHITESPACE
    ('/run/user/0/containers/auth.json', '/root/.config/containers/auth.json', '/root/.docker/config.json',
     '/root/.dockercfg')
    """
    if authfile:
        return (authfile,)
    if explicit := environ.get("REGISTRY_AUTH_FILE"):
        return (explicit,)
    home = environ.get("HOME", "/")
    runtime = environ.get("XDG_RUNTIME_DIR")
    first = (
        f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.getuid()}/auth.json"
    )
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    docker = environ.get("DOCKER_CONFIG") or f"{home}/.docker"
    return (
        first,
        f"{config}/containers/auth.json",
        f"{docker}/config.json",
        f"{home}/.dockercfg",
    )


T = TypeVar("T")
Lost = Callable[[ArgosyError], None]
"""Told of a failure that others need not suffer from."""
_UNREADABLE = (InvalidError, UnauthorizedError, StorageError)


def _raised(error: ArgosyError) -> None:
    raise error


class CredentialStore:
    """The places credentials are kept, in their order.

    Args:
        files: Paths, the first to be asked first; `login` writes to the first.
        given: Credentials by registry that come before all files; the empty key stands for every registry.
        environ: The environment helpers are started with.
        inline: A document as such a file holds it (`DOCKER_AUTH_CONFIG`); it is asked before all files.

    Example:
        >>> store = CredentialStore((), given={"": Credential(username="ada", password="x")})
        >>> store.lookup("registry.example").credential.username
        'ada'
        >>> CredentialStore(()).lookup("registry.example") is None
        True
    """

    def __init__(
        self,
        files: Sequence[str] = (),
        *,
        given: Mapping[str, Credential] | None = None,
        environ: Mapping[str, str] | None = None,
        inline: str = "",
    ) -> None:
        self.files = tuple(files)
        self._given = dict(given or {})
        self._inline = inline
        self._environ = dict(environ) if environ is not None else None

    def lookup(self, registry: str, name: str = "") -> Found | None:
        """The credential for a repository, or for a registry where `name` is empty; None where there is none.

        Raises:
            InvalidConfigError: a file cannot be read as what it should be.
            UnauthorizedError: a helper failed.
        """
        for key in (registry, ""):
            if key in self._given:
                return Found(credential=self._given[key], place=GIVEN, key=key or registry)
        if found := self.inline(registry, name):
            return found
        for path in self.files:
            if found := self._in_file(path, registry, name):
                return found
        return None

    def inline(self, registry: str, name: str = "") -> Found | None:
        """The credential that the document given as such has, which no login or logout changes.

        Raises:
            InvalidConfigError: the document cannot be read as what it should be.
            UnauthorizedError: a helper failed.
        """
        document = self._read(INLINE) if self._inline else {}
        return self._in_document(document, INLINE, registry, name)

    def explain(self, registry: str, name: str = "") -> tuple[Step, ...]:
        """Every place in its order with what it has for a registry; after one that answers or fails none is asked."""
        steps: list[Step] = []
        settled = any(key in self._given for key in (registry, ""))
        if self._given:
            steps.append(Step(place=GIVEN, outcome="found" if settled else "none"))
        if self._inline:
            mine = None if settled else self.inline(registry, name)
            steps.append(_outcome(INLINE, mine, asked=not settled))
            settled = settled or mine is not None
        for path in self.files:
            if settled:
                steps.append(Step(place=path, outcome="not asked"))
                continue
            steps.append(self._step(path, registry, name))
            settled = steps[-1].outcome in {"found", "unreadable"}
        return tuple(steps)

    def entries(self, *, lost: Lost = _raised) -> Iterator[Entry]:
        """What there are credentials for; no secret is read from a helper's store but the names it lists.

        Args:
            lost: Told of a file, an entry or a helper that cannot be read; the others are, if it returns.

        Raises:
            InvalidConfigError: a file cannot be read as what it should be.
            StorageError: it cannot be read at all.
            UnauthorizedError: a helper failed.
        """
        return self._told(lambda path: self._entries(path, lost), lost)

    def keys(self, *, lost: Lost = _raised) -> Iterator[str]:
        """What files and the stores they name have entries for, whatever is in them; a key may come twice.

        Args:
            lost: Told of a file or helper that cannot be read; the others are, if it returns.

        Raises:
            ArgosyError: as `entries`.
        """
        return self._told(self._keys, lost)

    def _told(self, tell: Callable[[str], Iterator[T]], lost: Lost) -> Iterator[T]:
        for path in ((INLINE,) if self._inline else ()) + self.files:
            try:
                yield from tell(path)
            except _UNREADABLE as exc:
                lost(exc)

    def _read(self, path: str) -> dict[str, Any]:
        inline = self._inline if path == INLINE else ""
        return _parsed(inline) if inline else authfile.read(path)

    def _entries(self, path: str, lost: Lost) -> Iterator[Entry]:
        document = self._read(path)
        for key, value in sorted(_auths(document, path).items()):
            try:
                credential = _decode(value, path, key) if value else Credential()
            except InvalidConfigError as exc:
                lost(exc)
                continue
            if not credential.is_empty:
                yield Entry(key=key, place=path, username=credential.username)
        for key, value in sorted(authfile.table(document, "credHelpers", path).items()):
            if helper := authfile.helper(value, key, path):
                yield Entry(key=key, place=path, via=f"docker-credential-{helper}")
        if store := authfile.store(document, path):
            for key, username in sorted(_room().names(store, self._environ).items()):
                via = f"docker-credential-{store}"
                yield Entry(key=key, place=path, username=username, via=via)

    def _keys(self, path: str) -> Iterator[str]:
        document = self._read(path)
        yield from _auths(document, path)
        yield from authfile.table(document, "credHelpers", path)
        if store := authfile.store(document, path):
            yield from _room().names(store, self._environ)

    def login(self, registry: str, credential: Credential, *, name: str = "") -> str:
        """Keep a credential; returns the place that has it now.

        Args:
            registry: The registry it is for.
            credential: What to keep.
            name: A repository or namespace it is for, if not for the whole registry.

        Raises:
            InvalidConfigError: there is no file to write to, or what is there is no such file.
            StorageError: the file cannot be written.
            UnauthorizedError: a helper failed.
            UnsupportedError: it is for a part of a registry, and a helper keeps the registry's.
        """
        path = self._first()
        key = f"{registry}/{name}" if name else credentialkeys.file_key(registry, path)
        helper = _helper_for(authfile.read(path), registry, path)
        if helper and name:  # which nobody would ask a helper for
            raise UnsupportedError(
                f"docker-credential-{helper}, named by {path}, keeps credentials of whole registries, not of {key}",
                hint="log in to the registry, or name with --authfile a file that names no helper",
            )
        if helper:
            self._stored(helper, registry, credential)
        with authfile.alone(path, make=True):
            document = authfile.read(path)
            auths = document["auths"] = _auths(document, path)
            wanted = credentialkeys.normal(key)
            for old in [k for k in auths if k != key and credentialkeys.normal(k) == wanted]:
                del auths[old]
            auths[key] = {} if helper else _encode(credential)
            authfile.write(path, document)
        return f"docker-credential-{helper}, named by {path}" if helper else path

    def _stored(self, helper: str, registry: str, credential: Credential) -> None:
        secret = {
            "ServerURL": credentialkeys.helper_keys(registry)[0],
            "Username": IDENTITY_USER if credential.identity_token else credential.username,
            "Secret": credential.identity_token or credential.password,
        }
        _room().ask(helper, "store", _json.dumps(secret).decode(), self._environ)

    def logout(self, registry: str, *, name: str = "", lost: Lost = _raised) -> tuple[str, ...]:
        """Forget a registry's credential in every place that can be written; returns the places that had it.

        Args:
            registry: The registry.
            name: A repository or namespace the credential is for, if not for the whole registry.
            lost: Told, once all others have forgotten it, of each file or helper that may have it still.

        Raises:
            InvalidConfigError: a file cannot be read as what it should be.
            NotFoundError: no place had one.
            StorageError: a file cannot be read or written.
            UnauthorizedError: a helper failed.
        """
        failures: list[ArgosyError] = []
        places: list[str] = []
        for path in self.files:
            try:
                places.extend(self._forgotten(path, registry, name))
            except _UNREADABLE as exc:
                failures.append(exc)
        for failure in failures:
            lost(failure)
        if not (places or failures):
            raise NotFoundError(f"not logged in to {registry}" + (f"/{name}" if name else ""))
        return tuple(places)

    def _forgotten(self, path: str, registry: str, name: str) -> Iterator[str]:
        """One file and the helper it names, as each forgets: what is written down before what a helper keeps."""
        wanted = credentialkeys.normal(f"{registry}/{name}" if name else registry)
        with authfile.alone(path):
            document = authfile.read(path)
            auths = _auths(document, path)
            removed = [auths.pop(key) for key in [*auths] if credentialkeys.normal(key) == wanted]
            if removed:
                authfile.write(path, document)
        helper = "" if name else _helper_for(document, registry, path)
        # With a helper, an empty one only says that it has it.
        if any(removed) or (removed and not helper):
            yield path
        for found in self._from_helper(helper, registry, path):
            _room().ask(helper, "erase", found.key, self._environ, missing_ok=True)
            yield found.place

    def _first(self) -> str:
        if not self.files:
            raise InvalidConfigError(
                "no file to keep credentials in", hint="give one with --authfile"
            )
        return self.files[0]

    def _step(self, path: str, registry: str, name: str) -> Step:
        if not os.path.exists(path):
            return Step(place=path, outcome="absent")
        try:
            found = self._in_file(path, registry, name)
        except _UNREADABLE as exc:
            return Step(place=path, outcome="unreadable", detail=str(exc))
        return _outcome(path, found)

    def _in_file(self, path: str, registry: str, name: str) -> Found | None:
        document = authfile.read(path)
        return self._in_document(document, path, registry, name) if document else None

    def _in_document(
        self, document: Mapping[str, Any], path: str, registry: str, name: str
    ) -> Found | None:
        helper = _helper_for(document, registry, path)
        if found := next(self._from_helper(helper, registry, path), None):
            return found
        auths = {
            credentialkeys.normal(key): (key, value)
            for key, value in _auths(document, path).items()
        }
        for wanted in credentialkeys.wanted_keys(registry, name):
            key, value = auths.get(wanted, ("", None))
            if value and not (credential := _decode(value, path, key)).is_empty:
                return Found(credential=credential, place=path, key=key)
        return None

    def _from_helper(self, helper: str, registry: str, path: str) -> Iterator[Found]:
        """What a helper has for a registry, under each of the names that it may have there."""
        for key in credentialkeys.helper_keys(registry) if helper else ():
            username, secret = _room().get(helper, key, self._environ)
            if secret:
                place = f"docker-credential-{helper}, named by {path}"
                with _named(place):
                    credential = Credential.of(username, secret)
                yield Found(credential=credential, place=place, key=key)


def _room() -> Any:
    """The room of helpers, which is loaded only where there are some."""
    return importlib.import_module("argosy.remote.credentialhelper")


def _outcome(place: str, found: Found | None, *, asked: bool = True) -> Step:
    if found is None:
        return Step(place=place, outcome="none" if asked else "not asked")
    user = found.credential.username or "a token"
    return Step(place=found.place, outcome="found", detail=f"{user}, under {found.key}")


def _parsed(text: str) -> dict[str, Any]:
    try:
        raw = text.encode("utf-8", "surrogateescape")  # the environment may hold any bytes
        return _json.loads_object(raw, limit=authfile.MAX_FILE, error=InvalidConfigError)
    except InvalidError as exc:
        raise InvalidConfigError(f"{INLINE}: {exc}") from None


def _helper_for(document: Mapping[str, Any], registry: str, path: str) -> str:
    """The name of the helper that keeps a registry's credentials, if any."""
    for key, helper in authfile.table(document, "credHelpers", path).items():
        if credentialkeys.normal(key) == credentialkeys.normal(registry):
            return authfile.helper(helper, key, path)
    return authfile.store(document, path)


def _auths(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    return authfile.table(document, "auths", path)


def _decode(value: Any, path: str, key: str) -> Credential:
    place = f"{path}: auths[{key!r}]"
    if not isinstance(value, dict):
        raise InvalidConfigError(f"{place}: expected an object")
    names = ("username", "password", "identitytoken", "registrytoken", "auth")
    found = {name: authfile.text(value.get(name), f"{place}.{name}") for name in names}
    username, password = found["username"], found["password"]
    if found["auth"]:
        username, password = authfile.pair(found["auth"], f"{place}.auth")
    with _named(place):
        made = Credential.of(username, password)
        return replace(
            made,
            identity_token=found["identitytoken"] or made.identity_token,
            registry_token=found["registrytoken"],
        )


@contextlib.contextmanager
def _named(place: str) -> Iterator[None]:
    try:
        yield
    except InvalidConfigError as exc:
        raise InvalidConfigError(f"{place}: {exc}") from None


def _encode(credential: Credential) -> dict[str, str]:
    user = credential.username or (IDENTITY_USER if credential.identity_token else "")
    pair = f"{user}:{credential.password}".encode()
    entry = {"auth": binascii.b2a_base64(pair, newline=False).decode()}
    if credential.identity_token:
        entry["identitytoken"] = credential.identity_token
    return entry
