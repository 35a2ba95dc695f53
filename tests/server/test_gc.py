"""Upkeep: collecting while pushes go on, the trash, the scrub."""

from __future__ import annotations

import os
from typing import Any

import pytest

from argosy.errors import BlobUnknownError, StorageError
from argosy.server.gc import Upkeep
from argosy.server.settings import Collection, Settings
from argosy.server.storage.filesystem import FileSystem
from argosy.spec.digest import Digest
from tests.server.client import Server, image, index, subject

LAYER = Digest.of(b"layer")


def pass_time(server: Server, seconds: float) -> Any:
    server.clock.now += seconds  # type: ignore[attr-defined]
    return server.run(server.upkeep.collect())


def objects(server: Server) -> list[str]:
    return list(server.registry.storage.keys("b/"))


def head(server: Server, digest: str, name: str = "a") -> int:
    return server.ask("GET", f"/v2/{name}/blobs/{digest}").status


def test_a_blob_nobody_refers_to_lives_its_grace_and_no_longer(server: Server) -> None:
    server.push_blob("a", b"layer")
    pass_time(server, 86_399)
    assert server.rows("SELECT count(*) FROM repo_blob") == [(1,)]
    pass_time(server, 2)
    assert head(server, LAYER) == 404
    assert len(objects(server)) == 1
    pass_time(server, 86_401)
    assert objects(server) == []


def test_what_an_image_needs_is_never_collected(server: Server) -> None:
    server.push_image("a", "t", b"layer")
    for _ in range(5):
        pass_time(server, 100_000)
    assert head(server, LAYER) == 200
    assert server.rows("SELECT count(*) FROM review") == [(0,)]


def test_a_deleted_image_gives_its_blobs_up(server: Server) -> None:
    digest = server.push_image("a", "t", b"layer")
    pass_time(server, 100_000)
    server.ask("DELETE", f"/v2/a/manifests/{digest}")
    pass_time(server, 86_000)
    assert head(server, LAYER) == 200
    pass_time(server, 86_401)
    assert head(server, LAYER) == 404
    pass_time(server, 86_401)
    assert objects(server) == []


def test_work_is_in_proportion_to_what_changed(server: Server) -> None:
    for number in range(30):
        server.push_image(f"r{number}", "t", b"layer %d" % number)
    pass_time(server, 100_000)
    digest = server.ask("HEAD", "/v2/r7/manifests/t").header("docker-content-digest")
    server.ask("DELETE", f"/v2/r7/manifests/{digest}")
    assert pass_time(server, 86_401).reviewed <= 8


def test_untagged_manifests_go_with_their_referrers_where_the_policy_says_so(tmp_path: Any) -> None:
    settings = Settings(gc=Collection(untagged=True))
    with Server(str(tmp_path), settings=settings) as server:
        child = server.push_image("a", None, b"layer")
        parent = server.push_manifest("a", index(child), "t")
        referrer = server.push_manifest("a", image(subject=subject(parent)))
        of_referrer = server.push_manifest("a", image(subject=subject(referrer)))
        pass_time(server, 86_401)
        server.ask("DELETE", "/v2/a/manifests/t")
        pass_time(server, 86_400 / 2)
        assert server.ask("HEAD", f"/v2/a/manifests/{child}").status == 200
        for _ in range(4):  # an index, then what it listed, then what referred to it
            pass_time(server, 86_401)
        for digest in (parent, child, referrer, of_referrer):
            assert server.ask("HEAD", f"/v2/a/manifests/{digest}").status == 404
        for _ in range(3):
            pass_time(server, 90_000)
        assert objects(server) == []
        assert server.rows("SELECT count(*) FROM repository") == [(0,)]


def test_a_dry_run_counts_and_changes_nothing(server: Server) -> None:
    server.push_blob("a", b"layer")
    server.clock.now += 86_401  # type: ignore[attr-defined]
    report = server.run(server.upkeep.collect(dry_run=True))
    assert report.collected == 1
    assert server.rows("SELECT count(*) FROM repo_blob") == [(1,)]
    assert server.run(server.upkeep.collect()).collected == 3


def test_one_bad_item_does_not_stop_the_others(server: Server) -> None:
    server.push_blob("a", b"layer")
    server.rows("SELECT 1")
    server.run(
        server.registry.metadata.write(
            lambda tx: tx.rows(
                "INSERT INTO review (repo_id, kind, digest, review_after) VALUES (0, 'nonsense', 'x', 0)"
            )
        )
    )
    report = pass_time(server, 86_401)
    assert report.failed == 1
    assert head(server, LAYER) == 404
    assert server.rows("SELECT attempts FROM review WHERE kind = 'nonsense'") == [(1,)]


