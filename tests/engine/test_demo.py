"""`make demo`, as a newcomer runs it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("containers")


def test_the_demo_shows_the_whole_journey_and_leaves_nothing(launcher: str) -> None:
    before = set(pathlib.Path("/var/tmp").glob("argosy-demo-*"))
    done = subprocess.run(
        [sys.executable, "-m", "argosy.cli.demo"],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PATH": f"{os.path.dirname(launcher)}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "application/spdx+json" in done.stdout
    assert "nothing is left" in done.stdout
    assert (
        "Hello from a verified container." in done.stdout
        or "cannot run containers here" in done.stdout
    )
    assert set(pathlib.Path("/var/tmp").glob("argosy-demo-*")) == before
