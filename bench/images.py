"""How long whole commands take: `argosy unpack` beside `umoci unpack`, `argosy append` beside `crane append`.

The inputs are those of `bench/unpack.py`. Bundles are compared with bundles (umoci's manifest of the tree and our
snapshot included), and root file systems alone with `umoci raw unpack`. Runs alternate; medians and ratios are printed,
and for `append` the sizes of what came out.

    python bench/images.py [--work DIRECTORY] [--runs 5] [--only bundle,rootfs,append] [--umoci umoci]
                           [--crane crane]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from unpack import compare, make

Commands = Callable[[], list[list[str]]]
ARGOSY = [sys.executable, "-m", "argosy"]


def bundle(work: Path, target: Path, umoci: str) -> dict[str, Commands]:
    """A runtime bundle with what is needed to pack it again."""
    image = f"{work}/image:latest"
    return {
        "argosy": lambda: [[*ARGOSY, "unpack", "-q", f"oci:{image}", str(target)]],
        "umoci": lambda: [[umoci, "unpack", "--image", image, str(target)]],
    }


def rootfs(work: Path, target: Path, umoci: str) -> dict[str, Commands]:
    """The root file system alone."""
    image = f"{work}/image:latest"
    return {
        "argosy": lambda: [[*ARGOSY, "unpack", "-q", "--rootfs-only", f"oci:{image}", str(target)]],
        "umoci": lambda: [[umoci, "raw", "unpack", "--image", image, str(target)]],
    }


def append(work: Path, target: Path, crane: str) -> dict[str, Commands]:
    """A large tar as a gzip layer of a new image, into an archive."""
    big, out = str(work / "layer1.tar"), str(target)
    options = ["-f", big, "-t", "example.org/x:v1", "-o", out]
    return {
        "argosy": lambda: [[*ARGOSY, "append", "-q", *options]],
        "crane": lambda: [[crane, "append", "--oci-empty-base", *options]],
    }


def sizes(contenders: dict[str, Commands], target: Path, clean: Callable[[], None]) -> None:
    """What `append` writes, in bytes."""
    found: dict[str, int] = {}
    for name, commands in contenders.items():
        clean()
        for command in commands():
            os.spawnvp(os.P_WAIT, command[0], command)
        found[name] = target.stat().st_size
    clean()
    for name, size in found.items():
        print(f"append   {name:10} {size:12d} bytes, {size / found['crane']:.3f} x crane's")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--work", type=Path, help="where inputs are kept (default: made anew in /dev/shm)"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="bundle,rootfs,append")
    parser.add_argument("--umoci", default="umoci")
    parser.add_argument("--crane", default="crane")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(dir="/dev/shm"))
    if not (work / "image/index.json").exists():
        make(work)
    os.environ["TMPDIR"] = str(work)
    target = work / "target"

    def clean() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.unlink(missing_ok=True)

    peers = {"bundle": options.umoci, "rootfs": options.umoci, "append": options.crane}
    for name in options.only.split(","):
        contenders = {"bundle": bundle, "rootfs": rootfs, "append": append}[name](
            work, target, peers[name]
        )
        found = {n: c for n, c in contenders.items() if n == "argosy" or shutil.which(peers[name])}
        compare(name, found, options.runs, clean)
        if name == "append" and "crane" in found:
            sizes(found, target, clean)
    if options.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
