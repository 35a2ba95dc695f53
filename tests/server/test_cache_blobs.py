"""Blobs that come through the pull-through cache: to many at a time, in ranges, and never too many at once."""

from __future__ import annotations

import asyncio
import io
import json
import pathlib
import tempfile
import threading
from typing import Any

import pytest

from argosy.errors import TransportError
from argosy.server import cache as module
from argosy.server.settings import Settings, Storage
from argosy.spec.descriptor import Descriptor
from tests.server.client import Clock
from tests.server.mirrors import BIG, Mirror, Upstreams, big, image, never, request


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


def test_a_range_of_something_else_is_none_of_a_blob_that_comes_in(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    fields = {"range": "bytes=5-9", "if-range": '"other"'}
    answer = mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}", headers=fields)
    assert (answer.status, answer.body) == (200, data)


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
