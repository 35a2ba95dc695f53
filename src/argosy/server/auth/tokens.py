"""Tokens the registry gives out itself: short-lived, scoped, signed with a key only it has.

A token says who asked and what for. It is no more than an upper bound: what the policy allows is asked again when the
token is used, so a right that is taken away ends with it, not with the token.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from argosy.errors import InvalidConfigError, UnauthorizedError
from argosy.server.auth.scope import Grants, decode_access, encode_access
from argosy.server.auth.watched import read_limited

__all__ = ["MAX_TOKEN", "Claims", "TokenSigner", "load_key"]

MAX_TOKEN = 16 * 1024
LEEWAY_SECONDS = 10
_TYPE = "at+jwt"

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a believed token says.

    Args:
        user: Who it was made for; empty for nobody in particular.
        groups: What they belonged to then.
        grants: What it is restricted to; None where it does not restrict.
    """

    user: str
    groups: frozenset[str] = frozenset()
    grants: Grants | None = None


def load_key(path: str) -> PrivateKey:
    """The signing key of a file; a new Ed25519 key, mode 0600, where there is none.

    Raises:
        InvalidConfigError: others may read the file, or it holds no Ed25519 or P-256 key.
    """
    if not os.path.exists(path):
        _make_key(path)
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o077:
        raise InvalidConfigError(
            f"{path}: mode {mode:04o}, expected 0600", hint=f"chmod 600 {path}, or make a new key"
        )
    try:
        key = serialization.load_pem_private_key(read_limited(path, 64 * 1024), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidConfigError(f"{path}: not a private key in PEM: {error}") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise InvalidConfigError(f"{path}: expected an Ed25519 or P-256 key")


def _make_key(path: str) -> None:
    """Write a new key; of several processes that try at once, one wins and all read its key."""
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
    temporary = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return
    finally:
        os.unlink(temporary)


class TokenSigner:
    """Makes tokens and knows its own again.

    Args:
        key: The signing key.
        issuer: The `iss` claim.
        service: The `aud` claim: the name clients must ask for.
        lifetime_seconds: How long a token lives.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        key: PrivateKey,
        *,
        issuer: str,
        service: str,
        lifetime_seconds: int = 300,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._public = key.public_key()
        self._algorithm = "EdDSA" if isinstance(key, ed25519.Ed25519PrivateKey) else "ES256"
        self.issuer = issuer
        self.service = service
        self.lifetime_seconds = lifetime_seconds
        self._clock = clock
        self._jwk = self._make_jwk()

    def _make_jwk(self) -> dict[str, Any]:
        if isinstance(self._public, ed25519.Ed25519PublicKey):
            jwk = OKPAlgorithm.to_jwk(self._public, as_dict=True)
        else:
            jwk = ECAlgorithm.to_jwk(self._public, as_dict=True)
        needed = {k: jwk[k] for k in ("crv", "kty", "x", "y") if k in jwk}
        thumbprint = hashlib.sha256(
            json.dumps(needed, sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()
        return needed | {"kid": thumbprint[:32], "use": "sig", "alg": self._algorithm}

    def jwks(self) -> dict[str, object]:
        """The public key, as a JSON Web Key Set."""
        return {"keys": [self._jwk]}

    def issue(self, user: str, groups: frozenset[str], grants: Grants) -> tuple[str, int]:
        """A token, and when it was made (seconds since the epoch)."""
        now = int(self._clock())
        claims = {
            "iss": self.issuer,
            "aud": self.service,
            "sub": user,
            "groups": sorted(groups),
            "access": encode_access(grants),
            "iat": now,
            "nbf": now - LEEWAY_SECONDS,
            "exp": now + self.lifetime_seconds,
            "jti": secrets.token_hex(16),
        }
        headers = {"typ": _TYPE, "kid": self._jwk["kid"]}
        return jwt.encode(claims, self._key, self._algorithm, headers=headers), now

    def verify(self, token: str) -> Claims:
        """What one of our own tokens says.

        Raises:
            UnauthorizedError: it is not ours, not valid now, or not meant for this service.
        """
        claims = verified_claims(
            token,
            self._public,
            algorithms=(self._algorithm,),
            audience=self.service,
            issuer=self.issuer,
            types=frozenset({_TYPE}),
            now=self._clock(),
        )
        groups = claims.get("groups")
        return Claims(
            user=str(claims["sub"]),
            groups=frozenset(map(str, groups)) if isinstance(groups, list) else frozenset(),
            grants=decode_access(claims.get("access")),
        )


def unverified_header(token: str) -> dict[str, Any]:
    """The header of a token nobody has proved yet: good for choosing a key by its id, and for nothing else.

    Raises:
        UnauthorizedError: it is no token, or demands an extension.
    """
    if len(token) > MAX_TOKEN:
        raise UnauthorizedError(f"token over the limit of {MAX_TOKEN} characters")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError:
        raise UnauthorizedError("the token cannot be read") from None
    if "crit" in header:
        raise UnauthorizedError("the token demands an extension this registry does not have")
    return header


def verified_claims(
    token: str,
    key: Any,
    *,
    algorithms: tuple[str, ...],
    audience: str,
    issuer: str,
    types: frozenset[str],
    now: float,
) -> dict[str, Any]:
    """The claims of a token, all checked: signature, algorithm, type, issuer, audience, times.

    Keys that travel in the token's own header (`jwk`, `jku`, `x5c`) are never looked at.

    Raises:
        UnauthorizedError: one of them is wrong.
    """
    header = unverified_header(token)
    if str(header.get("typ", "JWT")).lower() not in types:
        raise UnauthorizedError("the token is of another type")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            audience=audience,
            issuer=issuer,
            options={
                "require": ["iss", "aud", "exp", "sub"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "strict_aud": False,
            },
        )
    except jwt.PyJWTError as error:
        raise UnauthorizedError(f"the token is not valid: {error}") from None
    _check_times(claims, now)
    return claims


def _check_times(claims: dict[str, Any], now: float) -> None:
    """`exp` and `nbf`, by the clock that was given."""
    times = {name: claims.get(name) for name in ("exp", "nbf")}
    for name, value in times.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UnauthorizedError(f"the token's {name} is not a time")
    if times["exp"] is None or now > times["exp"] + LEEWAY_SECONDS:
        raise UnauthorizedError("the token has expired")
    if times["nbf"] is not None and now < times["nbf"] - LEEWAY_SECONDS:
        raise UnauthorizedError("the token is not valid yet")
