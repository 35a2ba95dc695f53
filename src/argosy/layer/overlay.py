"""The marks by which overlayfs hides what lies below (kernel documentation, "Overlay Filesystem").

A hidden name is a character device 0:0; or, inside a directory that says so, an empty file with an attribute, for
upper directories that are themselves on an overlay (Linux 6.7). A directory whose lower layers are hidden is opaque.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

from argosy.layer.options import Overlay

__all__ = ["hides", "is_node", "is_opaque", "make_node", "make_opaque", "may_hold_empty_whiteouts"]

_OPAQUE: Final = b"opaque"


def is_node(status: os.stat_result) -> bool:
    """Whether this is a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_node(parent: int, name: bytes) -> None:
    """Hide a name."""
    os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(0, 0), dir_fd=parent)


def make_opaque(path: int | str, overlay: Overlay) -> None:
    """Hide what lies below a directory."""
    os.setxattr(path, overlay.value + _OPAQUE, b"y")


def is_opaque(xattrs: Mapping[bytes, bytes], overlay: Overlay) -> bool:
    """Whether attributes say that a directory is opaque."""
    return xattrs.get(overlay.value + _OPAQUE) == b"y"


def may_hold_empty_whiteouts(xattrs: Mapping[bytes, bytes], overlay: Overlay) -> bool:
    """Whether empty files in a directory may be whiteouts (`opaque=x`, or `whiteouts` as first proposed)."""
    return xattrs.get(overlay.value + _OPAQUE) == b"x" or overlay.value + b"whiteouts" in xattrs


def hides(xattrs: Mapping[bytes, bytes], overlay: Overlay) -> bool:
    """Whether attributes say that an empty file is a whiteout."""
    return overlay.value + b"whiteout" in xattrs
