"""Ctrl-C at moments when nothing of the command is there yet."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys


def test_an_interrupt_while_the_command_is_loaded_is_one_line(tmp_path: pathlib.Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "argosy", "ls", "oci:images"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "argosy: interrupted\n")
