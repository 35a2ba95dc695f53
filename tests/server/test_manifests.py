"""Pushing and deleting manifests: distribution-spec, "Pushing Manifests" and "Content Management"."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from argosy.server.settings import Content, Limits, Settings
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server.client import Server, image, index, subject

MISSING = Digest.of(b"not there")


def test_a_push_is_told_where_it_is(server: Server) -> None:
    server.push_blob("a", b"{}")
    raw = image()
    answer = server.put_manifest("a", raw, "v1")
    digest = Digest.of(raw)
    assert (answer.status, answer.location) == (201, f"/v2/a/manifests/{digest}")
    assert answer.header("docker-content-digest") == digest
    assert answer.header("oci-subject") is None


def test_parameters_of_the_content_type_are_ignored(server: Server) -> None:
    server.push_blob("a", b"{}")
    server.push_manifest("a", image(), "t", f"{mediatypes.OCI_MANIFEST}; charset=utf-8")
    found = server.ask("GET", "/v2/a/manifests/t")
    assert found.header("content-type") == mediatypes.OCI_MANIFEST


@pytest.mark.parametrize("of", ["image", "index"])
def test_a_subject_is_told_and_need_not_exist(server: Server, of: str) -> None:
    server.push_blob("a", b"{}")
    raw = (image if of == "image" else index)(subject=subject(MISSING))
    answer = server.put_manifest("a", raw, "t")
    assert (answer.status, answer.header("oci-subject")) == (201, MISSING)


def test_a_manifest_pushed_under_another_digest_is_400(server: Server) -> None:
    server.push_blob("a", b"{}")
    for digest in (Digest.of(b"x"), Digest.of(b"x", "sha512")):
        answer = server.put_manifest("a", image(), digest)
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert server.put_manifest("a", image(), "sha256:baddigeststring").status == 400


def test_a_tag_remembers_the_algorithm_it_was_pushed_under(server: Server) -> None:
    server.push_blob("a", b"{}")
    raw = image()
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(raw, algorithm)
        assert server.put_manifest("a", raw, f"{digest}?tag={algorithm}").status == 201
    for algorithm in ("sha256", "sha512"):
        found = server.ask("GET", f"/v2/a/manifests/{algorithm}")
        assert found.header("docker-content-digest") == Digest.of(raw, algorithm)


def test_tag_parameters_set_all_tags_and_tell_them(server: Server) -> None:
    server.push_blob("a", b"{}")
    raw = image()
    tags = [f"tag-{number:03}-{'x' * 100}" for number in range(60)]
    query = "&".join(f"tag={tag}" for tag in tags)
    answer = server.put_manifest("a", raw, f"{Digest.of(raw)}?{query}")
    told = [tag for line in answer.all("oci-tag") for tag in line.split(", ")]
    assert (answer.status, told) == (201, tags)
    assert len(answer.all("oci-tag")) > 1
    assert max(len(line) for line in answer.all("oci-tag")) <= 4096
    assert server.ask("GET", "/v2/a/tags/list").json()["tags"] == tags


def test_tag_parameters_beside_a_tag_are_set_and_told_too(server: Server) -> None:
    server.push_blob("a", b"{}")
    assert server.put_manifest("a", image(), "one?tag=two").all("oci-tag") == ["one, two"]
    assert server.put_manifest("a", image(), "one").all("oci-tag") == []
    assert server.ask("GET", "/v2/a/tags/list").json()["tags"] == ["one", "two"]


def test_too_many_tags_are_414_and_a_bad_one_keeps_all_out(server: Server) -> None:
    server.push_blob("a", b"{}")
    raw = image()
    many = "&".join(f"tag=t{number}" for number in range(101))
    assert server.put_manifest("a", raw, f"{Digest.of(raw)}?{many}").status == 414
    assert server.put_manifest("a", raw, f"{Digest.of(raw)}?tag=good&tag=-bad").status == 400
    assert server.ask("HEAD", f"/v2/a/manifests/{Digest.of(raw)}").status == 404


def test_content_that_is_not_there_is_named(server: Server) -> None:
    answer = server.put_manifest("a", image(MISSING), "t")
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert MISSING in answer.body.decode()
    answer = server.put_manifest("a", index(MISSING), "t")
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")


def test_layers_that_lie_elsewhere_need_not_be_there(server: Server) -> None:
    server.push_blob("a", b"{}")
    raw = image((mediatypes.DOCKER_FOREIGN_GZIP, MISSING))
    assert server.put_manifest("a", raw, "t").status == 201


def test_a_sparse_repository_takes_indexes_whose_parts_are_missing(tmp_path: Any) -> None:
    with Server(str(tmp_path), settings=Settings(content=Content(sparse=True))) as server:
        assert server.put_manifest("a", index(MISSING), "t").status == 201


def test_a_manifest_over_the_limit_is_413_and_four_megabytes_are_not(server: Server) -> None:
    server.push_blob("a", b"{}")
    large = image(annotations={f"k{n}": "x" * 10_000 for n in range(420)})
    assert len(large) > 4 * 1024 * 1024
    server.push_manifest("a", large, "large")
    assert server.ask("GET", "/v2/a/manifests/large").body == large
    huge = b" " * (8 * 1024 * 1024) + image()
    answer = server.put_manifest("a", huge, "huge")
    assert (answer.status, answer.code) == (413, "SIZE_INVALID")


def test_a_limit_holds_for_bodies_that_do_not_say_their_length(tmp_path: Any) -> None:
    settings = Settings(limits=Limits(manifest_bytes=4 * 1024 * 1024))
    with Server(str(tmp_path), settings=settings) as server:
        pieces = [b" " * 1024 * 1024] * 20
        answer = server.ask("PUT", "/v2/a/manifests/t", pieces)
        assert answer.status == 413


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2,"mediaType":"a/b"}',
        b'{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
        b'{"schemaVersion":1,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}',
    ],
)
def test_what_is_no_manifest_is_400(server: Server, raw: bytes) -> None:
    answer = server.ask("PUT", "/v2/a/manifests/t", raw)
    assert (answer.status, answer.code) == (400, "MANIFEST_INVALID")


# -- conditions -----------------------------------------------------------------------------------


def test_if_none_match_creates_a_tag_once(server: Server) -> None:
    server.push_blob("a", b"{}")
    first, second = image(), image(annotations={"a": "b"})
    assert server.put_manifest("a", first, "t", if_none_match="*").status == 201
    answer = server.put_manifest("a", second, "t", if_none_match="*")
    assert answer.status == 412
    found = server.ask("GET", "/v2/a/manifests/t")
    assert found.body == first


def test_if_match_moves_a_tag_only_from_where_it_was_seen(server: Server) -> None:
    server.push_blob("a", b"{}")
    first, second = image(), image(annotations={"a": "b"})
    etag = server.put_manifest("a", first, "t").header("etag") or ""
    assert server.put_manifest("a", second, "t", if_match='"sha256:other"').status == 412
    assert server.put_manifest("a", second, "t", if_match=etag).status == 201
    assert server.put_manifest("a", first, "t", if_match=etag).status == 412
    assert server.put_manifest("a", first, "gone", if_match="*").status == 412


def test_concurrent_updates_under_if_match_lose_nothing(server: Server) -> None:
    server.push_blob("a", b"{}")
    server.push_manifest("a", index(annotations={"n": ""}), "log")

    async def add(number: int) -> None:
        while True:
            found = await server.asking("GET", "/v2/a/manifests/log")
            seen = json.loads(found.body)["annotations"]["n"]
            raw = index(annotations={"n": f"{seen}{number},"})
            headers = {
                "content-type": mediatypes.OCI_INDEX,
                "if-match": found.header("etag") or "",
            }
            answer = await server.asking("PUT", "/v2/a/manifests/log", raw, headers)
            if answer.status == 201:
                return
            assert answer.status == 412

    async def all_at_once() -> None:
        await asyncio.gather(*(add(number) for number in range(8)))

    server.run(all_at_once())
    found = server.ask("GET", "/v2/a/manifests/log").json()["annotations"]["n"]
    assert sorted(found.strip(",").split(",")) == [str(number) for number in range(8)]


# -- deleting -------------------------------------------------------------------------------------


def status(server: Server, *references: str) -> list[int]:
    return [server.ask("HEAD", f"/v2/a/manifests/{one}").status for one in references]


def test_deleting_a_tag_leaves_the_manifest_and_its_other_tags(server: Server) -> None:
    digest = server.push_image("a", "x")
    server.push_image("a", "y")
    assert server.ask("DELETE", "/v2/a/manifests/x").status == 202
    assert status(server, "x", "y", digest) == [404, 200, 200]
    assert server.ask("DELETE", "/v2/a/manifests/x").status == 404


def test_deleting_a_manifest_takes_all_its_tags_at_once(server: Server) -> None:
    digest = server.push_image("a", "x")
    server.push_image("a", "y")
    assert server.ask("DELETE", f"/v2/a/manifests/{digest}").status == 202
    assert status(server, "x", "y", digest) == [404, 404, 404]
    assert server.ask("DELETE", f"/v2/a/manifests/{digest}").status == 404


def test_a_deleted_manifest_does_not_come_back_from_the_cache(server: Server) -> None:
    digest = server.push_image("a", "x")
    assert server.ask("GET", f"/v2/a/manifests/{digest}").status == 200
    server.ask("DELETE", f"/v2/a/manifests/{digest}")
    assert server.ask("GET", f"/v2/a/manifests/{digest}").status == 404


def test_a_child_may_be_deleted_and_pushed_again(server: Server) -> None:
    child = server.push_image("a")
    parent = server.push_manifest("a", index(child), "t")
    raw = server.ask("GET", f"/v2/a/manifests/{child}").body
    assert server.ask("DELETE", f"/v2/a/manifests/{child}").status == 202
    assert status(server, parent, child) == [200, 404]
    server.push_manifest("a", raw)
    assert server.rows("SELECT child FROM manifest_ref WHERE kind = 'manifest'") == [(child,)]


def test_deleting_a_blob_is_at_once_and_refused_while_a_manifest_needs_it(server: Server) -> None:
    layer = Digest.of(b"layer")
    digest = server.push_image("a", "t", b"layer")
    answer = server.ask("DELETE", f"/v2/a/blobs/{layer}")
    assert (answer.status, answer.code) == (405, "UNSUPPORTED")
    server.ask("DELETE", f"/v2/a/manifests/{digest}")
    assert server.ask("DELETE", f"/v2/a/blobs/{layer}").status == 202
    assert server.ask("HEAD", f"/v2/a/blobs/{layer}").status == 404
    assert server.ask("DELETE", f"/v2/a/blobs/{layer}").status == 404


def test_a_blob_deleted_here_is_still_there(server: Server) -> None:
    for name in ("a", "b"):
        digest = server.push_blob(name, b"shared")
    server.ask("DELETE", f"/v2/a/blobs/{digest}")
    server.clock.now += 200_000  # type: ignore[attr-defined]
    assert server.ask("GET", f"/v2/b/blobs/{digest}").body == b"shared"
