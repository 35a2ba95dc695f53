"""The registry beside distribution, Debian's docker-registry and zot: the same client, the same work."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import os
import pstats
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import servers
from harness import OURS, Attempt, Row, Stage, Study, Target, find, peak, server, told
from servers import Registry

from wire import MANIFEST, Image, Wire, distinct, flood, sha256, together

PEERS = ("registry", "zot", "docker-registry")
GO = ("distribution", "zot")
MEBI = 1_000_000
_numbers = itertools.count()


def images(count: int, size: int) -> list[Image]:
    """Images unlike all others, each for a repository of its own."""
    return [
        Image.of(f"bench/r{number}", distinct(size, number))
        for number in itertools.islice(_numbers, count)
    ]


def gets(one: Registry, seconds: int) -> float:
    """Manifests a second that `wrk` gets over 32 connections."""
    url = f"http://127.0.0.1:{one.port}/v2/bench/one/manifests/v1"
    words = [str(find("wrk")), "-t1", "-c32", f"-d{seconds}s", "-H", f"Accept: {MANIFEST}", url]
    said = told(words)
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    if found is None or "Non-2xx" in said:
        raise SystemExit(f"wrk: {said}")
    return float(found[1])


def heads(one: Registry, seconds: int) -> float:
    """HEAD requests for a manifest a second, over 32 connections; `wrk` waits for a body that does not come."""
    request = f"HEAD /v2/bench/one/manifests/v1 HTTP/1.1\r\nHost: x\r\nAccept: {MANIFEST}\r\n\r\n"
    return flood(one.port, request.encode(), 32, seconds)


@contextlib.contextmanager
def manifests(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """GET and HEAD of one manifest by its tag."""
    seconds = stage.size(4, 1)
    with servers.several(stage, OURS, *GO, "docker-registry") as found:
        for one in found.values():
            Image.of("bench/one", b"layer").push(Wire(one.port))

        def turn(one: Registry) -> dict[str, float]:
            got = {"manifest HEAD": heads(one, seconds)}
            return got | ({"manifest GET": gets(one, seconds)} if find("wrk") else {})

        yield {name: functools.partial(turn, one) for name, one in found.items()}


LOADS = ((1, 30, 1), (10, 300, 1), (50, 300, 1), (10, 20, 10))
"""Clients at a time, images in all, and megabytes of an image's layer."""


def title(verb: str, clients: int, size: int) -> str:
    """The name of a load's row."""
    return f"{verb} {size} MB, {clients} client{'s' * (clients > 1)}"


