"""A copy that is killed at any moment leaves its target valid, and the next one does only what is missing."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.layout.places import TRANSPORTS

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_copy_killed_at_any_call_leaves_the_target_valid(
    tmp_path: pathlib.Path, transport: str
) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.layout.crash_harness", transport, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
