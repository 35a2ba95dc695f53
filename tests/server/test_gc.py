"""Upkeep: collecting while pushes go on, the trash, the scrub."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from argosy.errors import BlobUnknownError, StorageError
from argosy.server import gc, marker
from argosy.server.gc import ScrubReport, Upkeep
from argosy.server.metadata import collect
from argosy.server.metadata.blobs import Segment
from argosy.server.settings import Collection, Settings
from argosy.server.storage import InsufficientStorageError, UnavailableError
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


def test_an_image_whose_tag_moved_on_goes_where_the_policy_says_so(tmp_path: Any) -> None:
    with Server(str(tmp_path), settings=Settings(gc=Collection(untagged=True))) as server:
        old = server.push_image("a", "t", b"layer")
        pass_time(server, 100_000)
        new = server.push_manifest("a", index(), "t")
        pass_time(server, 86_000)
        assert server.ask("GET", f"/v2/a/manifests/{old}").status == 200
        pass_time(server, 86_401)
        assert server.ask("GET", f"/v2/a/manifests/{old}").status == 404
        assert server.ask("GET", f"/v2/a/manifests/{new}").status == 200


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


@pytest.mark.parametrize("error", [UnavailableError("away"), InsufficientStorageError("full")])
def test_a_database_that_fails_ends_the_pass_and_is_no_items_fault(
    server: Server, monkeypatch: pytest.MonkeyPatch, error: StorageError
) -> None:
    server.push_blob("a", b"layer")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as failing:
        failing.setattr(collect, "settle", fail)
        with pytest.raises(type(error)):
            pass_time(server, 86_401)
    assert server.rows("SELECT max(attempts) FROM review") == [(0,)]
    assert pass_time(server, 0).collected


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


def test_days_are_swept_again_after_a_clock_was_put_back(server: Server) -> None:
    server.clock.now += 1e9  # type: ignore[attr-defined]
    server.run(server.upkeep.collect())
    server.clock.now -= 1e9  # type: ignore[attr-defined]
    server.run(server.upkeep.collect())
    test_objects_a_power_cut_made_nobodys_are_swept_by_day(server)


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


class Moody(FileSystem):
    """A storage that does not read: `away` as a volume that is not mounted, or with an error of the system."""

    away = False
    error: int | None = None

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        if self.error is not None and key.startswith("b/"):
            raise StorageError(f"object {key}: {os.strerror(self.error)}")
        if self.away:
            raise BlobUnknownError(f"object {key} is not in the storage")
        return super().read(key, start, stop)


@pytest.fixture
def moody(tmp_path: Any) -> Iterator[tuple[Server, Moody]]:
    storage = Moody(f"{tmp_path}/blobs", reserve=0)
    with Server(str(tmp_path), storage=storage) as server:
        server.push_image("a", "t", b"layer")
        server.push_blob("a", b"empty"[:0])
        server.clock.now += 1  # type: ignore[attr-defined]
        yield server, storage


def scrub(server: Server) -> ScrubReport:
    server.clock.now += 1  # type: ignore[attr-defined]
    report: ScrubReport = server.run(server.upkeep.scrub(older_than=0))
    return report


@pytest.mark.parametrize("scrubbed_before", [False, True])
def test_a_storage_that_is_away_is_no_damage(
    moody: tuple[Server, Moody], scrubbed_before: bool
) -> None:
    server, storage = moody
    if scrubbed_before:
        assert scrub(server).damaged == []
    storage.away = True
    with pytest.raises(StorageError, match="mounted"):
        scrub(server)
    assert server.rows("SELECT count(*) FROM blob WHERE state = 'damaged'") == [(0,)]
    storage.away = False
    assert head(server, LAYER) == 200
    assert scrub(server) == ScrubReport(blobs=3, bytes=7)


def test_a_storage_that_goes_while_it_is_scrubbed_is_no_damage(moody: tuple[Server, Moody]) -> None:
    server, storage = moody
    scrub(server)
    check = server.run(server.registry.metadata.read(lambda tx: collect.unverified(tx, 1e12, 1)))[0]
    storage.away = True
    with pytest.raises(StorageError, match="mounted"):
        server.run(server.upkeep._problem(check._replace(segments=(Segment("b/20270101/x-1", 1),))))


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE, errno.EACCES])
def test_an_error_of_the_system_is_no_damage_and_is_tried_again(
    moody: tuple[Server, Moody], error: int, caplog: pytest.LogCaptureFixture
) -> None:
    server, storage = moody
    storage.error = error
    if error == errno.EIO:
        scrub_with_marker(server)
    report = scrub_with_marker(server)
    assert (report.unreadable, report.damaged) == (2, [])
    assert "cannot be read" in caplog.text
    storage.error = None
    assert scrub(server).bytes == 7
    assert head(server, LAYER) == 200


def scrub_with_marker(server: Server) -> ScrubReport:
    if not marker.is_marked(server.registry.storage):
        marker._mark(server.registry.storage)
    return scrub(server)


def test_an_error_that_stays_does_not_keep_the_others_from_their_turn(tmp_path: Any) -> None:
    storage = Moody(f"{tmp_path}/blobs", reserve=0)
    with Server(str(tmp_path), storage=storage) as server:
        for number in range(60):
            server.push_blob("a", b"%d" % number)
        keys = [row[0] for row in server.rows("SELECT key FROM blob_segment ORDER BY digest")]
        marker._mark(storage)
        bad = set(keys[:55])
        good = storage.read
        storage.read = lambda key, *more: good("x" if key in bad else key, *more)  # type: ignore[method-assign]
        report = scrub(server)
        assert (report.blobs, report.unreadable) == (60, 55)


def test_a_blob_that_comes_back_is_healed_by_the_next_scrub(server: Server) -> None:
    server.push_image("a", "t", b"layer")
    key = server.rows("SELECT key FROM blob_segment WHERE digest = ?", (LAYER,))[0][0]
    path = server.registry.storage.locate(key).path
    assert path is not None
    os.rename(path, path + "-away")
    server.clock.now += 1  # type: ignore[attr-defined]
    assert scrub(server).damaged == [LAYER]
    assert scrub(server).damaged == [LAYER]
    events = server.rows("SELECT count(*) FROM event WHERE kind = 'blob.damaged'")
    assert events == [(1,)]
    os.rename(path + "-away", path)
    report = scrub(server)
    assert (report.healed, report.damaged) == ([LAYER], [])
    assert head(server, LAYER) == 200
    assert scrub(server).healed == []


def test_a_pass_in_the_background_survives_a_storage_that_is_away(
    moody: tuple[Server, Moody], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server, storage = moody
    storage.away = True
    server.registry.settings = Settings(gc=Collection(interval_seconds=0.01))
    server.clock.now += 40 * 86_400  # type: ignore[attr-defined]

    async def until_said() -> None:
        task = asyncio.ensure_future(gc.run(server.registry))
        async with asyncio.timeout(10):
            while "the scrub is put off" not in caplog.text:
                await asyncio.sleep(0.001)
        assert not task.done()
        task.cancel()

    server.run(until_said())
    assert server.rows("SELECT count(*) FROM blob WHERE state = 'damaged'") == [(0,)]


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
