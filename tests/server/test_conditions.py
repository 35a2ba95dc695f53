"""Requests under a condition, and ranges (RFC 9110, sections 13 and 14), as a socket brings them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from argosy.server.conditions import allow, etags
from argosy.server.http import Request
from argosy.spec import mediatypes
from argosy.spec.digest import Digest
from tests.server.client import image
from tests.server.process import Process

CONTENT = b"0123456789"
DIGEST, EMPTY = Digest.of(CONTENT), Digest.of(b"")
RAW = image(DIGEST)
MANIFEST = Digest.of(RAW)
BLOB, NOTHING = f"/v2/a/blobs/{DIGEST}", f"/v2/a/blobs/{EMPTY}"
TAG, MISSING = "/v2/a/manifests/t", "/v2/a/manifests/none"
TYPE = f"Content-Type: {mediatypes.OCI_MANIFEST}"


class Told(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """Requests as bytes on a socket."""

    def __init__(self, server: Process) -> None:
        self.port = server.port

    def ask(self, line: str, *fields: str, body: bytes = b"") -> Told:
        """One request, `line` without the version for HTTP/1.1 and with a host."""
        head = [line, *fields] if " HTTP/" in line else [f"{line} HTTP/1.1", "Host: x", *fields]
        head += [f"Content-Length: {len(body)}"] * bool(body) + ["Connection: close", "", ""]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as raw:
            raw.sendall("\r\n".join(head).encode() + body)
            answer = b"".join(iter(lambda: raw.recv(65536), b""))
        top, _, content = answer.partition(b"\r\n\r\n")
        status, *listed = top.decode().split("\r\n")
        headers = dict(field.lower().split(": ", 1) for field in listed)
        return Told(int(status.split()[1]), headers, content)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with Process(str(tmp_path_factory.mktemp("registry"))) as server:
        made = Wire(server)
        for content in (CONTENT, b"", b"{}"):
            target = f"POST /v2/a/blobs/uploads/?digest={Digest.of(content)}"
            assert made.ask(target, *["Content-Length: 0"] * (not content), body=content)[0] == 201
        assert made.ask(f"PUT {TAG}", TYPE, body=RAW).status == 201
        yield made


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (400, ["GET /v2/ HTTP/1.1"]),
        (400, ["GET /v2/ HTTP/1.1", "Host:"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: x", "Host: x"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: x", "Host: y"]),
        (400, ["GET /livez HTTP/1.1"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: x y"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: x/y"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: user@x"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: x:80:80"]),
        (400, ["GET /v2/ HTTP/1.1", "Host: ü"]),
        (200, ["GET /v2/ HTTP/1.1", "Host: my_registry:5000"]),
        (200, ["GET /v2/ HTTP/1.1", "Host: [::1]:5000"]),
        (200, ["GET /v2/ HTTP/1.1", "Host: x:"]),
        (200, ["GET /v2/ HTTP/1.1", "Host: x"]),
        (200, ["GET /v2/ HTTP/1.0"]),
    ],
)
def test_a_request_of_http_1_1_has_one_host(wire: Wire, status: int, head: list[str]) -> None:
    assert wire.ask(*head).status == status


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, ["chunked"]),
        (400, ["Chunked "]),
        (400, [",chunked"]),
        (501, ["gzip, chunked"]),
        (501, ["identity, chunked"]),
        (501, ["chunked, chunked"]),
        (501, ["xchunked, chunked"]),
        (501, ["gzip", "chunked"]),
        (501, ["chunked", "chunked"]),
    ],
)
def test_a_body_is_in_chunks_and_in_no_other_coding(
    wire: Wire, status: int, fields: list[str]
) -> None:
    """The chunks themselves are no manifest."""
    listed = [f"Transfer-Encoding: {field}" for field in fields]
    with socket.create_connection(("127.0.0.1", wire.port), timeout=30) as raw:
        head = [f"PUT {TAG} HTTP/1.1", "Host: x", TYPE, *listed, "", ""]
        raw.sendall("\r\n".join(head).encode() + b"2\r\n{}\r\n0\r\n\r\n")
        raw.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = b"".join(iter(lambda: raw.recv(65536), b"")).split(b"HTTP/1.1 ")[1:]
    assert [int(answer[:3]) for answer in answers] == [status, 200]


@pytest.mark.parametrize(
    ("status", "field"),
    [
        (206, f'"{DIGEST}"'),
        (200, f'W/"{DIGEST}"'),
        (200, '"other"'),
        (200, "*"),
        (200, "Tue, 15 Nov 1994 08:12:31 GMT"),
    ],
)
def test_if_range_names_exactly_what_the_range_is_of(wire: Wire, status: int, field: str) -> None:
    told = wire.ask(f"GET {BLOB}", "Range: bytes=2-3", f"If-Range: {field}")
    assert (told.status, told.body) == (status, CONTENT[2:4] if status == 206 else CONTENT)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("target", "digest"), [(BLOB, DIGEST), (TAG, MANIFEST)])
def test_a_read_is_answered_under_its_condition(
    wire: Wire, method: str, target: str, digest: Digest
) -> None:
    def status(*fields: str) -> int:
        return wire.ask(f"{method} {target}", *fields).status

    assert status(f'If-Match: "{digest}"') == 200
    assert status("If-Match: *") == 200
    assert status('If-Match: "other"', f'If-Match: "{digest}"', 'If-Match: "more"') == 200
    assert status('If-Match: "other"') == 412
    assert status(f'If-Match: W/"{digest}"') == 412
    assert status('If-Match: "other"', f'If-None-Match: "{digest}"') == 412
    assert status("If-None-Match: *") == 304
    assert status(f'If-None-Match: W/"{digest}"') == 304
    assert (
        status('If-None-Match: "other"', f'If-None-Match: "{digest}"', 'If-None-Match: "x"') == 304
    )
    assert status('If-None-Match: "other"') == 200


@pytest.mark.parametrize("field", ["If-Match: *", "If-None-Match: *", 'If-Match: "x"'])
def test_what_is_not_there_is_not_there_under_any_condition(wire: Wire, field: str) -> None:
    for target in (MISSING, f"/v2/a/blobs/{Digest.of(b'none')}"):
        assert wire.ask(f"GET {target}", field).status == 404


@pytest.mark.parametrize(
    ("target", "field", "status", "told"),
    [
        (BLOB, "bytes=-100", 206, "bytes 0-9/10"),
        (BLOB, "Bytes=0-1", 206, "bytes 0-1/10"),
        (BLOB, "bytes=0-1,4-5", 200, None),
        (BLOB, "bytes=0-1,", 200, None),
        (BLOB, "bytes=-99999999999999999999999", 206, "bytes 0-9/10"),
        (BLOB, f"bytes=-{'9' * 100}", 200, None),
        (BLOB, "bytes=10-", 416, "bytes */10"),
        (NOTHING, "bytes=0-", 416, "bytes */0"),
        (NOTHING, "bytes=-5", 416, "bytes */0"),
        (NOTHING, "bytes=0-0,1-1", 200, None),
        (TAG, "bytes=0-1", 200, None),
    ],
)
def test_a_range_is_answered_or_ignored(
    wire: Wire, target: str, field: str, status: int, told: str | None
) -> None:
    answer = wire.ask(f"GET {target}", f"Range: {field}")
    assert (answer.status, answer.headers.get("content-range")) == (status, told)
    head = wire.ask(f"HEAD {target}", f"Range: {field}")
    assert (head.status, head.body) == (200, b"")


def test_a_range_is_of_no_interest_where_the_client_has_the_blob(wire: Wire) -> None:
    told = wire.ask(f"GET {BLOB}", "Range: bytes=50-", f'If-None-Match: "{DIGEST}"')
    assert told.status == 304


def test_a_tag_is_moved_and_deleted_only_from_where_it_was_seen(wire: Wire) -> None:
    def put(*fields: str) -> int:
        return wire.ask("PUT /v2/a/manifests/moved", TYPE, *fields, body=RAW).status

    def delete(reference: str, *fields: str) -> int:
        return wire.ask(f"DELETE /v2/a/manifests/{reference}", *fields).status

    assert put("If-None-Match: *") == 201
    assert put("If-None-Match: *") == 412
    assert put(f'If-Match: W/"{MANIFEST}"') == 412
    assert put(f'If-Match: "{MANIFEST}"', 'If-Match: "other"') == 201
    for reference in ("moved", MANIFEST):
        assert delete(reference, 'If-Match: "other"') == 412
        assert delete(reference, f'If-None-Match: "{MANIFEST}"') == 412
    assert delete("moved", f'If-Match: "{MANIFEST}"') == 202
    assert delete("moved", "If-Match: *") == 404
    assert wire.ask(f"GET {TAG}").status == 200


def test_of_several_tags_each_has_to_be_where_it_was_seen(wire: Wire) -> None:
    def put(tags: str, *fields: str, raw: bytes = RAW) -> int:
        line = f"PUT /v2/a/manifests/{Digest.of(raw)}?{tags}"
        return wire.ask(line, TYPE, *fields, body=raw).status

    other = image(DIGEST, annotations={"note": "other"})
    assert put("tag=x-old&tag=x-older") == 201
    for tags in ("tag=x-new&tag=x-old", "tag=x-old&tag=x-new"):
        assert put(tags, "If-None-Match: *", raw=other) == 412
        assert put(tags, f'If-Match: "{MANIFEST}"', raw=other) == 412
    assert wire.ask("HEAD /v2/a/manifests/x-new").status == 404
    assert put("tag=x-old&tag=x-older", f'If-Match: "{MANIFEST}"', raw=other) == 201
    assert put("tag=x-new&tag=x-newer", "If-None-Match: *", raw=other) == 201
    assert put("tag=x-new&tag=x-old&tag=t", f'If-Match: "{MANIFEST}", "{Digest.of(other)}"') == 201


@pytest.mark.parametrize(
    ("fields", "digest", "expected"),
    [
        ([], None, True),
        ([(b"if-match", b"*")], "sha256:1", True),
        ([(b"if-match", b"*")], None, False),
        ([(b"if-match", b'"sha256:1", "sha256:2"')], "sha256:2", True),
        ([(b"if-match", b'"sha256:1"')], "sha256:2", False),
        ([(b"if-none-match", b'"sha256:1"')], "sha256:2", True),
        ([(b"if-none-match", b'W/"sha256:1"')], "sha256:1", False),
        ([(b"if-none-match", b"*")], None, True),
    ],
)
def test_preconditions(
    fields: list[tuple[bytes, bytes]], digest: str | None, expected: bool
) -> None:
    async def receive() -> dict[str, object]:
        return {}

    assert allow(Request({"method": "PUT", "headers": fields}, receive, ""), digest) is expected
    assert etags("") == frozenset()
