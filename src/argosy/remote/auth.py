"""Who asks: Basic, and Bearer tokens as Docker's token specification has them.

A registry answers 401 with one or more challenges; `Authenticator` turns them into the header to try next. It keeps
tokens by what they allow, fetches one at a time however many threads wait for it, who share its failure too, and asks
for more than a token allows by fetching another, never by asking without.

The realm of a challenge is only a place the registry named: it must be https unless the registry itself is not, and
it may not lead from the outside to an inner address.
"""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeGuard
from urllib.parse import urlencode, urlsplit

from argosy.errors import (
    AccessError,
    ArgosyError,
    InvalidError,
    RegistryError,
    UnauthorizedError,
)
from argosy.remote import network
from argosy.remote.challenges import Challenge
from argosy.remote.credentials import GIVEN, IDENTITY_USER, INLINE, Credential, Found
from argosy.remote.gate import copied
from argosy.remote.refusals import error_of, http_date, login_hint
from argosy.remote.wire import Flow, Request, Response, SettledError, redact_url
from argosy.spec import _json
from argosy.spec._value import Value, field, replace

CLIENT_ID = "argosy"
MAX_TOKEN_ANSWER = 128 * 1024
LEAST_LIFE = 60.0
"""Seconds a token is taken to live where its answer says nothing or less."""
MOST_LIFE = 7 * 86400.0
"""Seconds a token is taken to live where its answer says more."""

_NOT_THIS_WAY = frozenset({404, 405})
"""What a token server answers to a method that it does not know."""


# ------------------------------------------------------------------------------------------------------------- scopes


def merge_scopes(*groups: Iterable[str]) -> tuple[str, ...]:
    """Scopes as one list, actions of the same resource joined, in the order first met: some registries read only one.

    >>> merge_scopes(["repository:a:push"], ["repository:a:pull", "repository:b:pull"])
    ('repository:a:pull,push', 'repository:b:pull')
    """
    actions: dict[str, set[str]] = {}
    for scope in (s for group in groups for s in group):
        resource, colon, listed = scope.rpartition(":")
        if not colon:
            resource, listed = scope, ""
        actions.setdefault(resource, set()).update(a for a in listed.split(",") if a)
    return tuple(
        f"{resource}:{','.join(sorted(found))}" if found else resource
        for resource, found in actions.items()
    )


