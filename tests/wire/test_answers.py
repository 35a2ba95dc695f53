"""Answers that are neither yes nor no: what was not done is never taken for done, and what is not there for nothing."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pathlib
import re
import resource
import threading
from collections.abc import Callable, Iterator

import pytest

from argosy.content import graph
from argosy.errors import (
    ArgosyError,
    DeniedError,
    NameUnknownError,
    RegistryError,
    ResponseError,
    TooManyRequestsError,
    TransportError,
)
from argosy.layout.blobs import BlobDirectory
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Index, Manifest
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


def test_a_page_that_is_got_instead_is_no_success(scripted: s.Scripted, client: Client) -> None:
    """CVE-2023-45803: a body is not taken along to where a 303 leads."""
    scripted.on("HEAD", ".*", s.answer(404))
    scripted.on("PUT", ".*", s.answer(303, {"Location": "/login"}))
    scripted.on("DELETE", ".*", s.answer(303, {"Location": "/login"}))
    scripted.on("GET", "/login", s.answer(200, {}, b"<html>"))
    with pytest.raises(RegistryError, match=r"PUT .* would lose"):
        client().push(MANIFEST, io.BytesIO(RAW), tags=["v1"])
    with pytest.raises(RegistryError, match=r"DELETE .* would lose"):
        client().delete(LAYER)


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
    scripted.on("GET", "/up/1", s.answer(204, {"Location": "/up/1", "Range": "0-2"}))
    scripted.on("PUT", ".*", s.answer(202, {"Location": "/up/1"}), s.answer(201))
    client().push(SMALL, io.BytesIO(b"abc"))
    assert [(seen.path, seen.length) for seen in scripted.requests("PUT")] == [
        ("/up/0", 3),
        ("/up/1", 0),
    ]


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


# ----------------------------------------------------------------------------------------------- what is too little


@pytest.mark.parametrize("length", ["0", "00", "9" * 5000, "+7"])
def test_a_head_whose_length_cannot_be_a_manifests_becomes_a_get(
    scripted: s.Scripted, client: Client, length: str
) -> None:
    fields = {
        "Content-Type": mediatypes.OCI_MANIFEST,
        "Docker-Content-Digest": MANIFEST.digest,
        "Content-Length": length,
    }
    scripted.on("HEAD", TAG, s.answer(200, fields))
    scripted.on("GET", TAG, s.manifest(RAW))
    assert client().resolve("v1") == MANIFEST


@pytest.mark.parametrize("length", ["7", "9" * 5000, "\u00b2"])
def test_a_length_beside_chunks_says_nothing(
    scripted: s.Scripted, client: Client, length: str
) -> None:
    """RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length."""
    fields = f"Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DATA), DATA)
    scripted.on("GET", BLOB, s.raw(b"HTTP/1.1 200 OK\r\n" + fields + body))
    assert client().fetch(LAYER).read() == DATA


@pytest.mark.parametrize("code", ["", "NAME_UNKNOWN"])
@pytest.mark.parametrize("status", [404, 405])
def test_a_list_of_referrers_that_breaks_off_is_an_error(
    scripted: s.Scripted, client: Client, status: int, code: str
) -> None:
    path = f"/v2/app/referrers/{MANIFEST.digest}"
    fields = {"Content-Type": mediatypes.OCI_INDEX, "Link": f'<{path}?p=2>; rel="next"'}
    body = Index(manifests=(MANIFEST,)).encode()
    scripted.on("GET", path, s.answer(200, fields, body))
    error = f'{{"errors":[{{"code":"{code}"}}]}}'.encode()
    scripted.on("GET", path + r"\?p=2", s.answer(status, {}, error))
    with pytest.raises(RegistryError, match="page 2"):
        list(client().referrers(MANIFEST))


def test_a_document_that_breaks_off_is_asked_for_again(
    scripted: s.Scripted, client: Client
) -> None:
    fields = {"Content-Type": mediatypes.OCI_MANIFEST}
    scripted.on("HEAD", TAG, s.answer(405))
    scripted.on("GET", TAG, s.cut(RAW, 9), s.cut(RAW, 9), s.answer(200, fields, RAW))
    assert client().resolve("v1") == MANIFEST
    tags = b'{"tags":["a","b"]}'
    scripted.on("GET", "/v2/app/tags.*", s.cut(tags, 9), s.answer(200, {}, tags))
    assert list(client().tags()) == ["a", "b"]


def test_a_token_that_breaks_off_is_asked_for_again(scripted: s.Scripted, client: Client) -> None:
    def guarded(seen: s.Seen, peer: s.Peer) -> bool:
        if seen.headers.get("authorization") == "Bearer T":
            return s.manifest(RAW, Docker_Content_Digest=MANIFEST.digest)(seen, peer)
        return s.answer(401, {"WWW-Authenticate": 'Bearer realm="/token"'})(seen, peer)

    token = b'{"token":"T"}'
    scripted.on("GET", "/token.*", s.cut(token, 9), s.answer(200, {}, token))
    scripted.on("HEAD", TAG, guarded)
    assert client().resolve("v1") == MANIFEST


def test_a_document_that_always_breaks_off_is_given_up(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", ".*", s.cut(b'{"tags":["a","b"]}', 9))
    with pytest.raises(TransportError, match=r"tags/list.*broke off"):
        list(client(attempts=3).tags())
    assert len(scripted.requests("GET")) == 3


# ------------------------------------------------------------------------------------------- what came before an error

BLOB = f"/v2/app/blobs/{LAYER.digest}"


def stalling(after: int, end: Callable[[s.Peer], None], *, chunked: bool = False) -> s.Answer:
    """The range that is asked for, of which some bytes come, and then a silence or a reset."""

    def send(seen: s.Seen, peer: s.Peer) -> bool:
        match = re.fullmatch(r"bytes=(\d+)-\d+", seen.headers.get("range", ""))
        start = int(match[1]) if match else 0
        last = len(DATA) - 1
        fields = f"Content-Range: bytes {start}-{last}/{len(DATA)}\r\n" if match else ""
        size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(DATA) - start}"
        piece = DATA[start : start + after]
        begin = b"%x\r\n" % len(piece) if chunked else b""
        head = f"HTTP/1.1 {206 if match else 200} X\r\n{fields}{size}\r\n\r\n"
        peer.sock.sendall(head.encode() + begin + piece)
        end(peer)
        return False

    return send


def silent(peer: s.Peer) -> None:
    peer.stop.wait()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
def test_what_came_before_a_silence_is_kept(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path, chunked: bool
) -> None:
    stall = stalling(100_000, silent, chunked=chunked)
    scripted.on("GET", BLOB, *[stall] * 5, s.blob(DATA))
    blobs = BlobDirectory(str(tmp_path))
    for front in (200_000, 400_000):
        with (
            pytest.raises(TransportError, match="timed out"),
            client(attempts=2, timeout=0.3).fetch(LAYER) as reader,
        ):
            blobs.write(LAYER, reader)
        (partial,) = tmp_path.glob("sha256/.*.partial")
        assert partial.read_bytes() == DATA[:front]
    with client(attempts=3, timeout=0.3).fetch(LAYER) as reader:
        blobs.write(LAYER, reader)
    assert blobs.has(LAYER)


def test_what_came_before_a_reset_is_kept(scripted: s.Scripted, client: Client) -> None:
    taken = threading.Event()

    def reset(peer: s.Peer) -> None:
        taken.wait(5)
        peer.reset()

    scripted.on("GET", BLOB, stalling(900_000, reset))
    registry = client(attempts=1)
    with registry.fetch(LAYER) as reader:
        threading.Timer(0.1, taken.set).start()
        assert reader.read(1 << 20) == DATA[:900_000]
        with pytest.raises(TransportError, match="reset"):
            reader.read(1 << 20)


def test_a_limit_that_a_registry_tells_is_shown(scripted: s.Scripted, client: Client) -> None:
    told = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "98;w=21600"}
    scripted.on("GET", "/v2/", s.answer(200, {**told, "RateLimit-Reset": "1"}))
    assert client().registry.ping().rate_limit == told


@pytest.mark.parametrize("ending", [b"", b"0\r\n"], ids=["no last chunk", "half of it"])
def test_what_is_whole_before_its_answer_breaks_is_not_asked_for_again(
    scripted: s.Scripted, client: Client, ending: bytes
) -> None:
    head = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
    scripted.on("GET", ".*", s.raw(head + b"3\r\nabc\r\n" + ending))
    assert graph.readall(client().fetch(SMALL)) == b"abc"
    assert len(scripted.requests()) == 1


def test_a_body_of_unknown_length_that_ends_early_goes_on(
    scripted: s.Scripted, client: Client
) -> None:
    unknown = s.raw(b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + DATA[:700_000])
    scripted.on("GET", BLOB, unknown, s.blob(DATA))
    assert graph.readall(client().fetch(LAYER)) == DATA
    assert [seen.headers.get("range") for seen in scripted.requests()] == [
        None,
        f"bytes=700000-{len(DATA) - 1}",
    ]


def test_large_reads_stay_large(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", BLOB, s.answer(200, {}, DATA))
    with client().fetch(LAYER) as reader:
        assert [len(part) for part in iter(lambda: reader.read(1 << 20), b"")] == [
            *[1 << 20] * 4,
            len(DATA) % (1 << 20),
        ]


def test_a_page_instead_of_the_rest_does_not_cost_the_front(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path
) -> None:
    page = s.answer(200, {"Content-Type": "text/html"}, b"<html>log in</html>")
    scripted.on("GET", BLOB, s.cut(DATA, 2_500_000), page, s.blob(DATA))
    blobs = BlobDirectory(str(tmp_path))
    with (
        pytest.raises(RegistryError, match=r"19 bytes .* of 5000000"),
        client().fetch(LAYER) as reader,
    ):
        blobs.write(LAYER, reader)
    assert len(scripted.requests("GET")) == 2
    with client().fetch(LAYER) as reader:
        blobs.write(LAYER, reader)
    assert scripted.requests("GET")[-1].headers["range"] == "bytes=2500000-4999999"


# ------------------------------------------------------------------------------------------------- many open files


@pytest.fixture
def crowded() -> Iterator[None]:
    """A process that has the first 1024 descriptors open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("no more than 2048 open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    with contextlib.ExitStack() as stack:
        while stack.enter_context(open(os.devnull, "rb")).fileno() < 1024:
            pass
        yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowded")
def test_a_body_is_sent_over_a_descriptor_beyond_those_of_select(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PUT", ".*", s.answer(201))
    repository = client(attempts=1)
    repository.push(SMALL, io.BytesIO(b"abc"))
    assert [seen.body for seen in scripted.requests("PUT")] == [b"abc"]


# ----------------------------------------------------------------------------------------------------- how it was said


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("DENIED", DeniedError),
        ("TOOMANYREQUESTS", TooManyRequestsError),
        ("NAME_UNKNOWN", NameUnknownError),
        ("OUT_OF_ORDER", ResponseError),
    ],
)
def test_an_error_with_a_200_is_no_empty_list(
    scripted: s.Scripted, client: Client, code: str, kind: type[ArgosyError]
) -> None:
    body = f'{{"errors":[{{"code":"{code}","message":"not today"}}]}}'.encode()
    scripted.on("GET", ".*", s.answer(200, {}, body))
    with pytest.raises(kind, match=r"200 .*not today"):
        list(client().tags())
    with pytest.raises(ArgosyError):
        list(client().registry.catalog())


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_error_in_chunks_is_read_whole(scripted: s.Scripted, client: Client, size: int) -> None:
    body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"nowhere"}]}'
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    sent = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    scripted.on("*", ".*", s.raw(b"HTTP/1.1 404 X\r\nTransfer-Encoding: chunked\r\n\r\n" + sent))
    with pytest.raises(NameUnknownError, match="nowhere"):
        list(client().tags())


