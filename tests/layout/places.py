"""Every place on disk by its transport, and tar archives with anything in them."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

from argosy.content.graph import read, walk
from argosy.content.protocols import Source
from argosy.layout.archive import OCIArchive
from argosy.layout.directory import DirectoryStore
from argosy.layout.dockerarchive import DockerArchive
from argosy.layout.store import LayoutStore
from argosy.spec.descriptor import Descriptor

CLASSES: dict[str, Any] = {
    "oci": LayoutStore,
    "oci-archive": OCIArchive,
    "docker-archive": DockerArchive,
    "dir": DirectoryStore,
}
TRANSPORTS = tuple(CLASSES)
TAG = "app:v1"
"""A tag that every transport takes."""


@contextlib.contextmanager
def writing(transport: str, path: pathlib.Path | str) -> Iterator[Any]:
    """A place to write to."""
    with CLASSES[transport].create(path) as place:
        yield place


@contextlib.contextmanager
def reading(transport: str, path: pathlib.Path | str) -> Iterator[Any]:
    """A place to read from."""
    with CLASSES[transport].open(path) as place:
        yield place


def everything(place: Source, root: Descriptor) -> dict[str, bytes]:
    """All content below a root, by digest."""
    found: dict[str, bytes] = {}
    for node in walk(place, root):
        found[node.descriptor.digest] = node.raw
        for child in node.manifest.children():
            found[child.digest] = read(place, child, limit=1 << 30)
    return found


def tar(path: pathlib.Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> pathlib.Path:
    """Write an archive of members, as they are."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """A link as a member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def layout_members(entries: list[dict[str, Any]]) -> list[tuple[str, bytes]]:
    """The two documents of a layout."""
    index = {"schemaVersion": 2, "manifests": entries}
    return [
        ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", json.dumps(index).encode()),
    ]


def peak() -> int:
    """The most memory this process has had, in KiB. (`getrusage` counts what the process was forked from, too.)"""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
