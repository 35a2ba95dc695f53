"""The ASGI 3 application: find the route, ask whether they may, answer; errors become JSON in one place."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence

from argosy.errors import (
    ArgosyError,
    BlobUnknownError,
    InvalidError,
    StorageError,
    UnauthorizedError,
    UnsupportedError,
)
from argosy.server.http import (
    REFUSED,
    ClientGoneError,
    File,
    Message,
    OutsideError,
    Pieces,
    Receive,
    Request,
    Response,
    Scope,
    Send,
    Stream,
    again,
)
from argosy.server.registry import Exchange, Registry, begun, log, prefetched
from argosy.server.routes import ROUTES, Match, Route, Table, WrongMethodError
from argosy.spec import distribution

_API = (b"docker-distribution-api-version", distribution.API_VERSION.encode())
_NOSNIFF = (b"x-content-type-options", b"nosniff")
_JSON = (b"content-type", b"application/json")
_NO_BODY = frozenset({204, 304})
_SLICE = 64 * 1024
"""Bytes sent at a time. The HTTP server holds ten of them for a client that takes none."""
_STREAMED: Message = {"type": "http.response.body", "body": b"", "more_body": False}


_IN_LOG = "the log has more under this request's id"
_STORAGE_SAYS = {
    500: f"internal error: {_IN_LOG}",
    503: f"the registry cannot do this now: {_IN_LOG}",
    507: "the storage is full",
}


def _told(error: ArgosyError) -> ArgosyError:
    """What a client is told of an error."""
    return type(error)(_STORAGE_SAYS[error.status]) if isinstance(error, StorageError) else error


class App:
    """The registry as an ASGI application.

    Args:
        registry: What it works with; started and stopped with the application's lifespan.
        routes: More routes than the specification's (tokens, metrics).

    `on_ready` is called once the registry takes requests.

    Example:
        >>> import tempfile
        >>> from argosy.server.metadata.sqlite import Sqlite
        >>> from argosy.server.storage.filesystem import FileSystem
        >>> root = tempfile.mkdtemp()
        >>> app = App(Registry(Sqlite(root + "/registry.db"), FileSystem(root + "/blobs")))
        >>> app.registry.metadata.close()
    """

    def __init__(self, registry: Registry, routes: Sequence[Route] = ()) -> None:
        self.registry = registry
        self.routes: tuple[Route, ...] = (*ROUTES, *routes)
        self.on_ready: Callable[[], None] = lambda: None
        self._table = Table(self.routes)
        self._numbers = itertools.count()
        self._instance = secrets.token_hex(6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        began = time.perf_counter()
        request = Request(scope, receive, f"{self._instance}-{next(self._numbers)}")
        match: Match | None = None
        try:
            if REFUSED in scope:
                raise scope[REFUSED]
            request.check()
            match = self._table.match(request.method, scope["raw_path"])
            response = await self._answer(match, request)
            if not isinstance(response.body, bytes) and request.method != "HEAD":
                await self._open(request, response, response.body)
        except ClientGoneError as exc:
            headers = [_JSON, (b"connection", b"close")]
            response = Response(400, headers, distribution.encode_errors(exc), told=exc.status)
        except Exception as exc:  # noqa: BLE001
            response = self._failure(exc, match, request)
            await request.drain()
        try:
            await self._send(request, response, send)
        except Exception as exc:  # noqa: BLE001  # the answer has begun: there can be no other
            log.warning("request %s: the answer broke off: %s", request.id, str(exc) or repr(exc))
        finally:
            self._note(request, match, response, began)

    async def _answer(self, match: Match, request: Request) -> Response:
        registry, route = self.registry, match.route
        request.name, request.argument = match.name, match.argument
        if route.verb != "open":
            request.principal = await registry.access.authenticate(request.headers)
            registry.access.authorize(request.principal, route.verb, match.name or None)
        if route.verb == "delete" and not registry.settings.content.delete:
            raise UnsupportedError("deleting is switched off in this registry")
        if route.stored:
            await registry.probe.require_storage()
        return await route.handler(registry, request)

    def _failure(self, error: Exception, match: Match | None, request: Request) -> Response:
        """Any error as the specification's JSON.

        What is not one of ours is a bug, and logged whole. What the database or the storage said is for the log alone:
        there are addresses and keys in it.
        """
        if not isinstance(error, ArgosyError):
            log.error("request %s failed", request.id, exc_info=error)
            error = StorageError()
        elif error.status >= 500 and not isinstance(error, InvalidError):
            log.error("request %s: %s", request.id, error)
        response = Response(error.status, [_JSON], distribution.encode_errors(_told(error)))
        response.headers.extend(again(error))
        if REFUSED in request.scope:
            response.add(b"connection", "close")
        if isinstance(error, UnauthorizedError) and match is not None:
            challenge = self.registry.access.challenge(match.route.verb, match.name or None)
            response.add(b"www-authenticate", challenge)
        if isinstance(error, OutsideError):
            response.add(b"content-range", f"bytes */{error.size}")
        if isinstance(error, WrongMethodError):
            response.add(b"allow", error.allowed)
        return response

    async def _open(
        self, request: Request, response: Response, body: File | Pieces | Stream
    ) -> None:
        """Look whether a long body is there while something else can still be answered.

        Raises:
            BlobUnknownError: an object is not in the storage.
            StorageError: an object cannot be read, or is shorter than it should be.
        """
        try:
            if isinstance(body, File):
                return body.check()
            if isinstance(body, Pieces):
                body = Stream(prefetched(self.registry, body.source), body.size)
            response.body = Stream(await begun(body.source), body.size)
        except BlobUnknownError as exc:  # the database knows it: something is lost
            log.error("request %s: %s", request.id, exc)
            raise BlobUnknownError(f"the content is lost: {_IN_LOG}") from None

    async def _send(self, request: Request, response: Response, send: Send) -> None:
        headers, body = response.headers, response.body
        headers.append(_API)
        headers.append(_NOSNIFF)
        headers.append((b"x-request-id", request.id.encode()))
        size = response.length
        if size is None:
            size = len(body) if isinstance(body, bytes) else body.size
        if size is not None and response.status not in _NO_BODY:
            headers.append((b"content-length", b"%d" % size))
        start: Message = {
            "type": "http.response.start",
            "status": response.status,
            "headers": headers,
        }
        await send(start)
        if request.method == "HEAD":
            await send(_STREAMED)
        elif isinstance(body, bytes):
            await send({"type": "http.response.body", "body": body, "more_body": False})
            response.sent = len(body)
        elif isinstance(body, File):
            await send({"type": "http.response.pathsend", "path": body.path})
            response.sent = body.size
        elif isinstance(body, Stream):
            await self._stream(response, body.source, send)

    async def _stream(self, response: Response, pieces: AsyncIterator[bytes], send: Send) -> None:
        patience = self.registry.settings.limits.body_idle_seconds
        async for piece in pieces:
            for at in range(0, len(piece), _SLICE):
                part = piece[at : at + _SLICE]
                async with asyncio.timeout(patience):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                response.sent += len(part)
        await send(_STREAMED)

    def _note(
        self, request: Request, match: Match | None, response: Response, began: float
    ) -> None:
        hook = self.registry.on_exchange
        if hook is not None:
            label = match.route.label if match else ""
            status = response.told or response.status
            try:
                seconds = time.perf_counter() - began
                hook(Exchange(request, label, status, response.sent, seconds))
            except Exception:  # noqa: BLE001  # the answer is sent, and stays so
                log.exception("request %s is not in the access log", request.id)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.registry.start()
                except Exception as exc:  # noqa: BLE001
                    return await send({"type": "lifespan.startup.failed", "message": str(exc)})
                await send({"type": "lifespan.startup.complete"})
                self.on_ready()
            else:
                await self.registry.stop()
                return await send({"type": "lifespan.shutdown.complete"})