@pytest.mark.parametrize(
    ("status", "meant"), [(429, "too many requests"), (500, "internal server error"), (599, "")]
)
def test_an_error_without_a_word_says_what_its_status_means(
    scripted: s.Scripted, client: Client, status: int, meant: str
) -> None:
    scripted.on("GET", ".*", s.answer(status))
    with pytest.raises(RegistryError) as caught:
        list(client(attempts=1).tags())
    assert str(caught.value).endswith(f": {status} {meant}".rstrip())


def test_an_error_that_breaks_off_is_the_error_it_was(scripted: s.Scripted, client: Client) -> None:
    scripted.on("*", ".*", s.cut(b"you may not, and here is why", 11, status=403))
    with pytest.raises(DeniedError, match="403 you may not"):
        list(client().tags())


def test_an_error_with_a_200_is_no_manifest(scripted: s.Scripted, client: Client) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"not today"}]}'
    scripted.on("*", ".*", s.answer(200, {"Content-Type": "application/json"}, body))
    with pytest.raises(DeniedError, match=r"200 .*not today"):
        client().resolve("v1")


def test_a_document_in_a_coding_nobody_asked_for_is_told_so(
    scripted: s.Scripted, client: Client
) -> None:
    """CVE-2025-66471, CVE-2026-21441, CVE-2026-44432: no body is decompressed, so none is a bomb."""
    fields = {"Content-Encoding": "gzip", "Content-Type": mediatypes.OCI_MANIFEST}
    scripted.on("*", ".*", s.answer(200, fields, gzip.compress(RAW)))
    for ask in (lambda: client().resolve("v1"), lambda: list(client().tags())):
        with pytest.raises(RegistryError, match=r"GET .* 'gzip', unasked"):
            ask()
    assert scripted.requests("GET")[0].headers["accept-encoding"] == "identity"


