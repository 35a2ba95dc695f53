"""Lists of referrers: by the API, and under their tag, where others write them, too."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.errors import ConflictError, InvalidManifestError, ManifestUnknownError
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import EMPTY, Descriptor
from argosy.spec.digest import Digest
from argosy.spec.manifest import Index, Manifest, decode_manifest
from argosy.testing import random
from tests.wire import scripted as s

Client = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()


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

    def __init__(self, server: s.Scripted, path: str = TAG, *, etags: bool = False) -> None:
        self.raw, self.etags, self.lock = b"", etags, threading.Lock()
        self.before_put: Callable[[], None] = lambda: None
        server.on("GET", path, self.get)
        server.on("PUT", path, self.put)
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


@pytest.mark.parametrize(
    ("mode", "found"), [("auto", {1}), ("api", {1}), ("tag", {2}), ("both", {1, 2})]
)
def test_the_list_is_the_apis_or_the_tags_or_both_joined(
    scripted: s.Scripted, client: Client, mode: str, found: set[int]
) -> None:
    by_number = {number: referrer(number)[0] for number in (1, 2)}
    listed = {number: Index(manifests=(desc,)).encode() for number, desc in by_number.items()}
    scripted.on("GET", "/v2/app/referrers/.*", s.manifest(listed[1], mediatypes.OCI_INDEX))
    scripted.on("GET", TAG, s.manifest(listed[2], mediatypes.OCI_INDEX))
    repository = client(referrers=mode)
    for _ in range(2):
        told = [desc.digest for desc in repository.referrers(SUBJECT)]
        assert sorted(told) == sorted(by_number[number].digest for number in found)


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


def test_a_copy_writes_the_list_once(scripted: s.Scripted, client: Client) -> None:
    source = MemoryStore()
    root = random.image(source, 1, "v1", layers=1)
    made = [random.artifact(source, 10 + number, subject=root) for number in range(5)]
    under = f"/v2/app/manifests/sha256-{root.digest.encoded}"
    store = TagStore(scripted, under)
    scripted.on("HEAD", "/v2/app/blobs/.*", s.answer(200))
    scripted.on("GET", f"/v2/app/manifests/{root.digest}", s.manifest(source.fetch(root).readall()))
    copy(source, "v1", client(), "v1", referrers=True)
    assert {e.digest for e in store.entries()} == {desc.digest for desc in made}
    writes = [r.target for r in scripted.requests("PUT")]
    assert writes.count(under) == 1
    assert writes[-1].endswith("/v1")  # the tag is there when all that belongs to it is


class TestTogether:
    def test_what_waits_is_seen_here(self, scripted: s.Scripted, client: Client) -> None:
        store, repository = TagStore(scripted), client()
        with repository.together():
            repository.push(*pair(1))
            with repository.together():
                repository.push(*pair(2))
            assert not store.raw
            assert len(list(repository.referrers(SUBJECT))) == 2
        assert len(store.entries()) == 2

    def test_not_too_many_wait(self, scripted: s.Scripted, client: Client) -> None:
        store, repository = TagStore(scripted), client()
        with repository.together():
            for number in range(65):
                repository.push(*pair(number))
            assert len(store.entries()) == 64
        assert len(store.entries()) == 65

    def test_what_was_pushed_before_an_error_is_listed(
        self, scripted: s.Scripted, client: Client
    ) -> None:
        store = TagStore(scripted)
        scripted.on("GET", "/v2/app/manifests/v1", s.answer(404))

        with pytest.raises(ManifestUnknownError):
            broken_off(client())
        assert len(store.entries()) == 1

    def test_the_first_error_is_the_one_that_is_told(
        self, scripted: s.Scripted, client: Client
    ) -> None:
        TagStore(scripted)
        scripted.on("GET", "/v2/app/manifests/v1", s.answer(404))
        scripted.on("PUT", TAG, s.answer(403))

        with pytest.raises(ManifestUnknownError):
            broken_off(client())

    def test_who_interrupts_does_not_wait(self, scripted: s.Scripted, client: Client) -> None:
        store = TagStore(scripted)

        def half(repository: Repository) -> None:
            with repository.together():
                repository.push(*pair(1))
                raise KeyboardInterrupt

        repository = client()
        with pytest.raises(KeyboardInterrupt):
            half(repository)
        assert not store.raw
        repository.push(*pair(2))
        assert len(store.entries()) == 2


def broken_off(repository: Repository) -> None:
    with repository.together():
        repository.push(*pair(1))
        repository.resolve("v1")


def pair(number: int) -> tuple[Descriptor, io.BytesIO]:
    desc, raw = referrer(number)
    return desc, io.BytesIO(raw)


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


def test_a_list_is_read_once_before_an_entry_is_taken_out(
    scripted: s.Scripted, client: Client
) -> None:
    store = TagStore(scripted)
    (one, raw), (two, _) = referrer(1), referrer(2)
    store.raw = Index(manifests=(one, two)).encode()
    scripted.on("GET", f"/v2/app/manifests/{one.digest}", s.manifest(raw))
    scripted.on("DELETE", ".*", s.answer(202))
    client(referrers="tag").delete(one)
    assert [seen.method for seen in scripted.requests("", TAG)] == ["GET", "PUT", "GET"]
    left = decode_manifest(store.raw)
    assert isinstance(left, Index)
    assert [entry.digest for entry in left.manifests] == [two.digest]


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


def test_a_list_that_is_null_is_empty(scripted: s.Scripted, client: Client) -> None:
    """As Go writes a slice that nobody made."""
    body = b'{"schemaVersion":2,"mediaType":"%s","manifests":null}' % mediatypes.OCI_INDEX.encode()
    fields = {"Content-Type": mediatypes.OCI_INDEX}
    scripted.on("GET", "/v2/app/referrers/.*", s.answer(200, fields, body))
    assert list(client().referrers(SUBJECT)) == []
    assert not scripted.requests("GET", TAG)


def test_what_is_wrong_with_a_list_is_told(scripted: s.Scripted, client: Client) -> None:
    entry = b'{"mediaType":"%s","size":1,"digest":"sha256:1"}' % mediatypes.OCI_MANIFEST.encode()
    body = b'{"schemaVersion":2,"manifests":[%s]}' % entry
    fields = {"Content-Type": mediatypes.OCI_INDEX}
    scripted.on("GET", ".*", s.answer(200, fields, body))
    for how in ("api", "tag"):
        with pytest.raises(InvalidManifestError, match=r"app.*manifests\[0\]\.digest: .*sha256:1"):
            list(client(referrers=how).referrers(SUBJECT))
