"""What the tests of other container tools share: a directory on the disk, an image of ours, their commands."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

from argosy.content.copy import copy
from argosy.content.memory import MemoryStore
from argosy.layout.store import LayoutStore
from argosy.testing.hostimage import host_image

Tool = Callable[..., subprocess.CompletedProcess[str]]


@contextlib.contextmanager
def on_disk(name: str) -> Iterator[pathlib.Path]:
    """A short path, for sockets, on the disk, since storage drivers do not like every file system of /tmp."""
    path = pathlib.Path("/var/tmp") / f"argosy-{name}-{os.urandom(4).hex()}"
    path.mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def tool(*base: str) -> Tool:
    """A program and its first words; a call is given the others and the exit code to expect, or None."""

    def run(*argv: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*base, *argv], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
        )  # fmt: skip
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done

    return run


def our_image(folder: pathlib.Path) -> str:
    """An image of this machine's programs in a layout of `folder`: where it is, as `oci:PATH:v1`."""
    made = host_image(MemoryStore(), ("sh", "cat", "id", "sleep", "true"), message="ahoy")
    copy(made.source, made.descriptor.digest, LayoutStore.create(str(folder / "image")), "v1")
    return f"oci:{folder}/image:v1"
