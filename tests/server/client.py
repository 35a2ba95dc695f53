"""A registry in this process, asked through ASGI as a server would ask it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import pytest

from argosy.server.access import Access
from argosy.server.app import App
from argosy.server.gc import Upkeep
from argosy.server.metadata import Metadata
from argosy.server.metadata.sqlite import Sqlite
from argosy.server.registry import Registry
from argosy.server.settings import Settings
from argosy.server.storage import Storage
from argosy.server.storage.filesystem import FileSystem
from argosy.spec import mediatypes
from argosy.spec.digest import Digest

EMPTY_CONFIG = b"{}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A registry with everything at its default, over SQLite and files."""
    with Server(str(tmp_path)) as made:
        yield made


@dataclasses.dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name.lower()), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    @property
    def location(self) -> str:
        found = self.header("location")
        assert found is not None
        return found

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["errors"][0]["code"])

    def json(self) -> Any:
        return json.loads(self.body)


class Clock:
    """A clock the test turns."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Server:
    """A registry over a directory. Every call runs to its end on one event loop of its own."""

    def __init__(
        self,
        root: str,
        *,
        settings: Settings | None = None,
        access: Access | None = None,
        metadata: Metadata | None = None,
        storage: Storage | None = None,
        clock: Callable[[], float] | None = None,
        runner: asyncio.Runner | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.runner = runner or asyncio.Runner()
        self._owned = runner is None
        self.registry = Registry(
            metadata or Sqlite(f"{root}/registry.db"),
            storage or FileSystem(f"{root}/blobs", reserve=0),
            settings=settings,
            access=access,
            clock=self.clock,
        )
        self.registry.patience = 0.0  # nothing goes on while a test does not ask
        self.app = App(self.registry)
        self.runner.run(self.registry.start())

    def close(self) -> None:
        self.runner.run(self.registry.stop())
        if self._owned:
            self.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def upkeep(self) -> Upkeep:
        registry = self.registry
        return Upkeep(registry.metadata, registry.storage, registry.settings.gc, self.clock)

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def rows(self, sql: str, parameters: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        found = self.run(self.registry.metadata.read(lambda tx: tx.rows(sql, tuple(parameters))))
        return list(found)

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | list[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        return self.runner.run(self.asking(method, target, body, headers))

    async def asking(
        self,
        method: str,
        target: str,
        body: bytes | list[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a list of bodies is sent chunked."""
        split = urlsplit(target)
        fields = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
        if isinstance(body, bytes) and not any(k == b"content-length" for k, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        elif isinstance(body, list):
            fields.append((b"transfer-encoding", b"chunked"))
        scope = {
            "type": "http",
            "method": method,
            "path": split.path,
            "raw_path": split.path.encode(),
            "query_string": split.query.encode(),
            "headers": fields,
        }
        pieces = list(body) if isinstance(body, list) else [body or b""]
        return await self._answered(scope, _Messages(pieces))

    async def streaming(self, method: str, target: str, body: AsyncIterator[bytes]) -> Answer:
        """A request whose body comes when it comes."""
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(b"transfer-encoding", b"chunked")],
        }

        async def messages() -> AsyncIterator[dict[str, Any]]:
            async for piece in body:
                yield {"type": "http.request", "body": piece, "more_body": True}
            yield {"type": "http.request", "body": b"", "more_body": False}

        return await self._answered(scope, messages())

    async def _answered(self, scope: dict[str, Any], body: AsyncIterator[Any]) -> Answer:
        messages: list[Any] = []

        async def receive() -> Any:
            async for message in body:
                return message
            await asyncio.sleep(3600)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        return _answer(messages)

    # -- what tests do all the time ---------------------------------------------------------------

    def push_blob(self, name: str, content: bytes, algorithm: str = "sha256") -> Digest:
        digest = Digest.of(content, algorithm)
        begun = self.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        assert begun.status == 202, begun
        done = self.ask("PUT", f"{begun.location}?digest={digest}", content)
        assert done.status == 201, done
        return digest

    def push_image(self, name: str, tag: str | None = None, *layers: bytes, **more: Any) -> Digest:
        raw = image(*[self.push_blob(name, b) for b in layers], **more)
        self.push_blob(name, EMPTY_CONFIG)
        return self.push_manifest(name, raw, tag)

    def push_manifest(
        self, name: str, raw: bytes, tag: str | None = None, media_type: str | None = None
    ) -> Digest:
        digest = Digest.of(raw)
        answer = self.put_manifest(name, raw, tag or digest, media_type)
        assert answer.status == 201, answer
        return digest

    def put_manifest(
        self, name: str, raw: bytes, reference: str, media_type: str | None = None, **headers: str
    ) -> Answer:
        kind = media_type or json.loads(raw).get("mediaType", mediatypes.OCI_MANIFEST)
        fields = {"content-type": kind} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.ask("PUT", f"/v2/{name}/manifests/{quote(reference, safe='?=&:')}", raw, fields)


class _Messages:
    """The messages of a body. No generator: one that is not read to its end must leave nothing for the loop to do."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> _Messages:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if not self._pieces:
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}


def _answer(messages: list[Any]) -> Answer:
    start = messages[0]
    assert start["type"] == "http.response.start"
    body = b""
    for message in messages[1:]:
        if message["type"] == "http.response.pathsend":
            with open(message["path"], "rb") as file:
                body += file.read()
        else:
            body += message.get("body", b"")
    headers = [(k.decode(), v.decode()) for k, v in start["headers"]]
    return Answer(start["status"], headers, body)


def image(*layers: Digest | tuple[str, Digest], **more: Any) -> bytes:
    """An image manifest over blobs; the config is `{}`."""
    described = [(mediatypes.OCI_LAYER, one) if isinstance(one, str) else one for one in layers]
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": mediatypes.OCI_MANIFEST,
            "config": {
                "mediaType": mediatypes.OCI_CONFIG,
                "digest": Digest.of(EMPTY_CONFIG),
                "size": len(EMPTY_CONFIG),
            },
            "layers": [{"mediaType": k, "digest": d, "size": 1} for k, d in described],
            **more,
        }
    ).encode()


def index(*manifests: Digest, **more: Any) -> bytes:
    """An index over manifests."""
    entries = [
        {"mediaType": mediatypes.OCI_MANIFEST, "digest": digest, "size": 1} for digest in manifests
    ]
    document = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": entries}
    return json.dumps(document | more).encode()


def subject(digest: Digest) -> dict[str, Any]:
    """A `subject` property."""
    return {"mediaType": mediatypes.OCI_MANIFEST, "digest": digest, "size": 1}
