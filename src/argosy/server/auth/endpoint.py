"""The token endpoint: `/token`, as docker and containerd ask it, and the public key at `/.well-known/jwks.json`."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from urllib.parse import parse_qs

from argosy.errors import UsageError
from argosy.server.access import Principal
from argosy.server.auth.gate import TOKEN_PATH, Gate
from argosy.server.auth.scope import parse_scopes
from argosy.server.auth.tokens import TokenSigner
from argosy.server.http import Limits, Request, Response
from argosy.server.registry import Registry
from argosy.server.routes import Route
from argosy.spec import _json

__all__ = ["token_routes"]

JWKS_PATH = "/.well-known/jwks.json"
MAX_FORM = 64 * 1024
_JSON = (b"content-type", b"application/json")
_SECRET = (b"cache-control", b"no-store")


def token_routes(gate: Gate) -> tuple[Route, ...]:
    """The routes of the endpoint; none where no tokens are given out."""
    signer = gate.signer
    if signer is None:
        return ()
    endpoint = _Endpoint(gate, signer)
    return (
        Route(("GET",), TOKEN_PATH, "open", endpoint.get, "token"),
        Route(("POST",), TOKEN_PATH, "open", endpoint.post, "token"),
        Route(("GET", "HEAD"), JWKS_PATH, "open", endpoint.jwks, "jwks"),
    )


class _Endpoint:
    def __init__(self, gate: Gate, signer: TokenSigner) -> None:
        self._gate = gate
        self._signer = signer

    async def get(self, registry: Registry, request: Request) -> Response:
        """`GET /token?service=…&scope=…`, with Basic credentials or none.

        Raises:
            UnauthorizedError: the credentials are wrong.
        """
        del registry
        principal = await self._gate.identify(request.headers)
        return self._token(request, principal, request.parameters("scope"))

    async def post(self, registry: Registry, request: Request) -> Response:
        """`POST /token` with a form: OAuth 2's password grant, or a GET's parameters.

        Raises:
            UsageError: another grant, or no form.
            UnauthorizedError: the credentials are wrong.
        """
        del registry
        raw = await request.read(Limits(idle=10, total=30, size=MAX_FORM))
        try:
            form = parse_qs(raw.decode("ascii"), max_num_fields=100)
        except ValueError:
            raise UsageError("body: expected a form") from None
        if form.get("grant_type", ["password"]) != ["password"]:
            raise UsageError("grant_type: expected password")
        if "username" in form:
            principal = await self._login(form["username"][0], form.get("password", [""])[0])
        else:
            principal = await self._gate.identify(request.headers)
        return self._token(request, principal, form.get("scope", []))

    async def _login(self, user: str, password: str) -> Principal:
        basic = base64.b64encode(f"{user}:{password}".encode())
        return await self._gate.identify({b"authorization": b"Basic " + basic})

    def _token(self, request: Request, principal: Principal, scopes: Sequence[str]) -> Response:
        request.principal = principal
        granted = self._gate.grant(principal, parse_scopes(scopes))
        token, now = self._signer.issue(principal.name, principal.groups, granted)
        issued = dt.datetime.fromtimestamp(now, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "token": token,
            "access_token": token,
            "expires_in": self._signer.lifetime_seconds,
            "issued_at": issued,
        }
        return Response(200, [_JSON, _SECRET], _json.dumps(body))

    async def jwks(self, registry: Registry, request: Request) -> Response:
        """`GET /.well-known/jwks.json`: the key others can check our tokens with."""
        del registry, request
        return Response(200, [_JSON], _json.dumps(self._signer.jwks()))
