"""The oldest Docker archives: `repositories`, and a directory with `json` and `layer.tar` for every layer.

Such an archive has no image configuration. One is made of the layers' `json` documents and of the digests of their
content, always the same one for the same archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from argosy.errors import ArgosyError, InvalidError, InvalidLayoutError
from argosy.layer.compression import uncompressed
from argosy.layer.entry import Limits
from argosy.layout.tarindex import MAX_SIZE, Member, TarIndex
from argosy.spec import _json, imageconfig
from argosy.spec.digest import Digest, hasher

REPOSITORIES = "repositories"
MAX_LAYERS = 512
"""How many layers an image of this form has: Docker allowed 127."""

_ID = re.compile(r"[a-f0-9]{1,64}", re.ASCII)
_KEPT = ("created", "author", "architecture", "os", "variant", "config")


def images(tar: TarIndex) -> Iterator[tuple[tuple[str, ...], bytes, tuple[Member, ...]]]:
    """The images of an archive: their names, a configuration, and their layers, the lowest first.

    Raises:
        InvalidLayoutError: there is no `repositories`, or an image of which a part is missing.
    """
    raw = tar.small(REPOSITORIES, _json.MAX_SIZE)
    if raw is None:
        raise InvalidLayoutError(
            f"{tar.where}: no member manifest.json or repositories, so this is no Docker archive"
        )
    named: dict[str, list[str]] = {}
    for name, tags in _object(tar, raw, REPOSITORIES).items():
        if not isinstance(tags, dict):
            raise InvalidLayoutError(f"{tar.where}: {REPOSITORIES}: {name}: expected an object")
        for tag, top in tags.items():
            if not isinstance(top, str) or not _ID.fullmatch(top):
                raise InvalidLayoutError(
                    f"{tar.where}: {REPOSITORIES}: {name}:{tag}: no layer's id"
                )
            named.setdefault(top, []).append(f"{name}:{tag}")
    for top, names in named.items():
        yield (tuple(names), *_image(tar, top))


def _object(tar: TarIndex, raw: bytes, name: str) -> dict[str, Any]:
    try:
        return _json.loads_object(raw, limit=imageconfig.MAX_SIZE, error=InvalidLayoutError)
    except ArgosyError as exc:
        raise InvalidLayoutError(f"{tar.where}: {name}: {exc}") from None


def _image(tar: TarIndex, top: str) -> tuple[bytes, tuple[Member, ...]]:
    documents: list[dict[str, Any]] = []
    layers: list[Member] = []
    seen: set[str] = set()
    current: object = top
    while current:
        if not isinstance(current, str) or not _ID.fullmatch(current) or current in seen:
            raise InvalidLayoutError(f"{tar.where}: {top}: its parents go round in a circle")
        if len(seen) == MAX_LAYERS:
            raise InvalidLayoutError(f"{tar.where}: {top}: more than {MAX_LAYERS} layers")
        seen.add(current)
        raw = tar.small(f"{current}/json", imageconfig.MAX_SIZE)
        layer = tar.find(f"{current}/layer.tar")
        if raw is None or layer is None:
            missing = "json" if raw is None else "layer.tar"
            raise InvalidLayoutError(f"{tar.where}: no member {current}/{missing}")
        document = _object(tar, raw, f"{current}/json")
        documents.append(document)
        layers.append(tar.plain(layer))
        current = document.get("parent")
    documents.reverse()
    layers.reverse()
    return _config(tar, documents, layers), tuple(layers)


def _config(tar: TarIndex, documents: list[dict[str, Any]], layers: list[Member]) -> bytes:
    top = documents[-1]
    config = {name: top[name] for name in _KEPT if top.get(name) is not None}
    config.setdefault("architecture", "amd64")
    config.setdefault("os", "linux")
    diff_ids = [str(_diff_id(tar, layer)) for layer in layers]
    config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
    config["history"] = [_history(document) for document in documents]
    return _json.dumps(config)


def _history(document: Mapping[str, Any]) -> dict[str, object]:
    entry = {
        name: document[name] for name in ("created", "author", "comment") if document.get(name)
    }
    made = document.get("container_config")
    command = made.get("Cmd") if isinstance(made, dict) else None
    if isinstance(command, list):
        entry["created_by"] = " ".join(str(word) for word in command)
    return entry


def _diff_id(tar: TarIndex, layer: Member) -> Digest:
    made = hasher()
    try:
        for data in uncompressed(tar.stream(layer), limits=Limits(content=MAX_SIZE)):
            made.update(data)
    except InvalidError as exc:
        raise InvalidLayoutError(f"{tar.where}: {layer.name}: {exc}") from None
    return Digest.done("sha256", made)


__all__ = ["REPOSITORIES", "images"]
