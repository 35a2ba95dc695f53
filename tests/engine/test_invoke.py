"""Calling the runtime: what it does not answer in time is an error like any other."""

from __future__ import annotations

import pathlib

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
    assert runtime.state() is None
    container.discard()
