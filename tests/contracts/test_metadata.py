"""What every `Metadata` engine promises, asked of each."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from argosy.errors import (
    BlobUnknownError,
    ConflictError,
    DeniedError,
    InvalidManifestError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
    RangeNotSatisfiableError,
    TooManyRequestsError,
    UnsupportedError,
    UploadUnknownError,
)
from argosy.server.metadata import (
    ForeignKeyError,
    Metadata,
    Transaction,
    Work,
    blobs,
    collect,
    deliveries,
    manifests,
    outbox,
    repositories,
    schema,
    uploads,
)
from argosy.server.metadata.blobs import Segment
from argosy.server.metadata.collect import Item
from argosy.server.metadata.deliveries import DeadLetter
from argosy.server.metadata.manifests import New, Reference
from argosy.server.metadata.outbox import Change
from argosy.server.metadata.postgresql import Postgresql
from argosy.server.metadata.sqlite import Sqlite

ENGINES: dict[str, Callable[[Path, pytest.FixtureRequest], Metadata]] = {
    "sqlite": lambda root, _: Sqlite(str(root / "registry.db")),
    "postgresql": lambda _, request: Postgresql(request.getfixturevalue("postgresql").database()),
}
NOW = 1_800_000_000.0
CHANGE = Change(NOW, grace=100.0, trash=50.0)
A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


class Engine:
    """An engine, asked one thing after the other."""

    def __init__(self, runner: asyncio.Runner, metadata: Metadata) -> None:
        self.runner, self.metadata = runner, metadata

    def read(self, work: Work[Any]) -> Any:
        return self.runner.run(self.metadata.read(work))

    def write(self, work: Work[Any], **more: Any) -> Any:
        return self.runner.run(self.metadata.write(work, **more))

    def repo(self, name: str = "r") -> tuple[int, str]:
        return self.write(lambda tx: repositories.ensure(tx, name, CHANGE)), name

    def blob(self, digest: str, name: str = "r", key: str | None = None, size: int = 3) -> None:
        repo = self.repo(name)
        segment = Segment(key or f"b/d/{digest[7:12]}-1", size)
        self.write(lambda tx: blobs.commit(tx, CHANGE, repo, digest, size, [segment]))

    def manifest(self, digest: str, *targets: str, tags: tuple[str, ...] = (), **more: Any) -> None:
        repo = self.repo(more.pop("name", "r"))
        new = make(digest, *targets, **{k: more.pop(k) for k in list(more) if k in FIELDS})
        self.write(lambda tx: manifests.put(tx, CHANGE, repo, new, tags, **more))


FIELDS = {"subject", "artifact_type", "annotations", "kind", "optional"}


def make(digest: str, *targets: str, **more: Any) -> New:
    kind, optional = more.pop("kind", "blob"), more.pop("optional", False)
    return New(
        digest,
        "application/vnd.oci.image.manifest.v1+json",
        digest.encode(),
        more.get("subject"),
        more.get("artifact_type"),
        more.get("annotations", {}),
        tuple(Reference(kind, target, optional) for target in targets),
    )


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    with asyncio.Runner() as runner:
        metadata = ENGINES[request.param](tmp_path, request)
        yield Engine(runner, metadata)
        metadata.close()
        metadata.close()


def boom(tx: Transaction) -> None:
    tx.rows("INSERT INTO setting (name, value) VALUES (?, ?)", ("x", "y"))
    raise KeyError("boom")


# -- transactions ---------------------------------------------------------------------------------


def test_a_write_is_seen_by_the_next_read(engine: Engine) -> None:
    engine.write(lambda tx: repositories.set_setting(tx, "a", "1"))
    assert engine.read(lambda tx: repositories.setting(tx, "a")) == "1"


def test_a_slow_read_sees_the_same(engine: Engine) -> None:
    engine.write(lambda tx: repositories.set_setting(tx, "a", "1"))
    work = functools.partial(repositories.setting, name="a")
    assert engine.runner.run(engine.metadata.read(work, slow=True)) == "1"


def test_work_that_raises_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(KeyError):
        engine.write(boom)
    assert engine.read(lambda tx: repositories.setting(tx, "x")) is None


def test_one_failure_of_many_at_once_takes_nobody_with_it(engine: Engine) -> None:
    async def all_at_once() -> list[Any]:
        def work(number: int) -> Work[None]:
            return lambda tx: repositories.set_setting(tx, f"k{number:02}", "v")

        jobs = [engine.metadata.write(boom if n % 7 == 3 else work(n)) for n in range(40)]
        return await asyncio.gather(*jobs, return_exceptions=True)

    results = engine.runner.run(all_at_once())
    failed = [n for n, result in enumerate(results) if isinstance(result, KeyError)]
    assert failed == [n for n in range(40) if n % 7 == 3]
    kept = engine.read(lambda tx: tx.rows("SELECT name FROM setting WHERE name LIKE 'k__'"))
    assert len(kept) == 40 - len(failed)


def test_a_write_that_need_not_be_durable_is_seen_too(engine: Engine) -> None:
    engine.write(lambda tx: repositories.set_setting(tx, "a", "1"), durable=False)
    assert engine.read(lambda tx: repositories.setting(tx, "a")) == "1"


def test_a_write_begins_once_what_it_comes_after_is_done(engine: Engine) -> None:
    done: list[str] = []
    before = threading.Barrier(2)

    def first() -> None:
        before.wait(30)
        done.append("first")

    async def ordered() -> None:
        with ThreadPoolExecutor(1) as pool:
            writing = asyncio.ensure_future(
                engine.metadata.write(lambda _tx: done.append("write"), after=pool.submit(first))
            )
            await asyncio.to_thread(before.wait, 30)
            await writing

    engine.runner.run(ordered())
    assert done == ["first", "write"]


def test_a_write_after_something_that_failed_is_not_begun(engine: Engine) -> None:
    failed: Future[None] = Future()
    failed.set_exception(LookupError("what came first"))
    with pytest.raises(LookupError, match="what came first"):
        engine.write(lambda tx: repositories.set_setting(tx, "a", "1"), after=failed)
    assert engine.read(lambda tx: repositories.setting(tx, "a")) is None


def test_a_foreign_key_refuses_with_its_own_error(engine: Engine) -> None:
    with pytest.raises(ForeignKeyError):
        engine.write(
            lambda tx: tx.rows(
                "INSERT INTO repo_blob (repo_id, digest, protected_until) VALUES (?, ?, ?)",
                (1, A, 0.0),
            )
        )


def test_row_runs_a_statement_to_its_end(engine: Engine) -> None:
    def work(tx: Transaction) -> object:
        tx.rows("INSERT INTO setting (name, value) VALUES (?, ?), (?, ?)", ("a", "1", "b", "1"))
        return tx.row("UPDATE setting SET value = '2' RETURNING name")

    assert engine.write(work) is not None
    rows = engine.read(lambda tx: tx.rows("SELECT value FROM setting WHERE name IN ('a', 'b')"))
    assert rows == [("2",), ("2",)]


def test_bytes_floats_and_null_come_back_as_they_were(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("t",))
    found = engine.read(lambda tx: manifests.find(tx, "r", "t"))
    assert engine.read(lambda tx: manifests.content(tx, found)) == B.encode()
    row = engine.read(lambda tx: tx.row("SELECT pushed, subject FROM manifest"))
    assert row == (NOW, None)
    assert isinstance(row[0], float)


# -- repositories ---------------------------------------------------------------------------------


def test_names_are_in_byte_order_and_none_is_skipped(engine: Engine) -> None:
    names = ["a", "a-b", "a.b", "a/b", "a_b", "ab", "b"]
    for name in reversed(names):
        engine.manifest(A, name=name)
    seen: list[str] = []
    last = ""
    while page := engine.read(functools.partial(repositories.page, last=last, limit=2)):
        seen += page
        last = page[-1]
    assert seen == sorted(names)


def test_a_repository_without_manifests_is_not_listed(engine: Engine) -> None:
    engine.repo("empty")
    assert engine.read(lambda tx: repositories.page(tx, "", 10)) == []


def test_tags_are_in_byte_order(engine: Engine) -> None:
    tags = ["Z", "a", "_", "1", "a.b", "a-b", "B"]
    engine.manifest(A, tags=tuple(tags))
    repo_id, _ = engine.repo()
    assert engine.read(lambda tx: repositories.tags(tx, repo_id, "", 10)) == sorted(tags)
    assert engine.read(lambda tx: repositories.tags(tx, repo_id, "a", 1)) == ["a-b"]


def test_a_setting_keeps_its_first_value(engine: Engine) -> None:
    assert engine.write(lambda tx: repositories.setting(tx, "s", "1")) == "1"
    assert engine.write(lambda tx: repositories.setting(tx, "s", "2")) == "1"


# -- blobs ----------------------------------------------------------------------------------------


def test_a_blob_is_found_only_through_its_repository(engine: Engine) -> None:
    engine.blob(A)
    engine.repo("other")
    found = engine.read(lambda tx: blobs.find(tx, "r", A))
    assert (found.size, [s.key for s in found.segments]) == (3, ["b/d/aaaaa-1"])
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
    assert not engine.write(lambda tx: uploads.renew(tx, first, NOW))


def test_a_lease_that_was_given_back_is_not_renewed(engine: Engine) -> None:
    identity = begin(engine)
    held = claim(engine, identity)
    assert engine.write(lambda tx: uploads.renew(tx, held, NOW + 60))
    with pytest.raises(TooManyRequestsError):
        claim(engine, identity, now=NOW + 31)
    engine.write(lambda tx: uploads.release(tx, held))
    assert not engine.write(lambda tx: uploads.renew(tx, held, NOW + 90))
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


# -- manifests ------------------------------------------------------------------------------------


def test_a_manifest_with_missing_parts_is_refused_and_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(ManifestBlobUnknownError, match=A):
        engine.manifest(B, A, tags=("t",))
    assert engine.read(lambda tx: manifests.find(tx, "r", B)) is None
    assert engine.read(lambda tx: manifests.find(tx, "r", "t")) is None


def test_a_missing_part_may_be_optional_or_the_repository_sparse(engine: Engine) -> None:
    engine.manifest(B, A, optional=True)
    engine.manifest(C, A, sparse=True)
    assert engine.read(lambda tx: tx.rows("SELECT blob FROM manifest_ref")) == [(None,), (None,)]


def test_a_reference_resolves_when_the_blob_arrives(engine: Engine) -> None:
    engine.manifest(B, A, sparse=True)
    engine.blob(A)
    with pytest.raises(UnsupportedError):
        engine.write(lambda tx: blobs.unlink(tx, CHANGE, "r", A))


def test_a_tag_moves_and_the_guard_sees_where_from(engine: Engine) -> None:
    seen: list[tuple[str, str | None, str | None]] = []
    engine.manifest(A, tags=("t",), guard=lambda *told: seen.append(told))
    engine.manifest(B, tags=("t",), guard=lambda *told: seen.append(told))
    assert seen == [("t", None, A), ("t", A, B)]
    assert engine.read(lambda tx: manifests.find(tx, "r", "t")).digest == B


def test_a_guard_that_refuses_one_tag_keeps_all_out(engine: Engine) -> None:
    def guard(tag: str, old: str | None, new: str | None) -> None:
        if tag == "z":
            raise DeniedError("no")

    with pytest.raises(DeniedError):
        engine.manifest(A, tags=("a", "z"), guard=guard)
    assert engine.read(lambda tx: manifests.find(tx, "r", "a")) is None
    assert engine.read(lambda tx: manifests.find(tx, "r", A)) is None


def test_a_precondition_is_asked_inside_the_transaction(engine: Engine) -> None:
    engine.manifest(A, tags=("t",), precondition=lambda digest: digest is None)
    with pytest.raises(ConflictError):
        engine.manifest(B, tags=("t",), precondition=lambda digest: digest is None)
    engine.manifest(B, tags=("t",), precondition=lambda digest: digest == A)


def test_the_type_a_manifest_came_with_first_stays(engine: Engine) -> None:
    engine.manifest(A, tags=("t",))
    other = make(A)._replace(media_type="application/vnd.docker.distribution.manifest.v2+json")
    repo = engine.repo()
    for tags in ((), ("t",), ("new",)):
        with pytest.raises(InvalidManifestError, match="another media type"):
            engine.write(
                functools.partial(manifests.put, change=CHANGE, repo=repo, new=other, tags=tags)
            )
    assert engine.read(lambda tx: manifests.find(tx, "r", "t")).media_type == make(A).media_type
    assert engine.read(lambda tx: manifests.find(tx, "r", "new")) is None
    late = CHANGE._replace(now=NOW + 50)
    engine.write(lambda tx: manifests.put(tx, late, repo, make(A), ()))
    row = engine.read(lambda tx: tx.row("SELECT protected_until FROM manifest"))
    assert row == (NOW + 150,)


def test_deleting_a_manifest_takes_its_tags_and_frees_its_blobs(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("x", "y"))
    engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", B))
    for reference in (B, "x", "y"):
        assert (
            engine.read(functools.partial(manifests.find, name="r", tag_or_digest=reference))
            is None
        )
    engine.write(lambda tx: blobs.unlink(tx, CHANGE, "r", A))
    with pytest.raises(ManifestUnknownError):
        engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", B))


def test_the_guard_is_asked_for_the_tags_of_indexes_above(engine: Engine) -> None:
    engine.manifest(A)
    engine.manifest(B, A, kind="manifest")
    engine.manifest(C, B, kind="manifest", tags=("top",))

    def guard(tag: str, old: str | None, new: str | None) -> None:
        raise DeniedError(f"{tag} {old} {new}")

    with pytest.raises(DeniedError, match=f"top {C} None"):
        engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", A, guard))


def test_referrers_are_listed_by_digest_and_filtered(engine: Engine) -> None:
    for digest, kind in ((C, "x/sig"), (B, "x/sbom")):
        engine.manifest(digest, subject=A, artifact_type=kind, annotations={"k": "v"})

    def ask(kind: str | None, last: str = "") -> list[str]:
        found = engine.read(lambda tx: manifests.referrers(tx, "r", A, kind, last, 10))
        assert all(one.noted == len('{"k":"v"}') for one in found)
        return [one.digest for one in found]

    assert ask(None) == [B, C]
    assert ask("x/sig") == [C]
    assert ask(None, B) == [C]


def test_annotations_come_as_the_bytes_that_were_counted(engine: Engine) -> None:
    notes: tuple[dict[str, str], ...] = (
        {"ü\0": "\U0001f600\ud800"},
        {"ü\0": "\U0001f600"},
        {},
    )
    for digest, noted in zip((A, B, C), notes, strict=True):
        engine.manifest(digest, subject=A, annotations=noted)
    found = engine.read(lambda tx: manifests.annotations_of(tx, "r", [A, B, C, "sha256:none"]))
    assert {digest: json.loads(text) for digest, text in found.items()} == {
        A: notes[0],
        B: notes[1],
    }
    listed = engine.read(lambda tx: manifests.referrers(tx, "r", A, None, "", 10))
    assert [one.noted for one in listed] == [len(found[A]), len(found[B]), 0]
    assert engine.read(lambda tx: manifests.annotations_of(tx, "other", [A])) == {}


_BEFORE_3 = (
    "ALTER TABLE manifest ADD COLUMN annotations TEXT",
    (
        "UPDATE manifest SET annotations = (SELECT b.annotations FROM manifest_body b"
        " WHERE b.repo_id = manifest.repo_id AND b.digest = manifest.digest)"
    ),
    "ALTER TABLE manifest_body DROP COLUMN annotations",
    "UPDATE schema_version SET version = 2",
)


def test_annotations_stay_where_the_schema_is_brought_up_to_date(engine: Engine) -> None:
    engine.manifest(A, subject=C, annotations={"k": "v"})
    engine.manifest(B, subject=C)

    def work(tx: Transaction) -> list[str]:
        for statement in (*_BEFORE_3, *schema.statements(2)):
            tx.rows(statement)
        return [one.digest for one in manifests.referrers(tx, "r", C, None, "", 9) if one.noted]

    assert engine.write(work) == [A]
    assert engine.read(lambda tx: manifests.annotations_of(tx, "r", [A, B])) == {A: b'{"k":"v"}'}
    assert engine.read(schema.current_version) == schema.VERSION


# -- collecting -----------------------------------------------------------------------------------


def settle(engine: Engine, item: Item, now: float, untagged: bool = False) -> collect.Outcome:
    change = CHANGE._replace(now=now)
    outcome: collect.Outcome = engine.write(
        lambda tx: collect.settle(tx, change, item, lambda _: untagged)
    )
    return outcome


def test_an_unreferenced_blob_goes_after_its_grace_and_not_before(engine: Engine) -> None:
    engine.blob(A)
    repo_id, _ = engine.repo()
    assert engine.read(lambda tx: collect.due(tx, NOW + 99, 10)) == []
    item = Item(repo_id, "blob", A, 0)
    assert item in engine.read(lambda tx: collect.due(tx, NOW + 100, 10))
    assert settle(engine, item, NOW + 100).collected
    assert engine.read(lambda tx: blobs.find(tx, "r", A)) is None
    assert settle(engine, Item(0, "content", A, 0), NOW + 101).size == 3
    assert engine.write(lambda tx: collect.doom(tx, NOW + 150, 10)) == []
    assert engine.write(lambda tx: collect.doom(tx, NOW + 152, 10)) == ["b/d/aaaaa-1"]


def test_a_referenced_blob_stays_and_its_grace_begins_with_the_last_dereference(
    engine: Engine,
) -> None:
    engine.blob(A)
    engine.manifest(B, A)
    repo_id, _ = engine.repo()
    item = Item(repo_id, "blob", A, 0)
    assert not settle(engine, item, NOW + 500).collected
    late = CHANGE._replace(now=NOW + 1000)
    engine.write(lambda tx: manifests.delete(tx, late, "r", B))
    assert item not in engine.read(lambda tx: collect.due(tx, NOW + 1099, 10))
    assert settle(engine, item, NOW + 1100).collected


def test_undelete_brings_a_blob_back_until_its_window_is_over(engine: Engine) -> None:
    engine.blob(A)
    repo_id, _ = engine.repo()
    settle(engine, Item(repo_id, "blob", A, 0), NOW + 100)
    settle(engine, Item(0, "content", A, 0), NOW + 101)
    engine.write(lambda tx: collect.undelete(tx, CHANGE, "r", A))
    assert engine.read(lambda tx: blobs.find(tx, "r", A)).segments[0].key == "b/d/aaaaa-1"
    assert engine.write(lambda tx: collect.doom(tx, NOW + 9999, 10)) == []
    with pytest.raises(BlobUnknownError):
        engine.write(lambda tx: collect.undelete(tx, CHANGE, "r", B))


def test_what_is_doomed_cannot_be_undeleted(engine: Engine) -> None:
    engine.blob(A)
    repo_id, _ = engine.repo()
    settle(engine, Item(repo_id, "blob", A, 0), NOW + 100)
    settle(engine, Item(0, "content", A, 0), NOW + 101)
    engine.write(lambda tx: collect.doom(tx, NOW + 9999, 10))
    with pytest.raises(BlobUnknownError):
        engine.write(lambda tx: collect.undelete(tx, CHANGE, "r", A))


def test_an_untagged_manifest_goes_only_where_the_policy_says_so(engine: Engine) -> None:
    engine.manifest(A, tags=("t",))
    repo_id, _ = engine.repo()
    engine.write(lambda tx: manifests.delete_tag(tx, CHANGE, "r", "t"))
    item = Item(repo_id, "manifest", A, 0)
    assert not settle(engine, item, NOW + 100, untagged=False).collected
    engine.write(lambda tx: repositories.review(tx, repo_id, "manifest", A, NOW))
    assert settle(engine, item, NOW + 100, untagged=True).collected


def test_a_referrer_lives_as_long_as_its_subject(engine: Engine) -> None:
    engine.manifest(A, tags=("t",))
    engine.manifest(B, subject=A)
    repo_id, _ = engine.repo()
    item = Item(repo_id, "manifest", B, 0)
    assert not settle(engine, item, NOW + 200, untagged=True).collected
    late = CHANGE._replace(now=NOW + 300)
    engine.write(lambda tx: manifests.delete(tx, late, "r", A))
    assert not settle(engine, item, NOW + 350, untagged=True).collected
    assert settle(engine, item, NOW + 400, untagged=True).collected


def test_an_empty_repository_goes_and_a_full_one_stays(engine: Engine) -> None:
    full, _ = engine.repo("full")
    empty, _ = engine.repo("empty")
    engine.manifest(A, name="full")
    assert settle(engine, Item(empty, "repository", "", 0), NOW + 100).collected
    assert not settle(engine, Item(full, "repository", "", 0), NOW + 100).collected
    assert engine.read(lambda tx: repositories.find(tx, "empty")) is None


def test_a_postponed_item_waits_longer_each_time(engine: Engine) -> None:
    engine.blob(A)
    repo_id, _ = engine.repo()
    late = CHANGE._replace(now=NOW + 100)
    for attempt, delay in ((0, 60), (1, 120), (2, 240)):
        item = Item(repo_id, "blob", A, attempt)
        engine.write(functools.partial(collect.postpone, change=late, item=item))
        row = engine.read(
            lambda tx: tx.row("SELECT review_after FROM review WHERE kind = ?", ("blob",))
        )
        assert row == (NOW + 100 + delay,)


# -- the outbox -----------------------------------------------------------------------------------


def test_every_change_writes_its_event_in_order(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("t",))
    engine.write(lambda tx: manifests.delete_tag(tx, CHANGE, "r", "t"))
    engine.write(lambda tx: manifests.delete(tx, CHANGE, "r", B))
    events = engine.read(lambda tx: outbox.after(tx, 0, 100))
    assert [event.kind for event in events] == [
        "blob.pushed",
        "manifest.pushed",
        "tag.set",
        "tag.deleted",
        "manifest.deleted",
    ]
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert events[2].tag == "t"


def test_a_refused_change_writes_no_event(engine: Engine) -> None:
    with pytest.raises(ManifestBlobUnknownError):
        engine.manifest(B, A)
    assert engine.read(lambda tx: outbox.after(tx, 0, 100)) == []


def test_events_are_trimmed_when_every_consumer_is_done(engine: Engine) -> None:
    for digest in (A, B, C):
        engine.blob(digest)
    ids = [event.id for event in engine.read(lambda tx: outbox.after(tx, 0, 100))]
    engine.write(lambda tx: outbox.advance(tx, "one", ids[1]))
    engine.write(lambda tx: outbox.advance(tx, "two", ids[0]))
    assert engine.write(lambda tx: outbox.trim(tx, NOW + 1)) == 1
    engine.write(lambda tx: outbox.advance(tx, "two", ids[2]))
    engine.write(lambda tx: outbox.advance(tx, "one", ids[2]))
    assert engine.write(lambda tx: outbox.trim(tx, NOW + 1)) == 1
    assert engine.read(lambda tx: outbox.position(tx, "two")) == ids[2]
    assert len(engine.read(lambda tx: outbox.after(tx, 0, 100))) == 1


def test_dead_letters_are_trimmed_by_age_and_number(engine: Engine) -> None:
    def lose(tx: Transaction) -> None:
        for event in range(1, 6):
            deliveries.give_up(tx, DeadLetter(f"webhook:{event % 2}", event, NOW + event, "", "{}"))

    engine.write(lose)
    assert engine.write(lambda tx: deliveries.trim(tx, NOW + 2, 9)) == 1
    assert engine.write(lambda tx: deliveries.trim(tx, NOW + 3, 2)) == 2
    found = engine.read(lambda tx: deliveries.dead_letters(tx, 9))
    assert [letter.event for letter in found] == [5, 4]


def test_figures_count_everything(engine: Engine) -> None:
    engine.blob(A)
    engine.manifest(B, A, tags=("t",))
    found = engine.read(lambda tx: collect.figures(tx, NOW + 1000))
    assert (found["blobs"], found["manifests"], found["tags"], found["blob_bytes"]) == (1, 1, 1, 3)
    assert found["overdue_seconds"] == 900
