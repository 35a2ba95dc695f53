"""Bodies of errors: distribution-spec, "Error Codes"."""

from __future__ import annotations

import asyncio
import json

import pytest

from argosy.errors import StorageError
from argosy.spec.digest import Digest
from tests.server.client import Server

NONE = Digest.of(b"none")
WRONG = [
    ("GET", "/v2/a/blobs/sha256:short", 400, "DIGEST_INVALID"),
    ("GET", f"/v2/a/blobs/{NONE}", 404, "BLOB_UNKNOWN"),
    ("GET", "/v2/a/manifests/none", 404, "MANIFEST_UNKNOWN"),
    ("GET", f"/v2/a/manifests/{NONE}", 404, "MANIFEST_UNKNOWN"),
    ("GET", "/v2/none/tags/list", 404, "NAME_UNKNOWN"),
    ("DELETE", "/v2/a/manifests/none", 404, "MANIFEST_UNKNOWN"),
    ("DELETE", f"/v2/a/blobs/{NONE}", 404, "BLOB_UNKNOWN"),
    ("PUT", "/v2/a/manifests/t", 400, "MANIFEST_INVALID"),
    ("PUT", f"/v2/a/manifests/{NONE}", 400, None),
    ("PATCH", "/v2/a/blobs/uploads/none", 404, "BLOB_UPLOAD_UNKNOWN"),
    ("POST", "/v2/a/blobs/uploads/?digest=md5:1", 400, "DIGEST_INVALID"),
    ("POST", f"/v2/a/blobs/uploads/?digest={NONE}", 400, "DIGEST_INVALID"),
    ("POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", 400, "DIGEST_INVALID"),
]


@pytest.mark.parametrize(("method", "target", "status", "code"), WRONG)
def test_an_error_is_the_specifications_json(
    server: Server, method: str, target: str, status: int, code: str | None
) -> None:
    server.push_blob("a", b"something")
    body = b"{" if method in {"PUT", "POST", "PATCH"} else None
    answer = server.ask(method, target, body, {"content-type": "application/json"})
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    errors = json.loads(answer.body)["errors"]
    assert code in {None, errors[0]["code"]}
    assert errors[0]["code"] == errors[0]["code"].upper()
    assert errors[0]["message"]
    assert set(errors[0]) <= {"code", "message", "detail"}
    assert b"Traceback" not in answer.body
    assert answer.header("x-request-id")


@pytest.mark.parametrize(
    ("error", "is_whole"), [(StorageError("the disk is away"), False), (KeyError(), True)]
)
def test_a_background_task_that_fails_is_logged_whole_only_where_that_is_a_bug(
    server: Server, caplog: pytest.LogCaptureFixture, error: Exception, is_whole: bool
) -> None:
    async def failing(_registry: object) -> None:
        raise error

    async def begin() -> None:
        task = asyncio.create_task(server.registry._task(failing))
        while not caplog.records:
            await asyncio.sleep(0)
        task.cancel()

    server.run(begin())
    (record,) = caplog.records
    assert str(error) in record.getMessage()
    assert (record.exc_info is not None) == is_whole
