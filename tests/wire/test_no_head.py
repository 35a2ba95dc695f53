"""A registry that does not know HEAD: what it has is found out by GET, of one byte where it can."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from argosy.errors import BlobUnknownError, DeniedError, InvalidDigestError
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s
from tests.wire.uploads import DATA, LAYER, Uploads

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
MANIFEST = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
BLOB = f"/v2/app/blobs/{LAYER.digest}"
EMPTY = s.answer(416, {"Content-Range": "bytes */0"}, b"no such range")


@pytest.mark.parametrize("status", [400, 405, 501])
@pytest.mark.parametrize(
    ("content", "size"),
    [(s.blob(DATA), len(DATA)), (s.answer(200, {}, DATA), len(DATA)), (EMPTY, 0)],
)
def test_a_blob_is_found_and_not_sent_again(
    scripted: s.Scripted, client: Client, status: int, content: s.Answer, size: int
) -> None:
    uploads = Uploads(scripted)
    scripted.on("HEAD", ".*", s.answer(status))
    scripted.on("GET", BLOB, content)
    repository = client()
    assert repository.exists(LAYER)
    repository.push(LAYER, io.BytesIO(DATA))
    assert repository.blob(LAYER.digest).size == size
    assert not uploads.sessions
    assert {seen.headers["range"] for seen in scripted.requests("GET")} == {"bytes=0-0"}


def test_a_blob_that_is_not_there_is_sent(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)
    scripted.on("HEAD", ".*", s.answer(405))
    repository = client()
    with pytest.raises(BlobUnknownError):
        repository.blob(LAYER.digest)
    repository.push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA


def test_a_manifest_is_found(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", ".*", s.answer(405))
    scripted.on("GET", f"/v2/app/manifests/{MANIFEST.digest}", s.manifest(RAW))
    assert client().exists(MANIFEST)
    assert not client().exists(Descriptor.of(mediatypes.OCI_MANIFEST, RAW + b" "))
    assert mediatypes.OCI_INDEX in scripted.requests("GET")[0].headers["accept"]


def test_what_is_wrong_with_a_request_is_said_by_the_answer_to_get(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", ".*", s.answer(400))
    scripted.on(
        "GET",
        ".*",
        s.answer(400, {}, b'{"errors":[{"code":"DIGEST_INVALID","message":"no sha512"}]}'),
    )
    with pytest.raises(InvalidDigestError, match="no sha512"):
        client().exists(Descriptor(media_type="a/b", digest=Digest.of(b"", "sha512"), size=0))


def test_who_may_not_see_a_manifest_is_told_the_words_of_the_registry(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", ".*", s.answer(403))
    denied = b'{"errors":[{"code":"DENIED","message":"not on a Sunday"}]}'
    scripted.on("GET", "/v2/app/manifests/v1", s.answer(403, {}, denied))
    with pytest.raises(DeniedError, match="403 DENIED: not on a Sunday"):
        client().resolve("v1")
    assert len(scripted.requests()) == 2
