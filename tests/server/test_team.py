"""Workers of one server: limits and figures are the server's, whichever of them is asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from argosy.errors import StorageError, TooManyRequestsError
from argosy.server.front import Limiter
from argosy.server.settings import Limits, Settings
from argosy.server.team import Seat, Team, assembled
from argosy.server.telemetry import Counters, Telemetry
from argosy.server.visit import Visit
from tests.server.process import Process, children


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with assembled(str(tmp_path), 2) as made:
        assert made is not None
        yield made


def leave(seat: Seat) -> None:
    """What the kernel does when a worker dies."""
    os.close(seat._held)
    if seat._lead >= 0:
        os.close(seat._lead)


# -- places ---------------------------------------------------------------------------------------


def test_a_full_disk_ends_no_worker_that_writes_to_a_table(team: Team) -> None:
    for file in Path(team.folder).iterdir():
        found = file.stat()
        assert found.st_blocks * 512 >= found.st_size


def test_a_new_worker_takes_the_place_where_the_fewest_sit(team: Team) -> None:
    seats = [Seat(team) for _ in range(2)]
    assert [seat.place for seat in seats] == [0, 1]
    successors = [Seat(team) for _ in range(2)]
    assert sorted(seat.place for seat in successors) == [0, 1]
    for seat in seats:
        leave(seat)
    for dying in successors:
        left = dying.place
        leave(dying)
        assert Seat(team).place == left


# -- limits -----------------------------------------------------------------------------------------


def test_requests_under_way_are_counted_in_all_workers_together(team: Team) -> None:
    limits = Limits(concurrency=3, concurrency_per_client=2)
    one, two = Limiter(limits, Seat(team)), Limiter(limits, Seat(team))
    first = Visit(client="a")
    one.enter(first)
    two.enter(Visit(client="a"))
    for limiter in (one, two):
        with pytest.raises(TooManyRequestsError, match="too many requests under way"):
            limiter.enter(Visit(client="a"))
    two.enter(Visit(client="b"))
    for limiter in (one, two):
        with pytest.raises(TooManyRequestsError, match="busy"):
            limiter.enter(Visit(client="c"))
    one.leave(first)
    two.rename(Visit(client="b"), "user c")
    two.enter(Visit(client="a"))


def test_a_rate_is_that_of_all_workers_together(team: Team) -> None:
    now = [1000.0]
    limits = Limits(requests_per_second=2.0, burst=10)
    workers = [Limiter(limits, Seat(team), lambda: now[0]) for _ in range(2)]
    for number in range(10):
        workers[number % 2].enter(Visit(client="a"))
    for worker in workers:
        with pytest.raises(TooManyRequestsError) as caught:
            worker.enter(Visit(client="a"))
        assert caught.value.retry_after == pytest.approx(0.5)
        worker.enter(Visit(client="b"))
    now[0] += 0.5
    workers[0].enter(Visit(client="a"))
    with pytest.raises(TooManyRequestsError):
        workers[1].enter(Visit(client="a"))


def test_what_a_dead_worker_had_under_way_is_over_when_the_next_one_comes(team: Team) -> None:
    limits = Limits(concurrency_per_client=1)
    staying, dying = Seat(team), Seat(team)
    Limiter(limits, dying).enter(Visit(client="a"))
    limiter = Limiter(limits, staying)
    with pytest.raises(TooManyRequestsError):
        limiter.enter(Visit(client="a"))
    leave(dying)
    Seat(team)
    limiter.enter(Visit(client="a"))


def test_there_are_seats_for_the_workers_that_follow_before_the_old_ones_have_gone(
    team: Team,
) -> None:
    seats = [Seat(team) for _ in range(4)]
    with pytest.raises(StorageError, match="no seat is free"):
        Seat(team)
    leave(seats[2])
    Seat(team)


# -- figures ----------------------------------------------------------------------------------------


def counted(seat: Seat, number: int) -> Telemetry:
    """The figures of a worker that has answered as many requests."""
    telemetry = Telemetry(Settings(), seat=seat)
    telemetry._counters.requests["ping", "GET", 200] += number
    telemetry._counters.timings["ping", "GET"].add(0.5)
    telemetry._counters.bytes["sent"] += 2 * number
    telemetry._is_told = False
    return telemetry


def total(telemetry: Telemetry) -> tuple[int, int, float]:
    found: Counters = telemetry._of_all()
    timing = found.timings["ping", "GET"]
    return found.requests["ping", "GET", 200], sum(timing.counts), timing.seconds


def test_figures_are_those_of_all_workers(team: Team) -> None:
    one, two = counted(Seat(team), 3), counted(Seat(team), 4)
    assert total(one) == (3, 1, 0.5)
    assert total(two) == (7, 2, 1.0)
    assert total(one) == (7, 2, 1.0)
    assert one._of_all().bytes == {"received": 0, "sent": 14}


def test_figures_of_a_dead_worker_are_kept_and_its_successor_goes_on_with_them(team: Team) -> None:
    staying, dying = counted(Seat(team), 3), counted(seat := Seat(team), 4)
    dying._tell()
    leave(seat)
    assert total(staying) == (7, 2, 1.0)
    successor = counted(Seat(team), 5)
    assert total(successor) == total(staying) == (12, 3, 1.5)


def test_figures_of_a_worker_that_is_alone_are_its_own() -> None:
    assert total(counted(Seat(), 3)) == (3, 1, 0.5)
    assert total(counted(Seat(), 4)) == (4, 1, 0.5)


def test_figures_that_cannot_be_written_stop_nobody(tmp_path: Path) -> None:
    with assembled(str(tmp_path), 2) as team:
        assert team is not None
        telemetry = counted(Seat(team), 3)
    assert total(telemetry) == (3, 1, 0.5)


# -- what is done once ------------------------------------------------------------------------------


def test_one_worker_is_elected_and_another_when_it_dies(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.server.team._ELECTION_SECONDS", 0.0)
    first, second = Seat(team), Seat(team)

    async def run() -> None:
        await first.elected()
        await first.elected()
        waiting = asyncio.ensure_future(second.elected())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        leave(first)
        await waiting

    asyncio.run(run())


def test_one_worker_is_the_first(team: Team) -> None:
    assert [seat.is_first() for seat in (Seat(team), Seat(team))] == [True, False]
    assert Seat().is_first()


# -- the directory ----------------------------------------------------------------------------------


def test_nothing_is_left_when_the_server_ends(tmp_path: Path) -> None:
    with assembled(str(tmp_path), 2) as team:
        Seat(team)
        assert os.stat(next((tmp_path / "workers").iterdir())).st_mode & 0o077 == 0
    assert list((tmp_path / "workers").iterdir()) == []
    with assembled(str(tmp_path / "none"), 1) as team:
        assert team is None
    assert not (tmp_path / "none").exists()


_STOPPED = """
import os, signal, sys
from argosy.server import serve, team
from argosy.server.settings import Listen, Settings
where = {"serve": serve, "team": team}[sys.argv[2]]
setattr(where, sys.argv[3], lambda *_: os.kill(os.getpid(), signal.SIGTERM))
serve.serve(Settings(data=sys.argv[1], listen=Listen(port=0, workers=2)))
"""


@pytest.mark.parametrize("where", [("serve", "_granian"), ("team", "_furnish")])
def test_nothing_is_left_when_the_server_is_stopped_before_it_serves(
    tmp_path: Path, where: tuple[str, str]
) -> None:
    program = [sys.executable, "-c", _STOPPED, str(tmp_path), *where]
    assert subprocess.run(program, check=False, timeout=30).returncode == 0
    assert list((tmp_path / "workers").iterdir()) == []


def test_what_killed_servers_left_behind_goes_and_what_is_used_stays(tmp_path: Path) -> None:
    with assembled(str(tmp_path), 2) as team:
        assert team is not None
        dead = tmp_path / "workers" / "server-dead"
        orphans = tmp_path / "workers" / "server-orphans"
        for folder in (dead, orphans):
            folder.mkdir()
            for number in ("0", "1"):
                (folder / number).write_bytes(bytes(1 << 16))
            (folder / "door").touch()
            os.utime(folder, (0, 0))
        os.utime(team.folder, (0, 0))
        worker = Seat(Team(str(orphans), 1, b""))  # its main process is gone, and it serves on
        with assembled(str(tmp_path), 2):
            assert not dead.exists()
            assert orphans.exists()
            assert os.path.exists(team.folder)
        leave(worker)


def test_without_a_data_directory_workers_share_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    for data in (None, str(tmp_path / "file")):
        with assembled(data, 2) as team:
            assert team is not None
            assert os.path.dirname(team.folder) == str(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="file"), assembled(None, 2):
        pass


# -- as processes -----------------------------------------------------------------------------------


def pings(server: Process) -> float:
    text = server.ask("GET", "/metrics")[2].decode()
    found = re.search(
        r'argosy_requests_total\{method="GET",route="ping",status="200"\} ([\d.]+)', text
    )
    return float(found[1]) if found else 0.0


def until(server: Process, expected: float) -> None:
    """Wait until every worker's figures have reached the others."""
    deadline = time.monotonic() + 30
    seen = 0.0
    while seen < expected:
        assert time.monotonic() < deadline, f"{seen} of {expected} requests are counted"
        with contextlib.suppress(OSError):  # a connection that waited for the worker that died
            now = pings(server)
            assert now >= seen
            seen = now
    assert seen == expected


