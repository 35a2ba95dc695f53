"""A copy that is killed at any moment leaves its target valid, and the next one does only what is missing; a removal
that is killed leaves nothing half.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.layout.places import TRANSPORTS

ROOT = pathlib.Path(__file__).parents[2]


def killed(kind: str, folder: pathlib.Path) -> int:
    """How many times the harness was killed."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.layout.crash_harness", kind, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_copy_killed_at_any_call_leaves_the_target_valid(
    tmp_path: pathlib.Path, transport: str
) -> None:
    assert killed(transport, tmp_path) > 50


def test_a_removal_of_several_killed_at_any_call_removes_all_their_names_or_none(
    tmp_path: pathlib.Path,
) -> None:
    assert killed("removal", tmp_path) > 20
