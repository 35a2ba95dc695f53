"""Answers that are neither yes nor no: what was not done is never taken for done, and what is not there for nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from argosy.errors import (
    RegistryError,
    ResponseError,
    TransportError,
)
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
MANIFEST = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
DATA = os.urandom(5_000_000)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, DATA)
SMALL = Descriptor.of(mediatypes.OCI_LAYER, b"abc")
TAG = "/v2/app/manifests/v1"


# -------------------------------------------------------------------------------------------------- neither yes nor no


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399])
def test_a_write_that_is_led_nowhere_has_failed(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0?sig=secret"}))
    scripted.on("*", ".*", s.answer(status))
    with pytest.raises(ResponseError, match=f"PUT .*{TAG}: {status}"):
        client().push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    with pytest.raises(ResponseError, match=f"DELETE .*: {status}"):
        client().registry.repository("app").delete(LAYER)
    repository = client()
    repository._absent.add(SMALL.digest)  # there is no HEAD before it
    with pytest.raises(ResponseError, match=f"PUT .*: {status}") as caught:
        repository.push(SMALL, io.BytesIO(b"abc"))
    assert caught.value.http_status == status
    assert "secret" not in str(caught.value)


def test_a_write_answered_with_another_protocol_has_failed(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("*", ".*", s.answer(101))
    with pytest.raises(TransportError, match="101"):
        client(attempts=2).push(MANIFEST, io.BytesIO(RAW), tags=["v1"])


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_write_that_was_done_is_done_by_whatever_name(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PUT", ".*", s.answer(status))
    scripted.on("DELETE", ".*", s.answer(status))
    client().push(SMALL, io.BytesIO(b"abc"))
    client().push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    client().delete(LAYER)


def test_an_upload_that_is_only_accepted_is_ended_again(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("GET", "/up/0", s.answer(204, {"Location": "/up/0", "Range": "0-2"}))
    scripted.on("PUT", ".*", s.answer(202), s.answer(201))
    client().push(SMALL, io.BytesIO(b"abc"))
    assert [seen.length for seen in scripted.requests("PUT")] == [3, 0]


@pytest.mark.parametrize("put", [s.answer(202), s.answer(500)], ids=["202", "500"])
@pytest.mark.parametrize("known", [True, False], ids=["session known", "session lost"])
def test_an_upload_that_never_ends_is_given_up(
    scripted: s.Scripted, client: Client, known: bool, put: s.Answer
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PATCH", ".*", s.answer(202, {"Location": "/up/0"}))
    if known:
        fields = {"Location": "/up/0", "Range": f"0-{len(DATA) - 1}"}
        scripted.on("GET", "/up/0", s.answer(204, fields))
    scripted.on("PUT", ".*", put)
    with pytest.raises(RegistryError, match=r"PUT .*: (202 where the upload ends|500)"):
        client(attempts=3).push(LAYER, io.BytesIO(DATA))
    assert len(scripted.requests("PUT")) == 3