def test_metrics_tell_the_whole_server_also_when_a_worker_dies(tmp_path: Path) -> None:
    with Process(str(tmp_path), workers=2) as server:
        for _ in range(40):
            assert server.ask("GET", "/v2/")[0] == 200
        until(server, 40)
        dead, other = children(server.pid)
        os.kill(dead, signal.SIGKILL)
        within(lambda: len({*children(server.pid)} - {dead, other}) == 1)
        answered = 0
        while answered < 40:
            with contextlib.suppress(OSError):
                answered += server.ask("GET", "/v2/")[0] == 200
        until(server, 80)
        assert server.stop() == 0
    left = [path.name for path in (tmp_path / "workers").iterdir()]
    assert not [name for name in left if name.startswith("server-")]


def test_a_worker_that_dies_again_or_after_a_reload_ends_nobody_else(tmp_path: Path) -> None:
    with Process(str(tmp_path), workers=2) as server:
        before = {*children(server.pid)}
        os.kill(server.pid, signal.SIGHUP)
        within(
            lambda: len({*children(server.pid)} - before) == 2 and len(children(server.pid)) == 2
        )
        for _ in range(3):
            alive = {*children(server.pid)}
            dead = max(alive)
            os.kill(dead, signal.SIGKILL)
            within(lambda: len({*children(server.pid)} - {dead}) == 2)  # noqa: B023
            assert len({*children(server.pid)} & alive) == 1
        assert server.ask("GET", "/v2/")[0] == 200
        assert server.stop() == 0


