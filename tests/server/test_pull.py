"""Pulling: distribution-spec, "Pull"."""

from __future__ import annotations

import json
from typing import Any

import pytest

from argosy.errors import RangeNotSatisfiableError
from argosy.server.gc import Upkeep
from argosy.server.handlers.blobs import parse_range
from argosy.server.registry import ManifestCache
from argosy.server.settings import Collection, Settings
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server.client import Server, image, index

CONTENT = bytes(range(256)) * 8


def test_the_version_check_answers(server: Server) -> None:
    answer = server.ask("GET", "/v2/")
    assert answer.status == 200
    assert answer.header("docker-distribution-api-version") == "registry/2.0"


def test_a_blob_is_pulled_with_its_digest_and_length(server: Server) -> None:
    digest = server.push_blob("a/b", CONTENT)
    for method, body in (("GET", CONTENT), ("HEAD", b"")):
        answer = server.ask(method, f"/v2/a/b/blobs/{digest}")
        assert (answer.status, answer.body) == (200, body)
        assert answer.header("docker-content-digest") == digest
        assert answer.header("content-length") == "2048"
        assert answer.header("content-type") == "application/octet-stream"
        assert answer.header("x-content-type-options") == "nosniff"


def test_an_empty_blob_is_pulled(server: Server) -> None:
    digest = server.push_blob("a", b"")
    answer = server.ask("GET", f"/v2/a/blobs/{digest}")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")


@pytest.mark.parametrize(
    ("value", "status", "body", "told"),
    [
        ("bytes=500-1499", 206, CONTENT[500:1500], "bytes 500-1499/2048"),
        ("bytes=500-", 206, CONTENT[500:], "bytes 500-2047/2048"),
        ("bytes=-500", 206, CONTENT[-500:], "bytes 1548-2047/2048"),
        ("bytes=2000-5000", 206, CONTENT[2000:], "bytes 2000-2047/2048"),
        ("bytes=-5000", 206, CONTENT, "bytes 0-2047/2048"),
        ("bytes=0-0", 206, CONTENT[:1], "bytes 0-0/2048"),
        ("bytes=5-99999999999999999999999", 206, CONTENT[5:], "bytes 5-2047/2048"),
        ("bytes=-99999999999999999999999", 206, CONTENT, "bytes 0-2047/2048"),
        ("bytes=0-1,5-6", 200, CONTENT, None),
        ("lines=1-2", 200, CONTENT, None),
    ],
)
def test_a_range_is_answered(
    server: Server, value: str, status: int, body: bytes, told: str | None
) -> None:
    digest = server.push_blob("a", CONTENT)
    answer = server.ask("GET", f"/v2/a/blobs/{digest}", headers={"range": value})
    assert (answer.status, answer.body, answer.header("content-range")) == (status, body, told)
    assert answer.header("content-length") == str(len(body))


@pytest.mark.parametrize("value", ["bytes=500-0", "bytes=2048-", "bytes=5000-10000", "bytes=-0"])
def test_a_range_outside_the_blob_is_not_satisfiable(server: Server, value: str) -> None:
    digest = server.push_blob("a", CONTENT)
    answer = server.ask("GET", f"/v2/a/blobs/{digest}", headers={"range": value})
    assert (answer.status, answer.code) == (416, "SIZE_INVALID")
    assert answer.header("content-range") == "bytes */2048"
    with pytest.raises(RangeNotSatisfiableError):
        parse_range(value, 2048)


def test_a_range_under_another_entity_tag_is_ignored(server: Server) -> None:
    digest = server.push_blob("a", CONTENT)
    headers = {"range": "bytes=0-0", "if-range": '"other"'}
    assert server.ask("GET", f"/v2/a/blobs/{digest}", headers=headers).status == 200
    headers["if-range"] = f'"{digest}"'
    assert server.ask("GET", f"/v2/a/blobs/{digest}", headers=headers).status == 206


def test_ranges_of_a_blob_in_several_objects(server: Server) -> None:
    location = server.ask("POST", "/v2/a/blobs/uploads/", b"").location
    for at in range(0, 2048, 512):
        location = server.ask("PATCH", location, CONTENT[at : at + 512]).location
    digest = Digest.of(CONTENT)
    assert server.ask("PUT", f"{location}?digest={digest}", b"").status == 201
    for start, stop in ((0, 2048), (500, 520), (511, 513), (1024, 1536), (2047, 2048)):
        headers = {"range": f"bytes={start}-{stop - 1}"}
        answer = server.ask("GET", f"/v2/a/blobs/{digest}", headers=headers)
        assert answer.body == CONTENT[start:stop]
    assert server.run(server.upkeep.compact()) == 1
    assert server.ask("GET", f"/v2/a/blobs/{digest}").body == CONTENT
    assert server.rows("SELECT count(*) FROM blob_segment") == [(1,)]


