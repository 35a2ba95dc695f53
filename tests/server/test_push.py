"""Pushing blobs: distribution-spec, "Pushing blobs"."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from argosy.errors import DeniedError
from argosy.server.access import Access, Anonymous, Principal, Verb
from argosy.server.handlers import bodies
from argosy.server.metadata import uploads
from argosy.server.settings import Collection, Content, Limits, Settings
from argosy.server.storage.filesystem import FileSystem
from argosy.spec.digest import Digest
from tests.server.client import Answer, Clock, Server

DATA = b"0123456789" * 400
DIGEST = Digest.of(DATA)


def begin(server: Server, query: str = "", name: str = "a") -> str:
    answer = server.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
    assert answer.status == 202
    return answer.location


def pullable(server: Server, name: str = "a", digest: Digest = DIGEST, data: bytes = DATA) -> bool:
    answer = server.ask("GET", f"/v2/{name}/blobs/{digest}")
    return (answer.status, answer.body) == (200, data)


def objects(server: Server) -> int:
    return len(list(server.registry.storage.keys("b/")))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512", "blake3"])
@pytest.mark.parametrize("body", [DATA, [DATA[:1000], DATA[1000:]], b"", [b""]])
def test_post_then_put(server: Server, algorithm: str, body: Any) -> None:
    data = body if isinstance(body, bytes) else b"".join(body)
    digest = Digest.of(data, algorithm)
    answer = server.ask("PUT", f"{begin(server)}?digest={digest}", body)
    assert (answer.status, answer.location) == (201, f"/v2/a/blobs/{digest}")
    assert answer.header("docker-content-digest") == digest
    assert pullable(server, digest=digest, data=data)


@pytest.mark.parametrize("body", [DATA, [DATA]])
def test_single_post(server: Server, body: Any) -> None:
    answer = server.ask("POST", f"/v2/a/blobs/uploads/?digest={DIGEST}", body)
    assert (answer.status, answer.location) == (201, f"/v2/a/blobs/{DIGEST}")
    assert pullable(server)


@pytest.mark.parametrize("announce", [True, False])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("last", ["patch", "put"])
def test_chunks(server: Server, algorithm: str, last: str, announce: bool) -> None:
    digest = Digest.of(DATA, algorithm)
    location = begin(server, f"?digest-algorithm={algorithm}" if announce else "")
    parts = [(0, DATA[:1500]), (1500, DATA[1500:3000]), (3000, DATA[3000:])]
    for start, part in parts if last == "patch" else parts[:-1]:
        headers = {"content-range": f"{start}-{start + len(part) - 1}"}
        answer = server.ask("PATCH", location, part, headers)
        assert answer.status == 202
        assert answer.header("range") == f"0-{start + len(part) - 1}"
        location = answer.location
    body, headers = (b"", {})
    if last == "put":
        body, headers = parts[-1][1], {"content-range": f"3000-{len(DATA) - 1}"}
    assert server.ask("PUT", f"{location}?digest={digest}", body, headers).status == 201
    assert pullable(server, digest=digest)


def test_a_stream_without_length_or_range(server: Server) -> None:
    answer = server.ask("PATCH", begin(server), [DATA[:7], DATA[7:3000], DATA[3000:]])
    assert (answer.status, answer.header("range")) == (202, f"0-{len(DATA) - 1}")
    assert server.ask("PUT", f"{answer.location}?digest={DIGEST}", b"").status == 201
    assert pullable(server)


def test_a_session_is_continued_by_another_replica_and_after_a_restart(
    server: Server, tmp_path: Any
) -> None:
    location = server.ask("PATCH", begin(server), DATA[:1000]).location
    with Server(str(tmp_path), clock=server.clock, runner=server.runner) as second:
        assert second.ask("GET", location).header("range") == "0-999"
        location = second.ask("PATCH", location, DATA[1000:2000]).location
    assert server.ask("PUT", f"{location}?digest={DIGEST}", DATA[2000:]).status == 201
    assert pullable(server)


def test_out_of_order_is_416_before_the_body_is_read_and_the_session_goes_on(
    server: Server,
) -> None:
    location = begin(server)
    bad = {"content-range": "1000-1999"}
    assert server.ask("PATCH", location, DATA[1000:2000], bad).status == 416
    status = server.ask("GET", location)
    assert (status.status, status.header("range"), status.location) == (204, "0-0", location)
    assert server.ask("PATCH", location, DATA[:1000]).status == 202
    skipped = {"content-range": "2000-3999"}
    assert server.ask("PUT", f"{location}?digest={DIGEST}", DATA[2000:], skipped).status == 416
    good = {"content-range": "1000-3999"}
    assert server.ask("PUT", f"{location}?digest={DIGEST}", DATA[1000:], good).status == 201
    assert pullable(server)


def test_a_content_range_that_lies_about_its_length_is_refused(server: Server) -> None:
    answer = server.ask("PATCH", begin(server), b"abc", {"content-range": "0-9"})
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")
    answer = server.ask("PATCH", begin(server), b"abc", {"content-range": "bytes 0-2/3"})
    assert (answer.status, answer.code) == (400, "BLOB_UPLOAD_INVALID")


@pytest.mark.parametrize("body", [[b"hello"], [b"x" * 600_000, b"y" * 600_000]])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_stream_that_is_not_as_long_as_its_range_says_is_refused_and_the_session_goes_on(
    server: Server, body: list[bytes], method: str
) -> None:
    location = server.ask("PATCH", begin(server), b"so far").location
    whole = b"so far" + b"".join(body)
    target = f"{location}?digest={Digest.of(whole)}" if method == "PUT" else location
    answer = server.ask(method, target, body, {"content-range": "6-105"})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert server.ask("GET", location).header("range") == "0-5"
    good = {"content-range": f"6-{len(whole) - 1}"}
    location = server.ask("PATCH", location, body, good).location
    assert server.ask("PUT", f"{location}?digest={Digest.of(whole)}", b"").status == 201


@pytest.mark.parametrize("form", ["post", "put", "patch", "patch and put", "stream"])
def test_a_wrong_digest_keeps_nothing(server: Server, form: str) -> None:
    wrong = Digest.of(b"other")
    if form == "post":
        answer = server.ask("POST", f"/v2/a/blobs/uploads/?digest={wrong}", DATA)
    else:
        location, rest = begin(server), DATA
        if form.startswith("patch"):
            location, rest = server.ask("PATCH", location, DATA[:10]).location, b""
        if form == "patch and put":
            rest = DATA[10:]
        if form == "stream":
            location, rest = server.ask("PATCH", location, [DATA]).location, b""
        answer = server.ask("PUT", f"{location}?digest={wrong}", rest)
        assert server.ask("GET", location).status == 404
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    server.clock.now += 4000  # type: ignore[attr-defined]
    server.run(server.upkeep.collect())
    assert objects(server) == 0
    assert server.rows("SELECT count(*) FROM blob") == [(0,)]


@pytest.mark.parametrize("digest", ["", "sha256:bad", "md5:0123", "sha256", "sha1:" + "0" * 40])
def test_a_digest_that_cannot_be_checked_is_400(server: Server, digest: str) -> None:
    assert server.ask("PUT", f"{begin(server)}?digest={digest}", DATA).status == 400
    assert server.ask("POST", f"/v2/a/blobs/uploads/?digest={digest}", DATA).status == 400
    assert server.ask("POST", f"/v2/a/blobs/uploads/?mount={digest}", b"").status == 400
    assert server.ask("PUT", begin(server), DATA).status == 400


def test_an_unknown_digest_algorithm_is_400(server: Server) -> None:
    answer = server.ask("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", b"")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")


def test_cancel_frees_the_session_and_its_bytes(server: Server) -> None:
    location = server.ask("PATCH", begin(server), DATA).location
    assert server.ask("DELETE", location).status == 204
    for method in ("GET", "DELETE", "PATCH"):
        assert server.ask(method, location, b"x").status == 404
    server.run(server.upkeep.collect())
    assert objects(server) == 0


def test_a_session_nobody_continues_expires(server: Server) -> None:
    location = server.ask("PATCH", begin(server), DATA).location
    server.clock.now += 86_401  # type: ignore[attr-defined]
    server.run(server.upkeep.collect())
    assert server.ask("GET", location).status == 404
    assert objects(server) == 0


def test_a_known_digest_is_hashed_and_not_stored_again(server: Server) -> None:
    server.push_blob("a", DATA)
    assert server.ask("PUT", f"{begin(server, name='b')}?digest={DIGEST}", DATA).status == 201
    assert pullable(server, "b")
    assert objects(server) == 1


def test_a_registry_of_many_tenants_writes_what_it_knows(tmp_path: Any) -> None:
    with Server(str(tmp_path), settings=Settings(content=Content(reuse_known=False))) as server:
        server.push_blob("a", DATA)
        server.push_blob("b", DATA)
        assert server.ask("POST", f"/v2/c/blobs/uploads/?digest={DIGEST}", DATA).status == 201
        assert objects(server) == 3
        server.run(server.upkeep.collect())
        assert objects(server) == 1
        assert all(pullable(server, name) for name in "abc")


def test_knowing_a_digest_is_not_having_its_bytes(server: Server) -> None:
    server.push_blob("a", DATA)
    location = begin(server, name="b")
    answer = server.ask("PUT", f"{location}?digest={DIGEST}", DATA[:-1] + b"!")
    assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert server.ask("HEAD", f"/v2/b/blobs/{DIGEST}").status == 404


def test_ten_pushes_of_the_same_digest_at_once_keep_one_copy(server: Server) -> None:
    async def push(number: int) -> Answer:
        begun = await server.asking("POST", f"/v2/r{number}/blobs/uploads/", b"")
        return await server.asking("PUT", f"{begun.location}?digest={DIGEST}", DATA)

    async def all_at_once() -> list[Answer]:
        return await asyncio.gather(*(push(number) for number in range(10)))

    assert [answer.status for answer in server.run(all_at_once())] == [201] * 10
    assert all(pullable(server, f"r{number}") for number in range(10))
    server.run(server.upkeep.collect())
    assert objects(server) == 1


def test_two_bodies_of_one_session_at_once_are_one_too_many(server: Server) -> None:
    location = begin(server)

    async def both() -> list[Answer]:
        return await asyncio.gather(
            *(server.asking("PATCH", location, [DATA[:50], DATA[50:100]]) for _ in range(2))
        )

    answers = server.run(both())
    assert sorted(answer.status for answer in answers) == [202, 429]
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.header("retry-after") is not None
    assert server.ask("GET", location).header("range") == "0-99"


async def renewed(server: Server) -> None:
    """Let almost a whole lease pass, and wait until it is said again."""
    server.clock.now += 25  # type: ignore[attr-defined]
    until = server.clock() + bodies.LEASE
    async with asyncio.timeout(10):
        while await held(server) < until:
            await asyncio.sleep(0.001)


async def held(server: Server) -> float:
    row = await server.registry.metadata.read(lambda tx: tx.row("SELECT lease_until FROM upload"))
    assert row is not None
    return float(row[0])


def test_a_slow_body_keeps_its_session_however_little_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "RENEW", 0.001)
    location = begin(server)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"x"
            await renewed(server)
            assert (await server.asking("PATCH", location, b"y")).status == 429

    assert server.run(server.streaming("PATCH", location, slow())).header("range") == "0-3"
    assert server.rows("SELECT lease_until FROM upload") == [(0.0,)]


def test_an_upload_is_given_up_so_long_after_its_last_body_however_long_that_took(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "RENEW", 0.001)
    clock = Clock()
    rules = Settings(gc=Collection(upload_seconds=40))
    with Server(str(tmp_path), settings=rules, clock=clock) as server:
        location = begin(server)

        async def slow() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"x"
                await renewed(server)

        assert server.run(server.streaming("PATCH", location, slow())).status == 202
        clock.now += 39
        assert server.run(server.upkeep.collect()).uploads_expired == 0
        assert server.ask("GET", location).header("range") == "0-3"
        clock.now += 2
        assert server.run(server.upkeep.collect()).uploads_expired == 1


class Slow(FileSystem):
    """Reads nothing until it is let."""

    def __init__(self, root: str) -> None:
        super().__init__(root, reserve=0)
        self.reading, self.may_read = threading.Event(), threading.Event()

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        self.reading.set()
        assert self.may_read.wait(30)
        return super().read(key, start, stop)


@pytest.mark.parametrize("why", ["the state of the hash is gone", "another algorithm"])
def test_reading_a_session_again_keeps_its_lease(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(bodies, "RENEW", 0.001)
    storage = Slow(f"{tmp_path}/blobs")
    with Server(str(tmp_path), storage=storage) as server:
        location = server.ask("PATCH", begin(server), DATA).location
        method, target = "PATCH", location
        if why == "another algorithm":
            method, target = "PUT", f"{location}?digest={Digest.of(DATA * 2, 'sha512')}"
        else:
            server.registry.hashers.clear()

        async def both() -> Answer:
            asking = asyncio.ensure_future(server.asking(method, target, DATA))
            try:
                assert await asyncio.to_thread(storage.reading.wait, 30)
                await renewed(server)
                await renewed(server)
            finally:
                storage.may_read.set()
            return await asking

        assert server.run(both()).status in {201, 202}


def test_two_small_bodies_that_end_one_session_at_once_are_one_too_many(server: Server) -> None:
    target = f"{begin(server)}?digest={Digest.of(DATA)}"

    async def both() -> list[Answer]:
        return await asyncio.gather(*(server.asking("PUT", target, DATA) for _ in range(2)))

    answers = server.run(both())
    assert 201 in {answer.status for answer in answers} <= {201, 404, 429}
    assert objects(server) == 1
    assert server.ask("GET", target.partition("?")[0]).status == 404


def test_a_body_shorter_than_its_length_is_not_taken(server: Server) -> None:
    location = begin(server)
    answer = server.ask("PATCH", location, DATA, {"content-length": "9999"})
    assert (answer.status, answer.code) == (400, "SIZE_INVALID")
    assert server.ask("GET", location).header("range") == "0-0"


def test_a_blob_over_the_limit_is_413(tmp_path: Any) -> None:
    settings = Settings(limits=Limits(blob_bytes=1000))
    with Server(str(tmp_path), settings=settings) as server:
        for body in (DATA, [DATA[:600], DATA[600:]]):
            location = begin(server)
            assert server.ask("PUT", f"{location}?digest={DIGEST}", body).status == 413
        location = server.ask("PATCH", begin(server), DATA[:900]).location
        assert server.ask("PATCH", location, DATA[:900]).status == 413


@pytest.mark.parametrize("form", ["length", "chunked"])
def test_the_limit_of_a_blob_is_not_passed_one_byte_at_a_time(tmp_path: Any, form: str) -> None:
    byte: bytes | list[bytes] = b"x" if form == "length" else [b"x"]
    with Server(str(tmp_path), settings=Settings(limits=Limits(blob_bytes=1000))) as server:
        location = server.ask("PATCH", begin(server), b"x" * 1000).location
        for _ in range(3):
            assert server.ask("PATCH", location, byte).status == 413
        assert server.ask("GET", location).header("range") == "0-999"
        assert server.ask("PATCH", location, [b""]).status == 202
        digest = Digest.of(b"x" * 1000)
        assert server.ask("PUT", f"{location}?digest={digest}", [b""]).status == 201
        location = server.ask("PATCH", begin(server), b"x" * 1000).location
        digest = Digest.of(b"x" * 1001)
        assert server.ask("PUT", f"{location}?digest={digest}", byte).status == 413


def test_the_limit_of_a_blob_holds_when_its_upload_ends(tmp_path: Any) -> None:
    with Server(str(tmp_path)) as server:
        location = server.ask("PATCH", begin(server), DATA).location
    with Server(str(tmp_path), settings=Settings(limits=Limits(blob_bytes=10))) as server:
        assert server.ask("PUT", f"{location}?digest={DIGEST}", b"").status == 413
        assert server.ask("GET", location).status == 404


# -- mounts ---------------------------------------------------------------------------------------


class Private(Anonymous):
    """Nobody may read below `secret`."""

    def authorize(self, principal: Principal, verb: Verb, repository: str | None) -> None:
        if verb == "pull" and (repository or "").startswith("secret"):
            raise DeniedError("no")


def mount(server: Server, query: str, name: str = "b") -> Answer:
    return server.ask("POST", f"/v2/{name}/blobs/uploads/?mount={DIGEST}{query}", b"")


def test_a_blob_is_mounted_with_and_without_a_source(server: Server) -> None:
    server.push_blob("a", DATA)
    for name, query in (("b", "&from=a"), ("c", "")):
        answer = mount(server, query, name)
        assert (answer.status, answer.location) == (201, f"/v2/{name}/blobs/{DIGEST}")
        assert pullable(server, name)
    assert objects(server) == 1


def test_a_mount_that_cannot_be_done_becomes_an_upload(server: Server) -> None:
    server.push_blob("a", DATA)
    for query in ("&from=c", "&from=b"):
        answer = mount(server, query)
        assert answer.status == 202
        assert server.ask("PUT", f"{answer.location}?digest={DIGEST}", DATA).status == 201
        server.ask("DELETE", f"/v2/b/blobs/{DIGEST}")


def test_a_mount_needs_to_be_allowed_to_pull_from_the_source(tmp_path: Any) -> None:
    access: Access = Private()
    with Server(str(tmp_path), access=access) as server:
        server.push_blob("secret/x", DATA)
        for query in ("&from=secret/x", ""):
            assert mount(server, query).status == 202
        server.push_blob("open", DATA)
        assert mount(server, "").status == 201


def test_the_name_of_a_session_is_a_uuid_of_version_7() -> None:
    for now in (0.0, 1.8e9, 2.0**48):
        for _ in range(20):
            found = uuid.UUID(uploads.new_id(now))
            assert (found.version, found.variant) == (7, uuid.RFC_4122)