@contextlib.contextmanager
def pushes(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """Images pushed into repositories of their own."""
    with servers.several(stage, OURS, *GO) as found:

        def turn(one: Registry) -> dict[str, float]:
            got = {}
            for clients, count, size in LOADS:
                made = images(stage.size(count, max(clients, count // 4)), size * MEBI)
                jobs: list[Callable[[Wire], None]] = [image.push for image in made]
                got[title("push", clients, size)] = together(jobs, one.port, clients)
            return got | {"worker memory, pushes": peak(one.pid)}

        yield {name: functools.partial(turn, one) for name, one in found.items()}


@contextlib.contextmanager
def pushes_on_disk(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """The same over a directory of the temporary files' disk, where a sync costs something."""
    with servers.several(
        dataclasses.replace(stage, work=Path(tempfile.gettempdir())), OURS, *GO
    ) as found:

        def turn(one: Registry) -> dict[str, float]:
            jobs: list[Callable[[Wire], None]] = [
                image.push for image in images(stage.size(80, 20), MEBI)
            ]
            return {"push 1 MB, 10 clients, disk": together(jobs, one.port, 10)}

        yield {name: functools.partial(turn, one) for name, one in found.items()}


@contextlib.contextmanager
def pulls(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """The same image pulled again and again: manifest HEAD and GET, config, layer."""
    with servers.several(stage, OURS, *GO) as found:
        made = {size: Image.of(f"bench/m{size}", distinct(size * MEBI, size)) for size in (1, 10)}
        for one in found.values():
            for image in made.values():
                image.push(Wire(one.port))

        def turn(one: Registry) -> dict[str, float]:
            got = {}
            for clients, count, size in LOADS:
                jobs: list[Callable[[Wire], None]] = [made[size].pull] * stage.size(
                    count * 5, count
                )
                got[title("pull", clients, size)] = together(jobs, one.port, clients)
            return got | {"worker memory, pulls": peak(one.pid)}

        yield {name: functools.partial(turn, one) for name, one in found.items()}


@contextlib.contextmanager
def streams(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """One large blob up, and down again."""
    size = stage.size(200, 50) * MEBI
    with servers.several(stage, OURS, *GO) as found:

        def turn(one: Registry) -> dict[str, float]:
            number = next(_numbers)
            data = distinct(size, number)
            digest, wire = sha256(data), Wire(one.port)
            began = time.perf_counter()
            wire.push("bench/big", data, digest)
            up = time.perf_counter() - began
            began = time.perf_counter()
            for _ in range(3):
                wire.want(200, "GET", f"/v2/bench/big/blobs/{digest}")
            down = (time.perf_counter() - began) / 3
            wire.close()
            return {"blob upload": size / up / 1e6, "blob download": size / down / 1e6}

        yield {name: functools.partial(turn, one) for name, one in found.items()}


def fill(one: Registry, count: int) -> None:
    """So many tags of one repository, and so many repositories with a manifest of their own, over the wire."""
    image = Image.of("bench/tags", b"layer")
    wire = Wire(one.port)
    image.push(wire)
    wire.close()

    def tag(number: int, wire: Wire) -> None:
        target = f"/v2/bench/tags/manifests/t{number:06d}"
        wire.want(201, "PUT", target, image.manifest, MANIFEST)

    def repository(number: int, wire: Wire) -> None:
        raw = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json",'
        raw += b'"manifests":[],"annotations":{"number":"%d"}}' % number
        target = f"/v2/r/{number:06d}/manifests/v1"
        wire.want(201, "PUT", target, raw, "application/vnd.oci.image.index.v1+json")

    for job in (tag, repository):
        together([functools.partial(job, number) for number in range(count)], one.port, 16)


LISTS = {
    "tag list, first page": "/v2/bench/tags/tags/list?n=100",
    "tag list, a later page": "/v2/bench/tags/tags/list?n=100&last=t000900",
    "catalog, first page": "/v2/_catalog?n=100",
}


@contextlib.contextmanager
def lists(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """Pages of long lists, and the start with as many manifests."""
    count = stage.size(100_000, 1_000)
    with stage.folder() as folder:
        with servers.running(OURS, folder) as one:
            fill(one, count)

        def turn() -> dict[str, float]:
            with servers.running(OURS, folder) as one:
                got = {"start-up of the registry": one.seconds}
                wire = Wire(one.port)
                for row, target in LISTS.items():
                    times = []
                    for _ in range(9):
                        began = time.perf_counter()
                        wire.want(200, "GET", target)
                        times.append(time.perf_counter() - began)
                    got[row] = statistics.median(times) * 1000
                wire.close()
                return got

        yield {OURS: turn}


@contextlib.contextmanager
def profiled(folder: Path) -> Iterator[tuple[Registry, Callable[[], str]]]:
    """Argosy's registry under a profiler, and what tells the functions that took the most time so far."""
    port, out = servers.free_port(), folder / "profile"
    script = Path(__file__).parents[1] / "profiled_server.py"
    command = [sys.executable, str(script), str(folder / "data"), str(port), str(out)]
    with server(command, lambda: servers.answers(port)) as (pid, seconds):

        def tell() -> str:
            child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[-1]
            os.kill(int(child), signal.SIGUSR1)
            servers.answers(port)  # the handler runs when the worker's loop turns
            deadline = time.monotonic() + 10
            while not out.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)
            text = io.StringIO()
            stats = pstats.Stats(str(out), stream=text).strip_dirs().sort_stats("tottime")
            stats.print_stats(16)
            lines = [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]
            return "\n".join(lines[1:])

        yield Registry(OURS, port, pid, seconds, folder / "data"), tell


def where(load: str) -> Callable[[Stage], str]:
    """The profile of the registry under a load."""

    def profile(stage: Stage) -> str:
        with stage.folder() as folder, profiled(folder) as (one, tell):
            image = Image.of("bench/one", distinct(MEBI, 7))
            wire = Wire(one.port)
            image.push(wire)
            if load == "manifests":
                gets(one, 2) if find("wrk") else heads(one, 2)
            elif load == "push":
                together([made.push for made in images(60, MEBI)], one.port, 10)
            elif load == "lists":
                fill(one, 500)
                for target in [*LISTS.values()] * 50:
                    wire.want(200, "GET", target)
            elif load == "pull":
                together([image.pull] * 300, one.port, 10)
            else:
                data = distinct(100 * MEBI, 8)
                wire.push("bench/big", data, sha256(data))
                for _ in range(4):
                    wire.want(200, "GET", f"/v2/bench/big/blobs/{sha256(data)}")
            wire.close()
            return tell()

    return profile


def loads(verb: str, targets: dict[tuple[int, int], Target]) -> tuple[Row, ...]:
    """The rows of a load."""
    return tuple(
        Row(
            title(verb, clients, size),
            "/s",
            (targets[clients, size],) if (clients, size) in targets else (),
        )
        for clients, _, size in LOADS
    )


STUDIES = (
    Study(
        "manifests",
        "Requests for a manifest by its tag over 32 connections; GET by `wrk`.",
        (
            Row("manifest GET", "/s", (Target(2.5, ("distribution",)),)),
            Row("manifest HEAD", "/s"),
        ),
        manifests,
        (*PEERS, "wrk"),
        profile=where("manifests"),
    ),
    Study(
        "pushes",
        "Images of one layer a second, each new and for a repository of its own (layer, config, manifest: 5 requests).",
        (
            *loads("push", {(10, 1): Target(1, GO)}),
            Row("worker memory, pushes", "MB", (Target(150),)),
        ),
        pushes,
        PEERS[:2],
        runs=7,
        profile=where("push"),
    ),
    Study(
        "pushes on disk",
        "The same where the temporary files are, and a sync to disk is one; argosy acknowledges nothing before it.",
        (Row("push 1 MB, 10 clients, disk", "/s", (Target(1, GO),)),),
        pushes_on_disk,
        PEERS[:2],
        runs=3,
        profile=where("push"),
    ),
    Study(
        "pulls",
        "Images of one layer a second (manifest HEAD and GET, config, layer).",
        (*loads("pull", {}), Row("worker memory, pulls", "MB", (Target(150),))),
        pulls,
        PEERS[:2],
        profile=where("pull"),
    ),
    Study(
        "streams",
        "One connection, a blob of 200 MB up and three times down.",
        (
            Row("blob upload", "MB/s", (Target(1, ("distribution",)),)),
            Row("blob download", "MB/s", (Target(0.6, ("distribution",)),)),
        ),
        streams,
        PEERS[:2],
        profile=where("stream"),
    ),
    Study(
        "lists",
        "A repository of 100 000 tags, 100 000 repositories and manifests; after each start, nine requests a page.",
        (
            Row("tag list, first page", "ms", (Target(10),)),
            Row("tag list, a later page", "ms", (Target(10),)),
            Row("catalog, first page", "ms", (Target(10),)),
            Row("start-up of the registry", "s", (Target(1),)),
        ),
        lists,
        profile=where("lists"),
    ),
)
