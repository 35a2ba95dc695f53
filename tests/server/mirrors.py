"""A pull-through cache over an upstream in memory, for tests."""

from __future__ import annotations

import asyncio
import io
import json
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.content.memory import MemoryStore
from argosy.content.protocols import BlobReader, Source
from argosy.content.verify import VerifyingReader
from argosy.errors import ArgosyError
from argosy.server.access import Anonymous
from argosy.server.app import App
from argosy.server.cache import Cache
from argosy.server.readonly import ReadOnly
from argosy.server.settings import Upstream
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import decode_manifest
from argosy.testing import random
from tests.server.client import Clock, Server

HUB = Upstream(prefix="hub", registry="upstream.example", fresh_seconds=60, missing_seconds=10)
BIG = 3 * 1024 * 1024 + 17


class Upstreams:
    """Repositories of an upstream, in memory, which fail when they are told to, and count what they are asked."""

    def __init__(self) -> None:
        self.stores: dict[str, MemoryStore] = {}
        self.asked: list[str] = []
        self.fails: ArgosyError | None = None
        self.gate: threading.Event | None = None
        self.silence: threading.Event | None = None
        self.tamper: Callable[[bytes], bytes] = lambda data: data

    def store(self, name: str) -> MemoryStore:
        return self.stores.setdefault(name, MemoryStore())

    def __call__(self, upstream: Upstream, name: str) -> Source:
        assert upstream.registry == "upstream.example"
        return Watched(self, self.store(name))


class Watched:
    def __init__(self, upstreams: Upstreams, store: MemoryStore) -> None:
        self._up, self._store = upstreams, store

    def _note(self, what: str) -> None:
        self._up.asked.append(what)
        if self._up.silence is not None:
            assert self._up.silence.wait(20)
        if self._up.fails is not None:
            raise self._up.fails

    def resolve(self, tag_or_digest: str) -> Descriptor:
        self._note(f"resolve {tag_or_digest}")
        return self._store.resolve(tag_or_digest)

    def exists(self, desc: Descriptor) -> bool:
        self._note("exists")
        return self._store.exists(desc)

    def fetch(self, desc: Descriptor) -> BlobReader:
        self._note(f"fetch {desc.media_type}")
        with self._store.fetch(desc) as reader:
            data = b"".join(iter(lambda: reader.read(1 << 20), b""))
        return VerifyingReader(Slow(self._up, self._up.tamper(data)), desc)

    def tags(self) -> Iterator[str]:
        self._note("tags")
        return self._store.tags()

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        self._note("referrers")
        return self._store.referrers(subject, artifact_type)


class Slow(io.BytesIO):
    def __init__(self, upstreams: Upstreams, data: bytes) -> None:
        super().__init__(data)
        self._up = upstreams

    def read(self, size: int | None = -1, /) -> bytes:
        if self._up.gate is not None and self.tell() > 0:
            assert self._up.gate.wait(20)
        return super().read(size)


class Mirror(Server):
    """A registry with a cache of an upstream."""

    def __init__(self, root: str, upstreams: Upstreams, **more: Any) -> None:
        super().__init__(root, **more)
        self.cache = Cache([HUB], upstreams)
        self.cache.attach(self.registry)
        self.registry.mirror = self.cache
        self.registry.access = ReadOnly(Anonymous(), self.cache)
        self.app = App(self.registry)

    @property
    def turned(self) -> Clock:
        assert isinstance(self.clock, Clock)
        return self.clock

    def stored(self) -> list[str]:
        return [row[0] for row in self.rows("SELECT digest FROM repo_blob ORDER BY digest")]

    def settle(self) -> None:
        """Wait until fills and comparisons under way are over."""

        async def wait() -> None:
            while tasks := [*self.cache._tasks, *self.cache._under_way.values()]:
                await asyncio.gather(*tasks)
                # Who waits for what is over lets nobody else run, from Python 3.12 on.
                await asyncio.sleep(0)

        self.run(wait())


@pytest.fixture
def upstreams() -> Upstreams:
    return Upstreams()


@pytest.fixture
def mirror(tmp_path: pathlib.Path, upstreams: Upstreams) -> Iterator[Mirror]:
    with Mirror(str(tmp_path), upstreams) as made:
        yield made


def image(
    upstreams: Upstreams, tag: str = "v1", seed: int = 1, name: str = "app", size: int = 2000
) -> Any:
    """An image upstream: its manifest's descriptor and the parsed manifest."""
    store = upstreams.store(name)
    desc = random.image(store, seed, tag, size=size)
    with store.fetch(desc) as reader:
        raw = b"".join(iter(lambda: reader.read(1 << 20), b""))
    return desc, decode_manifest(raw, desc.media_type, limit=len(raw)), raw


def big(upstreams: Upstreams) -> tuple[Descriptor, bytes]:
    """An image upstream with a layer of several pieces."""
    store = upstreams.store("app")
    data = bytes(range(256)) * (BIG // 256) + b"x" * (BIG % 256)
    layer = Descriptor.of("application/vnd.oci.image.layer.v1.tar", data)
    config = Descriptor.of("application/vnd.oci.image.config.v1+json", b"{}")
    store.push(layer, io.BytesIO(data))
    store.push(config, io.BytesIO(b"{}"))
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.encode(),
            "layers": [layer.encode()],
        }
    ).encode()
    top = Descriptor.of("application/vnd.oci.image.manifest.v1+json", raw)
    store.push(top, io.BytesIO(raw), tags=["big"])
    return layer, data


def request(desc: Descriptor) -> dict[str, Any]:
    """The scope of a request for a blob."""
    return {
        "type": "http", "method": "GET", "raw_path": f"/v2/hub/app/blobs/{desc.digest}".encode(),
        "query_string": b"", "headers": [],
    }  # fmt: skip


async def never() -> Any:
    """What comes from a client that sends nothing more."""
    await asyncio.sleep(3600)
