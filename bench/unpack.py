"""How long layers take: unpacked beside umoci and tar, written beside crane.

The inputs are made, the same on every machine: an image of two gzip layers with about 7 000 and 59 000 entries and
1.1 GB in all, shaped like a distribution and a language's packages. Runs alternate; medians and ratios are printed.

    python bench/unpack.py [--work DIRECTORY] [--runs 5] [--only unpack,plain,append] [--umoci umoci] [--crane crane]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from argosy.layer.compressor import Compressor
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarwriter import TarWriter
from argosy.spec.digest import Digest

LAYERS = ((7_000, 300 << 20), (59_000, 800 << 20))
GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def pool(rng: random.Random) -> bytes:
    """Sixteen megabytes that compress about as well as programs and their texts do."""
    words = [bytes(rng.choices(b"etaoinshrdlucmfw_", k=rng.randint(2, 9))) for _ in range(4000)]
    parts = []
    for _ in range(256):
        parts.append(b" ".join(rng.choices(words, k=6_000))[:40_000])
        parts.append(rng.randbytes(8_000) + bytes(4_000) + bytes(rng.choices(range(64), k=13_000)))
    return b"".join(parts)


def entries(
    rng: random.Random, top: str, count: int, total: int, data: bytes
) -> Iterator[tuple[Entry, bytes]]:
    """Directories of about nine files each; sizes as a log-normal, scaled to the total."""
    sizes = [rng.lognormvariate(7.5, 2.0) for _ in range(count * 8 // 10)]
    scale = total / sum(sizes)
    made, library, folder = 0, b"", b""
    for number in range(count):
        kind = number % 10
        if number % 400 == 0:
            library = f"{top}/lib{number // 400}".encode()
            yield (
                Entry(name=library + b"/", type=EntryType.DIRECTORY, mode=0o755, mtime=10**18),
                b"",
            )
        if kind == 0:
            folder = library + b"/package-%d" % (number // 10)
            yield Entry(name=folder + b"/", type=EntryType.DIRECTORY, mode=0o755, mtime=10**18), b""
        elif kind == 1:
            name = folder + b"/link-%d" % number
            yield (
                Entry(
                    name=name,
                    type=EntryType.SYMLINK,
                    mode=0o777,
                    linkname=b"file-%d" % (number + 1),
                    mtime=10**18,
                ),
                b"",
            )
        else:
            size = min(int(sizes[made % len(sizes)] * scale), 40 << 20)
            made += 1
            start = rng.randrange(len(data))
            body = data[start : start + size]
            while len(body) < size:
                body += data[: size - len(body)]
            yield (
                Entry(name=folder + b"/file-%d" % number, size=size, mode=0o644, mtime=10**18),
                body,
            )


def make(work: Path) -> None:
    """An OCI layout `image` with tag `latest`, and its layers uncompressed as `layer0.tar`, `layer1.tar`."""
    layout = work / "image"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    rng = random.Random(20)
    data = pool(rng)
    layers, diff_ids = [], []
    for index, (count, total) in enumerate(LAYERS):
        plain = work / f"layer{index}.tar"
        with (
            (work / "blob").open("wb") as out,
            Compressor(out) as packed,
            plain.open("wb") as copy,
            TarWriter(packed) as tar,
            TarWriter(copy) as twin,
        ):
            for entry, body in entries(rng, f"usr{index}", count, total, data):
                tar.add(entry, [body])
                twin.add(entry, [body])
        (work / "blob").rename(blobs / packed.written.digest.encoded)
        layers.append(
            {"mediaType": GZIP, "digest": packed.written.digest, "size": packed.written.size}
        )
        diff_ids.append(packed.written.diff_id)

    def put(document: object) -> dict[str, object]:
        raw = json.dumps(document).encode()
        (blobs / Digest.of(raw).encoded).write_bytes(raw)
        return {"digest": Digest.of(raw), "size": len(raw)}

    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": {"mediaType": kind + "config.v1+json", **put(config)},
        "layers": layers,
    }
    tag = {"org.opencontainers.image.ref.name": "latest"}
    index_json = {
        "schemaVersion": 2,
        "manifests": [
            {"mediaType": kind + "manifest.v1+json", **put(manifest), "annotations": tag}
        ],
    }
    (layout / "index.json").write_text(json.dumps(index_json))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


UNPACK = """
import sys
from argosy.layer.rootfs import RootFS
with RootFS.create(sys.argv[1]) as root:
    for path in sys.argv[2:]:
        with open(path, "rb", buffering=0) as layer:
            root.apply(layer)
