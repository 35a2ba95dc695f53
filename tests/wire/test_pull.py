"""Pulling from a registry that misbehaves: a retry that works, or a clear error; never unverified content."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

import pytest

from argosy.errors import (
    BlobUnknownError,
    DigestMismatchError,
    InvalidManifestError,
    LimitExceededError,
    ManifestUnknownError,
    NotFoundError,
    ResponseError,
    SizeMismatchError,
    TooManyRequestsError,
    TransportError,
    UnsupportedError,
)
from argosy.remote.config import Options
from argosy.remote.registry import Registry
from argosy.remote.repository import Repository
from argosy.remote.wire import Exchange
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
DIGEST = Digest.of(RAW)
DATA = os.urandom(3_000_000)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, DATA)
BLOB = f"/v2/app/blobs/{LAYER.digest}"
TAG = "/v2/app/manifests/v1"


def read(repository: Repository, desc: Descriptor) -> bytes:
    with repository.fetch(desc) as reader:
        parts = []
        while part := reader.read(1 << 16):
            parts.append(part)
        return b"".join(parts)


# ---------------------------------------------------------------------------------------------------------- manifests


def test_a_head_with_everything_is_enough(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", TAG, s.manifest(RAW, Docker_Content_Digest=DIGEST))
    desc = client().resolve("v1")
    assert desc == Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
    assert [r.method for r in scripted.requests()] == ["HEAD"]


@pytest.mark.parametrize(
    "head",
    [
        s.manifest(RAW),
        s.manifest(RAW, Docker_Content_Digest="nonsense"),
        s.manifest(RAW, "text/html", Docker_Content_Digest=DIGEST),
        s.answer(405),
        s.answer(200, {"Docker-Content-Digest": DIGEST}),
        s.manifest(RAW, Docker_Content_Digest="md5:d41d8cd98f00b204e9800998ecf8427e"),
        s.manifest(RAW + b" ", Docker_Content_Digest=DIGEST, Content_Encoding="gzip"),
    ],
    ids=[
        "no digest",
        "no valid digest",
        "no manifest's type",
        "405",
        "no type",
        "no digest known here",
        "coded",
    ],
)
def test_a_head_that_says_too_little_becomes_a_get(
    scripted: s.Scripted, client: Client, head: s.Answer
) -> None:
    scripted.on("HEAD", TAG, head)
    scripted.on("GET", TAG, s.manifest(RAW))
    assert client().resolve("v1") == Descriptor.of(mediatypes.OCI_MANIFEST, RAW)


def test_the_own_digest_is_the_truth_when_the_header_lies(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", TAG, s.answer(405))
    scripted.on("GET", TAG, s.manifest(RAW, Docker_Content_Digest=Digest.of(b"other")))
    assert client().resolve("v1").digest == DIGEST


def test_a_digest_gets_that_manifest_or_an_error(scripted: s.Scripted, client: Client) -> None:
    wanted = Digest.of(b"wanted")
    path = f"/v2/app/manifests/{wanted}"
    scripted.on("HEAD", path, s.manifest(RAW, Docker_Content_Digest=DIGEST))
    scripted.on("GET", path, s.manifest(RAW, Docker_Content_Digest=wanted))
    with pytest.raises(DigestMismatchError):
        client().resolve(wanted)


def test_parameters_of_the_content_type_are_ignored(scripted: s.Scripted, client: Client) -> None:
    scripted.on(
        "GET", f"/v2/app/manifests/{DIGEST}", s.manifest(RAW, f"{s.MANIFEST}; charset=utf-8")
    )
    assert read(client(), Descriptor.of(mediatypes.OCI_MANIFEST, RAW)) == RAW


def test_a_content_type_other_than_the_body_says_is_refused(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("HEAD", TAG, s.answer(405))
    scripted.on("GET", TAG, s.manifest(RAW, mediatypes.DOCKER_MANIFEST))
    with pytest.raises(InvalidManifestError, match="mediaType"):
        client().resolve("v1")


def test_schema_1_is_refused_by_name(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", TAG, s.manifest(b"{}", mediatypes.DOCKER_SCHEMA1_SIGNED))
    with pytest.raises(UnsupportedError, match="schema 1"):
        client().resolve("v1")


def test_schema_1_is_refused_by_name_where_it_is_asked_for_by_digest(
    scripted: s.Scripted, client: Client
) -> None:
    """Its digest is not that of its bytes, which hold signatures."""
    digest = Digest.of(b"the part that is signed")
    path = f"/v2/app/manifests/{digest}"
    scripted.on("HEAD", path, s.answer(405))
    scripted.on("GET", path, s.manifest(b"{}", mediatypes.DOCKER_SCHEMA1_SIGNED))
    with pytest.raises(UnsupportedError, match="schema 1") as caught:
        client().resolve(digest)
    assert caught.value.hint == "push the image again with a current tool"


def test_a_missing_manifest_is_unknown_whatever_the_body(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("*", TAG, s.answer(404, {"Content-Type": "text/html"}, b"<h1>Nothing</h1>"))
    with pytest.raises(ManifestUnknownError, match="404"):
        client().resolve("v1")


def test_an_html_page_is_no_manifest(scripted: s.Scripted, client: Client) -> None:
    scripted.on("*", TAG, s.answer(200, {"Content-Type": "text/html"}, b"<html>sign in</html>"))
    with pytest.raises(InvalidManifestError):
        client().resolve("v1")


def test_an_html_error_is_one_readable_line(scripted: s.Scripted, client: Client) -> None:
    page = b"<html><style>b{}</style><body><h1>418 I'm\n a \x1b[31mteapot</h1></body></html>"
    scripted.on("*", TAG, s.answer(418, {"Content-Type": "text/html"}, page))
    with pytest.raises(ResponseError) as caught:
        client().resolve("v1")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.http_status == 418


def test_a_manifest_without_end_is_cut_off(scripted: s.Scripted, client: Client) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    endless = head + b"10000\r\n" + b" " * 65536 + b"\r\n"
    scripted.on("HEAD", TAG, s.answer(405))
    scripted.on("GET", TAG, s.raw(endless + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 140))
    with pytest.raises(LimitExceededError):
        client().resolve("v1")


# -------------------------------------------------------------------------------------------------------------- blobs


def test_a_blob_that_breaks_off_goes_on_with_a_closed_range(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", BLOB, s.cut(DATA, 1_000_000), s.reset(), s.blob(DATA))
    assert read(client(), LAYER) == DATA
    ranges = [r.headers.get("range") for r in scripted.requests("GET")]
    assert ranges[0] is None
    assert all(r and r.endswith(f"-{len(DATA) - 1}") for r in ranges[1:])


def test_breaks_after_less_than_what_forgives_them_add_up(
    scripted: s.Scripted, client: Client
) -> None:
    def broken(seen: s.Seen, peer: s.Peer) -> bool:
        start = int(seen.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        if not start:
            return s.cut(DATA, 450_000)(seen, peer)
        named = {"Content_Range": f"bytes {start}-{len(DATA) - 1}/{len(DATA)}"}
        return s.cut(DATA[start:], 450_000, status=206, **named)(seen, peer)

    scripted.on("GET", BLOB, broken)
    assert read(client(), LAYER) == DATA
    assert len(scripted.requests("GET")) > 4


def test_a_server_error_in_the_middle_is_tried_again(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", BLOB, s.cut(DATA, 2_000_000), s.answer(500), s.answer(503), s.blob(DATA))
    assert read(client(), LAYER) == DATA


@pytest.mark.parametrize("at", [1000, 2_000_000])
def test_a_registry_without_ranges_is_read_from_the_beginning(
    scripted: s.Scripted, client: Client, at: int
) -> None:
    scripted.on("GET", BLOB, s.cut(DATA, at), s.answer(200, {}, DATA))
    assert read(client(), LAYER) == DATA


@pytest.mark.parametrize(
    "wrong",
    ["bytes 0-2999999/3000000", "bytes 5-6/7", "nonsense", ""],
)
def test_a_wrong_content_range_is_not_believed(
    scripted: s.Scripted, client: Client, wrong: str
) -> None:
    lie = s.answer(206, {"Content-Range": wrong}, DATA[:1000])
    scripted.on("GET", BLOB, s.cut(DATA, 2_000_000), lie, s.blob(DATA))
    assert read(client(), LAYER) == DATA


def test_a_416_inside_the_blob_means_from_the_beginning(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", BLOB, s.cut(DATA, 2_000_000), s.answer(416), s.blob(DATA))
    assert read(client(), LAYER) == DATA


def test_a_blob_that_always_breaks_off_is_given_up(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", BLOB, s.cut(DATA, 100_000), s.cut(DATA, 0))
    with pytest.raises(TransportError):
        read(client(), LAYER)
    assert len(scripted.requests("GET")) < 12


def test_wrong_bytes_never_look_right(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", BLOB, s.answer(200, {}, DATA[:-1] + bytes([DATA[-1] ^ 1])))
    with pytest.raises(DigestMismatchError):
        read(client(), LAYER)


@pytest.mark.parametrize("body", [DATA + b"more", DATA[:-1]], ids=["longer", "shorter"])
def test_another_length_is_refused_at_once(
    scripted: s.Scripted, client: Client, body: bytes
) -> None:
    scripted.on("GET", BLOB, s.answer(200, {}, body))
    with pytest.raises(SizeMismatchError):
        read(client(), LAYER)


def test_a_blob_of_unknown_length_is_checked_too(scripted: s.Scripted, client: Client) -> None:
    small = Descriptor.of(mediatypes.OCI_LAYER, b"abc")
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    scripted.on("GET", f"/v2/app/blobs/{small.digest}", s.raw(head + b"abcd"))
    with pytest.raises(SizeMismatchError):
        read(client(), small)


def test_an_absent_blob_is_unknown(scripted: s.Scripted, client: Client) -> None:
    with pytest.raises(BlobUnknownError):
        read(client(), LAYER)


def test_a_download_can_begin_where_an_earlier_one_ended(
    scripted: s.Scripted, client: Client
) -> None:
    import io

    scripted.on("GET", BLOB, s.blob(DATA))
    with client().fetch(LAYER) as reader:
        taken = reader.resume(io.BytesIO(DATA[:2_500_000]))  # type: ignore[attr-defined]
        assert taken == 2_500_000
        assert reader.read(1 << 22) == DATA[2_500_000:]
    assert [r.headers["range"] for r in scripted.requests("GET")] == ["bytes=2500000-2999999"]


def test_the_data_field_is_used_only_when_it_is_right(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", f"/v2/app/blobs/{Digest.of(b'abc')}", s.answer(200, {}, b"abc"))
    right = Descriptor.of(mediatypes.OCI_CONFIG, b"abc", data=b"abc")
    wrong = Descriptor.of(mediatypes.OCI_CONFIG, b"abc", data=b"abd")
    assert read(client(), right) == b"abc"
    assert not scripted.requests()
    assert read(client(), wrong) == b"abc"
    assert scripted.requests()


# -------------------------------------------------------------------------------------------------- waiting, or not


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 522])
def test_a_failure_that_may_pass_is_tried_again(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on(
        "HEAD",
        TAG,
        s.answer(status),
        s.answer(status),
        s.manifest(RAW, Docker_Content_Digest=DIGEST),
    )
    assert client().resolve("v1").digest == DIGEST
    assert len(scripted.requests("HEAD")) == 3


@pytest.mark.parametrize("status", [400, 403, 409, 501])
def test_a_failure_that_will_not_pass_is_not(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("PUT", ".*", s.answer(status))
    desc = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
    import io

    with pytest.raises(Exception, match=str(status)):
        client().push(desc, io.BytesIO(RAW))
    assert len(scripted.requests("PUT")) == 1


def test_retry_after_in_seconds_is_waited_for(scripted: s.Scripted, client: Client) -> None:
    slow = s.answer(429, {"Retry-After": "1"})
    scripted.on("HEAD", TAG, slow, s.manifest(RAW, Docker_Content_Digest=DIGEST))
    started = time.monotonic()
    assert client().resolve("v1").digest == DIGEST
    assert time.monotonic() - started >= 1


def test_retry_after_as_a_date_is_waited_for(scripted: s.Scripted, client: Client) -> None:
    slow = s.answer(
        429,
        {"Date": "Sat, 21 Nov 2026 10:00:00 GMT", "Retry-After": "Sat, 21 Nov 2026 10:00:01 GMT"},
    )
    scripted.on("HEAD", TAG, slow, s.manifest(RAW, Docker_Content_Digest=DIGEST))
    started = time.monotonic()
    assert client().resolve("v1").digest == DIGEST
    assert time.monotonic() - started >= 1


def test_too_long_a_wait_is_an_error_that_says_how_long(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("*", TAG, s.answer(429, {"Retry-After": "3600"}))
    with pytest.raises(TooManyRequestsError) as caught:
        client(max_wait=0.01).resolve("v1")
    assert caught.value.retry_after == 3600
    assert len(scripted.requests()) == 1


def test_a_kept_connection_that_died_is_replaced(scripted: s.Scripted, client: Client) -> None:
    good = s.manifest(RAW, Docker_Content_Digest=DIGEST)
    scripted.on("HEAD", TAG, good, s.reset(), good)
    repository = client(attempts=1)
    assert repository.resolve("v1") == repository.resolve("v1")


def test_silence_ends(scripted: s.Scripted, client: Client) -> None:
    scripted.on("*", TAG, s.silence)
    started = time.monotonic()
    with pytest.raises(TransportError, match="timed out"):
        client(attempts=2, timeout=0.2).resolve("v1")
    assert time.monotonic() - started < 5


def test_a_head_that_trickles_ends(scripted: s.Scripted, client: Client) -> None:
    scripted.on("*", TAG, s.trickle(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"z"))
    started = time.monotonic()
    with pytest.raises(TransportError, match="timed out"):
        client(attempts=1, timeout=0.3).resolve("v1")
    assert time.monotonic() - started < 5


def test_a_body_that_trickles_ends(scripted: s.Scripted, client: Client) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode()
    scripted.on("GET", BLOB, s.trickle(head, b"z"))
    started = time.monotonic()
    with pytest.raises(TransportError, match="timed out"):
        read(client(attempts=2, timeout=0.3), LAYER)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 300,
    ],
    ids=["nothing", "zeros", "another protocol", "no status", "too many headers"],
)
def test_what_is_not_http_is_a_transport_error(
    scripted: s.Scripted, client: Client, junk: bytes
) -> None:
    scripted.on("*", TAG, s.raw(junk))
    with pytest.raises(TransportError):
        client(attempts=1).resolve("v1")


def test_nobody_listening_is_said_so(client: Client, scripted: s.Scripted) -> None:
    repository = client(attempts=1)
    scripted.close()
    with pytest.raises(TransportError, match="connection refused"):
        repository.resolve("v1")


def test_a_registry_that_was_never_there_is_asked_once(client: Client) -> None:
    tried: list[Exchange] = []
    with socket.socket() as nobody:  # it has the port, and does not listen
        nobody.bind(("127.0.0.1", 0))
        name = f"127.0.0.1:{nobody.getsockname()[1]}"
        registry = Registry(name, Options(plain_http=True, observe=tried.append))
        with pytest.raises(TransportError, match="connection refused"):
            registry.repository("app").resolve("v1")
    assert len(tried) == 1


def test_a_registry_that_went_away_is_asked_again(scripted: s.Scripted, client: Client) -> None:
    tried: list[Exchange] = []
    scripted.on("*", TAG, s.answer(404))
    repository = client(observe=tried.append)
    with pytest.raises(NotFoundError):
        repository.resolve("v1")
    scripted.close()
    tried.clear()
    with pytest.raises(TransportError):
        repository.resolve("v1")
    assert len(tried) == 4


def test_every_warning_is_told_once(scripted: s.Scripted, client: Client) -> None:
    told: list[tuple[str, str]] = []
    warning = '299 - "use \\"v2\\"", 299 - "b"'
    good = s.manifest(RAW, Docker_Content_Digest=DIGEST, Warning=warning)
    scripted.on("HEAD", TAG, good)
    repository = client(warn=lambda registry, text: told.append((registry, text)))
    repository.resolve("v1")
    repository.resolve("v1")
    assert told == [(scripted.name, 'use "v2"'), (scripted.name, "b")]
