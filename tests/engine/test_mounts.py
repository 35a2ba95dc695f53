"""What is mounted in a container, for real."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.engine.conftest import Argosy

pytestmark = pytest.mark.xdist_group("containers")


@pytest.fixture
def image(host_layout: pathlib.Path) -> str:
    return f"oci:{host_layout}:v1"


def above_a_mount(argosy: Argosy, directory: pathlib.Path, *argv: str) -> list[str]:
    """The output of argosy where another file system is mounted on `sub` in a directory."""
    (directory / "sub").mkdir()
    script = f'mount -t tmpfs x {directory}/sub && touch {directory}/sub/there && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-m", "argosy", *argv],
        env=argosy.env, capture_output=True, text=True, check=True,  # type: ignore[attr-defined]
    )  # fmt: skip
    told: str = done.stdout
    return told.split()


WRITE = "for f in /data/x /data/sub/x; do touch $f 2>/dev/null && echo $f; done; ls /data/sub"


def test_what_is_read_only_is_so_with_what_is_mounted_below_it(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    told = above_a_mount(
        argosy, tmp_path, "run", "-q", "--rm", "--network", "none", "-v", f"{tmp_path}:/data:ro",
        image, "sh", "-c", WRITE,
    )  # fmt: skip
    assert told == ["there"]
