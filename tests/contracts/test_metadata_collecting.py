"""What every `Metadata` engine promises of collecting what nothing refers to."""

from __future__ import annotations

import functools

import pytest

from argosy.errors import (
    BlobUnknownError,
)
from argosy.server.metadata import (
    blobs,
    collect,
    manifests,
    repositories,
)
from argosy.server.metadata.collect import Item
from tests.contracts.engines import CHANGE, NOW, A, B, Engine

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
