"""The pull-through cache, over an upstream that is a real registry of ours and one that misbehaves."""

from __future__ import annotations

import asyncio
import io
import json
import pathlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from argosy.content.memory import MemoryStore
from argosy.content.protocols import BlobReader, Source
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    ArgosyError,
    DeniedError,
    NameUnknownError,
    TooManyRequestsError,
    TransportError,
    UnauthorizedError,
)
from argosy.server import cache as module
from argosy.server.access import Anonymous
from argosy.server.app import App
from argosy.server.cache import Cache
from argosy.server.namespaces import Namespaces
from argosy.server.readonly import ReadOnly
from argosy.server.settings import Settings, Storage, Upstream
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
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
        self.tamper: Callable[[bytes], bytes] = lambda data: data

    def store(self, name: str) -> MemoryStore:
        return self.stores.setdefault(name, MemoryStore())

    def __call__(self, upstream: Upstream, name: str) -> Source:
        assert upstream.registry == "upstream.example"
        return _Watched(self, self.store(name))


class _Watched:
    def __init__(self, upstreams: Upstreams, store: MemoryStore) -> None:
        self._up, self._store = upstreams, store

    def _note(self, what: str) -> None:
        self._up.asked.append(what)
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
        return VerifyingReader(_Slow(self._up, self._up.tamper(data)), desc)

    def tags(self) -> Iterator[str]:
        self._note("tags")
        return self._store.tags()

    def referrers(
        self, subject: Descriptor, artifact_type: str | None = None
    ) -> Iterator[Descriptor]:
        self._note("referrers")
        return self._store.referrers(subject, artifact_type)


class _Slow(io.BytesIO):
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
        """Wait until fills under way are over."""

        async def wait() -> None:
            while self.cache._tasks:
                await asyncio.gather(*self.cache._tasks)
                await asyncio.sleep(
                    0
                )  # who waits for what is over lets nobody else run, from Python 3.12 on

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
    from argosy.spec.manifest import decode_manifest

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


# -- manifests -------------------------------------------------------------------------------------


def test_an_image_is_pulled_through_and_then_served_without_the_upstream(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    desc, parsed, raw = image(upstreams)
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v1")
    assert (answer.status, answer.body) == (200, raw)
    assert answer.header("docker-content-digest") == desc.digest
    for child in parsed.children():
        got = mirror.ask("GET", f"/v2/hub/app/blobs/{child.digest}")
        assert got.status == 200
        assert Digest.of(got.body) == child.digest
    mirror.settle()
    upstreams.fails = TransportError("offline")
    before = len(upstreams.asked)
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw
    for child in parsed.children():
        assert (
            Digest.of(mirror.ask("GET", f"/v2/hub/app/blobs/{child.digest}").body) == child.digest
        )
    assert len(upstreams.asked) == before


def test_a_tag_is_compared_again_after_a_while_and_follows_the_upstream(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    first, _, _ = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    second, _, _ = image(upstreams, seed=9)
    assert (
        mirror.ask("HEAD", "/v2/hub/app/manifests/v1").header("docker-content-digest")
        == first.digest
    )
    mirror.turned.now += 61
    assert (
        mirror.ask("HEAD", "/v2/hub/app/manifests/v1").header("docker-content-digest")
        == second.digest
    )
    asked = len(upstreams.asked)
    mirror.turned.now += 61
    mirror.ask("HEAD", "/v2/hub/app/manifests/v1")
    assert upstreams.asked[asked:] == ["resolve v1"], "an unchanged manifest was fetched again"


def test_a_digest_never_changes_and_is_never_asked_for_again(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    desc, _, _ = image(upstreams)
    for _ in range(3):
        mirror.turned.now += 1000
        assert mirror.ask("GET", f"/v2/hub/app/manifests/{desc.digest}").status == 200
    assert len(upstreams.asked) == 2


@pytest.mark.parametrize(
    "error", [TransportError("offline"), TooManyRequestsError("slow", retry_after=30)]
)
def test_what_is_here_is_served_when_the_upstream_fails(
    mirror: Mirror, upstreams: Upstreams, error: ArgosyError
) -> None:
    _, _, raw = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    mirror.turned.now += 61
    upstreams.fails = error
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TransportError("offline"), 502),
        (UnauthorizedError("who"), 403),
        (DeniedError("no"), 403),
        (TooManyRequestsError("slow", retry_after=30), 429),
    ],
)
def test_harbor_23750_the_upstreams_failures_keep_their_meaning(
    mirror: Mirror, upstreams: Upstreams, error: ArgosyError, status: int
) -> None:
    image(upstreams)
    upstreams.fails = error
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v1")
    assert answer.status == status
    assert answer.header("www-authenticate") is None
    assert answer.header("retry-after") == ("30" if status == 429 else None)


