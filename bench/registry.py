"""Compare registries on one machine: the same client, alternating runs, medians, ratios to the first peer.

    python bench/registry.py [--peer /path/to/registry] [--zot /path/to/zot] [--runs 3] [--seconds 2]

Starts `argosy serve` and the peers it is given (distribution v3's `registry`, zot) on free ports over fresh
directories, seeds each with the same image, and measures: manifest GET by tag (requests/s, needs `wrk`), pushes of
1 MB blobs by ten clients (per second), one stream up and one down (MB/s). For argosy alone: the first page of a list
of many tags and repositories, the start with many manifests, and the memory of a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

KIND = "application/vnd.oci.image.manifest.v1+json"
MANY = 100_000

_ARGOSY = """
import sys
from argosy.server.serve import serve
from argosy.server.settings import Listen, Log, Settings, Storage
settings = Settings(data=sys.argv[1], listen=Listen(port=int(sys.argv[2])), log=Log(access=False),
                    storage=Storage(reserve_bytes=0))
serve(settings)
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def argosy(root: str, port: int) -> list[str]:
    return [sys.executable, "-c", _ARGOSY, root, str(port)]


def distribution(binary: str, root: str, port: int) -> list[str]:
    config = Path(root) / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    return [binary, "serve", str(config)]


def zot(binary: str, root: str, port: int) -> list[str]:
    config = Path(root) / "config.json"
    document = {
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": f"{root}/data", "commit": True},
        "http": {"address": "127.0.0.1", "port": str(port)},
        "log": {"level": "error"},
    }
    config.write_text(json.dumps(document))
    return [binary, "serve", str(config)]


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[tuple[int, float]]:
    """A server until the block ends: its process id, and the seconds until it took requests."""
    environment = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
    began = time.perf_counter()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if Client(port).ask("GET", "/v2/")[0] == 200:
                    break
            if process.poll() is not None or time.perf_counter() - began > 60:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.002)
        yield process.pid, time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Client:
    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(
        self, method: str, target: str, body: bytes | None = None, kind: str = ""
    ) -> tuple[int, str, bytes]:
        headers = {"content-type": kind or "application/octet-stream", "accept": KIND}
        self.connection.request(method, target, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.getheader("location") or "", answer.read()

    def push(self, name: str, data: bytes, digest: str) -> None:
        _, location, _ = self.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
        location = re.sub(r"^https?://[^/]+", "", location)
        target = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        status, _, body = self.ask("PUT", target, data)
        assert status == 201, (status, body)

    def image(self, name: str, tag: str, *layers: bytes) -> None:
        described = []
        for data in (b"{}", *layers):
            self.push(name, data, sha256(data))
            described.append(
                {"mediaType": "application/x", "digest": sha256(data), "size": len(data)}
            )
        config = described[0] | {"mediaType": "application/vnd.oci.image.config.v1+json"}
        document = {
            "schemaVersion": 2,
            "mediaType": KIND,
            "config": config,
            "layers": described[1:],
        }
        raw = json.dumps(document).encode()
        assert self.ask("PUT", f"/v2/{name}/manifests/{tag}", raw, KIND)[0] == 201


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def manifest_gets(port: int, seconds: int) -> float:
    target = f"http://127.0.0.1:{port}/v2/bench/one/manifests/latest"
    command = ["wrk", "-t1", "-c16", f"-d{seconds}", "-H", f"Accept: {KIND}", target]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "Non-2xx" not in told, told
    return float(re.search(r"Requests/sec:\s*([\d.]+)", told)[1])  # type: ignore[index]


def pushes(port: int, count: int = 60, clients: int = 10, size: int = 1_000_000) -> float:
    bodies = [os.urandom(32) + bytes(size - 32) for _ in range(count)]
    work = iter([(body, sha256(body)) for body in bodies])
    lock = threading.Lock()

    def client() -> None:
        own = Client(port)
        while True:
            with lock:
                one = next(work, None)
            if one is None:
                return
            own.push(f"bench/p{threading.get_ident() % 97}", *one)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - began)


def upload(port: int, size: int = 100_000_000) -> float:
    body = os.urandom(32) + bytes(size - 32)
    digest = sha256(body)
    began = time.perf_counter()
    Client(port).push("bench/up", body, digest)
    return size / (time.perf_counter() - began) / 1e6


