"""Small images with known content, for tests of the rooms `image` and `bundle`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

from argosy.content.memory import MemoryStore
from argosy.content.protocols import Source
from argosy.image.configure import Changes
from argosy.image.derive import append_layer, mutate
from argosy.image.new import scratch
from argosy.image.validate import validate
from argosy.image.view import Image
from argosy.layer.compression import Compression
from argosy.layer.entry import Entry, EntryType
from argosy.layer.tarstream import TarReader
from argosy.layer.tarwriter import TarWriter
from argosy.spec.imageconfig import History
from argosy.spec.platform import Platform

AMD64 = Platform.parse("linux/amd64")


def tar_of(*entries: Entry | tuple[Entry, bytes]) -> bytes:
    out = io.BytesIO()
    with TarWriter(out) as tar:
        for item in entries:
            entry, content = (item, b"") if isinstance(item, Entry) else item
            tar.add(entry, [content] if content else [])
    return out.getvalue()


def file(name: str, content: bytes = b"", **more: object) -> tuple[Entry, bytes]:
    return Entry(name=name.encode(), size=len(content), **more), content  # type: ignore[arg-type]


def folder(name: str, mode: int = 0o755, **more: object) -> Entry:
    return Entry(name=name.encode(), type=EntryType.DIRECTORY, mode=mode, **more)  # type: ignore[arg-type]


def link(name: str, target: str) -> Entry:
    return Entry(name=name.encode(), type=EntryType.SYMLINK, mode=0o777, linkname=target.encode())


def image_of(
    *layers: bytes,
    store: Source | None = None,
    platform: Platform = AMD64,
    compression: Compression = Compression.GZIP,
    docker: bool = False,
    **changes: object,
) -> Image:
    image = scratch(store or MemoryStore(), platform, docker=docker)
    for position, layer in enumerate(layers):
        image = append_layer(
            image,
            io.BytesIO(layer),
            history=History(created_by=f"layer {position}"),
            compression=compression,
        )
    return mutate(image, Changes(**changes)) if changes else image  # type: ignore[arg-type]


def names(image: Image, position: int = -1) -> list[str]:
    with image.layers[position].uncompressed() as stream:
        reader = TarReader(stream)
        found = [entry.name.decode() for entry in reader]
        reader.drain()
    return found


def contents(image: Image, position: int = -1) -> Mapping[str, bytes]:
    with image.layers[position].uncompressed() as stream:
        reader = TarReader(stream)
        found = {entry.name.decode(): b"".join(reader.whole()) for entry in reader}
        reader.drain()
    return found


def all_proved(image: Image) -> Iterable[str]:
    """What `validate` finds; nothing, where all is right."""
    return [str(finding) for finding in validate(image) if not finding.warning]