def covers(granted: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a token asked for `granted` allows all of `wanted`.

    >>> covers(["repository:a:pull,push"], ["repository:a:pull"]), covers([], ["repository:a:pull"])
    (True, False)
    """
    have = {s.rpartition(":")[0]: set(s.rpartition(":")[2].split(",")) for s in granted}
    for scope in wanted:
        resource, _, listed = scope.rpartition(":")
        allowed = have.get(resource, set())
        if "*" not in allowed and not set(listed.split(",")) <= allowed:
            return False
    return True


def repository_of(scopes: Sequence[str]) -> str:
    """The repository that the first scope is about, or an empty string.

    >>> repository_of(["repository:library/app:pull"])
    'library/app'
    """
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        if kind == "repository":
            return rest.rpartition(":")[0]
    return ""


# ------------------------------------------------------------------------------------------------------------- tokens


class Token(Value, kw_only=True):
    """A bearer token: what was asked for with it, and how many seconds it lives from its answer on."""

    value: str = field(repr=False)
    scopes: tuple[str, ...] = ()
    life: float = LEAST_LIFE
    refresh: str = field(default="", repr=False)


def fetch_token(
    realm: str,
    service: str,
    scopes: Sequence[str],
    credential: Credential | None = None,
    *,
    named_by: str | None = None,
) -> Flow[Token]:
    """Ask a token server for a token.

    With an identity token by POST (OAuth2, `grant_type=refresh_token`), else by GET with Basic; where one of them is
    not known there, by the other.

    Raises:
        UnauthorizedError: the token server refused.
        RegistryError: it answered with something that holds no token.
    """
    posted = credential is not None and bool(credential.identity_token)
    if credential is not None and posted:
        form = {"grant_type": "refresh_token", "refresh_token": credential.identity_token}
        request = _post(realm, service, scopes, form, named_by)
        response = yield request
        if response.status not in _NOT_THIS_WAY:
            return _token_of(response, request, scopes)
    request = _get(realm, service, scopes, credential, named_by)
    response = yield request
    refused = response.status in _NOT_THIS_WAY and not posted
    if refused and credential is not None and credential.username:
        form = {
            "grant_type": "password",
            "username": credential.username,
            "password": credential.password,
        }
        request = _post(realm, service, scopes, form, named_by)
        response = yield request
    return _token_of(response, request, scopes)


def _get(
    realm: str,
    service: str,
    scopes: Sequence[str],
    credential: Credential | None,
    named_by: str | None,
) -> Request:
    query: list[tuple[str, str]] = [("service", service)] if service else []
    query += [("scope", scope) for scope in scopes]
    headers: dict[str, str] = {}
    if credential is not None and credential.username:
        query += [("account", credential.username)]
    query += [("client_id", CLIENT_ID)]
    if credential is not None and (credential.username or credential.identity_token):
        headers["Authorization"] = _as_password(credential).basic()
    joint = "&" if urlsplit(realm).query else "?"
    return Request(
        method="GET",
        url=f"{realm}{joint}{urlencode(query)}",
        headers=headers,
        limit=MAX_TOKEN_ANSWER,
        statuses=(400, 401, 403, 404, 405),
        named_by=named_by,
    )


def _as_password(credential: Credential) -> Credential:
    """As Basic has it, also where there is only an identity token, which helpers give as the password of `<token>`."""
    return Credential(
        username=credential.username or IDENTITY_USER,
        password=credential.password or credential.identity_token,
    )


def _post(
    realm: str, service: str, scopes: Sequence[str], form: Mapping[str, str], named_by: str | None
) -> Request:
    fields = {**form, "client_id": CLIENT_ID, "service": service, "scope": " ".join(scopes)}
    return Request(
        method="POST",
        url=realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode({key: value for key, value in fields.items() if value}).encode(),
        limit=MAX_TOKEN_ANSWER,
        statuses=(400, 401, 403, 404, 405),
        named_by=named_by,
        secret=True,
    )


def _token_of(response: Response, request: Request, scopes: Sequence[str]) -> Token:
    where = redact_url(response.url)
    if response.status >= 400:
        told = error_of(response, request)
        raise UnauthorizedError(f"the token server refused: {told}", hint=told.hint) from told
    try:
        answer = _json.loads_object(response.data, limit=MAX_TOKEN_ANSWER)
    except InvalidError as exc:
        raise RegistryError(f"the token server {where} sent no token: {exc}") from None
    value = answer.get("token") or answer.get("access_token")
    if not _is_token(value):
        raise RegistryError(f"the token server {where} sent no token")
    refresh = answer.get("refresh_token")
    return Token(
        value=value,
        scopes=tuple(scopes),
        life=_life(answer, response),
        refresh=refresh if _is_token(refresh) else "",
    )


def _is_token(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and re.fullmatch("[!-~]+", value) is not None


def _life(answer: Mapping[str, object], response: Response) -> float:
    stated = answer.get("expires_in")
    life = LEAST_LIFE
    if isinstance(stated, (int, float)) and stated > 0:
        life = float(min(stated, MOST_LIFE))  # a whole number may be too large for a float
    issued, now = _rfc3339(answer.get("issued_at")), http_date(response.headers.get("Date"))
    if issued is not None and now is not None:
        life -= max(0.0, now - issued)  # a cached token is older than its answer
    return max(life, LEAST_LIFE)


def _rfc3339(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    datetime: Any = importlib.import_module("datetime").datetime
    try:
        moment: float = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", value)).timestamp()
        return moment
    except (ValueError, OverflowError):
        return None


# ------------------------------------------------------------------------------------------------------ authenticator


class Lookup(Protocol):
    """What finds a credential: `CredentialStore.lookup`."""

    def __call__(self, registry: str, name: str = "", /) -> Found | None:
        """The credential for a repository of a registry."""
        ...


class _Failed(Value):
    """The last token that could not be had, for those who wait meanwhile: each would wait as long for the same."""

    error: ArgosyError
    owner: str
    scopes: tuple[str, ...]

    def share(self, owner: str, scopes: Sequence[str]) -> None:
        """Raise it where it says what this one would learn: a refusal is only about what was asked for."""
        if isinstance(self.error, RegistryError) or (owner, tuple(scopes)) == (
            self.owner,
            self.scopes,
        ):
            raise copied(self.error)


class Authenticator:
    """What one registry must be told to let a request through. Safe to use from several threads.

    Args:
        registry: The registry's name, as credentials know it.
        lookup: Finds its credentials.
        token: Runs a token flow: sends what it yields and returns its token.
        token_hosts: Whose token servers get the credentials, beside the registry's own host; None for any it names.
        clock: Seconds that only ever grow.
    """

    def __init__(
        self,
        registry: str,
        lookup: Lookup,
        token: Callable[[Flow[Token]], Token],
        *,
        token_hosts: Sequence[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._lookup, self._token, self._clock = registry, lookup, token, clock
        self._token_hosts = token_hosts
        self._lock = threading.Lock()
        self._bearer: Challenge | None = None
        self._base = ""
        self._named_by: str | None = None
        self._basic = False
        self._ready = ""
        self._tokens: list[tuple[str, Token, float]] = []
        self._meant: dict[str, str] = {}
        self._refresh: dict[str, str] = {}
        self._found: dict[str, Found | None] = {}
        self._failed: _Failed | None = None

    def header(self, scopes: Sequence[str]) -> str:
        """The `Authorization` to send at once, or an empty string while the registry has asked for nothing.

        Raises:
            UnauthorizedError: a token is needed and was refused.
        """
        if self._ready:
            return self._ready
        if self._bearer is not None:
            return self._fetch(scopes, refused="")
        found = self._credential(scopes) if self._basic else None
        return found.credential.basic() if found else ""

    def answer(
        self,
        challenges: Sequence[Challenge],
        scopes: Sequence[str],
        *,
        refused: str,
        url: str,
        named_by: str | None,
    ) -> str:
        """The `Authorization` to try after a 401.

        Args:
            challenges: What the answer asked for.
            scopes: What the request needs.
            refused: The `Authorization` that was sent and not accepted, if any.
            url: Where the answer came from: a realm may be relative to it.
            named_by: The class of the address it came from.

        Raises:
            UnauthorizedError: there is nothing (else) to try; the message says why.
        """
        bearer = [c for c in challenges if c.scheme == "bearer" and c.parameters.get("realm")]
        basic = any(c.scheme == "basic" for c in challenges)
        found = self._credential(scopes)
        if found and found.credential.registry_token:
            self._ready = f"Bearer {found.credential.registry_token}"
            return self._once(self._ready, refused, found)
        if bearer:
            self._bearer, self._base, self._named_by = bearer[0], url, named_by
            more = [s for s in bearer[0].parameters.get("scope", "").split(" ") if s]
            return self._fetch(merge_scopes(more, scopes), refused=refused)
        if basic:
            self._basic = True
            if found is None or not found.credential.username:
                raise self._nobody()
            return self._once(found.credential.basic(), refused, found)
        if not challenges:
            raise UnauthorizedError(f"{self._registry} answered 401 and did not say what it wants")
        schemes = ", ".join(sorted({c.scheme for c in challenges}))
        raise UnauthorizedError(
            f"{self._registry} asks for {schemes}: only Basic, and Bearer with a realm, are known"
        )

    def mean(self, scope: str) -> None:
        """Ask for this with the first token for its repository: who is going to write needs no second one then."""
        self._meant[repository_of((scope,))] = scope

    def known(self, scopes: Sequence[str]) -> bool:
        """Whether there is a credential for what these scopes are about."""
        return self._credential(scopes) is not None

    def who(self, scopes: Sequence[str]) -> str:
        """Whose credentials a registry that wanted some was shown for these scopes, and where they are from."""
        asked = self._basic or self._ready or self._bearer is not None
        found = self._credential(scopes) if asked else None
        return f"{_user(found)} from {found.place}" if found else ""

    def volunteer(self, scopes: Sequence[str]) -> None:
        """Have `header` give the credential for these scopes though the registry has asked for nothing."""
        found = self._credential(scopes)
        if found is None or self._bearer is not None:
            return
        if found.credential.registry_token:
            self._ready = f"Bearer {found.credential.registry_token}"
        self._basic = bool(found.credential.username)

    def _once(self, header: str, refused: str, found: Found) -> str:
        if header == refused:
            raise self._refused(found)
        return header

    def _fetch(self, scopes: Sequence[str], *, refused: str) -> str:
        found = self._credential(scopes)
        key = found.place + found.key if found else ""
        before = self._failed
        with self._lock:
            if self._failed is not None and self._failed is not before:
                self._failed.share(key, scopes)
            bad = refused.removeprefix("Bearer ") if refused.startswith("Bearer ") else ""
            now = self._clock()
            narrow = [
                t.scopes
                for o, t, until in self._tokens
                if t.value == bad and o == key and until > now
            ]
            self._tokens = kept = [t for t in self._tokens if t[2] > now and t[1].value != bad]
            for owner, token, _ in kept:
                if owner == key and covers(token.scopes, scopes):
                    return f"Bearer {token.value}"
            try:
                token = self._wider(merge_scopes(scopes, *narrow), found, key)
            except ArgosyError as exc:
                self._failed = _Failed(copied(exc), key, tuple(scopes))
                raise
            if token.value == bad:
                raise self._refused(found) if found else self._nobody()
            self._tokens.append((key, token, now + token.life * 0.9))
        return f"Bearer {token.value}"

    def _wider(self, scopes: tuple[str, ...], found: Found | None, key: str) -> Token:
        """A token for these scopes, and for what is meant to be done; for these alone where that is refused."""
        meant = self._meant.get(repository_of(scopes))
        if meant is not None and not covers(scopes, [meant]):
            try:
                return self._new(merge_scopes(scopes, [meant]), found, key)
            except UnauthorizedError as exc:
                if isinstance(exc.__cause__, UnauthorizedError):  # it is about who asks
                    raise
        return self._new(scopes, found, key)

    def _new(self, scopes: tuple[str, ...], found: Found | None, key: str) -> Token:
        if self._bearer is None:
            raise UnauthorizedError(f"{self._registry} asked for no token")
        realm = self._realm(self._bearer.parameters["realm"])
        credential = found.credential if found else None
        if credential:
            self._check_trust(realm)
        if key in self._refresh:
            credential = replace(credential or Credential(), identity_token=self._refresh[key])
        service = self._bearer.parameters.get("service", "")
        flow = fetch_token(realm, service, scopes, credential, named_by=self._named_by)
        try:
            token = self._token(flow)
        except AccessError as exc:
            if self._refresh.pop(key, None):
                return self._new(scopes, found, key)
            if isinstance(exc, UnauthorizedError):
                exc.hint = login_hint(self._registry)  # not of the token server's host
            if found:
                exc.add_note(f"with the credentials of {_user(found)} from {found.place}")
            raise
        if token.refresh and found:
            self._refresh[key] = token.refresh
        return token

    def _realm(self, text: str) -> str:
        realm = network.join(self._base, text)
        parts = urlsplit(realm)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            shown = redact_url(text)[:200]
            raise SettledError(f"{self._registry} names no token server: {shown!r}")
        return realm

    def _check_trust(self, realm: str) -> None:
        """Refuse to show credentials to a token server that they are not for, where those that may see them are known.

        Raises:
            SettledError: it is none of those.
        """
        if self._token_hosts is None:
            return
        at = network.origin(realm)
        known = [network.origin(f"{at[0]}://{host}") for host in self._token_hosts]
        if at not in (network.origin(self._base), *known):
            host = urlsplit(realm).netloc.rpartition("@")[2]
            raise SettledError(
                f"{self._registry} names {host} as its token server, which may not see the credentials",
                hint=f"if it is right, put {host} into `token_hosts`",
            )

    def _credential(self, scopes: Sequence[str]) -> Found | None:
        name = repository_of(scopes)
        if name not in self._found:
            self._found[name] = self._lookup(self._registry, name)
        return self._found[name]

    def _refused(self, found: Found) -> UnauthorizedError:
        kept = found.place not in (GIVEN, INLINE)  # the others are asked first, whoever logs in
        return UnauthorizedError(
            f"{self._registry} refused the credentials of {_user(found)} from {found.place}",
            hint=f"log in again with `argosy login {self._registry}`" if kept else None,
        )

    def _nobody(self) -> UnauthorizedError:
        return UnauthorizedError(
            f"{self._registry} asks who you are, and no credentials for it were found",
            hint=login_hint(self._registry),
        )


def _user(found: Found) -> str:
    return repr(found.credential.username) if found.credential.username else "a token"