def test_workers_do_not_outlive_the_main_process(tmp_path: Path) -> None:
    with Process(str(tmp_path), workers=2) as server, contextlib.ExitStack() as stack:
        workers = [os.pidfd_open(pid) for pid in children(server.pid)]
        assert len(workers) == 2
        for fd in workers:
            stack.callback(os.close, fd)
        os.kill(server.pid, signal.SIGKILL)
        for fd in workers:
            assert select.select([fd], [], [], 30)[0]
        server.kill()


CPUS = os.sched_getaffinity(0)


def within(condition: Callable[[], object]) -> None:
    """Return when something has come true."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.skipif(len(CPUS) < 2, reason="this machine has one CPU")
def test_where_every_cpu_has_a_worker_each_keeps_to_its_own(tmp_path: Path) -> None:
    with Process(str(tmp_path), workers=len(CPUS)) as server:
        within(lambda: len(children(server.pid)) == len(CPUS))
        workers = children(server.pid)
        within(lambda: all(len(os.sched_getaffinity(worker)) == 1 for worker in workers))
        assert set[int].union(*map(os.sched_getaffinity, workers)) == CPUS
        freed = os.sched_getaffinity(workers[0])
        os.kill(workers[0], signal.SIGKILL)
        within(lambda: {*children(server.pid)} - {*workers})
        (successor,) = {*children(server.pid)} - {*workers}
        within(lambda: os.sched_getaffinity(successor) == freed)
        assert os.sched_getaffinity(server.pid) == CPUS


@pytest.mark.skipif(len(CPUS) < 2, reason="this machine has one CPU")
def test_a_worker_that_is_alone_runs_where_there_is_room(tmp_path: Path) -> None:
    with Process(str(tmp_path)) as server:
        assert server.ask("GET", "/v2/")[0] == 200
        assert [os.sched_getaffinity(worker) for worker in children(server.pid)] == [CPUS]