class Stubborn(FileSystem):
    refuses = True

    def delete(self, keys: Any) -> None:
        if self.refuses and keys:
            raise StorageError("the disk does not answer")
        super().delete(keys)


def test_objects_that_cannot_be_deleted_are_tried_again(tmp_path: Any) -> None:
    storage = Stubborn(f"{tmp_path}/blobs", reserve=0)
    with Server(str(tmp_path), storage=storage) as server:
        server.push_blob("a", b"layer")
        pass_time(server, 86_401)
        assert pass_time(server, 86_401).objects_deleted == 0
        storage.refuses = False
        assert pass_time(server, 601).objects_deleted == 1
        assert objects(server) == []


def test_a_collected_blob_can_be_brought_back_within_its_window(server: Server) -> None:
    server.push_blob("a", b"layer")
    pass_time(server, 86_401)
    assert head(server, LAYER) == 404
    server.run(server.upkeep.undelete("a", LAYER))
    assert server.ask("GET", f"/v2/a/blobs/{LAYER}").body == b"layer"
    pass_time(server, 86_401)
    pass_time(server, 86_401)
    with pytest.raises(BlobUnknownError):
        server.run(server.upkeep.undelete("a", LAYER))


def test_a_push_of_collected_content_never_meets_the_old_objects(server: Server) -> None:
    server.push_blob("a", b"layer")
    pass_time(server, 86_401)
    server.push_image("a", "t", b"layer")
    pass_time(server, 86_401)
    assert server.ask("GET", f"/v2/a/blobs/{LAYER}").body == b"layer"
    assert len(objects(server)) == 2  # the layer and the config


def test_objects_a_power_cut_made_nobodys_are_swept_by_day(server: Server) -> None:
    server.run(server.upkeep.collect())
    moment = server.clock()
    stray = f"b/20270116/{'0' * 8}-0000-7000-8000-{'0' * 12}-1"
    assert moment < 1_800_100_000
    writer = server.registry.storage.create(stray)
    writer.write(b"x")
    writer.commit()
    server.push_image("a", "t", b"layer")
    for _ in range(4):
        pass_time(server, 86_400)
    assert stray not in objects(server)
    assert head(server, LAYER) == 200


@pytest.mark.parametrize("how", ["changed", "gone", "short"])
def test_the_scrub_finds_damage_and_the_next_push_heals_it(server: Server, how: str) -> None:
    server.push_image("a", "t", b"layer")
    key = server.rows("SELECT key FROM blob_segment WHERE digest = ?", (LAYER,))[0][0]
    path = server.registry.storage.locate(key).path
    assert path is not None
    if how == "gone":
        os.unlink(path)
    else:
        with open(path, "r+b") as file:
            file.write(b"LAYER") if how == "changed" else file.truncate(2)
    server.clock.now += 1  # type: ignore[attr-defined]
    report = server.run(server.upkeep.scrub(older_than=0))
    assert report.damaged == [LAYER]
    assert server.rows("SELECT digest FROM blob WHERE state = 'damaged'") == [(LAYER,)]
    assert report.blobs == 2
    assert head(server, LAYER) == 404
    assert server.ask("GET", f"/v2/a/blobs/{LAYER}").code == "BLOB_UNKNOWN"
    server.push_blob("a", b"layer")
    assert server.ask("GET", f"/v2/a/blobs/{LAYER}").body == b"layer"


def test_a_damaged_blob_is_not_taken_for_a_known_one(server: Server) -> None:
    server.push_blob("a", b"layer")
    server.run(
        server.registry.metadata.write(lambda tx: tx.rows("UPDATE blob SET state = 'damaged'"))
    )
    answer = server.ask("POST", f"/v2/b/blobs/uploads/?mount={LAYER}&from=a", b"")
    assert answer.status == 202
    assert server.put_manifest("a", image(LAYER), "t").code == "MANIFEST_BLOB_UNKNOWN"
    server.push_blob("b", b"layer")
    assert head(server, LAYER) == head(server, LAYER, "b") == 200


def test_the_upkeep_works_without_a_server(server: Server) -> None:
    registry = server.registry
    upkeep = Upkeep(registry.metadata, registry.storage, Collection(grace_seconds=0), server.clock)
    server.push_blob("a", b"layer")
    stats = server.run(upkeep.stats())
    assert (stats["blobs"], stats["blob_bytes"]) == (1, 5)
    server.clock.now += 90_000  # type: ignore[attr-defined]
    assert server.run(upkeep.collect()).collected_bytes == 5
