"""Pushing blobs to a registry that misbehaves: the rest travels, or there is a clear error and nothing half is left."""

from __future__ import annotations

import io
import itertools
import pathlib
from collections.abc import Callable

import pytest

from argosy.content.copy import copy
from argosy.content.events import Event, Progressed
from argosy.content.memory import MemoryStore
from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    DeniedError,
    DigestMismatchError,
    RegistryError,
    SizeMismatchError,
    TransportError,
)
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


class OneWay:
    """A stream that cannot begin again."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._file.read(size)


def test_a_blob_goes_whole(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)
    client().push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert [r.method for r in scripted.requests()] == ["HEAD", "POST", "PATCH", "PUT"]
    assert "content-range" not in scripted.requests("PATCH")[0].headers
    assert f"state={len(DATA)}&digest=" in scripted.requests("PUT")[0].target


def test_a_small_blob_goes_with_the_request_that_ends_its_session(
    scripted: s.Scripted, client: Client
) -> None:
    uploads, small = Uploads(scripted), DATA[:1000]
    client().push(Descriptor.of(mediatypes.OCI_LAYER, small), io.BytesIO(small))
    assert uploads.stored == small
    assert [r.method for r in scripted.requests()] == ["HEAD", "POST", "PUT"]


@pytest.mark.parametrize("status", [400, 405, 411, 501])
def test_a_registry_without_chunks_gets_the_whole(
    scripted: s.Scripted, client: Client, status: int
) -> None:
    scripted.on("PATCH", ".*", s.answer(status))
    uploads = Uploads(scripted)
    client().push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert len(scripted.requests("PATCH")) == 1


def test_a_blob_that_is_there_is_not_read(scripted: s.Scripted, client: Client) -> None:
    scripted.on("HEAD", ".*", s.answer(200))

    class Unread:
        def read(self, size: int = -1, /) -> bytes:
            raise AssertionError("it was read")

    client().push(LAYER, Unread())


def test_a_broken_upload_goes_on_where_it_stopped(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted, [2_000_000, 1_500_000])
    client().push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.received == len(DATA)
    assert uploads.ranges == ["", "2000000-5999999", "3500000-5999999", ""]
    assert uploads.sessions == 1


def test_breaks_are_forgiven_while_the_blob_gets_on(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted, [1_500_000, 1_000_000, 2_000_000])
    client(attempts=2).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.received == len(DATA)


def test_breaks_after_a_few_bytes_each_are_given_up(scripted: s.Scripted, client: Client) -> None:
    Uploads(scripted, [10] * 50)
    with pytest.raises(TransportError):
        client(attempts=3).push(LAYER, io.BytesIO(DATA))
    assert len(scripted.requests("PATCH")) == 3


def test_a_blob_that_is_stored_though_the_answer_was_lost_is_not_sent_again(
    scripted: s.Scripted, client: Client
) -> None:
    uploads = Uploads(scripted)

    def put(seen: s.Seen, peer: s.Peer) -> bool:
        assert uploads.take(seen, peer)
        uploads.stored, uploads.sessions = bytes(uploads.data), -1
        return s.reset()(seen, peer)

    def head(seen: s.Seen, peer: s.Peer) -> bool:
        return s.answer(200 if uploads.stored else 404)(seen, peer)

    next(route for route in scripted._routes if route[0] == "PUT")[2][0] = put
    scripted.on("HEAD", ".*", head)
    for data in (DATA, DATA[:1000]):
        uploads.stored, uploads.sessions, uploads.received = b"", 0, 0
        client().push(Descriptor.of(mediatypes.OCI_LAYER, data), io.BytesIO(data))
        assert uploads.stored == data
        assert uploads.received == len(data)


def test_where_nothing_is_kept_of_a_piece_that_broke_the_next_is_smaller(
    scripted: s.Scripted, client: Client
) -> None:
    uploads = Uploads(scripted)
    plain = uploads.patch

    def patch(seen: s.Seen, peer: s.Peer) -> bool:
        if seen.length > 1_000_000:
            return s.reset(900_000)(seen, peer)
        return plain(seen, peer)

    next(route for route in scripted._routes if route[0] == "PATCH")[2][0] = patch
    client().push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.ranges[0] == "0-749999"


def test_a_lost_session_begins_again_in_a_new_one(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted, [2_000_000], keeps=False)
    with VerifyingReader(io.BytesIO(DATA), LAYER) as reader:
        client().push(LAYER, reader)
    assert uploads.stored == DATA


def test_what_cannot_begin_again_says_so(scripted: s.Scripted, client: Client) -> None:
    Uploads(scripted, [5_000_000], keeps=False)
    with pytest.raises(TransportError, match="cannot begin again"):
        client().push(LAYER, OneWay(DATA))


def test_an_upload_that_always_breaks_is_given_up(scripted: s.Scripted, client: Client) -> None:
    Uploads(scripted, [0] * 50)
    with pytest.raises(TransportError):
        client().push(LAYER, io.BytesIO(DATA))
    assert len(scripted.requests()) < 30


def test_a_registry_that_takes_byte_after_byte_is_given_up(
    scripted: s.Scripted, client: Client
) -> None:
    taken = itertools.count(1)

    def drip(seen: s.Seen, peer: s.Peer) -> bool:
        fields = {"Location": "/up/0", "Range": f"0-{next(taken)}"}
        return s.answer(204 if seen.method == "GET" else 202, fields)(seen, peer)

    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PATCH", ".*", drip)
    scripted.on("GET", "/up/0", drip)
    with pytest.raises(RegistryError, match="bytes after a chunk"):
        client().push(LAYER, io.BytesIO(DATA))
    assert len(scripted.requests("PATCH")) == 4


def test_chunks_have_their_ranges(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)
    client(chunk_size=2_500_000).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.ranges == ["0-2499999", "2500000-4999999", "5000000-5999999", ""]


def test_the_registrys_least_chunk_is_kept(scripted: s.Scripted, client: Client) -> None:
    scripted.on(
        "POST", ".*", s.answer(202, {"Location": "/up/0", "OCI-Chunk-Min-Length": "4000000"})
    )
    uploads = Uploads(scripted)
    client(chunk_size=1000).push(LAYER, io.BytesIO(DATA))
    assert uploads.ranges[:2] == ["0-3999999", "4000000-5999999"]


def test_too_large_a_body_becomes_chunks(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)
    plain = uploads.patch

    def patch(seen: s.Seen, peer: s.Peer) -> bool:
        if seen.length > 500_000:
            return s.early(413, b"<html>nginx</html>")(seen, peer)
        return plain(seen, peer)

    next(route for route in scripted._routes if route[0] == "PATCH")[2][0] = patch
    client(attempts=2).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert len(uploads.ranges) > 12


def test_ecr_answers_201_to_a_patch(scripted: s.Scripted, client: Client) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PATCH", ".*", s.answer(201, {"Location": "/up/0", "Range": f"0-{len(DATA) - 1}"}))
    scripted.on("PUT", ".*", s.answer(201))
    client(chunk_size=1 << 30).push(LAYER, io.BytesIO(DATA))


def test_an_early_refusal_is_read_not_taken_for_a_broken_pipe(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PATCH", ".*", s.early(403, b'{"errors":[{"code":"DENIED","message":"quota"}]}'))
    with pytest.raises(DeniedError, match="quota"):
        client().push(LAYER, io.BytesIO(DATA))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 102\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\nLink: </style.css>; rel=preload\n\n",
        b"HTTP/1.1 100 Continue\r\nX: as yet with",
        b"HTTP",
    ],
)
def test_an_interim_answer_does_not_end_an_upload(
    scripted: s.Scripted, client: Client, head: bytes
) -> None:
    def patch(seen: s.Seen, peer: s.Peer) -> bool:
        peer.sock.sendall(head)
        received = uploads.take(seen, peer)
        if not head.endswith(b"\n"):
            rest = b"/1.1 100" if head == b"HTTP" else b"out its end"
            peer.sock.sendall(rest + b"\r\n\r\n")
        return received and s.answer(202, uploads.where())(seen, peer)

    scripted.on("PATCH", ".*", patch)
    uploads = Uploads(scripted)
    client().push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert len(scripted.requests("PATCH")) == 1


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (DATA[:-1] + bytes([DATA[-1] ^ 1]), DigestMismatchError),
        (DATA[:-5], SizeMismatchError),
        (DATA + b"?", SizeMismatchError),
    ],
    ids=["other bytes", "fewer", "more"],
)
def test_wrong_content_is_never_finished_and_the_session_cancelled(
    scripted: s.Scripted, client: Client, data: bytes, kind: type[Exception]
) -> None:
    uploads = Uploads(scripted)
    with pytest.raises(kind):
        client().push(LAYER, OneWay(data))
    assert uploads.stored == b""
    assert uploads.cancelled == 1


def test_an_interrupt_cancels_the_session(scripted: s.Scripted, client: Client) -> None:
    uploads = Uploads(scripted)

    class Interrupted:
        def read(self, size: int = -1, /) -> bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client().push(LAYER, Interrupted())
    assert uploads.cancelled == 1


@pytest.mark.parametrize(
    "failure",
    [OSError(5, "Input/output error"), BrokenPipeError(), TimeoutError(), ValueError("closed")],
)
def test_content_that_cannot_be_read_is_no_failure_of_the_registry(
    scripted: s.Scripted, client: Client, failure: Exception
) -> None:
    uploads = Uploads(scripted)

    class Unreadable(OneWay):
        def read(self, size: int = -1, /) -> bytes:
            if data := super().read(size):
                return data
            raise failure

    with pytest.raises(type(failure)) as caught:
        client().push(LAYER, Unreadable(DATA[:-1]))
    assert caught.value is failure
    assert len(scripted.requests("PATCH")) == uploads.cancelled == 1


def test_what_a_watcher_raises_ends_a_copy_to_a_registry(
    scripted: s.Scripted, client: Client
) -> None:
    uploads = Uploads(scripted)
    source = MemoryStore()
    layer = source.add(mediatypes.OCI_LAYER_GZIP, DATA)
    config = source.add(mediatypes.OCI_EMPTY, b"{}")
    source.add(mediatypes.OCI_MANIFEST, Manifest(config=config, layers=(layer,)).encode(), "v1")
    enough = BrokenPipeError("enough")

    def watch(event: Event) -> None:
        if isinstance(event, Progressed):
            raise enough

    with pytest.raises(BrokenPipeError) as caught:
        copy(source, "v1", client(), "v1", on_event=watch, jobs=1)
    assert caught.value is enough
    assert uploads.stored == b""


def test_a_registry_that_stores_something_else_is_caught(
    scripted: s.Scripted, client: Client
) -> None:
    other = {"Docker-Content-Digest": Digest.of(b"other")}
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PATCH", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PUT", ".*", s.answer(201, other))
    with pytest.raises(DigestMismatchError):
        client().push(LAYER, io.BytesIO(DATA))
    with pytest.raises(DigestMismatchError):
        client().push(MANIFEST, io.BytesIO(RAW), tags=["v1"])


def test_an_upload_without_a_location_is_an_error(scripted: s.Scripted, client: Client) -> None:
    scripted.on("POST", ".*", s.answer(202))
    with pytest.raises(RegistryError, match="Location"):
        client().push(LAYER, io.BytesIO(DATA))


def test_another_algorithm_is_announced(scripted: s.Scripted, client: Client) -> None:
    scripted.on("POST", ".*", s.answer(202, {"Location": "/up/0"}))
    scripted.on("PUT", ".*", s.answer(201))
    desc = Descriptor.of(mediatypes.OCI_LAYER, b"abc", algorithm="sha512")
    client().push(desc, io.BytesIO(b"abc"))
    assert scripted.requests("POST")[0].target.endswith("?digest-algorithm=sha512")


# ------------------------------------------------------------------------------------------------- from run to run


def test_the_next_run_sends_only_the_rest(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path
) -> None:
    uploads = Uploads(scripted, [3_000_000])

    class Killed(SupportsRead):
        """A source whose process dies, as far as the client can tell."""

        def __init__(self) -> None:
            self._file = io.BytesIO(DATA)

        def read(self, size: int = -1, /) -> bytes:
            if self._file.tell() > 4_000_000:
                raise KeyboardInterrupt
            return self._file.read(size)

    state = str(tmp_path / "state")
    with pytest.raises((KeyboardInterrupt, RegistryError)):
        client(state_dir=state, attempts=1).push(LAYER, Killed())
    assert [p.stat().st_mode & 0o777 for p in (tmp_path / "state").iterdir()] == [0o600]
    client(state_dir=state).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
    assert uploads.received == len(DATA)
    assert uploads.sessions == 1
    assert list((tmp_path / "state").iterdir()) == []


def test_what_an_earlier_run_left_wrong_is_sent_anew(
    scripted: s.Scripted, client: Client, tmp_path: pathlib.Path
) -> None:
    uploads = Uploads(scripted, [3_000_000])
    state = str(tmp_path / "state")
    with pytest.raises(RegistryError):
        client(state_dir=state, attempts=1).push(LAYER, io.BytesIO(DATA))
    uploads.data[1000] ^= 1
    client(state_dir=state).push(LAYER, io.BytesIO(DATA))
    assert uploads.stored == DATA
