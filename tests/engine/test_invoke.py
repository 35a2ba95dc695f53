"""Calling the runtime: what it does not answer in time is an error like any other."""

from __future__ import annotations

import pathlib
import sys

import pytest

from argosy.engine.container import Container
from argosy.engine.invoke import InvocationError, Runtime
from argosy.engine.options import RunOptions
from argosy.engine.places import Places


def test_a_runtime_that_hangs_is_an_error_and_no_defect(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.engine.invoke.TIMEOUT", 0.1)
    places = Places(
        data=str(tmp_path), run=str(tmp_path / "run"), runtime=("/bin/sh", "-c", "exec sleep 100")
    )
    places.make()
    container = Container.make(places, RunOptions(), image="i", digest="d", detached=False)
    runtime = Runtime(container)
    with pytest.raises(InvocationError, match=r"more than 0\.1 seconds to start"):
        runtime.start()
    pathlib.Path(places.state, container.id).mkdir()
    assert runtime.state() is None
    container.discard()


def test_a_runtime_that_has_nothing_of_a_container_is_not_called_for_it(
    tmp_path: pathlib.Path,
) -> None:
    called = tmp_path / "called"
    runtime = ("/bin/sh", "-c", f"echo $0 >> {called}; echo '{{}}'")
    places = Places(data=str(tmp_path), run=str(tmp_path / "run"), runtime=runtime)
    places.make()
    container = Container.make(places, RunOptions(), image="i", digest="d", detached=False)
    asked = Runtime(container)
    asked.delete()
    assert asked.state() is None
    assert not called.exists()
    pathlib.Path(places.state, container.id).mkdir()
    asked.delete()
    assert asked.state() == {}
    assert len(called.read_text().splitlines()) == 2
    container.discard()


def test_what_is_typed_at_a_terminal_does_not_reach_the_runtime(tmp_path: pathlib.Path) -> None:
    script = "import os; print(os.getpgrp() == os.getpid() and os.getsid(0) != os.getpid())"
    runtime = (sys.executable, "-c", script)
    places = Places(data=str(tmp_path), run=str(tmp_path / "run"), runtime=runtime)
    places.make()
    container = Container.make(places, RunOptions(), image="i", digest="d", detached=False)
    assert Runtime(container).call("start") == "True\n"
    container.discard()
