"""The import lock: after it, no file of the interpreter is ever opened by a path again.

A process that enters a container has the host's rights and the container's file system: a module, codec, traceback
source or locale loaded then would be the container's code run as the host's root (CVE-2019-14271).
"""

from __future__ import annotations

import sys


def lock() -> None:
    """Close every way by which the interpreter finds files. What is imported already stays."""
    _preload()
    sys.path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if _stays_in_memory(finder)]
    sys.excepthook = _silent
    sys.unraisablehook = _silent


def _stays_in_memory(finder: object) -> bool:
    """Whether a finder opens no file: one of the interpreter's, or the launcher's, which is told so here."""
    if getattr(finder, "__name__", "") in ("BuiltinImporter", "FrozenImporter"):
        return True
    keep = getattr(finder, "in_memory_only", None)
    if keep is not None:
        keep()
    return keep is not None


def _preload() -> None:
    """Codecs and the messages of errors are loaded at their first use."""
    b"\xff".decode("utf-8", "replace")
    "\udcff".encode("utf-8", "surrogateescape")
    b"".decode("ascii")
    "".encode("latin-1")


def _silent(*_: object) -> None:
    """An uncaught exception must not open the source files it names."""
