"""Which interpreter the installed launcher is given."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from argosy.runtime import launcher
from argosy.runtime.boot import SMALL

SYSTEM = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The interpreter that is asked is a small program in front of a shared library."""
    program = tmp_path / "python"
    program.write_bytes(bytes(100))
    monkeypatch.setattr(launcher, "interpreter", lambda: str(program))
    return program


def test_the_systems_single_file_is_preferred_to_a_shared_library(small: Path) -> None:
    if not os.path.exists(SYSTEM) or os.stat(SYSTEM).st_size <= SMALL:
        pytest.skip(f"no {SYSTEM} that is a single file")
    assert launcher.quicker() == SYSTEM


def test_an_interpreter_that_is_a_single_file_stays(small: Path) -> None:
    os.truncate(small, SMALL + 1)
    assert launcher.quicker() is None


def test_an_interpreter_of_another_bytecode_is_not_taken(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "MAGIC_NUMBER", b"none")
    assert launcher.quicker() is None
