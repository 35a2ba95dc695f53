"""Several registries over one database and one object store, as real processes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import pathlib
import signal
import threading
from collections.abc import Iterator

import pytest

from argosy.spec.digest import Digest
from tests.server.client import image
from tests.server.replicas import Running, ask, round_robin, running, shared, two_replicas
from tests.server.services import PostgresqlCluster, S3Server

MANIFEST = {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}


def push_blob(address: str, name: str, content: bytes, chunk: int | None = None) -> Digest:
    begun = ask(address, "POST", f"/v2/{name}/blobs/uploads/")
    assert begun.status == 202
    location, digest = begun.headers["location"], Digest.of(content)
    step = chunk or len(content)
    for at in range(0, len(content), step) if chunk else ():
        piece = content[at : at + step]
        sent = ask(
            address, "PATCH", location, piece, {"Content-Range": f"{at}-{at + len(piece) - 1}"}
        )
        assert sent.status == 202, sent
        location = sent.headers["location"]
    done = ask(address, "PUT", f"{location}?digest={digest}", b"" if chunk else content)
    assert done.status == 201, done
    return digest


@pytest.fixture(scope="module")
def replicas(
    tmp_path_factory: pytest.TempPathFactory, postgresql: PostgresqlCluster, objects: S3Server
) -> Iterator[tuple[Running, Running]]:
    with two_replicas(tmp_path_factory.mktemp("replicas"), postgresql, objects) as made:
        yield made


def test_an_upload_hops_from_one_replica_to_the_other_and_back(
    replicas: tuple[Running, Running],
) -> None:
    content = bytes(range(256)) * 4096
    with round_robin([replica.address for replica in replicas]) as front:
        digest = push_blob(front.address, "hop/app", content, chunk=100_000)
        assert all(served >= 5 for served in front.served.values())
    for replica in replicas:
        answer = ask(replica.address, "GET", f"/v2/hop/app/blobs/{digest}")
        assert answer.body == content
        part = ask(
            replica.address,
            "GET",
            f"/v2/hop/app/blobs/{digest}",
            headers={"Range": "bytes=99990-100009"},
        )
        assert part.body == content[99990:100010]


def test_a_chunk_out_of_order_at_another_replica_is_refused_and_the_session_survives(
    replicas: tuple[Running, Running],
) -> None:
    one, two = (replica.address for replica in replicas)
    location = ask(one, "POST", "/v2/hop/app/blobs/uploads/").headers["location"]
    location = ask(one, "PATCH", location, b"0123", {"Content-Range": "0-3"}).headers["location"]
    assert ask(two, "PATCH", location, b"89", {"Content-Range": "8-9"}).status == 416
    state = ask(two, "GET", location)
    assert (state.status, state.headers["range"]) == (204, "0-3")
    location = ask(two, "PATCH", location, b"4567", {"Content-Range": "4-7"}).headers["location"]
    assert ask(one, "PUT", f"{location}?digest={Digest.of(b'01234567')}").status == 201


def test_what_one_replica_answered_the_other_knows_at_once(
    replicas: tuple[Running, Running],
) -> None:
    one, two = (replica.address for replica in replicas)
    push_blob(one, "seen/app", b"{}")
    raw = image()
    assert ask(one, "PUT", "/v2/seen/app/manifests/v1", raw, MANIFEST).status == 201
    assert ask(two, "GET", "/v2/seen/app/manifests/v1").body == raw
    assert ask(two, "DELETE", "/v2/seen/app/manifests/v1").status == 202
    assert ask(one, "GET", "/v2/seen/app/manifests/v1").status == 404


def test_the_same_blob_pushed_everywhere_at_once_is_kept_once(
    replicas: tuple[Running, Running],
) -> None:
    content = b"the same" * 50_000
    addresses = [replica.address for replica in replicas]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        futures = [
            pool.submit(push_blob, addresses[n % 2], f"same/r{n % 5}", content) for n in range(30)
        ]
        digests = {future.result() for future in futures}
    assert digests == {Digest.of(content)}
    for number in range(5):
        answer = ask(addresses[number % 2], "GET", f"/v2/same/r{number}/blobs/{Digest.of(content)}")
        assert answer.body == content


def test_a_tag_that_many_want_goes_to_exactly_one(replicas: tuple[Running, Running]) -> None:
    """`If-None-Match: *` is a compare-and-swap across replicas."""
    addresses = [replica.address for replica in replicas]
    push_blob(addresses[0], "race/app", b"{}")
    barrier = threading.Barrier(8)

    def put(number: int) -> int:
        barrier.wait(20)
        raw = image(annotations={"n": str(number)})
        headers = {**MANIFEST, "If-None-Match": "*"}
        return ask(addresses[number % 2], "PUT", "/v2/race/app/manifests/mine", raw, headers).status

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(put, range(8)))
    assert statuses == [201] + [412] * 7


def test_a_replica_that_is_killed_loses_nothing_it_has_answered(
    tmp_path: pathlib.Path, postgresql: PostgresqlCluster, objects: S3Server
) -> None:
    document = shared(postgresql, objects)
    answered: list[tuple[str, Digest]] = []
    lock = threading.Lock()
    with running(tmp_path / "one", document) as survivor:
        victim = Running(tmp_path / "two", document)

        def push(worker: int) -> None:
            for number in range(100):
                content = f"{worker} {number} ".encode() * 2000
                try:
                    digest = push_blob(victim.address, f"kill/r{worker}", content)
                except (OSError, http.client.HTTPException):
                    return
                with lock:
                    answered.append((f"kill/r{worker}", digest))
                    if len(answered) == 40:
                        os.killpg(victim.process.pid, signal.SIGKILL)  # its workers, too

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(push, worker) for worker in range(4)]:
                future.result()
        victim.stop()
        assert 40 <= len(answered) < 400
        for name, digest in answered:
            found = ask(survivor.address, "GET", f"/v2/{name}/blobs/{digest}")
            assert found.status == 200
            assert Digest.of(found.body) == digest


def test_a_stop_lets_a_body_under_way_finish(
    tmp_path: pathlib.Path, postgresql: PostgresqlCluster, objects: S3Server
) -> None:
    with running(tmp_path / "one", shared(postgresql, objects)) as server:
        content = b"0123456789" * 300_000
        location = ask(server.address, "POST", "/v2/a/blobs/uploads/").headers["location"]
        host, _, port = server.address.rpartition(":")
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as sending:
            sending.putrequest("PUT", f"{location}?digest={Digest.of(content)}")
            sending.putheader("Content-Length", str(len(content)))
            sending.putheader("Expect", "100-continue")
            sending.endheaders()
            # It is told to go on once the body is waited for: a connection that nobody took yet ends with the listener.
            assert sending.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sending.send(content[:1_500_000])
            server.process.send_signal(signal.SIGTERM)
            sending.send(content[1_500_000:])
            assert sending.getresponse().status == 201
        assert server.process.wait(30) == 0


def test_replicas_answer_that_they_live_and_are_ready(replicas: tuple[Running, Running]) -> None:
    for replica in replicas:
        host, _, port = replica.address.rpartition(":")
        # One connection is one worker's: what it has counted just now the others are told within a second.
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as kept:
            for path in ("/livez", "/readyz"):
                kept.request("GET", path)
                answer = kept.getresponse()
                assert (answer.status, json.load(answer)) == (200, {"status": "ok"})
            kept.request("GET", "/metrics")
            figures = kept.getresponse().read().decode()
        assert 'argosy_requests_total{method="GET",route="livez",status="200"}' in figures
        assert "argosy_trash_bytes" in figures
