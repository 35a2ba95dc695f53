"""Tokens that somebody else gave out: an identity provider's, a CI system's, another token server's.

Whose tokens are believed is a fixed list, each with its own keys, audience and algorithms; what a token says about its
own keys is never looked at.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import jwt

from argosy.errors import ArgosyError, InvalidConfigError, TransportError, UnauthorizedError
from argosy.server import outbound
from argosy.server.auth.scope import decode_access
from argosy.server.auth.tokens import Claims, unverified_header, verified_claims
from argosy.server.auth.watched import Watched, read_limited
from argosy.server.config import is_loopback
from argosy.server.settings import Issuer

__all__ = ["Issuers"]

log = logging.getLogger("argosy.server")

MAX_KEYS = 100
_TYPES = frozenset({"jwt", "at+jwt"})
_KINDS = {
    "EdDSA": "OKP",
    "ES256": "EC",
    "ES384": "EC",
    "RS256": "RSA",
    "RS384": "RSA",
    "PS256": "RSA",
}
_AGAIN_SECONDS = 10.0

Keys = Mapping[str, jwt.PyJWK]


def parse_jwks(raw: bytes, where: str) -> Keys:
    """The signature keys of a JSON Web Key Set, by their ids; keys of other uses and kinds are left out.

    Raises:
        InvalidConfigError: it is no key set, or has a symmetric key in it.
    """
    try:
        listed = json.loads(raw)["keys"]
        if not isinstance(listed, list) or len(listed) > MAX_KEYS:
            raise ValueError(f"expected at most {MAX_KEYS} keys")
        return dict(_keys(listed))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidConfigError(f"{where}: not a key set: {error}") from None


def _keys(listed: Sequence[object]) -> Any:
    for index, jwk in enumerate(listed):
        if not isinstance(jwk, Mapping):
            raise TypeError(f"key {index}: expected an object")
        if jwk.get("kty") == "oct":
            raise ValueError("symmetric keys are not taken")
        if jwk.get("use", "sig") != "sig" or jwk.get("kty") not in {"OKP", "EC", "RSA"}:
            continue
        try:
            yield str(jwk.get("kid", f"#{index}")), jwt.PyJWK(dict(jwk))
        except (jwt.PyJWTError, NotImplementedError):  # the library has no key for "none"
            continue


class _RemoteKeys:
    """A key set behind a URL: fetched when needed, again after a while, and at once for a key id not seen yet."""

    def __init__(self, issuer: Issuer, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Keys = {}
        self._tried = self._fetched = float("-inf")
        parts = urlsplit(issuer.jwks)
        self._inner = is_loopback(parts.hostname or "")
        if parts.scheme != "https" and not self._inner:
            raise InvalidConfigError(f"issuer {issuer.issuer}: jwks: expected https")

    def get(self, kid: str | None) -> Keys:
        """The keys. One thread at a time asks for new ones; no other waits for it, as long as there are some."""
        if self._lock.acquire(blocking=not self._keys):
            try:
                self._refresh(kid)
            finally:
                self._lock.release()
        return self._keys

    def _refresh(self, kid: str | None) -> None:
        now = self._clock()
        stale = now - self._fetched > self._issuer.refresh_seconds
        unknown = kid is not None and kid not in self._keys
        if (stale or unknown) and now - self._tried >= _AGAIN_SECONDS:
            self._tried = now
            self._fetch(now)

    def _fetch(self, now: float) -> None:
        try:
            answer = outbound.request(
                "GET", self._issuer.jwks, allow_private=True, timeout_seconds=5
            )
            if answer.status != 200:
                raise TransportError(f"status {answer.status}")
            self._keys = parse_jwks(answer.body, "the answer")
            self._fetched = now
        except ArgosyError as error:
            log.warning("keys of issuer %s: %s", self._issuer.issuer, error)
            if not self._keys:
                raise UnauthorizedError(
                    f"keys of issuer {self._issuer.issuer} are not to be had"
                ) from error


class Issuers:
    """All issuers that are believed.

    Args:
        settings: Who they are.
        clock: Seconds since the epoch.

    Raises:
        InvalidConfigError: a key file cannot be read, or two entries name one issuer.
    """

    def __init__(self, settings: Sequence[Issuer], clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._issuers = {issuer.issuer: issuer for issuer in settings}
        if len(self._issuers) != len(settings):
            raise InvalidConfigError("access.issuers: one issuer is there twice")
        self._keys: dict[str, Callable[[str | None], Keys]] = {
            issuer.issuer: self._source(issuer) for issuer in settings
        }

    def _source(self, issuer: Issuer) -> Callable[[str | None], Keys]:
        if "://" in issuer.jwks:
            return _RemoteKeys(issuer, self._clock).get
        watched = Watched(issuer.jwks, lambda path: parse_jwks(read_limited(path), path))
        return lambda _kid: watched.get()

    def __bool__(self) -> bool:
        return bool(self._issuers)

    def claims_to(self, token: str) -> str | None:
        """Which of the issuers a token claims to be from, unproved; None for none of them."""
        try:
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            return None
        return claimed if isinstance(claimed, str) and claimed in self._issuers else None

    def verify(self, token: str) -> Claims:
        """What a token of one of them says. Blocking: keys may have to be fetched.

        Raises:
            UnauthorizedError: nobody's, or not valid.
        """
        header = unverified_header(token)
        name = self.claims_to(token)
        if name is None:
            raise UnauthorizedError("the token is from nobody this registry believes")
        issuer = self._issuers[name]
        algorithm = header.get("alg")
        kid = header.get("kid") if isinstance(header.get("kid"), str) else None
        if algorithm not in issuer.algorithms:
            raise UnauthorizedError("the token is signed with an algorithm that is not believed")
        key = _choose(self._keys[name](kid), kid, str(algorithm))
        claims = verified_claims(
            token,
            key.key,
            algorithms=(str(algorithm),),
            audience=issuer.audience,
            issuer=issuer.issuer,
            types=_TYPES,
            now=self._clock(),
        )
        return _read(claims, issuer)


def _choose(keys: Keys, kid: str | None, algorithm: str) -> jwt.PyJWK:
    """The key of that id; without an id, the only one there is."""
    key = keys.get(kid) if kid is not None else None
    if kid is None and len(keys) == 1:
        key = next(iter(keys.values()))
    if key is None or key.key_type != _KINDS[algorithm]:
        raise UnauthorizedError("the token is signed with a key that is not known")
    return key


def _read(claims: Mapping[str, Any], issuer: Issuer) -> Claims:
    user, groups = claims.get(issuer.user_claim), claims.get(issuer.groups_claim)
    if not isinstance(user, str) or not user or not user.isprintable():
        raise UnauthorizedError(f"the token's claim {issuer.user_claim} names no user")
    listed = groups if isinstance(groups, list) else []
    return Claims(
        user=issuer.prefix + user,
        groups=frozenset(issuer.prefix + group for group in listed if isinstance(group, str)),
        grants=decode_access(claims["access"]) if "access" in claims else None,
    )
