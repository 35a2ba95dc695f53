"""What is mounted in a container, for real."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests.engine.conftest import Argosy, alone

pytestmark = pytest.mark.xdist_group("containers")


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


def test_volumes_tmpfs_and_read_only(argosy: Argosy, image: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "data").write_text("from outside")
    argosy(
        "run", "-q", "--rm", "--network", "none", "-v", f"{tmp_path}:/data", "--tmpfs", "/scratch", "--read-only",
        image, "sh", "-c",
        "cat /data/data && echo back > /data/back && touch /scratch/x && ! touch /x 2>/dev/null",
    )  # fmt: skip
    assert (tmp_path / "back").read_text() == "back\n"
    argosy(
        "run",
        "-q",
        "--rm",
        "--network",
        "none",
        "-v",
        f"{tmp_path}:/data:ro",
        image,
        "touch",
        "/data/no",
        code=1,
    )


def test_the_files_of_etc_are_read_only_with_the_root_file_system(
    argosy: Argosy, image: str
) -> None:
    script = "for f in hosts hostname resolv.conf; do (: > /etc/$f) 2>/dev/null || echo no; done"
    assert alone(argosy, image, "sh", "-c", script).out == ""
    assert alone(argosy, image, "sh", "-c", script, options=["--read-only"]).out == "no\n" * 3


@pytest.mark.parametrize(("source", "target"), [("", "/etc/motd"), ("/file", "/etc")])
def test_a_file_and_a_directory_are_not_mounted_on_each_other(
    argosy: Argosy, image: str, tmp_path: pathlib.Path, source: str, target: str
) -> None:
    (tmp_path / "file").touch()
    options = ["-v", f"{tmp_path}{source}:{target}"]
    told = alone(argosy, image, "true", options=options, code=125).err
    assert "hint: a directory can be mounted on a directory, and a file on a file\n" in told


def test_a_mount_within_another_is_seen_in_whatever_order_they_were_typed(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    for name in ("outer", "inner", "etc"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}-file").touch()
    done = argosy(
        "run", "-q", "--rm", "--network", "none", "--tmpfs", "/data/tmp/", "-v", f"{tmp_path}/inner:/data/sub",
        "-v", f"{tmp_path}/outer:/data/.", "-v", f"{tmp_path}/etc:/etc", image,
        "sh", "-c", "ls /data /data/sub /etc; cat /proc/self/mounts",
    )  # fmt: skip
    listed, _, mounts = done.out.partition("overlay")
    names = {"outer-file", "inner-file", "etc-file", "hosts", "resolv.conf", "sub", "tmp"}
    assert names <= set(listed.split())
    assert "tmpfs /data/tmp tmpfs rw,nosuid,nodev,noexec" in mounts


def test_the_images_volumes_can_be_written_where_nothing_else_can(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    volumes = ["--volume", "/etc", "--volume", "/new/one", "--volume", "/mine/below"]
    argosy("mutate", image, *volumes, "-t", f"oci:{tmp_path}/changed:v1")
    made = alone(argosy, f"oci:{tmp_path}/changed:v1", "ls", "-d", "/new/one", "/mine/below").out
    assert made.split() == ["/mine/below", "/new/one"], "where the root can be written, too"
    script = "cat /etc/motd; touch /etc/x /new/one/x /mine/below/x && touch /usr/x || echo refused"
    (tmp_path / "mine" / "below").mkdir(parents=True)
    done = argosy(
        "run", "-q", "--rm", "--read-only", "--network", "none", "-v", f"{tmp_path}/mine:/mine",
        f"oci:{tmp_path}/changed:v1", "sh", "-c", script,
    )  # fmt: skip
    assert done.out.split() == ["ahoy", "refused"]
    assert "/usr/x" in done.err
    assert (tmp_path / "mine" / "below" / "x").exists()
    assert alone(argosy, image, "ls", "/etc").out.split().count("x") == 0


def test_the_callers_umask_is_not_the_containers(
    argosy: Argosy, image: str, tmp_path: pathlib.Path
) -> None:
    argosy("mutate", image, "--volume", "/new/one", "-t", f"oci:{tmp_path}/changed:v1")
    before = os.umask(0o077)
    try:
        script = "ls -ld / /new /new/one /work; cat /etc/hosts; umask"
        options = ["--user", "1000", "--workdir", "/work"]
        done = alone(argosy, f"oci:{tmp_path}/changed:v1", "sh", "-c", script, options=options)
    finally:
        os.umask(before)
    assert done.out.count("drwxr-xr-x") == 4
    assert done.out.splitlines()[-1] == "0022"
