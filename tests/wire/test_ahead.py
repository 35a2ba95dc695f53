"""A repository that reads ahead: what is asked for once, and that nothing is believed more for it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from argosy.content.memory import MemoryStore
from argosy.content.overlay import Union
from argosy.errors import DigestMismatchError, ManifestUnknownError
from argosy.remote.config import Registries
from argosy.remote.repository import Repository
from argosy.spec import mediatypes
from argosy.spec.descriptor import Descriptor
from argosy.spec.manifest import Manifest
from tests.wire import scripted as s

Client = Callable[..., Repository]
Ahead = Callable[..., Repository]

RAW = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{}")).encode()
OTHER = Manifest(config=Descriptor.of(mediatypes.OCI_CONFIG, b"{} ")).encode()
MANIFEST = Descriptor.of(mediatypes.OCI_MANIFEST, RAW)
GOOD = s.manifest(RAW, Docker_Content_Digest=MANIFEST.digest)
TAG = "/v2/app/manifests/v1"
BY_DIGEST = f"/v2/app/manifests/{MANIFEST.digest}"


@pytest.fixture
def ahead(client: Client) -> Ahead:
    """`ahead()`: `app` as a command opens it to read, `ahead(mirrors=False)` as to write."""

    def make(*, mirrors: bool = True, **options: object) -> Repository:
        return client(**options).registry.repository("app", mirrors=mirrors, ahead=True)

    return make


def asked(scripted: s.Scripted) -> list[str]:
    return [f"{seen.method} {seen.path.rpartition('/')[2]}" for seen in scripted.requests()]


def test_a_manifest_comes_with_its_tag(scripted: s.Scripted, ahead: Ahead) -> None:
    scripted.on("*", "/v2/app/manifests/.*", GOOD)
    repository = ahead()
    for _ in range(2):
        assert repository.resolve("v1") == MANIFEST
        assert repository.resolve(MANIFEST.digest) == MANIFEST
        assert repository.fetch(MANIFEST).read() == RAW
    assert asked(scripted) == ["GET v1"]


def test_whoever_asks_no_more_than_what_a_tag_is_reads_nothing(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("*", "/v2/app/manifests/.*", GOOD)
    repository = client()
    assert repository.resolve("v1") == repository.resolve("v1") == MANIFEST
    assert repository.fetch(MANIFEST).read() == repository.fetch(MANIFEST).read() == RAW
    digest = MANIFEST.digest
    assert asked(scripted) == ["HEAD v1", "HEAD v1", f"GET {digest}", f"GET {digest}"]


def test_a_manifest_that_is_not_what_its_answer_states_is_asked_for_by_digest(
    scripted: s.Scripted, ahead: Ahead
) -> None:
    lie = s.manifest(OTHER, Docker_Content_Digest=MANIFEST.digest)
    scripted.on("GET", TAG, lie)
    scripted.on("HEAD", TAG, GOOD)
    scripted.on("GET", BY_DIGEST, lie, GOOD)
    repository = ahead()
    desc = repository.resolve("v1")
    assert desc == MANIFEST
    with pytest.raises(DigestMismatchError):
        repository.fetch(desc)
    assert repository.fetch(desc).read() == RAW


def test_a_mirror_that_lies_about_a_tag_is_passed_over(
    scripted: s.Scripted, another: s.Scripted, ahead: Ahead
) -> None:
    another.on("*", ".*", s.manifest(OTHER, Docker_Content_Digest=MANIFEST.digest))
    scripted.on("*", "/v2/app/manifests/.*", GOOD)
    mirror = {"location": another.name, "insecure": True}
    table = {"location": scripted.name, "insecure": True, "mirror": [mirror]}
    repository = ahead(registries=Registries([table]))
    assert repository.fetch(repository.resolve("v1")).read() == RAW
    assert asked(scripted) == ["GET v1"]


def test_what_a_mirror_sent_is_not_taken_for_what_the_registry_has(
    scripted: s.Scripted, another: s.Scripted, ahead: Ahead
) -> None:
    another.on("*", ".*", GOOD)
    scripted.on("PUT", ".*", s.answer(201))
    mirror = {"location": another.name, "insecure": True}
    table = {"location": scripted.name, "insecure": True, "mirror": [mirror]}
    repository = ahead(registries=Registries([table]))
    with pytest.raises(ManifestUnknownError):
        repository.tag(repository.resolve("v1"), "v2")
    assert not scripted.requests("PUT")


def test_a_tag_is_a_request_where_its_manifest_was_read(scripted: s.Scripted, ahead: Ahead) -> None:
    scripted.on("GET", "/v2/app/manifests/.*", GOOD)
    scripted.on("PUT", "/v2/app/manifests/.*", s.answer(201))
    repository = ahead(mirrors=False)
    desc = repository.resolve("v1")
    repository.tag(desc, "v2")
    repository.tag(desc, "v3")
    assert asked(scripted) == ["GET v1", "PUT v2", "PUT v3"]
    assert {seen.body for seen in scripted.requests("PUT")} == {RAW}


def test_what_was_written_is_asked_for_anew(scripted: s.Scripted, ahead: Ahead) -> None:
    new = Descriptor.of(mediatypes.OCI_MANIFEST, OTHER)
    scripted.on("GET", TAG, GOOD, s.manifest(OTHER), GOOD, s.answer(404))
    scripted.on("PUT", ".*", s.answer(201))
    scripted.on("HEAD", TAG, GOOD)
    scripted.on("DELETE", ".*", s.answer(202))
    repository = ahead(mirrors=False)
    assert repository.resolve("v1") == MANIFEST
    repository.push(new, io.BytesIO(OTHER), tags=["v1"])
    assert repository.resolve("v1") == new
    repository.tag(MANIFEST, "v1")
    assert repository.resolve("v1") == MANIFEST
    repository.untag("v1")
    with pytest.raises(ManifestUnknownError):
        repository.resolve("v1")


def test_a_manifest_that_was_read_is_deleted_at_once_and_known_no_more(
    scripted: s.Scripted, ahead: Ahead
) -> None:
    scripted.on("GET", BY_DIGEST, GOOD, s.answer(404))
    scripted.on("DELETE", BY_DIGEST, s.answer(202))
    repository = ahead(mirrors=False)
    repository.delete(repository.resolve(MANIFEST.digest))
    assert [line.partition(" ")[0] for line in asked(scripted)] == ["GET", "DELETE"]
    with pytest.raises(ManifestUnknownError):
        repository.fetch(MANIFEST)


def test_a_manifest_of_several_places_is_asked_for_and_not_looked_for(
    scripted: s.Scripted, client: Client
) -> None:
    scripted.on("GET", BY_DIGEST, s.answer(404), GOOD)
    store = MemoryStore()
    union = Union(client(), client(), store)
    assert union.fetch(MANIFEST).read() == RAW
    assert asked(scripted) == [f"GET {MANIFEST.digest}"] * 2
    with pytest.raises(ManifestUnknownError):
        Union(store, store).fetch(MANIFEST)
