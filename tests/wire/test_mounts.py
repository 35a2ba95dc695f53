"""Blobs that a registry takes over from another of its repositories, or does not."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from argosy.remote.repository import Repository
from tests.wire import scripted as s
from tests.wire.uploads import DATA, LAYER, UPLOADS, Uploads

Client = Callable[..., Repository]


def test_a_mount_moves_nothing(scripted: s.Scripted, client: Client) -> None:
    scripted.on("POST", UPLOADS + r"\?mount=.*&from=other", s.answer(201))
    repository = client()
    assert repository.mount(LAYER, repository.registry.repository("other"))


def test_a_mount_that_becomes_a_session_is_used(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)
    repository = client()
    assert not repository.mount(LAYER, repository.registry.repository("other"))
    repository.push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert len(scripted.requests("POST")) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 500])
def test_a_mount_that_is_refused_means_copy(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("POST", ".*mount.*", s.answer(status))
    repository = client()
    assert not repository.mount(LAYER, repository.registry.repository("other"))


def test_a_large_blob_that_the_registry_has_somewhere_does_not_move(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", ".*", s.answer(404))
    scripted.on(
        "POST", UPLOADS + r"\?mount=sha256%3A[0-9a-f]{64}", s.answer(201, {"Location": "/x"})
    )
    client().push(LAYER, io.BytesIO(DATA))
    assert [seen.method for seen in scripted.requests()] == ["HEAD", "POST"]


@pytest.mark.parametrize("status", [400, 403, 404, 405, 500])
def test_a_registry_that_mounts_from_named_places_only_gets_the_bytes(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("POST", UPLOADS + r"\?mount=[^&]*", s.answer(status))
    uploads = Uploads(scripted)
    client().push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert len(scripted.requests("POST")) == 2
