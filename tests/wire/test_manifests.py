"""Manifests and their tags: pushed and deleted at registries that know only some of the ways."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from argosy.errors import (
    BlobUnknownError,
    ConflictError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
)
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
MANIFEST = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, b"layer")


def test_one_tag_is_one_request(scripted: s.Scripted, client: Client) -> None:
    scripted.on("PUT", "/v2/app/manifests/v1", s.answer(201))
    client().push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    (put,) = scripted.requests("PUT")
    assert put.body == RAW
    assert put.headers["content-type"] == mediatypes.OCI_MANIFEST


def test_many_tags_go_at_once_where_the_registry_can(scripted: s.Scripted, client: Client) -> None:
    tags = [("OCI-Tag", "a, b"), ("OCI-Tag", "c")]
    scripted.on("PUT", r"/v2/app/manifests/sha256.*tag=a&tag=b&tag=c", s.answer(201, tags))
    client().push(MANIFEST, io.BytesIO(RAW), tags=["a", "b", "c"])
    assert len(scripted.requests("PUT")) == 1


def test_many_tags_go_one_by_one_where_it_cannot(scripted: s.Scripted, client: Client) -> None:
    scripted.on("PUT", ".*", s.answer(201))
    client().push(MANIFEST, io.BytesIO(RAW), tags=["a", "b"])
    paths = [r.path.rpartition("/")[2] for r in scripted.requests("PUT")]
    assert paths == [MANIFEST.digest, "a", "b"]


@pytest.mark.parametrize("status", [414, 431])
def test_a_uri_too_long_is_met_with_a_shorter_one(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("PUT", ".*tag=.*", s.answer(status))
    scripted.on("PUT", ".*", s.answer(201))
    client().push(MANIFEST, io.BytesIO(RAW), tags=["a", "b"])
    assert len(scripted.requests("PUT")) == 4


@pytest.mark.parametrize("status", [400, 404])
def test_a_missing_child_is_named_by_its_class(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    body = b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown","detail":"sha256:0"}]}'
    scripted.on("PUT", ".*", s.answer(status, {}, body))
    with pytest.raises(ManifestBlobUnknownError):
        client().push(MANIFEST, io.BytesIO(RAW))


def test_a_manifest_push_waits_out_a_429(scripted: s.Scripted, client: Client) -> None:
    scripted.on("PUT", ".*", s.answer(429, {"Retry-After": "0"}), s.answer(201))
    client().push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    assert len(scripted.requests("PUT")) == 2


def test_a_tag_is_deleted_alone_by_its_name(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", ".*", s.manifest(RAW, Docker_Content_Digest=MANIFEST.digest))
    scripted.on("DELETE", "/v2/app/manifests/v1", s.answer(202))
    client().untag("v1")
    assert [r.target for r in scripted.requests("DELETE")] == ["/v2/app/manifests/v1"]


@pytest.mark.parametrize("lost", [s.reset(), s.answer(504)], ids=["no answer", "504"])
def test_what_was_deleted_though_the_answer_was_lost_is_deleted(
    scripted: s.Scripted, client: Client, lost: s.Answer
) -> None:
    scripted.on("*", "/v2/app/manifests/gone", s.answer(404))
    scripted.on("DELETE", ".*", lost, s.answer(404))
    scripted.on("*", "/v2/app/manifests/.*", s.manifest(RAW))
    client().delete(MANIFEST)
    with pytest.raises(ManifestUnknownError):
        client().untag("gone")
    with pytest.raises(BlobUnknownError):
        client().delete(LAYER)


def test_a_tag_that_cannot_be_deleted_is_led_away_first(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", ".*", s.manifest(RAW, Docker_Content_Digest=MANIFEST.digest))
    scripted.on("DELETE", "/v2/app/manifests/v1", s.answer(405))
    scripted.on("DELETE", "/v2/app/manifests/sha256:.*", s.answer(404), s.answer(202))
    scripted.on("PUT", "/v2/app/manifests/v1", s.answer(201))
    client().untag("v1")
    (put,) = scripted.requests("PUT")
    deleted = [r.target.rpartition("/")[2] for r in scripted.requests("DELETE")]
    assert Digest.of(put.body) == deleted[-1]
    assert MANIFEST.digest not in deleted


def test_a_tag_stays_where_nothing_can_be_deleted(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", ".*", s.manifest(RAW, Docker_Content_Digest=MANIFEST.digest))
    scripted.on("DELETE", ".*", s.answer(405))
    with pytest.raises(Exception, match="deletes neither"):
        client().untag("v1")
    assert not scripted.requests("PUT")


OLD = Descriptor.of(mediatypes.OCI_MANIFEST, RAW + b" ")
"""What a tag names before it is moved."""
OTHER = Descriptor.of(mediatypes.OCI_MANIFEST, RAW + b"  ")


def named(desc: Descriptor) -> s.Answer:
    return s.answer(
        200,
        {
            "Content-Type": desc.media_type,
            "Content-Length": str(desc.size),
            "Docker-Content-Digest": desc.digest,
        },
    )


def test_a_tag_moves_from_what_it_named(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", ".*/v1", named(OLD))
    scripted.on("PUT", ".*/v1", s.answer(201))
    repository = client()
    repository.instead("v1", OLD.digest)
    repository.push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    (put,) = scripted.requests("PUT")
    assert put.headers["if-match"] == f'"{OLD.digest}"'


@pytest.mark.parametrize("then", [named(OTHER), s.answer(404)], ids=["moved", "removed"])
@pytest.mark.parametrize("first", [True, False], ids=["before", "at the same time"])
def test_a_tag_that_names_something_else_is_left_alone(
    scripted: s.Scripted, client: Client, then: s.Answer, *, first: bool
) -> None:
    scripted.on("HEAD", ".*/v1", *([then] if first else [named(OLD), then]))
    scripted.on("PUT", ".*/v1", s.answer(412))
    repository = client()
    repository.instead("v1", OLD.digest)
    with pytest.raises(ConflictError, match="app:v1 was changed meanwhile"):
        repository.push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    assert len(scripted.requests("PUT")) == (0 if first else 1)


def test_a_tag_is_moved_once_where_the_answer_was_lost(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", ".*/v1", named(OLD), named(MANIFEST))
    scripted.on("PUT", ".*/v1", s.reset(), s.answer(412))
    repository = client()
    repository.instead("v1", OLD.digest)
    repository.push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    assert len(scripted.requests("PUT")) == 2


def test_a_registry_whose_entity_tags_are_no_digests_is_asked_without_them(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", ".*/v1", named(OLD))
    scripted.on("PUT", ".*/v1", s.answer(412), s.answer(201))
    repository = client()
    repository.instead("v1", OLD.digest)
    repository.push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    assert ["if-match" in put.headers for put in scripted.requests("PUT")] == [True, False]
