"""Layers and bundles: unpacked, packed again, appended; beside umoci, tar and crane."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import inputs
from harness import (
    OURS,
    Attempt,
    Row,
    Stage,
    Study,
    Target,
    argosy,
    find,
    present,
    process,
    profiled,
)


def attempt(
    rows: tuple[str, str], commands: list[list[str]], before: Callable[[], None]
) -> Attempt:
    """A turn of whole processes one after the other: their seconds, and the most one of them held."""
    seconds, memory = rows

    def turn() -> dict[str, float]:
        before()
        got = [process(command) for command in commands]
        return {seconds: sum(one for one, _ in got), memory: max(peak for _, peak in got)}

    return turn


def fresh(target: Path) -> Callable[[], None]:
    """Remove what the turn before made."""

    def remove() -> None:
        if target.is_dir():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)

    return remove


@contextlib.contextmanager
def unpack(stage: Stage, rows: tuple[str, str], *, bundle: bool) -> Iterator[dict[str, Attempt]]:
    """An image of two gzip layers, to a root file system or to a bundle."""
    image = f"{inputs.trees(stage)}/image:latest"
    with stage.folder() as folder:
        target = folder / "target"
        only, raw = ([], []) if bundle else (["--rootfs-only"], ["raw"])
        commands = present(
            {
                OURS: argosy("unpack", "-q", *only, f"oci:{image}", str(target)),
                "umoci": ["umoci", *raw, "unpack", "--image", image, str(target)],
            }
        )
        yield {name: attempt(rows, [command], fresh(target)) for name, command in commands.items()}


def plain_image(stage: Stage) -> Path:
    """The image of `inputs.trees`, its layers uncompressed, made once by `argosy recompress`."""
    source = inputs.trees(stage) / "image"

    def make(path: Path) -> None:
        process(
            argosy(
                "recompress", "-q", "--compress", "none", f"oci:{source}:latest", "-t", f"oci:{path}:latest",
            )
        )  # fmt: skip

    from harness import once

    return once(stage.work / "plain", make)


@contextlib.contextmanager
def unpack_plain(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """The same, of uncompressed layers."""
    image, work = plain_image(stage), inputs.trees(stage)
    rows = ("unpack uncompressed", "unpack uncompressed memory")
    with stage.folder() as folder:
        target = folder / "target"

        def empty() -> None:
            fresh(target)()
            target.mkdir()

        ours = argosy("unpack", "-q", "--rootfs-only", f"oci:{image}:latest", str(target))
        tar = str(find("tar"))
        theirs = [
            [tar, "-xpf", f"{work}/layer{number}.tar", "--numeric-owner", "-C", str(target)]
            for number in range(2)
        ]
        yield {
            OURS: attempt(rows, [ours], fresh(target)),
            "tar": attempt(rows, theirs, empty),
        }


@contextlib.contextmanager
def append(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """A tar of small files as a gzip layer of a new image, written into an archive."""
    big = str(inputs.trees(stage) / "layer1.tar")
    with stage.folder() as folder:
        out = folder / "image.tar"
        options = ["-f", big, "-t", "example.org/x:v1", "-o", str(out)]
        commands = present(
            {
                OURS: argosy("append", "-q", *options),
                "crane": ["crane", "append", "--oci-empty-base", *options],
            }
        )

        def sized(command: list[str]) -> Attempt:
            timed = attempt(("append", "append memory"), [command], fresh(out))
            return lambda: {**timed(), "append size": out.stat().st_size / 1e6}

        yield {name: sized(command) for name, command in commands.items()}


@contextlib.contextmanager
def repack(stage: Stage) -> Iterator[dict[str, Attempt]]:
    """A bundle of which one file in a hundred was changed, as a new layer."""
    source = inputs.trees(stage) / "image"
    rows = ("repack", "repack memory")
    with stage.folder() as folder:
        commands = {}
        for name, unpacking, packing in (
            (OURS, argosy("unpack", "-q"), argosy("repack", "-q")),
            ("umoci", ["umoci", "unpack", "--image"], ["umoci", "repack", "--image"]),
        ):
            layout, bundle = folder / f"{name}-image", folder / name
            if not (found := present({name: unpacking})):
                continue
            shutil.copytree(source, layout)
            prefix = "oci:" if name == OURS else ""
            process([*found[name], f"{prefix}{layout}:latest", str(bundle)])
            change(bundle / "rootfs")
            words = [*present({name: packing})[name]]
            commands[name] = (
                [*words, f"{prefix}{layout}:latest", str(bundle), "-t", "new"]
                if name == OURS
                else [*words, f"{layout}:new", str(bundle)]
            )
        yield {name: attempt(rows, [command], lambda: None) for name, command in commands.items()}


def change(root: Path) -> None:
    """Write to every hundredth file of a tree."""
    number = 0
    for folder, _, files in os.walk(root):
        for file in sorted(files):
            path = Path(folder, file)
            number += 1
            if number % 100 == 0 and not path.is_symlink():
                path.write_bytes(path.read_bytes() + b"changed")


def where_unpack(stage: Stage) -> str:
    """The profile of unpacking gzip layers."""
    with stage.folder() as folder:
        image = f"oci:{inputs.trees(stage)}/image:latest"
        return profiled("unpack", "-q", "--rootfs-only", image, str(folder / "x"))


def where_plain(stage: Stage) -> str:
    """The profile of unpacking uncompressed layers."""
    with stage.folder() as folder:
        image = f"oci:{plain_image(stage)}:latest"
        return profiled("unpack", "-q", "--rootfs-only", image, str(folder / "x"))


def where_append(stage: Stage) -> str:
    """The profile of appending."""
    with stage.folder() as folder:
        big = str(inputs.trees(stage) / "layer1.tar")
        return profiled("append", "-q", "-f", big, "-t", "x.org/x:v1", "-o", f"{folder}/x.tar")


LIMIT = (Target(120),)

STUDIES = (
    Study(
        "unpack",
        "An image of two gzip layers (7 000 and 59 000 entries, 1.1 GB) to a root file system; umoci: `raw unpack`.",
        (Row("unpack", "s", (Target(0.5, ("umoci",)),)), Row("unpack memory", "MB", LIMIT)),
        lambda stage: unpack(stage, ("unpack", "unpack memory"), bundle=False),
        ("umoci",),
        profile=where_unpack,
    ),
    Study(
        "unpack bundle",
        "The same to a runtime bundle, with what is needed to pack it again.",
        (
            Row("unpack bundle", "s", (Target(0.5, ("umoci",)),)),
            Row("unpack bundle memory", "MB", LIMIT),
        ),
        lambda stage: unpack(stage, ("unpack bundle", "unpack bundle memory"), bundle=True),
        ("umoci",),
        runs=3,
        profile=where_unpack,
    ),
    Study(
        "unpack uncompressed",
        "The same image with uncompressed layers; tar: `tar -xp` of the same layers.",
        (
            Row("unpack uncompressed", "s", (Target(1.6, ("tar",)),)),
            Row("unpack uncompressed memory", "MB", LIMIT),
        ),
        unpack_plain,
        profile=where_plain,
    ),
    Study(
        "append",
        "A tar of 59 000 files as a gzip layer of a new image, into an archive.",
        (
            Row("append", "s", (Target(1 / 3, ("crane",)),)),
            Row("append size", "MB", (Target(1.12, ("crane",)),)),
            Row("append memory", "MB", LIMIT),
        ),
        append,
        ("crane",),
        runs=3,
        quick=1,
        profile=where_append,
    ),
    Study(
        "repack",
        "The bundle of the two layers with every hundredth file changed, as a new layer.",
        (Row("repack", "s"), Row("repack memory", "MB", LIMIT)),
        repack,
        ("umoci",),
        runs=3,
    ),
)
