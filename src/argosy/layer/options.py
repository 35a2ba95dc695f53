"""How a tree is to be treated: whose it is, in which form it shows what is hidden, what to do with odd cases."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field

from argosy.layer.entry import Limits
from argosy.layer.idmap import IDENTITY, IdMap

__all__ = ["WITHOUT_ROOT", "Options", "Overlay"]

WITHOUT_ROOT = "without root's powers, use rootless"
"""The advice where a tree cannot be given to those it belongs to."""


class Overlay(enum.Enum):
    """Where overlayfs keeps its marks: attributes of root's, or of any user's (`-o userxattr`)."""

    TRUSTED = b"trusted.overlay."
    USER = b"user.overlay."


def _silent(_: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How `RootFS` treats a tree. One set of options for applying and for taking the difference.

    Args:
        uids: Owners, container to host.
        gids: Groups, container to host.
        rootless: Nobody is asked for root's powers: owners are recorded (see `rootless`), devices become empty files,
            refused attributes are kept aside.
        overlay: The tree is the upper directory of an overlay: whiteouts become its marks and come back from them.
            None: whiteouts are carried out.
        additive: What is applied is files for a directory that has its own, and no layer of a root. A file takes the
            place of a file; what meets anything else there, or needs a directory where none is, is refused, and
            nothing else is removed: a name that begins with `.wh.` is a name.
        umask: Permission bits that nothing gets, whatever its entry says.
        keep_dirlinks: A directory entry over a symbolic link to a directory keeps the link.
        source_date_epoch: Times written to a layer are at most this, in seconds since 1970.
        limits: How much a layer may ask for.
        warn: Told, in one line, what could not be done and did no harm.

    >>> Options(rootless=True).keep_dirlinks
    False
    """

    uids: IdMap = IDENTITY
    gids: IdMap = IDENTITY
    rootless: bool = False
    overlay: Overlay | None = None
    additive: bool = False
    umask: int = 0
    keep_dirlinks: bool = False
    source_date_epoch: int | None = None
    limits: Limits = field(default_factory=Limits)
    warn: Callable[[str], None] = _silent
