"""Registries with users and rules, for tests: an htpasswd file, a policy, a signer with a key of its own."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Self
from urllib.parse import urlencode

import bcrypt
from cryptography.hazmat.primitives.asymmetric import ed25519

from argosy.server.app import App
from argosy.server.auth.endpoint import token_routes
from argosy.server.auth.gate import Gate
from argosy.server.auth.htpasswd import Htpasswd
from argosy.server.auth.issuers import Issuers
from argosy.server.auth.policy import Policy
from argosy.server.auth.tokens import TokenSigner
from argosy.server.settings import Issuer, Settings
from tests.server.client import Answer, Clock, Server

PASSWORD = "correct horse"


def htpasswd(directory: pathlib.Path, *users: str, password: str = PASSWORD) -> str:
    """A file of users who all have the same password."""
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    path = directory / "htpasswd"
    path.write_text("".join(f"{user}:{hashed}\n" for user in users))
    return str(path)


def basic(user: str, password: str = PASSWORD) -> dict[str, str]:
    """The header of Basic credentials."""
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """The header of a token."""
    return {"authorization": f"Bearer {token}"}


class Delays:
    """Counts the seconds that would have been slept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def rule(
    allow: Iterable[str], *users: str, repositories: Iterable[str] = ("**",), **more: Any
) -> dict[str, Any]:
    """A rule of a policy."""
    made: dict[str, Any] = {"repositories": list(repositories), "allow": list(allow)}
    return made | ({"users": list(users)} if users else {}) | more


class Door:
    """A registry behind a gate.

    `document` is its policy file's content (None: no policy), `users` those of its htpasswd file.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        document: Mapping[str, Any] | None = None,
        *,
        users: Iterable[str] = ("ann", "bob", "admin"),
        issuers: Iterable[Issuer] = (),
        tokens: bool = True,
        anonymous: frozenset[str] = frozenset(),
        settings: Settings | None = None,
    ) -> None:
        self.clock = Clock()
        self.delays = Delays()
        self.key = ed25519.Ed25519PrivateKey.generate()
        self.signer = TokenSigner(
            self.key, issuer="argosy", service="argosy", lifetime_seconds=300, clock=self.clock
        )
        policy = Policy.decode(dict(document)) if document is not None else None
        self.policy = policy
        listed = tuple(users)
        self.gate = Gate(
            anonymous=anonymous,
            users=Htpasswd(htpasswd(directory, *listed)) if listed else None,
            issuers=Issuers(tuple(issuers), self.clock),
            policy=(lambda: self.policy or Policy()) if policy is not None else None,
            signer=self.signer if tokens else None,
            fail_delay_seconds=1.0,
            sleep=self.delays,
        )
        self.server = Server(str(directory), settings=settings, access=self.gate, clock=self.clock)
        self.server.app = App(self.server.registry, token_routes(self.gate))
        self.ask = self.server.ask

    def token(self, user: str | None, *scopes: str) -> str:
        """A token for some scopes."""
        query = urlencode([("service", "argosy"), *(("scope", scope) for scope in scopes)])
        answer = self.ask("GET", f"/token?{query}", headers=basic(user) if user else {})
        assert answer.status == 200, answer
        return str(answer.json()["token"])

    def close(self) -> None:
        self.server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class As(Server):
    """A door, asked by one user for everything. It opens nothing of its own."""

    def __init__(self, door: Door, user: str) -> None:
        self._door = door
        self._headers = basic(user)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | list[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self._door.ask(method, target, body, {**(headers or {}), **self._headers})
