"""The engine a command line works with: its directories by the XDG rules, or by `ARGOSY_ROOT`.

What belongs to the engine is loaded by who asks for it: a push from a layout to a registry needs nothing of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from argosy.cli import home
from argosy.errors import UnsupportedError

if TYPE_CHECKING:
    from argosy.engine.images import LocalImages
    from argosy.engine.places import Places
    from argosy.engine.run import Engine

ROOT = "/var/lib/argosy"
RUN = "/run/argosy"


def places() -> Places:
    """Root's directories, or a user's; they are there.

    Raises:
        UnsupportedError: the runtime is not installed.
    """
    return _places(_runtime())


def images() -> LocalImages:
    """The images of whoever runs this. They need no runtime."""
    made: LocalImages = importlib.import_module("argosy.engine.images").LocalImages(
        _places().images
    )
    return made


def engine() -> Engine:
    """The engine of whoever runs this.

    Raises:
        UnsupportedError: the runtime is not installed.
    """
    made: Engine = importlib.import_module("argosy.engine.run").Engine(
        places(), rootless=os.environ.get("ARGOSY_ROOTLESS") == "1"
    )
    return made


def _places(*runtime: str) -> Places:
    root = os.environ.get("ARGOSY_ROOT")
    if root:
        data, run = os.path.abspath(root), os.path.join(os.path.abspath(root), "run")
    elif os.geteuid() == 0 and "ARGOSY_ROOTLESS" not in os.environ:
        data, run = ROOT, RUN
    else:
        data = os.path.join(home.data("ARGOSY_ROOT"), "argosy", "engine")
        run = os.path.join(os.environ.get("XDG_RUNTIME_DIR") or data, "argosy")
    found: Places = importlib.import_module("argosy.engine.places").Places(
        data=data, run=run, runtime=runtime
    )
    found.make()
    return found


def _runtime() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "argosy-runtime")
    found = os.environ.get("ARGOSY_RUNTIME") or (beside if os.access(beside, os.X_OK) else None)
    found = found or importlib.import_module("shutil").which("argosy-runtime")
    if found is None:
        raise UnsupportedError(
            "argosy-runtime is not installed",
            hint=f"{sys.executable} -m argosy.runtime.launcher {beside}",
        )
    return found
