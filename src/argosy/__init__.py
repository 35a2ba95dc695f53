"""The Open Container Initiative's whole system in Python: images, registries and containers.

The front door. Names are loaded when they are first used, so that importing argosy costs nothing.

Example:
    >>> import argosy
    >>> argosy.Reference.parse("alpine:3.20").name
    'library/alpine'
"""

from __future__ import annotations

import importlib

from argosy._version import __version__

TYPE_CHECKING = False  # as `typing` has it, which costs more than all else here
if TYPE_CHECKING:
    from typing import Any

    from argosy import errors
    from argosy.content.copy import copy
    from argosy.content.memory import MemoryStore
    from argosy.image.view import Image, ImageIndex
    from argosy.layout.store import LayoutStore
    from argosy.locate import Location
    from argosy.remote.registry import Registry
    from argosy.remote.repository import Repository
    from argosy.spec.descriptor import Descriptor
    from argosy.spec.digest import Digest
    from argosy.spec.manifest import Index, Manifest
    from argosy.spec.platform import Platform
    from argosy.spec.reference import Reference

_HOMES = {
    "Descriptor": "argosy.spec.descriptor",
    "Digest": "argosy.spec.digest",
    "Image": "argosy.image.view",
    "ImageIndex": "argosy.image.view",
    "Index": "argosy.spec.manifest",
    "LayoutStore": "argosy.layout.store",
    "Location": "argosy.locate",
    "Manifest": "argosy.spec.manifest",
    "MemoryStore": "argosy.content.memory",
    "Platform": "argosy.spec.platform",
    "Reference": "argosy.spec.reference",
    "Registry": "argosy.remote.registry",
    "Repository": "argosy.remote.repository",
    "copy": "argosy.content.copy",
}

__all__ = [
    "Descriptor",
    "Digest",
    "Image",
    "ImageIndex",
    "Index",
    "LayoutStore",
    "Location",
    "Manifest",
    "MemoryStore",
    "Platform",
    "Reference",
    "Registry",
    "Repository",
    "__version__",
    "copy",
    "errors",
]


if not TYPE_CHECKING:  # to a type checker every name would be there

    def __getattr__(name: str) -> Any:
        """Load a public name from its room."""
        if name == "errors":
            return importlib.import_module("argosy.errors")
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'argosy' has no attribute {name!r}")
        value = globals()[name] = getattr(importlib.import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