def test_a_tag_that_a_list_has_twice_is_told_once(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", ".*", s.answer(200, {}, b'{"tags":["b","a","b"]}'))
    assert list(client().tags()) == ["b", "a"]


@pytest.mark.parametrize("body", [b'{"tags":null}', b'{"name":"app"}', b'{"tags":[],"errors":[]}'])
def test_a_list_of_nothing_is_empty(scripted: s.Scripted, client: Client, body: bytes) -> None:
    scripted.on("GET", ".*", s.answer(200, {}, body))
    assert list(client().tags()) == []


@pytest.mark.parametrize(("status", "lasting"), [(429, False), (429, True), (503, False)])
def test_an_upload_that_is_to_wait_too_long_fails_at_once(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path, status: int, lasting: bool
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PATCH", ".*", s.answer(status, {"Retry-After": "3600"}))
    repository = client(max_wait=0.01, state_dir=str(tmp_path) if lasting else None)
    with pytest.raises(
        (TooManyRequestsError, ResponseError), match=f"PATCH .*: {status}"
    ) as caught:
        repository.push(LAYER, io.BytesIO(DATA))
    assert isinstance(caught.value, (TooManyRequestsError, ResponseError))
    assert caught.value.retry_after == 3600
    assert [seen.method for seen in scripted.requests()] == ["HEAD", "POST", "PATCH"]


# --------------------------------------------------------------------------------------------------------- attempts


@pytest.mark.parametrize(
    ("method", "act"),
    [
        ("GET", lambda repository: repository.fetch(LAYER).read()),
        ("POST", lambda repository: repository.push(LAYER, io.BytesIO(DATA))),
    ],
    ids=["GET", "POST"],
)
@pytest.mark.parametrize("failure", [s.raw(b"x\r\n"), s.answer(503)], ids=["no http", "503"])
def test_attempts_are_counted_once(
    scripted: s.Scripted,
    client: Client,
    method: str,
    act: Callable[[Repository], object],
    failure: s.Answer,
) -> None:
    """Where two layers count, a hanging registry is asked 25 times, a minute each."""
    scripted.on(method, "/v2/app/blobs/.*", failure)
    with pytest.raises(RegistryError):
        act(client(attempts=3))
    assert len(scripted.requests(method)) == 3
