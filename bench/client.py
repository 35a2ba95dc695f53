"""How fast the client is beside crane and skopeo: whole processes, the same registry, runs in turn.

    python bench/client.py [--size MB] [--rounds N] [--registry docker-registry]

It starts a registry on loopback, makes an image of two layers of bytes that do not compress, and measures pulls into
an OCI layout, pushes of it, copies inside the registry, and `digest`. What is printed are medians, the ratio of
argosy's to the fastest peer's, and argosy's peak memory. Peers are found on PATH or in the directory ARGOSY_PEERS.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.layout.store import LayoutStore
from argosy.spec import mediatypes
from argosy.spec.imageconfig import ImageConfig, LayerStack
from argosy.spec.manifest import Manifest


def find(name: str) -> str | None:
    places = [os.environ.get("ARGOSY_PEERS", ""), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(p for p in places if p))


def image(folder: pathlib.Path, megabytes: int) -> None:
    """A layout with the image `v1`."""
    store = MemoryStore()
    layers = []
    for share in (3, 7):
        data = os.urandom(megabytes * 100_000 * share)
        layers.append(store.add(mediatypes.OCI_LAYER, data))
    stack = LayerStack(type="layers", diff_ids=tuple(layer.digest for layer in layers))
    config = ImageConfig(architecture="amd64", os="linux", rootfs=stack).encode()
    made = Manifest(config=store.add(mediatypes.OCI_CONFIG, config), layers=tuple(layers))
    store.add(mediatypes.OCI_MANIFEST, made.encode(), "v1")
    copy(store, "v1", LayoutStore.create(str(folder)), "v1")


class Registry:
    """A registry of another project, on loopback, in memory or on disk."""

    def __init__(self, program: str, folder: pathlib.Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        config = folder / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: '{folder}/data'}}, "
            f"delete: {{enabled: true}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        )
        self.name, self.data = f"localhost:{port}", folder / "data"
        self.process = subprocess.Popen(
            [program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.02)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and megabytes of one process."""
    started = time.perf_counter()
    with open(os.devnull, "wb") as null:
        process = subprocess.Popen(command, stdout=null, stderr=subprocess.PIPE)
        assert process.stderr is not None
        err = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {err.decode()}")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def argosy() -> list[str]:
    beside = pathlib.Path(sys.executable).with_name("argosy")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "argosy"]


def commands(
    name: str, layout: pathlib.Path, out: pathlib.Path, turn: str
) -> dict[str, dict[str, list[str]]]:
    """What to run, by task and tool; `turn` makes targets that are new each time."""
    quiet = ["--progress", "none"]
    crane, skopeo = find("crane"), find("skopeo")
    plain = ["--insecure-policy", "copy", "-q"]
    mine = argosy()
    tasks: dict[str, dict[str, list[str]]] = {
        "pull": {
            "argosy": [*mine, "cp", *quiet, f"{name}/bench:v1", f"oci:{out}/argosy-{turn}:v1"]
        },
        "push": {"argosy": [*mine, "cp", *quiet, f"oci:{layout}:v1", f"{name}/argosy-{turn}:v1"]},
        "cp": {"argosy": [*mine, "cp", *quiet, f"{name}/bench:v1", f"{name}/argosy-cp-{turn}:v1"]},
        "digest": {"argosy": [*mine, "digest", f"{name}/bench:v1"]},
    }
    if crane:
        tasks["pull"]["crane"] = [
            crane,
            "pull",
            "--format",
            "oci",
            f"{name}/bench:v1",
            f"{out}/crane-{turn}",
        ]
        tasks["push"]["crane"] = [crane, "push", str(layout), f"{name}/crane-{turn}:v1"]
        tasks["cp"]["crane"] = [crane, "cp", f"{name}/bench:v1", f"{name}/crane-cp-{turn}:v1"]
        tasks["digest"]["crane"] = [crane, "digest", f"{name}/bench:v1"]
    if skopeo:
        tasks["pull"]["skopeo"] = [
            skopeo, *plain, "--src-tls-verify=false", f"docker://{name}/bench:v1", f"oci:{out}/skopeo-{turn}:v1",
        ]  # fmt: skip
        tasks["push"]["skopeo"] = [
            skopeo, *plain, "--dest-tls-verify=false", f"oci:{layout}:v1", f"docker://{name}/skopeo-{turn}:v1",
        ]  # fmt: skip
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=370, help="megabytes of the image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--registry", default="docker-registry")
    parser.add_argument("--folder", help="where everything is kept; a RAM disk leaves the disk out")
    given = parser.parse_args()
    program = find(given.registry)
    if program is None:
        raise SystemExit(f"{given.registry} is not installed")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        base = pathlib.Path(folder)
        making = multiprocessing.get_context("spawn").Process(
            target=image, args=(base / "layout", given.size)
        )
        making.start()  # elsewhere: a child is said to have used what its parent had when it was forked
        making.join()
        registry = Registry(program, base)
        try:
            run(registry, base, given.rounds)
        finally:
            registry.close()


def run(registry: Registry, base: pathlib.Path, rounds: int) -> None:
    measure(
        [
            *argosy(),
            "cp",
            "--progress",
            "none",
            f"oci:{base}/layout:v1",
            f"{registry.name}/bench:v1",
        ]
    )
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for turn in range(rounds):
        tasks = commands(registry.name, base / "layout", base / "out", f"{turn}")
        for task, tools in tasks.items():
            for tool, command in tools.items():
                if task == "push":  # a registry that has the blobs somewhere would store nothing
                    wipe = registry.data / "docker" / "registry" / "v2" / "blobs"
                    held = base / "held"
                    shutil.move(wipe, held)
                found.setdefault(task, {}).setdefault(tool, []).append(measure(command))
                if task == "push":
                    shutil.rmtree(wipe, ignore_errors=True)
                    shutil.move(held, wipe)
        shutil.rmtree(base / "out", ignore_errors=True)
    for task, timed in found.items():
        medians = {tool: statistics.median(t for t, _ in runs) for tool, runs in timed.items()}
        best = min(
            (m for tool, m in medians.items() if tool != "argosy"), default=medians["argosy"]
        )
        shown = ", ".join(f"{tool} {m * 1000:.0f} ms" for tool, m in medians.items())
        memory = max(m for _, m in timed["argosy"])
        print(
            f"{task}: {shown}; argosy / best {medians['argosy'] / best:.2f}; {memory:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