"""
APPEND = """
import sys
from argosy.layer.compressor import Compressor
with open(sys.argv[1], "rb", buffering=0) as tar, open(sys.argv[2], "wb") as out, Compressor(out) as layer:
    while chunk := tar.read(1 << 20):
        layer.write(chunk)
"""


def timed(command: list[str]) -> tuple[float, int]:
    """Wall seconds, and the peak of resident memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command[0]}: {errors.decode()}")
    return time.perf_counter() - start, usage.ru_maxrss >> 10


def compare(
    title: str,
    contenders: dict[str, Callable[[], list[list[str]]]],
    runs: int,
    clean: Callable[[], None],
) -> None:
    """Run contenders in turns and print medians, the first one's ratio to the others, and memory."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    memory = dict.fromkeys(contenders, 0)
    for _ in range(runs):
        for name, commands in contenders.items():
            clean()
            measured = [timed(command) for command in commands()]
            times[name].append(sum(seconds for seconds, _ in measured))
            memory[name] = max(memory[name], *(peak for _, peak in measured))
    clean()
    ours, *others = contenders
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{title:8} {name:10} {median:7.2f} s {memory[name]:5d} MiB")
    for name in others:
        print(f"{title:8} {ours} takes {medians[ours] / medians[name]:.2f} x the time of {name}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, help="where inputs are kept (default: made anew in /dev/shm)"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="unpack,plain,append")
    parser.add_argument("--umoci", default="umoci")
    parser.add_argument("--crane", default="crane")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(dir="/dev/shm"))
    if not (work / "image/index.json").exists():
        make(work)
    target = work / "target"

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)

    index = json.loads((work / "image/index.json").read_text())
    blobs = work / "image/blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    gzip = [str(blobs / layer["digest"][7:]) for layer in manifest["layers"]]
    plain = [str(work / f"layer{number}.tar") for number in range(len(LAYERS))]
    ours = [sys.executable, "-c"]
    only = options.only.split(",")
    if "unpack" in only:
        contenders = {"argosy": lambda: [[*ours, UNPACK, str(target), *gzip]]}
        if shutil.which(options.umoci):
            image = f"{work}/image:latest"
            contenders["umoci"] = lambda: [
                [options.umoci, "raw", "unpack", "--image", image, str(target)]
            ]
        compare("unpack", contenders, options.runs, clean)
    if "plain" in only:

        def tar() -> list[list[str]]:
            target.mkdir()
            return [
                ["tar", "-x", "-p", "--numeric-owner", "-f", path, "-C", str(target)]
                for path in plain
            ]

        compare(
            "plain",
            {"argosy": lambda: [[*ours, UNPACK, str(target), *plain]], "tar": tar},
            options.runs,
            clean,
        )
    if "append" in only:
        big = plain[-1]

        def written() -> list[list[str]]:
            target.mkdir()
            return [[*ours, APPEND, big, str(target / "layer")]]

        def crane() -> list[list[str]]:
            target.mkdir()
            return [
                [
                    options.crane,
                    "append",
                    "--oci-empty-base",
                    "-f",
                    big,
                    "-t",
                    "x:y",
                    "-o",
                    str(target / "image.tar"),
                ]
            ]

        contenders = {"argosy": written}
        if shutil.which(options.crane):
            contenders["crane"] = crane
        compare("append", contenders, options.runs, clean)
    if options.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
