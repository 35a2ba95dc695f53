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


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", ["/data/x", "/data/sub/x", "there", "x"]),
        (",readonly", ["there"]),
        (",readonly,bind-recursive=writable", ["/data/sub/x", "there", "x"]),
        (",bind-recursive=disabled", ["/data/x", "/data/sub/x", "x"]),
    ],
)
def test_a_bind_takes_along_what_its_options_say(
    argosy: Argosy, image: str, tmp_path: pathlib.Path, more: str, told: list[str]
) -> None:
    mount = f"type=bind,source={tmp_path},target=/data{more}"
    run = ("run", "-q", "--rm", "--network", "none", "--mount", mount, image, "sh", "-c", WRITE)
    assert above_a_mount(argosy, tmp_path, *run) == told


def test_a_tmpfs_is_as_large_and_open_as_was_said(argosy: Argosy, image: str) -> None:
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0750", image,
        "sh", "-c", "cat /proc/self/mounts; ls -ld /t",
    )  # fmt: skip
    assert "tmpfs /t tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k,mode=750" in done.out
    assert "drwxr-x---" in done.out


def test_a_source_that_is_not_there_is_made_only_where_that_was_said(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    mount = f"type=bind,src={tmp_path}/new,dst=/data"
    done = argosy("run", "-q", "--rm", "--mount", mount, "oci:/nonexistent-image:v1", code=125)
    assert f"{tmp_path}/new: it is not there" in done.err
    assert not (tmp_path / "new").exists()
    argosy(
        "run", "-q", "--rm", "--network", "none", "--mount", f"{mount},bind-create-src", image,
        "touch", "/data/x",
    )  # fmt: skip
    assert (tmp_path / "new" / "x").exists()
