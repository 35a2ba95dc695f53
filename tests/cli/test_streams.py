"""Standard streams that are closed, full or read by nobody, and what may go to a terminal."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.cli.conftest import Run


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, where `argosy` is this one."""
    argosy = f'argosy() {{ {shlex.quote(sys.executable)} -m argosy "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", argosy + line], capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("argosy ls oci:{0} >&-", 1),
        ("argosy ls oci:{0} 2>&-", 0),
        ("argosy ls oci:{0} <&-", 0),
        ("argosy ls oci:{0}/none >&- 2>&-", 2),
        ("argosy cp oci:{0}:v1 oci:{0}-copy:v1 <&- >&- 2>&-", 0),
        ("argosy blob put oci:{0} <&-", 1),
        ("argosy ls oci:{0} >/dev/full", 1),
        ("argosy --help >/dev/full", 1),
        ("argosy cp -q oci:{0}:v1 oci-archive:- | true; exit ${{PIPESTATUS[0]}}", 141),
    ],
)
def test_a_closed_stream_is_no_defect(line: str, code: int, tmp_path: Path) -> None:
    store = LayoutStore.create(str(tmp_path / "layout"))
    random.image(store, 1, "v1", size=300_000)
    done = shell(line.format(tmp_path / "layout"))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "defect" not in done.stdout + done.stderr
    if "2>&-" in line:
        assert "argosy:" not in done.stdout


def test_no_control_characters_reach_a_terminal(argosy: Run, layout: Path) -> None:
    argosy("mutate", f"oci:{layout}:v1", "-l", "k=\x1b[31mred\x9b2J", "-t", "red")
    shown = argosy("inspect", f"oci:{layout}:red").out
    assert "k= [31mred 2J" in shown
    told = argosy("inspect", "--json", f"oci:{layout}:red")
    assert "\x9b" not in told.out
    assert told.json["Labels"]["k"] == "\x1b[31mred\x9b2J"
