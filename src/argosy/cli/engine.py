"""The engine a command line works with: its directories by the XDG rules, or by `ARGOSY_ROOT`."""

from __future__ import annotations

import os
import shutil
import sys

from argosy.engine.places import Places
from argosy.engine.run import Engine
from argosy.errors import UnsupportedError

ROOT = "/var/lib/argosy"
RUN = "/run/argosy"


def places() -> Places:
    """Root's directories, or a user's.

    Raises:
        UnsupportedError: the runtime is not installed.
    """
    root = os.environ.get("ARGOSY_ROOT")
    if root:
        data, run = os.path.abspath(root), os.path.join(os.path.abspath(root), "run")
    elif os.geteuid() == 0 and "ARGOSY_ROOTLESS" not in os.environ:
        data, run = ROOT, RUN
    else:
        home = os.path.expanduser("~")
        base = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
        data = os.path.join(base, "argosy", "engine")
        run = os.path.join(os.environ.get("XDG_RUNTIME_DIR") or data, "argosy")
    return Places(data=data, run=run, runtime=(_runtime(),))


def _runtime() -> str:
    beside = os.path.join(os.path.dirname(sys.executable), "argosy-runtime")
    found = os.environ.get("ARGOSY_RUNTIME") or (beside if os.access(beside, os.X_OK) else None)
    found = found or shutil.which("argosy-runtime")
    if found is None:
        raise UnsupportedError(
            "argosy-runtime is not installed",
            hint=f"{sys.executable} -m argosy.runtime.launcher {beside}",
        )
    return found


def engine() -> Engine:
    """The engine of whoever runs this."""
    return Engine(places(), rootless=os.environ.get("ARGOSY_ROOTLESS") == "1")