def download(port: int, digest: str) -> float:
    command = ["curl", "-so", "/dev/null", "-w", "%{speed_download}"]
    url = f"http://127.0.0.1:{port}/v2/bench/big/blobs/{digest}"
    told = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    return float(told.stdout) / 1e6


def memory(pid: int) -> float:
    """The largest resident set of a server's worker so far, in MB."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    peaks = []
    for one in found or [str(pid)]:
        status = Path(f"/proc/{one}/status").read_text()
        peaks.append(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024)  # type: ignore[index]
    return max(peaks)


def large() -> None:
    """Argosy alone: 100 000 tags, repositories and manifests."""
    from argosy.server.metadata.sqlite import Sqlite

    root = tempfile.mkdtemp()
    metadata = Sqlite(f"{root}/registry.db")
    tx = metadata._writer
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
    tx.rows("BEGIN")
    tx.rows(
        f"{numbers} INSERT INTO repository (id, name, created) SELECT i, 'r/' || printf('%06d', i), 0 FROM n"
    )
    columns = "(repo_id, digest, media_type, size, pushed, protected_until)"
    digest = "'sha256:' || printf('%064d', i)"
    tx.rows(f"{numbers} INSERT INTO manifest {columns} SELECT i, {digest}, 'x/y', 1, 0, 0 FROM n")
    tx.rows(
        f"{numbers} INSERT INTO tag SELECT 1, 't' || i, 'sha256:' || printf('%064d', 1), 0 FROM n"
    )
    tx.rows("COMMIT")
    metadata.close()
    port = free_port()
    with running(argosy(root, port), port) as (pid, seconds):
        print(f"start with {MANY} manifests: {seconds:.2f} s")
        client = Client(port)
        for target in (
            "/v2/r/000001/tags/list",
            "/v2/_catalog",
            "/v2/r/000001/tags/list?last=t5&n=1000",
        ):
            times = []
            for _ in range(9):
                began = time.perf_counter()
                assert client.ask("GET", target)[0] == 200
                times.append(time.perf_counter() - began)
            print(f"{target}: {statistics.median(times) * 1000:.1f} ms")
        print(f"memory of the worker: {memory(pid):.0f} MB")
    shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="distribution v3's registry")
    parser.add_argument("--zot")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    commands: dict[str, Callable[[str, int], list[str]]] = {"argosy": argosy}
    if options.peer:
        commands["distribution"] = lambda root, port: distribution(options.peer, root, port)
    if options.zot:
        commands["zot"] = lambda root, port: zot(options.zot, root, port)
    big = os.urandom(32) + bytes(100_000_000 - 32)
    found: dict[str, dict[str, list[float]]] = {}
    with contextlib.ExitStack() as stack:
        ports, pids = {}, {}
        for name, command in commands.items():
            root = stack.enter_context(tempfile.TemporaryDirectory())
            ports[name] = free_port()
            pids[name], _ = stack.enter_context(running(command(root, ports[name]), ports[name]))
            client = Client(ports[name])
            client.image("bench/one", "latest", b"layer" * 200)
            client.push("bench/big", big, sha256(big))
        measures: dict[str, Callable[[int], float]] = {
            "manifest GET by tag, requests/s": lambda port: manifest_gets(port, options.seconds),
            "1 MB pushes at c=10, per second": pushes,
            "one upload of 100 MB, MB/s": upload,
            "one download of 100 MB, MB/s": lambda port: download(port, sha256(big)),
        }
        for measure, function in measures.items():
            for _ in range(options.runs):
                for name, port in ports.items():
                    found.setdefault(measure, {}).setdefault(name, []).append(function(port))
        for measure, by_name in found.items():
            medians = {name: statistics.median(values) for name, values in by_name.items()}
            told = [f"{name} {value:.0f}" for name, value in medians.items()]
            ratios = [
                f"{medians['argosy'] / value:.2f} x {name}"
                for name, value in medians.items()
                if name != "argosy"
            ]
            print(f"{measure}: {', '.join(told)}   {'; '.join(ratios)}")
        for name, pid in pids.items():
            print(f"memory under load, {name}: {memory(pid):.0f} MB")
    large()


if __name__ == "__main__":
    main()
