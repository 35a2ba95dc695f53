"""Pushing to a registry that misbehaves: the rest travels, or there is a clear error and nothing half is left."""

from __future__ import annotations

import io
import itertools
import os
import pathlib
import re
import threading
from collections.abc import Callable

import pytest

from argosy.content.protocols import SupportsRead
from argosy.content.verify import VerifyingReader
from argosy.errors import (
    BlobUnknownError,
    ConflictError,
    DeniedError,
    DigestMismatchError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
    RegistryError,
    SizeMismatchError,
    TransportError,
)
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]

DATA = os.urandom(6_000_000)
LAYER = Descriptor.of(mediatypes.OCI_LAYER_GZIP, DATA)
UPLOADS = r"/v2/app/blobs/uploads/"
RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
MANIFEST = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)


class Uploads:
    """A registry's upload end, honest, which counts what it is sent; `breaks` ends some transfers early.

    Args:
        server: Where it is installed.
        breaks: After how many bytes of body each transfer ends, with a reset; None for not at all.
        keeps: Whether a session survives that.
    """

    def __init__(
        self, server: s.Scripted, breaks: list[int | None] | None = None, *, keeps: bool = True
    ) -> None:
        self.breaks, self.keeps = list(breaks or []), keeps
        self.data, self.received, self.sessions = bytearray(), 0, 0
        self.cancelled, self.stored = 0, b""
        self.ranges: list[str] = []
        self.lock = threading.Lock()
        server.on("POST", UPLOADS + ".*", self.begin)
        server.on("GET", "/up/.*", self.status)
        server.on("DELETE", "/up/.*", self.cancel)
        server.on("PATCH", "/up/.*", self.patch)
        server.on("PUT", "/up/.*", self.put)

    def where(self) -> dict[str, str]:
        return {"Location": f"/up/{self.sessions}?state={len(self.data)}"}

    def begin(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.sessions += 1
        self.data = bytearray()
        return s.answer(202, self.where())(seen, peer)

    def live(self, seen: s.Seen) -> bool:
        return seen.path == f"/up/{self.sessions}"

    def status(self, seen: s.Seen, peer: s.Peer) -> bool:
        if not self.live(seen):
            return s.answer(404, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')(seen, peer)
        end = max(len(self.data) - 1, 0)
        return s.answer(204, {**self.where(), "Range": f"0-{end}"})(seen, peer)

    def cancel(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.cancelled += 1
        return s.answer(204)(seen, peer)

    def take(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.ranges.append(seen.headers.get("content-range", ""))
        limit = self.breaks.pop(0) if self.breaks else None
        wanted = seen.length if limit is None else min(limit, seen.length)
        got = peer.file.read(wanted)
        self.data += got
        self.received += len(got)
        if limit is not None and wanted == limit:
            if not self.keeps:
                self.sessions += 1
            peer.reset()
            return False
        seen.length = 0
        return True

    def patch(self, seen: s.Seen, peer: s.Peer) -> bool:
        start = int(seen.headers.get("content-range", f"{len(self.data)}-").partition("-")[0])
        if start != len(self.data):
            return s.answer(416, {**self.where(), "Range": f"0-{len(self.data) - 1}"})(seen, peer)
        if not self.take(seen, peer):
            return False
        fields = {**self.where(), "Range": f"0-{len(self.data) - 1}"}
        return s.answer(202, fields)(seen, peer)

    def put(self, seen: s.Seen, peer: s.Peer) -> bool:
        if not self.take(seen, peer):
            return False
        digest = re.search(r"digest=([^&]*)", seen.target)
        if not digest or Digest.of(bytes(self.data)) != digest[1]:
            return s.answer(400, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}')(seen, peer)
        self.stored = bytes(self.data)
        return s.answer(201, {"Location": "/x"})(seen, peer)


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
    ("data", "kind"),
    [
        (DATA[:-1] + b"?", DigestMismatchError),
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


# -------------------------------------------------------------------------------------------------------- manifests


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


def test_a_uri_too_long_is_met_with_a_shorter_one(scripted: s.Scripted, client: Client) -> None:
    scripted.on("PUT", ".*tag=.*", s.answer(414))
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


# ------------------------------------------------------------------------------------------------------------ mounts


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


# --------------------------------------------------------------------------------------- referrers and their tag

SUBJECT = Descriptor.of(mediatypes.OCI_MANIFEST, b'{"a":1}')
TAG = f"/v2/app/manifests/sha256-{SUBJECT.digest.encoded}"


def referrer(number: int) -> tuple[Descriptor, bytes]:
    raw = Manifest(
        artifact_type="application/x.sbom",
        config=EMPTY.bare(),
        subject=SUBJECT,
        annotations={"n": str(number)},
    ).encode()
    return Descriptor.of(mediatypes.OCI_MANIFEST, raw), raw


class TagStore:
    """The referrers tag, kept by clients; `etags` makes the registry mind `If-Match`."""

    def __init__(self, server: s.Scripted, *, etags: bool = False) -> None:
        self.raw, self.etags, self.lock = b"", etags, threading.Lock()
        self.before_put: Callable[[], None] = lambda: None
        server.on("GET", TAG, self.get)
        server.on("PUT", TAG, self.put)
        server.on("PUT", ".*", s.answer(201))

    def get(self, seen: s.Seen, peer: s.Peer) -> bool:
        if not self.raw:
            return s.answer(404)(seen, peer)
        etag = {"ETag": f'"{Digest.of(self.raw)}"'} if self.etags else {}
        return s.answer(200, {"Content-Type": mediatypes.OCI_INDEX, **etag}, self.raw)(seen, peer)

    def put(self, seen: s.Seen, peer: s.Peer) -> bool:
        self.before_put()
        body = peer.file.read(seen.length)
        seen.length = 0
        wanted = seen.headers.get("if-match")
        if wanted and wanted != f'"{Digest.of(self.raw)}"':
            return s.answer(412)(seen, peer)
        self.raw = body
        return s.answer(201)(seen, peer)

    def entries(self) -> list[Descriptor]:
        index = decode_manifest(self.raw)
        assert isinstance(index, Index)
        return list(index.manifests)


def test_a_registry_that_minds_subjects_is_left_alone(scripted: s.Scripted, client: Client) -> None:
    desc, raw = referrer(1)
    scripted.on("PUT", ".*", s.answer(201, {"OCI-Subject": SUBJECT.digest}))
    client().push(desc, io.BytesIO(raw))
    assert [r.method for r in scripted.requests()] == ["PUT"]


def test_a_registry_that_does_not_gets_the_tag(scripted: s.Scripted, client: Client) -> None:
    store, repository = TagStore(scripted), client()
    for number in (1, 2, 2):
        desc, raw = referrer(number)
        repository.push(desc, io.BytesIO(raw))
    assert [e.annotations["n"] for e in store.entries()] == ["1", "2"]
    assert {e.artifact_type for e in store.entries()} == {"application/x.sbom"}
    assert [e.annotations["n"] for e in repository.referrers(SUBJECT)] == ["1", "2"]


@pytest.mark.parametrize("etags", [False, True])
def test_an_update_in_between_is_not_lost(
    scripted: s.Scripted, client: Client, etags: bool
) -> None:
    store = TagStore(scripted, etags=etags)
    mine, raw = referrer(1)
    theirs = referrer(2)[0]
    once = [Index(manifests=(theirs,)).encode()]

    def sneak() -> None:
        # with an ETag the other write comes first, without one it comes last and takes ours away
        if once and etags:
            store.raw = once.pop()

    first_get = [True]
    plain_get = store.get

    def get(seen: s.Seen, peer: s.Peer) -> bool:
        if not etags and once and not first_get[0]:
            store.raw = once.pop()
        first_get[0] = False
        return plain_get(seen, peer)

    store.raw = Index().encode()
    store.before_put = sneak
    scripted._routes[0][2][0] = get
    client(referrers="tag").push(mine, io.BytesIO(raw))
    assert {e.digest for e in store.entries()} == {mine.digest, theirs.digest}


def test_an_update_that_read_the_list_before_is_not_lost_without_conditions(
    scripted: s.Scripted, client: Client
) -> None:
    """A registry that minds no condition: others write what they made of the list that was there before ours."""
    store = TagStore(scripted)
    mine, raw = referrer(1)
    theirs = [referrer(n)[0] for n in (2, 3)]
    plain_put, before = store.put, [store.raw, store.raw]

    def put(seen: s.Seen, peer: s.Peer) -> bool:
        answered = plain_put(seen, peer)
        if before:
            before.pop()
            store.raw = Index(manifests=tuple(theirs[: 2 - len(before)])).encode()
        return answered

    scripted._routes[1][2][0] = put
    client(referrers="tag").push(mine, io.BytesIO(raw))
    assert {e.digest for e in store.entries()} == {mine.digest, *(e.digest for e in theirs)}


def test_a_list_that_never_stands_is_an_error(scripted: s.Scripted, client: Client) -> None:
    desc, raw = referrer(1)
    store = TagStore(scripted)
    scripted._routes[1][2][0] = s.answer(201)
    with pytest.raises(ConflictError, match="others change the list of referrers"):
        client(referrers="tag").push(desc, io.BytesIO(raw))
    assert not store.raw


def test_the_first_list_is_written_only_where_there_is_none(
    scripted: s.Scripted, client: Client
) -> None:
    desc, raw = referrer(1)
    store = TagStore(scripted, etags=True)
    client(referrers="tag").push(desc, io.BytesIO(raw))
    (first,) = scripted.requests("PUT", TAG)
    assert first.headers["if-none-match"] == "*"
    assert "if-match" not in first.headers
    more, raw = referrer(2)
    client(referrers="tag").push(more, io.BytesIO(raw))
    assert "if-none-match" not in scripted.requests("PUT", TAG)[1].headers
    assert len(store.entries()) == 2


def test_a_referrers_tag_that_is_no_index_is_not_overwritten(
    scripted: s.Scripted, client: Client
) -> None:
    desc, raw = referrer(1)
    scripted.on("GET", TAG, s.manifest(RAW))
    scripted.on("PUT", "/v2/app/manifests/sha256:.*", s.answer(201))
    with pytest.raises(Exception, match="expected an image index"):
        client().push(desc, io.BytesIO(raw))
    assert not scripted.requests("PUT", TAG)


def test_the_api_is_paged_filtered_here_and_deduplicated(
    scripted: s.Scripted, client: Client
) -> None:
    a, b = referrer(1)[0], referrer(2)[0]
    import dataclasses

    sbom = dataclasses.replace(a, artifact_type="application/x.sbom")
    other = dataclasses.replace(b, artifact_type="application/x.other")
    path = f"/v2/app/referrers/{SUBJECT.digest}"
    fields = {"Content-Type": mediatypes.OCI_INDEX, "Link": f'<{path}?p=2>; rel="next"'}
    scripted.on(
        "GET",
        path + ".*p=2",
        s.answer(
            200, {"Content-Type": mediatypes.OCI_INDEX}, Index(manifests=(sbom, other)).encode()
        ),
    )
    scripted.on("GET", path + ".*", s.answer(200, fields, Index(manifests=(sbom,)).encode()))
    assert list(client().referrers(SUBJECT, "application/x.sbom")) == [sbom]
    assert [d.digest for d in client().referrers(SUBJECT)] == [a.digest, b.digest]


def test_an_unknown_name_has_no_referrers_and_no_fallback(
    scripted: s.Scripted, client: Client
) -> None:
    unknown = s.answer(404, {}, b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
    scripted.on("GET", "/v2/app/referrers/.*", unknown)
    assert list(client().referrers(SUBJECT)) == []
    assert len(scripted.requests()) == 1


def test_an_api_answer_of_another_type_is_no_api(scripted: s.Scripted, client: Client) -> None:
    scripted.on("GET", "/v2/app/referrers/.*", s.answer(200, {"Content-Type": "text/html"}, b"hi"))
    assert list(client().referrers(SUBJECT)) == []
    assert scripted.requests("GET", TAG)


# ---------------------------------------------------------------------------------------------------------- deleting


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
