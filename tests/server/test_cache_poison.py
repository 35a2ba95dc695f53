"""An upstream that sends what it should not, and clients who ask the cache for what is not theirs."""

from __future__ import annotations

import io
from typing import Any

import pytest

from argosy.errors import ArgosyError, InvalidManifestError, LimitExceededError
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from tests.server.mirrors import Mirror, Upstreams, big, image, never, request


def test_a_poisoned_blob_is_never_committed_and_nobody_gets_all_of_it(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    layer, data = big(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    upstreams.tamper = lambda good: good[:-1] + b"!"
    got = bytearray()

    async def send(message: Any) -> None:
        got.extend(message.get("body", b""))

    mirror.run(mirror.app(request(layer), never, send))
    mirror.settle()
    assert len(got) < len(data)
    assert mirror.stored() == []
    assert mirror.rows("SELECT count(*) FROM blob") == [(0,)]
    upstreams.tamper = lambda good: good
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").body == data


@pytest.mark.parametrize("wrong", [b"!", b"and more"])
def test_a_small_blob_that_is_something_else_is_the_upstreams_fault(
    mirror: Mirror, upstreams: Upstreams, wrong: bytes
) -> None:
    _, parsed, _ = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    upstreams.tamper = lambda good: good[:-1] + wrong
    for child in parsed.children():
        assert mirror.ask("GET", f"/v2/hub/app/blobs/{child.digest}").status == 502
    mirror.settle()
    assert mirror.stored() == []


def test_a_poisoned_manifest_is_never_stored(mirror: Mirror, upstreams: Upstreams) -> None:
    image(upstreams)
    upstreams.tamper = lambda good: good + b" "
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").status == 502
    assert mirror.rows("SELECT count(*) FROM manifest") == [(0,)]


PORTAL = b"<html>Please log in</html>"


@pytest.mark.parametrize(
    "error", [None, LimitExceededError("too long"), InvalidManifestError("not JSON")]
)
def test_what_is_here_is_served_where_somebody_else_answers_for_the_upstream(
    mirror: Mirror, upstreams: Upstreams, error: ArgosyError | None
) -> None:
    """A page of a hotel's network, say, with 200 and a digest of its own."""
    _, _, raw = image(upstreams)
    mirror.ask("GET", "/v2/hub/app/manifests/v1")
    store = upstreams.store("app")
    page = Descriptor.of(mediatypes.OCI_MANIFEST, PORTAL)
    store.push(page, io.BytesIO(PORTAL), tags=["v1", "v2"])
    upstreams.fails = error
    mirror.turned.now += 61
    assert mirror.ask("GET", "/v2/hub/app/manifests/v1").body == raw
    answer = mirror.ask("GET", "/v2/hub/app/manifests/v2")
    assert (answer.status, b"sent something else" in answer.body) == (502, True)


def test_a_manifest_does_not_buy_a_blob_of_another_repository(
    mirror: Mirror, upstreams: Upstreams
) -> None:
    """An upstream's author who names a private digest of ours in a manifest gets nothing by it."""
    layer, data = big(upstreams)
    mirror.push_blob("private", data)
    upstreams.store("app").delete(layer)
    mirror.ask("GET", "/v2/hub/app/manifests/big")
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").status == 404
    assert mirror.ask("HEAD", f"/v2/hub/app/blobs/{layer.digest}").status == 404
    assert mirror.ask("GET", f"/v2/private/blobs/{layer.digest}").status == 200


def test_a_blob_no_manifest_names_is_not_asked_for(mirror: Mirror, upstreams: Upstreams) -> None:
    layer, _ = big(upstreams)
    assert mirror.ask("GET", f"/v2/hub/app/blobs/{layer.digest}").status == 404
    assert upstreams.asked == []
