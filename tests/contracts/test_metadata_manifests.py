"""What every `Metadata` engine promises of manifests, tags and referrers."""

from __future__ import annotations

import functools
import json

import pytest

from argosy.errors import (
    ConflictError,
    DeniedError,
    InvalidManifestError,
    ManifestBlobUnknownError,
    ManifestUnknownError,
    UnsupportedError,
)
from argosy.server.metadata import (
    Transaction,
    blobs,
    manifests,
    schema,
)
from tests.contracts.engines import CHANGE, NOW, A, B, C, Engine, make

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
