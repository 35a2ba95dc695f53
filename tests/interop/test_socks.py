"""A registry behind a SOCKS proxy of somebody else."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from argosy.layout.store import LayoutStore
from argosy.testing import random
from tests.conftest import find_peer
from tests.interop.registries import free_port, listening, running


@contextlib.contextmanager
def microsocks(folder: pathlib.Path, *words: str) -> Iterator[int]:
    """A proxy for who knows user and password, if they are given; its port."""
    program, port = find_peer("microsocks"), free_port()
    folder.mkdir()
    with open(folder / "log", "ab") as log:
        arguments = [program, "-i", "127.0.0.1", "-p", str(port), *words]
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    try:
        listening(port, process, folder)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def name() -> str:
    """What this machine is called besides localhost, for which no proxy is asked."""
    found = socket.gethostname()
    with contextlib.suppress(OSError):
        if socket.gethostbyname(found).startswith("127."):
            return found
    pytest.skip("hostname: this machine's name is not one of its own addresses")


def test_an_image_goes_through_the_proxy_and_back(tmp_path: pathlib.Path, name: str) -> None:
    with LayoutStore.create(str(tmp_path / "layout")) as store:
        image = random.image(store, 1, "v1")
    with (
        microsocks(tmp_path / "proxy", "-u", "ada", "-P", "p@ss") as port,
        running("argosy", tmp_path / "registry") as registry,
    ):
        place = f"{name}:{registry.name.rpartition(':')[2]}/app:v1"
        environ = os.environ | {"ALL_PROXY": f"socks5://ada:p%40ss@127.0.0.1:{port}"}

        def argosy(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "argosy", *words]
            return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

        for source, target in (
            (f"oci:{tmp_path}/layout:v1", place),
            (place, f"oci:{tmp_path}/back:v1"),
        ):
            done = argosy("cp", "--plain-http", source, target)
            assert done.returncode == 0, done.stderr
        assert argosy("digest", f"oci:{tmp_path}/back:v1").stdout.strip() == image.digest
        environ["ALL_PROXY"] = f"socks5://ada:SECRET@127.0.0.1:{port}"
        refused = argosy("digest", "--plain-http", place)
        assert "it knows no such user and password" in refused.stderr
        assert "SECRET" not in refused.stderr
        assert refused.returncode == 1
    assert "connected to" in (tmp_path / "proxy/log").read_text()