def test_an_upstream_that_asks_for_silence_gets_it(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    upstreams.fails = TooManyRequestsError("slow", retry_after=30)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    upstreams.fails = None
    mirror.turned.now += 10
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v1")
    assert (answer.status, answer.header("retry-after")) == (429, "20")
    assert len(upstreams.asked) == 1
    mirror.turned.now += 21
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200


def test_what_is_missing_upstream_is_remembered_for_a_moment(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    for _ in range(3):
        answer = mirror.ask("GET", "/v2/hub/app/manifests/none")
        assert (answer.status, answer.code) == (404, "MANIFEST_UNKNOWN")
    assert upstreams.asked == ["resolve none"]
    mirror.turned.now += 11
    image(upstreams, "none")
    assert mirror.ask("GET", "/v2/hub/app/manifests/none").status == 200


def test_a_tag_deleted_upstream_is_gone_here(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    upstreams.store("app").untag("v1")
    mirror.turned.now += 61
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 404


def test_many_who_ask_at_once_ask_the_upstream_once(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)

    async def all_at_once() -> list[int]:
        asks = [mirror.asking("GET", "/v2/hub/app/manifests/v1") for _ in range(20)]
        return [answer.status for answer in await asyncio.gather(*asks)]

    assert mirror.run(all_at_once()) == [200] * 20
    assert len(upstreams.asked) == 2


def test_other_repositories_are_our_own_and_mirrored_ones_take_no_push(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    mirror.push_image("mine", "v1")
    mirror.push_image("hubble/app", "v1")
    assert upstreams.asked == []
    assert mirror.ask("POST", "/v2/hub/app/blobs/uploads/", b"").status == 405
    assert mirror.ask("GET", "/v2/mine/manifests/none").status == 404
    assert upstreams.asked == []


# -- blobs -----------------------------------------------------------------------------------------


def test_a_blob_goes_to_the_client_while_it_comes_in(mirror: Mirror, upstreams: Upstreams) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.gate = threading.Event()

    async def pull() -> bytes:
        got = bytearray()
        scope = request(layer)
        seen = asyncio.Event()

        async def send(message: Any) -> None:
            got.extend(message.get("body", b""))
            if len(got) > 500_000:
                seen.set()

        task = asyncio.create_task(mirror.app(scope, never, send))
        await asyncio.wait_for(seen.wait(), 20)
        assert 0 < len(got) < len(data), "nothing was sent before all was here"
        assert upstreams.gate is not None
        upstreams.gate.set()
        await task
        return bytes(got)

    assert mirror.run(pull()) == data
    mirror.settle()
    assert layer.digest in mirror.stored()


def referred(mirror: Mirror, path: str) -> list[dict[str, Any]]:
    """The list of referrers at a path, page by page."""
    found: list[dict[str, Any]] = []
    while path:
        answer = mirror.ask("GET", path)
        assert answer.status == 200
        found += answer.json()["manifests"]
        path = (answer.header("link") or "").partition(">")[0].removeprefix("<")
    return found


def test_lists_are_the_upstreams(mirror: Mirror, upstreams: Upstreams) -> None:
    desc, _, _ = image(upstreams)
    store = upstreams.store("app")
    store.tag(desc, "v2")
    signatures = [random.artifact(store, n, subject=desc) for n in range(3, 6)]
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 200
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1", "v2"]
    assert mirror.ask("GET", "/v2/hub/app/tags/list?last=v1").json()["tags"] == ["v2"]
    listed = referred(mirror, f"/v2/hub/app/referrers/{desc.digest}?n=2")
    assert listed == [d.encode() for d in sorted(store.referrers(desc), key=lambda d: d.digest)]
    assert {entry["digest"] for entry in listed} == {s.digest for s in signatures}
    kind = listed[0]["artifactType"]
    assert referred(mirror, f"/v2/hub/app/referrers/{desc.digest}?artifactType=x/y") == []
    typed = f"/v2/hub/app/referrers/{desc.digest}?artifactType={kind}"
    assert all(entry["artifactType"] == kind for entry in referred(mirror, typed))
    assert [asked for asked in upstreams.asked if asked in {"tags", "referrers"}] == [
        "tags",
        "referrers",
    ]


def test_lists_are_asked_for_again_after_a_while(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1"]
    image(upstreams, "v2", 2)
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1"]
    mirror.turned.now += HUB.fresh_seconds
    upstreams.fails = TransportError("offline")
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1"]
    upstreams.fails = None
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["v1", "v2"]


def test_lists_name_what_is_here_when_the_upstream_fails(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    desc, _, _ = image(upstreams)
    signature = random.artifact(upstreams.store("app"), 3, "sig", subject=desc)
    for reference in ("v1", "sig"):
        assert mirror.ask("GET", f"/v2/hub/app/manifests/{reference}").status == 200
    image(upstreams, "v2", 2)
    upstreams.fails = TransportError("offline")
    assert mirror.ask("GET", "/v2/hub/app/tags/list").json()["tags"] == ["sig", "v1"]
    listed = referred(mirror, f"/v2/hub/app/referrers/{desc.digest}")
    assert [entry["digest"] for entry in listed] == [signature.digest]


def test_an_unknown_repository_has_no_lists(mirror: Mirror, upstreams: Upstreams) -> None:
    upstreams.fails = NameUnknownError("repository none is not known")
    assert mirror.ask("GET", "/v2/hub/none/tags/list").status == 404
    nothing = Digest.of(b"nothing")
    assert referred(mirror, f"/v2/hub/none/referrers/{nothing}") == []


def request(desc: Descriptor) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "raw_path": f"/v2/hub/app/blobs/{desc.digest}".encode(),
        "query_string": b"", "headers": [],
    }  # fmt: skip


async def never() -> Any:
    await asyncio.sleep(3600)


def test_many_who_want_a_blob_share_one_fill_and_all_get_it(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    asked = len(upstreams.asked)

    async def all_at_once() -> list[bytes]:
        asks = [mirror.asking("GET", f"/v2/hub/app/blobs/{layer.digest}") for _ in range(8)]
        return [answer.body for answer in await asyncio.gather(*asks)]

    assert mirror.run(all_at_once()) == [data] * 8
    mirror.settle()
    assert len(upstreams.asked) == asked + 1
    assert mirror.rows("SELECT count(*) FROM lease") == [(0,)]
    assert mirror.rows("SELECT count(*) FROM upload") == [(0,)]


def test_a_client_that_hangs_up_does_not_stop_the_fill(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, _ = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.gate = threading.Event()

    async def pull() -> None:
        async def send(message: Any) -> None:
            if message.get("body"):
                raise ConnectionResetError

        await mirror.app(request(layer), never, send)
        assert upstreams.gate is not None
        upstreams.gate.set()

    mirror.run(pull())
    mirror.settle()
    assert layer.digest in mirror.stored()


@pytest.mark.parametrize("place", ["data", "root"])
def test_a_blob_comes_in_where_blobs_lie_not_where_temporary_files_do(
    tmp_path: pathlib.Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder = tmp_path / "roomy"
    folder.mkdir()
    where: dict[str, Any] = {"data": str(folder)}
    if place == "root":
        where = {"data": str(tmp_path / "small"), "storage": Storage(root=str(folder))}
    layer, data = big(upstreams)
    made: list[str | None] = []
    true = tempfile.TemporaryFile

    def watched(*words: Any, dir: str | None = None, **more: Any) -> Any:  # noqa: A002
        made.append(dir)
        return true(*words, dir=dir, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    with Mirror(str(tmp_path), upstreams, settings=Settings(**where)) as mirror:
        mirror.ask("GET", "/v2/hub/app/manifests/big")
        assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").body == data
        mirror.settle()
    assert made == [str(folder)]


def test_an_upstream_that_hangs_keeps_nothing_else_waiting(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    blobs = []
    for seed in range(40):
        _, parsed, _ = image(upstreams, f"v{seed}", seed=seed)
        assert mirror.ask("GET", f"/v2/hub/app/manifests/v{seed}").status == 200
        blobs.append(parsed.config.digest)
    upstreams.gate = gate = threading.Event()

    async def pull() -> list[int]:
        asking = [mirror.asking("GET", f"/v2/hub/app/blobs/{digest}") for digest in blobs]
        pulls = [asyncio.ensure_future(one) for one in asking]
        await asyncio.wait(pulls, timeout=0.2)
        try:
            async with asyncio.timeout(5):
                await asyncio.to_thread(lambda: None)
        finally:
            gate.set()
        return [(await one).status for one in pulls]

    assert set(mirror.run(pull())) == {200}
    mirror.settle()


def test_many_small_ranges_bring_no_more_blobs_in_at_a_time_than_there_is_room_for(
    tmp_path: pathlib.Path, upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FILLS", 2)
    layers = []
    store = upstreams.store("app")
    for number in range(4):
        data = bytes([number]) * BIG
        layers.append(Descriptor.of("application/vnd.oci.image.layer.v1.tar", data))
        store.push(layers[-1], io.BytesIO(data))
    config = Descriptor.of("application/vnd.oci.image.config.v1+json", b"{}")
    media_type = "application/vnd.oci.image.manifest.v1+json"
    document = {"config": config.encode(), "layers": [layer.encode() for layer in layers]}
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_type, **document}).encode()
    store.push(Descriptor.of(media_type, raw), io.BytesIO(raw), tags=["many"])
    gate = threading.Event()

    async def pull(mirror: Mirror) -> list[Any]:
        pulls = [
            asyncio.ensure_future(
                mirror.asking(
                    "GET", f"/v2/hub/app/blobs/{one.digest}", None, {"range": "bytes=0-0"}
                )
            )
            for one in layers
        ]
        done, _ = await asyncio.wait(pulls, timeout=0.5)
        gate.set()
        return [len(done), *[(await one).status for one in pulls]]

    with Mirror(str(tmp_path), upstreams) as mirror:
        assert mirror.ask("GET", "/v2/hub/app/manifests/many").status == 200
        upstreams.gate = gate
        assert mirror.run(pull(mirror)) == [2, 206, 206, 206, 206]
        mirror.settle()
        assert len(mirror.stored()) == 4


def test_ranges_bring_the_whole_blob_in_once(mirror: Mirror, upstreams: Upstreams) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")

    def ask(text: str) -> Any:
        return mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}", headers={"range": text})

    assert ask("bytes=9999999-").status == 416
    assert not [asked for asked in upstreams.asked if asked.startswith("fetch application/octet")]
    for settled in (False, True):
        before = len(upstreams.asked)
        for text, part in (
            ("bytes=5-9", data[5:10]),
            ("bytes=2000000-", data[2000000:]),
            ("bytes=-7", data[-7:]),
        ):
            answer = ask(text)
            assert (answer.status, answer.body) == (206, part)
            assert (answer.header("content-range") or "").endswith(f"/{BIG}")
        mirror.settle()
        assert mirror.stored() == [layer.digest]
        assert len(upstreams.asked) - before <= (0 if settled else 1)


def test_a_range_is_answered_before_the_blob_is_there(mirror: Mirror, upstreams: Upstreams) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.gate = threading.Event()
    target = f"/v2/hub/app/blobs/{layer.digest}"
    assert mirror.ask("GET", target, headers={"range": "bytes=5-9"}).body == data[5:10]
    assert mirror.stored() == []
    upstreams.gate.set()
    mirror.settle()
    assert mirror.stored() == [layer.digest]


def test_a_range_to_the_end_of_what_is_wrong_is_not_given_out(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, _ = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.tamper = lambda data: data[:-1] + b"!"
    answer = mirror.ask(
        "GET", f"/v2/hub/app/blobs/{layer.digest}", headers={"range": "bytes=2000000-"}
    )
    assert len(answer.body) < BIG - 2000000
    mirror.settle()
    assert mirror.stored() == []


def test_a_head_says_what_is_there_and_stores_nothing(mirror: Mirror, upstreams: Upstreams) -> None:
    layer, _ = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    answer = mirror.ask("HEAD", f"/v2/hub/app/blobs/{layer.digest}")
    assert (answer.status, answer.header("content-length")) == (200, str(BIG))
    assert mirror.stored() == []


def test_a_fill_that_fails_leaves_nothing_and_the_next_one_works(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.fails = TransportError("offline")
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").status == 502
    upstreams.fails = None
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").body == data


def test_two_replicas_fetch_a_blob_once(tmp_path: pathlib.Path, upstreams: Upstreams) -> None:
    from argosy.server.metadata.sqlite import Sqlite

    layer, data = big(upstreams)
    with asyncio.Runner() as runner:
        clock = Clock()
        metadata = Sqlite(str(tmp_path / "shared.db"))
        one = Mirror(str(tmp_path), upstreams, metadata=metadata, runner=runner, clock=clock)
        two = Mirror(str(tmp_path), upstreams, metadata=metadata, runner=runner, clock=clock)
        one.ask("GET", "/v2/hub/app/manifests/big")
        asked = len(upstreams.asked)

        async def both() -> list[bytes]:
            asks = [m.asking("GET", f"/v2/hub/app/blobs/{layer.digest}") for m in (one, two)]
            return [answer.body for answer in await asyncio.gather(*asks)]

        assert runner.run(both()) == [data, data]
        one.settle()
        assert len(upstreams.asked) == asked + 1
        one.close()
        two.close()


# -- poison ----------------------------------------------------------------------------------------


def test_a_poisoned_blob_is_never_committed_and_nobody_gets_all_of_it(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.tamper = lambda good: good[:-1] + b"!"
    got = bytearray()

    async def send(message: Any) -> None:
        got.extend(message.get("body", b""))

    mirror.run(mirror.app(request(layer), never, send))
    mirror.settle()
    assert len(got) < len(data)
    assert mirror.stored() == []
    assert mirror.rows("SELECT count(*) FROM blob") == [(0,)]
    upstreams.tamper = lambda good: good
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").body == data


def test_a_poisoned_manifest_is_never_stored(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    upstreams.tamper = lambda good: good + b" "
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 502
    assert mirror.rows("SELECT count(*) FROM manifest") == [(0,)]


def test_a_manifest_does_not_buy_a_blob_of_another_repository(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    """An upstream's author who names a private digest of ours in a manifest gets nothing by it."""
    layer, data = big(upstreams)
    mirror.push_blob("private", data)
    upstreams.store("app").delete(layer)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").status == 404
    assert mirror.ask("HEAD", f"/v2/hub/app/blobs/{layer.digest}").status == 404
    assert mirror.ask("GET", f"/v2/private/blobs/{layer.digest}").status == 200


def test_a_blob_no_manifest_names_is_not_asked_for(mirror: Mirror, upstreams: Upstreams) -> None:
    layer, _ = big(upstreams)
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").status == 404
    assert upstreams.asked == []


# -- ns --------------------------------------------------------------------------------------------


def test_a_client_that_says_whose_proxy_it_wants_uses_the_names_there(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    mirror.app = Namespaces(mirror.app, [HUB])  # type: ignore[assignment]
    _, parsed, raw = image(upstreams)
    answer = mirror.ask("GET", "/v2/app/manifests/v1?ns=upstream.example")
    assert (answer.body, answer.header("oci-namespace")) == (raw, "upstream.example")
    blob = mirror.ask("GET", f"/v2/app/blobs/{parsed.config.digest}?ns=upstream.example")
    assert Digest.of(blob.body) == parsed.config.digest
    for target in (
        "/v2/app/manifests/v1",
        "/v2/app/manifests/v1?ns=other.example",
        "/v2/app/manifests/v1?ns=upstream.example&ns=other.example",
        "/v2/app/manifests/none?ns=upstream.example",
    ):
        missing = mirror.ask("GET", target)
        assert (missing.status, missing.header("oci-namespace")) == (404, None), target
    assert mirror.ask("GET", "/v2/?ns=upstream.example").status == 200
    assert mirror.ask("POST", "/v2/app/blobs/uploads/?ns=upstream.example", b"").status == 202