def test_missing_things_are_told_by_their_codes(server: Server) -> None:
    digest = Digest.of(b"missing")
    for target, code in (
        (f"/v2/a/blobs/{digest}", "BLOB_UNKNOWN"),
        (f"/v2/a/manifests/{digest}", "MANIFEST_UNKNOWN"),
        ("/v2/a/manifests/latest", "MANIFEST_UNKNOWN"),
        ("/v2/a/tags/list", "NAME_UNKNOWN"),
    ):
        answer = server.ask("GET", target)
        assert (answer.status, answer.code) == (404, code)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/v2/a/blobs/sha256:bad", "DIGEST_INVALID"),
        ("/v2/a/manifests/sha256:bad", "DIGEST_INVALID"),
        ("/v2/a/manifests/-bad", "MANIFEST_INVALID"),
        ("/v2/A/tags/list", "NAME_INVALID"),
        ("/v2/a__/tags/list", "NAME_INVALID"),
        ("/v2/a/referrers/latest", "DIGEST_INVALID"),
    ],
)
def test_malformed_requests_are_told_by_their_codes(server: Server, target: str, code: str) -> None:
    answer = server.ask("GET", target)
    assert (answer.status, answer.code) == (400, code)


def test_a_manifest_comes_back_to_the_byte_under_its_own_type(server: Server) -> None:
    server.push_blob("a", b"{}")
    for kind in (mediatypes.OCI_MANIFEST, mediatypes.DOCKER_MANIFEST):
        raw = image(mediaType=kind).replace(b", ", b" ,\n")
        digest = server.push_manifest("a", raw, "t")
        for reference in ("t", digest):
            answer = server.ask("GET", f"/v2/a/manifests/{reference}")
            assert (answer.body, answer.header("content-type")) == (raw, kind)
            head = server.ask("HEAD", f"/v2/a/manifests/{reference}")
            assert head.header("content-length") == str(len(raw))
            assert head.header("docker-content-digest") == digest


def test_a_known_manifest_is_not_sent_again(server: Server) -> None:
    digest = server.push_image("a", "t")
    etag = server.ask("GET", "/v2/a/manifests/t").header("etag")
    assert etag == f'"{digest}"'
    answer = server.ask("GET", "/v2/a/manifests/t", headers={"if-none-match": etag})
    assert (answer.status, answer.body) == (304, b"")


def test_a_manifest_is_pulled_when_the_cache_is_empty(server: Server) -> None:
    digest = server.push_image("a", "t")
    server.registry.manifests = type(server.registry.manifests)(0)
    for _ in range(2):
        assert Digest.of(server.ask("GET", "/v2/a/manifests/t").body) == digest


def test_of_manifests_those_asked_for_last_are_kept_in_memory_up_to_a_limit() -> None:
    cache = ManifestCache(limit=8192)
    for name in "abcdefgh":
        cache.put(name, bytes(1024))
    assert cache.get("a")
    cache.put("i", bytes(1024))
    cache.put("j", bytes(1025))
    assert [name for name in "abcdefghij" if cache.get(name)] == list("acdefghi")


def test_pulling_writes_nothing(server: Server) -> None:
    digest = server.push_image("a", "t", b"layer")
    server.clock.now += 200_000  # type: ignore[attr-defined]
    before = server.rows("PRAGMA data_version")

    for target in (
        "/v2/a/manifests/t",
        f"/v2/a/blobs/{Digest.of(b'layer')}",
        "/v2/a/tags/list",
        f"/v2/a/referrers/{digest}",
        "/v2/_catalog",
    ):
        assert server.ask("GET", target).status == 200
        if "manifests" in target or "blobs" in target:
            assert server.ask("HEAD", target).status == 200
    assert server.rows("PRAGMA data_version") == before


def test_a_head_near_the_end_of_a_lease_starts_it_again(server: Server) -> None:
    digest = server.push_blob("a", b"x")
    used = server.push_image("a", None, b"layer")
    assert used
    server.clock.now += 80_000  # type: ignore[attr-defined]
    assert server.ask("HEAD", f"/v2/a/blobs/{digest}").status == 200
    server.ask("HEAD", f"/v2/a/blobs/{Digest.of(b'layer')}")
    before = server.rows("PRAGMA data_version")
    server.clock.now += 1  # type: ignore[attr-defined]
    assert server.ask("HEAD", f"/v2/a/blobs/{digest}").status == 200
    assert server.rows("PRAGMA data_version") == before, "many who ask cost one write a grace"
    server.clock.now += 80_000  # type: ignore[attr-defined]
    server.run(server.upkeep.collect())
    assert server.ask("HEAD", f"/v2/a/blobs/{digest}").status == 200


