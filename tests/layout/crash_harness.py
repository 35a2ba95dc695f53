"""Kills a copy, or a removal, at every call to the operating system, one after the other, and looks at what is left.

Run as `python -m tests.layout.crash_harness <transport or "removal"> <folder>`: it prints how many times it was killed.
A child process is forked for each; it acts with `os` wrapped, and kills itself with SIGKILL at the n-th call. A write
is cut in half.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any

from argosy.content.copy import copy
from argosy.content.events import Copied, Event, Progressed
from argosy.content.memory import MemoryStore
from argosy.layout.gc import fsck, gc
from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.layout.places import TAG, everything, reading, writing

CALLS = (
    "open", "write", "fsync", "rename", "unlink", "mkdir", "makedirs", "ftruncate", "close", "rmdir", "utime",
)  # fmt: skip


def kill_at(number: int) -> None:
    """Have the n-th call kill this process."""
    left = number

    def wrapped(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return counted

    for name in CALLS:
        setattr(os, name, wrapped(name, getattr(os, name)))


def attempt(act: Callable[[], object], number: int) -> bool:
    """Act in a child that dies at the n-th call; whether it did not live long enough to reach it."""
    child = os.fork()
    if not child:
        status = 1
        try:
            kill_at(number)
            act()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "it failed"
        return True
    assert os.WTERMSIG(status) == signal.SIGKILL
    return False


def copied(transport: str, source: MemoryStore, path: pathlib.Path) -> None:
    """Copy the new image."""
    with writing(transport, path) as target:
        copy(source, "new", target, TAG, jobs=1)


def check(transport: str, source: MemoryStore, path: pathlib.Path, old: Any) -> None:
    """What was there before is whole, or the new image is; nothing is in between."""
    if transport == "oci" and (path / "oci-layout").exists():
        problems = [p for p in fsck(LayoutStore.open(path)) if not p.harmless]
        assert not problems, problems
    if old is None and not (path / "manifest.json" if transport == "dir" else path).exists():
        return
    if transport == "oci" and not (path / "oci-layout").exists():
        return
    with reading(transport, path) as place:
        for tag in ["@0"] if transport == "dir" else list(place.tags()):
            everything(place, place.resolve(tag))
        if old is not None and transport != "dir":
            assert everything(place, place.resolve("old:v1")) == everything(source, old)


def again(transport: str, source: MemoryStore, path: pathlib.Path) -> None:
    """Repeat the copy: what was complete does not move again, and the result is right."""
    spool = path.with_name(f".{path.name}.spool") / "layout"
    blobs = spool if transport.endswith("-archive") else path
    have = {f.name for f in blobs.rglob("*") if len(f.name) == 64} if blobs.is_dir() else set()
    events: list[Event] = []
    with writing(transport, path) as target:
        root = copy(source, "new", target, TAG, jobs=1, on_event=events.append)
    moved = {
        e.descriptor.digest.encoded
        for e in events
        if isinstance(e, (Copied, Progressed)) and not e.descriptor.is_manifest()
    }
    assert not moved & have, "moved again"
    with reading(transport, path) as place:
        found = place.resolve("@0" if transport == "dir" else TAG)
        assert everything(place, found) == everything(source, root)
    left = list(path.parent.rglob(".*"))
    assert not left, left


def main(transport: str, folder: pathlib.Path) -> int:
    """Every place a copy can be killed at, with nothing there before and with another image."""
    source = MemoryStore()
    first = random.image(source, 1, "old", layers=1)
    random.index(source, 2, "new", platforms=("linux/amd64",))
    count = 0
    for old, step in ((None, 1), (first, 3)):
        for number in range(1, 5000, step):
            path = folder / f"{number}-{old is None}" / "place"
            path.parent.mkdir()
            if old is not None:
                with writing(transport, path) as target:
                    copy(source, "old", target, "old:v1")
            done = attempt(functools.partial(copied, transport, source, path), number)
            check(transport, source, path, old)
            again(transport, source, path)
            shutil.rmtree(path.parent)
            if done:
                break
            count += 1
    return count


def removal(folder: pathlib.Path) -> int:
    """Every place at which the removal of two images of three, and of their content, can be killed."""
    for number in range(1, 5000):
        store = LayoutStore.create(folder / str(number))
        made = {tag: random.image(store, n, tag) for n, tag in enumerate(("stays", "goes", "too"))}
        for file in store.blobs.files():
            os.utime(file.path, (0, 0))
        if attempt(functools.partial(removed, store), number):
            return number - 1
        left = LayoutStore.open(store.path)
        problems = [p for p in fsck(left) if not p.harmless]
        assert not problems, problems
        assert {*left.tags()} in ({"stays"}, {*made}), "half of them"
        for tag in left.tags():
            everything(left, made[tag])
        removed(left)
        assert not [*fsck(left)]
        shutil.rmtree(store.path)
    raise AssertionError("it never ended")


def removed(store: LayoutStore) -> None:
    """Remove two images."""
    if "goes" in store.tags():
        store.untag("goes", "too")
    gc(store, untagged=True, grace=0)


if __name__ == "__main__":
    where = pathlib.Path(sys.argv[2])
    print(removal(where) if sys.argv[1] == "removal" else main(sys.argv[1], where))  # noqa: T201
