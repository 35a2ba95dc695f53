"""What is an object store's own: parts, budgets, presigned URLs, broken connections."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
import urllib.error
import urllib.request

import obstore
import pytest
from obstore.exceptions import GenericError

from argosy.errors import BlobUnknownError, StorageError
from argosy.server.assemble import open_storage
from argosy.server.settings import S3, Listen, Settings, Storage
from argosy.server.storage import InsufficientStorageError, UnavailableError
from argosy.server.storage import objects as engine
from argosy.server.storage.objects import PART, Objects, _Spool, _Writer, s3
from argosy.spec.digest import Digest
from tests.server.client import Server
from tests.server.services import S3Server, free_port

KEY = "b/20260101/x-1"
BIG = bytes(range(256)) * (3 * PART // 256) + b"tail"


@pytest.fixture
def store(objects: S3Server) -> Objects:
    return Objects(objects.store(objects.bucket()))


def put(
    store: Objects, key: str, data: bytes, *, size: int | None = None, step: int = 700_001
) -> None:
    writer = store.create(key, size=size)
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
    writer.commit()


@pytest.mark.parametrize("length", [0, 1, PART - 1, PART, PART + 1, 2 * PART, len(BIG)])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_any_length_is_kept_however_it_is_sent(
    objects: S3Server, length: int, known: bool, memory: int
) -> None:
    store = Objects(objects.store(objects.bucket()), memory_bytes=memory)
    data = BIG[:length]
    put(store, KEY, data, size=length if known else None)
    assert b"".join(store.read(KEY)) == data
    assert b"".join(store.read(KEY, length // 3, length // 2)) == data[length // 3 : length // 2]


def test_memory_is_taken_from_the_budget_and_given_back(objects: S3Server) -> None:
    store = Objects(objects.store(objects.bucket()), memory_bytes=3 * PART)
    first = store.create("b/20260101/a-1")
    assert store._budget._left == 0
    second = store.create("b/20260101/a-2", size=10)
    for writer in (first, second):
        writer.write(b"0123456789")
    first.commit()
    second.commit()
    assert store._budget._left == 3 * PART
    third = store.create("b/20260101/a-3", size=10)
    assert store._budget._left == 3 * PART - 10
    third.abort()
    third.abort()
    assert store._budget._left == 3 * PART
    assert sorted(store.keys("b/")) == ["b/20260101/a-1", "b/20260101/a-2"]


def test_many_bodies_at_once_never_wait_for_each_other(objects: S3Server) -> None:
    store = Objects(objects.store(objects.bucket()), memory_bytes=3 * PART)
    writers = [store.create(f"b/20260101/m-{n}") for n in range(6)]
    for at in range(0, len(BIG), PART):
        for writer in writers:
            writer.write(BIG[at : at + PART])
    for writer in writers:
        writer.commit()
    assert all(b"".join(store.read(f"b/20260101/m-{n}")) == BIG for n in range(6))


def test_what_memory_has_no_room_for_goes_where_it_is_said(
    objects: S3Server, tmp_path: pathlib.Path
) -> None:
    bucket = objects.bucket()
    spool = tmp_path / "spool"
    spool.mkdir()
    held = Storage(
        type="s3",
        s3=S3(
            bucket=bucket,
            endpoint=objects.endpoint,
            access_key=objects.access_key,
            secret_key=objects.secret_key,
            memory_bytes=0,
        ),
        temporary=str(spool),
        reserve_bytes=0,
    )
    writer = open_storage(Settings(storage=held)).create(KEY)
    writer.write(b"hello")
    assert open_files(spool), "it lies somewhere else"
    assert list(spool.iterdir()) == [], "a process that is killed would leave it behind"
    writer.commit()
    assert not open_files(spool)
    full = dataclasses.replace(held, reserve_bytes=1 << 62)
    with pytest.raises(InsufficientStorageError, match="spool is full"):
        open_storage(Settings(storage=full)).create(KEY)


def open_files(folder: pathlib.Path) -> list[str]:
    """What this process has open below a directory."""
    found = []
    for link in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return [path for path in found if path.startswith(f"{folder}/")]


def test_a_full_disk_for_temporary_files_is_said_as_that(objects: S3Server) -> None:
    store = objects.store(objects.bucket())
    with open("/dev/full", "wb", buffering=0) as full:
        writer = _Writer(_Spool(store, KEY, PART, full), lambda: None)
        with pytest.raises(InsufficientStorageError):
            writer.write(b"x")
        writer.abort()


def test_an_upload_that_is_broken_off_leaves_no_parts(objects: S3Server) -> None:
    bucket = objects.bucket()
    store = Objects(objects.store(bucket))
    writer = store.create(KEY)
    writer.write(BIG)
    writer.abort()
    assert list(store.keys("b/")) == []
    parts = objects._directory / bucket / ".sgwtmp" / "multipart"
    assert [p for p in parts.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("there", [b"", b"half"])
def test_a_store_that_lies_about_the_end_of_an_upload_is_found_out(
    objects: S3Server, monkeypatch: pytest.MonkeyPatch, memory: int, there: bytes
) -> None:
    """VersityGW 1.8 says so of an upload over whose end it was killed."""
    bucket = objects.store(objects.bucket())
    store = Objects(bucket, memory_bytes=memory)
    if there:
        obstore.put(bucket, KEY, there)
    with monkeypatch.context() as lying:
        lying.setattr(obstore, "put", lambda _store, _key, content, **_more: list(content))
        writer = store.create(KEY)
        writer.write(BIG)
        with pytest.raises(UnavailableError, match=KEY):
            writer.commit()
    put(store, KEY, BIG)
    assert b"".join(store.read(KEY)) == BIG


@pytest.mark.parametrize(("patience", "tries"), [(30.0, 4), (-1.0, 1)])
def test_a_read_that_fails_is_tried_again_but_not_for_long(
    store: Objects, monkeypatch: pytest.MonkeyPatch, patience: float, tries: int
) -> None:
    """A silent store takes a minute for each try."""
    asked: list[int] = []

    def get(*_: object, **__: object) -> None:
        asked.append(1)
        raise GenericError("operation timed out")

    monkeypatch.setattr(obstore, "get", get)
    monkeypatch.setattr(engine, "_PATIENCE", patience)
    with pytest.raises(UnavailableError, match="timed out"):
        next(store.read(KEY))
    assert len(asked) == tries


def test_a_finished_object_takes_no_more(store: Objects) -> None:
    writer = store.create(KEY)
    writer.commit()
    with pytest.raises(StorageError):
        writer.write(b"x")
    with pytest.raises(StorageError):
        writer.commit()


def out_of_reach(port: int) -> Objects:
    endpoint = f"http://127.0.0.1:{port}"
    key = {"access_key": "a", "secret_key": "hush"}
    return Objects(s3("bucket", endpoint=endpoint, timeout_seconds=0.2, **key))  # type: ignore[arg-type]


def test_clients_of_a_registry_whose_store_is_gone_learn_no_more_than_that(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    digest = server.push_blob("a", b"hello")
    port = free_port()
    server.registry.storage = out_of_reach(port)
    for answer in (
        server.ask("GET", f"/v2/a/blobs/{digest}"),
        server.ask("POST", f"/v2/a/blobs/uploads/?digest={Digest.of(b'x')}", b"x"),
    ):
        assert (answer.status, answer.header("retry-after")) == (503, "5")
        for inner in ("bucket", str(port), "object store", "b/"):
            assert inner not in answer.body.decode()
    assert str(port) in caplog.text


def test_a_store_that_is_gone_is_said_and_nothing_hangs() -> None:
    gone = out_of_reach(free_port())
    writer = gone.create(KEY)
    writer.write(BIG[: PART - 1])
    with pytest.raises(StorageError, match="object store: cannot write") as caught:
        writer.commit()
    writer.abort()
    large = gone.create("b/20260101/large-1")
    large.write(BIG[: PART + 1])
    with pytest.raises(StorageError, match="object store: cannot write"):
        large.commit()
    assert "hush" not in str(caught.value)
    with pytest.raises(StorageError, match="cannot read"):
        list(gone.read(KEY))
    with pytest.raises(StorageError, match="cannot delete"):
        gone.delete([KEY])
    with pytest.raises(StorageError, match="cannot list"):
        list(gone.keys("b/"))


def test_a_bucket_that_is_not_there_or_refuses_proves_no_damage(
    objects: S3Server, tmp_path: pathlib.Path
) -> None:
    bucket = objects.bucket()
    wrong = s3(bucket, endpoint=objects.endpoint, access_key=objects.access_key, secret_key="wrong")
    with Server(str(tmp_path), storage=Objects(objects.store(bucket))) as server:
        server.push_blob("a", b"layer")
        server.clock.now += 1  # type: ignore[attr-defined]
        for store in (objects.store("no-such-bucket"), wrong):
            server.registry.storage = Objects(store)
            with pytest.raises(StorageError):
                server.run(server.upkeep.scrub(older_than=0))
        server.registry.storage = Objects(objects.store(bucket))
        assert server.run(server.upkeep.scrub(older_than=0)).damaged == []
        keys = list(server.registry.storage.keys("b/"))
        server.registry.storage.delete(keys)
        server.clock.now += 1  # type: ignore[attr-defined]
        assert len(server.run(server.upkeep.scrub(older_than=0)).damaged) == 1


def test_a_wrong_key_is_refused_by_the_store(objects: S3Server) -> None:
    wrong = s3(
        objects.bucket(),
        endpoint=objects.endpoint,
        access_key=objects.access_key,
        secret_key="wrong",
    )
    writer = Objects(wrong).create(KEY)
    writer.write(b"x")
    with pytest.raises(StorageError):
        writer.commit()


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
    store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, KEY, BIG)
    real, breaks = store._stream, [2, 0, 3]

    def breaking(key: str, start: int, stop: int | None):  # type: ignore[no-untyped-def]
        left = breaks.pop(0) if breaks else None
        for number, piece in enumerate(real(key, start, stop)):
            if number == left:
                raise GenericError("reset")
            yield piece

    monkeypatch.setattr(store, "_stream", breaking)
    assert b"".join(store.read(KEY)) == BIG
    assert breaks == []


def test_deleting_in_bulk_and_listing_across_pages(
    store: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BULK", 3)
    keys = [f"b/20260101/k{n:02}-1" for n in range(10)]
    for key in keys:
        put(store, key, b"x")
    put(store, "b/20260102/other-1", b"x")
    assert list(store.keys("b/20260101/")) == keys
    assert list(store.keys("b/20260101/k0")) == keys[:10]
    store.delete([*keys[:7], "b/20260101/none-1"])
    assert list(store.keys("b/")) == [*keys[7:], "b/20260102/other-1"]


def test_a_redirect_is_signed_short_lived_and_only_where_it_was_asked_for(
    objects: S3Server,
) -> None:
    bucket = objects.bucket()
    assert Objects(objects.store(bucket)).locate(KEY).url is None
    store = Objects(objects.store(bucket), redirect_seconds=60)
    put(store, KEY, b"hello")
    url = store.locate(KEY).url
    assert url is not None
    assert "X-Amz-Expires=60" in url
    assert objects.secret_key not in url
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"hello"
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url.replace("x-1", "x-2"))


def test_a_blob_of_one_object_is_redirected_and_one_of_several_is_not(
    tmp_path: pathlib.Path, objects: S3Server
) -> None:
    store = Objects(objects.store(objects.bucket()), redirect_seconds=60)
    with Server(str(tmp_path), storage=store) as server:
        whole = server.push_blob("a", b"hello")
        answer = server.ask("GET", f"/v2/a/blobs/{whole}")
        assert answer.status == 307
        with urllib.request.urlopen(answer.location) as response:
            assert response.read() == b"hello"
        assert server.ask("HEAD", f"/v2/a/blobs/{whole}").status == 200
        location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
        for piece in (b"one", b"two"):
            location = server.ask("PATCH", location, piece).location
        parts = Digest.of(b"onetwo")
        assert server.ask("PUT", f"{location}?digest={parts}", b"").status == 201
        served = server.ask("GET", f"/v2/a/blobs/{parts}")
        assert (served.status, served.body) == (200, b"onetwo")
        ranged = server.ask("GET", f"/v2/a/blobs/{parts}", headers={"range": "bytes=2-3"})
        assert (ranged.status, ranged.body) == (206, b"et")


def test_reading_from_many_threads(store: Objects) -> None:
    put(store, KEY, BIG)
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(b"".join(store.read(KEY)))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [BIG] * 6
    with pytest.raises(BlobUnknownError):
        list(store.read("b/20260101/none-1"))


def test_settings_show_no_secret() -> None:
    settings = Settings(
        listen=Listen(), storage=Storage(type="s3", s3=S3(bucket="abc", secret_key="hush"))
    )
    assert "hush" not in repr(settings)
