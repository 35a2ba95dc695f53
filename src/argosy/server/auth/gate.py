"""The `Access` of a registry with users: authentication, authorisation and the rules of tags, in one place.

What somebody may is the policy's word (or, without a policy, the defaults below), cut down to what their token was
made for. Both are asked at every request.

- Without a policy, users of the htpasswd file may pull, push and delete everywhere; others' tokens may what their
  `access` claim says, and nothing without one.
- With a policy, only what its rules say.
- `access.anonymous` is granted to everybody on top.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextvars
import functools
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from argosy.errors import DeniedError, InvalidConfigError, UnauthorizedError
from argosy.server.access import Principal, TagGuard, Verb
from argosy.server.auth.htpasswd import Htpasswd
from argosy.server.auth.issuers import Issuers
from argosy.server.auth.policy import Policy
from argosy.server.auth.scope import CATALOG, Grants, covers
from argosy.server.auth.tokens import Claims, TokenSigner, load_key
from argosy.server.auth.watched import Watched
from argosy.server.config import rights_of_everybody
from argosy.server.settings import Settings
from argosy.server.visit import VISIT

__all__ = ["Gate", "open_gate"]

MAX_HEADER = 20 * 1024
TOKEN_PATH = "/token"  # noqa: S105

_EVERYTHING = frozenset({"pull", "create", "update", "delete"})
_ANONYMOUS: Mapping[str, frozenset[str]] = {
    "none": frozenset(),
    "pull": frozenset({"pull"}),
    "push": frozenset({"pull", "create", "update"}),
    "all": _EVERYTHING,
}
_NEEDS: Mapping[str, frozenset[str]] = {
    "pull": frozenset({"pull"}),
    "list": frozenset({"pull"}),
    "push": frozenset({"create", "update"}),
    "delete": frozenset({"delete"}),
    "admin": frozenset({"admin"}),
}
"""The rights of which one is needed for a verb of the route table. A verb that is not here is refused."""
_ACTIONS = {"pull": "pull", "push": "pull,push", "delete": "delete", "admin": "*"}
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_NO_POLICY = Policy()
_NOBODY = Principal()

_HOST_NOW: contextvars.ContextVar[str] = contextvars.ContextVar("host", default="")


def open_gate(settings: Settings, data: str, *, clock: Callable[[], float] = time.time) -> Gate:
    """The access rules that are configured.

    Args:
        settings: The settings.
        data: The directory where a signing key is kept if none is configured.
        clock: Seconds since the epoch.

    Raises:
        InvalidConfigError: a file that is named cannot be read or is wrong.
    """
    chosen = settings.access
    anonymous = rights_of_everybody(settings)
    signer = None
    require_key(settings)
    if chosen.tokens.enabled:
        signer = TokenSigner(
            load_key(chosen.tokens.key or os.path.join(data, "token.key")),
            issuer=chosen.tokens.issuer,
            service=chosen.tokens.service,
            lifetime_seconds=chosen.tokens.lifetime_seconds,
            clock=clock,
        )
    return Gate(
        anonymous=_ANONYMOUS[anonymous],
        users=Htpasswd(chosen.htpasswd) if chosen.htpasswd else None,
        issuers=Issuers(chosen.issuers, clock),
        policy=Watched(chosen.policy, Policy.load).get if chosen.policy else None,
        signer=signer,
        fail_delay_seconds=chosen.fail_delay_seconds,
        public_url=settings.listen.public_url,
        https=settings.listen.tls is not None,
    )


def require_key(settings: Settings) -> None:
    """See that replicas have one key.

    Raises:
        InvalidConfigError: none is named.
    """
    tokens = settings.access.tokens
    if tokens.enabled and tokens.key is None and settings.metadata.type != "sqlite":
        raise InvalidConfigError(
            "expected a key in access.tokens.key: replicas must know each other's tokens",
            hint="make one with openssl genpkey -algorithm ed25519, mode 0600, and give it to all",
        )


class Gate:
    """The rules of one registry.

    Args:
        anonymous: Rights everybody has everywhere.
        users: Users and their passwords.
        issuers: Others whose tokens are believed.
        policy: The policy that holds now; None where there is none.
        signer: Makes tokens; None answers challenges with Basic alone.
        fail_delay_seconds: How long a wrong password's answer takes.
        public_url: What clients call the registry.
        https: Whether the registry itself speaks TLS.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        *,
        anonymous: frozenset[str] = frozenset(),
        users: Htpasswd | None = None,
        issuers: Issuers | None = None,
        policy: Callable[[], Policy] | None = None,
        signer: TokenSigner | None = None,
        fail_delay_seconds: float = 1.0,
        public_url: str | None = None,
        https: bool = False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._anonymous = anonymous
        self._users = users
        self._issuers = issuers or Issuers(())
        self._policy = policy
        self.signer = signer
        self._fail_delay = fail_delay_seconds
        self._public_url = (public_url or "").rstrip("/")
        self._scheme = "https" if https else "http"
        self._sleep = sleep
        self._costly = asyncio.Semaphore(4)
        self.policy: Callable[[], Policy] = policy or (lambda: _NO_POLICY)

    # -- who ---------------------------------------------------------------------------------------------------

    async def authenticate(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who asks: `Basic` with a password or an issuer's token as password, or `Bearer`.

        Raises:
            UnauthorizedError: the credentials are wrong, after the delay.
        """
        host = headers.get(b"host", b"")
        _HOST_NOW.set(host.decode() if _HOST.fullmatch(host) else "")
        header = headers.get(b"authorization")
        if header is None:
            return Principal()
        try:
            return await self._principal(header)
        except UnauthorizedError:
            await self._sleep(self._fail_delay)
            raise

    async def identify(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Who asks for a token. One of our own does not buy another, or a token would live for ever.

        Raises:
            UnauthorizedError: the credentials are wrong, or of the wrong kind.
        """
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        text = token.strip().decode("ascii", "replace")
        if scheme.lower() == b"bearer" and not self._issuers.claims_to(text[:MAX_HEADER]):
            await self._sleep(self._fail_delay)
            raise UnauthorizedError("a token of this registry does not buy another one")
        return await self.authenticate(headers)

    async def _principal(self, header: bytes) -> Principal:
        scheme, _, credentials = header.partition(b" ")
        if len(header) > MAX_HEADER:
            raise UnauthorizedError(f"credentials over the limit of {MAX_HEADER} bytes")
        try:
            text = credentials.strip().decode("ascii")
        except UnicodeDecodeError:
            raise UnauthorizedError("credentials that cannot be read") from None
        if scheme.lower() == b"basic":
            return await self._basic(text)
        if scheme.lower() == b"bearer":
            return await self._bearer(text)
        raise UnauthorizedError("expected Basic or Bearer credentials")

    async def _basic(self, text: str) -> Principal:
        try:
            user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise UnauthorizedError("Basic credentials that cannot be read") from None
        if colon and not user and not password:  # what skopeo and podman send for nobody
            return Principal()
        if not colon or not user or not password:
            raise UnauthorizedError("expected a user and a password")
        return await self.login(user, password)

    async def login(self, user: str, password: str) -> Principal:
        """Who has this password. An issuer's token counts as one, whatever the user is called then.

        Raises:
            UnauthorizedError: nobody. It does not say whether there is such a user.
        """
        if self._issuers and password.count(".") == 2 and self._issuers.claims_to(password):
            return await self._external(password)
        users = self._users
        if users is not None:
            if users.remembered(user, password):
                return Principal(name=user)
            async with self._costly:
                if await asyncio.to_thread(users.check, user, password):
                    return Principal(name=user)
        raise UnauthorizedError("wrong user or password")

    async def _bearer(self, token: str) -> Principal:
        if self._issuers and self._issuers.claims_to(token):
            return await self._external(token)
        if self.signer is None:
            raise UnauthorizedError("the token is from nobody this registry believes")
        claims = self.signer.verify(token)
        self._still_there(claims)
        return _as_principal(claims)

    def _still_there(self, claims: Claims) -> None:
        """A token of ours ends with its user: one without groups can only have come from the htpasswd file."""
        if not claims.user or claims.groups or self._users is None or self._issuers:
            return
        if not self._users.known(claims.user):
            raise UnauthorizedError("the token's user is no more")

    async def _external(self, token: str) -> Principal:
        claims = await asyncio.to_thread(self._issuers.verify, token)
        principal = _as_principal(claims)
        if principal.grants is None and self._policy is None:
            return Principal(name=principal.name, groups=principal.groups, grants={})
        return principal

    # -- what --------------------------------------------------------------------------------------------------

    def rights(self, principal: Principal, repository: str) -> frozenset[str]:
        """The rights somebody has in a repository, whatever their token was made for."""
        if self._policy is not None:
            given = self.policy().rights(principal.name, principal.groups, repository)
        else:
            given = _EVERYTHING if principal.name else frozenset()
        return given | self._anonymous

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        """Return if they may.

        Raises:
            UnauthorizedError: not without saying who they are, or not with this token.
            DeniedError: they may not.
        """
        if repository is None:
            self._authorize_registry(principal, verb)
            return
        needed = _NEEDS.get(verb, frozenset())
        if not needed & self.rights(principal, repository):
            self._refuse(principal, f"{verb} of {repository}")
        grants = _grants(principal)
        if grants is None or covers(grants, verb, repository):
            return
        if verb == "list" and covers(grants, "catalog", None):
            return
        if needed & self.rights(
            _NOBODY, repository
        ):  # a token takes nothing from what everybody may
            return
        raise UnauthorizedError(f"the token is not for {verb} of {repository}")

    def _authorize_registry(self, principal: Principal, verb: Verb) -> None:
        grants = _grants(principal)
        known = bool(principal.name) or grants is not None
        if verb == "open":
            return
        if verb == "ping":
            if not known and self._has_identities():
                raise UnauthorizedError("who asks?")
        elif verb == "catalog":
            if not principal.name and not self._anonymous and not self._speaks_of(principal):
                raise UnauthorizedError("the catalog is not for everybody")
            if grants is not None and not covers(grants, "catalog", None):
                raise UnauthorizedError("the token is not for the catalog")
        elif verb != "admin" or not self.is_admin(principal):
            self._refuse(principal, verb)

    def is_admin(self, principal: Principal) -> bool:
        """Whether somebody may everything everywhere, with credentials that are not cut down."""
        return principal.grants is None and self.policy().is_admin(principal.name, principal.groups)

    def _has_identities(self) -> bool:
        return self._users is not None or bool(self._issuers) or not self._anonymous

    def _speaks_of(self, principal: Principal) -> bool:
        return self.policy().speaks_of_anybody(principal.name, principal.groups)

    def _refuse(self, principal: Principal, what: str) -> None:
        if principal.name:
            raise DeniedError(f"{what} is not allowed for {principal.name}")
        raise UnauthorizedError(f"{what} is not allowed without credentials")

    def challenge(self, verb: Verb, repository: str | None) -> str:
        """What a 401 asks for: a token for just this, or a password."""
        if self.signer is None or verb == "open":
            return 'Basic realm="argosy", charset="UTF-8"'
        visit = VISIT.get()
        scheme = visit.scheme if visit is not None else self._scheme
        base = self._public_url or f"{scheme}://{_HOST_NOW.get() or 'localhost'}"
        parts = [f'realm="{base}{TOKEN_PATH}"', f'service="{self.signer.service}"']
        if repository is not None:
            parts.append(f'scope="repository:{repository}:{_ACTIONS.get(verb, "pull")}"')
        elif verb == "catalog":
            parts.append('scope="registry:catalog:*"')
        return "Bearer " + ",".join(parts)

    def guard(self, principal: Principal, repository: str) -> TagGuard | None:
        """The rules of a repository's tags."""
        policy, rights = self.policy(), self.rights(principal, repository)
        if not policy.immutable and rights >= _EVERYTHING:
            return None
        return functools.partial(policy.check_tag, rights, repository)

    def grant(self, principal: Principal, asked: Grants) -> Grants:
        """Of what a token is asked for, what the principal may have."""
        return {name: self._granted(principal, name, actions) for name, actions in asked.items()}

    def _granted(self, principal: Principal, name: str, actions: frozenset[str]) -> frozenset[str]:
        outer = _grants(principal)
        if name == CATALOG:
            listed = principal.name or self._anonymous or self._speaks_of(principal)
            return actions & {"*"} if listed and outer is None else frozenset()
        rights = self.rights(principal, name)
        mine = {verb for verb in ("pull", "push", "delete") if _NEEDS[verb] & rights}
        if outer is not None:
            mine = {verb for verb in mine if covers(outer, verb, name)}
        return frozenset(mine) if "*" in actions else actions & mine


def _as_principal(claims: Claims) -> Principal:
    return Principal(name=claims.user, groups=claims.groups, grants=claims.grants)


def _grants(principal: Principal) -> Grants | None:
    grants = principal.grants
    return grants if isinstance(grants, Mapping) else None
