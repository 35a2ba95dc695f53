"""What every `Metadata` engine promises of blobs and uploads."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from argosy.errors import (
    BlobUnknownError,
    RangeNotSatisfiableError,
    TooManyRequestsError,
    UnsupportedError,
    UploadUnknownError,
)
from argosy.server.metadata import (
    ForeignKeyError,
    Transaction,
    blobs,
    collect,
    leases,
    manifests,
    uploads,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.collect import Item
from tests.contracts.engines import CHANGE, NOW, A, B, C, Engine

# -- blobs ----------------------------------------------------------------------------------------


def test_a_blob_is_found_only_through_its_repository(engine: Engine) -> None:
    engine.blob(A)
    engine.repo("other")
    found = engine.read(lambda tx: blobs.find(tx, "r", A))
    assert (found.size, [s.key for s in found.segments]) == (3, ["b/d/aaaaa-1"])
    assert engine.read(lambda tx: blobs.look(tx, "r", A)) == found._replace(segments=())
    assert engine.read(lambda tx: blobs.look(tx, "other", A)) is None
    assert found.protected_until == NOW + 100
    assert engine.read(lambda tx: blobs.find(tx, "other", A)) is None


def test_the_second_copy_of_a_digest_goes_to_the_trash(engine: Engine) -> None:
    engine.blob(A)
    engine.blob(A, "other", key="b/d/second-1")
    found = engine.read(lambda tx: blobs.find(tx, "other", A))
    assert found.segments[0].key == "b/d/aaaaa-1"
    assert engine.write(lambda tx: collect.doom(tx, NOW, 10)) == ["b/d/second-1"]


def test_a_push_heals_a_damaged_blob(engine: Engine) -> None:
    engine.blob(A)
    assert engine.write(lambda tx: collect.damage(tx, CHANGE, A, 1))
    assert engine.read(lambda tx: blobs.find(tx, "r", A)) is None
    engine.blob(A, key="b/d/good-1")
    assert engine.read(lambda tx: blobs.find(tx, "r", A)).segments[0].key == "b/d/good-1"


def test_damaged_blobs_are_read_again_and_healed(engine: Engine) -> None:
    engine.blob(A)
    engine.blob(B)
    assert not engine.write(lambda tx: collect.damage(tx, CHANGE, A, 2)), "it is another one now"
    assert engine.write(lambda tx: collect.damage(tx, CHANGE, A, 1))
    first, second = engine.read(lambda tx: collect.unverified(tx, NOW + 1, 10))
    assert (first.is_damaged, second.is_damaged) == (True, False)
    last = (first.verified, first.digest)
    assert engine.read(lambda tx: collect.unverified(tx, NOW + 1, 10, last)) == [second]
    assert not engine.write(lambda tx: collect.heal(tx, A, 1, NOW + 5))
    assert not engine.write(lambda tx: collect.heal(tx, B, 1, NOW + 5))
    assert engine.write(lambda tx: collect.heal(tx, A, first.version, NOW + 5))
    assert engine.read(lambda tx: blobs.find(tx, "r", A)) is not None
    assert engine.read(lambda tx: collect.unverified(tx, NOW + 5, 10)) == [second]
    assert len(engine.read(lambda tx: collect.sample(tx, 1))) == 1


def test_a_blob_a_manifest_refers_to_cannot_be_unlinked(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A)
    with pytest.raises(UnsupportedError, match=B):
        engine.write(lambda tx: blobs.unlink(tx, CHANGE, "r", A))
    with pytest.raises(ForeignKeyError):
        engine.write(lambda tx: tx.rows("DELETE FROM repo_blob"))


def test_unlinking_what_is_not_there_is_unknown(engine: Engine) -> None:
    engine.repo()
    with pytest.raises(BlobUnknownError):
        engine.write(lambda tx: blobs.unlink(tx, CHANGE, "r", A))


def test_mounting_links_and_lists_the_holders(engine: Engine) -> None:
    engine.blob(A)
    other = engine.repo("other")
    assert engine.write(lambda tx: blobs.mount(tx, CHANGE, "r", other, A))
    assert not engine.write(lambda tx: blobs.mount(tx, CHANGE, "none", other, B))
    assert engine.read(lambda tx: blobs.holders(tx, A, 10)) == ["r", "other"]


def test_protecting_says_whether_there_is_still_something(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B)
    repo_id, _ = engine.repo()
    stored = engine.read(lambda tx: manifests.find(tx, "r", B))
    assert engine.write(lambda tx: blobs.protect(tx, CHANGE, repo_id, A))
    assert engine.write(lambda tx: manifests.protect(tx, CHANGE, stored))
    assert engine.read(lambda tx: blobs.find(tx, "r", A)).protected_until == NOW + 200
    assert engine.read(lambda tx: manifests.lease(tx, stored)) == NOW + 200
    engine.write(lambda tx: blobs.unlink(tx, CHANGE, "r", A))
    engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", B))
    assert not engine.write(lambda tx: blobs.protect(tx, CHANGE, repo_id, A))
    assert not engine.write(lambda tx: manifests.protect(tx, CHANGE, stored))
    assert engine.read(lambda tx: manifests.lease(tx, stored)) is None


def test_a_manifest_is_wanted_by_a_tag_an_index_or_its_subject(engine: Engine) -> None:
    engine.manifest(A, subject=B)
    repo_id, _ = engine.repo()

    def wanted() -> bool:
        return bool(engine.read(lambda tx: manifests.is_wanted(tx, repo_id, A)))

    assert not wanted()
    engine.manifest(B)
    assert wanted()
    engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", B))
    assert not wanted()
    engine.manifest(C, A, kind="manifest")
    assert wanted()
    engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", C))
    engine.manifest(A, subject=B, tags=("t",))
    assert wanted()


# -- uploads --------------------------------------------------------------------------------------


def begin(engine: Engine, identity: str = "01980000-0000-7000-8000-000000000001") -> str:
    repo_id, _ = engine.repo()
    engine.write(
        lambda tx: uploads.create(tx, repo_id, identity, "me", "sha256", NOW + 1000), durable=False
    )
    return identity


def claim(engine: Engine, identity: str, now: float = NOW, **more: Any) -> uploads.Upload:
    arguments = {"start": None, "known": None, "lease": 30.0, "expires": NOW + 1000} | more
    result: uploads.Upload = engine.write(
        lambda tx: uploads.claim(tx, "r", identity, "me", now=now, **arguments)
    )
    return result


def test_an_upload_belongs_to_its_repository_and_principal(engine: Engine) -> None:
    identity = begin(engine)
    engine.repo("other")
    for name, principal in (("other", "me"), ("r", "you"), ("none", "me")):
        with pytest.raises(UploadUnknownError):
            engine.read(
                functools.partial(uploads.find, name=name, upload=identity, principal=principal)
            )


def test_two_bodies_cannot_hold_one_session(engine: Engine) -> None:
    identity = begin(engine)
    claim(engine, identity)
    with pytest.raises(TooManyRequestsError):
        claim(engine, identity)
    assert claim(engine, identity, now=NOW + 31).version == 2


def test_a_chunk_out_of_order_is_refused_and_changes_nothing(engine: Engine) -> None:
    identity = begin(engine)
    with pytest.raises(RangeNotSatisfiableError, match="from byte 0"):
        claim(engine, identity, start=5)
    assert claim(engine, identity, start=0).version == 1


def test_a_body_that_lost_its_lease_is_refused(engine: Engine) -> None:
    identity = begin(engine)
    first = claim(engine, identity)
    second = claim(engine, identity, now=NOW + 31)
    with pytest.raises(TooManyRequestsError):
        engine.write(lambda tx: uploads.extend(tx, first, Segment("b/d/1-1", 5), A))
    grown = engine.write(lambda tx: uploads.extend(tx, second, Segment("b/d/1-2", 5), A))
    assert grown.received == 5
    assert not engine.write(lambda tx: uploads.renew(tx, first, NOW, NOW + 99))


def test_a_body_of_a_clock_that_was_wrong_holds_no_session(engine: Engine) -> None:
    identity = begin(engine)
    claim(engine, identity, now=NOW + 3600)
    assert claim(engine, identity).version == 2
    with pytest.raises(TooManyRequestsError):
        claim(engine, identity, now=NOW - 29)


def test_a_lease_of_work_by_a_clock_that_was_wrong_is_nobodys(engine: Engine) -> None:
    def take(holder: str, now: float) -> bool:
        return bool(engine.write(lambda tx: leases.take(tx, "x", holder, now, 60.0)))

    assert take("one", NOW + 59)
    assert not take("two", NOW)
    assert take("one", NOW + 3600)
    assert take("two", NOW)
    assert not take("one", NOW)


def test_a_lease_that_was_given_back_is_not_renewed(engine: Engine) -> None:
    identity = begin(engine)
    held = claim(engine, identity)
    assert engine.write(lambda tx: uploads.renew(tx, held, NOW + 60, NOW + 99))
    with pytest.raises(TooManyRequestsError):
        claim(engine, identity, now=NOW + 31)
    engine.write(lambda tx: uploads.release(tx, held))
    assert not engine.write(lambda tx: uploads.renew(tx, held, NOW + 90, NOW + 99))
    assert claim(engine, identity).version == 2


def test_parts_of_an_upload_become_a_blob_in_order(engine: Engine) -> None:
    identity = begin(engine)
    for number in (1, 2):
        held = claim(engine, identity)
        part = Segment(f"b/d/x-{number}", number)
        held = engine.write(functools.partial(uploads.extend, upload=held, segment=part, so_far=A))
    engine.write(lambda tx: uploads.finish(tx, CHANGE, held, "r", A, 3, None))
    found = engine.read(lambda tx: blobs.find(tx, "r", A))
    assert found.segments == (Segment("b/d/x-1", 1), Segment("b/d/x-2", 2))
    with pytest.raises(UploadUnknownError):
        engine.read(lambda tx: uploads.find(tx, "r", identity, "me"))


def test_a_body_that_the_database_forgot_when_it_died_is_no_part_of_a_blob(engine: Engine) -> None:
    """Sessions are written without waiting for the disk: the last of what is said of them may be lost."""
    identity = begin(engine)
    part = Segment("b/d/x-1", 3)
    held = claim(engine, identity)
    grown = engine.write(lambda tx: uploads.extend(tx, held, part, A))

    def forget(tx: Transaction) -> None:
        tx.rows("DELETE FROM upload_segment WHERE upload = ?", (identity,))
        tx.rows("UPDATE upload SET received = 0, so_far = NULL WHERE id = ?", (identity,))

    engine.write(forget)
    with pytest.raises(TooManyRequestsError):
        engine.write(lambda tx: uploads.finish(tx, CHANGE, grown, "r", A, 3, None))
    with pytest.raises(TooManyRequestsError):
        engine.write(lambda tx: uploads.extend(tx, grown, part, A))
    assert engine.read(lambda tx: blobs.find(tx, "r", A)) is None


def test_another_body_in_the_place_of_one_that_was_forgotten_is_not_taken_for_it(
    engine: Engine,
) -> None:
    identity = begin(engine)
    held = claim(engine, identity)
    forgotten = held._replace(received=3, so_far=A)
    engine.write(lambda tx: uploads.extend(tx, held, Segment("b/d/x-2", 3), B))
    with pytest.raises(TooManyRequestsError):
        engine.write(lambda tx: uploads.extend(tx, forgotten, Segment("b/d/x-3", 1), C))
    with pytest.raises(TooManyRequestsError):
        engine.write(lambda tx: uploads.finish(tx, CHANGE, forgotten, "r", A, 3, None))


def test_an_upload_of_a_known_digest_holds_on_to_the_blob(engine: Engine) -> None:
    engine.blob(A, "other")
    identity = begin(engine)
    assert claim(engine, identity, known=A).known == A
    engine.write(lambda tx: blobs.unlink(tx, CHANGE, "other", A))
    item = Item(0, "content", A, 0)
    outcome = engine.write(lambda tx: collect.settle(tx, CHANGE, item, lambda _: False))
    assert not outcome.collected
    with pytest.raises(ForeignKeyError):
        engine.write(lambda tx: tx.rows("DELETE FROM blob"))


def test_a_dropped_upload_leaves_its_objects_to_the_trash(engine: Engine) -> None:
    identity = begin(engine)
    held = claim(engine, identity)
    engine.write(lambda tx: uploads.extend(tx, held, Segment("b/d/x-1", 5), A))
    found = engine.write(lambda tx: uploads.expired(tx, NOW + 2000, 10))
    assert [one.id for one in found] == [identity]
    engine.write(lambda tx: uploads.drop(tx, CHANGE, found[0]))
    assert engine.write(lambda tx: collect.doom(tx, NOW, 10)) == ["b/d/x-1"]