def test_a_head_with_a_known_digest_starts_the_lease_again(server: Server) -> None:
    digest = server.push_blob("a", b"x")
    server.clock.now += 80_000  # type: ignore[attr-defined]
    known = {"if-none-match": f'"{digest}"'}
    assert server.ask("HEAD", f"/v2/a/blobs/{digest}", headers=known).status == 304
    server.clock.now += 80_000  # type: ignore[attr-defined]
    server.run(server.upkeep.collect())
    assert server.ask("HEAD", f"/v2/a/blobs/{digest}").status == 200


class Overtaken:
    """A database in which the collector runs before a write that follows a read."""

    def __init__(self, server: Server) -> None:
        self._server, self._metadata = server, server.registry.metadata
        self.collected = 0

    async def read(self, work: Any, *, slow: bool = False) -> Any:
        return await self._metadata.read(work, slow=slow)

    async def write(self, work: Any, **more: Any) -> Any:
        registry = self._server.registry
        upkeep = Upkeep(self._metadata, registry.storage, registry.settings.gc, self._server.clock)
        self.collected += (await upkeep.collect()).collected
        return await self._metadata.write(work, **more)

    async def backup(self, path: str) -> None:
        await self._metadata.backup(path)

    def close(self) -> None:
        self._metadata.close()


@pytest.mark.parametrize("headers", [{}, {"if-none-match": "*"}])
def test_a_head_never_says_that_what_was_just_collected_is_there(
    tmp_path: Any, headers: dict[str, str]
) -> None:
    with Server(str(tmp_path), settings=Settings(gc=Collection(untagged=True))) as server:
        blob = server.push_blob("a", b"x")
        child = server.push_manifest("a", index())
        server.clock.now += 86_400  # type: ignore[attr-defined]
        overtaken = Overtaken(server)
        server.registry.metadata = overtaken
        for target in (f"/v2/a/blobs/{blob}", f"/v2/a/manifests/{child}"):
            assert server.ask("HEAD", target, headers=headers).status == 404
        assert overtaken.collected >= 2


@pytest.mark.parametrize("headers", [{}, {"if-none-match": "*"}])
def test_a_head_starts_the_lease_of_an_untagged_manifest_where_such_ones_go(
    tmp_path: Any, headers: dict[str, str]
) -> None:
    with Server(str(tmp_path), settings=Settings(gc=Collection(untagged=True))) as server:
        child, other = (server.push_manifest("a", index(n=n)) for n in "12")
        server.clock.now += 80_000  # type: ignore[attr-defined]
        asked = server.ask("HEAD", f"/v2/a/manifests/{child}", headers=headers).status
        assert asked == (304 if headers else 200)
        before = server.rows("PRAGMA data_version")
        server.clock.now += 1  # type: ignore[attr-defined]
        server.ask("HEAD", f"/v2/a/manifests/{child}", headers=headers)
        assert server.rows("PRAGMA data_version") == before, "its lease is long enough"
        server.clock.now += 80_000  # type: ignore[attr-defined]
        server.run(server.upkeep.collect())
        assert server.ask("GET", f"/v2/a/manifests/{other}").status == 404
        assert server.put_manifest("a", index(child), "t").status == 201
        server.clock.now += 200_000  # type: ignore[attr-defined]
        server.run(server.upkeep.collect())
        before = server.rows("PRAGMA data_version")
        assert server.ask("HEAD", f"/v2/a/manifests/{child}").status == 200
        assert server.rows("PRAGMA data_version") == before


def test_nested_indexes_are_pulled(server: Server) -> None:
    child = server.push_image("a")
    inner = server.push_manifest("a", index(child))
    outer = server.push_manifest("a", index(inner), "top")
    found = server.ask("GET", "/v2/a/manifests/top")
    assert found.header("docker-content-digest") == outer
    assert json.loads(found.body)["manifests"][0]["digest"] == inner


def test_health_is_told(server: Server) -> None:
    assert server.ask("GET", "/livez").status == 200
    assert server.ask("GET", "/readyz").status == 200
    server.registry.ready = False
    assert server.ask("GET", "/readyz").status == 503


def test_a_percent_encoded_colon_is_understood(server: Server) -> None:
    digest = server.push_blob("a", b"x")
    assert server.ask("GET", f"/v2/a/blobs/{digest.replace(':', '%3A')}").status == 200


def test_a_wrong_method_is_told_the_right_ones(server: Server) -> None:
    answer = server.ask("POST", "/v2/a/manifests/t")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    assert answer.header("allow") == "DELETE, GET, HEAD, PUT"


def test_extensions_are_discovered(server: Server) -> None:
    for target in ("/v2/_oci/ext/discover", "/v2/a/b/_oci/ext/discover"):
        found = server.ask("GET", target).json()["extensions"]
        assert {"name", "url", "description", "endpoints"} <= set(found[0])
